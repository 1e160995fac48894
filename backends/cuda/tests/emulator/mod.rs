//! Runs printed PTX in the emulator, with a kernel's arguments as the interpreters take them.

#![allow(dead_code, reason = "each test that includes this file uses a part of it")]

use silure_cuda::PtxModule;
use silure_ir::dialects::tile::{KernelArg, symbol_args};
use silure_ir::{Context, Func, Type, text};
use silure_ptx_emulator::{Device, Launch, Module, Options, Param, Report};

pub fn context() -> Context {
    let mut cx = Context::new();
    silure_simt::register(&mut cx).unwrap();
    cx
}

pub fn parse(file: &str, source: &str) -> Func {
    let m = text::parse_verified(&context(), file, source).unwrap_or_else(|e| panic!("{e:?}"));
    m.funcs[0].clone()
}

pub fn path(file: &str) -> String {
    format!("{}/../../{file}", env!("CARGO_MANIFEST_DIR"))
}

/// The kernel of a file, by its path in the repository.
pub fn kernel(file: &str) -> Func {
    let path = path(file);
    parse(file, &std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")))
}

/// A table of docs/cuda.md is this one; with BLESS it becomes it.
pub fn page(name: &str, table: &str) {
    // Tests that write other tables of the file run beside this one.
    static WRITE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = WRITE.lock().unwrap();
    let file = path("docs/cuda.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let at = text.find(&begin).unwrap() + begin.len();
    let stop = text.find(&end).unwrap();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, format!("{}{table}{}", &text[..at], &text[stop..])).unwrap();
        return;
    }
    assert!(text[at..stop] == *table, "{file} is not what was seen; BLESS=1 rewrites it:\n{table}");
}

pub fn options(seed: u64) -> Options {
    Options { seed, ..Options::default() }
}

/// Runs a text that was printed for `f`, or made from one; outputs are filled in, with all bits set where nothing was
/// written.
pub fn run(
    m: &PtxModule,
    text: &str,
    f: &Func,
    args: &mut [KernelArg],
    options: &Options,
) -> Result<Report, silure_ptx_emulator::Error> {
    let module = Module::parse(text)?;
    let mut d = Device::new(1 << 28);
    let (mut params, mut places) = (Vec::new(), Vec::new());
    for (v, a) in f.args().iter().zip(args.iter()) {
        let mut place = 0;
        params.push(match (f.ty(*v), a) {
            (_, KernelArg::Buffer(b)) => {
                place = d.alloc(b.len())?;
                d.write(place, b)?;
                Param::from(place)
            }
            (_, KernelArg::Output(b)) => {
                place = d.alloc(b.len())?;
                Param::from(place)
            }
            (_, KernelArg::Index(i)) => Param::from(*i),
            (Type::Scalar(e), KernelArg::Scalar(n)) => {
                Param(n.encode(*e).to_le_bytes()[..e.bits().div_ceil(8)].to_vec())
            }
            (t, _) => panic!("an argument of {t}"),
        });
        places.push(place);
    }
    let symbols = symbol_args(f);
    let value = |name: &str| {
        let (_, arg) = symbols.iter().find(|(s, _)| *s.name == *name)?;
        match args.get((*arg)?)? {
            KernelArg::Index(v) => Some(*v),
            _ => None,
        }
    };
    let entry = &m.entries[0];
    let mut grid = [1u32; 3];
    for (g, dim) in grid.iter_mut().zip(&entry.launch.grid) {
        *g = dim.eval(&value).and_then(|v| u32::try_from(v).ok()).expect("a grid");
    }
    let shared = if entry.dynamic_shared { entry.launch.shared as usize } else { 0 };
    let launch = Launch { grid, block: [entry.launch.threads, 1, 1], shared, params };
    let report = d.launch(&module, &entry.name, &launch, options)?;
    for (a, place) in args.iter_mut().zip(places) {
        if let KernelArg::Output(b) | KernelArg::Buffer(b) = a {
            for (i, byte) in b.iter_mut().enumerate() {
                let mut one = [0];
                *byte = if d.read(place + i as u64, &mut one)? { one[0] } else { 0xFF };
            }
        }
    }
    Ok(report)
}

/// The elementwise ops of one operand on floats.
pub const UNARY: [&str; 26] = [
    "relu",
    "neg",
    "abs",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "recip",
    "tanh",
    "erf",
    "gelu",
    "sigmoid",
    "floor",
    "ceil",
    "round",
    "trunc",
    "sign",
    "softplus",
    "elu",
    "clip",
    "leaky_relu",
    "hard_sigmoid",
    "expm1",
    "log1p",
    "atan",
    "sinh",
];
