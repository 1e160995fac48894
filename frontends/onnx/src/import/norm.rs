//! Normalisations.

use silure_ir::dialects::arith;
use silure_ir::{Attr, Dim, Elem, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    record("BatchNormalization", batch_norm),
    record("LayerNormalization", layer_norm),
    record("RMSNormalization", rms_norm),
    record("InstanceNormalization", instance_norm),
    record("GroupNormalization", group_norm),
    record("LRN", lrn),
    record("LpNormalization", lp_norm),
    record("MeanVarianceNormalization", mean_variance_norm),
];

/// Channel parameters: rank 1, one number per channel of x.
fn channels(cx: &mut Cx<'_, '_>, x: ValueId, v: ValueId) -> Result<ValueId> {
    let mut v = v;
    if cx.rank(x)? < 2 || cx.rank(v)? != 1 {
        return Err(cx
            .wrong("a channel parameter does not fit")
            .needed("one number for each channel of an input with axes [n, c, …]")
            .present(format!("{} for {}", cx.ty(v)?, cx.ty(x)?)));
    }
    let c = cx.dims(x)?[1].clone();
    cx.expect_size(&mut v, 0, &c, "the number of channels and of their parameters")?;
    Ok(v)
}

fn batch_norm(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let epsilon = cx.float_or(n, "epsilon", 1e-5)?;
    let momentum = cx.float_or(n, "momentum", 0.9)?;
    let training = cx.flag_or(n, "training_mode", false)?;
    if n.op.version < 7 && !cx.flag_or(n, "is_test", false)? {
        return Err(cx.unsupported("normalisation in training mode (`is_test` = 0, opsets 1 to 6)"));
    }
    let per_channel = n.op.version >= 9 || cx.flag_or(n, "spatial", true)?;
    let x = cx.input(n, 0)?;
    let p = [cx.input(n, 1)?, cx.input(n, 2)?, cx.input(n, 3)?, cx.input(n, 4)?];
    if !per_channel {
        return Ok(vec![positions_norm(cx, x, p, epsilon)?]);
    }
    let mut p: Vec<ValueId> = p.iter().map(|v| channels(cx, x, *v)).collect::<Result<_>>()?;
    if !training {
        let y =
            cx.op("graph.batch_norm", &[x, p[0], p[1], p[2], p[3]], attrs! { epsilon: epsilon })?;
        return Ok(vec![y]);
    }
    // Statistics of this batch, and the running ones moved towards them.
    let axes: Vec<i64> = (0..cx.rank(x)? as i64).filter(|a| *a != 1).collect();
    let reduce = |cx: &mut Cx<'_, '_>, v: ValueId, keep: bool| {
        let a = attrs! { kind: "mean", axes: axes.clone(), keep: keep };
        cx.op("graph.reduce", &[v], a)
    };
    let mean = reduce(cx, x, true)?;
    let centred = cx.two(&arith::SUB, x, mean)?;
    let square = cx.two(&arith::MUL, centred, centred)?;
    let now = [reduce(cx, x, false)?, reduce(cx, square, false)?];
    let mut out = Vec::new();
    for i in 0..2 {
        let elem = cx.elem(p[2 + i])?;
        let now = cx.cast(now[i], elem)?;
        let old = cx.with(&arith::MUL, p[2 + i], momentum)?;
        let new = cx.with(&arith::MUL, now, 1.0 - momentum)?;
        out.push(cx.two(&arith::ADD, old, new)?);
        p[2 + i] = now;
    }
    let y = cx.op("graph.batch_norm", &[x, p[0], p[1], p[2], p[3]], attrs! { epsilon: epsilon })?;
    Ok(vec![y, out[0], out[1]])
}

/// Parameters of the shape of one item of the batch: each position has its own.
fn positions_norm(
    cx: &mut Cx<'_, '_>,
    x: ValueId,
    p: [ValueId; 4],
    epsilon: f64,
) -> Result<ValueId> {
    let (mut x, mut p) = (x, p);
    let rank = cx.rank(x)?;
    for v in &mut p {
        if cx.rank(*v)? + 1 != rank {
            return Err(cx.wrong("a parameter does not have the shape of one item of the batch"));
        }
        for d in 1..rank {
            cx.same_size(&mut x, d, v, d - 1, "sizes of the operand and of a parameter")?;
        }
    }
    let [scale, bias, mean, var] = p;
    let var = cx.with(&arith::ADD, var, epsilon)?;
    let deviation = cx.one(&arith::SQRT, &[var], attrs! {})?;
    let y = cx.two(&arith::SUB, x, mean)?;
    let y = cx.two(&arith::DIV, y, deviation)?;
    let y = cx.two(&arith::MUL, y, scale)?;
    cx.two(&arith::ADD, y, bias)
}

/// A parameter of the normalised axes, repeated to their shape.
pub(super) fn tail(cx: &mut Cx<'_, '_>, x: ValueId, axis: usize, v: ValueId) -> Result<ValueId> {
    let mut v = v;
    let dims = cx.dims(x)?[axis..].to_vec();
    let rank = cx.rank(v)?;
    // Leading axes of size 1 say nothing.
    if rank > dims.len() {
        let extra: Vec<usize> = (0..rank - dims.len()).collect();
        v = cx.squeeze(v, &extra)?;
    }
    let rank = cx.rank(v)?;
    for i in 0..rank {
        if cx.dims(v)?[i] != Dim::Const(1) {
            let to = cx.dims(x)?[axis + dims.len() - rank + i].clone();
            cx.expect_size(&mut v, i, &to, "the normalised sizes and those of a parameter")?;
        }
    }
    let dims = cx.dims(x)?[axis..].to_vec();
    cx.broadcast(v, &dims)
}

fn layer_norm(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int_or(n, "axis", -1)?;
    let epsilon = cx.float_or(n, "epsilon", 1e-5)?;
    let stash = cx.elem_attr(n, "stash_type")?.unwrap_or(Elem::F32);
    let x = cx.input(n, 0)?;
    let axis = cx.axis(axis, cx.rank(x)?)?;
    let scale = cx.input(n, 1)?;
    let scale = tail(cx, x, axis, scale)?;
    let bias = match cx.maybe(n, 2)? {
        Some(b) => Some(tail(cx, x, axis, b)?),
        None => None,
    };
    let stats = cx.wants(n, 1) || cx.wants(n, 2);
    let attrs = attrs! { axis: axis as i64, epsilon: epsilon, stats: stats };
    let mut out = cx.ops("graph.layer_norm", &[Some(x), Some(scale), bias], attrs)?;
    for v in &mut out[1..] {
        *v = cx.cast(*v, stash)?;
    }
    Ok(out)
}

fn rms_norm(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int_or(n, "axis", -1)?;
    let epsilon = cx.float_or(n, "epsilon", 1e-5)?;
    cx.ignore("stash_type");
    let x = cx.input(n, 0)?;
    let axis = cx.axis(axis, cx.rank(x)?)?;
    let scale = cx.input(n, 1)?;
    let scale = tail(cx, x, axis, scale)?;
    let attrs = attrs! { axis: axis as i64, epsilon: epsilon };
    Ok(vec![cx.op("graph.rms_norm", &[x, scale], attrs)?])
}

fn instance_norm(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let epsilon = cx.float_or(n, "epsilon", 1e-5)?;
    let x = cx.input(n, 0)?;
    let (s, b) = (cx.input(n, 1)?, cx.input(n, 2)?);
    let (s, b) = (channels(cx, x, s)?, channels(cx, x, b)?);
    Ok(vec![cx.op("graph.instance_norm", &[x, s, b], attrs! { epsilon: epsilon })?])
}

fn group_norm(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let epsilon = cx.float_or(n, "epsilon", 1e-5)?;
    cx.ignore("stash_type");
    let Some(groups) = cx.int(n, "num_groups")? else {
        return Err(cx.wrong("attribute `num_groups` is missing"));
    };
    let x = cx.input(n, 0)?;
    let mut p = Vec::new();
    for i in 1..3 {
        let mut v = cx.input(n, i)?;
        if n.op.version < 21 {
            // One number per group: repeat it for the group's channels.
            let Some(c) = cx.dims(x)?.get(1).cloned() else {
                return Err(cx.wrong("the operand has no channels"));
            };
            let each = c.floordiv(&Dim::Const(groups.max(1)));
            cx.expect_size(&mut v, 0, &Dim::Const(groups), "the number of groups")?;
            v = cx.reshape(v, vec![Dim::Const(groups), Dim::Const(1)])?;
            v = cx.broadcast(v, &[Dim::Const(groups), each])?;
            v = cx.reshape(v, vec![c])?;
        }
        p.push(channels(cx, x, v)?);
    }
    let attrs = attrs! { groups: groups, epsilon: epsilon };
    Ok(vec![cx.op("graph.group_norm", &[x, p[0], p[1]], attrs)?])
}

/// x / (bias + alpha · mean of x² over the `size` channels around each)^beta; what lies beyond the
/// first and the last channel counts as 0.
fn lrn(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (alpha, beta) = (cx.float_or(n, "alpha", 1e-4)?, cx.float_or(n, "beta", 0.75)?);
    let bias = cx.float_or(n, "bias", 1.0)?;
    let Some(size) = cx.int(n, "size")? else {
        return Err(cx.wrong("attribute `size` is missing"));
    };
    if !(1..1 << 31).contains(&size) {
        return Err(cx.wrong("attribute `size` is out of range").present(size.to_string()));
    }
    let x = cx.input(n, 0)?;
    let dims = cx.dims(x)?;
    let [batch, channels, rest @ ..] = dims.as_slice() else {
        return Err(cx.wrong("the operand has no channels").present(cx.ty(x)?.to_string()));
    };
    let inner = rest.iter().cloned().fold(Dim::Const(1), |a, b| a * b);
    // The channels are one spatial axis of a pool, all that follows them the other.
    let square = cx.two(&arith::MUL, x, x)?;
    let plane = vec![batch.clone(), Dim::Const(1), channels.clone(), inner];
    let square = cx.reshape(square, plane)?;
    let pads = [(size - 1) / 2, 0, size / 2, 0].map(Dim::Const).to_vec();
    let attrs = attrs! { kernel: vec![size, 1], count_include_pad: true };
    let mean = cx.op("graph.average_pool", &[square], attrs.with("pads", Attr::Dims(pads)))?;
    let mean = cx.reshape(mean, dims)?;
    let scaled = cx.with(&arith::MUL, mean, alpha)?;
    let base = cx.with(&arith::ADD, scaled, bias)?;
    let by = cx.with(&arith::POW, base, beta)?;
    Ok(vec![cx.two(&arith::DIV, x, by)?])
}

/// x divided by its norm along an axis; 0 where the norm is 0.
fn lp_norm(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (axis, p) = (cx.int_or(n, "axis", -1)?, cx.int_or(n, "p", 2)?);
    let kind = match p {
        1 => "l1",
        2 => "l2",
        p => return Err(cx.wrong("attribute `p` is neither 1 nor 2").present(p.to_string())),
    };
    let x = cx.input(n, 0)?;
    let axis = cx.axis(axis, cx.rank(x)?)?;
    let norm = cx.reduce(x, kind, &[axis], true)?;
    // A norm of 0 is that of zeros, which any divisor leaves alone.
    let none = cx.with(&arith::EQ, norm, 0.0)?;
    let one = cx.number(cx.elem(x)?, 1.0)?;
    let by = cx.elementwise(&arith::SELECT, &[none, one, norm], attrs! {})?;
    Ok(vec![cx.two(&arith::DIV, x, by)?])
}

/// (x − mean) / (standard deviation + 1e-9) over the axes.
fn mean_variance_norm(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let axes = cx.ints(n, "axes")?.unwrap_or(vec![0, 2, 3]);
    let x = cx.input(n, 0)?;
    let axes = cx.axes(&axes, cx.rank(x)?)?;
    let mean = cx.reduce(x, "mean", &axes, true)?;
    let centred = cx.two(&arith::SUB, x, mean)?;
    let square = cx.two(&arith::MUL, centred, centred)?;
    let variance = cx.reduce(square, "mean", &axes, true)?;
    let deviation = cx.one(&arith::SQRT, &[variance], attrs! {})?;
    let deviation = cx.with(&arith::ADD, deviation, 1e-9)?;
    Ok(vec![cx.two(&arith::DIV, centred, deviation)?])
}
