//! `emulate`: runs a kernel of PTX text on the CPU and reports what a GPU would leave undefined.

use std::path::PathBuf;

use serde_json::json;
use silure_ptx_emulator::{Device, Kind, Launch, Module, Options, Param, Races};
use silure_runtime::{Tensor, npy};
use silure_types::Elem;

use crate::failure::{Failure, Result};
use crate::report::Report;

/// Options.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Arguments are the kernel's parameters in order: i32=7, u64=300, f32=0.5, f32=@x.npy (a buffer \
    with these contents), f32=20x300 (a buffer that nothing has written), null (no buffer). --out N=FILE.npy writes \
    the buffer of parameter N (from 0) after the run."
)]
pub struct Args {
    /// PTX text
    pub file: PathBuf,
    /// The kernel, if there are several
    #[arg(long, value_name = "NAME")]
    pub kernel: Option<String>,
    /// Blocks along x, y, z
    #[arg(long, value_name = "X,Y,Z", value_parser = dims, default_value = "1")]
    pub grid: Dims,
    /// Threads of a block along x, y, z
    #[arg(long, value_name = "X,Y,Z", value_parser = dims, default_value = "1")]
    pub block: Dims,
    /// Bytes of shared memory beside what the text declares
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub shared: usize,
    /// An argument (repeat)
    #[arg(long = "arg", value_name = "TYPE=VALUE")]
    pub args: Vec<String>,
    /// Write a buffer after the run (repeat)
    #[arg(long = "out", value_name = "N=FILE.npy")]
    pub outs: Vec<String>,
    /// Seed of the orders of blocks and warps
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Run in so many orders, each from the same contents; all must give the same bytes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub orders: u32,
    /// Races looked for
    #[arg(long, value_enum, default_value_t)]
    pub races: Look,
    /// The most instructions of warps
    #[arg(long, value_name = "N", default_value_t = 1 << 30)]
    pub budget: u64,
    /// Bytes of device memory
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    pub memory: u64,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Sizes along x, y, z.
#[derive(Clone, Copy, Debug)]
pub struct Dims([u32; 3]);

/// Which races.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default)]
pub enum Look {
    /// Between warps and between blocks.
    #[default]
    All,
    /// In shared memory only.
    Shared,
    /// None.
    Off,
}

fn dims(text: &str) -> Result<Dims, String> {
    let mut out = [1; 3];
    let parts: Vec<&str> = text.split(',').collect();
    if parts.len() > 3 {
        return Err(format!("needed X[,Y[,Z]], present `{text}`"));
    }
    for (o, p) in out.iter_mut().zip(parts) {
        *o = p.trim().parse().map_err(|_| format!("needed X[,Y[,Z]], present `{text}`"))?;
    }
    Ok(Dims(out))
}

/// One argument.
enum Arg {
    Scalar(Param),
    Buffer { elem: Elem, shape: Vec<usize>, bytes: usize, contents: Option<Vec<u8>> },
}

fn argument(text: &str) -> Result<Arg> {
    let bad = || {
        Failure::usage(format!(
            "--arg {text}: needed TYPE=NUMBER, TYPE=@FILE.npy, TYPE=2x3 or null"
        ))
    };
    if text == "null" {
        return Ok(Arg::Scalar(Param::from(0u64)));
    }
    let (ty, value) = text.split_once('=').ok_or_else(bad)?;
    let elem = Elem::parse(ty).filter(|e| e.bytes().is_some()).ok_or_else(|| {
        Failure::usage(format!("--arg {text}: `{ty}` is no element type with whole bytes"))
    })?;
    let size = elem.bytes().unwrap_or(1);
    if let Some(path) = value.strip_prefix('@') {
        let t = npy::read(std::path::Path::new(path))?.into_tensor(elem)?;
        let bytes = t.bytes().to_vec();
        return Ok(Arg::Buffer {
            elem,
            shape: t.shape.clone(),
            bytes: bytes.len(),
            contents: Some(bytes),
        });
    }
    if value.contains('x') {
        let shape = value
            .split('x')
            .map(str::parse::<usize>)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| bad())?;
        let bytes = shape.iter().try_fold(size, |n, d| n.checked_mul(*d)).ok_or_else(bad)?;
        return Ok(Arg::Buffer { elem, shape, bytes, contents: None });
    }
    let bits = if elem.is_int() {
        value.parse::<i128>().map_err(|_| bad())? as u64
    } else {
        elem.encode(value.parse::<f64>().map_err(|_| bad())?)
    };
    Ok(Arg::Scalar(Param(bits.to_le_bytes()[..size.min(8)].to_vec())))
}

fn failure(e: silure_ptx_emulator::Error) -> Failure {
    match e.kind {
        Kind::Unsupported => Failure::unsupported(e.to_string()),
        Kind::Launch => Failure::usage(e.to_string()),
        _ => Failure::new(silure::Exit::Failure, e.to_string()),
    }
}

/// See the module documentation.
pub fn run(a: &Args, report: &mut Report) -> Result<()> {
    let text = std::fs::read_to_string(&a.file).map_err(|e| Failure::io(&a.file, e))?;
    let named = |e: silure_ptx_emulator::Error| {
        let mut f = failure(e);
        f.message = format!("{}: {}", a.file.display(), f.message);
        f
    };
    let module = Module::parse(&text).map_err(named)?;
    let kernels = module.kernels();
    let name = match (&a.kernel, kernels.as_slice()) {
        (Some(n), _) => n.clone(),
        (None, [one]) => one.name.clone(),
        (None, all) => {
            let names: Vec<&str> = all.iter().map(|k| &*k.name).collect();
            let m =
                format!("{}: name a kernel with --kernel: {}", a.file.display(), names.join(", "));
            return Err(Failure::usage(m));
        }
    };
    let args = a.args.iter().map(|t| argument(t)).collect::<Result<Vec<_>>>()?;
    let mut outs = Vec::new();
    for o in &a.outs {
        let (n, path) = o.split_once('=').unwrap_or(("", ""));
        match n.parse::<usize>().ok().and_then(|n| Some((n, args.get(n)?))) {
            Some((n, Arg::Buffer { .. })) => outs.push((n, PathBuf::from(path))),
            _ => {
                return Err(Failure::usage(format!(
                    "--out {o}: needed N=FILE.npy, N a parameter that is a buffer"
                )));
            }
        }
    }
    let races = match a.races {
        Look::All => Races::All,
        Look::Shared => Races::Shared,
        Look::Off => Races::Off,
    };
    let mut first: Option<(silure_ptx_emulator::Report, Vec<Vec<u8>>)> = None;
    for order in 0..a.orders {
        let mut device = Device::new(a.memory);
        let (mut params, mut places) = (Vec::new(), Vec::new());
        for arg in &args {
            params.push(match arg {
                Arg::Scalar(p) => p.clone(),
                Arg::Buffer { bytes, contents, .. } => {
                    let at = device.alloc(*bytes).map_err(failure)?;
                    if let Some(c) = contents {
                        device.write(at, c).map_err(failure)?;
                    }
                    places.push((at, *bytes));
                    Param::from(at)
                }
            });
        }
        let launch = Launch { grid: a.grid.0, block: a.block.0, shared: a.shared, params };
        let seed = a.seed.wrapping_add(order.into());
        let options = Options { seed, budget: a.budget, threads: 0, races };
        let counted = device.launch(&module, &name, &launch, &options).map_err(|e| {
            let mut f = named(e);
            f.message += &format!(" (--seed {seed})");
            f
        })?;
        let mut memory = Vec::new();
        for (at, bytes) in places {
            let mut out = vec![0; bytes];
            if !device.read(at, &mut out).map_err(failure)? && order == 0 {
                report.warn(&format!("a buffer of {bytes} bytes is not written everywhere"));
            }
            memory.push(out);
        }
        match &first {
            None => first = Some((counted, memory)),
            Some((_, m)) if *m != memory => {
                let m = format!(
                    "{name}: the answer with --seed {seed} is not that with --seed {}",
                    a.seed
                );
                return Err(Failure::new(silure::Exit::Failure, m));
            }
            Some(_) => {}
        }
    }
    let Some((r, memory)) = first else { return Ok(()) };
    let buffers = args.iter().enumerate().filter_map(|(i, x)| match x {
        Arg::Buffer { elem, shape, .. } => Some((i, *elem, shape)),
        Arg::Scalar(_) => None,
    });
    for ((i, elem, shape), bytes) in buffers.zip(memory) {
        for (_, path) in outs.iter().filter(|(n, _)| *n == i) {
            npy::write(path, &Tensor::new(elem, shape, &bytes)?)?;
        }
    }
    let all = json!({
        "device": "PTX emulator (CPU)",
        "kernel": name,
        "orders": a.orders,
        "blocks": r.blocks,
        "instructions": r.instructions,
        "opcodes": r.opcodes,
        "global_loaded": r.global_loaded,
        "global_stored": r.global_stored,
        "global_requests": r.global_requests,
        "global_sectors": r.global_sectors,
        "shared_loaded": r.shared_loaded,
        "shared_stored": r.shared_stored,
        "bank_conflicts": r.bank_conflicts,
        "mma": r.mma,
        "mma_flops": r.mma_flops,
    });
    if a.json {
        return report.value(&all);
    }
    report.line(&format!(
        "{name} on the PTX emulator (CPU): no fault in {} orders; {} blocks, {} instructions of warps, {} mma",
        a.orders, r.blocks, r.instructions, r.mma
    ))?;
    report.line(&format!(
        "global: {} bytes loaded, {} stored, {} sectors for {} requests; shared: {} loaded, {} stored, {} bank conflicts",
        r.global_loaded,
        r.global_stored,
        r.global_sectors,
        r.global_requests,
        r.shared_loaded,
        r.shared_stored,
        r.bank_conflicts
    ))
}
