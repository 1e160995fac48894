//! Views and the accesses through them.

use silure_types::Elem;

use crate::attr::AttrKind;
use crate::bail;
use crate::diag::{Code, Diagnostic, Result};
use crate::func::{Func, OpId, ValueId};
use crate::infer::InferCx;
use crate::op::*;
use crate::types::{Space, TileType, Type};

/// A tensor in memory.
pub static VIEW: OpDef = OpDef {
    name: "tile.view",
    doc: "The tensor of rank r at `base`: r sizes, then r strides, in elements. Element (i, j, …) is at base + \
          i·stride₀ + j·stride₁ + …; a size at or below 0 is an empty axis. The base is aligned to 16 bytes.",
    operands: &[one("base", Of::Ptr), many("sizes_strides", Of::Index)],
    results: &["view"],
    infer: Some(|cx| match cx.ty(0)? {
        Type::Ptr(e, Space::Global) => {
            let n = cx.func.op(cx.op).tail().len();
            if n % 2 != 0 || n > 16 {
                let m = "a view has as many strides as sizes, at most 8";
                return Err(Diagnostic::new(Code::Type, m).need("an even number", n));
            }
            if e.bytes().is_none() {
                bail!(Type, "elements of {e} are not addressable one by one; view them as u8");
            }
            Ok(vec![Type::View(*e, n / 2)])
        }
        t => Err(cx.wrong(0, "a pointer to global memory", t)),
    }),
    ..OpDef::NEW
};

/// A tile out of a view.
pub static LOAD: OpDef = OpDef {
    name: "tile.load",
    doc: "The tile of shape `tile` whose first element is at the offsets (one per axis of the view, any sign). \
          It spans the view's axes `axes`, in order (by default the last ones); the others have extent 1 and are \
          dropped. Elements outside the view are `pad`. `tile = []` gives a scalar.",
    operands: &[one("view", Of::View), many("offsets", Of::Index)],
    results: &["y"],
    attrs: &[required("tile", AttrKind::Ints), maybe("axes", AttrKind::Ints), float("pad", 0.0)],
    traits: Traits::READS,
    infer: Some(|cx| {
        let (elem, rank) = view_type(cx)?;
        check_offsets(cx, rank, 1)?;
        let shape = static_shape(cx, "tile")?;
        spanned_axes(cx, rank, shape.len())?;
        Ok(vec![tile_or_scalar(elem, shape)])
    }),
    verify: Some(|cx| {
        let (elem, _) = view_type(cx)?;
        let pad = cx.attrs().float("pad");
        if elem.is_float() || elem.decode(elem.encode(pad)) == pad {
            return Ok(());
        }
        Err(Diagnostic::new(Code::Type, "`pad` is not a value of the element type").need(elem, pad))
    }),
    ..OpDef::NEW
};

/// A tile into a view.
pub static STORE: OpDef = OpDef {
    name: "tile.store",
    doc: "Writes the tile or scalar `value` at the offsets, spanning `axes` as in `tile.load`; elements outside \
          the view are not written. Two programs must not write one element, nor one read what another writes.",
    operands: &[one("view", Of::View), one("value", Of::Elem), many("offsets", Of::Index)],
    attrs: &[maybe("axes", AttrKind::Ints)],
    traits: Traits::EFFECT,
    infer: Some(|cx| {
        let (elem, rank) = view_type(cx)?;
        check_offsets(cx, rank, 2)?;
        let n = match cx.ty(1)? {
            Type::Tile(TileType { elem: e, shape }) if *e == elem => shape.len(),
            Type::Scalar(e) if *e == elem => 0,
            t => return Err(cx.wrong(1, &format!("a tile or scalar of {elem}"), t)),
        };
        spanned_axes(cx, rank, n)?;
        Ok(vec![])
    }),
    ..OpDef::NEW
};

/// Elements anywhere in a view.
pub static GATHER: OpDef = OpDef {
    name: "tile.gather",
    doc: "For each of the tile `positions` the view's element there; `pad` where the position is outside the view, which \
          has one axis.",
    operands: &[one("view", Of::View), one("positions", Of::Position)],
    results: &["y"],
    attrs: &[float("pad", 0.0)],
    traits: Traits::READS,
    infer: Some(|cx| {
        let elem = line(cx)?;
        Ok(vec![Type::tile(elem, positions(cx, 1)?.to_vec())])
    }),
    verify: LOAD.verify,
    ..OpDef::NEW
};

/// Elements to anywhere in a view.
pub static SCATTER: OpDef = OpDef {
    name: "tile.scatter",
    doc: "Writes each element of the tile `value` at its own of the tile `positions` of the view, which has one axis; \
          nothing where the position is outside. No two positions are one.",
    operands: &[one("view", Of::View), one("value", Of::Elem), one("positions", Of::Position)],
    traits: Traits::EFFECT,
    infer: Some(|cx| {
        let (elem, shape) = (line(cx)?, positions(cx, 2)?);
        match cx.ty(1)? {
            Type::Tile(t) if t.elem == elem && t.shape == shape => Ok(vec![]),
            t => Err(cx.wrong(1, &Type::tile(elem, shape.to_vec()).to_string(), t)),
        }
    }),
    ..OpDef::NEW
};

/// What went wrong, for the host.
pub static REPORT: OpDef = OpDef {
    name: "tile.report",
    doc: "Where the condition holds (for any element of a tile), the u32 at `word` becomes at least `code`. Programs may \
          report at the same time; nothing else reads or writes the word.",
    operands: &[one("word", Of::Ptr), one("condition", Of::Bool)],
    attrs: &[required("code", AttrKind::Int)],
    traits: Traits::EFFECT,
    infer: Some(|cx| match cx.ty(0)? {
        Type::Ptr(Elem::U32, Space::Global) => Ok(vec![]),
        t => Err(cx.wrong(0, "a pointer to u32 in global memory", t)),
    }),
    verify: Some(|cx| match cx.attrs().int("code") {
        1..=0x7FFF_FFFF => Ok(()),
        n => bail!(Type, "`code` is {n}, not a positive i32"),
    }),
    ..OpDef::NEW
};

/// What the program has written becomes what it reads.
pub static FENCE: OpDef = OpDef {
    name: "tile.fence",
    doc: "What the program has written to memory is what it loads from there behind this op; without one, a load of what the same \
          program has written may give either.",
    traits: Traits::EFFECT,
    infer: Some(|_| Ok(vec![])),
    ..OpDef::NEW
};

/// The elements of a view of one axis.
fn line(cx: &InferCx) -> Result<Elem> {
    match view_type(cx)? {
        (elem, 1) => Ok(elem),
        _ => Err(cx.wrong(0, "a view of one axis", cx.ty(0)?)),
    }
}

/// The shape of a tile of positions.
fn positions<'a>(cx: &InferCx<'a>, i: usize) -> Result<&'a [usize]> {
    match cx.ty(i)? {
        Type::Tile(t) => Ok(&t.shape),
        t => Err(cx.wrong(i, "a tile", t)),
    }
}

fn view_type(cx: &InferCx) -> Result<(Elem, usize)> {
    match cx.ty(0)? {
        Type::View(e, r) => Ok((*e, *r)),
        t => Err(cx.wrong(0, "a view", t)),
    }
}

fn check_offsets(cx: &InferCx, rank: usize, fixed: usize) -> Result<()> {
    let n = cx.func.op(cx.op).slots().len().saturating_sub(fixed);
    if n != rank {
        let m = "an access has one offset for each axis of the view";
        return Err(Diagnostic::new(Code::Type, m).need(rank, n));
    }
    Ok(())
}

/// The most elements of one tile.
pub(super) const MOST_TILE: usize = 1 << 20;

/// A static shape attribute: positive sizes, at most 2²⁰ elements.
pub(super) fn static_shape(cx: &InferCx, name: &str) -> Result<Vec<usize>> {
    let shape = cx.attrs().ints(name);
    let sizes: Option<Vec<usize>> =
        shape.iter().map(|&s| usize::try_from(s).ok().filter(|&s| s > 0)).collect();
    let count = sizes
        .as_ref()
        .and_then(|s| s.iter().try_fold(1usize, |a, &b| a.checked_mul(b)))
        .filter(|&n| n <= MOST_TILE);
    match (sizes, count) {
        (Some(s), Some(_)) => Ok(s),
        _ => Err(Diagnostic::new(Code::Type, format!("attribute `{name}` is not a tile shape"))
            .need(format!("positive sizes, at most {MOST_TILE} elements"), format!("{shape:?}"))),
    }
}

/// The axes of the view that a tile of rank `n` spans.
fn spanned_axes(cx: &InferCx, rank: usize, n: usize) -> Result<Vec<usize>> {
    if cx.attrs().get("axes").is_none() {
        if n > rank {
            bail!(Type, "a tile of rank {n} does not lie in a view of rank {rank}");
        }
        return Ok((rank - n..rank).collect());
    }
    let axes = cx.attrs().ints("axes");
    let ascending = axes.windows(2).all(|w| w[0] < w[1]);
    if axes.len() != n || !ascending || axes.iter().any(|&a| a < 0 || a >= rank as i64) {
        let m = "attribute `axes` names one axis of the view for each axis of the tile";
        return Err(Diagnostic::new(Code::Type, m)
            .need(format!("{n} ascending axes below {rank}"), format!("{axes:?}"))
            .note("transposing is explicit: use tile.transpose"));
    }
    Ok(axes.iter().map(|&a| a as usize).collect())
}

/// A tile type; of rank 0, a scalar.
pub(super) fn tile_or_scalar(elem: Elem, shape: Vec<usize>) -> Type {
    if shape.is_empty() { Type::Scalar(elem) } else { Type::tile(elem, shape) }
}

/// The parts of a view, for lowerings.
#[derive(Clone, Debug)]
pub struct ViewParts<'a> {
    /// Element type.
    pub elem: Elem,
    /// The pointer.
    pub base: ValueId,
    /// Sizes, one per axis.
    pub sizes: &'a [ValueId],
    /// Strides in elements, one per axis.
    pub strides: &'a [ValueId],
}

/// The parts of a view. A view is never carried by control flow, so its definition is always known.
pub fn view_of(f: &Func, view: ValueId) -> Result<ViewParts<'_>> {
    let Some(op) = f.def_op(view).filter(|op| f.op(*op).def == &VIEW) else {
        bail!(Verify, "a view that is not the result of tile.view");
    };
    let (o, elem) = (f.op(op), f.ty(view).elem());
    let (Some(base), Some(elem)) = (o.operand(0), elem) else {
        bail!(Verify, "a view without base");
    };
    let (sizes, strides) = o.tail().split_at(o.tail().len() / 2);
    Ok(ViewParts { elem, base, sizes, strides })
}

/// One load or store, for lowerings.
#[derive(Clone, Debug)]
pub struct Access<'a> {
    /// The view.
    pub view: ViewParts<'a>,
    /// One offset per axis of the view.
    pub offsets: &'a [ValueId],
    /// Extent along each axis of the view; 1 along dropped ones.
    pub extent: Vec<usize>,
    /// The axes that the tile spans, ascending.
    pub axes: Vec<usize>,
    /// What elements outside read as (loads).
    pub pad: f64,
    /// The value stored, or the loaded result.
    pub value: ValueId,
}

/// The parts of a `tile.load` or `tile.store`.
pub fn access(f: &Func, op: OpId) -> Result<Access<'_>> {
    let (o, cx) = (f.op(op), InferCx::new(f, op));
    let (_, rank) = view_type(&cx)?;
    let value = if o.def == &LOAD { o.results.first().copied() } else { o.operand(1) };
    let (Some(view), Some(value)) = (o.operand(0), value) else {
        bail!(Verify, "`{}` is not a complete access", o.def.name);
    };
    let shape = match f.ty(value) {
        Type::Tile(t) => t.shape.as_slice(),
        _ => &[],
    };
    let axes = spanned_axes(&cx, rank, shape.len())?;
    let mut extent = vec![1; rank];
    for (&a, &s) in axes.iter().zip(shape) {
        extent[a] = s;
    }
    let pad = o.attrs.float("pad");
    Ok(Access { view: view_of(f, view)?, offsets: o.tail(), extent, axes, pad, value })
}
