//! Recurrent layers with ONNX semantics, layout `[seq, batch, …]`; D is 2 for `bidirectional`, else 1.
//!
//! * `rnn(x, w, r, b?, lens?, h0?)` → y `[seq, D, batch, hidden]`, h `[D, batch, hidden]`
//! * `gru(x, w, r, b?, lens?, h0?) {linear_before_reset}` → y, h; gates z r h
//! * `lstm(x, w, r, b?, lens?, h0?, c0?, p?) {input_forget}` → y, h, c; gates i o f c
//!
//! Shapes: x `[seq, batch, input]`, w `[D, G·hidden, input]`, r `[D, G·hidden, hidden]`,
//! b `[D, 2·G·hidden]` (of w, then of r), lens `[batch]`, h0 and c0 `[D, batch, hidden]`,
//! p `[D, 3·hidden]` (i o f), G the number of gates. All have `direction`, `activations` (per direction;
//! names as in ONNX), `alpha`, `beta` (consumed in order by the activations that take one), `clip`
//! (bounds the input of every activation). After a sequence's length y is 0.

use super::util;
use crate::attr::{Attr, AttrKind, Attrs};
use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Datum, Num, Tensor};
use crate::types::{TensorType, Type};

const DIRECTION: AttrDef = word("direction", "forward");
const ACTIVATIONS: AttrDef = maybe("activations", AttrKind::Strs);
const ALPHA: AttrDef = maybe("alpha", AttrKind::Floats);
const BETA: AttrDef = maybe("beta", AttrKind::Floats);
const CLIP: AttrDef = maybe("clip", AttrKind::Float);
const X: OperandDef = one("x", Of::Float);
const W: OperandDef = one("w", Of::Float);
const R: OperandDef = one("r", Of::Float);
const B: OperandDef = optional("b", Of::Float);
const LENS: OperandDef = optional("lens", Of::Position);
const H0: OperandDef = optional("h0", Of::Float);

/// Simple recurrent layer.
pub static RNN: OpDef = OpDef {
    name: "graph.rnn",
    doc: "h' = f(x·wᵀ + h·rᵀ + b) over a sequence.",
    operands: &[X, W, R, B, LENS, H0],
    results: &["y", "h"],
    attrs: &[DIRECTION, ACTIVATIONS, ALPHA, BETA, CLIP],
    infer: Some(|cx| infer(cx, 1)),
    eval: Some(|cx| eval(cx, Kind::Rnn)),
    cost: Some(cost),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// Gated recurrent unit.
pub static GRU: OpDef = OpDef {
    name: "graph.gru",
    doc: "z, r = f(gates); n = g(x·wₙᵀ + (r∘h)·rₙᵀ + b), or with `linear_before_reset` g(x·wₙᵀ + r∘(h·rₙᵀ + b)); \
          h' = (1 − z)∘n + z∘h, over a sequence.",
    operands: &[X, W, R, B, LENS, H0],
    results: &["y", "h"],
    attrs: &[DIRECTION, ACTIVATIONS, ALPHA, BETA, CLIP, flag("linear_before_reset", false)],
    infer: Some(|cx| infer(cx, 3)),
    eval: Some(|cx| eval(cx, Kind::Gru)),
    cost: Some(cost),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// Long short-term memory.
pub static LSTM: OpDef = OpDef {
    name: "graph.lstm",
    doc: "i, f = f(gates + p∘c) (f = 1 − i with `input_forget`); c' = f∘c + i∘g(gate); o = f(gate + p∘c'); \
          h' = o∘h(c'), over a sequence.",
    operands: &[X, W, R, B, LENS, H0, optional("c0", Of::Float), optional("p", Of::Float)],
    results: &["y", "h", "c"],
    attrs: &[DIRECTION, ACTIVATIONS, ALPHA, BETA, CLIP, flag("input_forget", false)],
    infer: Some(|cx| infer(cx, 4)),
    eval: Some(|cx| eval(cx, Kind::Lstm)),
    cost: Some(cost),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Rnn,
    Gru,
    Lstm,
}

impl Kind {
    fn gates(self) -> usize {
        [1, 3, 4][self as usize]
    }

    fn defaults(self) -> &'static [&'static str] {
        match self {
            Kind::Rnn => &["Tanh"],
            Kind::Gru => &["Sigmoid", "Tanh"],
            Kind::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

fn directions(attrs: &Attrs) -> Result<usize> {
    match attrs.str("direction") {
        "forward" | "reverse" => Ok(1),
        "bidirectional" => Ok(2),
        d => bail!(Type, "`direction` is forward, reverse or bidirectional, not `{d}`"),
    }
}

fn infer(cx: &InferCx, gates: usize) -> Result<Vec<Type>> {
    let (x, r) = (cx.tensor(0)?, cx.tensor(2)?);
    let d = Dim::from(directions(cx.attrs())?);
    let [seq, batch, input] = x.dims.as_slice() else {
        return Err(cx.wrong(0, "rank 3", cx.ty(0)?));
    };
    let [_, _, hidden] = r.dims.as_slice() else { return Err(cx.wrong(2, "rank 3", cx.ty(2)?)) };
    let kind = [Kind::Rnn, Kind::Gru, Kind::Lstm][gates / 2];
    activations(cx.attrs(), kind)?;
    let gh = hidden.clone() * Dim::from(gates);
    let state = vec![d.clone(), batch.clone(), hidden.clone()];
    let want: [(usize, Vec<Dim>); 7] = [
        (1, vec![d.clone(), gh.clone(), input.clone()]),
        (2, vec![d.clone(), gh.clone(), hidden.clone()]),
        (3, vec![d.clone(), gh * Dim::Const(2)]),
        (4, vec![batch.clone()]),
        (5, state.clone()),
        (6, state.clone()),
        (7, vec![d.clone(), hidden.clone() * Dim::Const(3)]),
    ];
    for (i, dims) in want {
        if let Some(t) = cx.maybe_tensor(i)?
            && ((i != 4 && t.elem != x.elem) || t.dims != dims)
        {
            let elem = if i == 4 { t.elem } else { x.elem };
            return Err(cx.wrong(i, &TensorType::new(elem, dims).to_string(), cx.ty(i)?));
        }
    }
    let y = vec![seq.clone(), d, batch.clone(), hidden.clone()];
    let mut out = vec![Type::tensor(x.elem, y), Type::tensor(x.elem, state.clone())];
    if kind == Kind::Lstm {
        out.push(Type::tensor(x.elem, state));
    }
    Ok(out)
}

fn cost(cx: &InferCx) -> Cost {
    let steps = cx.tensor(0).map_or(Dim::Const(0), |x| {
        x.dims.iter().take(2).cloned().fold(Dim::Const(2), |a, d| a * d)
    });
    util::cost(cx, steps * (util::count_of(cx, 1) + util::count_of(cx, 2)))
}

/// An activation with its parameters.
#[derive(Clone, Copy)]
struct Act(fn(f64, f64, f64) -> f64, f64, f64);

impl Act {
    fn on(self, x: f64, clip: f64) -> f64 {
        self.0(if x.is_nan() { x } else { x.clamp(-clip, clip) }, self.1, self.2)
    }
}

/// The activations of all directions in order.
fn activations(attrs: &Attrs, kind: Kind) -> Result<Vec<Act>> {
    let each = kind.defaults();
    let names: Vec<String> = match attrs.get("activations") {
        Some(Attr::Strs(s)) if !s.is_empty() => s.iter().map(|s| s.to_lowercase()).collect(),
        _ => each
            .iter()
            .map(|s| s.to_lowercase())
            .cycle()
            .take(each.len() * directions(attrs)?)
            .collect(),
    };
    if names.len() != each.len() * directions(attrs)? {
        bail!(Type, "{} activations, {} for each direction are needed", names.len(), each.len());
    }
    let (mut alphas, mut betas) = (attrs.floats("alpha").iter(), attrs.floats("beta").iter());
    let mut one = |name: &String| -> Result<Act> {
        let (f, alpha, beta): (fn(f64, f64, f64) -> f64, Option<f64>, Option<f64>) = match &**name {
            "relu" => (|x, _, _| if x < 0.0 { 0.0 } else { x }, None, None),
            "tanh" => (|x, _, _| x.tanh(), None, None),
            "sigmoid" => (|x, _, _| 1.0 / (1.0 + (-x).exp()), None, None),
            "affine" => (|x, a, b| a * x + b, Some(1.0), Some(0.0)),
            "leakyrelu" => (|x, a, _| if x < 0.0 { a * x } else { x }, Some(0.01), None),
            "thresholdedrelu" => (|x, a, _| if x > a { x } else { 0.0 }, Some(1.0), None),
            "scaledtanh" => (|x, a, b| a * (b * x).tanh(), Some(1.0), Some(1.0)),
            "hardsigmoid" => (|x, a, b| (a * x + b).clamp(0.0, 1.0), Some(0.2), Some(0.5)),
            "elu" => (|x, a, _| if x < 0.0 { a * x.exp_m1() } else { x }, Some(1.0), None),
            "softsign" => (|x, _, _| x / (1.0 + x.abs()), None, None),
            "softplus" => (|x, _, _| x.max(0.0) + (-x.abs()).exp().ln_1p(), None, None),
            _ => bail!(Type, "unknown activation `{name}`"),
        };
        let given = |d: Option<f64>, list: &mut std::slice::Iter<f64>| {
            d.map_or(0.0, |d| list.next().copied().unwrap_or(d))
        };
        Ok(Act(f, given(alpha, &mut alphas), given(beta, &mut betas)))
    };
    names.iter().map(&mut one).collect()
}

/// What one direction computes with.
struct Layer<'a> {
    kind: Kind,
    acts: &'a [Act],
    clip: f64,
    flag: bool,
    hidden: usize,
    w: &'a [f64],
    r: &'a [f64],
    bw: &'a [f64],
    br: &'a [f64],
    p: &'a [f64],
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Layer<'_> {
    /// One step of one sequence: h and c become their next values.
    fn step(&self, x: &[f64], h: &mut [f64], c: &mut [f64]) {
        let n = self.hidden;
        let wx = |g: usize, j: usize| {
            dot(&self.w[(g * n + j) * x.len()..][..x.len()], x) + self.bw[g * n + j]
        };
        let rh = |g: usize, j: usize, h: &[f64]| {
            dot(&self.r[(g * n + j) * n..][..n], h) + self.br[g * n + j]
        };
        let act = |i: usize, v: f64| self.acts[i].on(v, self.clip);
        let old = h.to_vec();
        match self.kind {
            Kind::Rnn => (0..n).for_each(|j| h[j] = act(0, wx(0, j) + rh(0, j, &old))),
            Kind::Gru => {
                let gate = |g: usize, j: usize| act(0, wx(g, j) + rh(g, j, &old));
                let reset: Vec<f64> = (0..n).map(|j| gate(1, j)).collect();
                let gated: Vec<f64> = reset.iter().zip(&old).map(|(r, h)| r * h).collect();
                for j in 0..n {
                    let inner =
                        if self.flag { reset[j] * rh(2, j, &old) } else { rh(2, j, &gated) };
                    let (z, new) = (gate(0, j), act(1, wx(2, j) + inner));
                    h[j] = (1.0 - z) * new + z * old[j];
                }
            }
            Kind::Lstm => {
                for j in 0..n {
                    let gate = |g: usize| wx(g, j) + rh(g, j, &old);
                    let i = act(0, gate(0) + self.p[j] * c[j]);
                    let f = act(0, gate(2) + self.p[2 * n + j] * c[j]);
                    let f = if self.flag { 1.0 - i } else { f };
                    c[j] = f * c[j] + i * act(1, gate(3));
                    let o = act(0, gate(1) + self.p[n + j] * c[j]);
                    h[j] = o * act(2, c[j]);
                }
            }
        }
    }
}

fn eval(cx: &EvalCx, kind: Kind) -> Result<Vec<Datum>> {
    let (x, r) = (cx.tensor(0)?, cx.tensor(2)?);
    let (&[seq, batch, input], &[d, gh, n]) = (x.shape(), r.shape()) else {
        bail!(Eval, "x and r need rank 3")
    };
    let (a, g) = (cx.attrs(), kind.gates());
    let acts = activations(a, kind)?;
    let clip = a.get("clip").map_or(f64::INFINITY, |_| a.float("clip"));
    if d != directions(a)? || gh != g * n || clip.is_nan() || clip < 0.0 {
        bail!(Eval, "{d} directions of {gh} rows for {g} gates of {n}, clip {clip}");
    }
    let f64s = |i: usize, len: usize| -> Result<Vec<f64>> {
        match cx.maybe(i)? {
            None => Ok(vec![0.0; len]),
            Some(t) if t.len() == len => Ok(t.to_f64s()),
            Some(t) => bail!(Eval, "operand {i} has {} elements, {len} are needed", t.len()),
        }
    };
    let (fx, fr) = (x.to_f64s(), r.to_f64s());
    let (w, b) = (f64s(1, d * gh * input)?, f64s(3, d * 2 * gh)?);
    let state = d * batch * n;
    let (mut h, mut c) = (f64s(5, state)?, vec![0.0; state]);
    let mut p = vec![0.0; d * 3 * n];
    if kind == Kind::Lstm {
        (c, p) = (f64s(6, state)?, f64s(7, d * 3 * n)?);
    }
    let lens: Vec<i128> = match cx.maybe(4)? {
        Some(t) => t.nums().map(Num::i).collect(),
        None => vec![seq as i128; batch],
    };
    if lens.len() != batch || lens.iter().any(|l| !(0..=seq as i128).contains(l)) {
        bail!(Eval, "sequence lengths {lens:?} do not fit {batch} sequences of {seq}");
    }
    let flag = a.bool("linear_before_reset") || a.bool("input_forget");
    let mut y = vec![0.0; seq * state];
    for k in 0..d {
        let layer = Layer {
            kind,
            acts: &acts[k * kind.defaults().len()..],
            clip,
            flag,
            hidden: n,
            w: &w[k * gh * input..],
            r: &fr[k * gh * n..],
            bw: &b[k * 2 * gh..],
            br: &b[k * 2 * gh + gh..],
            p: &p[k * 3 * n..],
        };
        let backward = k == 1 || a.str("direction") == "reverse";
        for (i, len) in lens.iter().enumerate() {
            let len = *len as usize;
            let at = (k * batch + i) * n;
            for s in 0..len {
                let t = if backward { len - 1 - s } else { s };
                let x = &fx[(t * batch + i) * input..][..input];
                layer.step(x, &mut h[at..at + n], &mut c[at..at + n]);
                y[((t * d + k) * batch + i) * n..][..n].copy_from_slice(&h[at..at + n]);
            }
        }
    }
    let out = |shape: &[usize], v: &[f64]| -> Result<Datum> {
        Ok(Tensor::from_f64s(x.elem(), shape, v)?.into())
    };
    let mut all = vec![out(&[seq, d, batch, n], &y)?, out(&[d, batch, n], &h)?];
    if kind == Kind::Lstm {
        all.push(out(&[d, batch, n], &c)?);
    }
    Ok(all)
}
