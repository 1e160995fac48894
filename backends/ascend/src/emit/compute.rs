//! Tiles from tiles: fills, broadcasts, reductions, products.

use silure_ir::dialects::core::constant_of;
use silure_ir::dialects::tile::{self, Kind, kind};
use silure_ir::{Class, Code, Def, Diagnostic, Elem, Func, Num, OpId, Result, Type, ValueId};

use super::Emitter;
use super::text::type_name;
use crate::mlir;

impl Emitter<'_> {
    /// Ops of `tile` that compute.
    pub(super) fn compute(&mut self, id: OpId) -> Result<()> {
        let f = self.t.f;
        let op = f.op(id);
        let y = op.result();
        let y_ty = f.ty(y).clone();
        match op.def.name {
            "tile.full" => {
                let x = self.operand(id, 0)?;
                let of = type_name(f.ty(x))?;
                let x = self.t.get(x)?;
                let n = self.fill(&y_ty, &x, &of)?;
                self.t.alias(y, n);
            }
            "tile.iota" => {
                let (ty, empty) = self.empty(&y_ty)?;
                let (zero, one) = (self.t.index(0), self.t.index(1));
                self.t.def(
                    y,
                    format!(
                        "hfusion.arange offset[{zero}] strides[{one}] outs({empty} : {ty}) -> {ty}"
                    ),
                );
            }
            "tile.broadcast" => {
                let (x, x_ty) = self.operand_text(id, 0)?;
                let (ty, empty) = self.empty(&y_ty)?;
                let axis = axis_of(op.attrs.int("axis"), rank(&y_ty));
                self.t.def(
                    y,
                    format!(
                        "linalg.broadcast ins({x} : {x_ty}) outs({empty} : {ty}) dimensions = [{axis}]"
                    ),
                );
            }
            "tile.transpose" => {
                let (x, x_ty) = self.operand_text(id, 0)?;
                let (ty, empty) = self.empty(&y_ty)?;
                let perm: Vec<String> = op.attrs.ints("perm").iter().map(i64::to_string).collect();
                self.t.def(
                    y,
                    format!(
                        "linalg.transpose ins({x} : {x_ty}) outs({empty} : {ty}) permutation = [{}]",
                        perm.join(", ")
                    ),
                );
            }
            "tile.reshape" => self.reshape(id)?,
            "tile.reduce" => self.reduce(id)?,
            "tile.scan" => {
                let (x, x_ty) = self.operand_text(id, 0)?;
                let axis = axis_of(op.attrs.int("axis"), rank(&y_ty));
                let reverse = op.attrs.bool("reverse");
                let word = match kind(op.attrs.str("kind"))? {
                    Kind::Sum => "cumsum",
                    Kind::Product => "cumprod",
                    _ => {
                        let m = "the Ascend compiler has no running maximum or minimum";
                        return Err(Diagnostic::new(Code::Unsupported, m));
                    }
                };
                self.t.def(
                    y,
                    format!("hfusion.{word} {x} : {x_ty} cum_dims = [{axis}] reverse = {reverse} -> {x_ty}"),
                );
            }
            "tile.dot" => self.dot(id)?,
            "tile.index" => {
                let (x, x_ty) = self.operand_text(id, 0)?;
                let unsigned =
                    f.ty(self.operand(id, 0)?).elem().map(Elem::class) == Some(Class::Unsigned);
                let cast = if unsigned { "index_castui" } else { "index_cast" };
                self.t.def(y, format!("arith.{cast} {x} : {x_ty} to index"));
            }
            name => {
                return Err(Diagnostic::new(
                    Code::Unsupported,
                    format!("`{name}` has no form in the Ascend tile ABI"),
                ));
            }
        }
        Ok(())
    }

    pub(super) fn operand(&self, id: OpId, i: usize) -> Result<ValueId> {
        let op = self.t.f.op(id);
        op.operand(i).ok_or_else(|| {
            Diagnostic::new(Code::Verify, format!("`{}` lacks operand {i}", op.def.name))
        })
    }

    /// Name and MLIR type of an operand.
    pub(super) fn operand_text(&self, id: OpId, i: usize) -> Result<(String, String)> {
        let v = self.operand(id, i)?;
        Ok((self.t.get(v)?, type_name(self.t.f.ty(v))?))
    }

    /// An empty tensor of a tile's type: the type's name and the value's.
    fn empty(&mut self, of: &Type) -> Result<(String, String)> {
        let ty = type_name(of)?;
        let n = self.t.let_("empty", format!("tensor.empty() : {ty}"));
        Ok((ty, n))
    }

    /// The tile of one value.
    pub(super) fn fill(&mut self, of: &Type, x: &str, x_ty: &str) -> Result<String> {
        let (ty, empty) = self.empty(of)?;
        Ok(self
            .t
            .let_("full", format!("linalg.fill ins({x} : {x_ty}) outs({empty} : {ty}) -> {ty}")))
    }

    fn reshape(&mut self, id: OpId) -> Result<()> {
        let f = self.t.f;
        let (x, x_ty) = self.operand_text(id, 0)?;
        let y = f.op(id).result();
        let (from, to) = (shape(f.ty(self.operand(id, 0)?)), shape(f.ty(y)));
        let y_ty = type_name(f.ty(y))?;
        if from == to {
            self.t.alias(y, x);
            return Ok(());
        }
        // Through one axis: every pair of shapes is a collapse and an expansion.
        let count: usize = from.iter().product();
        let e = f.ty(y).elem().and_then(mlir::elem).unwrap_or("i8");
        let flat_ty = format!("tensor<{count}x{e}>");
        let axes = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
        let flat = if from.len() == 1 {
            x
        } else {
            let n = axes(from.len());
            self.t
                .let_("flat", format!("tensor.collapse_shape {x} [[{n}]] : {x_ty} into {flat_ty}"))
        };
        if to.len() == 1 {
            self.t.alias(y, flat);
        } else {
            let sizes: Vec<String> = to.iter().map(usize::to_string).collect();
            let n = axes(to.len());
            self.t.def(
                y,
                format!(
                    "tensor.expand_shape {flat} [[{n}]] output_shape [{}] : {flat_ty} into {y_ty}",
                    sizes.join(", ")
                ),
            );
        }
        Ok(())
    }

    fn reduce(&mut self, id: OpId) -> Result<()> {
        let f = self.t.f;
        let op = f.op(id);
        let (x, x_ty) = self.operand_text(id, 0)?;
        let y = op.result();
        let e = f.ty(y).elem().unwrap_or(Elem::F32);
        let axis = axis_of(op.attrs.int("axis"), rank(f.ty(self.operand(id, 0)?)));
        let kind = kind(op.attrs.str("kind"))?;
        let (low, high) = if e.is_float() { (f64::NEG_INFINITY, f64::INFINITY) } else { e.range() };
        let init = match kind {
            Kind::Sum => 0.0,
            Kind::Product => 1.0,
            Kind::Max => low,
            Kind::Min => high,
        };
        let combine = match (kind, e.class()) {
            (Kind::Sum, Class::Float) => "addf",
            (Kind::Sum, _) => "addi",
            (Kind::Product, Class::Float) => "mulf",
            (Kind::Product, _) => "muli",
            (Kind::Max, Class::Float) => "maximumf",
            (Kind::Max, _) => "maxsi",
            (Kind::Min, Class::Float) => "minimumf",
            (Kind::Min, _) => "minsi",
        };
        let init = self.t.number(&Type::Scalar(e), Num::F(init))?;
        let s = type_name(&Type::Scalar(e))?;
        let to_scalar = !matches!(f.ty(y), Type::Tile(_));
        let out_ty = if to_scalar { format!("tensor<{s}>") } else { type_name(f.ty(y))? };
        let empty = self.t.let_("empty", format!("tensor.empty() : {out_ty}"));
        let start = self.t.let_(
            "start",
            format!("linalg.fill ins({init} : {s}) outs({empty} : {out_ty}) -> {out_ty}"),
        );
        let name = if to_scalar { self.t.fresh("reduced") } else { self.t.name(y) };
        let (a, b, c) = (self.t.fresh("a"), self.t.fresh("b"), self.t.fresh("ab"));
        self.t.open(format!(
            "{name} = linalg.reduce ins({x} : {x_ty}) outs({start} : {out_ty}) dimensions = [{axis}] ({a}: {s}, {b}: {s}) {{"
        ));
        self.t.line(format!("{c} = arith.{combine} {a}, {b} : {s}"));
        self.t.line(format!("linalg.yield {c} : {s}"));
        self.t.close("}");
        if to_scalar {
            self.t.def(y, format!("tensor.extract {name}[] : {out_ty}"));
        }
        Ok(())
    }

    /// A product. Where the accumulator is one of the cube unit all along, it is the product's
    /// destination; else the product starts from zero and a vector addition follows.
    fn dot(&mut self, id: OpId) -> Result<()> {
        let f = self.t.f;
        let y = f.op(id).result();
        let (a, a_ty) = self.operand_text(id, 0)?;
        let (b, b_ty) = self.operand_text(id, 1)?;
        let (acc, ty) = self.operand_text(id, 2)?;
        let acc_value = self.operand(id, 2)?;
        let product = |outs: &str| {
            format!(
                "linalg.matmul {{input_precision = \"ieee\"}} ins({a}, {b} : {a_ty}, {b_ty}) outs({outs} : {ty}) -> {ty}"
            )
        };
        let zero_to_begin = is_zero(f, acc_value);
        if !zero_to_begin && accumulates(f, acc_value) && self.accumulate_in_cube {
            self.t.def(y, product(&acc));
            return Ok(());
        }
        let e = f.ty(y).elem().unwrap_or(Elem::F32);
        let zero = self.t.number(&Type::Scalar(e), Num::F(0.0))?;
        let of = type_name(&Type::Scalar(e))?;
        // The compiler sees an accumulator's zero only right before its product.
        let start = self.fill(&f.ty(y).clone(), &zero, &of)?;
        if zero_to_begin {
            self.t.def(y, product(&start));
            return Ok(());
        }
        let raw = self.t.let_("product", product(&start));
        let add = if e.is_float() { "addf" } else { "addi" };
        self.t.def(y, format!("arith.{add} {acc}, {raw} : {ty}"));
        Ok(())
    }
}

/// Whether a value lives in the cube unit's accumulator: zero to begin with, then only sums of products.
pub(crate) fn accumulates(f: &Func, v: ValueId) -> bool {
    fn ask(f: &Func, v: ValueId, seen: &mut Vec<ValueId>) -> bool {
        if seen.contains(&v) {
            // Around a loop: it holds if the rest does.
            return true;
        }
        seen.push(v);
        match f.value(v).def {
            Def::Arg(r, i) => {
                let Some(op) = f.region(r).parent.filter(|op| f.op(*op).def == &tile::FOR) else {
                    return false;
                };
                i > 0 && carried(f, op, i - 1, seen)
            }
            Def::Result(op, i) => match f.op(op).def.name {
                "tile.full" => {
                    f.op(op).operand(0).and_then(|x| constant_of(f, x)).is_some_and(|t| {
                        let zero = t.get(0);
                        zero.f() == 0.0 && !zero.f().is_sign_negative()
                    })
                }
                "tile.dot" => f.op(op).operand(2).is_some_and(|acc| ask(f, acc, seen)),
                "tile.for" => carried(f, op, i, seen),
                _ => false,
            },
        }
    }
    fn carried(f: &Func, op: OpId, i: usize, seen: &mut Vec<ValueId>) -> bool {
        let init = f.op(op).tail().get(i).copied();
        let next = f.op(op).regions.first().and_then(|r| f.yields(*r).get(i).copied());
        match (init, next) {
            (Some(a), Some(b)) => ask(f, a, seen) && ask(f, b, seen),
            _ => false,
        }
    }
    ask(f, v, &mut vec![])
}

/// Whether a value is a tile filled with the constant +0.
pub(super) fn is_zero(f: &Func, v: ValueId) -> bool {
    let full = f.def_op(v).filter(|op| f.op(*op).def == &tile::FULL);
    full.and_then(|op| constant_of(f, f.op(op).operand(0)?))
        .is_some_and(|t| t.get(0).f() == 0.0 && !t.get(0).f().is_sign_negative())
}

fn shape(t: &Type) -> Vec<usize> {
    match t {
        Type::Tile(t) => t.shape.clone(),
        _ => vec![],
    }
}

fn rank(t: &Type) -> usize {
    shape(t).len()
}

/// A verified axis, counted from the front.
fn axis_of(axis: i64, rank: usize) -> i64 {
    if axis < 0 { axis + rank as i64 } else { axis }
}
