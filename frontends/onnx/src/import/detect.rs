//! Object detection.

use silure_ir::{Dim, Elem, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    record("ImageDecoder", image),
    record("MaxRoiPool", max_roi_pool),
    record("NonMaxSuppression", non_max_suppression),
    record("RoiAlign", roi_align),
];

fn non_max_suppression(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let center = cx.flag_or(n, "center_point_box", false)?;
    let (mut boxes, mut scores) = (cx.input(n, 0)?, cx.input(n, 1)?);
    if cx.rank(boxes)? != 3 || cx.rank(scores)? != 3 {
        return Err(cx
            .wrong("the operands do not fit")
            .needed("boxes [batch, n, 4] and scores [batch, classes, n]")
            .present(format!("{} and {}", cx.ty(boxes)?, cx.ty(scores)?)));
    }
    cx.same_size(&mut boxes, 0, &mut scores, 0, "batch sizes")?;
    cx.same_size(&mut boxes, 1, &mut scores, 2, "the numbers of boxes and of scores")?;
    cx.expect_size(&mut boxes, 2, &Dim::Const(4), "the numbers of a box")?;
    let (most, overlap, least) = (cx.maybe(n, 2)?, cx.maybe(n, 3)?, cx.maybe(n, 4)?);
    // Without a greatest number it is 0: no box is kept.
    let Some(most) = most else {
        return Ok(vec![cx.zeros(Elem::I64, vec![Dim::Const(0), Dim::Const(3)])?]);
    };
    let overlap = match overlap {
        Some(v) => v,
        None => cx.number(Elem::F32, 0.0)?,
    };
    // Each is one number; some exporters leave the length of its list open.
    let least = least.map(|v| cx.reshape(v, vec![])).transpose()?;
    let (most, overlap) = (cx.reshape(most, vec![])?, cx.reshape(overlap, vec![])?);
    let operands = [Some(boxes), Some(scores), Some(most), Some(overlap), least];
    cx.ops("graph.non_max_suppression", &operands, attrs! { center: center })
}

fn roi_align(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (height, width) = (cx.int_or(n, "output_height", 1)?, cx.int_or(n, "output_width", 1)?);
    let sampling = cx.int_or(n, "sampling_ratio", 0)?;
    let scale = cx.float_or(n, "spatial_scale", 1.0)?;
    let mode = cx.word(n, "mode", "avg")?;
    // Before opset 16 there was no shift.
    let half_pixel = n.op.version >= 16
        && match cx.word(n, "coordinate_transformation_mode", "half_pixel")?.as_str() {
            "half_pixel" => true,
            "output_half_pixel" => false,
            m => return Err(cx.wrong("no such coordinate transformation").present(m)),
        };
    let (x, mut rois, mut images) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.input(n, 2)?);
    if cx.rank(rois)? == 2 && cx.rank(images)? == 1 {
        cx.same_size(&mut rois, 0, &mut images, 0, "the numbers of regions and of their images")?;
        cx.expect_size(&mut rois, 1, &Dim::Const(4), "the numbers of a region")?;
    }
    let attrs = attrs! {
        height: height, width: width, sampling: sampling, scale: scale, half_pixel: half_pixel,
        mode: mode.as_str(),
    };
    Ok(vec![cx.op("graph.roi_align", &[x, rois, images], attrs)?])
}

/// Where bins lie is what ONNX Runtime computes; ONNX does not say. Small floats take part as f32.
fn max_roi_pool(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let scale = cx.float_or(n, "spatial_scale", 1.0)?;
    let shape = cx.ints(n, "pooled_shape")?;
    let Some(&[height, width]) = shape.as_deref() else {
        let e = cx.wrong("attribute `pooled_shape` does not fit").needed("height and width");
        return Err(e.present(format!("{shape:?}")));
    };
    let (x, rois) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let elem = cx.elem(x)?;
    if elem == Elem::F64 {
        return Err(cx.unsupported("regions of f64").needed("f32, f16 or bf16"));
    }
    let (x, rois) = (cx.cast(x, Elem::F32)?, cx.cast(rois, Elem::F32)?);
    let attrs = attrs! { height: height, width: width, scale: scale };
    let y = cx.op("graph.max_roi_pool", &[x, rois], attrs)?;
    Ok(vec![cx.cast(y, elem)?])
}

/// What ONNX answers with an empty image, a file that is none, ends the run here.
fn image(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let layout = cx.word(n, "pixel_format", "RGB")?;
    let data = cx.input(n, 0)?;
    cx.note("images are decoded from BMP, PNG, PNM, TIFF and WebP of 8 bits per channel; others end a run with an error");
    Ok(vec![cx.op("graph.decode_image", &[data], attrs! { layout: layout.as_str() })?])
}
