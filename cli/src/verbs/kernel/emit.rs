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
        ("cpu", FuncKind::Kernel) => Err(super::no_device(target)),
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
