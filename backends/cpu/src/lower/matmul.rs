//! Matrix products.

use silure_ir::dialects::graph;
use silure_ir::infer::InferCx;
use silure_ir::{Dim, Elem, Result, Tensor, TensorType, ValueId, WeightExpr, bail};
use silure_kernels_cpu::gemm::epilogue::Epilogue;
use silure_kernels_cpu::gemm::int8::MatmulI8;
use silure_kernels_cpu::gemm::matmul::Matmul;
use silure_kernels_cpu::gemm::pack::{packed_b_f32_len, packed_b_i8_len, packed_b_u4_len};
use silure_kernels_cpu::gemm::stage::{Stage, per};

use super::blocks::{BF16_PACKED, E4M3_PACKED, HALF_PACKED, U4_PACKED, bf16};
use super::{Lower, Lowering, Sizes, elem_is, product, strides};

/// Lowerings of this file.
pub(super) static TABLE: &[&Lowering] = &[&MATMUL, &MATMUL_INTEGER];

/// Layout of a packed f32 weight: panels of 16 columns.
pub const F32_PACKED: &str = "f32.nr16";
/// Layout of a packed 8-bit weight: panels of 16 columns, rows in fours, with the sums of the columns.
pub const I8_PACKED: &str = "i8.nr16kr4";

/// Layout of an 8-bit weight that is scaled by column or by blocks: panels of 16 columns of signed bytes,
/// unsigned ones moved by −128.
pub const BYTES_PACKED: &str = "i8.nr16";

/// The most batch dims a kernel takes.
const BATCH: usize = 6;

static MATMUL: Lowering = Lowering {
    op: "graph.matmul",
    can: |cx| {
        fits(cx)?;
        if cx.attrs().bool("tf32") {
            return Err("products rounded to tf32 are for CUDA targets".into());
        }
        elem_is(cx, &[Elem::F32, Elem::F64, Elem::I32, Elem::I64, Elem::U32, Elem::U64])
    },
    lower: |l, op| {
        let (a, b) = (l.operand(op, 0)?, l.operand(op, 1)?);
        let y = l.out(op, 0)?;
        Ok(vec![matmul(l, a, b, &Tail::none(y))?])
    },
};

static MATMUL_INTEGER: Lowering = Lowering {
    op: "graph.matmul_integer",
    can: fits,
    lower: |l, op| {
        let f = &*l.b.func;
        let slots = [0, 1, 2, 3].map(|i| f.op(op).operand(i));
        let tail = Requant::none(l.out(op, 0)?);
        Ok(vec![matmul_integer(l, slots, &tail)?])
    },
};

fn fits(cx: &InferCx) -> Result<(), String> {
    let rank = cx.tensor(0).map_err(|e| e.message)?.rank();
    if rank > BATCH + 2 { Err(format!("rank {rank} is above {}", BATCH + 2)) } else { Ok(()) }
}

/// What follows a product: the kernel's epilogue, the operands it reads and the result's type.
pub(super) struct Tail {
    pub epilogue: Epilogue,
    pub bias: Option<ValueId>,
    pub residual: Option<ValueId>,
    pub out: TensorType,
}

impl Tail {
    pub fn none(out: TensorType) -> Tail {
        Tail { epilogue: Epilogue::NONE, bias: None, residual: None, out }
    }
}

/// What follows an integer product: the kernels' output stage, its operands (scale of A, scale of B,
/// bias, scale and zero point of the output, residual) and the result's type.
pub(super) struct Requant {
    pub stage: Stage,
    pub operands: [Option<ValueId>; 6],
    pub out: TensorType,
}

impl Requant {
    pub fn none(out: TensorType) -> Requant {
        Requant { stage: Stage::SUMS, operands: [None; 6], out }
    }
}

/// A tensor as a kernel with strides reads it: the value in memory and its strides in elements.
pub(super) struct Strided {
    pub value: ValueId,
    pub strides: Vec<Dim>,
}

/// Looks through the transposes and broadcasts that make a value. One with a run-time shape gives
/// sizes their values and has to stay.
pub(super) fn strided(l: &Lower, v: ValueId) -> Result<Strided> {
    let op = l.b.func.def_op(v);
    if op.is_some_and(|op| l.b.func.op(op).operand(1).is_some()) {
        return Ok(Strided { value: v, strides: strides(&l.t(v)?.dims) });
    }
    through(l, v)
}

/// What [`strided`] finds, beginning with the op that makes `v` whatever its shape comes from.
pub(super) fn through(l: &Lower, v: ValueId) -> Result<Strided> {
    let f = &*l.b.func;
    let t = l.t(v)?;
    let dense = || Strided { value: v, strides: strides(&t.dims) };
    let Some(op) = f.def_op(v) else { return Ok(dense()) };
    let o = f.op(op);
    let Some(x) = o.operand(0) else { return Ok(dense()) };
    if o.def.name == graph::TRANSPOSE.name {
        let inner = strided(l, x)?;
        let perm = o.attrs.ints("perm");
        let strides = perm.iter().map(|&p| inner.strides[p as usize].clone()).collect();
        return Ok(Strided { value: inner.value, strides });
    }
    if o.def.name == graph::BROADCAST.name {
        let (from, inner) = (l.t(x)?, strided(l, x)?);
        let lead = t.rank() - from.rank();
        let mut strides = vec![Dim::Const(0); lead];
        for (d, s) in from.dims.iter().zip(inner.strides) {
            let repeats = *d == Dim::Const(1) && t.dims[strides.len()] != Dim::Const(1);
            strides.push(if repeats { Dim::Const(0) } else { s });
        }
        return Ok(Strided { value: inner.value, strides });
    }
    // A reshape that only adds or drops size-1 axes in front keeps the strides of the others.
    if o.def.name == graph::RESHAPE.name {
        let from = l.t(x)?;
        let one = Dim::Const(1);
        let lead = t.dims.iter().take_while(|d| **d == one).count();
        let from_lead = from.dims.iter().take_while(|d| **d == one).count();
        if t.dims[lead..] == from.dims[from_lead..] {
            let inner = strided(l, x)?;
            let mut strides = vec![Dim::Const(0); lead];
            strides.extend_from_slice(&inner.strides[from_lead..]);
            return Ok(Strided { value: inner.value, strides });
        }
    }
    Ok(dense())
}

/// Lowers `a · b` with what follows it.
pub(super) fn matmul(l: &mut Lower, a: ValueId, b: ValueId, tail: &Tail) -> Result<ValueId> {
    let (ta, tb) = (l.t(a)?, l.t(b)?);
    let (sa, sb) = (strided(l, a)?, strided(l, b)?);
    let r = ta.rank();
    let (k, n) = (ta.dims[r - 1].clone(), tb.dims[r - 1].clone());
    let mut batch: Vec<Dim> = ta.dims[..r - 2].to_vec();
    let mut m = ta.dims[r - 2].clone();
    let mut a_batch = sa.strides[..r - 2].to_vec();
    let mut b_batch = sb.strides[..r - 2].to_vec();
    let mut a_row = sa.strides[r - 2].clone();
    // One matrix B for all of a dense A: the batch is more rows.
    let repeated =
        b_batch.iter().zip(&batch).all(|(s, d)| *s == Dim::Const(0) || *d == Dim::Const(1));
    let dense = sa.strides == strides(&ta.dims);
    if repeated && dense && !batch.is_empty() {
        m = product(&batch) * m;
        (batch, a_batch, b_batch, a_row) = (vec![], vec![], vec![], k.clone());
    }
    if batch.is_empty() && ta.elem == Elem::F32 && sa.strides[r - 1] == Dim::Const(1) {
        let rows = (m.clone(), a_row.clone());
        if let Some(y) = bf16(l, (sa.value, rows), &sb, tail)? {
            return Ok(y);
        }
    }
    let bytes = if batch.is_empty() && ta.elem == Elem::F32 { scaled(l, &sb)? } else { None };
    let packed = match bytes {
        None if ta.elem == Elem::F32 => pack(l, &sb, &tb)?,
        _ => None,
    };
    let mut sizes = Sizes::of(Matmul::FIELDS)
        .right("batch", &batch, 1)
        .right("a_batch", &a_batch, 0)
        .set("m", m)
        .set("n", n.clone())
        .set("k", k.clone())
        .set("a_row", a_row)
        .set("a_col", sa.strides[r - 1].clone())
        .set("b_first", 0i64)
        .set("c_row", n.clone())
        .all("epilogue", tail.epilogue.to_vec().into_iter().map(Dim::Const).collect())
        .unscheduled();
    let (kernel, b) = match packed {
        _ if bytes.is_some() => {
            sizes = sizes.right("b_batch", &[], 0).set("b_row", 0i64).set("b_col", 0i64);
            ("matmul.f32.scaled", bytes.map_or(sb.value, |b| b.0))
        }
        Some(w) => {
            let (Some(k), Some(n)) = (k.as_size(), n.as_size()) else {
                bail!(Internal, "a weight has unknown dims")
            };
            // Batches of a packed weight are whole matrices apart, in the order of its own dims.
            let matrix = Dim::from(packed_b_f32_len(k, n));
            let mut b_batch: Vec<Dim> = b_batch;
            let plain = k * n;
            for s in &mut b_batch {
                if let Some(c) = s.as_size() {
                    *s = Dim::from(c / plain.max(1)) * matrix.clone();
                }
            }
            sizes = sizes.right("b_batch", &b_batch, 0).set("b_row", 0i64).set("b_col", 0i64);
            ("matmul.f32.packed", w)
        }
        None => {
            sizes = sizes
                .right("b_batch", &b_batch, 0)
                .set("b_row", sb.strides[r - 2].clone())
                .set("b_col", sb.strides[r - 1].clone());
            let kernel = match ta.elem {
                Elem::F32 => "matmul.f32",
                Elem::F64 => "matmul.f64",
                Elem::I32 | Elem::U32 => "matmul.i32",
                _ => "matmul.i64",
            };
            (kernel, sb.value)
        }
    };
    let mut ins = vec![Some(sa.value), Some(b)];
    if ta.elem == Elem::F32 {
        ins.extend([tail.bias, tail.residual, None]);
        ins.extend(bytes.map(|b| Some(b.1)));
    }
    l.launch1(kernel, &ins, tail.out.clone(), sizes.done()?)
}

/// The bytes of B and its scales by column, if it is a matrix of signed bytes times them.
fn scaled(l: &mut Lower, b: &Strided) -> Result<Option<(ValueId, ValueId)>> {
    let Some(WeightExpr::Mul(q, s)) = l.weight_of(b.value) else { return Ok(None) };
    let WeightExpr::Cast(q, Elem::F32) = *q else { return Ok(None) };
    let (tq, ts) = (q.ty()?, s.ty()?);
    let (Some(&[rows, cols]), Some(scale)) = (tq.shape().as_deref(), ts.shape()) else {
        return Ok(None);
    };
    let (row, col) = (&b.strides[b.strides.len() - 2], &b.strides[b.strides.len() - 1]);
    let own = strides(&tq.dims);
    let straight = *row == own[0] && *col == own[1];
    let crossed = *row == own[1] && *col == own[0];
    // One scale for each column of the product: the last axis in memory, or the first one crosswise.
    let whole = scale.iter().product::<usize>() == 1;
    let by_column = match scale.as_slice() {
        _ if whole => straight || crossed,
        _ if straight => scale.last() == Some(&cols) && scale.iter().product::<usize>() == cols,
        [n, 1] if crossed => *n == rows,
        _ => false,
    };
    if tq.elem != Elem::I8 || ts.elem != Elem::F32 || tq.encoding().is_some() || !by_column {
        return Ok(None);
    }
    let (q, n) = match straight {
        true => (*q, cols),
        false => (WeightExpr::Transpose(q, vec![1, 0]), rows),
    };
    let name = l.weight_name(b.value);
    let q = WeightExpr::Pack(Box::new(q), BYTES_PACKED.into());
    let q = l.weight(&format!("{name}.packed"), q)?;
    let s = match whole {
        false => WeightExpr::Reshape(s, vec![n]),
        true => {
            let ones = Tensor::from_f64s(Elem::F32, &[n], &vec![1.0; n])?;
            let one = WeightExpr::Reshape(s, vec![1]);
            WeightExpr::Mul(Box::new(WeightExpr::Data(ones.into())), Box::new(one))
        }
    };
    let s = l.weight(&format!("{name}.scales"), s)?;
    Ok(Some((q, s)))
}

/// B's expression with its matrices row by row, if it is a weight.
pub(super) fn matrices(l: &Lower, b: &Strided) -> Result<Option<WeightExpr>> {
    let Some(expr) = l.weight_of(b.value) else { return Ok(None) };
    let ty = expr.ty()?;
    let Some(r) = ty.shape().map(|s| s.len()).filter(|r| *r >= 2 && ty.encoding().is_none()) else {
        return Ok(None);
    };
    // The last two axes in memory are (K, N), or (N, K) read crosswise.
    let (row, col) = (&b.strides[b.strides.len() - 2], &b.strides[b.strides.len() - 1]);
    let own: Vec<Dim> = strides(&ty.dims);
    let straight = *row == own[r - 2] && *col == own[r - 1];
    let crossed = *row == own[r - 1] && *col == own[r - 2];
    if straight {
        return Ok(Some(expr));
    }
    if !crossed {
        return Ok(None);
    }
    let mut perm: Vec<usize> = (0..r).collect();
    perm.swap(r - 2, r - 1);
    Ok(Some(WeightExpr::Transpose(Box::new(expr), perm)))
}

/// The packed form of B if it is a weight, whole matrices in the order of its dims.
fn pack(l: &mut Lower, b: &Strided, tb: &TensorType) -> Result<Option<ValueId>> {
    if tb.dims[tb.rank() - 2..].iter().any(|d| d.as_size().is_none()) {
        return Ok(None);
    }
    let Some(expr) = matrices(l, b)? else { return Ok(None) };
    let name = format!("{}.packed", l.weight_name(b.value));
    l.weight(&name, WeightExpr::Pack(Box::new(expr), F32_PACKED.into())).map(Some)
}

/// Lowers an integer product of the operands a, b and their zero points, with its output stage.
pub(super) fn matmul_integer(
    l: &mut Lower,
    slots: [Option<ValueId>; 4],
    tail: &Requant,
) -> Result<ValueId> {
    let [Some(a), Some(b), az, bz] = slots else { bail!(Internal, "two operands are needed") };
    let (ta, tb) = (l.t(a)?, l.t(b)?);
    let (sa, sb) = (strided(l, a)?, strided(l, b)?);
    let r = ta.rank();
    let (k, n) = (ta.dims[r - 1].clone(), tb.dims[r - 1].clone());
    let point = |l: &Lower, v: Option<ValueId>| -> Result<usize> {
        let Some(v) = v else { return Ok(per::NONE) };
        Ok(if l.t(v)?.count() == Dim::Const(1) { per::TENSOR } else { per::AXIS })
    };
    let (a_zp, b_zp) = (point(l, az)?, point(l, bz)?);
    let packed = match l.weight_of(sb.value) {
        Some(expr)
            if r == 2 && expr.ty()?.encoding().is_none() && sb.strides == strides(&tb.dims) =>
        {
            let name = format!("{}.packed", l.weight_name(sb.value));
            Some(l.weight(&name, WeightExpr::Pack(Box::new(expr), I8_PACKED.into()))?)
        }
        _ => None,
    };
    let sizes = Sizes::of(MatmulI8::FIELDS)
        .right("batch", &ta.dims[..r - 2], 1)
        .right("a_batch", &sa.strides[..r - 2], 0)
        .right("b_batch", &sb.strides[..r - 2], 0)
        .set("m", ta.dims[r - 2].clone())
        .set("n", n.clone())
        .set("k", k)
        .set("a_row", sa.strides[r - 2].clone())
        .set("a_col", sa.strides[r - 1].clone())
        .set("b_row", sb.strides[r - 2].clone())
        .set("b_col", sb.strides[r - 1].clone())
        .set("b_first", 0i64)
        .set("c_row", n)
        .flag("a_signed", ta.elem == Elem::I8)
        .flag("a_moved", false)
        .flag("b_signed", tb.elem == Elem::I8)
        .code("a_zp", a_zp)
        .code("b_zp", b_zp)
        .all("stage", tail.stage.to_vec().into_iter().map(Dim::Const).collect())
        .unscheduled();
    let (kernel, b) = match packed {
        Some(w) => ("matmul.i8.packed", w),
        None => ("matmul.i8", sb.value),
    };
    let mut ins = vec![Some(sa.value), Some(b), az, bz];
    ins.extend(tail.operands);
    l.launch1(kernel, &ins, tail.out.clone(), sizes.done()?)
}

/// Bytes of a weight in one of this backend's layouts; `shape` is the dense one.
pub fn packed_bytes(layout: &str, shape: &[usize]) -> Option<u64> {
    let [batch @ .., k, n] = shape else { return None };
    let batch: usize = batch.iter().product();
    match layout {
        F32_PACKED => Some((batch * packed_b_f32_len(*k, *n) * 4) as u64),
        I8_PACKED => Some((batch * packed_b_i8_len(*k, *n)) as u64),
        U4_PACKED => Some((batch * packed_b_u4_len(*k, *n)) as u64),
        BF16_PACKED | HALF_PACKED => Some((batch * packed_b_f32_len(*k, *n) * 2) as u64),
        BYTES_PACKED | E4M3_PACKED => Some((batch * packed_b_f32_len(*k, *n)) as u64),
        _ => None,
    }
}
