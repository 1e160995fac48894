//! Recurrent layers.

use std::sync::Arc;

use silure_ir::{Attrs, ValueId};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    record("RNN", |cx, n| layer(cx, n, "graph.rnn", 6)),
    record("GRU", |cx, n| layer(cx, n, "graph.gru", 6)),
    record("LSTM", |cx, n| layer(cx, n, "graph.lstm", 8)),
];

fn layer(cx: &mut Cx<'_, '_>, n: &Node<'_>, op: &str, operands: usize) -> Result<Vec<ValueId>> {
    let direction = cx.word(n, "direction", "forward")?;
    let hidden = cx.int(n, "hidden_size")?;
    let batch_first = cx.flag_or(n, "layout", false)?;
    let mut attrs = Attrs::new().with("direction", direction.as_str());
    if let Some(a) = cx.words(n, "activations")? {
        attrs.set("activations", a.iter().map(|s| s.as_str().into()).collect::<Vec<Arc<str>>>());
    }
    for (name, to) in [("activation_alpha", "alpha"), ("activation_beta", "beta")] {
        if let Some(v) = cx.floats(n, name)? {
            attrs.set(to, v);
        }
    }
    if let Some(c) = cx.float(n, "clip")? {
        attrs.set("clip", c);
    }
    match op {
        "graph.gru" => {
            attrs.set("linear_before_reset", cx.flag_or(n, "linear_before_reset", false)?);
        }
        "graph.lstm" => attrs.set("input_forget", cx.flag_or(n, "input_forget", false)?),
        _ => {}
    }
    let mut v: Vec<Option<ValueId>> =
        (0..operands).map(|i| cx.maybe(n, i)).collect::<Result<_>>()?;
    let (mut x, r) = (cx.input(n, 0)?, cx.input(n, 2)?);
    if cx.rank(x)? != 3 || cx.rank(r)? != 3 {
        return Err(cx.wrong("the operands of a recurrent layer have three axes"));
    }
    if let (Some(stated), Some(real)) = (hidden, cx.dims(r)?[2].as_const())
        && stated != real
    {
        return Err(cx
            .wrong("attribute `hidden_size` is not that of the recurrence weights")
            .needed(real.to_string())
            .present(stated.to_string()));
    }
    if batch_first {
        x = cx.transpose(x, &[1, 0, 2])?;
        for s in v[5..operands.min(7)].iter_mut().flatten() {
            *s = cx.transpose(*s, &[1, 0, 2])?;
        }
    }
    // The batch size of the input, the lengths and the initial states is one.
    for (i, axis) in [(4, 0), (5, 1), (6, 1)] {
        if let Some(Some(s)) = v.get_mut(i) {
            let mut state = *s;
            cx.same_size(&mut x, 1, &mut state, axis, "batch sizes")?;
            *s = state;
        }
    }
    if let Some(w) = v[1] {
        let mut w = w;
        cx.same_size(&mut x, 2, &mut w, 2, "the input size and that of the weights")?;
        v[1] = Some(w);
    }
    v[0] = Some(x);
    for i in [5, 6] {
        if let Some(Some(s)) = v.get_mut(i) {
            let (directions, hidden) = (cx.dims(r)?[0].clone(), cx.dims(r)?[2].clone());
            let mut state = *s;
            cx.expect_size(&mut state, 0, &directions, "directions of the initial state")?;
            cx.expect_size(&mut state, 2, &hidden, "the hidden size and that of the state")?;
            *s = state;
        }
    }
    let mut out = cx.ops(op, &v, attrs)?;
    if batch_first {
        out[0] = cx.transpose(out[0], &[2, 0, 1, 3])?;
        for s in &mut out[1..] {
            *s = cx.transpose(*s, &[1, 0, 2])?;
        }
    }
    Ok(out)
}
