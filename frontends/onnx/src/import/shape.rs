//! Operators that change or ask for shapes. Where the new shape is known, symbols included, it is an
//! attribute; where only the run knows it, it is an operand.

use silure_ir::dialects::arith;
use silure_ir::{Attr, Attrs, Dim, Elem, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    record("Shape", shape),
    record("Size", size),
    record("Reshape", reshape),
    record("Flatten", flatten),
    record("Squeeze", squeeze),
    record("Unsqueeze", unsqueeze),
    record("Transpose", transpose),
    record("Expand", expand),
    record("Tile", tile),
    record("DepthToSpace", depth_to_space),
    record("SpaceToDepth", space_to_depth),
];

/// The axes a node works on.
pub(super) enum Axes {
    /// They are known now.
    Known(Vec<i64>),
    /// A value has them when running.
    AtRun(ValueId),
}

impl Cx<'_, '_> {
    /// Axes given as an attribute up to opset `last`, as an operand after it.
    pub fn axes_of(&mut self, n: &Node<'_>, last: i64, operand: usize) -> Result<Option<Axes>> {
        if n.op.version <= last {
            return Ok(self.ints(n, "axes")?.map(Axes::Known));
        }
        let Some(v) = self.maybe(n, operand)? else { return Ok(None) };
        Ok(Some(match self.known_ints(v) {
            Some(axes) => Axes::Known(axes),
            None if self.ty(v)?.count() == Dim::Const(0) => Axes::Known(vec![]),
            None => Axes::AtRun(v),
        }))
    }

    /// `v` without the given axes of size 1.
    pub fn squeeze(&mut self, v: ValueId, axes: &[usize]) -> Result<ValueId> {
        let mut v = v;
        for &a in axes {
            self.expect_size(&mut v, a, &Dim::Const(1), "the size of a squeezed axis and 1")?;
        }
        let mut i = 0;
        let mut dims = self.dims(v)?;
        dims.retain(|_| {
            i += 1;
            !axes.contains(&(i - 1))
        });
        self.reshape(v, dims)
    }

    /// `v` with new axes of size 1 at these places of the result.
    pub fn unsqueeze(&mut self, v: ValueId, axes: &[usize]) -> Result<ValueId> {
        let old = self.dims(v)?;
        let mut old = old.into_iter();
        let rank = old.len() + axes.len();
        let dims = (0..rank)
            .filter_map(|i| if axes.contains(&i) { Some(Dim::Const(1)) } else { old.next() })
            .collect();
        self.reshape(v, dims)
    }

    /// `v` with axes `from..to` merged into one.
    pub fn merge(&mut self, v: ValueId, from: usize, to: usize) -> Result<ValueId> {
        let dims = self.dims(v)?;
        let one = dims[from..to].iter().cloned().fold(Dim::Const(1), |a, b| a * b);
        let mut new = dims[..from].to_vec();
        new.push(one);
        new.extend_from_slice(&dims[to..]);
        self.reshape(v, new)
    }
}

fn shape(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    let rank = cx.rank(x)? as i64;
    let place = |v: i64| if v < 0 { v.saturating_add(rank) } else { v }.clamp(0, rank);
    let start = place(cx.int_or(n, "start", 0)?);
    let end = place(cx.int_or(n, "end", rank)?).max(start);
    Ok(vec![cx.op("graph.shape_of", &[x], attrs! { start: start, end: end })?])
}

fn size(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    Ok(vec![cx.op("graph.size_of", &[x], attrs! {})?])
}

fn reshape(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let zero_is_zero = cx.flag_or(n, "allowzero", false)?;
    let x = cx.input(n, 0)?;
    let wanted = if n.op.version < 5 {
        let shape = cx.ints(n, "shape")?.unwrap_or_default();
        shape.into_iter().map(Dim::Const).collect()
    } else {
        let shape = cx.input(n, 1)?;
        match cx.known(shape) {
            Some(shape) => shape,
            None => return Ok(vec![reshape_at_run(cx, x, shape, zero_is_zero)?]),
        }
    };
    let old = cx.ty(x)?;
    let mut dims = Vec::new();
    let mut free = None;
    for (i, d) in wanted.iter().enumerate() {
        dims.push(match d.as_const() {
            Some(0) if !zero_is_zero => match old.dims.get(i) {
                Some(d) => d.clone(),
                None => {
                    return Err(cx.wrong(format!("the shape copies dim {i}, which is not there")));
                }
            },
            Some(-1) if free.is_some() => return Err(cx.wrong("the shape has two dims of -1")),
            Some(-1) => {
                free = Some(i);
                Dim::Const(1)
            }
            Some(v) if v < 0 => return Err(cx.wrong("a dim is negative").present(v.to_string())),
            _ => d.clone(),
        });
    }
    if let Some(i) = free {
        dims[i] = quotient(&old.dims, &dims).ok_or_else(|| {
            cx.wrong("the elements do not fill the new shape")
                .needed(old.to_string())
                .present(format!("{wanted:?}"))
        })?;
    }
    Ok(vec![cx.reshape(x, dims)?])
}

/// The size that makes `new` as large as `old`; `None` if it cannot be.
fn quotient(old: &[Dim], new: &[Dim]) -> Option<Dim> {
    // What both have cancels first: sums stay whole, and a size 0 there does no harm.
    let mut rest: Vec<Dim> = old.to_vec();
    let mut by = Dim::Const(1);
    for d in new {
        match rest.iter().position(|r| r == d) {
            Some(i) => {
                rest.remove(i);
            }
            None => by = by * d.clone(),
        }
    }
    let count = rest.into_iter().fold(Dim::Const(1), |a, b| a * b);
    if let (Some(a), Some(b)) = (count.as_const(), by.as_const()) {
        return (b != 0 && a % b == 0).then(|| Dim::Const(a / b));
    }
    Some(count.floordiv(&by)).filter(|d| !d.is_invalid())
}

/// A shape that the run computes, with 0 and -1 in it perhaps: the same arithmetic on tensors.
fn reshape_at_run(
    cx: &mut Cx<'_, '_>,
    x: ValueId,
    shape: ValueId,
    zero_is_zero: bool,
) -> Result<ValueId> {
    let mut s = cx.cast(shape, Elem::I64)?;
    let (rank, len) = (cx.rank(x)?, cx.dims(s)?);
    let Some(len) = len.first().and_then(Dim::as_size).filter(|_| len.len() == 1) else {
        return Err(cx.unsupported("the rank of the result is known only at run time"));
    };
    if !zero_is_zero {
        let old = cx.op("graph.shape_of", &[x], attrs! { start: 0, end: rank.min(len) as i64 })?;
        let pads = vec![Dim::Const(0), Dim::from(len - rank.min(len))];
        let old = cx.op("graph.pad", &[old], Attrs::new().with("pads", Attr::Dims(pads)))?;
        let zero = cx.with(&arith::EQ, s, 0.0)?;
        s = cx.one(&arith::SELECT, &[zero, old, s], attrs! {})?;
    }
    let count = cx.op("graph.size_of", &[x], attrs! {})?;
    let free = cx.with(&arith::EQ, s, -1.0)?;
    // The others' product, the free dim counted as one.
    let one = cx.ints_value(&[1])?;
    let others = cx.elementwise(&arith::SELECT, &[free, one, s], attrs! {})?;
    let product =
        cx.op("graph.reduce", &[others], attrs! { kind: "prod", axes: vec![0], keep: true })?;
    let size = cx.two(&arith::DIV, count, product)?;
    let s = cx.elementwise(&arith::SELECT, &[free, size, s], attrs! {})?;
    cx.op("graph.reshape", &[x, s], attrs! {})
}

fn flatten(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int_or(n, "axis", 1)?;
    let x = cx.input(n, 0)?;
    let dims = cx.dims(x)?;
    let at = if axis == dims.len() as i64 { dims.len() } else { cx.axis(axis, dims.len())? };
    let product = |d: &[Dim]| d.iter().cloned().fold(Dim::Const(1), |a, b| a * b);
    Ok(vec![cx.reshape(x, vec![product(&dims[..at]), product(&dims[at..])])?])
}

fn squeeze(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let axes = cx.axes_of(n, 12, 1)?;
    let x = cx.input(n, 0)?;
    let dims = cx.dims(x)?;
    let axes = match axes {
        Some(Axes::Known(a)) => cx.axes(&a, dims.len())?,
        Some(Axes::AtRun(v)) => {
            let (axes, n) = cx.counted(v)?;
            let Some(left) = dims.len().checked_sub(n) else {
                return Err(cx.wrong("there are more axes to remove than the operand has"));
            };
            let marked = cx.marked(axes, dims.len())?;
            return Ok(vec![cx.without_marked(x, marked, left)?]);
        }
        None => {
            if let Some(d) = dims.iter().find(|d| d.as_const().is_none()) {
                let at = cx.at.clone();
                cx.note(format!("dim `{d}` is taken not to be 1: {at} removes all dims of 1"));
            }
            (0..dims.len()).filter(|i| dims[*i] == Dim::Const(1)).collect()
        }
    };
    Ok(vec![cx.squeeze(x, &axes)?])
}

fn unsqueeze(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let Some(axes) = cx.axes_of(n, 12, 1)? else {
        return Err(cx.wrong("the axes are missing"));
    };
    let x = cx.input(n, 0)?;
    let axes = match axes {
        Axes::Known(axes) => axes,
        Axes::AtRun(v) => {
            let (axes, count) = cx.counted(v)?;
            let rank = cx.rank(x)? + count;
            let marked = cx.marked(axes, rank)?;
            return Ok(vec![cx.with_marked(x, marked)?]);
        }
    };
    let rank = cx.rank(x)? + axes.len();
    let axes = cx.axes(&axes, rank)?;
    Ok(vec![cx.unsqueeze(x, &axes)?])
}

fn transpose(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let perm = cx.ints(n, "perm")?;
    let x = cx.input(n, 0)?;
    let rank = cx.rank(x)?;
    let perm = perm.unwrap_or_else(|| (0..rank as i64).rev().collect());
    // Some exporters count from the end.
    let perm: Vec<usize> = perm.iter().map(|p| cx.axis(*p, rank)).collect::<Result<_>>()?;
    if perm.len() != rank {
        return Err(cx
            .wrong("attribute `perm` has the wrong length")
            .needed(rank.to_string())
            .present(perm.len().to_string()));
    }
    Ok(vec![cx.transpose(x, &perm)?])
}

fn expand(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (mut x, shape) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let Some(mut to) = cx.known(shape) else {
        return Ok(vec![expand_at_run(cx, x, shape)?]);
    };
    let rank = cx.rank(x)?;
    while to.len() < rank {
        to.insert(0, Dim::Const(1));
    }
    let lead = to.len() - rank;
    let one = Dim::Const(1);
    for i in 0..rank {
        if to[lead + i] != one && cx.dims(x)?[i] != one {
            let wanted = to[lead + i].clone();
            cx.expect_size(&mut x, i, &wanted, "an expanded size and the operand's")?;
        }
    }
    // Two dims may have become one above: the shape is what the operand says now.
    for (i, d) in cx.dims(x)?.into_iter().enumerate() {
        if d != one {
            to[lead + i] = d;
        }
    }
    if let Some(fresh) = cx.known(shape) {
        let skip = fresh.len().saturating_sub(to.len() - lead);
        to[..skip.min(lead)].clone_from_slice(&fresh[..skip.min(lead)]);
    }
    Ok(vec![cx.broadcast(x, &to)?])
}

/// One keeps a size, and any other number is the size: the op ends the run where the operand does not have it.
fn expand_at_run(cx: &mut Cx<'_, '_>, x: ValueId, shape: ValueId) -> Result<ValueId> {
    let len = cx.dims(shape)?;
    let Some(len) = len.first().and_then(Dim::as_size) else {
        return Err(cx.unsupported("the rank of the result is known only at run time"));
    };
    let rank = cx.rank(x)?.max(len);
    let own = cx.op("graph.shape_of", &[x], attrs! {})?;
    let mut both = Vec::new();
    for v in [own, shape] {
        let v = cx.cast(v, Elem::I64)?;
        let n = cx.dims(v)?[0].as_size().unwrap_or(rank);
        let ones = cx.ints_value(&vec![1; rank - n])?;
        both.push(if n == rank {
            v
        } else {
            cx.op("graph.concat", &[ones, v], attrs! { axis: 0 })?
        });
    }
    let keeps = cx.with(&arith::EQ, both[1], 1.0)?;
    let shape = cx.elementwise(&arith::SELECT, &[keeps, both[0], both[1]], attrs! {})?;
    cx.op("graph.broadcast", &[x, shape], attrs! {})
}

fn tile(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    if n.op.version < 6 {
        return tile_one_axis(cx, n);
    }
    let (x, mut repeats) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let rank = Dim::from(cx.rank(x)?);
    cx.expect_size(&mut repeats, 0, &rank, "the number of repeats and the rank")?;
    Ok(vec![match cx.known(repeats) {
        Some(r) => cx.op("graph.tile", &[x], Attrs::new().with("repeats", Attr::Dims(r)))?,
        None => cx.op("graph.tile", &[x, repeats], attrs! {})?,
    }])
}

/// Up to opset 5: one axis, both numbers of the operand's element type.
fn tile_one_axis(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    let mut numbers = Vec::new();
    for i in 1..3 {
        let v = cx.input(n, i)?;
        match cx.known_floats(v).as_deref() {
            Some(&[v]) if v.fract() == 0.0 => numbers.push(v as i64),
            _ => return Err(cx.unsupported("tiles and axis known only at run time")),
        }
    }
    let rank = cx.rank(x)?;
    let mut repeats = vec![Dim::Const(1); rank];
    repeats[cx.axis(numbers[1], rank)?] = Dim::Const(numbers[0]);
    Ok(vec![cx.op("graph.tile", &[x], Attrs::new().with("repeats", Attr::Dims(repeats)))?])
}

fn depth_to_space(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let Some(block) = cx.int(n, "blocksize")? else {
        return Err(cx.wrong("attribute `blocksize` is missing"));
    };
    let mode = cx.word(n, "mode", "DCR")?;
    let x = cx.input(n, 0)?;
    Ok(vec![cx.op("graph.depth_to_space", &[x], attrs! { block: block, mode: mode.as_str() })?])
}

fn space_to_depth(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let Some(block) = cx.int(n, "blocksize")? else {
        return Err(cx.wrong("attribute `blocksize` is missing"));
    };
    let mode = cx.word(n, "mode", "DCR")?;
    let x = cx.input(n, 0)?;
    Ok(vec![cx.op("graph.space_to_depth", &[x], attrs! { block: block, mode: mode.as_str() })?])
}
