//! Attention as one kernel; what feeds it is read in place through transposes.

use silure_ir::{Dim, Elem, Result, TensorType, bail};
use silure_kernels_cpu::attention::paged::Paged;
use silure_kernels_cpu::attention::{Attention, FEW, steps};

use super::matmul::{Strided, strided};
use super::{Lowering, Sizes, elem_is, f32_bits, strides};

/// Lowerings of this file.
pub(super) static TABLE: &[&Lowering] = &[&ATTENTION, &PAGED];

static ATTENTION: Lowering = Lowering {
    op: "graph.attention",
    can: |cx| {
        elem_is(cx, &[Elem::F32])?;
        let q = cx.tensor(0).map_err(|e| e.message)?;
        let scale = cx.attrs().get("scale").is_some() || q.dims[3].as_const().is_some();
        if scale {
            Ok(())
        } else {
            Err(format!("the size of the heads {} is not known", q.dims[3]))
        }
    },
    lower: |l, op| {
        let a = l.attrs(op);
        let (head, token) = if a.bool("tokens_first") { (2, 1) } else { (1, 2) };
        let [q, k, v] = [0, 1, 2].map(|i| l.operand(op, i));
        let (q, k, v, y) = (q?, k?, v?, l.out(op, 0)?);
        let (tq, tk, tv) = (l.t(q)?, l.t(k)?, l.t(v)?);
        let mask = l.b.func.op(op).operand(3);
        // Features lie side by side; what lies otherwise is read from the tensor itself.
        let source = |v| -> Result<(_, [Dim; 3])> {
            let mut s = strided(l, v)?;
            if s.strides[3] != Dim::Const(1) {
                s = Strided { value: v, strides: strides(&l.t(v)?.dims) };
            }
            let [batch, head, token] = [0, head, token].map(|i| s.strides[i].clone());
            Ok((s.value, [batch, head, token]))
        };
        let ((q, sq), (k, sk), (v, sv)) = (source(q)?, source(k)?, source(v)?);
        let own = strides(&y.dims);
        let sy = [0, head, token].map(|i| own[i].clone());
        let scale = match (a.get("scale"), tq.dims[3].as_const()) {
            (Some(_), _) => a.float("scale"),
            (None, Some(d)) => 1.0 / (d as f64).sqrt(),
            _ => bail!(Internal, "the scale of an attention is not known"),
        };
        let (mut masked, mut bytes) = (vec![Dim::Const(0); 4], false);
        let mut slot = None;
        if let Some(m) = mask {
            let t = l.t(m)?;
            let full = [&tq.dims[0], &tq.dims[head], &tq.dims[token], &tk.dims[token]];
            let s = strided(l, m)?;
            let lead = 4 - t.rank();
            for (i, (d, stride)) in t.dims.iter().zip(&s.strides).enumerate() {
                let repeats = *d == Dim::Const(1) && *full[lead + i] != Dim::Const(1);
                masked[lead + i] = if repeats { Dim::Const(0) } else { stride.clone() };
            }
            (slot, bytes) = (Some(s.value), t.elem == Elem::Bool);
        }
        let offset = a.dims("offset").first().cloned().unwrap_or(Dim::Const(0));
        let sizes = Sizes::of(Attention::FIELDS)
            .set("batch", tq.dims[0].clone())
            .set("heads", tq.dims[head].clone())
            .set("kv_heads", tk.dims[head].clone())
            .set("queries", tq.dims[token].clone())
            .set("keys", tk.dims[token].clone())
            .set("depth", tq.dims[3].clone())
            .set("value_depth", tv.dims[3].clone())
            .all("q", sq.to_vec())
            .all("k", sk.to_vec())
            .all("v", sv.to_vec())
            .all("y", sy.to_vec())
            .all("mask", masked)
            .set("scale", f32_bits(scale))
            .flag("causal", a.bool("causal"))
            .set("causal_offset", offset)
            .flag("mask_bytes", bytes)
            .set("softcap", f32_bits(a.float("softcap")))
            .flag("zero_nan", a.bool("zero_nan"))
            .unscheduled()
            .done()?;
        let ins = [Some(q), Some(k), Some(v), slot];
        Ok(vec![l.launch1("attention.f32", &ins, y, sizes)?])
    },
};

static PAGED: Lowering = Lowering {
    op: "graph.paged_attention",
    can: |cx| {
        let [q, k] = [0, 1].map(|i| cx.tensor(i).map_err(|e| e.message));
        let (q, k) = (q?, k?);
        if q.elem != Elem::F32 || !matches!(k.elem, Elem::F32 | Elem::Bf16) {
            return Err(format!("queries in {} and a cache in {}", q.elem, k.elem));
        }
        for i in 3..6 {
            if cx.maybe_tensor(i).ok().flatten().is_some_and(|t| t.elem != Elem::I64) {
                return Err("lengths, pages and ends that are not i64".into());
            }
        }
        // The scale and the bound of values inside keys follow from it.
        let needed = cx.attrs().get("scale").is_none() || cx.operand(2).is_none();
        if needed && k.dims[2].as_const().is_none() {
            return Err(format!("the size of the heads {} is not known", q.dims[2]));
        }
        Ok(())
    },
    lower: |l, op| {
        let a = l.attrs(op);
        let [q, k, lengths, pages] = [0, 1, 3, 4].map(|i| l.operand(op, i));
        let (q, k, lengths, pages, y) = (q?, k?, lengths?, pages?, l.out(op, 0)?);
        let [v, ends] = [2, 5].map(|i| l.b.func.op(op).operand(i));
        let (tq, tk, table) = (l.t(q)?, l.t(k)?, l.t(pages)?);
        // Features lie side by side; what lies otherwise is read from the tensor itself.
        let mut s = strided(l, q)?;
        if s.strides[2] != Dim::Const(1) {
            s = Strided { value: q, strides: strides(&tq.dims) };
        }
        let wide = y.dims[2].clone();
        let scale = match (a.get("scale"), tq.dims[2].as_const()) {
            (None, Some(d)) => 1.0 / (d as f64).sqrt(),
            _ => a.float("scale"),
        };
        let cache = |t: &[Dim]| strides(t)[..2].to_vec();
        let tv = v.map_or(Ok(tk.clone()), |v| l.t(v))?;
        let sizes = Sizes::of(Paged::FIELDS)
            .set("tokens", tq.dims[0].clone())
            .set("sequences", table.dims[0].clone())
            .set("pages", table.dims[1].clone())
            .set("page", Dim::Const(a.int("page")))
            .set("rows", tk.dims[0].clone())
            .set("heads", tq.dims[1].clone())
            .set("kv_heads", tk.dims[1].clone())
            .set("depth", tq.dims[2].clone())
            .set("value_depth", wide)
            .all("q", s.strides[..2].to_vec())
            .all("k", cache(&tk.dims))
            .all("v", cache(&tv.dims))
            .set("scale", f32_bits(scale))
            .set("softcap", f32_bits(a.float("softcap")))
            .set("window", Dim::Const(a.int("window")))
            .flag("half", tk.elem == Elem::Bf16);
        let mut ins = vec![Some(s.value), Some(k), v, Some(lengths), Some(pages)];
        // One token of each sequence: the keys are cut, if few queries read each.
        let each = [&tq.dims[1], &tk.dims[1], &tk.dims[2]].map(Dim::as_const);
        let few = ends.is_none().then(|| match each {
            [Some(heads), Some(kv), Some(depth)] if kv > 0 && heads / kv <= FEW as i64 => {
                Some((heads, kv * depth * tk.elem.bits() as i64 / 8))
            }
            _ => None,
        });
        let Some((heads, row)) = few.flatten() else {
            ins.push(ends);
            let sizes = sizes.set("span", Dim::Const(0)).done()?;
            return Ok(vec![l.launch1("attention.paged.f32", &ins, y, sizes)?]);
        };
        let span = Dim::Const(steps::span(row as usize) as i64);
        let sizes = sizes.set("span", span.clone()).done()?;
        let positions = table.dims[1].clone() * Dim::Const(a.int("page"));
        let part = y.dims[2].clone() + Dim::Const(2);
        let dims = [table.dims[0].clone(), positions.ceildiv(&span), Dim::Const(heads), part];
        let parts = TensorType::new(Elem::F32, dims);
        let parts = l.launch1("attention.steps.f32", &ins, parts, sizes.clone())?;
        Ok(vec![l.launch1("attention.steps.join.f32", &[Some(parts)], y, sizes)?])
    },
};
