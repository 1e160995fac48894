//! Products with the weights of experts.

use silure_ir::infer::InferCx;
use silure_ir::weight::is_weight;
use silure_ir::{Elem, Result, ValueId, WeightExpr, bail};
use silure_kernels_cpu::gemm::experts::Experts;

use super::blocks::{HALF_PACKED, narrow, stored};
use super::matmul::F32_PACKED;
use super::{Lowering, Sizes, f32_bits, product};
use crate::lower::BF16_PACKED;

/// Lowerings of this file.
pub(super) static TABLE: &[&Lowering] = &[&EXPERT_MATMUL];

static EXPERT_MATMUL: Lowering = Lowering {
    op: "graph.expert_matmul",
    can,
    lower: |l, op| {
        let (x, w, ids) = (l.operand(op, 0)?, l.operand(op, 1)?, l.operand(op, 2)?);
        let (scale, offset) = (l.b.func.op(op).operand(3), l.b.func.op(op).operand(4));
        let (tx, tw, y) = (l.t(x)?, l.t(w)?, l.out(op, 0)?);
        let (Some(&[experts, n, k]), Some(expr)) = (tw.shape().as_deref(), l.weight_of(w)) else {
            bail!(Internal, "the weights of experts have unknown dims")
        };
        let name = l.weight_name(w);
        let turned = |e: WeightExpr| Box::new(WeightExpr::Transpose(Box::new(e), vec![0, 2, 1]));
        let (suffix, layout, center, expr) = match scale {
            Some(_) => {
                let (suffix, layout, center) = stored(tw.elem);
                (suffix.to_string(), layout, center, expr)
            }
            None => match narrow(&expr) {
                Some(e) => (".bf16".into(), BF16_PACKED, 0.0, e),
                None => (String::new(), F32_PACKED, 0.0, expr),
            },
        };
        let packed = WeightExpr::Pack(turned(expr), layout.into());
        let packed = l.weight(&format!("{name}.packed"), packed)?;
        let mut half = "";
        let mut lines = |what: &str, s: ValueId| -> Result<ValueId> {
            let Some(s) = l.weight_of(s) else { bail!(Internal, "the {what} are not a weight") };
            let (s, layout) = match s.ty()?.elem {
                Elem::F32 => (s, F32_PACKED),
                Elem::F16 if tw.elem.is_int() => {
                    half = ".f16";
                    (s, HALF_PACKED)
                }
                _ => (WeightExpr::Cast(Box::new(s), Elem::F32), F32_PACKED),
            };
            l.weight(&format!("{name}.{what}"), WeightExpr::Pack(turned(s), layout.into()))
        };
        let scales = scale.map(|s| lines("scales", s)).transpose()?;
        let offsets = offset.map(|o| lines("offsets", o)).transpose()?;
        let block = l.attrs(op).int("block").clamp(1, (k as i64).max(1));
        let sizes = Sizes::of(Experts::FIELDS)
            .set("m", product(&y.dims[..2]))
            .set("per", y.dims[1].clone())
            .flag("shared", tx.dims[1] != y.dims[1])
            .set("experts", experts)
            .set("n", n)
            .set("k", k)
            .set("block", if scale.is_some() { block } else { (k as i64).max(1) })
            .set("center", f32_bits(center))
            .flag("offsets", offsets.is_some())
            .done()?;
        let ins = [Some(x), Some(packed), Some(ids), scales, offsets];
        Ok(vec![l.launch1(&format!("matmul.f32.experts{suffix}{half}"), &ins, y, sizes)?])
    },
};

fn can(cx: &InferCx) -> Result<(), String> {
    let [x, w, ids] = [0, 1, 2].map(|i| cx.tensor(i).map_err(|e| e.message));
    let (x, w, ids) = (x?, w?, ids?);
    if x.elem != Elem::F32 || ids.elem != Elem::I64 {
        return Err(format!(
            "rows of {} and experts as {}; f32 and i64 are supported",
            x.elem, ids.elem
        ));
    }
    let known = |i: usize| cx.operand(i).is_none_or(|v| is_weight(cx.func, v));
    if ![1, 3, 4].into_iter().all(known) {
        return Err("matrices of experts that only the run knows".into());
    }
    let block = cx.attrs().int("block");
    let whole = || w.dims[2].as_const().is_some_and(|k| block % 8 == 0 || block >= k);
    match (w.elem, cx.operand(3).is_some()) {
        (Elem::F32, false) | (Elem::I8 | Elem::E4m3fn, true) => Ok(()),
        (Elem::I4 | Elem::U4, true) if whole() => Ok(()),
        (e, _) => Err(format!("matrices of experts in {e} by blocks of {block}")),
    }
}
