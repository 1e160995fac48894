//! Control flow: branches and loops of the graph dialect as jumps.
//!
//! The results of a branch get their buffers before it where their size is known, and in each arm
//! otherwise. A loop's carried values have buffers of their own; a value yielded is copied there at
//! the end of an iteration, through a staging buffer where it is another carried value.

use std::collections::HashSet;

use silure_engine::plan::{BinOp, Buf, ListOp, LoadMode, Val};
use silure_ir::{Code, Def, Diagnostic, OpId, RegionId, Result, Type, ValueId, bail};

use super::{Dest, Encoder};

impl Encoder<'_, '_, '_> {
    /// Whether every dim of a value's type can be computed now.
    fn sized(&self, v: ValueId) -> bool {
        let Type::Tensor(t) = self.f.ty(v) else { return false };
        t.dims.iter().flat_map(|d| d.symbols()).all(|s| self.syms.contains_key(&s))
    }

    /// Whether an op of that very region makes the value by writing a buffer of its choice.
    fn made_in(&self, v: ValueId, r: RegionId) -> bool {
        match self.f.value(v).def {
            Def::Result(op, _) => {
                let o = self.f.op(op);
                o.parent() == Some(r)
                    && (o.def.dialect() == "kernel"
                        || o.def.name == "plan.launch"
                        || o.def.name == "graph.if")
            }
            Def::Arg(..) => false,
        }
    }

    pub(super) fn branch(&mut self, op: OpId) -> Result<()> {
        let o = self.f.op(op);
        let Some(c) = o.operand(0) else { bail!(Internal, "no condition") };
        let cond_buf = self.buf(c)?;
        let elem = self.tensor(c)?.elem;
        let cond = self.e.load(cond_buf, 0, elem, LoadMode::Value);
        let results = o.results.clone();
        let mut heap: Vec<Option<Buf>> = Vec::new();
        for &v in &results {
            if self.is_list(v) {
                self.new_list(v);
                heap.push(None);
            } else if self.sized(v) {
                self.result_buf(v)?;
                heap.push(None);
            } else {
                // The size is what the arm taken says: variables, and a heap buffer unless the
                // caller's output takes it.
                for s in self.run_symbols(v) {
                    if !self.scope.vars.contains_key(s.as_str()) {
                        self.bind_symbol(&s, Val::Imm(0));
                    }
                }
                heap.push(match self.scope.dest.get(&v) {
                    Some(Dest::Output(_)) => None,
                    Some(Dest::Buf(b)) => Some(*b),
                    None => Some(self.e.heap("")),
                });
            }
        }
        let (other, end) = (self.e.label(), self.e.label());
        self.e.br_zero(cond, other);
        for (arm, &r) in o.regions.iter().enumerate() {
            let yields = self.f.yields(r);
            for (v, y) in results.iter().zip(&yields) {
                if let Some(&b) = self.scope.bufs.get(v)
                    && !self.is_list(*v)
                    && self.made_in(*y, r)
                    && !self.scope.dest.contains_key(y)
                {
                    self.scope.dest.insert(*y, Dest::Buf(b));
                }
            }
            self.region(r)?;
            let end_of_arm = self.f.terminator(r).unwrap_or(op);
            for ((v, y), h) in results.iter().zip(&yields).zip(&heap) {
                if self.is_list(*v) {
                    self.assign(self.buf(*v)?, *y, end_of_arm)?;
                    continue;
                }
                let from = self.buf(*y)?;
                let bytes = self.bytes(*y)?;
                let (to_ty, from_ty) = (self.f.ty(*v).clone(), self.f.ty(*y).clone());
                self.bind_dims(&to_ty, &from_ty)?;
                let to = match (self.scope.bufs.get(v), h) {
                    (Some(b), None) => *b,
                    (_, Some(b)) => {
                        self.e.alloc(*b, bytes);
                        *b
                    }
                    (None, None) => {
                        let Some(Dest::Output(i)) = self.scope.dest.get(v).copied() else {
                            bail!(Internal, "a branch result has no buffer")
                        };
                        let dims = self.tensor_dims(*y)?;
                        self.e.set_shape(i as u32, &dims);
                        self.outputs[i]
                    }
                };
                if to != from {
                    self.e.copy(to, 0, from, 0, bytes);
                }
            }
            if arm == 0 {
                self.e.jump(end);
                self.e.bind(other);
            }
        }
        self.e.bind(end);
        for (v, h) in results.iter().zip(&heap) {
            if let Some(b) = h {
                self.scope.bufs.insert(*v, *b);
                self.free_after_last_use(*v, *b);
            } else if !self.scope.bufs.contains_key(v)
                && let Some(Dest::Output(i)) = self.scope.dest.get(v)
            {
                let b = self.outputs[*i];
                self.scope.bufs.insert(*v, b);
            }
        }
        Ok(())
    }

    /// Run-time symbols in a value's type, those that stand alone as a dim.
    fn run_symbols(&self, v: ValueId) -> Vec<String> {
        let Type::Tensor(t) = self.f.ty(v) else { return vec![] };
        t.dims
            .iter()
            .filter_map(|d| d.as_sym())
            .filter(|s| !self.syms.contains_key(*s))
            .map(str::to_string)
            .collect()
    }

    /// `graph.loop`: operands trip count, condition, carried values; the body gets the iteration
    /// number, the condition and the carried values and yields the condition, the next carried
    /// values and a slice for each scan output.
    pub(super) fn looped(&mut self, op: OpId) -> Result<()> {
        let o = self.f.op(op);
        let r = o.regions[0];
        let args = self.f.region(r).args.clone();
        let yields = self.f.yields(r);
        let carried: Vec<ValueId> = o.tail().to_vec();
        let scans = &yields[1 + carried.len()..];
        let trip = match o.operand(0) {
            Some(v) => {
                let (b, e) = (self.buf(v)?, self.tensor(v)?.elem);
                self.e.load(b, 0, e, LoadMode::Value)
            }
            None => Val::Imm(i64::MAX),
        };
        let cond = self.e.var(1);
        if let Some(v) = o.operand(1) {
            let (b, e) = (self.buf(v)?, self.tensor(v)?.elem);
            let c = self.e.load(b, 0, e, LoadMode::Value);
            self.e.set(cond, c);
        }
        // The iteration number and condition as tensors, for the body.
        let (i_buf, c_buf) = (self.e.temp("i", 8), self.e.temp("cond", 1));
        self.scope.bufs.insert(args[0], i_buf);
        self.scope.bufs.insert(args[1], c_buf);
        let mut homes = Vec::new();
        for (a, init) in args[2..].iter().zip(&carried) {
            if self.is_list(*a) {
                let home = self.e.list("");
                self.scope.bufs.insert(*a, home);
                self.assign(home, *init, op)?;
                homes.push(home);
                continue;
            }
            let (to, from) = (self.f.ty(*a).clone(), self.f.ty(*init).clone());
            self.bind_dims(&to, &from)?;
            let (src, bytes) = (self.buf(*init)?, self.bytes(*init)?);
            let home = if self.sized(*a) {
                self.e.temp("", bytes)
            } else {
                let b = self.e.heap("");
                self.e.alloc(b, bytes);
                b
            };
            self.e.copy(home, 0, src, 0, bytes);
            self.scope.bufs.insert(*a, home);
            homes.push(home);
        }
        // A scan output grows by doubling: its length is known only at the end.
        let mut grown = Vec::new();
        for _ in scans {
            let b = self.e.heap("scan");
            self.e.alloc(b, 0);
            grown.push((b, self.e.var(0), self.e.var(0)));
        }
        let i = self.e.var(0);
        let (top, done) = (self.e.label(), self.e.label());
        self.e.bind(top);
        let more = self.e.bin(BinOp::Lt, i, trip);
        let go = self.e.bin(BinOp::And, more, cond);
        self.e.br_zero(go, done);
        self.e.store(i_buf, 0, silure_ir::Elem::I64, i);
        self.e.store(c_buf, 0, silure_ir::Elem::Bool, cond);
        self.region(r)?;
        let (b, e) = (self.buf(yields[0])?, self.tensor(yields[0])?.elem);
        let c = self.e.load(b, 0, e, LoadMode::Value);
        self.e.set(cond, c);
        for (y, (buf, used, cap)) in scans.iter().zip(&grown) {
            self.append(*y, *buf, *used, *cap)?;
        }
        self.carry(r, &yields[1..1 + carried.len()], &args[2..], &homes)?;
        let next = self.e.add(i, 1);
        self.e.set(i, next);
        self.e.jump(top);
        self.e.bind(done);
        let results = o.results.clone();
        for ((v, home), a) in results.iter().zip(&homes).zip(&args[2..]) {
            let (to, from) = (self.f.ty(*v).clone(), self.f.ty(*a).clone());
            self.bind_dims(&to, &from)?;
            self.scope.bufs.insert(*v, *home);
        }
        for ((v, (buf, ..)), y) in results[homes.len()..].iter().zip(&grown).zip(scans) {
            self.bind_scan(*v, *y, Val::Reg(i))?;
            self.scope.bufs.insert(*v, *buf);
        }
        Ok(())
    }

    /// Binds the run-time dims of a scan output: the count, then the slice's own.
    fn bind_scan(&mut self, v: ValueId, slice: ValueId, count: Val) -> Result<()> {
        let (Type::Tensor(t), Type::Tensor(s)) = (self.f.ty(v), self.f.ty(slice)) else {
            return Err(Diagnostic::new(
                Code::Unsupported,
                "only tensors can be run on this target",
            ));
        };
        let (dims, slice) = (t.dims.clone(), s.clone());
        if let Some(s) = dims[0].as_sym()
            && !self.syms.contains_key(s)
        {
            let s = s.to_string();
            self.bind_symbol(&s, count);
        }
        let tail = Type::tensor(slice.elem, dims[1..].to_vec());
        // A loop that never ran has no slice; sizes that only an iteration would give are 0 then.
        for s in dims[1..].iter().filter_map(|d| d.as_sym()) {
            if !self.syms.contains_key(s) && !self.scope.vars.contains_key(s) {
                self.bind_symbol(s, Val::Imm(0));
            }
        }
        self.bind_dims(&tail, &Type::Tensor(slice))
    }

    /// Appends a slice to a growing heap buffer.
    fn append(
        &mut self,
        y: ValueId,
        buf: Buf,
        used: silure_engine::plan::Reg,
        cap: silure_engine::plan::Reg,
    ) -> Result<()> {
        let (from, bytes) = (self.buf(y)?, self.bytes(y)?);
        let end = self.e.add(used, bytes);
        let fits = self.e.bin(BinOp::Le, end, cap);
        let full = self.e.not(fits);
        let room = self.e.label();
        self.e.br_zero(full, room);
        let twice = self.e.mul(end, 2);
        let bigger = self.e.heap("scan");
        self.e.alloc(bigger, twice);
        self.e.copy(bigger, 0, buf, 0, used);
        self.e.swap(buf, bigger);
        self.e.free(bigger);
        self.e.set(cap, twice);
        self.e.bind(room);
        self.e.copy(buf, used, from, 0, bytes);
        self.e.set(used, end);
        Ok(())
    }

    /// Moves the yielded values into the carried buffers.
    fn carry(
        &mut self,
        r: RegionId,
        yields: &[ValueId],
        args: &[ValueId],
        homes: &[Buf],
    ) -> Result<()> {
        let own: HashSet<Buf> = homes.iter().copied().collect();
        let mut moves = Vec::new();
        let Some(end) = self.f.terminator(r) else { bail!(Internal, "a body has no end") };
        let mut lists = Vec::new();
        for ((y, a), home) in yields.iter().zip(args).zip(homes) {
            if self.is_list(*a) {
                let from = self.buf(*y)?;
                if from != *home && own.contains(&from) {
                    let staged = self.e.list("");
                    self.e.list_op(ListOp::Copy { dst: staged, src: from, take: false });
                    lists.push((*home, staged, true));
                } else if from != *home {
                    lists.push((*home, from, self.takes(*y, end)));
                }
                continue;
            }
            let (from, bytes) = (self.buf(*y)?, self.bytes(*y)?);
            if from == *home {
                continue;
            }
            // Another carried value, or a view of one, may be overwritten before it is read.
            let staged = own.contains(&from) || !self.made_fresh(*y);
            let from = if staged {
                let s = self.e.temp("", bytes);
                self.e.copy(s, 0, from, 0, bytes);
                s
            } else {
                from
            };
            moves.push((*y, *a, *home, from, bytes));
        }
        for (dst, src, take) in lists {
            self.e.list_op(ListOp::Copy { dst, src, take });
        }
        for (y, a, home, from, bytes) in moves {
            let (to, have) = (self.f.ty(a).clone(), self.f.ty(y).clone());
            if !self.sized(a) {
                self.bind_dims(&to, &have)?;
                self.e.alloc(home, bytes);
            }
            self.e.copy(home, 0, from, 0, bytes);
        }
        Ok(())
    }

    /// Whether a value has a buffer that no carried value shares: a launch made it.
    fn made_fresh(&self, v: ValueId) -> bool {
        match self.f.value(v).def {
            Def::Result(op, _) => {
                let o = self.f.op(op);
                o.def.dialect() == "kernel" || o.def.name == "plan.launch"
            }
            Def::Arg(..) => false,
        }
    }
}
