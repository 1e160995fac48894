//! A tile kernel on the CPU: compiled to machine code, put into an engine with one launch, and run by the
//! runtime like any other engine.
//!
//! Buffers become inputs of the exact size; a buffer that is written is copied to an output first, so that
//! what the kernel leaves alone keeps its contents.

use std::sync::Arc;

use silure::cpu::codegen::IsaLevel;
use silure::cpu::tile;
use silure::ir::Func;
use silure::ir::dialects::tile::KernelArg;
use silure::target::Target;
use silure_engine::plan::{Arg, Val};
use silure_engine::{DimSpec, EngineWriter, PlanBuilder};
use silure_runtime::{Engine, Tensor};

use super::problem::Problem;
use crate::failure::{Failure, Result};

/// An engine for the kernel with these sizes, and its inputs.
pub struct Made {
    /// One entry, with the kernel's name.
    pub engine: Arc<Engine>,
    /// The buffers in order.
    pub inputs: Vec<Tensor>,
    /// Programs of the grid.
    pub programs: u64,
    /// Bytes of machine code.
    pub code: usize,
}

/// Compiles the kernel for a CPU target.
pub fn make(f: &Func, target: &Target, p: &Problem) -> Result<Made> {
    let problems = tile::can(f);
    if !problems.is_empty() {
        return Err(problems.into());
    }
    let level = IsaLevel::parse(&target.name)?;
    let code = tile::compile(f, level)?;
    let scalars: Vec<Option<i64>> = p
        .args
        .iter()
        .zip(f.args())
        .map(|(a, v)| match (a, f.ty(*v).elem()) {
            (KernelArg::Index(i), _) => Some(*i),
            (KernelArg::Scalar(n), Some(e)) => Some(n.encode(e) as i64),
            _ => None,
        })
        .collect();
    let (sizes, programs) = code.bind(&scalars)?;
    let mut plan = PlanBuilder::new();
    let function = plan.function(&f.name);
    let mut e = plan.entry(&f.name);
    let (mut args, mut inputs, mut outputs) = (vec![], vec![], 0);
    for &i in &code.bufs {
        let (elem, _) = p.buffers[&i];
        let t = p.tensor(i)?;
        let (count, bytes) = (t.shape.iter().product::<usize>(), t.bytes().len() as i64);
        let input = e.input(&f.arg_names[i], elem, &[DimSpec::fixed(count as u64)]);
        if p.written.contains(&i) {
            let out = e.output(&f.arg_names[i], elem, &[&count.to_string()]);
            e.set_shape(outputs, &[Val::Imm(count as i64)]);
            e.copy(out, 0, input, 0, bytes);
            args.push(Arg::Out(out));
            outputs += 1;
        } else {
            args.push(Arg::In(input));
        }
        inputs.push(Tensor::new(elem, &[count], t.bytes())?);
    }
    let sizes: Vec<Val> = sizes.into_iter().map(Val::Imm).collect();
    let scratch = code.scratch as i64;
    e.loc(&f.name).launch_code(function, &args, &sizes, programs as i64, 0, scratch);
    e.finish();
    let offsets =
        code.object.offsets.iter().map(|&o| u32::try_from(o)).collect::<Result<Vec<_>, _>>();
    let offsets = offsets.map_err(|_| Failure::unsupported("the kernel's code exceeds 4 GiB"))?;
    let file = EngineWriter::new(plan.finish()?, silure::VERSION)
        .target(&target.full_name())
        .code(level.name(), &offsets, &code.object.bytes)
        .to_bytes(|_, _| Ok(()))?;
    let missing = || Failure::new(silure::Exit::Failure, "the kernel has no buffer to write");
    if outputs == 0 {
        return Err(missing());
    }
    Ok(Made { engine: Engine::from_bytes(&file)?, inputs, programs, code: code.object.bytes.len() })
}
