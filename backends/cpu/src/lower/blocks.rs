//! Products with weights that are quantised by blocks, and lookups of their rows: both read one packed copy.

use silure_ir::dialects::graph;
use silure_ir::func::Op;
use silure_ir::infer::InferCx;
use silure_ir::weight::is_weight;
use silure_ir::{Code, Diagnostic, Dim, Elem, Func, Result, ValueId, WeightExpr, bail};
use silure_kernels_cpu::gemm::blocks::Blocks;
use silure_kernels_cpu::gemm::blocks8::Blocks8;
use silure_kernels_cpu::gemm::dot8::BLOCK;
use silure_kernels_cpu::gemm::lookup::Lookup;
use silure_passes::rewrite::splat_of;

use super::matmul::{BYTES_PACKED, F32_PACKED, Strided, Tail, matrices, strided};
use super::{Lower, Lowering, Sizes, f32_bits, product};

/// Lowerings of this file.
pub(super) static TABLE: &[&Lowering] = &[&MATMUL_BLOCKS, &GATHER_BLOCKS];

/// Layout of a 4-bit weight: panels of 16 columns, eight rows to a word.
pub const U4_PACKED: &str = "u4.nr16kr8";

/// Layout of a bf16 weight: panels of 16 columns.
pub const BF16_PACKED: &str = "bf16.nr16";
/// Layout of a weight of 8-bit floats: panels of 16 columns.
pub const E4M3_PACKED: &str = "e4m3fn.nr16";

/// Layout of lines of f16 numbers: panels of 16 columns.
pub const HALF_PACKED: &str = "f16.nr16";

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
        let inner = l.b.func.op(op).clone();
        Ok(vec![matmul_blocks(l, &inner, &operands, &tail)?])
    },
};

static GATHER_BLOCKS: Lowering = Lowering {
    op: "graph.gather_blocks",
    can: |cx: &InferCx| {
        let o = cx.func.op(cx.op);
        let operands: Vec<ValueId> = o.operands().collect();
        parts_fit(cx.func, o, &Parts::of(o, &operands)?)
    },
    lower: |l, op| {
        let o = l.b.func.op(op).clone();
        let operands: Vec<ValueId> = o.operands().collect();
        let w = Parts::of(&o, &operands).map_err(internal)?.packed(l, &o)?;
        let (ix, y) = (l.operand(op, 2)?, l.out(op, 0)?);
        let ti = l.t(ix)?;
        let sizes = Sizes::of(Lookup::FIELDS)
            .set("n", w.n)
            .set("k", w.k)
            .set("indices", ti.count())
            .flag("wide", ti.elem == Elem::I64)
            .set("block", w.block)
            .set("center", f32_bits(w.center))
            .flag("offsets", w.offsets.is_some())
            .done()?;
        let ins = [Some(w.q), Some(ix), Some(w.scales), w.offsets];
        Ok(vec![l.launch1(&format!("gather{}", w.suffix), &ins, y, sizes)?])
    },
};

/// The parts of a matrix that is quantised by blocks.
struct Parts {
    q: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
    offset: Option<ValueId>,
    /// Scales of what is multiplied.
    rows: Option<ValueId>,
}

impl Parts {
    /// Those of a product or a lookup; `present` are its operands that are there, perhaps as an anchor has
    /// them.
    fn of(o: &Op, present: &[ValueId]) -> Result<Parts, String> {
        let mut next = present.iter().copied();
        let mut at = o.slots().map(|slot| slot.and_then(|_| next.next()));
        let slots: [Option<ValueId>; 6] = std::array::from_fn(|_| at.next().flatten());
        let [first, second, third, zero, offset, rows] = slots;
        let (q, scale) = match o.def.name == graph::GATHER_BLOCKS.name {
            true => (first, second),
            false => (second, third),
        };
        match (q, scale) {
            (Some(q), Some(scale)) => Ok(Parts { q, scale, zero, offset, rows }),
            _ => Err("operands are missing".into()),
        }
    }

    /// Packs them. One zero point for all is taken off each integer; others times their scales are
    /// offsets.
    fn packed(&self, l: &mut Lower, o: &Op) -> Result<PackedParts> {
        let tq = l.t(self.q)?;
        let (Some([n, k]), Some(expr)) =
            (tq.shape().as_deref().and_then(|s| s.first_chunk().copied()), l.weight_of(self.q))
        else {
            bail!(Internal, "a weight has unknown dims")
        };
        let name = l.weight_name(self.q);
        let (suffix, layout, moved) = stored(tq.elem);
        let turned = |e: WeightExpr| Box::new(WeightExpr::Transpose(Box::new(e), vec![1, 0]));
        let q =
            l.weight(&format!("{name}.packed"), WeightExpr::Pack(turned(expr), layout.into()))?;
        let Some(mut s) = l.weight_of(self.scale) else {
            bail!(Internal, "the scales are not a weight")
        };
        let splat = self.zero.map(|z| splat_of(l.b.func, z).map(|z| z.f()));
        // Products of zero points and scales are no numbers of f16.
        let half = tq.elem.is_int() && s.ty()?.elem == Elem::F16 && splat != Some(None);
        let wide = |e: WeightExpr| match e.ty()?.elem {
            Elem::F16 if half => Ok(e),
            Elem::F32 => Ok(e),
            _ => Ok(WeightExpr::Cast(Box::new(e), Elem::F32)),
        };
        s = wide(s)?;
        let mut offset = match self.offset.map(|o| l.weight_of(o)) {
            Some(None) => bail!(Internal, "the offsets are not a weight"),
            Some(Some(o)) => Some(wide(o)?),
            None => None,
        };
        let center = match (splat, self.zero) {
            (None, _) => moved,
            (Some(Some(z)), _) => moved + z,
            (Some(None), z) => {
                let Some(z) = z.and_then(|z| l.weight_of(z)) else {
                    bail!(Internal, "the zero points are not a weight")
                };
                let z = WeightExpr::Cast(Box::new(z), Elem::F32);
                if offset.is_some() {
                    bail!(Unsupported, "offsets beside zero points that differ")
                }
                offset = Some(WeightExpr::Mul(Box::new(z), Box::new(s.clone())));
                moved
            }
        };
        let layout = if half { HALF_PACKED } else { F32_PACKED };
        let lines = |l: &mut Lower, what: &str, e: WeightExpr| {
            l.weight(&format!("{name}.{what}"), WeightExpr::Pack(turned(e), layout.into()))
        };
        let scales = lines(l, "scales", s)?;
        let offsets = offset.map(|o| lines(l, "offsets", o)).transpose()?;
        let suffix = format!("{suffix}{}", if half { ".f16" } else { "" });
        let block = o.attrs.int("block").clamp(1, (k as i64).max(1));
        Ok(PackedParts { q, scales, offsets, n, k, block, center, suffix })
    }
}

fn internal(e: String) -> Diagnostic {
    Diagnostic::new(Code::Internal, e)
}

/// The same as kernels read it.
struct PackedParts {
    q: ValueId,
    scales: ValueId,
    offsets: Option<ValueId>,
    n: usize,
    k: usize,
    block: i64,
    center: f64,
    /// Behind the kernels' names.
    suffix: String,
}

/// Whether kernels read a matrix of these parts.
fn parts_fit(f: &Func, o: &Op, p: &Parts) -> Result<(), String> {
    let splat = p.zero.is_some_and(|z| splat_of(f, z).is_some());
    let mut all = [Some(p.q), Some(p.scale), p.zero.filter(|_| !splat), p.offset].into_iter();
    if let Some(v) = all.find_map(|v| v.filter(|v| !is_weight(f, *v))) {
        return Err(format!("{} that only the run knows", f.ty(v)));
    }
    if p.zero.is_some() && !splat && p.offset.is_some() {
        return Err("offsets beside zero points that differ".into());
    }
    let t = f.ty(p.q).as_tensor().and_then(|t| Some((t.elem, t.shape()?)));
    let block = o.attrs.int("block");
    match t {
        Some((Elem::U8 | Elem::I8 | Elem::E4m3fn, _)) => Ok(()),
        Some((Elem::U4 | Elem::I4, s)) if block % 8 == 0 || block >= s[1] as i64 => Ok(()),
        Some((Elem::U4 | Elem::I4, _)) => {
            Err(format!("blocks of {block} elements of 4 bits; multiples of 8 are supported"))
        }
        _ => Err(format!(
            "elements {}; integers of 4 and 8 bits and e4m3fn are supported",
            f.ty(p.q)
        )),
    }
}

/// Whether there is a kernel for an instance with these operands.
pub(super) fn can(f: &Func, o: &Op, operands: &[ValueId]) -> Result<(), String> {
    let Some(a) = operands.first() else { return Err("operands are missing".into()) };
    let p = Parts::of(o, operands)?;
    match p.rows {
        None if f.ty(*a).elem() != Some(Elem::F32) => {
            return Err(format!("rows of {}; f32 is supported", f.ty(*a)));
        }
        None => {}
        Some(rows) => scaled_rows_fit(f, o, *a, rows, &p)?,
    }
    parts_fit(f, o, &p)
}

/// Whether kernels read rows of bytes that have scales.
fn scaled_rows_fit(f: &Func, o: &Op, a: ValueId, rows: ValueId, p: &Parts) -> Result<(), String> {
    let last = |v: ValueId| f.ty(v).as_tensor().and_then(|t| t.dims.last()?.as_const());
    let (k, block) = (last(a), o.attrs.int("block"));
    let blocks = k.map(|k| (k % BLOCK as i64 == 0, k / BLOCK as i64));
    if f.ty(rows).elem() != Some(Elem::F32) || blocks != last(rows).map(|b| (true, b)) {
        return Err(format!(
            "scales of rows {}; f32, one for 32 elements, is supported",
            f.ty(rows)
        ));
    }
    if block % BLOCK as i64 != 0 && k.is_none_or(|k| block < k) {
        return Err(format!(
            "rows with scales and blocks of {block}; multiples of 32 are supported"
        ));
    }
    match f.ty(p.q).elem().is_some_and(Elem::is_int) {
        true => Ok(()),
        false => Err(format!("rows with scales and {}; integers are supported", f.ty(p.q))),
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

/// Lowers a product `o` of the operands that are there with what follows it.
pub(super) fn matmul_blocks(
    l: &mut Lower,
    o: &Op,
    operands: &[ValueId],
    tail: &Tail,
) -> Result<ValueId> {
    let Some(&a) = operands.first() else { bail!(Internal, "operands are missing") };
    let parts = Parts::of(o, operands).map_err(internal)?;
    let w = parts.packed(l, o)?;
    let ta = l.t(a)?;
    if let Some(rows) = parts.rows {
        return of_bytes(l, (a, rows), &w, tail);
    }
    let source = strided(l, a)?;
    let r = ta.rank();
    // Rows of one stride are read where they lie.
    let (rows, a) = match r {
        2 if source.strides[1] == Dim::Const(1) => (source.strides[0].clone(), source.value),
        _ => (Dim::from(w.k), a),
    };
    let sizes = Sizes::of(Blocks::FIELDS)
        .set("m", product(&ta.dims[..r - 1]))
        .set("n", w.n)
        .set("k", w.k)
        .set("a_row", rows)
        .set("b_first", 0i64)
        .set("c_row", w.n)
        .set("block", w.block)
        .set("center", f32_bits(w.center))
        .flag("offsets", w.offsets.is_some())
        .all("epilogue", tail.epilogue.to_vec().into_iter().map(Dim::Const).collect())
        .unscheduled()
        .done()?;
    let ins = [Some(a), Some(w.q), tail.bias, tail.residual, None, Some(w.scales), w.offsets];
    l.launch1(&format!("matmul.f32{}", w.suffix), &ins, tail.out.clone(), sizes)
}

/// The product of bytes and their scales.
fn of_bytes(
    l: &mut Lower,
    (a, rows): (ValueId, ValueId),
    w: &PackedParts,
    tail: &Tail,
) -> Result<ValueId> {
    let ta = l.t(a)?;
    let sizes = Sizes::of(Blocks8::FIELDS)
        .set("m", product(&ta.dims[..ta.rank() - 1]))
        .set("n", w.n)
        .set("k", w.k)
        .set("b_first", 0i64)
        .set("c_row", w.n)
        .set("block", w.block)
        .set("center", f32_bits(w.center))
        .flag("offsets", w.offsets.is_some())
        .all("epilogue", tail.epilogue.to_vec().into_iter().map(Dim::Const).collect())
        .done()?;
    let first = [Some(a), Some(w.q), tail.bias, tail.residual, None];
    let ins = [&first[..], &[Some(w.scales), w.offsets, Some(rows)]].concat();
    l.launch1(&format!("matmul.i8{}", w.suffix), &ins, tail.out.clone(), sizes)
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
        .set("b_first", 0i64)
        .set("c_row", n)
        .set("block", k.max(1))
        .set("center", f32_bits(0.0))
        .flag("offsets", false)
        .all("epilogue", tail.epilogue.to_vec().into_iter().map(Dim::Const).collect())
        .unscheduled()
        .done()?;
    let ins = [Some(a), Some(packed), tail.bias, tail.residual, None, None, None];
    l.launch1("matmul.f32.bf16", &ins, tail.out.clone(), sizes).map(Some)
}

/// Whether an op is a product whose columns are its last axis.
pub(super) fn is_product(o: &Op) -> bool {
    o.def.name == graph::MATMUL.name || o.def.name == graph::MATMUL_BLOCKS.name
}
