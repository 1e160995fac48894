//! Dims as registers, sizes in bytes.

use std::cell::{Cell, RefCell};

use silure_engine::DimSpec;
use silure_engine::plan::{BinOp, Buf, Val};
use silure_ir::{Cmp, Code, Diagnostic, Dim, DimOp, Func, Guard, Result, Type, ValueId};

use super::Encoder;

/// What an axis of an argument accepts.
pub(super) fn spec(f: &Func, d: &Dim) -> DimSpec {
    if let Some(n) = d.as_size() {
        return DimSpec::fixed(n as u64);
    }
    match d.as_sym().and_then(|s| f.symbols.iter().find(|x| *x.name == *s)) {
        Some(s) => DimSpec::symbol(&s.name, s.min.max(0) as u64, s.max.max(0) as u64)
            .multiple_of(s.multiple.max(1) as u64),
        None => DimSpec::expr(&d.to_string()),
    }
}

impl Encoder<'_, '_, '_> {
    /// A dim's value.
    pub(super) fn dim(&mut self, d: &Dim) -> Result<Val> {
        if let Some(c) = d.as_const() {
            return Ok(Val::Imm(c));
        }
        let missing = RefCell::new(None);
        let (syms, vars) = (&self.syms, &self.scope.vars);
        let e = RefCell::new(&mut self.e);
        let overflow = Cell::new(false);
        let v = d.fold(
            &|c| {
                overflow.set(overflow.get() || c == i64::MIN);
                Val::Imm(c)
            },
            &|s| match (syms.get(s), vars.get(s)) {
                (Some(v), _) => *v,
                (None, Some(r)) => Val::Reg(*r),
                (None, None) => {
                    *missing.borrow_mut() = Some(s.to_string());
                    Val::Imm(0)
                }
            },
            &|op, a, b| {
                let op = match op {
                    DimOp::Add => BinOp::Add,
                    DimOp::Mul => BinOp::Mul,
                    DimOp::FloorDiv => BinOp::FloorDiv,
                    DimOp::Mod => BinOp::Mod,
                    DimOp::Min => BinOp::Min,
                    DimOp::Max => BinOp::Max,
                };
                e.borrow_mut().bin(op, a, b)
            },
        );
        if let Some(s) = missing.into_inner() {
            return Err(Diagnostic::new(
                Code::Internal,
                format!("size `{d}` uses `{s}`, which nothing binds"),
            ));
        }
        if overflow.get() {
            return Err(Diagnostic::new(Code::Limit, "a size overflows 64 bits"));
        }
        Ok(v)
    }

    /// Dims as values.
    pub(super) fn dims(&mut self, dims: &[Dim]) -> Result<Vec<Val>> {
        dims.iter().map(|d| self.dim(d)).collect()
    }

    /// The dims of a tensor value.
    pub(super) fn tensor_dims(&mut self, v: ValueId) -> Result<Vec<Val>> {
        let dims = self.tensor(v)?.dims.clone();
        self.dims(&dims)
    }

    pub(super) fn tensor(&self, v: ValueId) -> Result<&silure_ir::TensorType> {
        match self.f.ty(v) {
            Type::Tensor(t) | Type::State(t) => Ok(t),
            t => Err(Diagnostic::new(Code::Unsupported, "only tensors can be run on this target")
                .need("a tensor", t)),
        }
    }

    /// The bytes of a tensor value; elements smaller than a byte take a byte each.
    pub(super) fn bytes(&mut self, v: ValueId) -> Result<Val> {
        let t = self.tensor(v)?;
        let (count, cell) = (t.count(), t.elem.cell_bytes() as i64);
        let n = self.dim(&count)?;
        Ok(self.e.mul(n, cell))
    }

    /// 1 where every guard holds.
    pub(super) fn guards(&mut self, guards: &[Guard]) -> Result<Val> {
        let mut all = Val::Imm(1);
        for g in guards {
            let (a, b) = (self.dim(&g.left)?, self.dim(&g.right)?);
            let op = match g.cmp {
                Cmp::Eq => BinOp::Eq,
                Cmp::Ne => BinOp::Ne,
                Cmp::Le => BinOp::Le,
                Cmp::Lt => BinOp::Lt,
            };
            let holds = self.e.bin(op, a, b);
            all = self.e.bin(BinOp::And, all, holds);
        }
        Ok(all)
    }

    /// The buffer of a value.
    pub(super) fn buf(&self, v: ValueId) -> Result<Buf> {
        self.scope.bufs.get(&v).copied().ok_or_else(|| {
            Diagnostic::new(Code::Internal, "a value is used before its buffer exists")
        })
    }
}
