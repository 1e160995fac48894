//! An op whose result has sizes that only the run decides.

// begin slice
use silure_ir::{AttrKind, Dim, Type, infer::norm_axis, op::*, tensor::strides};

/// ONNX's Slice with positions known only when running.
pub static SLICE: OpDef = OpDef {
    name: "tutorial.slice",
    doc: "Elements `starts`, `starts` + `steps`, … before `ends` of each of `axes`, as numpy does: \
          negative positions count from the end, those outside are clamped, steps may be negative.",
    operands: &[one("x", Of::Elem), one("starts", Of::Position), one("ends", Of::Position)],
    results: &["y"],
    attrs: &[required("axes", AttrKind::Ints), required("steps", AttrKind::Ints)],
    infer: Some(|cx| {
        let (mut t, steps) = (cx.tensor(0)?.clone(), cx.attrs().ints("steps"));
        let (axes, some) = (cx.axes("axes", t.rank())?, steps.iter().filter(|&&s| s != 0).count());
        for n in [cx.tensor(1)?.count(), cx.tensor(2)?.count(), Dim::from(some)] {
            cx.same("the numbers of axes and of positions or steps", &Dim::from(axes.len()), &n)?;
        }
        axes.iter().for_each(|&a| t.dims[a] = cx.fresh("slice", &t.dims[a]));
        Ok(vec![Type::Tensor(t)])
    }),
    eval: Some(|cx| {
        let (x, positions) = (cx.tensor(0)?, [cx.tensor(1)?.to_i64s(), cx.tensor(2)?.to_i64s()]);
        let (mut shape, own) = (x.shape().to_vec(), strides(x.shape()));
        let (mut first, mut step) = (vec![0; shape.len()], vec![1; shape.len()]);
        for (k, &axis) in cx.attrs().ints("axes").iter().enumerate() {
            let (a, s) = (norm_axis(axis, shape.len())?, cx.attrs().ints("steps")[k]);
            let n = shape[a] as i64;
            let (lo, hi) = if s > 0 { (0, n) } else { (-1, n - 1) };
            let clamp = |p: i64| (p + if p < 0 { n } else { 0 }).clamp(lo, hi);
            let [from, to] = [0, 1].map(|i| clamp(positions[i][k]));
            let length = if s > 0 { (to - from + (s - 1)) / s } else { (from - to - (s + 1)) / -s };
            (first[a], step[a], shape[a]) = (from, s, length.max(0) as usize);
        }
        let at = |d: usize, i: usize| (first[d] + i as i64 * step[d]) as usize * own[d];
        Ok(vec![x.gathered(&shape, |p| Ok(Some((0..p.len()).map(|d| at(d, p[d])).sum())))?.into()])
    }),
    ..OpDef::NEW
};
// end slice
