//! A launch of a kernel of the runtime, and when it fits.

// begin lower_log_sum_exp
use silure_cpu::lower::{Lowering, Sizes, elem_is, product};
use silure_ir::{Elem, infer::norm_axis};
use silure_kernels_cpu::rows::reduce::{Reduce, op};

/// One reduction over `[before, axes, behind]`.
pub static REDUCE_LOG_SUM_EXP: Lowering = Lowering {
    op: "tutorial.reduce_log_sum_exp",
    can: |cx| {
        elem_is(cx, &[Elem::F32, Elem::F64])?;
        let rank = cx.tensor(0).map_err(|e| e.to_string())?.rank();
        let axes = cx.axes("axes", rank).map_err(|e| e.to_string())?;
        let together = !axes.is_empty() && axes.windows(2).all(|w| w[0] + 1 == w[1]);
        if together { Ok(()) } else { Err(format!("axes {axes:?} are not side by side")) }
    },
    lower: |l, op| {
        let (x, y, attrs) = (l.operand(op, 0)?, l.out(op, 0)?, l.attrs(op));
        let (t, axes) = (l.t(x)?, attrs.ints("axes"));
        let first = axes.iter().map(|&a| norm_axis(a, t.rank())).min_by_key(|a| a.clone().ok());
        let first = first.transpose()?.unwrap_or(0);
        let (before, rest) = t.dims.split_at(first);
        let (over, behind) = rest.split_at(axes.len());
        let sizes = [("outer", before), ("reduce", over), ("inner", behind)];
        let start = Sizes::of(Reduce::FIELDS).code("op", op::LOG_SUM_EXP);
        let sizes = sizes.into_iter().fold(start, |s, (name, d)| s.set(name, product(d)));
        Ok(vec![l.launch1(&format!("reduce.{}", t.elem), &[Some(x)], y, sizes.done()?)?])
    },
};
// end lower_log_sum_exp
