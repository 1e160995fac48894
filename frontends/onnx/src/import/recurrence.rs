//! Operators that carry a state along a sequence in place of attending to it.

use silure_ir::dialects::arith;
use silure_ir::{Attr, Attrs, Dim, Elem, Tensor, Type, ValueId, attrs};

use super::attention::joined;
use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] =
    &[record("LinearAttention", linear_attention), record("CausalConvWithState", causal_conv)];

impl Cx<'_, '_> {
    /// 0 everywhere.
    pub fn zeros(&mut self, elem: Elem, dims: Vec<Dim>) -> Result<ValueId> {
        let zero = Tensor::scalar(elem, silure_ir::Num::F(0.0));
        let attrs = Attrs::new().with("value", zero).with("shape", Attr::Dims(dims));
        self.op("graph.full", &[], attrs)
    }
}

pub(super) fn causal_conv(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let swish = match cx.word(n, "activation", "none")?.as_str() {
        "none" => false,
        "silu" | "swish" => true,
        a => return Err(cx.wrong("attribute `activation` has no such value").present(a)),
    };
    let (mut x, mut w, bias) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.maybe(n, 2)?);
    let past = cx.maybe(n, 3)?;
    if cx.rank(x)? != 3 || cx.rank(w)? != 3 {
        return Err(cx
            .wrong("the operands of a causal convolution do not fit")
            .needed("an input [batch, channels, length] and a filter [channels, 1, size]")
            .present(format!("{} and {}", cx.ty(x)?, cx.ty(w)?)));
    }
    cx.same_size(&mut x, 1, &mut w, 0, "channels of the input and of the filter")?;
    let (dims, kernel) = (cx.dims(x)?, cx.dims(w)?);
    let Some(channels) = dims[1].as_const() else {
        return Err(cx.unsupported("the number of channels is known only at run time"));
    };
    let kept = kernel[2].clone() - Dim::Const(1);
    let elem = cx.elem(x)?;
    let all = match past {
        Some(past) => {
            let mut past = past;
            cx.expect_size(&mut past, 2, &kept, "the length of the state and of the filter")?;
            joined(cx, Some(past), x)?
        }
        None => {
            let state = cx.zeros(elem, vec![dims[0].clone(), dims[1].clone(), kept.clone()])?;
            joined(cx, Some(state), x)?
        }
    };
    let length = cx.dims(all)?[2].clone();
    let state = cx.cut(all, 2, length.clone() - kept, length)?;
    let attrs = Attrs::new()
        .with("strides", vec![1])
        .with("dilations", vec![1])
        .with("pads", Attr::Dims(vec![Dim::Const(0); 2]))
        .with("groups", channels);
    let y = cx.ops("graph.conv", &[Some(all), Some(w), bias], attrs)?[0];
    if !swish {
        return Ok(vec![y, state]);
    }
    let wide = cx.cast(y, Elem::F32)?;
    let wide = cx.swish(wide, 1.0)?;
    Ok(vec![cx.cast(wide, elem)?, state])
}

/// What one step of a linear attention takes besides the state.
struct Step {
    q: ValueId,
    k: ValueId,
    v: ValueId,
    decay: Option<ValueId>,
    beta: Option<ValueId>,
}

pub(super) fn linear_attention(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    // A hint about speed.
    cx.ignore("chunk_size");
    let (Some(heads), Some(kv)) = (cx.int(n, "q_num_heads")?, cx.int(n, "kv_num_heads")?) else {
        return Err(cx.wrong("attributes `q_num_heads` and `kv_num_heads` are needed"));
    };
    if heads < 1 || kv < 1 || heads % kv != 0 {
        return Err(cx
            .wrong("the heads of the queries are not a multiple of the keys'")
            .present(format!("{heads} and {kv}")));
    }
    let rule = cx.word(n, "update_rule", "gated_delta")?;
    let (gated, delta) = match rule.as_str() {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        r => return Err(cx.wrong("attribute `update_rule` has no such value").present(r)),
    };
    let scale = cx.float_or(n, "scale", 0.0)?;
    let mut x = Vec::new();
    for (i, h) in [heads, kv, kv].into_iter().enumerate() {
        let v = cx.input(n, i)?;
        x.push(cx.split_heads(v, h)?);
    }
    let elem = cx.elem(x[0])?;
    let (dk, dv) = (cx.dims(x[1])?[3].clone(), cx.dims(x[2])?[3].clone());
    let past = cx.maybe(n, 3)?;
    let gates = [(4, gated, "decay"), (5, delta, "beta")];
    for (i, needed, name) in gates {
        let Some(v) = cx.maybe(n, i)? else {
            if needed {
                return Err(cx.wrong(format!("update rule `{rule}` needs `{name}`")));
            }
            continue;
        };
        if !needed {
            return Err(cx.wrong(format!("update rule `{rule}` has no `{name}`")));
        }
        // One number per head, or (of the decay) per head and key.
        let last = cx.dims(v)?.last().and_then(Dim::as_const);
        let h = if name == "beta" && last == Some(1) { 1 } else { kv };
        x.push(cx.split_heads(v, h)?);
    }
    let state_elem = past.map_or(Ok(elem), |p| cx.elem(p))?;
    // Everything is computed in f32, with the sequence first.
    for v in &mut x {
        *v = cx.cast(*v, Elem::F32)?;
        *v = cx.transpose(*v, &[2, 0, 1, 3])?;
    }
    for i in 1..x.len() {
        let (mut a, mut b) = (x[0], x[i]);
        cx.same_size(&mut a, 0, &mut b, 0, "lengths of the sequences")?;
        cx.same_size(&mut a, 1, &mut b, 1, "batch sizes")?;
        (x[0], x[i]) = (a, b);
    }
    let (mut q, mut k) = (x[0], x[1]);
    cx.same_size(&mut q, 3, &mut k, 3, "sizes of the heads of queries and keys")?;
    (x[0], x[1]) = (q, k);
    let batch = cx.dims(q)?[1].clone();
    let shape = vec![batch, Dim::Const(kv), dk.clone(), dv];
    let state = match past {
        Some(p) => {
            let mut p = cx.cast(p, Elem::F32)?;
            if cx.rank(p)? != 4 {
                return Err(cx.wrong("the state needs four axes"));
            }
            for (i, d) in shape.iter().enumerate() {
                cx.expect_size(&mut p, i, d, "sizes of the state")?;
            }
            p
        }
        None => cx.zeros(Elem::F32, shape)?,
    };
    let mut args = vec![cx.f.ty(state).clone()];
    for v in &x {
        let mut t = cx.ty(*v)?;
        t.dims.remove(0);
        args.push(Type::Tensor(t));
    }
    let region = cx.region(&args, |cx, a| {
        let mut more = a[4..].iter().copied();
        let decay = if gated { more.next() } else { None };
        let beta = if delta { more.next() } else { None };
        step(cx, a[0], &Step { q: a[1], k: a[2], v: a[3], decay, beta })
    })?;
    let count = x.len();
    let attrs = Attrs::new()
        .with("states", 1)
        .with("input_axes", vec![0; count])
        .with("output_axes", vec![0])
        .with("input_reverse", vec![0; count])
        .with("output_reverse", vec![0]);
    let mut operands = vec![Some(state)];
    operands.extend(x.into_iter().map(Some));
    let def = cx.def("graph.scan")?;
    let op = cx.build(def, &operands, attrs, &[region], &[])?;
    let out = cx.f.op(op).results.to_vec();
    // [t, b, h, dv] as [b, t, h·dv].
    let y = cx.transpose(out[1], &[1, 0, 2, 3])?;
    let y = cx.merge(y, 2, 4)?;
    let scale = match (scale, dk.as_const()) {
        (0.0, Some(d)) => 1.0 / (d as f64).sqrt(),
        (0.0, None) => {
            return Err(cx.unsupported("the size of the heads is known only at run time"));
        }
        (s, _) => s,
    };
    let y = cx.with(&arith::MUL, y, scale)?;
    Ok(vec![cx.cast(y, elem)?, cx.cast(out[0], state_elem)?])
}

/// The next state and what is read from it: `[b, g, dk, dv]` and `[b, h, dv]`.
fn step(cx: &mut Cx<'_, '_>, state: ValueId, s: &Step) -> Result<Vec<ValueId>> {
    let mut state = state;
    if let Some(decay) = s.decay {
        let d = cx.one(&arith::EXP, &[decay], attrs! {})?;
        let d = cx.unsqueeze(d, &[3])?;
        state = cx.two(&arith::MUL, state, d)?;
    }
    let row = cx.unsqueeze(s.k, &[2])?;
    let column = cx.unsqueeze(s.k, &[3])?;
    let mut v = cx.unsqueeze(s.v, &[2])?;
    if let Some(beta) = s.beta {
        let read = cx.op("graph.matmul", &[row, state], attrs! {})?;
        let missing = cx.two(&arith::SUB, v, read)?;
        let beta = cx.unsqueeze(beta, &[3])?;
        v = cx.two(&arith::MUL, missing, beta)?;
    }
    let write = cx.two(&arith::MUL, column, v)?;
    state = cx.two(&arith::ADD, state, write)?;
    let heads = cx.dims(s.q)?[1].clone();
    let shared = cx.repeat_heads(state, &heads)?;
    let q = cx.unsqueeze(s.q, &[2])?;
    let y = cx.op("graph.matmul", &[q, shared], attrs! {})?;
    let y = cx.squeeze(y, &[2])?;
    Ok(vec![state, y])
}
