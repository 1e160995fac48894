//! Builds plans: folds and shares size arithmetic, resolves labels, computes live ranges.
//!
//! Arithmetic whose operands depend on the inputs' dims alone goes to the size program wherever it
//! is asked for, so that it is computed once per binding; division by a value that is not a
//! constant stays in place once the code has branched, since a variant that is not taken must not
//! fail. Everything else is emitted where it stands. Pure arithmetic that nothing reads is dropped.
//!
//! ```
//! use silure_engine::{DimSpec, PlanBuilder};
//! use silure_types::Elem;
//! let mut p = PlanBuilder::new();
//! let mut e = p.entry("twice");
//! let x = e.input("x", Elem::F32, &[DimSpec::fixed(8)]);
//! let y = e.output("y", Elem::F32, &["8"]);
//! e.set_shape(0, &[8.into()]);
//! e.loc("node/add").launch("add.f32", &[x, x], &[y], &[8.into()]);
//! e.finish();
//! assert!(p.finish().unwrap().to_string().contains("launch add.f32(%0, %0, out %1) sizes [8]"));
//! ```

mod arith;
mod emit;

use crate::error::Result;
use crate::live;
use crate::plan::*;
use silure_types::Elem;
use std::collections::HashMap;

/// What an axis of an input accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DimSpec {
    /// The extent as text; all axes with one symbol's name must agree.
    pub expr: String,
    /// Whether `expr` is a symbol.
    pub symbol: bool,
    /// Least extent.
    pub min: u64,
    /// Greatest extent.
    pub max: u64,
    /// The extent is a multiple of this.
    pub multiple: u64,
}

impl DimSpec {
    /// Exactly `n`.
    pub fn fixed(n: u64) -> DimSpec {
        DimSpec { expr: n.to_string(), symbol: false, min: n, max: n, multiple: 1 }
    }

    /// A symbol between `min` and `max`.
    pub fn symbol(name: &str, min: u64, max: u64) -> DimSpec {
        DimSpec { expr: name.into(), symbol: true, min, max, multiple: 1 }
    }

    /// An expression over symbols; the plan itself must check it ([`EntryBuilder::check`]).
    pub fn expr(text: &str) -> DimSpec {
        DimSpec { expr: text.into(), symbol: false, min: 0, max: i64::MAX as u64, multiple: 1 }
    }

    /// The same, a multiple of `m`.
    pub fn multiple_of(self, m: u64) -> DimSpec {
        DimSpec { multiple: m, ..self }
    }
}

/// A place in an entry's body to jump to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label(u32);

/// Builds a [`Plan`].
#[derive(Default)]
pub struct PlanBuilder {
    plan: Plan,
    strings: HashMap<String, Str>,
    kernels: HashMap<String, u32>,
    device_kernels: HashMap<String, u32>,
    consts: HashMap<Vec<u8>, u32>,
    texts: HashMap<String, u64>,
}

impl PlanBuilder {
    /// An empty plan for the host.
    pub fn new() -> PlanBuilder {
        let mut b = PlanBuilder::default();
        b.str("");
        let cpu = b.str("cpu");
        b.plan.devices.push(cpu);
        b
    }

    /// The id of a string.
    pub fn str(&mut self, s: &str) -> Str {
        if let Some(&id) = self.strings.get(s) {
            return id;
        }
        let id = Str(self.plan.strings.len() as u32);
        self.plan.strings.push(s.into());
        self.strings.insert(s.into(), id);
        id
    }

    /// The number of a device, to be given to [`EntryBuilder::on`].
    pub fn device(&mut self, id: &str) -> u8 {
        let s = self.str(id);
        let at = self.plan.devices.iter().position(|&d| d == s).unwrap_or_else(|| {
            self.plan.devices.push(s);
            self.plan.devices.len() - 1
        });
        u8::try_from(at).unwrap_or(u8::MAX)
    }

    /// A weight of that many bytes at the next free 64-byte boundary; its bytes are given to the
    /// engine writer in the same order.
    pub fn weight(&mut self, name: &str, bytes: u64) -> u32 {
        let name = self.str(name);
        let offset = self.plan.weight_bytes().next_multiple_of(64);
        self.plan.weights.push(Weight { name, offset, bytes });
        self.plan.weights.len() as u32 - 1
    }

    /// A state, zero at first.
    pub fn state(&mut self, name: &str, elem: Elem, dims: &[u64]) -> u32 {
        let name = self.str(name);
        self.plan.states.push(State { name, elem, dims: dims.to_vec() });
        self.plan.states.len() as u32 - 1
    }

    /// A small constant; equal bytes are stored once.
    pub fn constant(&mut self, bytes: &[u8]) -> u32 {
        if let Some(&id) = self.consts.get(bytes) {
            return id;
        }
        let pool = &mut self.plan.const_bytes;
        pool.resize(pool.len().next_multiple_of(64), 0);
        let offset = pool.len() as u64;
        pool.extend_from_slice(bytes);
        self.plan.consts.push((offset, bytes.len() as u64));
        let id = self.plan.consts.len() as u32 - 1;
        self.consts.insert(bytes.to_vec(), id);
        id
    }

    /// The element of type `string` that stands for a string in constants.
    pub fn text(&mut self, s: &str) -> u64 {
        if s.is_empty() {
            return 0;
        }
        let texts = &mut self.plan.texts;
        *self.texts.entry(s.into()).or_insert_with(|| {
            texts.push(s.into());
            texts.len() as u64
        })
    }

    /// A generated function; code objects list offsets in the order of these calls.
    pub fn function(&mut self, name: &str) -> u32 {
        let s = self.str(name);
        self.plan.functions.push(s);
        self.plan.functions.len() as u32 - 1
    }

    /// The id of a kernel of a device besides the host.
    pub fn device_kernel(&mut self, name: &str) -> u32 {
        if let Some(&k) = self.device_kernels.get(name) {
            return k;
        }
        let s = self.str(name);
        self.plan.device_kernels.push(s);
        let k = self.plan.device_kernels.len() as u32 - 1;
        self.device_kernels.insert(name.into(), k);
        k
    }

    /// The id of a macro-kernel.
    pub fn kernel(&mut self, name: &str) -> u32 {
        if let Some(&k) = self.kernels.get(name) {
            return k;
        }
        let s = self.str(name);
        self.plan.kernels.push(s);
        let k = self.plan.kernels.len() as u32 - 1;
        self.kernels.insert(name.into(), k);
        k
    }

    /// Begins an entry; [`EntryBuilder::finish`] adds it.
    pub fn entry(&mut self, name: &str) -> EntryBuilder<'_> {
        let name = self.str(name);
        EntryBuilder {
            entry: Entry {
                name,
                inputs: vec![],
                outputs: vec![],
                symbols: vec![],
                states: vec![],
                regs: 0,
                buffers: vec![],
                size_end: 0,
                code: vec![],
            },
            plan: self,
            size: vec![],
            body: vec![],
            level: vec![],
            size_cse: HashMap::new(),
            body_cse: HashMap::new(),
            shared: HashMap::new(),
            labels: vec![],
            branched: false,
            guard: None,
            loc: Str(0),
            device: 0,
        }
    }

    /// The plan, validated.
    pub fn finish(self) -> Result<Plan> {
        self.plan.validate()?;
        Ok(self.plan)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Level {
    /// Computed in the size program.
    Size,
    /// Computed once where it stands in the body.
    Body,
    /// Assigned more than once.
    Var,
}

/// Builds one entry of a plan.
pub struct EntryBuilder<'a> {
    plan: &'a mut PlanBuilder,
    entry: Entry,
    size: Vec<Op>,
    body: Vec<Op>,
    level: Vec<Level>,
    size_cse: HashMap<Inst, Reg>,
    body_cse: HashMap<Inst, Reg>,
    shared: HashMap<(BufKind, u8), Buf>,
    labels: Vec<Option<u32>>,
    branched: bool,
    guard: Option<Val>,
    loc: Str,
    device: u8,
}

impl EntryBuilder<'_> {
    /// The plan's tables (weights, constants, kernels), while the entry is being built.
    pub fn plan(&mut self) -> &mut PlanBuilder {
        self.plan
    }

    /// Sets the user's node name for the instructions that follow.
    pub fn loc(&mut self, name: &str) -> &mut Self {
        self.loc = self.plan.str(name);
        self
    }

    /// Sets the device in whose memory the buffers made from here on are: temporaries, weights,
    /// constants, states. Instructions run where their buffers are.
    pub fn on(&mut self, device: u8) -> &mut Self {
        self.device = device;
        self
    }

    fn symbol(&mut self, name: &str) -> u32 {
        let s = self.plan.str(name);
        let known = self.entry.symbols.iter().position(|&x| x == s);
        known.unwrap_or_else(|| {
            self.entry.symbols.push(s);
            self.entry.symbols.len() - 1
        }) as u32
    }

    /// Adds an input.
    pub fn input(&mut self, name: &str, elem: Elem, dims: &[DimSpec]) -> Buf {
        let name = self.plan.str(name);
        let dims = dims
            .iter()
            .map(|d| Dim {
                expr: self.plan.str(&d.expr),
                symbol: d.symbol.then(|| self.symbol(&d.expr)),
                min: d.min,
                max: d.max,
                multiple: d.multiple,
            })
            .collect();
        let (kind, any_shape) = (PortKind::Tensor, false);
        self.entry.inputs.push(Port { name, kind, elem, dims, any_shape });
        self.buffer(BufKind::Input(self.entry.inputs.len() as u32 - 1), name)
    }

    /// Adds an output; its axes are given as text, their extents by [`EntryBuilder::set_shape`].
    pub fn output(&mut self, name: &str, elem: Elem, dims: &[&str]) -> Buf {
        let name = self.plan.str(name);
        let dims = dims
            .iter()
            .map(|d| {
                let fixed = d.parse::<u64>().ok();
                Dim {
                    expr: self.plan.str(d),
                    symbol: None,
                    min: fixed.unwrap_or(0),
                    max: fixed.unwrap_or(i64::MAX as u64),
                    multiple: 1,
                }
            })
            .collect();
        let (kind, any_shape) = (PortKind::Tensor, false);
        self.entry.outputs.push(Port { name, kind, elem, dims, any_shape });
        self.buffer(BufKind::Output(self.entry.outputs.len() as u32 - 1), name)
    }

    /// Adds an input that is a list of tensors of that type; `None` if of any shape.
    pub fn input_list(
        &mut self,
        kind: PortKind,
        name: &str,
        elem: Elem,
        dims: Option<&[DimSpec]>,
    ) -> Buf {
        let b = self.input(name, elem, dims.unwrap_or_default());
        if let Some(p) = self.entry.inputs.last_mut() {
            (p.kind, p.any_shape) = (kind, dims.is_none());
        }
        b
    }

    /// Adds an output that is a list of tensors of that type; `None` if of any shape.
    pub fn output_list(
        &mut self,
        kind: PortKind,
        name: &str,
        elem: Elem,
        dims: Option<&[&str]>,
    ) -> Buf {
        let b = self.output(name, elem, dims.unwrap_or_default());
        if let Some(p) = self.entry.outputs.last_mut() {
            (p.kind, p.any_shape) = (kind, dims.is_none());
        }
        b
    }

    fn buffer(&mut self, kind: BufKind, name: Str) -> Buf {
        let host = matches!(kind, BufKind::Input(_) | BufKind::Output(_) | BufKind::List);
        let device = if host { 0 } else { self.device };
        self.buffer_on(kind, device, name)
    }

    fn buffer_on(&mut self, kind: BufKind, device: u8, name: Str) -> Buf {
        self.entry.buffers.push(BufDecl { kind, device, name });
        Buf(self.entry.buffers.len() as u32 - 1)
    }

    fn shared(&mut self, kind: BufKind, name: Str) -> Buf {
        let key = (kind, self.device);
        if let Some(&b) = self.shared.get(&key) {
            return b;
        }
        let b = self.buffer(kind, name);
        self.shared.insert(key, b);
        b
    }

    /// The buffer of a weight.
    pub fn weight(&mut self, weight: u32) -> Buf {
        let name = self.plan.plan.weights[weight as usize].name;
        self.shared(BufKind::Weight(weight), name)
    }

    /// The buffer of a constant.
    pub fn constant(&mut self, constant: u32) -> Buf {
        self.shared(BufKind::Const(constant), Str(0))
    }

    /// The buffer of a state.
    pub fn state(&mut self, state: u32) -> Buf {
        if let Err(at) = self.entry.states.binary_search(&state) {
            self.entry.states.insert(at, state);
        }
        let name = self.plan.plan.states[state as usize].name;
        self.shared(BufKind::State(state), name)
    }

    /// Adds the entry to the plan and gives its index. A return is added at the end.
    ///
    /// # Panics
    /// If a label that is jumped to was never bound.
    pub fn finish(mut self) -> usize {
        self.ret();
        let n = self.size.len();
        let mut code = std::mem::take(&mut self.size);
        code.append(&mut self.body);
        for op in &mut code {
            if let Inst::BrZero { target, .. } | Inst::Jump { target } = &mut op.inst {
                let at = self.labels[*target as usize];
                *target = n as u32 + at.expect("a label that is jumped to must be bound");
            }
        }
        let (code, size_end) = drop_unread(code, n, &self.entry.buffers);
        self.entry.size_end = size_end;
        self.entry.code = code;
        self.entry.regs = renumber(&mut self.entry);
        let live = live::ranges(&self.entry.code, self.entry.buffers.len());
        for (decl, range) in self.entry.buffers.iter_mut().zip(live) {
            if let BufKind::Arena { bytes, first, last } = &mut decl.kind {
                match range {
                    Some((a, b)) => (*first, *last) = (a, b),
                    None => *bytes = Val::Imm(0),
                }
            }
        }
        self.plan.plan.entries.push(self.entry);
        self.plan.plan.entries.len() - 1
    }
}

/// Drops pure arithmetic whose result nothing reads; jump targets follow.
fn drop_unread(code: Vec<Op>, size_end: usize, buffers: &[BufDecl]) -> (Vec<Op>, u32) {
    let mut reads: HashMap<Reg, usize> = HashMap::new();
    let mut count = |v: Val| {
        if let Val::Reg(r) = v {
            *reads.entry(r).or_default() += 1;
        }
    };
    for op in &code {
        op.inst.vals(&mut count);
    }
    for b in buffers {
        if let BufKind::Arena { bytes, .. } = b.kind {
            count(bytes);
        }
    }
    let mut keep = vec![true; code.len()];
    loop {
        let mut changed = false;
        for (i, op) in code.iter().enumerate().rev() {
            let unread = op.inst.dst().is_some_and(|r| reads.get(&r).copied().unwrap_or(0) == 0);
            if keep[i] && unread && op.inst.is_size() {
                keep[i] = false;
                changed = true;
                op.inst.vals(&mut |v| {
                    if let Val::Reg(r) = v
                        && let Some(n) = reads.get_mut(&r)
                    {
                        *n -= 1;
                    }
                });
            }
        }
        if !changed {
            break;
        }
    }
    let mut at = Vec::with_capacity(code.len() + 1);
    let mut next = 0u32;
    for &k in &keep {
        at.push(next);
        next += k as u32;
    }
    at.push(next);
    let mut code: Vec<Op> =
        code.into_iter().zip(keep).filter_map(|(op, k)| k.then_some(op)).collect();
    for op in &mut code {
        if let Inst::BrZero { target, .. } | Inst::Jump { target } = &mut op.inst {
            *target = at[*target as usize];
        }
    }
    (code, at[size_end])
}

/// Renumbers registers in the order they are first written; gives their number.
fn renumber(entry: &mut Entry) -> u32 {
    let mut map: HashMap<Reg, Reg> = HashMap::new();
    for op in &entry.code {
        if let Some(r) = op.inst.dst() {
            let next = Reg(map.len() as u32);
            map.entry(r).or_insert(next);
        }
    }
    let fix = |r: &mut Reg| {
        // A register that is read is written somewhere: only `fresh` makes them.
        if let Some(&new) = map.get(r) {
            *r = new;
        }
    };
    let fix_val = |v: &mut Val| {
        if let Val::Reg(r) = v {
            fix(r);
        }
    };
    for op in &mut entry.code {
        op.inst.vals_mut(&mut |v| fix_val(v));
        if let Some(dst) = op.inst.dst_mut() {
            fix(dst);
        }
    }
    for b in &mut entry.buffers {
        if let BufKind::Arena { bytes, .. } = &mut b.kind {
            fix_val(bytes);
        }
    }
    map.len() as u32
}
