//! Resampling.

use silure_ir::dialects::arith;
use silure_ir::{Attr, Attrs, Dim, Elem, Num, Tensor, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    record("Resize", resize),
    Record { domain: "", op: "Upsample", since: (1, 9), convert: upsample },
];

/// A list for some axes as a list for all, with `rest` elsewhere.
fn spread<T: Clone>(
    cx: &Cx<'_, '_>,
    list: &[T],
    axes: &[usize],
    rank: usize,
    rest: &[T],
) -> Result<Vec<T>> {
    if list.len() != axes.len() {
        return Err(cx
            .wrong("the scales or sizes do not fit the axes")
            .needed(axes.len().to_string())
            .present(list.len().to_string()));
    }
    let mut all = rest[..rank].to_vec();
    for (v, a) in list.iter().zip(axes) {
        all[*a] = v.clone();
    }
    Ok(all)
}

/// Scales that only the run decides, for `axes`: scales of all axes in f64, and the sizes they give.
fn scales_at_run(
    cx: &mut Cx<'_, '_>,
    x: ValueId,
    scales: ValueId,
    axes: &[usize],
) -> Result<[Option<ValueId>; 2]> {
    let scales = cx.cast(scales, Elem::F64)?;
    let places = places(cx, axes)?;
    let rank = cx.rank(x)?;
    let scales = cx.placed(places, scales, rank, Num::F(1.0))?;
    let own = lengths(cx, x)?;
    // The op's own rule: the product in f32.
    let (own, by) = (cx.cast(own, Elem::F32)?, cx.cast(scales, Elem::F32)?);
    let sizes = cx.two(&arith::MUL, own, by)?;
    let sizes = cx.one(&arith::FLOOR, &[sizes], attrs! {})?;
    Ok([Some(scales), Some(cx.cast(sizes, Elem::I64)?)])
}

/// The sizes that known scales of all axes give, where the dims alone do not say them: the product in f32 of a
/// size that the run decides is a dim only for scales that are small multiples of 1/64.
fn sizes_of_scales(cx: &mut Cx<'_, '_>, x: ValueId, scales: &[f64]) -> Result<Option<ValueId>> {
    let said = |(n, s): (&Dim, &f64)| n.as_const().is_some() || (s * 64.0).fract() == 0.0;
    if cx.dims(x)?.iter().zip(scales).all(said) {
        return Ok(None);
    }
    let scales = Tensor::from_f64s(Elem::F64, &[scales.len()], scales);
    let scales = cx.constant(scales.map_err(|e| cx.wrong(e.to_string()))?)?;
    let axes: Vec<usize> = (0..cx.rank(x)?).collect();
    Ok(scales_at_run(cx, x, scales, &axes)?[1])
}

/// Sizes of `axes` that only the run decides, or of dims that it decides: by the policy one scale of
/// all these axes, and the sizes rounded to the nearest.
fn sizes_at_run(
    cx: &mut Cx<'_, '_>,
    x: ValueId,
    sizes: ValueId,
    axes: &[usize],
    policy: &str,
) -> Result<[Option<ValueId>; 2]> {
    let places = places(cx, axes)?;
    let (rank, mut sizes) = (cx.rank(x)?, cx.list(sizes)?);
    let count = Dim::from(axes.len());
    cx.expect_size(&mut sizes, 0, &count, "the number of sizes and of axes")?;
    if policy == "stretch" {
        let own = cx.op("graph.shape_of", &[x], attrs! {})?;
        let operands = [own, places, sizes];
        return Ok([None, Some(cx.op("graph.scatter_elements", &operands, attrs! { axis: 0 })?)]);
    }
    let kind = match policy {
        "not_larger" => "min",
        "not_smaller" => "max",
        p => return Err(cx.wrong("no such aspect ratio policy").present(p)),
    };
    let all = lengths(cx, x)?;
    let own = cx.op("graph.gather", &[all, places], attrs! { axis: 0 })?;
    let wanted = cx.cast(sizes, Elem::F64)?;
    let ratios = cx.two(&arith::DIV, wanted, own)?;
    let scale = cx.reduce(ratios, kind, &[0], true)?;
    let scales = cx.broadcast(scale, &[count])?;
    let scales = cx.placed(places, scales, rank, Num::F(1.0))?;
    let sizes = cx.two(&arith::MUL, all, scales)?;
    let sizes = cx.with(&arith::ADD, sizes, 0.5)?;
    let sizes = cx.one(&arith::FLOOR, &[sizes], attrs! {})?;
    Ok([Some(scales), Some(cx.cast(sizes, Elem::I64)?)])
}

/// Axes as a constant.
fn places(cx: &mut Cx<'_, '_>, axes: &[usize]) -> Result<ValueId> {
    let axes: Vec<i64> = axes.iter().map(|a| *a as i64).collect();
    cx.ints_value(&axes)
}

/// The sizes of x in f64.
fn lengths(cx: &mut Cx<'_, '_>, x: ValueId) -> Result<ValueId> {
    let own = cx.op("graph.shape_of", &[x], attrs! {})?;
    cx.cast(own, Elem::F64)
}

/// A region of `axes` that only the run decides, for all axes in f64: starts, then ends.
fn region_at_run(
    cx: &mut Cx<'_, '_>,
    roi: ValueId,
    axes: &[usize],
    rank: usize,
) -> Result<ValueId> {
    let mut roi = cx.cast(roi, Elem::F64)?;
    let n = Dim::from(axes.len());
    let twice = n.clone() + n.clone();
    cx.expect_size(&mut roi, 0, &twice, "the length of the region and twice the number of axes")?;
    let places = places(cx, axes)?;
    let mut parts = Vec::new();
    for (from, to, rest) in [(Dim::Const(0), n.clone(), 0.0), (n, twice, 1.0)] {
        let part = cx.cut(roi, 0, from, to)?;
        parts.push(cx.placed(places, part, rank, Num::F(rest))?);
    }
    cx.concat(&parts, 0)
}

/// Resamples in f32 where that is exact to one rounding, and gives the operand's type.
fn resampled(
    cx: &mut Cx<'_, '_>,
    operands: [Option<ValueId>; 4],
    attrs: Attrs,
) -> Result<Vec<ValueId>> {
    let [x, scales, sizes, roi] = operands;
    let Some(x) = x else { return Err(cx.wrong("operand 0 is missing")) };
    let elem = cx.elem(x)?;
    let narrow = match elem {
        Elem::F16 | Elem::Bf16 => true,
        e if e.is_float() => false,
        e => e.bits() <= 16 && attrs.str("mode") == "nearest",
    };
    let x = if narrow { cx.cast(x, Elem::F32)? } else { x };
    let y = cx.ops("graph.resize", &[Some(x), scales, sizes, roi], attrs)?[0];
    Ok(vec![if narrow { cx.cast(y, elem)? } else { y }])
}

fn upsample(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let mode = cx.word(n, "mode", "nearest")?;
    let x = cx.input(n, 0)?;
    let mode = match mode.as_str() {
        "bilinear" => "linear",
        "nearest" | "linear" => &mode,
        m => return Err(cx.wrong("attribute `mode` is neither nearest nor linear").present(m)),
    };
    let mut attrs = attrs! { mode: mode, coordinates: "asymmetric", nearest: "floor" };
    let mut operands = [Some(x), None, None, None];
    let scales = if n.op.version < 7 {
        match (cx.float(n, "height_scale")?, cx.float(n, "width_scale")?) {
            (Some(h), Some(w)) => Some(vec![1.0, 1.0, h, w]),
            _ => None,
        }
    } else if n.op.version < 9 {
        cx.floats(n, "scales")?
    } else {
        let v = cx.input(n, 1)?;
        let known = cx.known_floats(v);
        if known.is_none() {
            let axes: Vec<usize> = (0..cx.rank(x)?).collect();
            [operands[1], operands[2]] = scales_at_run(cx, x, v, &axes)?;
        }
        known
    };
    match scales {
        Some(s) => {
            operands[2] = sizes_of_scales(cx, x, &s)?;
            attrs.set("scales", s);
        }
        None if operands[1].is_none() => return Err(cx.wrong("the scales are missing")),
        None => {}
    }
    resampled(cx, operands, attrs)
}

fn resize(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let old = n.op.version < 11;
    let mode = cx.word(n, "mode", "nearest")?;
    let coordinates = cx.word(n, "coordinate_transformation_mode", "half_pixel")?;
    let nearest = cx.word(n, "nearest_mode", "round_prefer_floor")?;
    let cubic = cx.float_or(n, "cubic_coeff_a", -0.75)?;
    let outside = cx.flag_or(n, "exclude_outside", false)?;
    let extrapolation = cx.float_or(n, "extrapolation_value", 0.0)?;
    let antialias = cx.flag_or(n, "antialias", false)?;
    let policy = cx.word(n, "keep_aspect_ratio_policy", "stretch")?;
    let axes = cx.ints(n, "axes")?;
    let x = cx.input(n, 0)?;
    let dims = cx.dims(x)?;
    let rank = dims.len();
    let axes: Vec<usize> = match axes {
        Some(a) => a.iter().map(|a| cx.axis(*a, rank)).collect::<Result<_>>()?,
        None => (0..rank).collect(),
    };
    // Before opset 11: corners and rounding down, as `Upsample`.
    let coordinates = if old { "asymmetric".to_string() } else { coordinates };
    let nearest = if old { "floor".to_string() } else { nearest };
    let mode = if mode == "bilinear" { "linear".to_string() } else { mode };
    let mut attrs = Attrs::new()
        .with("mode", mode.as_str())
        .with("coordinates", coordinates.as_str())
        .with("nearest", nearest.as_str())
        .with("cubic_a", cubic)
        .with("exclude_outside", outside)
        .with("extrapolation", extrapolation)
        .with("antialias", antialias);
    let mut operands = [Some(x), None, None, None];
    let (roi, scales, sizes) = if old {
        (None, cx.maybe(n, 1)?, None)
    } else {
        (cx.maybe(n, 1)?, cx.maybe(n, 2)?, cx.maybe(n, 3)?)
    };
    if coordinates == "tf_crop_and_resize" {
        let Some(roi) = roi else { return Err(cx.wrong("the region of interest is missing")) };
        match cx.known_floats(roi) {
            Some(r) if r.len() == 2 * axes.len() => {
                let (begins, ends) = r.split_at(axes.len());
                let mut all = spread(cx, begins, &axes, rank, &vec![0.0; rank])?;
                all.extend(spread(cx, ends, &axes, rank, &vec![1.0; rank])?);
                attrs.set("roi", all);
            }
            Some(r) => {
                return Err(cx
                    .wrong("the region has the wrong length")
                    .present(r.len().to_string()));
            }
            None => operands[3] = Some(region_at_run(cx, roi, &axes, rank)?),
        }
    }
    // An empty list of scales means that there are sizes.
    let empty = |cx: &Cx<'_, '_>, v: ValueId| Ok(cx.ty(v)?.count() == Dim::Const(0));
    if let Some(s) = scales
        && !empty(cx, s)?
    {
        match cx.known_floats(s) {
            Some(s) => {
                let s = spread(cx, &s, &axes, rank, &vec![1.0; rank])?;
                operands[2] = sizes_of_scales(cx, x, &s)?;
                attrs.set("scales", s);
            }
            None => [operands[1], operands[2]] = scales_at_run(cx, x, s, &axes)?,
        }
        return resampled(cx, operands, attrs);
    }
    let Some(sizes) = sizes else { return Err(cx.wrong("scales or sizes are needed")) };
    let known = cx.known(sizes);
    if let Some(s) = known.as_deref().filter(|_| policy == "stretch") {
        attrs.set("sizes", Attr::Dims(spread(cx, s, &axes, rank, &dims)?));
        return resampled(cx, operands, attrs);
    }
    let whole = |d: &[Dim]| d.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>();
    let own: Vec<Dim> = axes.iter().map(|a| dims[*a].clone()).collect();
    let (Some(s), Some(own)) = (known.as_deref().and_then(whole), whole(&own)) else {
        [operands[1], operands[2]] = sizes_at_run(cx, x, sizes, &axes, &policy)?;
        return resampled(cx, operands, attrs);
    };
    if s.len() != own.len() {
        return Err(cx
            .wrong("the number of sizes is not that of the axes")
            .needed(own.len().to_string())
            .present(s.len().to_string()));
    }
    // One scale for all: the smallest or the largest of those that the sizes ask for.
    let ratios = s.iter().zip(&own).map(|(s, n)| *s as f64 / *n as f64);
    let scale = match policy.as_str() {
        "not_larger" => ratios.reduce(f64::min),
        "not_smaller" => ratios.reduce(f64::max),
        p => return Err(cx.wrong("no such aspect ratio policy").present(p)),
    };
    let scale = scale.unwrap_or(1.0);
    let sizes: Vec<Dim> =
        own.iter().map(|n| Dim::Const((*n as f64 * scale + 0.5).floor() as i64)).collect();
    attrs.set("sizes", Attr::Dims(spread(cx, &sizes, &axes, rank, &dims)?));
    // The scale, not the rounded size, maps positions.
    let scales = vec![scale; axes.len()];
    attrs.set("scales", spread(cx, &scales, &axes, rank, &vec![1.0; rank])?);
    resampled(cx, operands, attrs)
}
