//! A launch whose sizes are computed by the plan from what it reads when running: a strided copy from
//! where the slice begins.

// begin lower_slice
use silure_cpu::lower::{Lowering, Sizes, always, strides, width};
use silure_ir::{Dim, infer::norm_axis};
use silure_kernels_cpu::movement::copy::Copy;

pub static SLICE: Lowering = Lowering {
    op: "tutorial.slice",
    can: always,
    lower: |l, op| {
        let (x, y, attrs) = (l.operand(op, 0)?, l.out(op, 0)?, l.attrs(op));
        let (t, own) = (l.t(x)?, strides(&l.t(x)?.dims));
        let (mut src, mut offset) = (own.clone(), Dim::Const(0));
        for (k, (&a, &s)) in attrs.ints("axes").iter().zip(attrs.ints("steps")).enumerate() {
            let (a, back) = (norm_axis(a, t.rank())?, Dim::Const((s < 0) as i64));
            let (n, [zero, one]) = (&t.dims[a], [0, 1].map(Dim::Const));
            let mut clamped = |i: usize| -> silure_ir::Result<Dim> {
                let p = l.read(l.operand(op, i)?, k as i64, "position")?;
                let from_end = p.minimum(&zero).maximum(&-one.clone()) * n.clone();
                Ok((p - from_end).maximum(&-back.clone()).minimum(&(n.clone() - back.clone())))
            };
            let (from, to) = (clamped(1)?, clamped(2)?);
            let span = if s > 0 { to - from.clone() } else { from.clone() - to };
            l.size(&y.dims[a], span.maximum(&zero).ceildiv(&Dim::Const(s.abs())))?;
            (offset, src[a]) = (offset + from * own[a].clone(), own[a].clone() * Dim::Const(s));
        }
        let sizes = Sizes::of(Copy::FIELDS).right("dims", &y.dims, 1).right("src", &src, 0);
        let sizes = sizes.right("dst", &strides(&y.dims), 0).set("dst_offset", 0i64);
        let kernel = format!("copy.{}", width(t.elem)?);
        Ok(vec![l.launch1(&kernel, &[Some(x)], y, sizes.set("src_offset", offset).done()?)?])
    },
};
// end lower_slice
