//! Recurrent layers. Their weights are packed per direction: when the engine is written, if they are
//! known then, else by copies in front of the layer.

use silure_ir::infer::InferCx;
use silure_ir::{
    Attr, Attrs, Dim, Elem, Num, OpId, Result, Tensor, TensorType, ValueId, WeightExpr, bail,
};
use silure_kernels_cpu::gemm::NR;
use silure_kernels_cpu::rnn::{Rnn, function};

use super::matmul::F32_PACKED;
use super::movement::{copy_sizes, copy_to};
use super::{Lower, Lowering, Sizes, elem_is, f32_bits};

/// Lowerings of this file.
pub(super) static TABLE: &[&Lowering] = &[&LSTM, &GRU, &RNN];

fn can(cx: &InferCx) -> Result<(), String> {
    elem_is(cx, &[Elem::F32])?;
    let r = cx.tensor(2).map_err(|e| e.message)?;
    if r.dims.iter().any(|d| d.as_size().is_none()) {
        return Err(format!("recurrent weights {r} of a size that only the run decides"));
    }
    if let Some(t) = cx.maybe_tensor(4).map_err(|e| e.message)?
        && t.elem != Elem::I32
    {
        return Err(format!("sequence lengths of type {}; i32 is supported", t.elem));
    }
    Ok(())
}

static LSTM: Lowering = Lowering {
    op: "graph.lstm",
    can,
    lower: |l, op| layer(l, op, "lstm.f32", &["Sigmoid", "Tanh", "Tanh"]),
};

static GRU: Lowering =
    Lowering { op: "graph.gru", can, lower: |l, op| layer(l, op, "gru.f32", &["Sigmoid", "Tanh"]) };

static RNN: Lowering =
    Lowering { op: "graph.rnn", can, lower: |l, op| layer(l, op, "rnn.f32", &["Tanh"]) };

/// ONNX activation, kernel code, defaults of alpha and beta (`None`: takes none).
const FUNCTIONS: &[(&str, usize, Option<f64>, Option<f64>)] = &[
    ("Sigmoid", function::SIGMOID, None, None),
    ("Tanh", function::TANH, None, None),
    ("Relu", function::RELU, None, None),
    ("Affine", function::AFFINE, Some(1.0), Some(0.0)),
    ("LeakyRelu", function::LEAKY_RELU, Some(0.01), None),
    ("ThresholdedRelu", function::THRESHOLDED_RELU, Some(1.0), None),
    ("ScaledTanh", function::SCALED_TANH, Some(1.0), Some(1.0)),
    ("HardSigmoid", function::HARD_SIGMOID, Some(0.2), Some(0.5)),
    ("Elu", function::ELU, Some(1.0), None),
    ("Softsign", function::SOFTSIGN, None, None),
    ("Softplus", function::SOFTPLUS, None, None),
];

fn layer(l: &mut Lower, op: OpId, kernel: &str, defaults: &[&str]) -> Result<Vec<ValueId>> {
    let o = l.b.func.op(op).clone();
    let (x, w, r) = (l.operand(op, 0)?, l.operand(op, 1)?, l.operand(op, 2)?);
    let (tx, tr) = (l.t(x)?, l.t(r)?);
    let (Some(dirs), Some(hidden)) = (tr.dims[0].as_size(), tr.dims[2].as_size()) else {
        bail!(Unsupported, "recurrent weights of unknown size");
    };
    let mut sizes = Sizes::of(Rnn::FIELDS)
        .set("seq", tx.dims[0].clone())
        .set("batch", tx.dims[1].clone())
        .set("input", tx.dims[2].clone())
        .code("hidden", hidden)
        .code("dirs", dirs)
        .flag("reverse", o.attrs.str("direction") == "reverse")
        .set("clip", f32_bits(o.attrs.float("clip")))
        .flag("input_forget", o.attrs.bool("input_forget"))
        .flag("linear_before_reset", o.attrs.bool("linear_before_reset"));
    sizes = activations(sizes, &o.attrs, defaults, dirs)?;
    let gates = tr.dims[1].as_size().unwrap_or(0) / hidden.max(1);
    let mut ins = vec![Some(x), Some(packed(l, w, None)?)];
    if kernel == "gru.f32" {
        // The candidate's recurrent weight is apart: it may be applied after the reset.
        ins.push(Some(packed(l, r, Some((0, 2 * hidden)))?));
        ins.push(Some(packed(l, r, Some((2 * hidden, (gates - 2) * hidden)))?));
    } else {
        ins.push(Some(packed(l, r, None)?));
    }
    ins.extend([o.operand(3), o.operand(4), o.operand(5)]);
    if kernel == "lstm.f32" {
        ins.extend([o.operand(6), o.operand(7)]);
    }
    let outs: Vec<Option<TensorType>> =
        (0..o.results.len()).map(|i| l.out(op, i).map(Some)).collect::<Result<_>>()?;
    l.launch(kernel, &ins, &outs, sizes.done()?)
}

/// `[D, rows, K]` as packed `[D, K, rows]`; of some rows alone if `part` says (first, count).
fn packed(l: &mut Lower, v: ValueId, part: Option<(usize, usize)>) -> Result<ValueId> {
    let Some(mut expr) = l.weight_of(v) else { return pack_now(l, v, part) };
    let mut name = format!("{}.packed", l.weight_name(v));
    if let Some((first, count)) = part {
        let Some(s) = expr.ty()?.shape() else { bail!(Internal, "unknown shape") };
        expr = WeightExpr::Slice(Box::new(expr), vec![0, first, 0], vec![s[0], count, s[2]]);
        name = format!("{name}.{first}");
    }
    let crossed = WeightExpr::Transpose(Box::new(expr), vec![0, 2, 1]);
    l.weight(&name, WeightExpr::Pack(Box::new(crossed), F32_PACKED.into()))
}

/// The same by copies: panels of [`NR`] rows, each `[K, NR]`, the last filled up with zeros.
fn pack_now(l: &mut Lower, v: ValueId, part: Option<(usize, usize)>) -> Result<ValueId> {
    let t = l.t(v)?;
    let (dirs, all, k) = (t.dims[0].clone(), t.dims[1].as_size(), t.dims[2].clone());
    let Some(all) = all else { bail!(Internal, "unknown rows") };
    let (first, rows) = part.unwrap_or((0, all));
    let (whole, rest) = (rows / NR, rows % NR);
    let dim = |n: usize| Dim::Const(n as i64);
    let out =
        TensorType::new(t.elem, vec![dirs.clone(), dim(rows.div_ceil(NR)), k.clone(), dim(NR)]);
    let panel = k.clone() * dim(NR);
    let dst = [dim(rows.div_ceil(NR)) * panel.clone(), panel.clone(), Dim::Const(1), dim(NR)];
    let src = [dim(all) * k.clone(), panel.clone(), k.clone(), Dim::Const(1)];
    let zero = l.constant(Tensor::scalar(t.elem, Num::F(0.0)))?;
    let (n, one) = (out.count(), Dim::Const(1));
    let mut y = copy_to(l, zero, out.clone(), &[n], &[Dim::Const(0)], &[one], Dim::Const(0))?;
    for (panels, of, at) in [(whole, NR, 0), (1, rest, whole)] {
        if panels == 0 || of == 0 {
            continue;
        }
        let dims = [dirs.clone(), dim(panels), dim(of), k.clone()];
        let from = dim(first + at * NR) * k.clone();
        let (kernel, sizes) = copy_sizes(&out, &dims, &src, &dst, from, dim(at) * panel.clone())?;
        y = l.update(kernel, y, &[Some(v)], sizes)?;
    }
    Ok(y)
}

/// Codes and parameters of the activations: three slots per direction.
fn activations(sizes: Sizes, a: &Attrs, defaults: &[&str], dirs: usize) -> Result<Sizes> {
    let given: Vec<String> = match a.get("activations") {
        Some(Attr::Strs(v)) if !v.is_empty() => v.iter().map(|s| s.to_string()).collect(),
        _ => defaults.iter().cycle().take(defaults.len() * dirs).map(|s| s.to_string()).collect(),
    };
    let (mut alphas, mut betas) = (a.floats("alpha").iter(), a.floats("beta").iter());
    let per = defaults.len();
    let (mut codes, mut alpha, mut beta) =
        (vec![Dim::Const(0); 6], vec![f32_bits(0.0); 6], vec![f32_bits(0.0); 6]);
    if given.len() != per * dirs || dirs > 2 {
        bail!(Invalid, "{} activations for {dirs} directions of {per}", given.len());
    }
    for (i, name) in given.iter().enumerate() {
        let f = FUNCTIONS.iter().find(|f| f.0.eq_ignore_ascii_case(name));
        let Some((_, code, da, db)) = f else { bail!(Unsupported, "activation `{name}`") };
        let slot = i / per * 3 + i % per;
        codes[slot] = Dim::Const(*code as i64);
        if let Some(d) = da {
            alpha[slot] = f32_bits(alphas.next().copied().unwrap_or(*d));
        }
        if let Some(d) = db {
            beta[slot] = f32_bits(betas.next().copied().unwrap_or(*d));
        }
    }
    Ok(sizes.all("functions", codes).all("alpha", alpha).all("beta", beta))
}
