//! Resampling.

use silure_ir::{Attr, Attrs, Dim, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    record("Resize", resize),
    Record { domain: "", op: "Upsample", since: (1, 9), convert: upsample },
    record("GridSample", grid_sample),
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

fn upsample(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let mode = cx.word(n, "mode", "nearest")?;
    let x = cx.input(n, 0)?;
    let mode = if mode == "nearest" { "nearest" } else { "linear" };
    let mut attrs = attrs! { mode: mode, coordinates: "asymmetric", nearest: "floor" };
    let mut operands = vec![Some(x), None, None, None];
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
            operands[1] = Some(v);
        }
        known
    };
    match scales {
        Some(s) => attrs.set("scales", s),
        None if operands[1].is_none() => return Err(cx.wrong("the scales are missing")),
        None => {}
    }
    cx.ops("graph.resize", &operands, attrs)
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
    let mut operands = vec![Some(x), None, None, None];
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
            None if axes.len() == rank => operands[3] = Some(roi),
            None => return Err(cx.unsupported("a region of some axes that only the run knows")),
        }
    }
    // An empty list of scales means that there are sizes.
    let empty = |cx: &Cx<'_, '_>, v: ValueId| Ok(cx.ty(v)?.count() == Dim::Const(0));
    if let Some(s) = scales
        && !empty(cx, s)?
    {
        match cx.known_floats(s) {
            Some(s) => attrs.set("scales", spread(cx, &s, &axes, rank, &vec![1.0; rank])?),
            None if axes.len() == rank => operands[1] = Some(s),
            None => return Err(cx.unsupported("scales of some axes that only the run knows")),
        }
        return cx.ops("graph.resize", &operands, attrs);
    }
    let Some(sizes) = sizes else { return Err(cx.wrong("scales or sizes are needed")) };
    match cx.known(sizes) {
        Some(s) if policy == "stretch" => {
            attrs.set("sizes", Attr::Dims(spread(cx, &s, &axes, rank, &dims)?));
        }
        Some(s) => {
            // One scale for all: the smallest or the largest of those that the sizes ask for.
            let mut scale: Option<f64> = None;
            for (s, a) in s.iter().zip(&axes) {
                let (Some(s), Some(n)) = (s.as_const(), dims[*a].as_const()) else {
                    return Err(cx.unsupported("an aspect ratio kept on dynamic dims"));
                };
                let r = s as f64 / n as f64;
                scale = Some(match (scale, policy.as_str()) {
                    (None, _) => r,
                    (Some(o), "not_larger") => o.min(r),
                    (Some(o), "not_smaller") => o.max(r),
                    (_, p) => return Err(cx.wrong("no such aspect ratio policy").present(p)),
                });
            }
            let scale = scale.unwrap_or(1.0);
            let all = spread(cx, &vec![scale; axes.len()], &axes, rank, &vec![1.0; rank])?;
            let sizes: Vec<Dim> = (0..rank)
                .map(|i| match (axes.contains(&i), dims[i].as_const()) {
                    (true, Some(n)) => Dim::Const((n as f64 * scale).round() as i64),
                    _ => dims[i].clone(),
                })
                .collect();
            attrs.set("sizes", Attr::Dims(sizes));
            // The scale, not the rounded size, maps positions.
            attrs.set("scales", all);
        }
        None if axes.len() == rank && policy == "stretch" => operands[2] = Some(sizes),
        None => return Err(cx.unsupported("sizes of some axes that only the run knows")),
    }
    cx.ops("graph.resize", &operands, attrs)
}

fn grid_sample(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let mode = cx.word(n, "mode", if n.op.version < 20 { "bilinear" } else { "linear" })?;
    let padding = cx.word(n, "padding_mode", "zeros")?;
    let corners = cx.flag_or(n, "align_corners", false)?;
    let (mut x, mut grid) = (cx.input(n, 0)?, cx.input(n, 1)?);
    cx.same_size(&mut x, 0, &mut grid, 0, "batch sizes")?;
    let mode = match mode.as_str() {
        "bilinear" => "linear",
        "bicubic" => "cubic",
        m => m,
    };
    let attrs = attrs! { mode: mode, padding: padding.as_str(), align_corners: corners };
    Ok(vec![cx.op("graph.grid_sample", &[x, grid], attrs)?])
}
