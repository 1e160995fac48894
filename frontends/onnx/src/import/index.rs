//! Picking, placing, ordering and making elements by index.

use silure_ir::dialects::arith;
use silure_ir::{Attr, Attrs, Dim, Elem, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    record("Gather", gather),
    record("GatherElements", gather_elements),
    record("GatherND", gather_nd),
    record("Scatter", scatter_elements),
    record("ScatterElements", scatter_elements),
    record("ScatterND", scatter_nd),
    record("TopK", top_k),
    record("NonZero", non_zero),
    record("Compress", compress),
    record("Unique", unique),
    record("OneHot", one_hot),
    record("EyeLike", eye_like),
    record("Trilu", trilu),
    record("Range", range),
    record("CumSum", |cx, n| cumulate(cx, n, false)),
    record("CumProd", |cx, n| cumulate(cx, n, true)),
    record("ReverseSequence", reverse_sequence),
    record("TensorScatter", tensor_scatter),
];

impl Cx<'_, '_> {
    /// 0, 1, … below the number that a rank-0 i64 holds (none if it is negative).
    pub fn iota(&mut self, count: ValueId) -> Result<ValueId> {
        let (zero, one) = (self.number(Elem::I64, 0.0)?, self.number(Elem::I64, 1.0)?);
        // A count that folds is a size.
        let count = match self.constant_value(count) {
            Some(t) => self.constant((*t).clone())?,
            None => count,
        };
        self.op("graph.range", &[zero, count, one], attrs! {})
    }

    /// Element `i` of a rank-1 value, as rank 0.
    pub fn element(&mut self, v: ValueId, i: usize) -> Result<ValueId> {
        let v = self.cut(v, 0, Dim::from(i), Dim::from(i + 1))?;
        self.reshape(v, vec![])
    }

    /// Size of axis `axis` of x, as a rank-0 i64.
    pub fn size_of(&mut self, x: ValueId, axis: usize) -> Result<ValueId> {
        let a = axis as i64;
        let v = self.op("graph.shape_of", &[x], attrs! { start: a, end: a + 1 })?;
        self.reshape(v, vec![])
    }
}

fn gather(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int_or(n, "axis", 0)?;
    let (x, i) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let axis = cx.axis(axis, cx.rank(x)?)? as i64;
    Ok(vec![cx.op("graph.gather", &[x, i], attrs! { axis: axis })?])
}

fn gather_elements(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int_or(n, "axis", 0)?;
    let (x, i) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let axis = cx.axis(axis, cx.rank(x)?)? as i64;
    Ok(vec![cx.op("graph.gather_elements", &[x, i], attrs! { axis: axis })?])
}

pub(super) fn gather_nd(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let batch = cx.int_or(n, "batch_dims", 0)?;
    let (mut x, mut i) = (cx.input(n, 0)?, cx.input(n, 1)?);
    for d in 0..usize::try_from(batch).unwrap_or(0).min(cx.rank(x)?).min(cx.rank(i)?) {
        cx.same_size(&mut x, d, &mut i, d, "batch sizes")?;
    }
    if cx.dims(i)?.last().is_some_and(|d| d.as_const().is_none()) {
        return Err(cx.unsupported("index tuples of a length that only the run knows"));
    }
    Ok(vec![cx.op("graph.gather_nd", &[x, i], attrs! { batch: batch })?])
}

fn reduction(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<String> {
    let r = cx.word(n, "reduction", "none")?;
    if !["none", "add", "mul", "min", "max"].contains(&r.as_str()) {
        return Err(cx.wrong("attribute `reduction` has no such value").present(r));
    }
    Ok(r)
}

fn scatter_elements(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int_or(n, "axis", 0)?;
    let r = reduction(cx, n)?;
    let (x, mut i, mut u) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.input(n, 2)?);
    let rank = cx.rank(x)?;
    let axis = cx.axis(axis, rank)? as i64;
    for d in 0..rank.min(cx.rank(i)?).min(cx.rank(u)?) {
        cx.same_size(&mut i, d, &mut u, d, "sizes of indices and updates")?;
    }
    let attrs = attrs! { axis: axis, reduction: r.as_str() };
    Ok(vec![cx.op("graph.scatter_elements", &[x, i, u], attrs)?])
}

fn scatter_nd(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let r = reduction(cx, n)?;
    let (mut x, mut i, mut u) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.input(n, 2)?);
    let (rx, ri, ru) = (cx.rank(x)?, cx.rank(i)?, cx.rank(u)?);
    // The ranks say how long the tuples are.
    if let Some(k) = (ri + rx).checked_sub(ru + 1).filter(|k| ri > 0 && (1..=rx).contains(k)) {
        cx.expect_size(&mut i, ri - 1, &Dim::from(k), "the length of the index tuples")?;
    }
    let depth = cx.dims(i)?.last().and_then(Dim::as_size);
    if let Some(k) = depth
        && ri > 0
        && ru + k + 1 == ri + rx
        && k <= rx
    {
        for d in 0..ri - 1 {
            cx.same_size(&mut i, d, &mut u, d, "sizes of indices and updates")?;
        }
        for d in k..rx {
            cx.same_size(&mut x, d, &mut u, ri - 1 + d - k, "sizes of data and updates")?;
        }
    }
    Ok(vec![cx.op("graph.scatter_nd", &[x, i, u], attrs! { reduction: r.as_str() })?])
}

fn top_k(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int_or(n, "axis", -1)?;
    let largest = cx.flag_or(n, "largest", true)?;
    let sorted = cx.flag_or(n, "sorted", true)?;
    let x = cx.input(n, 0)?;
    let axis = cx.axis(axis, cx.rank(x)?)? as i64;
    let mut attrs = attrs! { axis: axis, largest: largest, sorted: sorted };
    let mut operands = vec![Some(x), None];
    if n.op.version < 10 {
        match cx.int(n, "k")? {
            Some(k) => attrs.set("k", Attr::Dims(vec![Dim::Const(k)])),
            None => return Err(cx.wrong("attribute `k` is missing")),
        }
    } else {
        let mut k = cx.input(n, 1)?;
        if cx.rank(k)? == 1 {
            cx.expect_size(&mut k, 0, &Dim::Const(1), "the number of `k`")?;
        }
        match cx.known_int(k) {
            Some(k) => attrs.set("k", Attr::Dims(vec![k])),
            None => operands[1] = Some(k),
        }
    }
    cx.ops("graph.top_k", &operands, attrs)
}

fn non_zero(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    Ok(vec![cx.op("graph.nonzero", &[x], attrs! {})?])
}

fn compress(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int(n, "axis")?;
    let (x, c) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let mut attrs = attrs! {};
    if let Some(a) = axis {
        let axis = cx.axis(a, cx.rank(x)?)?;
        attrs.set("axis", axis as i64);
        let line = cx.rank(c)? == 1 && cx.elem(c)? == Elem::Bool;
        // What is kept of a known length by a known condition has a known size.
        if line && let (Some(kept), Some(n)) = (cx.known_ints(c), cx.dims(x)?[axis].as_const()) {
            let at: Vec<i64> = (0..kept.len() as i64).filter(|i| kept[*i as usize] != 0).collect();
            if at.last().is_none_or(|last| *last < n) {
                let at = cx.ints_value(&at)?;
                return Ok(vec![cx.op("graph.gather", &[x, at], attrs)?]);
            }
        }
    }
    Ok(vec![cx.op("graph.compress", &[x, c], attrs)?])
}

fn unique(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int(n, "axis")?;
    let sorted = cx.flag_or(n, "sorted", true)?;
    let x = cx.input(n, 0)?;
    let mut attrs = attrs! { sorted: sorted };
    if let Some(a) = axis {
        attrs.set("axis", cx.axis(a, cx.rank(x)?)? as i64);
    }
    cx.ops("graph.unique", &[Some(x)], attrs)
}

fn one_hot(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int_or(n, "axis", -1)?;
    let (i, depth, values) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.input(n, 2)?);
    let integer = |cx: &mut Cx<'_, '_>, v| match cx.elem(v)? {
        Elem::I32 => Ok(v),
        _ => cx.cast(v, Elem::I64),
    };
    let (i, depth) = (integer(cx, i)?, integer(cx, depth)?);
    let axis = cx.axis(axis, cx.rank(i)? + 1)? as i64;
    let mut attrs = attrs! { axis: axis };
    let mut operands = vec![Some(i), Some(values), None];
    match cx.known_int(depth) {
        Some(d) => attrs.set("depth", Attr::Dims(vec![d])),
        None => operands[2] = Some(cx.reshape(depth, vec![Dim::Const(1)])?),
    }
    cx.ops("graph.one_hot", &operands, attrs)
}

fn eye_like(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let k = cx.int_or(n, "k", 0)?;
    let elem = cx.elem_attr(n, "dtype")?;
    let x = cx.input(n, 0)?;
    let elem = elem.unwrap_or(cx.elem(x)?);
    Ok(vec![cx.op("graph.eye_like", &[x], attrs! { k: k, elem: elem })?])
}

pub(super) fn trilu(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let upper = cx.flag_or(n, "upper", true)?;
    let x = cx.input(n, 0)?;
    let mut attrs = attrs! { upper: upper };
    let mut operands = vec![Some(x), None];
    match cx.maybe(n, 1)? {
        None => attrs.set("k", 0),
        Some(k) => match cx.known_ints(k).as_deref() {
            Some(&[k]) => attrs.set("k", k),
            _ => operands[1] = Some(k),
        },
    }
    cx.ops("graph.trilu", &operands, attrs)
}

fn range(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    if n.op.version >= 27 {
        // Small floats are computed in f64, which is at least what is asked for.
        cx.ignore("stash_type");
    }
    let mut v = Vec::new();
    for i in 0..3 {
        let x = cx.input(n, i)?;
        // Some exporters write one-element lists.
        v.push(if cx.rank(x)? > 0 { cx.reshape(x, vec![])? } else { x });
    }
    Ok(vec![range_of(cx, v)?])
}

/// The range from start to limit by a step, all of rank 0.
pub(super) fn range_of(cx: &mut Cx<'_, '_>, v: Vec<ValueId>) -> Result<ValueId> {
    let elem = cx.elem(v[0])?;
    if !elem.is_float() {
        return cx.op("graph.range", &v, attrs! {});
    }
    // A float range of constants has a known length as well.
    let floats: Option<Vec<f64>> =
        v.iter().map(|x| cx.known_floats(*x).and_then(|f| f.first().copied())).collect();
    let Some(f) = floats.filter(|_| elem.bits() >= 32) else { return range_at_run(cx, v) };
    let y = cx.op("graph.range", &v, attrs! {})?;
    if cx.dims(y)?[0].as_const().is_none() {
        let len = ((f[1] - f[0]) / f[2]).ceil().max(0.0);
        if len < 1e15 {
            let mut y = y;
            cx.expect_size(&mut y, 0, &Dim::Const(len as i64), "the length of the range")?;
            return Ok(y);
        }
    }
    Ok(y)
}

/// A float range whose length is decided when running: ⌈(limit − start) / delta⌉ positions, counted
/// in integers, and start + i · delta of each in f64 with one rounding.
fn range_at_run(cx: &mut Cx<'_, '_>, v: Vec<ValueId>) -> Result<ValueId> {
    let elem = cx.elem(v[0])?;
    if v.iter().any(|x| cx.elem(*x).ok() != Some(elem)) {
        return Err(cx.wrong("the numbers of a range have different types"));
    }
    let v: Vec<ValueId> = v.iter().map(|x| cx.cast(*x, Elem::F64)).collect::<Result<_>>()?;
    let span = cx.two(&arith::SUB, v[1], v[0])?;
    let count = cx.two(&arith::DIV, span, v[2])?;
    let count = cx.one(&arith::CEIL, &[count], attrs! {})?;
    let count = cx.cast(count, Elem::I64)?;
    let i = cx.iota(count)?;
    let i = cx.cast(i, Elem::F64)?;
    let along = cx.two(&arith::MUL, i, v[2])?;
    let y = cx.two(&arith::ADD, v[0], along)?;
    cx.cast(y, elem)
}

fn cumulate(cx: &mut Cx<'_, '_>, n: &Node<'_>, product: bool) -> Result<Vec<ValueId>> {
    let exclusive = cx.flag_or(n, "exclusive", false)?;
    let reverse = cx.flag_or(n, "reverse", false)?;
    let (x, axis) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let along = |cx: &mut Cx<'_, '_>, x: ValueId, axis: usize| {
        let attrs = attrs! {
            axis: axis as i64, exclusive: exclusive, reverse: reverse, product: product,
        };
        cx.op("graph.cumsum", &[x], attrs)
    };
    let rank = cx.rank(x)?;
    if cx.ty(axis)?.count() != Dim::Const(1) {
        return Err(cx.wrong("the axis is one number").present(cx.ty(axis)?.to_string()));
    }
    if let Some(&[axis]) = cx.known_ints(axis).as_deref() {
        let axis = cx.axis(axis, rank)?;
        return Ok(vec![along(cx, x, axis)?]);
    }
    let marked = cx.marked(axis, rank)?;
    Ok(vec![cx.along_marked(x, marked, along)?])
}

fn reverse_sequence(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let batch = cx.int_or(n, "batch_axis", 1)?;
    let time = cx.int_or(n, "time_axis", 0)?;
    let (mut x, mut lengths) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let rank = cx.rank(x)?;
    let (batch, time) = (cx.axis(batch, rank)?, cx.axis(time, rank)?);
    cx.same_size(&mut x, batch, &mut lengths, 0, "the batch size and the number of lengths")?;
    let attrs = attrs! { time_axis: time as i64, batch_axis: batch as i64 };
    Ok(vec![cx.op("graph.reverse_sequence", &[x, lengths], attrs)?])
}

/// A cache with new entries written at each batch's position along `axis`: as a scatter.
fn tensor_scatter(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int_or(n, "axis", -2)?;
    let circular = match cx.word(n, "mode", "linear")?.as_str() {
        "linear" => false,
        "circular" => true,
        m => return Err(cx.wrong("attribute `mode` is neither linear nor circular").present(m)),
    };
    let (past, update) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let rank = cx.rank(past)?;
    let axis = cx.axis(axis, rank)?;
    let dims = cx.dims(update)?;
    if dims.len() != rank || axis == 0 {
        return Err(cx
            .wrong(
                "the cache and the update have the same axes, the batch and that of `axis` first",
            )
            .present(format!("{} and {}, axis {axis}", cx.ty(past)?, cx.ty(update)?)));
    }
    let length = cx.cut(update, axis, Dim::Const(0), dims[axis].clone())?;
    let length =
        cx.op("graph.shape_of", &[length], attrs! { start: axis as i64, end: axis as i64 + 1 })?;
    let length = cx.reshape(length, vec![])?;
    let (zero, one) = (cx.number(Elem::I64, 0.0)?, cx.number(Elem::I64, 1.0)?);
    let mut at = cx.op("graph.range", &[zero, length, one], attrs! {})?;
    cx.expect_size(&mut at, 0, &dims[axis], "the number of positions")?;
    let mut along = vec![Dim::Const(1); rank];
    along[axis] = dims[axis].clone();
    let mut at = cx.reshape(at, along)?;
    if let Some(start) = cx.maybe(n, 2)? {
        let mut per_batch = vec![Dim::Const(1); rank];
        per_batch[0] = dims[0].clone();
        let start = cx.reshape(start, per_batch)?;
        let start = cx.cast(start, Elem::I64)?;
        at = cx.two(&arith::ADD, at, start)?;
    }
    if circular {
        let a = axis as i64;
        let size = cx.op("graph.shape_of", &[past], attrs! { start: a, end: a + 1 })?;
        at = cx.two(&arith::MOD, at, size)?;
    }
    let at = cx.broadcast(at, &dims)?;
    let attrs = Attrs::new().with("axis", axis as i64);
    Ok(vec![cx.op("graph.scatter_elements", &[past, at, update], attrs)?])
}
