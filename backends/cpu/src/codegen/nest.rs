//! Loop nests around a prepared region.
//!
//! A map's task is a block of rows of the collapsed space and a chunk of its inner axis, about
//! [`CHUNK`] elements; within it rows are walked by an odometer over the outer axes, and the inner
//! axis four lanes at a time (unrolled for short bodies), the rest one by one; regions with elementary
//! functions go through the inner axis strip by strip ([`super::stage`]). How an element is
//! computed depends only on its place in the space, so results do not depend on how tasks are split.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    Block, BlockArg, InstBuilder, StackSlotData, StackSlotKind, Type as Reg, Value, types,
};
use cranelift_frontend::Variable;
use silure_ir::{Dim, Elem, Result, Traits, Type};
use std::collections::HashMap;

use super::Registry;
use super::emit::{Current, Emit, LANES, Val, internal, memory};
use super::ops::all_wide;
use super::prepare::Body;
use super::space::Space;
use super::stage::{Place, Plan, STRIP, Step};

/// Elements of a task along the inner axis, and about how many a task has.
pub(crate) const CHUNK: i64 = 4096;

/// The `sizes` a function is launched with.
#[derive(Default)]
pub(crate) struct Sizes(pub Vec<Dim>);

/// What is done along the inner axis.
pub(crate) enum Work {
    /// The region element by element.
    Elements(Box<Body>),
    /// The region in steps over strips.
    Strips(Plan),
}

/// A stride or size in code.
#[derive(Clone, Copy)]
pub(crate) enum Scalar {
    Const(i64),
    Value(Value),
}

/// Reads sizes and multiplies them.
pub(crate) struct Nest<'e, 'a> {
    pub e: &'e mut Emit<'a>,
    pub sizes: Sizes,
    pub sizes_ptr: Value,
}

/// One operand or result of the nest.
#[derive(Clone)]
pub(crate) struct Port {
    pub elem: Elem,
    /// Where the current row begins.
    pub row: Variable,
    /// Bytes per step along each axis of the space.
    pub strides: Vec<Scalar>,
    /// Elements per step along the inner axis.
    pub inner: Scalar,
}

impl Port {
    /// Whether the elements of a row follow one another.
    pub fn is_contiguous(&self) -> bool {
        matches!(self.inner, Scalar::Const(1))
    }
}

impl Nest<'_, '_> {
    /// The value of a dim: small constants in code, others from `sizes`.
    pub fn dim(&mut self, d: &Dim) -> Scalar {
        if let Some(c @ 0..=1) = d.as_const() {
            return Scalar::Const(c);
        }
        // Constants keep slots of their own, so that code does not depend on which happen to agree.
        let shared = |x: &Dim| x == d && d.as_const().is_none();
        let at = self.sizes.0.iter().position(shared).unwrap_or_else(|| {
            self.sizes.0.push(d.clone());
            self.sizes.0.len() - 1
        });
        let p = self.sizes_ptr;
        Scalar::Value(self.e.b.ins().load(types::I64, memory().with_readonly(), p, at as i32 * 8))
    }

    pub fn value(&mut self, s: Scalar) -> Value {
        match s {
            Scalar::Const(c) => self.e.b.ins().iconst(types::I64, c),
            Scalar::Value(v) => v,
        }
    }

    pub fn times(&mut self, s: Scalar, by: i64) -> Scalar {
        match s {
            Scalar::Const(c) => Scalar::Const(c * by),
            Scalar::Value(v) => Scalar::Value(self.e.b.ins().imul_imm_s(v, by)),
        }
    }

    pub fn variable(&mut self, ty: Reg, v: Value) -> Variable {
        let var = self.e.b.declare_var(ty);
        self.e.b.def_var(var, v);
        var
    }

    pub fn port(&mut self, space: &Space, i: usize, elem: Elem, base: Value, inner: usize) -> Port {
        let bytes = elem.cell_bytes() as i64;
        let strides: Vec<Scalar> = space.strides[i]
            .iter()
            .map(|d| {
                let s = self.dim(d);
                self.times(s, bytes)
            })
            .collect();
        let step = space.strides[i].get(inner).cloned().unwrap_or(Dim::Const(1));
        let inner = self.dim(&step);
        Port { elem, row: self.variable(types::I64, base), strides, inner }
    }

    /// Moves a port's row by `n` steps of an axis.
    fn advance(&mut self, p: &Port, axis: usize, n: Value, back: bool) {
        if let Scalar::Const(0) = p.strides[axis] {
            return;
        }
        let s = self.value(p.strides[axis]);
        let d = self.e.b.ins().imul(s, n);
        let at = self.e.b.use_var(p.row);
        let at = if back { self.e.b.ins().isub(at, d) } else { self.e.b.ins().iadd(at, d) };
        self.e.b.def_var(p.row, at);
    }

    /// `for i in from..to { body }`, where `body` gets the counter's value; steps by `step` while a
    /// whole step fits, and returns where it stopped.
    pub fn count(
        &mut self,
        from: Value,
        to: Value,
        step: i64,
        body: &mut dyn FnMut(&mut Self, Value) -> Result<()>,
    ) -> Result<Value> {
        let (head, inside, end) = self.blocks();
        let i = self.e.b.append_block_param(head, types::I64);
        self.e.b.ins().jump(head, &[BlockArg::Value(from)]);
        self.e.b.switch_to_block(head);
        let next = self.e.b.ins().iadd_imm_s(i, step);
        let fits = self.e.b.ins().icmp(IntCC::SignedLessThanOrEqual, next, to);
        self.e.b.ins().brif(fits, inside, &[], end, &[]);
        self.e.b.switch_to_block(inside);
        body(self, i)?;
        let next = self.e.b.ins().iadd_imm_s(i, step);
        self.e.b.ins().jump(head, &[BlockArg::Value(next)]);
        self.e.b.switch_to_block(end);
        Ok(i)
    }

    fn blocks(&mut self) -> (Block, Block, Block) {
        let b = &mut self.e.b;
        (b.create_block(), b.create_block(), b.create_block())
    }

    /// Runs `body` for rows `from..to` of the axes `outer` (of these sizes), with the ports' rows
    /// in place. Ports start at the row of index 0.
    pub fn rows(
        &mut self,
        outer: &[(usize, Value)],
        ports: &[Port],
        from: Value,
        to: Value,
        body: &mut dyn FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let mut rest = from;
        let mut index = vec![];
        for (k, &(axis, size)) in outer.iter().enumerate().rev() {
            let i = if k == 0 {
                rest
            } else {
                let q = self.e.b.ins().udiv(rest, size);
                let r = self.e.b.ins().urem(rest, size);
                rest = q;
                r
            };
            for p in ports {
                self.advance(p, axis, i, false);
            }
            index.push((axis, size, self.variable(types::I64, i)));
        }
        self.count(from, to, 1, &mut |n, _| {
            body(n)?;
            // The odometer: one step of the last axis, carrying into those before it.
            let done = n.e.b.create_block();
            for (k, &(axis, size, var)) in index.iter().enumerate() {
                let one = n.e.b.ins().iconst(types::I64, 1);
                for p in ports {
                    n.advance(p, axis, one, false);
                }
                let i = n.e.b.use_var(var);
                let i = n.e.b.ins().iadd_imm_s(i, 1);
                n.e.b.def_var(var, i);
                if k + 1 == index.len() {
                    break;
                }
                let carry = n.e.b.create_block();
                let more = n.e.b.ins().icmp(IntCC::UnsignedLessThan, i, size);
                n.e.b.ins().brif(more, done, &[], carry, &[]);
                n.e.b.switch_to_block(carry);
                for p in ports {
                    n.advance(p, axis, size, true);
                }
                let zero = n.e.b.ins().iconst(types::I64, 0);
                n.e.b.def_var(var, zero);
            }
            n.e.b.ins().jump(done, &[]);
            n.e.b.switch_to_block(done);
            Ok(())
        })?;
        Ok(())
    }

    /// The inner loop over elements `from..to` of the current rows.
    pub fn inner(
        &mut self,
        work: &Work,
        registry: &Registry,
        inputs: &[Port],
        outputs: &[Port],
        from: Value,
        to: Value,
    ) -> Result<()> {
        match work {
            Work::Elements(body) => self.elements(body, registry, inputs, outputs, from, to),
            Work::Strips(plan) => self.strips(plan, registry, inputs, outputs, from, to),
        }
    }

    /// [`Nest::inner`] step by step over strips.
    fn strips(
        &mut self,
        plan: &Plan,
        registry: &Registry,
        inputs: &[Port],
        outputs: &[Port],
        from: Value,
        to: Value,
    ) -> Result<()> {
        const LINE: i64 = 64;
        let bytes = (plan.frame + LINE) as u32;
        let frame = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 4);
        let frame = self.e.b.create_sized_stack_slot(frame);
        let base = self.e.b.ins().stack_addr(types::I64, frame, 0);
        let base = self.e.b.ins().iadd_imm_s(base, LINE - 1);
        let base = self.e.b.ins().band_imm_s(base, -LINE);
        let mut slots = Vec::new();
        for s in &plan.slots {
            let row = self.variable(types::I64, base);
            slots.push(Port { elem: s.elem, row, strides: vec![], inner: Scalar::Const(1) });
        }
        let (head, inside, end) = self.blocks();
        let at = self.variable(types::I64, from);
        self.e.b.ins().jump(head, &[]);
        self.e.b.switch_to_block(head);
        let i = self.e.b.use_var(at);
        let more = self.e.b.ins().icmp(IntCC::SignedLessThan, i, to);
        self.e.b.ins().brif(more, inside, &[], end, &[]);
        self.e.b.switch_to_block(inside);
        let next = self.e.b.ins().iadd_imm_s(i, STRIP);
        let stop = self.e.b.ins().smin(next, to);
        for (p, s) in slots.iter().zip(&plan.slots) {
            // A slot begins with the strip: its row is where element 0 would be.
            let back = self.e.b.ins().imul_imm_s(i, s.elem.cell_bytes() as i64);
            let row = self.e.b.ins().iadd_imm_s(base, s.offset);
            let row = self.e.b.ins().isub(row, back);
            self.e.b.def_var(p.row, row);
        }
        let port = |p: &Place, elem: Option<Elem>| {
            let mut port = match *p {
                Place::Arg(i) => inputs[i].clone(),
                Place::Result(i) => outputs[i].clone(),
                Place::Slot(i) => slots[i].clone(),
            };
            port.elem = elem.unwrap_or(port.elem);
            port
        };
        for step in &plan.steps {
            match step {
                Step::Loop { body, reads, writes } => {
                    let typed = |(p, e): (&Place, &Elem)| port(p, Some(*e));
                    let ins: Vec<Port> = reads.iter().zip(&body.args).map(typed).collect();
                    let outs: Vec<Port> = writes.iter().zip(&body.results).map(typed).collect();
                    self.elements(body, registry, &ins, &outs, i, stop)?;
                }
                Step::Call { function, from, to } => {
                    let mut args = Vec::new();
                    for p in std::iter::once(to).chain(from) {
                        args.push(self.address(&port(p, None), i));
                    }
                    args.push(self.e.b.ins().isub(stop, i));
                    self.e.strip_call(function, &args)?;
                }
            }
        }
        self.e.b.def_var(at, next);
        self.e.b.ins().jump(head, &[]);
        self.e.b.switch_to_block(end);
        Ok(())
    }

    /// [`Nest::inner`] of a region in one loop.
    pub fn elements(
        &mut self,
        body: &Body,
        registry: &Registry,
        inputs: &[Port],
        outputs: &[Port],
        from: Value,
        to: Value,
    ) -> Result<()> {
        // What is repeated along the axis is loaded once.
        let mut fixed = Vec::new();
        for p in inputs {
            let at = self.e.b.use_var(p.row);
            fixed.push(match p.inner {
                Scalar::Const(0) => Some(self.e.load(p.elem, at, 0, false)),
                _ => None,
            });
        }
        let unroll = match body.ops().len() {
            0..=12 => 4,
            13..=40 => 2,
            _ => 1,
        };
        let step = |n: &mut Self, i: Value, lanes: usize, times: usize| -> Result<()> {
            let mut results = Vec::new();
            for u in 0..times {
                let mut args = Vec::new();
                for (p, f) in inputs.iter().zip(&fixed) {
                    args.push(match f {
                        Some(v) => *v,
                        None => n.read(p, i, lanes, u),
                    });
                }
                n.e.wide = lanes > 1;
                results.push(run(n.e, body, registry, &args)?);
            }
            for (u, vals) in results.into_iter().enumerate() {
                for (p, v) in outputs.iter().zip(vals) {
                    n.write(p, i, lanes, u, v)?;
                }
            }
            Ok(())
        };
        let mut at = from;
        if unroll > 1 {
            let whole = (LANES * unroll) as i64;
            at = self.count(at, to, whole, &mut |n, i| step(n, i, LANES, unroll))?;
        }
        at = self.count(at, to, LANES as i64, &mut |n, i| step(n, i, LANES, 1))?;
        self.count(at, to, 1, &mut |n, i| step(n, i, 1, 1))?;
        Ok(())
    }

    /// The address of element `i` of a port's row, for contiguous ports.
    fn address(&mut self, p: &Port, i: Value) -> Value {
        let row = self.e.b.use_var(p.row);
        let shift = p.elem.cell_bytes().trailing_zeros() as i64;
        let offset = self.e.b.ins().ishl_imm_s(i, shift);
        self.e.b.ins().iadd(row, offset)
    }

    /// The address of element `i` of a port's row for any stride.
    fn scattered(&mut self, p: &Port, i: Value) -> Value {
        let row = self.e.b.use_var(p.row);
        let bytes = p.elem.cell_bytes() as i64;
        let s = self.times(p.inner, bytes);
        let s = self.value(s);
        let offset = self.e.b.ins().imul(i, s);
        self.e.b.ins().iadd(row, offset)
    }

    fn read(&mut self, p: &Port, i: Value, lanes: usize, u: usize) -> Val {
        let bytes = p.elem.cell_bytes();
        if let Scalar::Const(1) = p.inner {
            let at = self.address(p, i);
            return self.e.load(p.elem, at, (u * lanes * bytes) as i32, lanes > 1);
        }
        let one = |n: &mut Self, k: usize| {
            let i = n.e.b.ins().iadd_imm_s(i, (u * lanes + k) as i64);
            let at = n.scattered(p, i);
            match n.e.load(p.elem, at, 0, false) {
                Val::One(v) | Val::Wide(v) => v,
                Val::Lanes(l) => l[0],
            }
        };
        if lanes == 1 {
            Val::One(one(self, 0))
        } else {
            Val::Lanes(std::array::from_fn(|k| one(self, k)))
        }
    }

    fn write(&mut self, p: &Port, i: Value, lanes: usize, u: usize, v: Val) -> Result<()> {
        let bytes = p.elem.cell_bytes();
        if let Scalar::Const(1) = p.inner {
            let at = self.address(p, i);
            let v = match v {
                Val::One(x) if lanes > 1 => match self.e.widen(p.elem, v) {
                    Some(w) => Val::Wide(w),
                    None => Val::Lanes([x; LANES]),
                },
                Val::Lanes(_) => self.e.widen(p.elem, v).map_or(v, Val::Wide),
                v => v,
            };
            return self.e.store(p.elem, v, at, (u * lanes * bytes) as i32);
        }
        for k in 0..lanes {
            let x = self.e.lane(p.elem, v, k);
            let i = self.e.b.ins().iadd_imm_s(i, (u * lanes + k) as i64);
            let at = self.scattered(p, i);
            self.e.store(p.elem, Val::One(x), at, 0)?;
        }
        Ok(())
    }
}

/// Emits the region once, for one element or four.
pub(crate) fn run(
    e: &mut Emit,
    body: &Body,
    registry: &Registry,
    args: &[Val],
) -> Result<Vec<Val>> {
    let f = &body.func;
    let wide = e.wide;
    let mut vals: HashMap<silure_ir::ValueId, Val> = HashMap::new();
    vals.extend(f.args().iter().copied().zip(args.iter().copied()));
    for &op in body.ops() {
        let o = f.op(op);
        let get = |v| vals.get(&v).copied().ok_or_else(|| internal("a value without definition"));
        let operands: Vec<Val> = o.operands().map(get).collect::<Result<_>>()?;
        if o.def.is(Traits::TERMINATOR) {
            return Ok(operands);
        }
        let elem = |v| match f.ty(v) {
            Type::Scalar(e) => Ok(*e),
            t => Err(internal(format!("a region on scalars has a {t}"))),
        };
        let out = elem(o.result())?;
        if o.def.is(Traits::CONSTANT) {
            let t = o.attrs.tensor("value").ok_or_else(|| internal("a constant without value"))?;
            vals.insert(o.result(), Val::One(e.constant(out, t.get(0), false)));
            continue;
        }
        let lowering = registry.get(o.def.name).ok_or_else(|| internal("no lowering"))?;
        e.current = Current {
            attrs: o.attrs.clone(),
            elems: o.operands().map(elem).collect::<Result<_>>()?,
            out,
            known: o.operands().map(|v| known(f, v)).collect(),
        };
        let uniform = operands.iter().all(|v| matches!(v, Val::One(_)));
        let one = |e: &mut Emit, lane: usize| -> Result<Value> {
            e.wide = false;
            let elems = e.current.elems.clone();
            let x: Vec<Value> =
                operands.iter().zip(elems).map(|(&v, t)| e.lane(t, v, lane)).collect();
            let y = (lowering.emit)(e, &x).map_err(|d| d.at(&o.loc));
            e.wide = wide;
            y
        };
        let y = if !wide || uniform {
            Val::One(one(e, 0)?)
        } else if all_wide(&e.current) && (lowering.wide)(&e.current, e.features) {
            let elems = e.current.elems.clone();
            let x: Option<Vec<Value>> = o
                .operands()
                .zip(&operands)
                .zip(elems)
                .map(|((v, &x), t)| match known(f, v) {
                    Some(n) => Some(e.constant(t, n, true)),
                    None => e.widen(t, x),
                })
                .collect();
            let x = x.ok_or_else(|| internal("a type without vector form"))?;
            Val::Wide((lowering.emit)(e, &x).map_err(|d| d.at(&o.loc))?)
        } else {
            let mut lanes = [None; LANES];
            for (k, l) in lanes.iter_mut().enumerate() {
                *l = Some(one(e, k)?);
            }
            match lanes {
                [Some(a), Some(b), Some(c), Some(d)] => Val::Lanes([a, b, c, d]),
                _ => return Err(internal("a lane is missing")),
            }
        };
        vals.insert(o.result(), y);
    }
    Err(internal("a region without terminator"))
}

fn known(f: &silure_ir::Func, v: silure_ir::ValueId) -> Option<silure_ir::Num> {
    let o = f.op(f.def_op(v)?);
    o.def.is(Traits::CONSTANT).then(|| o.attrs.tensor("value").map(|t| t.get(0)))?
}
