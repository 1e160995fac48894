//! Sequences and optionals as lists of the plan.
//!
//! Every value has a list buffer of its own, so that an op whose operand has no later use takes its
//! elements instead of sharing them. An optional tensor is a list of one; an absent optional is an
//! absent list.

use silure_engine::plan::{BinOp, Buf, ListOp, LoadMode, Part, PortKind, Val};
use silure_engine::{DimSpec, EntryBuilder};
use silure_ir::infer::norm_axis;
use silure_ir::{Code, Def, Diagnostic, Dim, Elem, Func, OpId, Result, Type, ValueId, bail};

use super::{Encoder, dims};

/// Kind and element type of a list; the element's dims unless they are of any shape.
fn parts(ty: &Type) -> Result<(PortKind, Elem, Option<&[Dim]>)> {
    let (kind, inner) = match ty {
        Type::Seq(t) => (PortKind::Sequence, &**t),
        Type::Opt(t) => match &**t {
            Type::Seq(t) => (PortKind::OptionalSequence, &**t),
            t => (PortKind::Optional, t),
        },
        t => (PortKind::Tensor, t),
    };
    match inner {
        Type::Tensor(t) if kind != PortKind::Tensor => Ok((kind, t.elem, Some(&t.dims))),
        Type::Scalar(e) if kind != PortKind::Tensor => Ok((kind, *e, None)),
        _ => Err(Diagnostic::new(Code::Unsupported, "a value of this type cannot be run here")
            .need("a tensor, a sequence or an optional", ty)),
    }
}

/// Adds an argument that is a list. Its symbols are sizes that may differ between elements.
pub(super) fn input(e: &mut EntryBuilder, f: &Func, name: &str, ty: &Type) -> Result<Buf> {
    let (kind, elem, dims) = parts(ty)?;
    let spec = |d: &Dim| match d.as_sym() {
        Some(s) => DimSpec::expr(s),
        None => dims::spec(f, d),
    };
    let specs: Option<Vec<DimSpec>> = dims.map(|d| d.iter().map(spec).collect());
    Ok(e.input_list(kind, name, elem, specs.as_deref()))
}

/// Adds a result that is a list.
pub(super) fn output(e: &mut EntryBuilder, name: &str, ty: &Type) -> Result<Buf> {
    let (kind, elem, dims) = parts(ty)?;
    let dims: Option<Vec<String>> = dims.map(|d| d.iter().map(|d| d.to_string()).collect());
    let dims: Option<Vec<&str>> = dims.as_ref().map(|d| d.iter().map(String::as_str).collect());
    Ok(e.output_list(kind, name, elem, dims.as_deref()))
}

impl Encoder<'_, '_, '_> {
    /// Whether a value is a sequence or an optional.
    pub(super) fn is_list(&self, v: ValueId) -> bool {
        matches!(self.f.ty(v), Type::Seq(_) | Type::Opt(_))
    }

    /// Whether `user` may take the elements of a list: nothing else uses it, and it is made anew
    /// each time `user` runs.
    pub(super) fn takes(&self, v: ValueId, user: OpId) -> bool {
        let home = match self.f.value(v).def {
            Def::Result(op, _) => self.f.op(op).parent(),
            // A loop fills its carried lists again after each round.
            Def::Arg(r, _) => Some(r).filter(|r| *r != self.f.body),
        };
        self.f.uses(v).len() == 1 && home == self.f.op(user).parent()
    }

    /// Makes a list hold what a value holds.
    pub(super) fn assign(&mut self, dst: Buf, v: ValueId, user: OpId) -> Result<()> {
        let (src, take) = (self.buf(v)?, self.takes(v, user));
        if src != dst {
            self.e.list_op(ListOp::Copy { dst, src, take });
        }
        Ok(())
    }

    /// A new list for a result; its elements are let go behind its last use.
    pub(super) fn new_list(&mut self, v: ValueId) -> Buf {
        let name = self.f.value(v).name.clone().unwrap_or_default();
        let b = self.e.list(&name);
        self.scope.bufs.insert(v, b);
        self.free_after_last_use(v, b);
        b
    }

    /// Puts a tensor into a list.
    fn put(&mut self, list: Buf, at: Val, x: ValueId) -> Result<()> {
        let (src, elem, dims) = (self.buf(x)?, self.tensor(x)?.elem, self.tensor_dims(x)?);
        self.e.list_op(ListOp::Insert { list, at, src, elem, dims });
        Ok(())
    }

    /// The element at a position as a tensor value.
    fn take_out(&mut self, list: Buf, at: Val, v: ValueId) -> Result<()> {
        let dims = self.tensor(v)?.dims.clone();
        for (axis, d) in dims.iter().enumerate() {
            if let Some(s) = self.own_symbol(d) {
                let n = self.e.list_dim(list, at, axis as u32);
                self.bind_symbol(&s, n);
            }
        }
        let buf = self.result_buf(v)?;
        self.e.list_op(ListOp::Read { buf, list, at });
        Ok(())
    }

    /// The run-time symbol that a dim is.
    fn own_symbol(&self, d: &Dim) -> Option<String> {
        let s = d.as_sym()?;
        let runtime = self.f.symbols.iter().any(|x| *x.name == *s && x.runtime);
        (runtime && !self.syms.contains_key(s)).then(|| s.to_string())
    }

    /// The value of a position operand.
    fn scalar(&mut self, v: ValueId) -> Result<Val> {
        let (b, elem) = (self.buf(v)?, self.tensor(v)?.elem);
        Ok(self.e.load(b, 0, elem, LoadMode::Value))
    }

    /// Encodes an op on lists; whether it is one.
    pub(super) fn list(&mut self, op: OpId) -> Result<bool> {
        let o = self.f.op(op);
        let operand = |i: usize| match o.operand(i) {
            Some(v) => Ok(v),
            None => Err(Diagnostic::new(Code::Internal, format!("operand {i} is missing"))),
        };
        match o.def.name {
            "graph.seq_empty" => {
                let list = self.new_list(o.result());
                self.e.list_op(ListOp::New { list, present: true });
            }
            "graph.seq_construct" => {
                let list = self.new_list(o.result());
                self.e.list_op(ListOp::New { list, present: true });
                for (i, &x) in o.tail().iter().enumerate() {
                    self.put(list, Val::Imm(i as i64), x)?;
                }
            }
            "graph.seq_len" => {
                let list = self.buf(operand(0)?)?;
                let n = self.e.list_len(list);
                let b = self.result_buf(o.result())?;
                self.e.store(b, 0, Elem::I64, n);
            }
            "graph.seq_at" => {
                let (list, at) = (self.buf(operand(0)?)?, self.scalar(operand(1)?)?);
                self.take_out(list, at, o.result())?;
            }
            "graph.seq_insert" => {
                let at = o.operand(2).map(|v| self.scalar(v)).transpose()?;
                let list = self.new_list(o.result());
                self.assign(list, operand(0)?, op)?;
                let at = at.unwrap_or_else(|| self.e.list_len(list));
                self.put(list, at, operand(1)?)?;
            }
            "graph.seq_erase" => {
                let at = o.operand(1).map(|v| self.scalar(v)).transpose()?;
                let list = self.new_list(o.result());
                self.assign(list, operand(0)?, op)?;
                self.e.list_op(ListOp::Erase { list, at: at.unwrap_or(Val::Imm(-1)) });
            }
            "graph.optional" => {
                let list = self.new_list(o.result());
                match o.operand(0) {
                    Some(x) if self.is_list(x) => self.assign(list, x, op)?,
                    x => {
                        self.e.list_op(ListOp::New { list, present: x.is_some() });
                        if let Some(x) = x {
                            self.put(list, Val::Imm(0), x)?;
                        }
                    }
                }
            }
            "graph.optional_has" => {
                let list = self.buf(operand(0)?)?;
                let n = self.e.list_len(list);
                let has = self.e.bin(BinOp::Le, 0, n);
                let b = self.result_buf(o.result())?;
                self.e.store(b, 0, Elem::Bool, has);
            }
            "graph.optional_get" => {
                let list = self.buf(operand(0)?)?;
                let n = self.e.list_len(list);
                let has = self.e.bin(BinOp::Le, 0, n);
                self.e.check(has, "the optional holds nothing", 1, 0);
                if self.is_list(o.result()) {
                    let to = self.new_list(o.result());
                    self.assign(to, operand(0)?, op)?;
                } else {
                    self.take_out(list, Val::Imm(0), o.result())?;
                }
            }
            "graph.concat_from_sequence" => self.join(op)?,
            "graph.split_to_sequence" => self.split(op)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The elements joined; the extent along the axis is a sum over them.
    fn join(&mut self, op: OpId) -> Result<()> {
        let o = self.f.op(op);
        let (Some(s), y) = (o.operand(0), o.result()) else { bail!(Internal, "no operand") };
        let (list, t) = (self.buf(s)?, self.tensor(y)?.clone());
        let (new_axis, axis) =
            (o.attrs.bool("new_axis"), norm_axis(o.attrs.int("axis"), t.rank())?);
        let len = self.e.list_len(list);
        for (d, dim) in t.dims.iter().enumerate() {
            let Some(s) = self.own_symbol(dim) else { continue };
            let n = if d != axis {
                self.e.list_dim(list, Val::Imm(0), (d - (new_axis && d > axis) as usize) as u32)
            } else if new_axis {
                len
            } else {
                let (i, sum) = (self.e.var(0), self.e.var(0));
                let (top, done) = (self.e.label(), self.e.label());
                self.e.bind(top);
                let more = self.e.bin(BinOp::Lt, i, len);
                self.e.br_zero(more, done);
                let n = self.e.list_dim(list, Val::Reg(i), axis as u32);
                let next = self.e.add(sum, n);
                self.e.set(sum, next);
                let next = self.e.add(i, 1);
                self.e.set(i, next);
                self.e.jump(top);
                self.e.bind(done);
                Val::Reg(sum)
            };
            self.bind_symbol(&s, n);
        }
        let buf = self.result_buf(y)?;
        let axis = axis as u32;
        self.e.list_op(ListOp::Join { buf, list, elem: t.elem, axis, new_axis });
        Ok(())
    }

    /// A loop that appends one part after the other.
    fn split(&mut self, op: OpId) -> Result<()> {
        let o = self.f.op(op);
        let (Some(x), sizes) = (o.operand(0), o.operand(1)) else { bail!(Internal, "no operand") };
        let t = self.tensor(x)?.clone();
        let axis = norm_axis(o.attrs.int("axis"), t.rank())?;
        let squeeze = sizes.is_none() && !o.attrs.bool("keep");
        let (src, dims) = (self.buf(x)?, self.dims(&t.dims)?);
        let n = dims[axis];
        // Each of the sizes, or one size until the end.
        let (each, one) = match sizes {
            Some(v) if self.tensor(v)?.rank() > 0 => {
                let (b, t) = (self.buf(v)?, self.tensor(v)?.clone());
                (Some((b, t.elem, self.dim(&t.count())?)), Val::Imm(0))
            }
            Some(v) => {
                let k = self.scalar(v)?;
                let some = self.e.bin(BinOp::Lt, 0, k);
                self.e.check(some, "the size of a part is not positive", 1, k);
                (None, k)
            }
            None => (None, Val::Imm(1)),
        };
        let list = self.new_list(o.result());
        self.e.list_op(ListOp::New { list, present: true });
        let (i, from) = (self.e.var(0), self.e.var(0));
        let (top, done) = (self.e.label(), self.e.label());
        self.e.bind(top);
        let more = match each {
            Some((.., parts)) => self.e.bin(BinOp::Lt, i, parts),
            None => self.e.bin(BinOp::Lt, from, n),
        };
        self.e.br_zero(more, done);
        let count = match each {
            Some((b, elem, _)) => self.e.load(b, i, elem, LoadMode::Value),
            None => {
                let left = self.e.bin(BinOp::Sub, n, from);
                self.e.bin(BinOp::Min, left, one)
            }
        };
        self.e.list_op(ListOp::Part(Box::new(Part {
            list,
            src,
            elem: t.elem,
            dims,
            axis: axis as u32,
            from: Val::Reg(from),
            count,
            squeeze,
        })));
        let next = self.e.add(from, count);
        self.e.set(from, next);
        let next = self.e.add(i, 1);
        self.e.set(i, next);
        self.e.jump(top);
        self.e.bind(done);
        let whole = self.e.bin(BinOp::Eq, from, n);
        self.e.check(whole, "the parts do not add up to the axis", n, from);
        Ok(())
    }
}
