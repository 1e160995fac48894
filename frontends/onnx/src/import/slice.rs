//! Parts of tensors, and tensors of parts.

use silure_ir::{Attr, Attrs, Dim, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    record("Slice", slice),
    record("Concat", concat),
    record("Split", split),
    record("Pad", pad),
    record("CenterCropPad", center_crop_pad),
];

impl Cx<'_, '_> {
    /// `x[.., start..end, ..]` along one axis.
    pub fn cut(&mut self, x: ValueId, axis: usize, start: Dim, end: Dim) -> Result<ValueId> {
        let attrs = Attrs::new()
            .with("axes", vec![axis as i64])
            .with("starts", Attr::Dims(vec![start]))
            .with("ends", Attr::Dims(vec![end]));
        self.op("graph.slice", &[x], attrs)
    }

    /// The values one after the other along an axis; their other sizes are made to agree.
    pub fn concat(&mut self, values: &[ValueId], axis: usize) -> Result<ValueId> {
        let mut v = values.to_vec();
        let rank = self.rank(v[0])?;
        // Once to find the dims, once more so that all have their last spelling.
        for _ in 0..2 {
            for i in 1..v.len() {
                if self.rank(v[i])? != rank {
                    return Err(self.wrong("joined tensors have different ranks"));
                }
                for d in (0..rank).filter(|d| *d != axis) {
                    let (mut a, mut b) = (v[0], v[i]);
                    self.same_size(&mut a, d, &mut b, d, "sizes of joined tensors")?;
                    (v[0], v[i]) = (a, b);
                }
            }
        }
        if v.len() == 1 {
            return Ok(v[0]);
        }
        self.op("graph.concat", &v, attrs! { axis: axis as i64 })
    }

    /// Consecutive parts of these sizes.
    pub fn parts(&mut self, x: ValueId, axis: usize, sizes: Vec<Dim>) -> Result<Vec<ValueId>> {
        let attrs = Attrs::new().with("axis", axis as i64).with("sizes", Attr::Dims(sizes));
        self.ops("graph.split", &[Some(x)], attrs)
    }
}

/// Exporters write the greatest 32- or 64-bit integer for "to the end": the size itself says it better.
fn to_the_end(ends: &mut [Dim], sizes: &[Dim]) {
    for (e, n) in ends.iter_mut().zip(sizes) {
        if e.as_const().is_some_and(|e| e >= i64::from(i32::MAX)) {
            *e = n.clone();
        }
    }
}

fn slice(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    let rank = cx.rank(x)?;
    if n.op.version < 10 {
        let (starts, ends) = (cx.ints(n, "starts")?, cx.ints(n, "ends")?);
        let (Some(starts), Some(ends)) = (starts, ends) else {
            return Err(cx.wrong("attributes `starts` and `ends` are needed"));
        };
        let axes = cx.ints(n, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let axes: Vec<i64> =
            axes.iter().map(|a| Ok(cx.axis(*a, rank)? as i64)).collect::<Result<_>>()?;
        let sizes: Vec<Dim> =
            axes.iter().map(|a| Ok(cx.dims(x)?[*a as usize].clone())).collect::<Result<_>>()?;
        let dims = |v: Vec<i64>| v.into_iter().map(Dim::Const).collect::<Vec<Dim>>();
        let mut ends = dims(ends);
        to_the_end(&mut ends, &sizes);
        let attrs = Attrs::new()
            .with("axes", axes)
            .with("starts", Attr::Dims(dims(starts)))
            .with("ends", Attr::Dims(ends));
        return Ok(vec![cx.op("graph.slice", &[x], attrs)?]);
    }
    let (mut starts, mut ends) = (cx.input(n, 1)?, cx.input(n, 2)?);
    let given = cx.maybe(n, 3)?;
    let known = match given {
        Some(v) => cx.known_ints(v),
        None => cx.dims(starts)?.first().and_then(Dim::as_size).map(|n| (0..n as i64).collect()),
    };
    let Some(axes) = known else {
        let steps = cx.maybe(n, 4)?;
        return Ok(vec![cx.slice_at_run(x, [starts, ends], given, steps)?]);
    };
    let axes: Vec<i64> =
        axes.iter().map(|a| Ok(cx.axis(*a, rank)? as i64)).collect::<Result<_>>()?;
    for v in [&mut starts, &mut ends] {
        cx.expect_size(v, 0, &Dim::from(axes.len()), "the numbers of bounds and of axes")?;
    }
    let forward = match cx.maybe(n, 4)? {
        Some(s) => cx.known_ints(s).is_some_and(|s| s.iter().all(|s| *s > 0)),
        None => true,
    };
    let sizes: Vec<Dim> =
        axes.iter().map(|a| Ok(cx.dims(x)?[*a as usize].clone())).collect::<Result<_>>()?;
    let mut attrs = Attrs::new().with("axes", axes);
    let mut operands = vec![Some(x), None, None, None];
    for (i, (name, v)) in [("starts", starts), ("ends", ends)].into_iter().enumerate() {
        match cx.known(v) {
            Some(mut d) => {
                if name == "ends" && forward {
                    to_the_end(&mut d, &sizes);
                }
                attrs.set(name, Attr::Dims(d));
            }
            None => operands[i + 1] = Some(v),
        }
    }
    if let Some(steps) = cx.maybe(n, 4)? {
        match cx.known_ints(steps) {
            Some(s) if s.iter().all(|s| *s == 1) => {}
            Some(s) => attrs.set("steps", s),
            None => operands[3] = Some(steps),
        }
    }
    cx.ops("graph.slice", &operands, attrs)
}

fn concat(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let axis = match cx.int(n, "axis")? {
        Some(axis) => axis,
        None if n.op.version < 4 => 1,
        None => return Err(cx.wrong("attribute `axis` is missing")),
    };
    let v = cx.inputs(n)?;
    let rank = cx.rank(v[0])?;
    let axis = cx.axis(axis, rank)?;
    Ok(vec![cx.concat(&v, axis)?])
}

fn split(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int_or(n, "axis", 0)?;
    let given = if n.op.version < 13 { cx.ints(n, "split")? } else { None };
    let count = cx.int(n, "num_outputs")?;
    let mut x = cx.input(n, 0)?;
    let rank = cx.rank(x)?;
    let axis = cx.axis(axis, rank)?;
    let mut sizes: Option<Vec<Dim>> = given.map(|v| v.into_iter().map(Dim::Const).collect());
    if n.op.version < 2
        && let Some(v) = cx.maybe(n, 1)?
    {
        // The sizes have the operand's element type.
        let Some(s) = cx.known_floats(v) else {
            return Err(cx.unsupported("sizes of the parts that only the run knows"));
        };
        sizes = Some(s.into_iter().map(|s| Dim::Const(s as i64)).collect());
    }
    if n.op.version >= 13
        && let Some(v) = cx.maybe(n, 1)?
    {
        match cx.known(v) {
            Some(s) => sizes = Some(s),
            None => {
                let parts = n.outputs.len() as i64;
                let attrs = attrs! { axis: axis as i64, parts: parts };
                return cx.ops("graph.split", &[Some(x), Some(v)], attrs);
            }
        }
    }
    let size = cx.dims(x)?[axis].clone();
    let sizes = match sizes {
        Some(s) => {
            let sum = s.iter().cloned().fold(Dim::Const(0), |a, b| a + b);
            cx.expect_size(&mut x, axis, &sum, "the split size and the sum of the parts")?;
            s
        }
        None => {
            let parts = count.unwrap_or(n.outputs.len() as i64);
            if !(1..=1 << 16).contains(&parts) {
                return Err(cx
                    .wrong("the number of parts is out of range")
                    .present(parts.to_string()));
            }
            let by = Dim::Const(parts);
            // Without a stated number the parts are equal; with one the last may be smaller.
            let part = if count.is_some() { size.ceildiv(&by) } else { size.floordiv(&by) };
            let mut s = vec![part.clone(); parts as usize];
            if let Some(last) = s.last_mut() {
                *last = size.clone() - part * Dim::Const(parts - 1);
            }
            if count.is_none()
                && let (Some(a), Some(b)) = (s[0].as_const(), s[parts as usize - 1].as_const())
                && a != b
            {
                return Err(cx
                    .wrong("the axis does not split into equal parts")
                    .needed(format!("a multiple of {parts}"))
                    .present(size.to_string()));
            }
            s
        }
    };
    cx.parts(x, axis, sizes)
}

fn pad(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let mode = cx.word(n, "mode", "constant")?;
    let x = cx.input(n, 0)?;
    let rank = cx.rank(x)?;
    let mut attrs = Attrs::new().with("mode", mode.as_str());
    if n.op.version < 11 {
        let name = if n.op.version < 2 { "paddings" } else { "pads" };
        let pads = cx.ints_or(n, name, 2 * rank, 0)?;
        let value = cx.float_or(n, "value", 0.0)?;
        attrs.set("pads", Attr::Dims(pads.into_iter().map(Dim::Const).collect()));
        let elem = cx.elem(x)?;
        let value = if value == 0.0 { None } else { Some(cx.number(elem, value)?) };
        return cx.ops("graph.pad", &[Some(x), value, None], attrs);
    }
    padded(cx, n, mode)
}

/// A `Pad` of any domain that has its pads as an operand.
pub(super) fn pad_by_operands(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let mode = cx.word(n, "mode", "constant")?;
    padded(cx, n, mode)
}

fn padded(cx: &mut Cx<'_, '_>, n: &Node<'_>, mode: String) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    let rank = cx.rank(x)?;
    let mut attrs = Attrs::new().with("mode", mode.as_str());
    let (pads, value) = (cx.input(n, 1)?, cx.maybe(n, 2)?);
    let value = if mode == "constant" { value } else { None };
    // Some exporters give a list of one.
    let value = match value {
        Some(v) if cx.rank(v)? == 1 => Some(cx.reshape(v, vec![])?),
        v => v,
    };
    let given = cx.maybe(n, 3)?;
    let axes = match given {
        Some(v) => cx.known_ints(v),
        None => Some((0..rank as i64).collect()),
    };
    let (Some(known), Some(axes)) = (cx.known(pads), axes) else {
        let pads = match given {
            Some(axes) => cx.pads_at_run(pads, axes, rank)?,
            None => {
                let mut pads = pads;
                cx.expect_size(
                    &mut pads,
                    0,
                    &Dim::from(2 * rank),
                    "pads before and after each axis",
                )?;
                pads
            }
        };
        return cx.ops("graph.pad", &[Some(x), value, Some(pads)], attrs);
    };
    if known.len() != 2 * axes.len() {
        return Err(cx
            .wrong("the pads have the wrong length")
            .needed((2 * axes.len()).to_string())
            .present(known.len().to_string()));
    }
    let mut all = vec![Dim::Const(0); 2 * rank];
    for (i, a) in axes.iter().enumerate() {
        let a = cx.axis(*a, rank)?;
        all[a] = known[i].clone();
        all[a + rank] = known[i + axes.len()].clone();
    }
    attrs.set("pads", Attr::Dims(all));
    cx.ops("graph.pad", &[Some(x), value, None], attrs)
}

fn center_crop_pad(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let axes = cx.ints(n, "axes")?;
    let (x, shape) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let dims = cx.dims(x)?;
    let rank = dims.len();
    let axes = axes.unwrap_or_else(|| (0..rank as i64).collect());
    let axes: Vec<usize> = axes.iter().map(|a| cx.axis(*a, rank)).collect::<Result<_>>()?;
    let from: Option<Vec<i64>> = axes.iter().map(|a| dims[*a].as_const()).collect();
    let (Some(to), Some(from)) = (cx.known_ints(shape), from) else {
        return Ok(vec![cx.centred_at_run(x, shape, &axes)?]);
    };
    if to.len() != axes.len() {
        return Err(cx.wrong("the shape and the axes have different lengths"));
    }
    let mut pads = vec![Dim::Const(0); 2 * rank];
    for ((a, to), from) in axes.into_iter().zip(to).zip(from) {
        // Half before (rounded down when padding, so is the cropped part), the rest after.
        let before = (to - from).abs() / 2 * (to - from).signum();
        pads[a] = Dim::Const(before);
        pads[a + rank] = Dim::Const(to - from - before);
    }
    Ok(vec![cx.op("graph.pad", &[x], Attrs::new().with("pads", Attr::Dims(pads)))?])
}
