//! A tile kernel on a CUDA device: its PTX in an engine with one launch, between copies to and from the device.

use silure::ir::dialects::tile::KernelArg;
use silure::ir::{Func, Type};
use silure::target::Target;
use silure_engine::plan::{Arg, Val};
use silure_engine::{DeviceCode, DeviceKernel, DimSpec, EngineWriter, PlanBuilder};
use silure_runtime::{Engine, Tensor};

use super::cpu::Made;
use super::problem::Problem;
use crate::device::Devices;
use crate::failure::{Failure, Result};

/// An engine for the kernel with these sizes.
pub fn make(f: &Func, target: &Target, p: &Problem, devices: &Devices) -> Result<Made> {
    let f = &silure::passes::custom::one_axis(f)?;
    let ptx = silure_cuda::ptx(f, &target.full_name())?;
    let no = |what: &str| Failure::unsupported(format!("@{} on a device: {what}", f.name));
    let [entry] = ptx.entries.as_slice() else { return Err(no("one kernel is run")) };
    let [grid] = entry.launch.grid.as_slice() else { return Err(no("a grid of one axis is run")) };
    let programs = crate::oracle::value(grid, &p.sizes)? as u64;
    let mut plan = PlanBuilder::new();
    let (device, kernel) = (plan.device(silure_cuda::DEVICE), plan.device_kernel(&entry.name));
    let mut e = plan.entry(&f.name);
    let (mut args, mut sizes, mut inputs, mut back) = (vec![], vec![], vec![], vec![]);
    for (i, (v, name)) in f.args().iter().zip(&f.arg_names).enumerate() {
        match (f.ty(*v), &p.args[i]) {
            (Type::Ptr(elem, _), _) if sizes.is_empty() => {
                let t = p.tensor(i)?;
                let (count, bytes) = (t.shape.iter().product::<usize>(), t.bytes().len() as i64);
                let input = e.input(name, *elem, &[DimSpec::fixed(count as u64)]);
                let there = e.on(device).temp(name, bytes);
                // What the kernel alone writes stays as nothing has written it.
                if !matches!(p.args[i], KernelArg::Output(_)) {
                    e.copy(there, 0, input, 0, bytes);
                }
                let written = p.written.contains(&i);
                args.push(if written { Arg::Out(there) } else { Arg::In(there) });
                if written {
                    back.push((name, *elem, count, there, bytes));
                }
                inputs.push(Tensor::new(*elem, &[count], t.bytes())?);
            }
            (Type::Ptr(..), _) => return Err(no("pointers come before sizes")),
            (Type::Index, KernelArg::Index(n)) => sizes.push(Val::Imm(*n)),
            (t, _) => return Err(no(&format!("an argument is {t}; pointers and sizes are given"))),
        }
    }
    if back.is_empty() {
        return Err(no("it has no buffer to write"));
    }
    e.loc(&f.name).launch_device(kernel, &args, &sizes, programs as i64, 0);
    for (i, (name, elem, count, there, bytes)) in back.into_iter().enumerate() {
        let out = e.output(name, elem, &[&count.to_string()]);
        e.set_shape(i as u32, &[Val::Imm(count as i64)]);
        e.copy(out, 0, there, 0, bytes);
    }
    e.finish();
    let shared = if entry.dynamic_shared { entry.launch.shared as u32 } else { 0 };
    let (threads, params) = (entry.launch.threads, f.args().len() as u32);
    let code = ptx.text.len();
    let kernel = DeviceKernel { name: entry.name.clone(), threads, shared, params, text: ptx.text };
    let file = EngineWriter::new(plan.finish()?, silure::VERSION)
        .target(&target.full_name())
        .device_code(&target.full_name(), &DeviceCode { kernels: vec![kernel] })
        .to_bytes(|_, _| Ok(()))?;
    let engine = Engine::from_bytes_with(&file, &devices.options())?;
    Ok(Made { engine, inputs, programs, code })
}
