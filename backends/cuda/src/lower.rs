//! Graph and kernel ops as launches of tile kernels, and the kernels as code of an engine.
//!
//! All values of a module live on the device. What [`silure_tile`] has kernels for runs there; reshapes and
//! sizes are the host's. There is no fallback: an op without a kernel is refused by name and reason, before
//! anything is generated ([`silure_launch::check`]).

use std::collections::BTreeMap;

use silure_engine::{DeviceCode, DeviceKernel, Plan};
use silure_ir::infer::InferCx;
use silure_ir::{Diagnostic, Dim, Func, Module, OpId, Result, Type, ValueId, bail};
use silure_launch::encode::{Callback, Functions, MapCode};
use silure_launch::{Backend, DeviceLaunch, Lower, Lowering, SHAPES};
use silure_target::Target;
use silure_tile::Arg;

/// The device of a plan, as the runtime names it.
pub const DEVICE: &str = "cuda";

/// The lowerings for CUDA.
pub struct Lowerings {
    ops: BTreeMap<&'static str, &'static Lowering>,
}

impl Default for Lowerings {
    fn default() -> Self {
        let all = SHAPES.iter().copied().chain(TILES).chain([&CUSTOM]);
        Lowerings { ops: all.map(|l| (l.op, l)).collect() }
    }
}

impl Lowerings {
    /// Adds a lowering; a later one for the same op replaces the earlier.
    pub fn register(&mut self, l: &'static Lowering) {
        self.ops.insert(l.op, l);
    }
}

/// The lowerings for a device of so many cores.
pub struct OnCores<'a> {
    table: &'a Lowerings,
    cores: i64,
}

impl Lowerings {
    /// For these targets, all of whose kernels are alike: the fewest of their cores count.
    pub fn on(&self, targets: &[Target]) -> OnCores<'_> {
        let cores = targets.iter().map(|t| t.arch.cores.map_or(1, i64::from)).min();
        OnCores { table: self, cores: cores.unwrap_or(1) }
    }
}

impl Backend for OnCores<'_> {
    fn get(&self, op: &str) -> Option<&'static Lowering> {
        self.table.get(op)
    }

    fn map(&self, f: &Func, op: OpId) -> Option<Result<()>> {
        self.table.map(f, op)
    }

    fn lists(&self) -> bool {
        self.table.lists()
    }

    fn cores(&self) -> i64 {
        self.cores
    }
}

impl Backend for Lowerings {
    fn get(&self, op: &str) -> Option<&'static Lowering> {
        self.ops.get(op).copied()
    }

    fn map(&self, _: &Func, _: OpId) -> Option<Result<()>> {
        None
    }

    fn lists(&self) -> bool {
        false
    }
}

macro_rules! tiles {
    ($($op:literal)*) => {
        /// Ops whose kernels are made of tiles, as far as their types and attributes have any.
        static TILES: &[Lowering] = &[$(Lowering { op: $op, can, lower }),*];
    };
}

tiles! {
    "core.state_write"
    "kernel.map" "kernel.anchor"
    "graph.matmul" "graph.matmul_blocks" "graph.expert_matmul" "graph.conv"
    "graph.softmax" "graph.log_softmax" "graph.layer_norm" "graph.rms_norm" "graph.rotary"
    "graph.attention" "graph.paged_attention"
    "graph.reduce" "graph.argmax" "graph.argmin" "graph.top_k" "graph.sample"
    "graph.max_pool" "graph.average_pool" "graph.resize"
    "graph.matmul_integer" "graph.conv_integer" "graph.conv_transpose"
    "graph.lstm" "graph.gru" "graph.rnn"
    "graph.quantize_rows" "graph.dequantize" "graph.dynamic_quantize" "graph.cumsum"
    "graph.gather_nd" "graph.scatter_elements" "graph.scatter_nd" "graph.reverse_sequence"
    "graph.full" "graph.tile" "graph.trilu" "graph.eye_like"
    "graph.gather" "graph.gather_blocks" "graph.gather_elements" "graph.one_hot" "graph.range"
    "graph.transpose" "graph.broadcast" "graph.slice" "graph.concat" "graph.split" "graph.pad"
}

/// A kernel of the user's in place of ops.
static CUSTOM: Lowering = Lowering { op: "kernel.custom", can: |_| Ok(()), lower: custom };

fn custom(l: &mut Lower, op: OpId) -> Result<Vec<ValueId>> {
    let o = l.b.func.op(op);
    let operands: Vec<ValueId> = o.operands().collect();
    let outs: Vec<Type> = o.results.iter().map(|r| l.b.func.ty(*r).clone()).collect();
    let a = &o.attrs;
    let (args, sizes, init) =
        (a.ints("args").to_vec(), a.dims("sizes").to_vec(), vec![-1; outs.len()]);
    let [grid] = a.dims("grid") else { bail!(Internal, "a grid of several axes") };
    let (grid, kernel) = (grid.clone(), l.custom(a.str("kernel"))?);
    let work = outs.first().and_then(Type::as_tensor).map_or(Dim::Const(0), |t| t.count());
    let launch = DeviceLaunch { args, sizes, grid, work, init, status: None };
    l.on_device(kernel, &operands, &outs, launch)
}

/// What a kernel is called: the op's name without its dialect, as PTX has names.
fn stem(f: &Func, op: OpId) -> String {
    let name = f.op(op).def.name;
    name.rsplit('.').next().unwrap_or(name).to_string()
}

fn can(cx: &InferCx) -> Result<(), String> {
    let known =
        |t: &Type| t.as_tensor().is_none_or(|t| t.dims.iter().all(|d| !runtime(cx.func, d)));
    if !cx.results().iter().all(|t| known(t)) {
        return Err("a size that only the device's data decides".into());
    }
    let made = silure_tile::reporting(cx.func, cx.op, &stem(cx.func, cx.op), 1);
    made.map(|_| ()).map_err(|e| e.message)
}

/// Whether a dim depends on data.
fn runtime(f: &Func, d: &Dim) -> bool {
    d.symbols().iter().any(|s| f.symbols.iter().any(|x| *x.name == **s && x.runtime))
}

/// One launch for each kernel; a later one goes on with what those before it wrote.
fn lower(l: &mut Lower, op: OpId) -> Result<Vec<ValueId>> {
    let made = silure_tile::reporting(l.b.func, op, &stem(l.b.func, op), l.cores)?;
    let o = l.b.func.op(op);
    let given: Vec<Option<ValueId>> = o.slots().collect();
    let types: Vec<Type> = o.results.iter().map(|r| l.b.func.ty(*r).clone()).collect();
    let mut done: Vec<Option<ValueId>> = vec![None; types.len()];
    let mut between: BTreeMap<usize, ValueId> = BTreeMap::new();
    for kernel in made {
        let (mut operands, mut args, mut sizes): (Vec<ValueId>, Vec<i64>, Vec<Dim>) =
            Default::default();
        let (mut outs, mut init): (Vec<usize>, Vec<i64>) = Default::default();
        let (mut status, mut workspaces) = (None, vec![]);
        for a in &kernel.args {
            match a {
                Arg::Operand(0) if matches!(types.first(), Some(Type::State(_))) => {
                    // A state is changed where it lies.
                    let Some(state) = done[0].or(given[0]) else { bail!(Internal, "no state") };
                    args.push(-2);
                    outs.push(0);
                    init.push(operands.len() as i64);
                    operands.push(state);
                }
                Arg::Operand(i) => {
                    let Some(Some(v)) = given.get(*i) else { bail!(Internal, "no operand {i}") };
                    args.push(operands.len() as i64);
                    operands.push(*v);
                }
                Arg::Result(i) => {
                    let at = outs.iter().position(|o| o == i).unwrap_or(outs.len());
                    args.push(-2 - at as i64);
                    if at == outs.len() {
                        outs.push(*i);
                        init.push(match done[*i] {
                            Some(v) => {
                                operands.push(v);
                                operands.len() as i64 - 1
                            }
                            None => -1,
                        });
                    }
                }
                Arg::Value(v) => {
                    args.push(operands.len() as i64);
                    operands.push(*v);
                }
                Arg::Workspace(n, t) => match between.get(n) {
                    Some(v) => {
                        args.push(operands.len() as i64);
                        operands.push(*v);
                    }
                    None => {
                        // Behind the op's own results.
                        workspaces.push((*n, args.len(), t.clone()));
                        args.push(0);
                    }
                },
                Arg::Status => {
                    status = Some(args.len());
                    args.push(-1);
                }
                Arg::Size(d) => sizes.push(d.clone()),
            }
        }
        let mut written: Vec<Type> = outs.iter().map(|i| types[*i].clone()).collect();
        for (_, at, t) in &workspaces {
            args[*at] = -2 - written.len() as i64;
            init.push(-1);
            written.push(Type::Tensor(t.clone()));
        }
        let work = match &written[..] {
            [Type::Tensor(t), ..] => t.count(),
            _ => Dim::Const(0),
        };
        let launch = DeviceLaunch { args, sizes, grid: kernel.grid, work, init, status };
        let new = l.on_device(kernel.func, &operands, &written, launch)?;
        for ((n, ..), v) in workspaces.iter().zip(&new[outs.len()..]) {
            between.insert(*n, *v);
        }
        for (i, v) in outs.into_iter().zip(new) {
            done[i] = Some(v);
        }
    }
    match done.into_iter().collect() {
        Some(all) => Ok(all),
        None => bail!(Internal, "a result that no kernel writes"),
    }
}

/// The kernels that a plan launches, as code for a target.
pub fn device_code(m: &Module, plan: &Plan, target: &str) -> Result<DeviceCode, Vec<Diagnostic>> {
    let (mut kernels, mut errors) = (vec![], vec![]);
    for &name in &plan.device_kernels {
        let name = plan.str(name);
        let Some(f) = m.func(name) else {
            let e = format!("@{name} is launched and is not in the module");
            errors.push(Diagnostic::new(silure_ir::Code::Internal, e));
            continue;
        };
        match crate::print(f, target) {
            Ok(made) => {
                let e = &made.entries[0];
                let shared = if e.dynamic_shared { e.launch.shared as u32 } else { 0 };
                let (threads, params) = (e.launch.threads, f.args().len() as u32);
                let (name, text) = (name.to_string(), made.text);
                kernels.push(DeviceKernel { name, threads, shared, params, text });
            }
            Err(e) => errors.extend(e),
        }
    }
    if errors.is_empty() { Ok(DeviceCode { kernels }) } else { Err(errors) }
}

/// The host has no generated code in a plan for a device.
pub struct NoHostCode;

impl Functions for NoHostCode {
    fn map(&mut self, _: &Func, _: OpId, name: &str) -> Result<(u32, MapCode)> {
        bail!(Internal, "`{name}` was not lowered to the device")
    }

    fn callback(&mut self, _: &Func, _: OpId, name: &str) -> Result<Callback> {
        bail!(Internal, "`{name}` was not lowered to the device")
    }
}
