//! Control flow, scalars and elementwise loops of a tile kernel.

use std::collections::HashMap;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{BlockArg, InstBuilder, Type as Reg, Value, types};
use cranelift_frontend::Variable;
use silure_ir::dialects::tile::Facts;
use silure_ir::{
    Builder, Elem, Func, FuncKind, OpId, RegionId, Result, Traits, Type, ValueId, math,
};
use silure_kernels_cpu::abi;

use super::storage::{Step, Storage, count, outputs, tile_type};
use crate::codegen::emit::{Emit, Val, internal, register};
use crate::codegen::nest::{Nest, Port, Scalar, Sizes, run};
use crate::codegen::prepare::{Body, prepare};
use crate::codegen::{Registry, check_body};

/// Code of one kernel in the making.
pub(super) struct Lower<'c, 'a> {
    pub e: Emit<'a>,
    pub f: &'c Func,
    pub storage: &'c Storage,
    pub facts: &'c Facts,
    pub registry: &'c Registry,
    options: math::Options,
    /// Scalars, indices and pointers.
    pub values: HashMap<ValueId, Value>,
    scratch: Value,
    /// The program's position, and the grid's sizes.
    pub program: Vec<Value>,
    pub grid: Vec<Value>,
}

/// The element type of a value's registers or places; an index is an i64.
pub(super) fn elem(f: &Func, v: ValueId) -> Result<Elem> {
    match f.ty(v) {
        Type::Index => Ok(Elem::I64),
        t => t.elem().ok_or_else(|| internal(format!("a value of type {t} has no elements"))),
    }
}

/// Elementwise ops as a body on scalars that yields `outs`; its arguments are what [`inputs`] gives.
pub(super) fn body(
    f: &Func,
    ops: &[OpId],
    outs: &[ValueId],
    registry: &Registry,
    options: &math::Options,
) -> Result<Body> {
    let mut g = Func::new(&f.name, FuncKind::Private);
    let mut map = HashMap::new();
    for v in inputs(f, ops) {
        let arg = g.add_arg("", Type::Scalar(elem(f, v)?));
        map.insert(v, arg);
    }
    let mut b = Builder::at_end(&mut g);
    for &op in ops {
        let o = f.op(op);
        b.loc = o.loc.clone();
        let operands: Vec<_> = o.slots().map(|v| v.and_then(|v| map.get(&v).copied())).collect();
        let types = o.results.iter().map(|v| Ok(Type::Scalar(elem(f, *v)?)));
        let types = types.collect::<Result<Vec<Type>>>()?;
        let new = b.build(o.def, &operands, o.attrs.clone(), &[], &types)?;
        map.extend(o.results.iter().copied().zip(b.func.op(new).results.iter().copied()));
    }
    let outs: Vec<ValueId> = outs.iter().filter_map(|v| map.get(v).copied()).collect();
    b.yields(&outs)?;
    let body = prepare(&g, g.body, registry, options)?;
    check_body(&body, registry)?;
    Ok(body)
}

/// What ops use and do not define, each once.
fn inputs(f: &Func, ops: &[OpId]) -> Vec<ValueId> {
    let mut out = Vec::new();
    for v in ops.iter().flat_map(|op| f.op(*op).operands()) {
        if !out.contains(&v) && !f.def_op(v).is_some_and(|d| ops.contains(&d)) {
            out.push(v);
        }
    }
    out
}

impl<'c, 'a> Lower<'c, 'a> {
    pub fn new(
        e: Emit<'a>,
        f: &'c Func,
        storage: &'c Storage,
        facts: &'c Facts,
        registry: &'c Registry,
        options: math::Options,
        scratch: Value,
    ) -> Self {
        let values = HashMap::new();
        let (program, grid) = (vec![], vec![]);
        Lower { e, f, storage, facts, registry, options, values, scratch, program, grid }
    }

    pub fn int(&mut self, v: i64) -> Value {
        self.e.b.ins().iconst(types::I64, v)
    }

    /// A scalar, index or pointer.
    pub fn get(&self, v: ValueId) -> Result<Value> {
        self.values.get(&v).copied().ok_or_else(|| internal("a value without a register"))
    }

    /// Operand `i` of an op.
    pub fn operand(&self, op: OpId, i: usize) -> Result<ValueId> {
        self.f.op(op).operand(i).ok_or_else(|| internal(format!("operand {i} is missing")))
    }

    /// Where a tile is.
    pub fn place(&mut self, v: ValueId) -> Result<Value> {
        let at = self.storage.tile(v).ok_or_else(|| internal("a tile without a place"))?;
        Ok(self.e.b.ins().iadd_imm_s(self.scratch, at as i64))
    }

    /// Where a temporary of an op is, if it has it.
    pub fn temp(&mut self, op: OpId, i: usize) -> Option<Value> {
        let at = self.storage.temp(op, i)?;
        Some(self.e.b.ins().iadd_imm_s(self.scratch, at as i64))
    }

    /// `base + i · bytes`.
    pub fn offset(&mut self, base: Value, i: Value, bytes: i64) -> Value {
        let d = self.e.b.ins().imul_imm_s(i, bytes);
        self.e.b.ins().iadd(base, d)
    }

    pub fn variable(&mut self, ty: Reg, v: Value) -> Variable {
        let var = self.e.b.declare_var(ty);
        self.e.b.def_var(var, v);
        var
    }

    /// `body(i)` for i = from, from + step, … while a whole step fits below `to`; where it stopped.
    pub fn count(
        &mut self,
        from: Value,
        to: Value,
        step: i64,
        body: &mut dyn FnMut(&mut Self, Value) -> Result<()>,
    ) -> Result<Value> {
        let b = &mut self.e.b;
        let (head, inside, end) = (b.create_block(), b.create_block(), b.create_block());
        let i = b.append_block_param(head, types::I64);
        b.ins().jump(head, &[BlockArg::Value(from)]);
        b.switch_to_block(head);
        let next = b.ins().iadd_imm_s(i, step);
        let fits = b.ins().icmp(IntCC::SignedLessThanOrEqual, next, to);
        b.ins().brif(fits, inside, &[], end, &[]);
        b.switch_to_block(inside);
        body(self, i)?;
        let b = &mut self.e.b;
        let next = b.ins().iadd_imm_s(i, step);
        b.ins().jump(head, &[BlockArg::Value(next)]);
        b.switch_to_block(end);
        Ok(i)
    }

    /// As [`Lower::count`] from 0 to a constant.
    pub fn times(
        &mut self,
        n: usize,
        step: usize,
        body: &mut dyn FnMut(&mut Self, Value) -> Result<()>,
    ) -> Result<()> {
        let (from, to) = (self.int(0), self.int(n as i64));
        if n == step {
            return body(self, from);
        }
        self.count(from, to, step as i64, body)?;
        Ok(())
    }

    /// Runs `then` if the condition holds.
    pub fn when(
        &mut self,
        condition: Value,
        then: &mut dyn FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let b = &mut self.e.b;
        let (inside, end) = (b.create_block(), b.create_block());
        b.ins().brif(condition, inside, &[], end, &[]);
        b.switch_to_block(inside);
        then(self)?;
        self.e.b.ins().jump(end, &[]);
        self.e.b.switch_to_block(end);
        Ok(())
    }

    /// The steps of a region; what it yields stays where it is.
    pub fn region(&mut self, r: RegionId) -> Result<()> {
        let storage = self.storage;
        for step in storage.steps(r) {
            match step {
                Step::Run(ops) => self.elementwise(ops)?,
                Step::Op(op) => self.op(*op).map_err(|e| e.at(&self.f.op(*op).loc))?,
            }
        }
        Ok(())
    }

    fn op(&mut self, op: OpId) -> Result<()> {
        let (f, o) = (self.f, self.f.op(op));
        if o.def.is(Traits::ELEMENTWISE) {
            return self.scalar(op);
        }
        let axis = o.attrs.int("axis") as usize;
        let value = match o.def.name {
            "core.scalar" => {
                let t = o.attrs.tensor("value").ok_or_else(|| internal("no value"))?;
                let elem = elem(f, o.result())?;
                self.e.constant(elem, t.get(0), false)
            }
            "tile.program_id" => self.program[axis],
            "tile.num_programs" => self.grid[axis],
            "tile.index" => {
                let x = self.operand(op, 0)?;
                let (from, v) = (elem(f, x)?, self.get(x)?);
                crate::codegen::cast::cast(&mut self.e, from, Elem::I64, v)?
            }
            // Accesses read the definition of their view; regions are ended by their owner.
            "tile.view" | "core.yield" | "core.return" => return Ok(()),
            "tile.load" => return self.load(op),
            "tile.store" => return self.store(op),
            "tile.for" => return self.run_for(op),
            "tile.if" => return self.run_if(op),
            "tile.dot" => return self.dot(op),
            _ => return self.compute(op),
        };
        self.values.insert(o.result(), value);
        Ok(())
    }

    /// An elementwise op on scalars and indices.
    fn scalar(&mut self, op: OpId) -> Result<()> {
        let o = self.f.op(op);
        let b = body(self.f, &[op], &o.results, self.registry, &self.options)?;
        let args = inputs(self.f, &[op]).into_iter().map(|v| Ok(Val::One(self.get(v)?)));
        let args = args.collect::<Result<Vec<Val>>>()?;
        self.e.wide = false;
        let y = run(&mut self.e, &b, self.registry, &args)?;
        let y = self.e.lane(b.results[0], y[0], 0);
        self.values.insert(o.result(), y);
        Ok(())
    }

    /// Elementwise ops on tiles, as one loop.
    fn elementwise(&mut self, ops: &[OpId]) -> Result<()> {
        let (f, outs) = (self.f, outputs(self.f, ops));
        let Some(t) = outs.first().and_then(|v| tile_type(f, *v)) else { return Ok(()) };
        let b = body(f, ops, &outs, self.registry, &self.options)?;
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        for v in inputs(f, ops) {
            reads.push(self.port(v)?);
        }
        for &v in &outs {
            writes.push(self.port(v)?);
        }
        let (from, to) = (self.int(0), self.int(count(t) as i64));
        let registry = self.registry;
        let mut nest = Nest { e: &mut self.e, sizes: Sizes::default(), sizes_ptr: from };
        nest.elements(&b, registry, &reads, &writes, from, to)?;
        self.e.wide = false;
        Ok(())
    }

    fn port(&mut self, v: ValueId) -> Result<Port> {
        let (elem, at) = (elem(self.f, v)?, self.place(v)?);
        let row = self.variable(types::I64, at);
        Ok(Port { elem, row, strides: vec![], inner: Scalar::Const(1) })
    }

    /// A copy of a tile, unless it is there already.
    fn copy_tile(&mut self, from: Value, to: Value, like: ValueId) -> Result<()> {
        let Some(t) = tile_type(self.f, like) else { return Err(internal("not a tile")) };
        let bytes = count(t) * t.elem.bytes().unwrap_or(1);
        self.copy_up(to, from, bytes)
    }

    fn scalar_variable(&mut self, v: ValueId, init: Value) -> Result<Variable> {
        let ty = register(elem(self.f, v)?, false);
        Ok(self.variable(ty, init))
    }

    fn run_for(&mut self, op: OpId) -> Result<()> {
        let (f, o) = (self.f, self.f.op(op));
        let [lo, hi, step] = [0, 1, 2].map(|i| self.operand(op, i).and_then(|v| self.get(v)));
        let (lo, hi, step) = (lo?, hi?, step?);
        if !self.operand(op, 2).is_ok_and(|s| self.facts.constant(s).is_some_and(|c| c > 0)) {
            let none = self.e.b.ins().icmp_imm_s(IntCC::SignedLessThan, step, 1);
            self.fail(none, abi::BAD_SIZES);
        }
        let body = o.regions[0];
        let args: Vec<ValueId> = f.region(body).args.clone();
        // Carried scalars are variables; tiles have the place of their argument.
        let mut carried = Vec::new();
        for (&init, &arg) in o.tail().iter().zip(&args[1..]) {
            carried.push(match tile_type(f, arg) {
                Some(_) => {
                    let (from, to) = (self.place(init)?, self.place(arg)?);
                    self.copy_tile(from, to, arg)?;
                    None
                }
                None => {
                    let v = self.get(init)?;
                    Some(self.scalar_variable(arg, v)?)
                }
            });
        }
        let b = &mut self.e.b;
        let (head, inside, end) = (b.create_block(), b.create_block(), b.create_block());
        let i = b.append_block_param(head, types::I64);
        b.ins().jump(head, &[BlockArg::Value(lo)]);
        b.switch_to_block(head);
        let more = b.ins().icmp(IntCC::SignedLessThan, i, hi);
        b.ins().brif(more, inside, &[], end, &[]);
        b.switch_to_block(inside);
        self.values.insert(args[0], i);
        self.bind(&carried, &args[1..]);
        self.region(body)?;
        let yields = f.yields(body);
        // Yielded arguments of other places leave them before anything is overwritten.
        for (k, &v) in yields.iter().enumerate() {
            if let Some(to) = self.temp(op, k) {
                let from = self.place(v)?;
                self.copy_tile(from, to, v)?;
            }
        }
        for (k, (&v, &arg)) in yields.iter().zip(&args[1..]).enumerate() {
            match carried[k] {
                Some(var) => {
                    let x = self.get(v)?;
                    self.e.b.def_var(var, x);
                }
                None if v == arg => {}
                None => {
                    let from = match self.temp(op, k) {
                        Some(t) => t,
                        None => self.place(v)?,
                    };
                    let to = self.place(arg)?;
                    self.copy_tile(from, to, v)?;
                }
            }
        }
        let b = &mut self.e.b;
        // At the end of the range of indices the counter stays at the bound.
        let next = b.ins().iadd(i, step);
        let wraps = b.ins().icmp(IntCC::SignedLessThan, next, i);
        let next = b.ins().select(wraps, hi, next);
        b.ins().jump(head, &[BlockArg::Value(next)]);
        b.switch_to_block(end);
        self.bind(&carried, &o.results);
        Ok(())
    }

    /// Values of carried scalars from here on.
    fn bind(&mut self, variables: &[Option<Variable>], names: &[ValueId]) {
        for (var, &name) in variables.iter().zip(names) {
            if let Some(var) = var {
                let v = self.e.b.use_var(*var);
                self.values.insert(name, v);
            }
        }
    }

    fn run_if(&mut self, op: OpId) -> Result<()> {
        let (f, o) = (self.f, self.f.op(op));
        let condition = self.operand(op, 0)?;
        let condition = self.get(condition)?;
        let b = &mut self.e.b;
        let (then, other, end) = (b.create_block(), b.create_block(), b.create_block());
        b.ins().brif(condition, then, &[], other, &[]);
        let mut variables = Vec::new();
        for &v in &o.results {
            variables.push(match tile_type(f, v) {
                Some(_) => None,
                None => {
                    let ty = register(elem(f, v)?, false);
                    Some(self.e.b.declare_var(ty))
                }
            });
        }
        for (block, &r) in [then, other].into_iter().zip(&o.regions) {
            self.e.b.switch_to_block(block);
            self.region(r)?;
            for ((v, &result), var) in f.yields(r).into_iter().zip(&o.results).zip(&variables) {
                match var {
                    Some(var) => {
                        let x = self.get(v)?;
                        self.e.b.def_var(*var, x);
                    }
                    None => {
                        let (from, to) = (self.place(v)?, self.place(result)?);
                        self.copy_tile(from, to, v)?;
                    }
                }
            }
            self.e.b.ins().jump(end, &[]);
        }
        self.e.b.switch_to_block(end);
        self.bind(&variables, &o.results);
        Ok(())
    }

    /// Ends the call with a status if the condition holds.
    fn fail(&mut self, condition: Value, status: i32) {
        let b = &mut self.e.b;
        let (bad, good) = (b.create_block(), b.create_block());
        b.ins().brif(condition, bad, &[], good, &[]);
        b.switch_to_block(bad);
        let s = b.ins().iconst(types::I32, status as i64);
        b.ins().return_(&[s]);
        b.switch_to_block(good);
    }
}
