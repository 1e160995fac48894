//! The plan dialect, encoded into the engine's plan.
//!
//! A value is a buffer. Its kind follows from its definition: an argument is an input, a weight or
//! constant is one, a launch's result is a temporary (in the arena where its size depends on the
//! inputs' dims alone, on the heap otherwise), a view shares its operand's bytes. A result that is
//! returned is written where the caller wants it, without a copy, if a launch of the function's own
//! body makes it.
//!
//! Dims become registers: a symbol of an argument is read from the input's extents; a run-time symbol
//! is a variable, set by `plan.bind` or at the end of a branch.

mod control;
mod dims;
mod list;
mod ops;
mod status;

use std::collections::HashMap;
use std::sync::Arc;

use silure_engine::plan::{Buf, ListOp, Reg, Val};
use silure_engine::{DimSpec, EntryBuilder, Plan, PlanBuilder};
use silure_ir::{Code, Diagnostic, Dim, Func, Module, OpId, RegionId, Result, Type, ValueId};

/// How to launch a map's function: symbolic, over the dims of the function it came from. Arguments
/// are the op's operands, then its results.
#[derive(Clone, PartialEq, Debug)]
pub struct MapCode {
    /// The `sizes` of the call.
    pub sizes: Vec<Dim>,
    /// Number of tasks.
    pub tasks: Dim,
    /// Elementary operations of the whole launch, for scheduling and reports.
    pub work: Dim,
    /// Scratch bytes of one call.
    pub scratch: Dim,
}

/// A function that a kernel calls on each finished tile. Its operands are the launch's last
/// ones, in the buffer slots after those that `args` names.
#[derive(Clone, PartialEq, Debug)]
pub struct Callback {
    /// Function index.
    pub function: u32,
    /// Its `sizes`, which follow the kernel's.
    pub sizes: Vec<Dim>,
}

/// Functions for the host that are generated while the plan is encoded; `name` is for messages.
pub trait Functions {
    /// A function for a `kernel.map`: its index, and how to launch it.
    fn map(&mut self, f: &Func, op: OpId, name: &str) -> Result<(u32, MapCode)>;

    /// The callback of a `plan.launch` with a region.
    fn callback(&mut self, f: &Func, op: OpId, name: &str) -> Result<Callback>;
}

/// Bytes of a weight in the form that it is stored in.
pub type WeightBytes<'a> = dyn Fn(&silure_ir::Weight) -> Result<u64> + 'a;

/// What encoding gives besides code: the plan, and which weight each weight slot holds.
pub struct Encoded {
    /// The plan.
    pub plan: Plan,
    /// Names of the module's weights, in the order of the plan's weights.
    pub weights: Vec<Arc<str>>,
}

/// Encodes every entry of a lowered module. With a `device` all values are in its memory, but inputs,
/// outputs, and what the host computes from sizes, which are copied.
pub fn encode(
    m: &Module,
    functions: &mut dyn Functions,
    weight_bytes: &WeightBytes,
    device: Option<&str>,
) -> Result<Encoded> {
    let mut plan = PlanBuilder::new();
    let device = device.map_or(0, |d| plan.device(d));
    let mut weights = Weights { ids: HashMap::new(), names: vec![], bytes: weight_bytes };
    let mut states = HashMap::new();
    for s in &m.states {
        let dims: Option<Vec<u64>> = s.ty.shape().map(|d| d.iter().map(|&x| x as u64).collect());
        let Some(dims) = dims else {
            return Err(Diagnostic::new(
                Code::Unsupported,
                format!("state @{} has a symbolic shape", s.name),
            )
            .need("constant dims", &s.ty));
        };
        states.insert(s.name.clone(), plan.state(&s.name, s.ty.elem, &dims));
    }
    if m.entries().next().is_none() {
        let what = format!("the module `{}` has nothing to run", m.name);
        return Err(Diagnostic::new(Code::Invalid, what)
            .need("an entry", "functions that only others call"));
    }
    for f in m.entries() {
        encode_entry(m, f, &mut plan, functions, &mut weights, &states, device)?;
    }
    let names = weights.names;
    let plan = plan
        .finish()
        .map_err(|e| Diagnostic::new(Code::Internal, format!("the plan does not validate: {e}")))?;
    Ok(Encoded { plan, weights: names })
}

struct Weights<'a> {
    ids: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
    bytes: &'a WeightBytes<'a>,
}

fn encode_entry(
    m: &Module,
    f: &Func,
    plan: &mut PlanBuilder,
    functions: &mut dyn Functions,
    weights: &mut Weights,
    states: &HashMap<Arc<str>, u32>,
    device: u8,
) -> Result<()> {
    let mut e = plan.entry(&f.name);
    let mut inputs = Vec::new();
    let mut syms: HashMap<Arc<str>, Val> = HashMap::new();
    let mut checks = Vec::new();
    for (i, (v, name)) in f.args().iter().zip(&f.arg_names).enumerate() {
        let Type::Tensor(t) = f.ty(*v) else {
            inputs.push(list::input(&mut e, f, name, f.ty(*v))?);
            continue;
        };
        let specs: Vec<DimSpec> = t.dims.iter().map(|d| dims::spec(f, d)).collect();
        inputs.push(e.input(name, t.elem, &specs));
        for (a, d) in t.dims.iter().enumerate() {
            match d.as_sym() {
                Some(s) if !syms.contains_key(s) => {
                    let v = e.dim(i as u32, a as u32);
                    syms.insert(s.into(), v);
                }
                None if d.as_const().is_none() => checks.push((i as u32, a as u32, d.clone())),
                _ => {}
            }
        }
    }
    let mut outputs = Vec::new();
    for (t, name) in f.result_types.iter().zip(&f.result_names) {
        let Type::Tensor(t) = t else {
            outputs.push(list::output(&mut e, name, t)?);
            continue;
        };
        let dims: Vec<String> = t.dims.iter().map(|d| d.to_string()).collect();
        let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
        outputs.push(e.output(name, t.elem, &dims));
    }
    let mut enc = Encoder {
        m,
        f,
        e,
        functions,
        weights,
        states,
        syms,
        scope: Scope::default(),
        outputs,
        device,
    };
    for (input, axis, d) in checks {
        let have = enc.e.dim(input, axis);
        let want = enc.dim(&d)?;
        let ok = enc.e.bin(silure_engine::plan::BinOp::Eq, have, want);
        let message = format!("axis {axis} of input `{}` is not {d}", f.arg_names[input as usize]);
        enc.e.check(ok, &message, want, have);
    }
    // Variants first, in order; each is a function of the same signature.
    let mut guards_left = Val::Imm(1);
    // Guards speak of the entry's symbols; a body has its own.
    let guards: Vec<Val> =
        f.variants.iter().map(|v| enc.guards(&v.guards)).collect::<Result<_>>()?;
    for (v, guard) in f.variants.iter().zip(guards) {
        let Some(g) = m.func(&v.func) else { continue };
        let both = enc.e.bin(silure_engine::plan::BinOp::And, guards_left, guard);
        let next = enc.e.label();
        enc.e.variant(Some(both));
        enc.e.br_zero(guard, next);
        enc.body(g, &inputs)?;
        enc.e.bind(next);
        let not = enc.e.not(guard);
        guards_left = enc.e.bin(silure_engine::plan::BinOp::And, guards_left, not);
        enc.e.variant(Some(guards_left));
    }
    enc.body(f, &inputs)?;
    enc.e.finish();
    Ok(())
}

/// Encodes one entry.
struct Encoder<'a, 'p, 'w> {
    m: &'a Module,
    f: &'a Func,
    e: EntryBuilder<'p>,
    functions: &'a mut dyn Functions,
    weights: &'a mut Weights<'w>,
    states: &'a HashMap<Arc<str>, u32>,
    /// Values of symbols that arguments bind.
    syms: HashMap<Arc<str>, Val>,
    scope: Scope,
    outputs: Vec<Buf>,
    /// In whose memory values are; 0 for the host.
    device: u8,
}

/// What encoding knows of the function being encoded.
#[derive(Default)]
struct Scope {
    bufs: HashMap<ValueId, Buf>,
    /// Where a value should be written when its launch is encoded.
    dest: HashMap<ValueId, Dest>,
    /// Variables of run-time symbols.
    vars: HashMap<Arc<str>, Reg>,
    /// Where kernels of the device report.
    status: status::Words,
    /// Heap buffers to free after the op at that position of a region.
    frees: HashMap<(RegionId, usize), Vec<Buf>>,
}

/// A place asked for: an output (its shape is to be stated) or another buffer.
#[derive(Clone, Copy)]
enum Dest {
    Output(usize),
    Buf(Buf),
}

impl<'a> Encoder<'a, '_, '_> {
    /// Encodes the body of `g`, an entry or one of its variants, up to its return.
    fn body(&mut self, g: &'a Func, inputs: &[Buf]) -> Result<()> {
        self.f = g;
        self.scope = Scope::default();
        self.syms.clear();
        for (i, v) in g.args().iter().enumerate() {
            self.scope.bufs.insert(*v, inputs[i]);
            let Type::Tensor(t) = g.ty(*v) else { continue };
            for (a, d) in t.dims.iter().enumerate() {
                if let Some(s) = d.as_sym()
                    && !self.syms.contains_key(s)
                {
                    let v = self.e.dim(i as u32, a as u32);
                    self.syms.insert(s.into(), v);
                }
            }
        }
        self.e.on(self.device);
        if self.device != 0 {
            self.upload(inputs)?;
            self.begin_status();
        }
        let returned: Vec<ValueId> = g.yields(g.body);
        for (i, v) in returned.iter().enumerate() {
            // The first output that wants a value gets it in place; others are copied.
            if !self.is_list(*v) && self.device == 0 {
                self.scope.dest.entry(*v).or_insert(Dest::Output(i));
            }
        }
        self.region(g.body)?;
        for (i, v) in returned.iter().enumerate() {
            let have = self.buf(*v)?;
            if self.is_list(*v) {
                self.e.list_op(ListOp::Copy { dst: self.outputs[i], src: have, take: false });
            } else if have != self.outputs[i] {
                let dims = self.tensor_dims(*v)?;
                self.e.set_shape(i as u32, &dims);
                let bytes = self.bytes(*v)?;
                let out = self.outputs[i];
                self.e.copy(out, 0, have, 0, bytes);
            }
        }
        self.check_status();
        self.e.ret();
        Ok(())
    }

    /// Copies the inputs that are used to the device.
    fn upload(&mut self, inputs: &[Buf]) -> Result<()> {
        for (i, v) in self.f.args().iter().enumerate() {
            if self.f.uses(*v).is_empty() {
                continue;
            }
            let name = self.f.arg_names[i].to_string();
            let bytes = self.bytes(*v)?;
            let b = self.e.loc(&name).temp(&name, bytes);
            self.e.copy(b, 0, inputs[i], 0, bytes);
            self.scope.bufs.insert(*v, b);
        }
        Ok(())
    }
}
