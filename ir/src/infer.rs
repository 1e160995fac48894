//! What type inference, op verification and folding see of an op.

use std::cell::RefCell;

use silure_types::Elem;

use crate::attr::Attrs;
use crate::bail;
use crate::diag::{Code, Diagnostic, Result};
use crate::dim::Dim;
use crate::func::{Func, OpId, RegionId, ValueId};
use crate::op::OpDef;
use crate::types::{TensorType, Type};

/// A symbol that inference invents, with its greatest value. The builder replaces it by a fresh
/// run-time symbol of the function; the verifier lets it stand for any dim.
const FRESH: char = '?';

/// The view of one op given to [`OpDef::infer`], [`OpDef::verify`], [`OpDef::values`],
/// [`OpDef::fold`] and [`OpDef::cost`].
pub struct InferCx<'a> {
    /// The function.
    pub func: &'a Func,
    /// The op.
    pub op: OpId,
    fresh: RefCell<Vec<(String, i64)>>,
}

impl<'a> InferCx<'a> {
    /// The view of `op`.
    pub fn new(func: &'a Func, op: OpId) -> InferCx<'a> {
        InferCx { func, op, fresh: RefCell::default() }
    }

    /// The declaration.
    pub fn def(&self) -> &'static OpDef {
        self.func.op(self.op).def
    }

    /// The attributes.
    pub fn attrs(&self) -> &'a Attrs {
        &self.func.op(self.op).attrs
    }

    /// Operand `i`, if it is there.
    pub fn operand(&self, i: usize) -> Option<ValueId> {
        self.func.op(self.op).operand(i)
    }

    /// Type of operand `i`.
    pub fn ty(&self, i: usize) -> Result<&'a Type> {
        match self.operand(i) {
            Some(v) => Ok(self.func.ty(v)),
            None => bail!(Type, "operand `{}` is missing", self.operand_name(i)),
        }
    }

    /// Tensor type of operand `i`.
    pub fn tensor(&self, i: usize) -> Result<&'a TensorType> {
        match self.ty(i)? {
            Type::Tensor(t) => Ok(t),
            t => Err(self.wrong(i, "a tensor", t)),
        }
    }

    /// Tensor type of operand `i`, if the operand is there.
    pub fn maybe_tensor(&self, i: usize) -> Result<Option<&'a TensorType>> {
        if self.operand(i).is_some() { self.tensor(i).map(Some) } else { Ok(None) }
    }

    /// Tensor types of the variadic last operand.
    pub fn tail(&self) -> Result<Vec<&'a TensorType>> {
        let op = self.func.op(self.op);
        op.tail()
            .iter()
            .map(|v| match self.func.ty(*v) {
                Type::Tensor(t) => Ok(t),
                t => bail!(Type, "a tensor was needed, {t} is present"),
            })
            .collect()
    }

    /// Result types as they stand (for ops with [`crate::op::Traits::TYPED`] and for `verify`).
    pub fn results(&self) -> Vec<&'a Type> {
        self.func.op(self.op).results.iter().map(|v| self.func.ty(*v)).collect()
    }

    /// Region `i`.
    pub fn region(&self, i: usize) -> Option<RegionId> {
        self.func.op(self.op).regions.get(i).copied()
    }

    /// Types that region `i` yields.
    pub fn yields(&self, i: usize) -> Vec<&'a Type> {
        let Some(r) = self.region(i) else { return vec![] };
        self.func.yields(r).into_iter().map(|v| self.func.ty(v)).collect()
    }

    /// Contents of operand `i` where the compiler knows them.
    pub fn known(&self, i: usize) -> Option<&'a [Dim]> {
        self.func.value(self.operand(i)?).known.as_deref()
    }

    /// Contents of operand `i` where they are known integers.
    pub fn known_ints(&self, i: usize) -> Option<Vec<i64>> {
        self.known(i)?.iter().map(Dim::as_const).collect()
    }

    /// A dims parameter that is an attribute if known at compile time and an operand if not: the
    /// attribute `name`, else the known contents of operand `i`, else `None`.
    pub fn dims_param(&self, name: &str, i: usize) -> Option<Vec<Dim>> {
        match self.attrs().get(name) {
            Some(crate::attr::Attr::Dims(d)) => Some(d.clone()),
            Some(crate::attr::Attr::Ints(v)) => Some(v.iter().map(|&x| Dim::Const(x)).collect()),
            _ => self.known(i).map(<[Dim]>::to_vec),
        }
    }

    /// A size that only the run decides, at most `max` (`i64::MAX` if there is no bound).
    pub fn fresh(&self, hint: &str, max: &Dim) -> Dim {
        let max = max.bounds(&|s| self.func.symbol_range(s)).1;
        let mut f = self.fresh.borrow_mut();
        f.push((hint.to_string(), max));
        Dim::sym(&format!("{FRESH}{}", f.len() - 1))
    }

    /// The integer attribute `name` as an axis of a tensor of that rank; negative counts from the end.
    pub fn axis(&self, name: &str, rank: usize) -> Result<usize> {
        norm_axis(self.attrs().int(name), rank).map_err(|e| e.note(format!("attribute `{name}`")))
    }

    /// The integer-list attribute as axes, in ascending order, without repeats.
    pub fn axes(&self, name: &str, rank: usize) -> Result<Vec<usize>> {
        let mut out: Vec<usize> =
            self.attrs().ints(name).iter().map(|&a| norm_axis(a, rank)).collect::<Result<_>>()?;
        out.sort_unstable();
        let n = out.len();
        out.dedup();
        if out.len() != n {
            bail!(Type, "attribute `{name}` names an axis twice");
        }
        Ok(out)
    }

    /// The type of operand `i` reduced over the axes that the integer-list attribute names; they stay
    /// with size 1 if `keep`.
    pub fn reduced(&self, i: usize, axes: &str, keep: bool) -> Result<Type> {
        let (t, axes) = (self.tensor(i)?, self.axes(axes, self.tensor(i)?.rank())?);
        let dims = t.dims.iter().enumerate().filter_map(|(d, n)| match axes.contains(&d) {
            false => Some(n.clone()),
            true => keep.then_some(Dim::Const(1)),
        });
        Ok(Type::tensor(t.elem, dims.collect::<Vec<_>>()))
    }

    /// The element type attribute.
    pub fn elem(&self, name: &str) -> Result<Elem> {
        match self.attrs().elem(name) {
            Some(e) => Ok(e),
            None => bail!(Type, "attribute `{name}` is missing"),
        }
    }

    /// Checks that two dims are equal; symbols that may differ are an error.
    pub fn same(&self, what: &str, a: &Dim, b: &Dim) -> Result<()> {
        if a == b {
            return Ok(());
        }
        Err(Diagnostic::new(Code::Type, format!("{what} differ")).need(a, b))
    }

    /// The message for an operand of the wrong type.
    pub fn wrong(&self, i: usize, needed: &str, present: &Type) -> Diagnostic {
        Diagnostic::new(
            Code::Type,
            format!("operand `{}` has the wrong type", self.operand_name(i)),
        )
        .need(needed, present)
    }

    fn operand_name(&self, i: usize) -> &'static str {
        self.def().operands.get(i).map_or("?", |o| o.name)
    }

    /// The fresh sizes asked for so far: hint and greatest value.
    pub(crate) fn take_fresh(&self) -> Vec<(String, i64)> {
        self.fresh.take()
    }
}

/// An axis of a tensor of that rank; negative counts from the end.
pub fn norm_axis(axis: i64, rank: usize) -> Result<usize> {
    let r = rank as i64;
    if axis < -r || axis >= r {
        return Err(Diagnostic::new(Code::Type, format!("axis {axis} is outside the tensor"))
            .need(format!("{}..{}", -r, r - 1), axis));
    }
    Ok(if axis < 0 { axis + r } else { axis } as usize)
}

/// Replaces the `i`-th invented symbol in a type.
pub(crate) fn bind_fresh(ty: &Type, with: &[Dim]) -> Type {
    ty.subst(&|s| with.get(s.strip_prefix(FRESH)?.parse::<usize>().ok()?).cloned())
}

/// Whether a written type fits an inferred one, where invented symbols fit anything and device and
/// encoding (decided after inference) are not compared.
pub(crate) fn fits(inferred: &Type, written: &Type) -> bool {
    let dims = |a: &TensorType, b: &TensorType| {
        a.elem == b.elem
            && a.rank() == b.rank()
            && a.dims
                .iter()
                .zip(&b.dims)
                .all(|(x, y)| x == y || x.symbols().iter().any(|s| s.starts_with(FRESH)))
    };
    match (inferred, written) {
        (Type::Tensor(a), Type::Tensor(b)) | (Type::State(a), Type::State(b)) => dims(a, b),
        (Type::Seq(a), Type::Seq(b)) | (Type::Opt(a), Type::Opt(b)) => fits(a, b),
        (a, b) => a == b,
    }
}

/// Result type of an elementwise op: the common shape of all operands, elements of the first.
pub(crate) fn elementwise(cx: &InferCx) -> Result<Vec<Type>> {
    let op = cx.func.op(cx.op);
    let Some(first) = op.operands().next() else { bail!(Type, "an operand is needed") };
    let ty = cx.func.ty(first);
    for v in op.operands().skip(1) {
        let other = cx.func.ty(v);
        let same_shape = match (ty, other) {
            (Type::Tensor(a), Type::Tensor(b)) => a.dims == b.dims,
            (Type::Tile(a), Type::Tile(b)) => a.shape == b.shape,
            (Type::Vec(a, _), Type::Vec(b, _)) => a == b,
            (Type::Scalar(_) | Type::Index, Type::Scalar(_) | Type::Index) => true,
            _ => false,
        };
        if !same_shape {
            return Err(Diagnostic::new(
                Code::Type,
                "the operands have different shapes".to_string(),
            )
            .need(ty, other)
            .note("broadcasting is explicit: use graph.broadcast"));
        }
    }
    Ok(vec![ty.clone()])
}

/// The known contents of an elementwise integer op, given by the op's own arithmetic on dims.
pub fn known_elementwise(cx: &InferCx, f: impl Fn(&[Dim]) -> Option<Dim>) -> Option<Vec<Dim>> {
    let op = cx.func.op(cx.op);
    let args: Vec<&[Dim]> =
        (0..op.operands().count()).map(|i| cx.known(i)).collect::<Option<_>>()?;
    let n = args.first()?.len();
    (0..n)
        .map(|i| {
            let x: Vec<Dim> = args.iter().map(|a| a.get(i).cloned()).collect::<Option<_>>()?;
            f(&x).filter(|d| !d.is_invalid())
        })
        .collect()
}
