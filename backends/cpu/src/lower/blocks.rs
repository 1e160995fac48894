//! Products with weights that are quantised by blocks.

use silure_ir::dialects::graph;
use silure_ir::func::Op;
use silure_ir::infer::InferCx;
use silure_ir::weight::is_weight;
use silure_ir::{Attrs, Dim, Elem, Func, Result, ValueId, WeightExpr, bail};
use silure_kernels_cpu::gemm::blocks::Blocks;
use silure_passes::rewrite::splat_of;

use super::matmul::{BYTES_PACKED, F32_PACKED, Strided, Tail, matrices, strided};
use super::{Lower, Lowering, Sizes, f32_bits, product};

/// Lowerings of this file.
pub(super) static TABLE: &[&Lowering] = &[&MATMUL_BLOCKS];

/// Layout of a 4-bit weight: panels of 16 columns, eight rows to a word.
pub const U4_PACKED: &str = "u4.nr16kr8";

/// Layout of a bf16 weight: panels of 16 columns.
pub const BF16_PACKED: &str = "bf16.nr16";
/// Layout of a weight of 8-bit floats: panels of 16 columns.
pub const E4M3_PACKED: &str = "e4m3fn.nr16";

static MATMUL_BLOCKS: Lowering = Lowering {
    op: "graph.matmul_blocks",
    can: |cx: &InferCx| {
        let o = cx.func.op(cx.op);
        let operands: Vec<ValueId> = o.operands().collect();
        can(cx.func, o, &operands)
    },
    lower: |l, op| {
        let (operands, tail) =
            (l.b.func.op(op).operands().collect::<Vec<_>>(), Tail::none(l.out(op, 0)?));
        let attrs = l.attrs(op);
        Ok(vec![matmul_blocks(l, &attrs, &operands, &tail)?])
    },
};

/// Whether there is a kernel for an instance with these operands.
pub(super) fn can(f: &Func, o: &Op, operands: &[ValueId]) -> Result<(), String> {
    let [a, q, rest @ ..] = operands else { return Err("operands are missing".into()) };
    if f.ty(*a).elem() != Some(Elem::F32) {
        return Err(format!("rows of {}; f32 is supported", f.ty(*a)));
    }
    let known =
        |v: &ValueId| is_weight(f, *v) || Some(v) == rest.get(1) && splat_of(f, *v).is_some();
    if let Some(v) = [q].into_iter().chain(rest).find(|v| !known(v)) {
        return Err(format!("{} that only the run knows", f.ty(*v)));
    }
    let t = f.ty(*q).as_tensor().and_then(|t| Some((t.elem, t.shape()?)));
    let block = o.attrs.int("block");
    match t {
        Some((Elem::U8 | Elem::I8 | Elem::E4m3fn, _)) => Ok(()),
        Some((Elem::U4 | Elem::I4, s)) if block % 8 == 0 || block >= s[1] as i64 => Ok(()),
        Some((Elem::U4 | Elem::I4, _)) => {
            Err(format!("blocks of {block} elements of 4 bits; multiples of 8 are supported"))
        }
        _ => {
            Err(format!("elements {}; integers of 4 and 8 bits and e4m3fn are supported", f.ty(*q)))
        }
    }
}

/// How a matrix that is scaled by blocks is stored: the kernels' suffix, the layout, and what is to be taken
/// off each element: signed ones of 4 bits are moved by 8, unsigned bytes by −128.
pub(super) fn stored(elem: Elem) -> (&'static str, &'static str, f64) {
    match elem {
        Elem::U4 => (".u4", U4_PACKED, 0.0),
        Elem::I4 => (".u4", U4_PACKED, 8.0),
        Elem::I8 => (".i8", BYTES_PACKED, 0.0),
        Elem::E4m3fn => (".e4m3", E4M3_PACKED, 0.0),
        _ => (".i8", BYTES_PACKED, -128.0),
    }
}

/// Lowers the product of the operands a, q, scale and zero with what follows it.
pub(super) fn matmul_blocks(
    l: &mut Lower,
    attrs: &Attrs,
    operands: &[ValueId],
    tail: &Tail,
) -> Result<ValueId> {
    let [a, q, scale, zero @ ..] = operands else { bail!(Internal, "three operands are needed") };
    let (ta, tq) = (l.t(*a)?, l.t(*q)?);
    let (Some([n, k]), Some(expr)) =
        (tq.shape().as_deref().and_then(|s| s.first_chunk().copied()), l.weight_of(*q))
    else {
        bail!(Internal, "a weight has unknown dims")
    };
    let name = l.weight_name(*q);
    let (suffix, layout, moved) = stored(tq.elem);
    let turned = |e: WeightExpr| Box::new(WeightExpr::Transpose(Box::new(e), vec![1, 0]));
    let packed =
        l.weight(&format!("{name}.packed"), WeightExpr::Pack(turned(expr), layout.into()))?;
    let Some(s) = l.weight_of(*scale) else { bail!(Internal, "the scales are not a weight") };
    let s = match s.ty()?.elem {
        Elem::F32 => s,
        _ => WeightExpr::Cast(Box::new(s), Elem::F32),
    };
    let lines = |l: &mut Lower, name: String, e: WeightExpr| {
        l.weight(&name, WeightExpr::Pack(turned(e), F32_PACKED.into()))
    };
    let scales = lines(l, format!("{name}.scales"), s.clone())?;
    // One zero point for all is taken off each integer, others times their scales off each block.
    let splat = zero.first().map(|z| splat_of(l.b.func, *z).map(|z| z.f()));
    let (center, offsets) = match (splat, zero.first()) {
        (None, _) => (moved, None),
        (Some(Some(z)), _) => (moved + z, None),
        (Some(None), z) => {
            let Some(z) = z.and_then(|z| l.weight_of(*z)) else {
                bail!(Internal, "the zero points are not a weight")
            };
            let z = WeightExpr::Cast(Box::new(z), Elem::F32);
            let o = WeightExpr::Mul(Box::new(z), Box::new(s));
            (moved, Some(lines(l, format!("{name}.offsets"), o)?))
        }
    };
    let source = strided(l, *a)?;
    let r = ta.rank();
    // Rows of one stride are read where they lie.
    let (rows, a) = match r {
        2 if source.strides[1] == Dim::Const(1) => (source.strides[0].clone(), source.value),
        _ => (Dim::from(k), *a),
    };
    let sizes = Sizes::of(Blocks::FIELDS)
        .set("m", product(&ta.dims[..r - 1]))
        .set("n", n)
        .set("k", k)
        .set("a_row", rows)
        .set("c_row", n)
        .set("block", attrs.int("block").clamp(1, (k as i64).max(1)))
        .set("center", f32_bits(center))
        .flag("offsets", offsets.is_some())
        .all("epilogue", tail.epilogue.to_vec().into_iter().map(Dim::Const).collect())
        .done()?;
    let ins = [Some(a), Some(packed), tail.bias, tail.residual, None, Some(scales), offsets];
    l.launch1(&format!("matmul.f32{suffix}"), &ins, tail.out.clone(), sizes)
}

/// The expression of the bf16 numbers that a weight in f32 is, if it was widened from them.
pub(super) fn narrow(e: &WeightExpr) -> Option<WeightExpr> {
    let inner = |e: &WeightExpr| narrow(e).map(Box::new);
    Some(match e {
        WeightExpr::Cast(e, Elem::F32) if e.ty().is_ok_and(|t| t.elem == Elem::Bf16) => {
            (**e).clone()
        }
        WeightExpr::Transpose(e, perm) => WeightExpr::Transpose(inner(e)?, perm.clone()),
        WeightExpr::Reshape(e, shape) => WeightExpr::Reshape(inner(e)?, shape.clone()),
        WeightExpr::Slice(e, at, size) => WeightExpr::Slice(inner(e)?, at.clone(), size.clone()),
        WeightExpr::Concat(all, axis) => {
            WeightExpr::Concat(all.iter().map(narrow).collect::<Option<_>>()?, *axis)
        }
        _ => return None,
    })
}

/// The product of dense rows (`m`, and elements from one to the next) with B, which stays bf16 in memory, if
/// it is a weight that was widened from bf16: the same numbers by half the bytes.
pub(super) fn bf16(
    l: &mut Lower,
    (a, (m, a_row)): (ValueId, (Dim, Dim)),
    b: &Strided,
    tail: &Tail,
) -> Result<Option<ValueId>> {
    let Some(expr) = matrices(l, b)?.as_ref().and_then(narrow) else { return Ok(None) };
    let ty = expr.ty()?;
    let Some([k, n]) = ty.shape().and_then(|s| <[usize; 2]>::try_from(s).ok()) else {
        return Ok(None);
    };
    let name = format!("{}.packed", l.weight_name(b.value));
    let packed = l.weight(&name, WeightExpr::Pack(Box::new(expr), BF16_PACKED.into()))?;
    let sizes = Sizes::of(Blocks::FIELDS)
        .set("m", m)
        .set("n", n)
        .set("k", k)
        .set("a_row", a_row)
        .set("c_row", n)
        .set("block", k.max(1))
        .set("center", f32_bits(0.0))
        .flag("offsets", false)
        .all("epilogue", tail.epilogue.to_vec().into_iter().map(Dim::Const).collect())
        .done()?;
    let ins = [Some(a), Some(packed), tail.bias, tail.residual, None, None, None];
    l.launch1("matmul.f32.bf16", &ins, tail.out.clone(), sizes).map(Some)
}

/// Whether an op is a product whose columns are its last axis.
pub(super) fn is_product(o: &Op) -> bool {
    o.def.name == graph::MATMUL.name || o.def.name == graph::MATMUL_BLOCKS.name
}
