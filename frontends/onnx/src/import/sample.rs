//! Images sampled at places that are data.

use silure_ir::dialects::arith;
use silure_ir::{Dim, Elem, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    record("AffineGrid", affine_grid),
    record("GridSample", grid_sample),
    record("DeformConv", deform_conv),
];

/// For each position of an image, the affine map of its place: one product and sum per axis.
fn affine_grid(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let corners = cx.flag_or(n, "align_corners", false)?;
    let (mut theta, size) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let t = cx.ty(theta)?;
    let k = match (t.dims.as_slice(), cx.dims(size)?.as_slice()) {
        ([_, r, c], [Dim::Const(s)]) if *c == Dim::Const(s - 1) && *r == Dim::Const(s - 2) => {
            *s - 2
        }
        _ => {
            return Err(cx
                .wrong("the operands do not fit")
                .needed("maps [n, k, k + 1] and k + 2 sizes")
                .present(format!("{t} and {}", cx.ty(size)?)));
        }
    };
    let k = k as usize;
    if let Some(known) = cx.known(size) {
        cx.expect_size(&mut theta, 0, &known[0], "the number of maps and of images")?;
    }
    let size = cx.cast(size, Elem::I64)?;
    // Coefficient `j` of every row, for all positions.
    let column = |cx: &mut Cx<'_, '_>, j: usize| -> Result<ValueId> {
        let c = cx.cut(theta, 2, Dim::from(j), Dim::from(j + 1))?;
        let mut dims = vec![Dim::Const(1); k + 2];
        (dims[0], dims[k + 1]) = (t.dims[0].clone(), Dim::from(k));
        cx.reshape(c, dims)
    };
    let mut grid = column(cx, k)?;
    for j in 0..k {
        // Places go from the last axis to the first.
        let axis = k - 1 - j;
        let len = cx.element(size, axis + 2)?;
        let i = cx.iota(len)?;
        let i = cx.cast(i, Elem::F64)?;
        let len = cx.cast(len, Elem::F64)?;
        // −1 … 1 between the outermost centres, or between the edges. A single centre is at −1.
        let twice = cx.with(&arith::MUL, i, 2.0)?;
        let (over, by) = if corners {
            let last = cx.with(&arith::SUB, len, 1.0)?;
            (twice, cx.with(&arith::MAX, last, 1.0)?)
        } else {
            (cx.with(&arith::ADD, twice, 1.0)?, len)
        };
        let place = cx.two(&arith::DIV, over, by)?;
        let place = cx.with(&arith::SUB, place, 1.0)?;
        let place = cx.cast(place, t.elem)?;
        let others: Vec<usize> = (0..k + 2).filter(|d| *d != axis + 1).collect();
        let place = cx.unsqueeze(place, &others)?;
        let c = column(cx, j)?;
        let part = cx.two(&arith::MUL, c, place)?;
        grid = cx.two(&arith::ADD, grid, part)?;
    }
    Ok(vec![grid])
}

fn grid_sample(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let mode = cx.word(n, "mode", if n.op.version < 20 { "bilinear" } else { "linear" })?;
    let padding = cx.word(n, "padding_mode", "zeros")?;
    let corners = cx.flag_or(n, "align_corners", false)?;
    let (mut x, mut grid) = (cx.input(n, 0)?, cx.input(n, 1)?);
    cx.same_size(&mut x, 0, &mut grid, 0, "batch sizes")?;
    let spatial = cx.rank(x)?.saturating_sub(2);
    cx.expect_size(&mut grid, spatial + 1, &Dim::from(spatial), "a position and the spatial axes")?;
    let mode = match mode.as_str() {
        "bilinear" => "linear",
        "bicubic" => "cubic",
        m => m,
    };
    let attrs = attrs! { mode: mode, padding: padding.as_str(), align_corners: corners };
    Ok(vec![cx.op("graph.grid_sample", &[x, grid], attrs)?])
}

/// A convolution whose taps are moved by offsets: x is sampled at each tap of each window, and the
/// samples are multiplied by the filter.
fn deform_conv(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let g = cx.groups(n, "group")?;
    let og = cx.groups(n, "offset_group")?;
    let (mut x, w, offset) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.input(n, 2)?);
    let (bias, mask) = (cx.maybe(n, 3)?, cx.maybe(n, 4)?);
    let kernel = cx.kernel(n, x, w)?;
    let r = kernel.len();
    let Some(kernel) = kernel.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>() else {
        return Err(cx.unsupported("a filter of dynamic size"));
    };
    if cx.rank(offset)? != r + 2 {
        return Err(cx.wrong("the offsets have the wrong rank"));
    }
    let strides = cx.ints_or(n, "strides", r, 1)?;
    let dilations = cx.ints_or(n, "dilations", r, 1)?;
    let pads = cx.ints_or(n, "pads", 2 * r, 0)?;
    let (tx, tw) = (cx.ty(x)?, cx.ty(w)?);
    let (gd, ogd) = (Dim::Const(g), Dim::Const(og));
    let channels = tw.dims[1].clone() * gd.clone();
    cx.expect_size(&mut x, 1, &channels, "channels of the input and of the filter")?;
    let (batch, elem) = (tx.dims[0].clone(), tx.elem);
    let taps: i64 = kernel.iter().product();
    let outs = cx.dims(offset)?[2..].to_vec();
    let count = outs.iter().cloned().fold(Dim::Const(1), |a, d| a * d);
    let (images, each) = (batch.clone() * ogd.clone(), channels.floordiv(&ogd));
    // [images, taps, axes, outs…] to [images, taps, outs…, axes]: places, in elements of x.
    let mut dims = vec![images.clone(), Dim::Const(taps), Dim::from(r)];
    dims.extend(outs.iter().cloned());
    let moved = cx.reshape(offset, dims)?;
    let mut grid = Vec::new();
    for a in 0..r {
        let mut v = cx.cut(moved, 2, Dim::from(a), Dim::from(a + 1))?;
        v = cx.squeeze(v, &[2])?;
        // Where tap t of the first window is along this axis, and each window after it.
        let inner: i64 = kernel[a + 1..].iter().product();
        let tap: Vec<f64> =
            (0..taps).map(|t| (t / inner % kernel[a] * dilations[a] - pads[a]) as f64).collect();
        let tap = silure_ir::Tensor::from_f64s(elem, &[tap.len()], &tap);
        let tap = tap.map_err(|d| cx.diag(d))?;
        let tap = cx.constant(tap)?;
        let tap = cx.unsqueeze(tap, &(1..=r).collect::<Vec<_>>())?;
        let window = cx.size_of(offset, a + 2)?;
        let window = cx.iota(window)?;
        let window = cx.with(&arith::MUL, window, strides[a] as f64)?;
        let window = cx.cast(window, elem)?;
        let after: Vec<usize> = (1..r - a).collect();
        let window = cx.unsqueeze(window, &after)?;
        v = cx.two(&arith::ADD, v, tap)?;
        v = cx.two(&arith::ADD, v, window)?;
        grid.push(cx.unsqueeze(v, &[r + 2])?);
    }
    grid.reverse();
    let grid = cx.concat(&grid, r + 2)?;
    // As one long axis of places, after r − 1 of size 1.
    let places = Dim::Const(taps) * count.clone();
    let mut dims = vec![images.clone()];
    dims.extend(vec![Dim::Const(1); r - 1]);
    dims.extend([places.clone(), Dim::from(r)]);
    let grid = cx.reshape(grid, dims)?;
    let mut dims = vec![images.clone(), each.clone()];
    dims.extend(tx.dims[2..].iter().cloned());
    let x = cx.reshape(x, dims)?;
    let mut y = cx.op("graph.grid_sample", &[x, grid], attrs! { pixels: true })?;
    if let Some(m) = mask {
        y = cx.reshape(y, vec![images.clone(), each.clone(), places.clone()])?;
        let m = cx.reshape(m, vec![images, Dim::Const(1), places])?;
        y = cx.two(&arith::MUL, y, m)?;
    }
    // [n, g, c/g · taps, outs] by [g, m/g, c/g · taps].
    let depth = tw.dims[1].clone() * Dim::Const(taps);
    let y = cx.reshape(y, vec![batch.clone(), gd.clone(), depth.clone(), count])?;
    let filters = tw.dims[0].floordiv(&gd);
    let w = cx.reshape(w, vec![gd, filters, depth])?;
    let y = cx.matmul(w, y)?;
    let mut dims = vec![batch, tw.dims[0].clone()];
    dims.extend(outs);
    let y = cx.reshape(y, dims)?;
    let Some(b) = bias else { return Ok(vec![y]) };
    let b = cx.unsqueeze(b, &(1..=r).collect::<Vec<_>>())?;
    Ok(vec![cx.two(&arith::ADD, y, b)?])
}
