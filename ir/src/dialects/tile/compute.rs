//! Tiles from tiles.

use silure_types::Elem;

use super::memory::{MOST_TILE, static_shape, tile_or_scalar};
use crate::attr::AttrKind;
use crate::bail;
use crate::diag::{Code, Diagnostic, Result};
use crate::infer::InferCx;
use crate::op::*;
use crate::types::{TileType, Type};

/// A tile of one value.
pub static FULL: OpDef = OpDef {
    name: "tile.full",
    doc: "The tile of shape `shape` with every element the scalar x.",
    operands: &[one("x", Of::Elem)],
    results: &["y"],
    attrs: &[required("shape", AttrKind::Ints)],
    infer: Some(|cx| match cx.ty(0)? {
        Type::Scalar(e) => Ok(vec![Type::tile(*e, nonempty(cx, "shape")?)]),
        t => Err(cx.wrong(0, "a scalar", t)),
    }),
    ..OpDef::NEW
};

/// Positions along an axis.
pub static IOTA: OpDef = OpDef {
    name: "tile.iota",
    doc: "The i32 tile [0, 1, …, size − 1]; `tile.broadcast` makes it a row or a column.",
    results: &["y"],
    attrs: &[required("size", AttrKind::Int)],
    infer: Some(|cx| {
        let n = usize::try_from(cx.attrs().int("size")).unwrap_or(0);
        if n == 0 || n > MOST_TILE {
            bail!(Type, "`size` is {}, not a size", cx.attrs().int("size"));
        }
        Ok(vec![Type::tile(Elem::I32, [n])])
    }),
    ..OpDef::NEW
};

/// The tile repeated along a new axis.
pub static BROADCAST: OpDef = OpDef {
    name: "tile.broadcast",
    doc: "x repeated `size` times along a new axis at position `axis`: the inverse of `tile.reduce`.",
    operands: &[one("x", Of::Elem)],
    results: &["y"],
    attrs: &[required("axis", AttrKind::Int), required("size", AttrKind::Int)],
    infer: Some(|cx| {
        let t = tile(cx, 0)?;
        let axis = cx.axis("axis", t.shape.len() + 1)?;
        let size = usize::try_from(cx.attrs().int("size")).unwrap_or(0);
        let mut shape = t.shape.clone();
        shape.insert(axis, size);
        let count = shape.iter().try_fold(1usize, |a, &b| a.checked_mul(b));
        if size == 0 || count.is_none_or(|n| n > MOST_TILE) {
            bail!(Type, "a tile {shape:?} is empty or has more than {MOST_TILE} elements");
        }
        Ok(vec![Type::tile(t.elem, shape)])
    }),
    ..OpDef::NEW
};

/// The same elements in another shape.
pub static RESHAPE: OpDef = OpDef {
    name: "tile.reshape",
    doc: "The elements of x, in row-major order, as a tile of shape `shape`.",
    operands: &[one("x", Of::Elem)],
    results: &["y"],
    attrs: &[required("shape", AttrKind::Ints)],
    infer: Some(|cx| {
        let (t, shape) = (tile(cx, 0)?, nonempty(cx, "shape")?);
        let (a, b) = (t.shape.iter().product::<usize>(), shape.iter().product::<usize>());
        if a != b {
            return Err(Diagnostic::new(Code::Type, "the number of elements changes").need(a, b));
        }
        Ok(vec![Type::tile(t.elem, shape)])
    }),
    ..OpDef::NEW
};

/// Axes permuted.
pub static TRANSPOSE: OpDef = OpDef {
    name: "tile.transpose",
    doc: "Axis i of the result is axis `perm[i]` of x. In front of `tile.dot` it costs nothing on most targets.",
    operands: &[one("x", Of::Elem)],
    results: &["y"],
    attrs: &[required("perm", AttrKind::Ints)],
    infer: Some(|cx| {
        let (t, perm) = (tile(cx, 0)?, cx.attrs().ints("perm"));
        let mut seen = vec![false; t.shape.len()];
        for &p in perm {
            match usize::try_from(p).ok().and_then(|p| seen.get_mut(p)) {
                Some(s) if !*s => *s = true,
                _ => bail!(Type, "`perm` {perm:?} is not an order of the axes of {t}"),
            }
        }
        if perm.len() != seen.len() {
            bail!(Type, "`perm` {perm:?} is not an order of the axes of {t}");
        }
        Ok(vec![Type::tile(t.elem, perm.iter().map(|&p| t.shape[p as usize]).collect::<Vec<_>>())])
    }),
    ..OpDef::NEW
};

/// A matrix product added to an accumulator.
pub static DOT: OpDef = OpDef {
    name: "tile.dot",
    doc: "acc + a · b for a of M×K, b of K×N, acc of M×N. Products are exact. Floats accumulate in f32 (f64 for \
          f64), integers of 8 bits in i32; f32 inputs are not rounded first (cast to tf32 to allow that).",
    operands: &[one("a", Of::Num), one("b", Of::Num), one("acc", Of::Num)],
    results: &["y"],
    infer: Some(|cx| {
        let (a, b, acc) = (tile(cx, 0)?, tile(cx, 1)?, tile(cx, 2)?);
        let ([m, k], [k2, n]) = (a.shape.as_slice(), b.shape.as_slice()) else {
            bail!(Type, "cannot multiply {a} by {b}: two matrices are needed");
        };
        if k != k2 {
            return Err(Diagnostic::new(Code::Type, "the contracted sizes differ").need(k, k2));
        }
        let Some(e) = dot_accumulator(a.elem, b.elem) else {
            bail!(Type, "there is no product of {} by {}", a.elem, b.elem);
        };
        if acc.elem != e || acc.shape != [*m, *n] {
            return Err(cx.wrong(2, &Type::tile(e, [*m, *n]).to_string(), cx.ty(2)?));
        }
        Ok(vec![cx.ty(2)?.clone()])
    }),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// The accumulator of a product, if there is such a product: both operands of one type, except that
/// 8-bit floats mix and signed bytes mix with unsigned ones.
pub fn dot_accumulator(a: Elem, b: Elem) -> Option<Elem> {
    let fp8 = |e| matches!(e, Elem::E4m3fn | Elem::E5m2 | Elem::E4m3fnuz | Elem::E5m2fnuz);
    let fnuz = |e| matches!(e, Elem::E4m3fnuz | Elem::E5m2fnuz);
    let byte = |e| matches!(e, Elem::I8 | Elem::U8);
    match (a, b) {
        (Elem::F64, Elem::F64) => Some(Elem::F64),
        (Elem::F16 | Elem::Bf16 | Elem::Tf32 | Elem::F32, _) if a == b => Some(Elem::F32),
        _ if fp8(a) && fp8(b) && fnuz(a) == fnuz(b) => Some(Elem::F32),
        _ if byte(a) && byte(b) => Some(Elem::I32),
        _ => None,
    }
}

/// How `tile.reduce` and `tile.scan` combine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Sum,
    Product,
    Max,
    Min,
}

/// The `kind` attribute of a reduction or scan.
pub fn kind(word: &str) -> Result<Kind> {
    Ok(match word {
        "sum" => Kind::Sum,
        "prod" => Kind::Product,
        "max" => Kind::Max,
        "min" => Kind::Min,
        _ => bail!(Type, "`kind` is \"{word}\", not one of sum, prod, max, min"),
    })
}

/// An axis combined into one element.
pub static REDUCE: OpDef = OpDef {
    name: "tile.reduce",
    doc: "x combined along `axis`, which disappears (the only axis: a scalar). `kind` is sum, prod, max or min; \
          max and min of a NaN are NaN; the order of combination is the target's but fixed.",
    operands: &[one("x", Of::Num)],
    results: &["y"],
    attrs: &[required("kind", AttrKind::Str), required("axis", AttrKind::Int)],
    infer: Some(|cx| {
        let t = tile(cx, 0)?;
        kind(cx.attrs().str("kind"))?;
        let mut shape = t.shape.clone();
        shape.remove(cx.axis("axis", shape.len())?);
        Ok(vec![tile_or_scalar(t.elem, shape)])
    }),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// Running combination along an axis.
pub static SCAN: OpDef = OpDef {
    name: "tile.scan",
    doc: "Element i along `axis` combines elements 0 to i (from the end with `reverse`), by `kind` as in \
          `tile.reduce`.",
    operands: &[one("x", Of::Num)],
    results: &["y"],
    attrs: &[
        required("kind", AttrKind::Str),
        required("axis", AttrKind::Int),
        flag("reverse", false),
    ],
    infer: Some(|cx| {
        let t = tile(cx, 0)?;
        kind(cx.attrs().str("kind"))?;
        cx.axis("axis", t.shape.len())?;
        Ok(vec![cx.ty(0)?.clone()])
    }),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// A loaded integer as a position.
pub static INDEX: OpDef = OpDef {
    name: "tile.index",
    doc: "The integer scalar x as an index: for positions read from memory. (`arith.cast` goes the other way.)",
    operands: &[one("x", Of::Int)],
    results: &["y"],
    infer: Some(|cx| match cx.ty(0)? {
        Type::Scalar(_) => Ok(vec![Type::Index]),
        t => Err(cx.wrong(0, "an integer scalar", t)),
    }),
    ..OpDef::NEW
};

fn nonempty(cx: &InferCx, name: &str) -> Result<Vec<usize>> {
    let shape = static_shape(cx, name)?;
    if shape.is_empty() {
        bail!(Type, "attribute `{name}` is empty; a tile has at least one axis");
    }
    Ok(shape)
}

fn tile<'a>(cx: &InferCx<'a>, i: usize) -> Result<&'a TileType> {
    match cx.ty(i)? {
        Type::Tile(t) => Ok(t),
        t => Err(cx.wrong(i, "a tile", t)),
    }
}
