//! Times on a device, and what it can do at best.

use std::sync::Arc;
use std::time::Instant;

use silure::ir::Elem;
use silure::ir::infer::InferCx;
use silure::target::Device;
use silure_runtime::{Accelerator, Command, RunOptions, Session, Tensor, TensorRef};

use super::{Bench, Problem, sizes};
use crate::failure::{Failure, Result};
use crate::oracle;
use crate::report::Report;

/// Bytes of the copy that measures the memory, and how often it is made.
const COPIED: u64 = 256 << 20;
const COPIES: u32 = 20;
/// Timed runs; the shortest counts.
const RUNS: usize = 7;

/// What was measured of a problem.
pub struct Timed {
    /// Seconds of its kernels.
    pub seconds: f64,
    /// Additions and multiplications.
    pub flops: f64,
    /// Bytes of arguments and results.
    pub bytes: f64,
    /// What is multiplied.
    pub elem: Elem,
}

/// What the device can do.
pub struct Limits {
    /// Bytes read and written a second by a copy within its memory.
    pub bandwidth: f64,
    /// Its description, if there is one.
    pub described: Option<Device>,
}

impl Limits {
    /// Measures the memory, and looks the card up: by a name that was given, or its own.
    pub fn of(bench: &Bench, name: Option<&str>, report: &Report) -> Result<Limits> {
        let devices: Vec<&Arc<Device>> = bench.c.targets.devices().map(|d| d.1).collect();
        let known = |n: &str| devices.iter().find(|d| d.name == n).map(|d| Device::clone(d));
        let described = match name {
            Some(n) => Some(known(n).ok_or_else(|| {
                let all: Vec<&str> = devices.iter().map(|d| &*d.name).collect();
                Failure::usage(format!("--peaks {n}: described are {}", all.join(", ")))
            })?),
            None => {
                // "NVIDIA A100-SXM4-80GB" is a100-80: all pieces of a described name are in the card's.
                let card = bench.devices.name().to_lowercase().replace(' ', "");
                let has = |d: &&&Arc<Device>| d.name.split('-').all(|p| card.contains(p));
                devices.iter().filter(has).max_by_key(|d| d.name.len()).map(|d| Device::clone(d))
            }
        };
        if described.is_none() {
            report.warn(
                "the card's peaks are not described: shares of them are not said (--peaks NAME)",
            );
        }
        Ok(Limits { bandwidth: bandwidth(bench)?, described })
    }

    /// Additions and multiplications a second on a type.
    pub fn peak(&self, elem: Elem) -> Option<f64> {
        let peaks = &self.described.as_ref()?.peaks;
        peaks.iter().find(|p| p.elems.contains(&elem)).map(|p| p.tera_per_s * 1e12)
    }
}

fn bandwidth(bench: &Bench) -> Result<f64> {
    let Some(device) = bench.devices.device() else {
        return Err(Failure::usage("a device is needed"));
    };
    let queue = device.clone().load(&Default::default())?.queue()?;
    let (from, to) = (device.alloc(COPIED)?, device.alloc(COPIED)?);
    let fill = Command::Fill { to: from, pattern: 0, width: 4, bytes: COPIED };
    let copy = Command::Copy { to, from, bytes: COPIED };
    // SAFETY: both ranges are of so many bytes and stay until the queue has been synchronised.
    let result = unsafe {
        queue
            .submit(fill)
            .and_then(|()| queue.submit(copy))
            .and_then(|()| queue.synchronize())
            .and_then(|()| {
                let begin = Instant::now();
                (0..COPIES).try_for_each(|_| queue.submit(copy))?;
                queue.synchronize()?;
                Ok(2.0 * COPIED as f64 * f64::from(COPIES) / begin.elapsed().as_secs_f64())
            })
    };
    let freed = device.free(from).and(device.free(to));
    let rate = result?;
    freed?;
    Ok(rate)
}

/// Times a problem's kernels on its large sizes.
pub fn time(bench: &Bench, p: &Problem) -> Result<Timed> {
    let (engine, f) = (bench.engine(p.name)?, bench.func(p.name)?);
    let sizes = sizes(f, p.large);
    let inputs = bench.inputs(p, &sizes, 0)?;
    let views: Vec<TensorRef<'_>> = inputs.iter().map(Tensor::view).collect();
    let mut session = Session::new(&engine)?;
    let options = RunOptions { profile: true, ..RunOptions::default() };
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        session.run_with(0, &views, &options)?;
        // Of this run alone.
        let rows = session.profile(0);
        let kernels = rows.iter().filter(|r| r.device == "cuda" && r.kernel != "copy");
        let nanos: u64 = kernels.map(|r| r.nanos).sum();
        best = best.min(nanos as f64 / 1e9);
    }
    let flops = |op| {
        let cost = f.op(op).def.cost?(&InferCx::new(f, op)).flops;
        cost.eval(&|s| sizes.get(s).copied())
    };
    let flops: i64 = f.walk().into_iter().filter_map(flops).sum();
    let mut bytes: u64 = inputs.iter().map(|t| t.bytes().len() as u64).sum();
    for t in &f.result_types {
        let (elem, shape) = oracle::shape(t, &sizes)?;
        bytes += shape.iter().product::<usize>() as u64 * elem.bits() as u64 / 8;
    }
    let elem = f.args().first().and_then(|v| f.ty(*v).elem()).unwrap_or(Elem::F32);
    Ok(Timed { seconds: best, flops: flops as f64, bytes: bytes as f64, elem })
}
