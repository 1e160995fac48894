//! One op at a time: launches, generated code, views, weights, states.

use silure_engine::plan::{Arg, BinOp, Buf, LoadMode, Val};
use silure_ir::dialects::{core, kernel, plan};
use silure_ir::{Code, Def, Diagnostic, Dim, Loc, OpId, RegionId, Result, Type, ValueId, bail};

use super::{Dest, Encoder};

/// The name by which an op is reported: the user's node, or the op itself.
pub(super) fn label(loc: &Loc, fallback: &str) -> String {
    match loc {
        Loc::Unknown => fallback.into(),
        Loc::Name(n) => n.to_string(),
        Loc::File(p) => format!("{}:{}:{}", p.file, p.line, p.column),
        Loc::Fused(parts) => {
            let names: Vec<String> = parts.iter().map(|p| label(p, fallback)).collect();
            names.join(" + ")
        }
    }
}

impl Encoder<'_, '_, '_> {
    /// Encodes the ops of a region up to its terminator.
    pub(super) fn region(&mut self, r: RegionId) -> Result<()> {
        let ops = self.f.region(r).ops.clone();
        for (at, &op) in ops.iter().enumerate() {
            let o = self.f.op(op);
            let name = label(&o.loc, o.def.name);
            self.e.loc(&name);
            self.op(op).map_err(|e| e.at(&self.f.op(op).loc))?;
            for b in self.scope.frees.remove(&(r, at)).unwrap_or_default() {
                self.e.release(b);
            }
        }
        Ok(())
    }

    fn op(&mut self, op: OpId) -> Result<()> {
        let f = self.f;
        let o = f.op(op);
        match o.def.name {
            n if n == core::CONSTANT.name => {
                let Some(t) = o.attrs.tensor("value") else { bail!(Internal, "no value") };
                let id = match t.elem().is_str() {
                    true => {
                        let mut bytes = Vec::with_capacity(t.bytes().len());
                        for s in t.strs()? {
                            bytes.extend(self.e.plan().text(&s).to_le_bytes());
                        }
                        self.e.plan().constant(&bytes)
                    }
                    false => self.e.plan().constant(&t.elem().to_cells(t.bytes(), t.len())),
                };
                let b = self.e.constant(id);
                self.scope.bufs.insert(o.result(), b);
            }
            n if n == core::WEIGHT.name => self.weight(op)?,
            n if n == core::RETURN.name || n == core::YIELD.name => {}
            n if n == core::STATE.name => {
                let Some(&id) = self.states.get(o.attrs.str("name")) else {
                    bail!(Internal, "no state @{}", o.attrs.str("name"))
                };
                let b = self.e.state(id);
                self.scope.bufs.insert(o.result(), b);
            }
            n if n == core::STATE_READ.name => self.state_read(op)?,
            n if n == core::STATE_WRITE.name => self.state_write(op)?,
            n if n == core::STATE_STORE.name => self.state_store(op)?,
            n if n == plan::LAUNCH.name => self.launch(op)?,
            n if n == plan::VIEW.name => self.view(op)?,
            n if n == plan::DIMS.name => {
                let v = o.result();
                let elem = self.tensor(v)?.elem;
                let values = self.dims(o.attrs.dims("dims"))?;
                let b = self.result_buf(v)?;
                let mut from = b;
                if self.device != 0 {
                    // Written by the host, read by the device.
                    let bytes = self.bytes(v)?;
                    from = self.e.on(0).temp("", bytes);
                    self.e.on(self.device);
                }
                for (i, d) in values.into_iter().enumerate() {
                    self.e.store(from, i as i64, elem, d);
                }
                if from != b {
                    let bytes = self.bytes(v)?;
                    self.e.copy(b, 0, from, 0, bytes);
                }
            }
            n if n == plan::BIND.name => {
                let (name, index) = (o.attrs.str("symbol").to_string(), o.attrs.int("index"));
                let Some(v) = o.operand(0) else { bail!(Internal, "no operand") };
                let b = self.buf(v)?;
                let elem = self.tensor(v)?.elem;
                let value = self.e.load(b, index, elem, LoadMode::Value);
                self.bind_symbol(&name, value);
            }
            n if n == plan::SIZE.name => {
                let name = o.attrs.str("symbol").to_string();
                let Some(d) = o.attrs.dims("value").first() else { bail!(Internal, "no value") };
                let value = self.dim(&d.clone())?;
                if !matches!(value, Val::Imm(0..)) {
                    let ok = self.e.bin(BinOp::Le, 0, value);
                    self.e.check(ok, "a size is negative", 0, value);
                }
                self.bind_symbol(&name, value);
            }
            n if n == plan::CHECK.name => {
                let d = self.dims(o.attrs.dims("dims"))?;
                let ok = self.e.bin(BinOp::Eq, d[0], d[1]);
                let message = o.attrs.str("message").to_string();
                self.e.check(ok, &message, d[0], d[1]);
            }
            n if n == kernel::MAP.name => self.map(op)?,
            "graph.if" => self.branch(op)?,
            "graph.loop" => self.looped(op)?,
            _ if self.list(op)? => {}
            n => bail!(Internal, "`{n}` was not lowered"),
        }
        Ok(())
    }

    fn weight(&mut self, op: OpId) -> Result<()> {
        let o = self.f.op(op);
        let Some(w) = self.m.weight(o.attrs.str("name")) else {
            bail!(Internal, "no weight @{}", o.attrs.str("name"))
        };
        let id = match self.weights.ids.get(&w.name) {
            Some(id) => *id,
            None => {
                let bytes = (self.weights.bytes)(w)?;
                let id = self.e.plan().weight(&w.name, bytes);
                self.weights.ids.insert(w.name.clone(), id);
                self.weights.names.push(w.name.clone());
                id
            }
        };
        let b = self.e.weight(id);
        self.scope.bufs.insert(o.result(), b);
        Ok(())
    }

    /// The buffer a launch writes for a result: where it is wanted, or a new temporary.
    pub(super) fn result_buf(&mut self, v: ValueId) -> Result<Buf> {
        if let Some(&b) = self.scope.bufs.get(&v) {
            return Ok(b);
        }
        if let Some(next) = self.continues(v) {
            // The last launch of the chain decides where all of them write.
            let b = self.result_buf(next)?;
            self.scope.bufs.remove(&next);
            self.scope.bufs.insert(v, b);
            return Ok(b);
        }
        let b = match self.scope.dest.get(&v) {
            Some(Dest::Output(i)) => {
                let i = *i;
                let dims = self.tensor_dims(v)?;
                self.e.set_shape(i as u32, &dims);
                self.outputs[i]
            }
            Some(Dest::Buf(b)) => *b,
            None => {
                let bytes = self.bytes(v)?;
                self.temp(v, bytes)?
            }
        };
        self.scope.bufs.insert(v, b);
        Ok(b)
    }

    /// A temporary for a value; one on the heap is freed after the value's last use.
    fn temp(&mut self, v: ValueId, bytes: Val) -> Result<Buf> {
        let name = self.f.value(v).name.clone().unwrap_or_default();
        let b = self.e.temp(&name, bytes);
        if !self.e.is_size(bytes) {
            self.free_after_last_use(v, b);
        }
        Ok(b)
    }

    /// Frees a heap buffer behind the last op of the defining region that uses the value, directly,
    /// in a region inside it, or through a view.
    pub(super) fn free_after_last_use(&mut self, v: ValueId, b: Buf) {
        let Def::Result(def, _) = self.f.value(v).def else { return };
        let Some(home) = self.f.op(def).parent() else { return };
        let (mut last, mut work) = (0, vec![v]);
        while let Some(v) = work.pop() {
            for &user in self.f.uses(v) {
                let mut at = user;
                while self.f.op(at).parent() != Some(home) {
                    match self.f.parent_op(at) {
                        Some(p) => at = p,
                        None => return,
                    }
                }
                last = last.max(self.f.position(at).unwrap_or(usize::MAX));
                // A view keeps the bytes in use; a terminator hands them to whoever runs the region.
                if self.f.op(user).def.name == plan::VIEW.name {
                    work.extend(self.f.op(user).results.iter());
                }
            }
        }
        let ops = self.f.region(home).ops.len();
        if last + 1 < ops {
            self.scope.frees.entry((home, last)).or_default().push(b);
        }
    }

    fn launch(&mut self, op: OpId) -> Result<()> {
        let o = self.f.op(op);
        let operands: Vec<ValueId> = o.operands().collect();
        let results = o.results.clone();
        let mut sizes = self.dims(o.attrs.dims("sizes"))?;
        for (i, &from) in o.attrs.ints("init").iter().enumerate() {
            if let Ok(from) = usize::try_from(from) {
                self.init(results[i], operands[from])?;
            }
        }
        let mut args = Vec::new();
        for &a in o.attrs.ints("args") {
            args.push(match a {
                -1 => Arg::None,
                a if a >= 0 => Arg::In(self.buf(operands[a as usize])?),
                a => Arg::Out(self.result_buf(results[(-2 - a) as usize])?),
            });
        }
        let kernel = o.attrs.str("kernel").to_string();
        if let [blocks, work] = o.attrs.dims("grid") {
            let (blocks, work) = (self.dim(blocks)?, self.dim(work)?);
            let kernel = self.e.plan().device_kernel(&kernel);
            if o.attrs.get("status").is_some()
                && let Some(slot) = args.get_mut(o.attrs.int("status") as usize)
            {
                *slot = self.status_word(&label(&o.loc, o.def.name));
            }
            self.e.launch_device(kernel, &args, &sizes, blocks, work);
            return Ok(());
        }
        if !o.regions.is_empty() {
            let name = label(&o.loc, &kernel);
            let callback = self.functions.callback(self.f, op, &name)?;
            let id = self.e.plan().function(&name);
            debug_assert_eq!(id, callback.function);
            // The callback's sizes follow the kernel's, as its operands do.
            sizes.extend(self.dims(&callback.sizes)?);
            let slot = o.attrs.int("callback") as usize;
            if let Some(a) = args.get_mut(slot) {
                *a = Arg::Code(id);
            }
            let extra = o.attrs.maps("maps").len();
            for v in &operands[operands.len() - extra..] {
                args.push(Arg::In(self.buf(*v)?));
            }
        }
        self.e.launch_args(&kernel, &args, &sizes);
        Ok(())
    }

    /// Gives a result the contents of an operand to start from: its very buffer if nothing else
    /// needs them (see [`Encoder::continues`]), else a copy.
    fn init(&mut self, result: ValueId, from: ValueId) -> Result<()> {
        // A state's handle is linear: nothing else can see its old contents.
        let state = matches!(self.f.ty(result), Type::State(_));
        if state || self.continues(from) == Some(result) {
            let b = self.buf(from)?;
            self.scope.bufs.insert(result, b);
            return Ok(());
        }
        let (src, bytes) = (self.buf(from)?, self.bytes(from)?);
        let b = self.result_buf(result)?;
        self.e.copy(b, 0, src, 0, bytes);
        Ok(())
    }

    /// The result of a later launch that takes over this value's buffer: the value is made by a
    /// launch of the same region and its only use is to be the other's start.
    fn continues(&self, v: ValueId) -> Option<ValueId> {
        let Def::Result(def, _) = self.f.value(v).def else { return None };
        let d = self.f.op(def);
        let &[user] = self.f.uses(v) else { return None };
        let u = self.f.op(user);
        let made = d.def.name == plan::LAUNCH.name || d.def.name == kernel::MAP.name;
        if !made || u.def.name != plan::LAUNCH.name || u.parent() != d.parent() {
            return None;
        }
        let at = u.operands().position(|o| o == v)? as i64;
        let i = u.attrs.ints("init").iter().position(|&i| i == at)?;
        u.results.get(i).copied()
    }

    fn map(&mut self, op: OpId) -> Result<()> {
        let o = self.f.op(op);
        let name = label(&o.loc, "map");
        let (function, code) = self.functions.map(self.f, op, &name)?;
        let id = self.e.plan().function(&name);
        debug_assert_eq!(id, function);
        let mut args = Vec::new();
        for v in o.operands() {
            args.push(Arg::In(self.buf(v)?));
        }
        for &v in &o.results {
            args.push(Arg::Out(self.result_buf(v)?));
        }
        let sizes = self.dims(&code.sizes)?;
        let tasks = self.dim(&code.tasks)?;
        let work = self.dim(&code.work)?;
        let scratch = self.dim(&code.scratch)?;
        self.e.launch_code(id, &args, &sizes, tasks, work, scratch);
        Ok(())
    }

    fn view(&mut self, op: OpId) -> Result<()> {
        let o = self.f.op(op);
        let (Some(x), y) = (o.operand(0), o.result()) else { bail!(Internal, "no operand") };
        let base = self.buf(x)?;
        let offset = match o.attrs.dims("offset") {
            [] => Dim::Const(0),
            [d, ..] => d.clone() * Dim::Const(self.tensor(x)?.elem.cell_bytes() as i64),
        };
        if offset == Dim::Const(0) {
            // The whole buffer under another type.
            self.scope.bufs.insert(y, base);
            return Ok(());
        }
        let (offset, bytes) = (self.dim(&offset)?, self.bytes(y)?);
        let b = self.e.view(base, offset, bytes);
        self.scope.bufs.insert(y, b);
        Ok(())
    }

    /// The state's own buffer if the state does not change behind it, else a copy. Making contents
    /// permanent where they lie already changes nothing.
    fn state_read(&mut self, op: OpId) -> Result<()> {
        let o = self.f.op(op);
        let (Some(s), y) = (o.operand(0), o.result()) else { bail!(Internal, "no operand") };
        let state = self.buf(s)?;
        let mut changes = false;
        for &u in self.f.uses(s) {
            let o = self.f.op(u);
            changes |= o.results.iter().any(|r| matches!(self.f.ty(*r), Type::State(_)))
                || o.def.name == core::STATE_STORE.name
                    && self.states.get(o.attrs.str("name")).map(|&id| self.e.state(id))
                        != Some(state);
        }
        if !changes {
            self.scope.bufs.insert(y, state);
            return Ok(());
        }
        let bytes = self.bytes(y)?;
        let b = self.result_buf(y)?;
        self.e.copy(b, 0, state, 0, bytes);
        Ok(())
    }

    /// In place: the handle is linear, so nothing else can see the old contents.
    fn state_write(&mut self, op: OpId) -> Result<()> {
        let o = self.f.op(op);
        let (Some(s), Some(x)) = (o.operand(0), o.operand(1)) else {
            bail!(Internal, "no operand")
        };
        let (state, from) = (self.buf(s)?, self.buf(x)?);
        self.scope.bufs.insert(o.result(), state);
        let bytes = self.bytes(x)?;
        let Some(p) = o.operand(2) else {
            self.e.copy(state, 0, from, 0, bytes);
            return Ok(());
        };
        let (st, xt) = (self.tensor(s)?.clone(), self.tensor(x)?.clone());
        let axis = silure_ir::infer::norm_axis(o.attrs.int("axis"), st.rank())?;
        let pos = self.buf(p)?;
        let pe = self.tensor(p)?.elem;
        let (n, most) = (self.dim(&xt.dims[axis])?, self.dim(&st.dims[axis])?);
        let width = st.elem.cell_bytes() as i64;
        let inner = st.dims[axis + 1..].iter().cloned().fold(Dim::Const(width), |a, d| a * d);
        let outer = st.dims[..axis].iter().cloned().fold(Dim::Const(1), |a, d| a * d);
        let (inner, outer) = (self.dim(&inner)?, self.dim(&outer)?);
        let (line, stride) = (self.e.mul(n, inner), self.e.mul(most, inner));
        let pt = self.tensor(p)?;
        let each = pt.rank() == 1 && pt.dims[0] == xt.dims[axis] && pt.dims[0] != Dim::Const(1);
        // Slices that stay together: all of them, or one with a position of its own.
        let (pieces, size) = if each { (n, Val::Imm(1)) } else { (Val::Imm(1), n) };
        let chunk = self.e.mul(size, inner);
        let last = self.e.bin(BinOp::Sub, most, size);
        self.repeat(pieces, |e, j| {
            let at = e.e.load(pos, j, pe, LoadMode::Value);
            let fits = e.e.bin(BinOp::Le, at, last);
            let positive = e.e.bin(BinOp::Le, 0, at);
            let ok = e.e.bin(BinOp::And, fits, positive);
            e.e.check(ok, "the position written is outside the state", last, at);
            let (start, first) = (e.e.mul(at, inner), e.e.mul(j, chunk));
            // One contiguous piece per index of the axes in front.
            e.repeat(outer, |e, i| {
                let (row, src) = (e.e.mul(i, stride), e.e.mul(i, line));
                let (dst, src) = (e.e.add(row, start), e.e.add(src, first));
                e.e.copy(state, dst, from, src, chunk);
            });
        });
        Ok(())
    }

    /// `body` for each number below `n`; no loop for one.
    fn repeat(&mut self, n: Val, body: impl FnOnce(&mut Self, Val)) {
        if n == Val::Imm(1) {
            return body(self, Val::Imm(0));
        }
        let i = self.e.var(0);
        let (top, done) = (self.e.label(), self.e.label());
        self.e.bind(top);
        let more = self.e.bin(BinOp::Lt, i, n);
        self.e.br_zero(more, done);
        body(self, i.into());
        let next = self.e.add(i, 1);
        self.e.set(i, next);
        self.e.jump(top);
        self.e.bind(done);
    }

    fn state_store(&mut self, op: OpId) -> Result<()> {
        let o = self.f.op(op);
        let Some(s) = o.operand(0) else { bail!(Internal, "no operand") };
        let Some(&id) = self.states.get(o.attrs.str("name")) else {
            bail!(Internal, "no state @{}", o.attrs.str("name"))
        };
        let (have, own) = (self.buf(s)?, self.e.state(id));
        if have != own {
            let bytes = self.bytes(s)?;
            self.e.copy(own, 0, have, 0, bytes);
        }
        Ok(())
    }

    /// Gives a run-time symbol its value.
    pub(super) fn bind_symbol(&mut self, name: &str, value: Val) {
        match self.scope.vars.get(name) {
            Some(&r) => self.e.set(r, value),
            None => {
                let r = self.e.var(value);
                self.scope.vars.insert(name.into(), r);
            }
        }
    }

    /// Binds the run-time symbols of a result type to the dims of another type of that rank.
    pub(super) fn bind_dims(&mut self, to: &Type, from: &Type) -> Result<()> {
        if matches!(to, Type::Seq(_) | Type::Opt(_)) {
            return Ok(());
        }
        let (Type::Tensor(to), Type::Tensor(from)) = (to, from) else {
            return Err(Diagnostic::new(
                Code::Unsupported,
                "only tensors can be run on this target",
            )
            .need("a tensor", to));
        };
        for (t, f) in to.dims.iter().zip(&from.dims) {
            if let Some(s) = t.as_sym()
                && self.f.symbols.iter().any(|d| *d.name == *s && d.runtime)
                && !self.syms.contains_key(s)
                && t != f
            {
                let v = self.dim(f)?;
                self.bind_symbol(s, v);
            }
        }
        Ok(())
    }
}
