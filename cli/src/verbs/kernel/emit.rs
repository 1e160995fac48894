//! The code of a kernel for a target, as text.

use silure::ir::{Func, FuncKind};
use silure::target::Target;
use silure::{Compiler, Options};

use super::{EmitArgs, graph};
use crate::failure::{Failure, Result};
use crate::report::Report;

/// The text.
pub fn emit(
    c: &Compiler,
    f: &Func,
    target: &Target,
    a: &EmitArgs,
    report: &Report,
) -> Result<String> {
    match (&*target.family, f.kind) {
        ("cpu", FuncKind::Kernel) => tile_on_cpu(f, target),
        ("cpu", _) => cpu(c, f, a),
        ("cuda" | "ascend", k) if k != FuncKind::Kernel => Err(Failure::unsupported(format!(
            "@{} is a graph-level entry; {} takes tile kernels so far",
            f.name,
            target.full_name()
        ))),
        ("cuda", _) => {
            let ptx = silure_cuda::ptx(f, &target.full_name())?;
            ptx.notes.iter().for_each(|n| report.warn(n));
            Ok(ptx.text)
        }
        ("ascend", _) => Ok(silure_ascend::emit(f, target)?.mlir),
        (family, _) => {
            Err(Failure::unsupported(format!("there is no backend for {family} in this build")))
        }
    }
}

/// The plan, and how much code was generated for it.
fn cpu(c: &Compiler, f: &Func, a: &EmitArgs) -> Result<String> {
    let loaded = graph::only(c.load(&a.which.file, &Default::default())?, &f.name);
    let options = Options { targets: vec![a.which.target.clone()], ..Options::default() };
    let compiled = c.compile(loaded, &options)?;
    let mut out = String::new();
    for (level, o) in &compiled.objects {
        let (n, bytes) = (o.offsets.len(), o.bytes.len());
        out += &format!("// code for {level}: {n} generated functions, {bytes} bytes\n");
    }
    Ok(out + &compiled.encoded.plan.to_string())
}

/// What the code of a tile kernel is called with.
fn tile_on_cpu(f: &Func, target: &Target) -> Result<String> {
    use silure::cpu::{codegen::IsaLevel, tile};
    let level = IsaLevel::parse(&target.name)?;
    let code = tile::compile(f, level)?;
    let bufs: Vec<&str> = code.bufs.iter().map(|i| &*f.arg_names[*i]).collect();
    let sizes: Vec<String> = code
        .sizes
        .iter()
        .map(|s| match *s {
            tile::Size::Arg(i) => f.arg_names[i].to_string(),
            tile::Size::Grid(axis) => format!("programs along axis {axis}"),
        })
        .collect();
    let grid: Vec<String> = code.grid.iter().map(|d| d.to_string()).collect();
    let mut out = format!(
        "// @{} for {}: {} bytes of machine code, {} bytes of scratch\n// bufs: {}\n// sizes: {}\n\
         // tasks: {}\n",
        f.name,
        target.full_name(),
        code.object.bytes.len(),
        code.scratch,
        bufs.join(", "),
        sizes.join(", "),
        grid.join(" * ")
    );
    // The bytes themselves, for a disassembler: no assembler text is made.
    for line in code.object.bytes.chunks(16) {
        let hex: Vec<String> = line.iter().map(|b| format!("{b:02x}")).collect();
        out += &format!("{}\n", hex.join(" "));
    }
    Ok(out)
}
