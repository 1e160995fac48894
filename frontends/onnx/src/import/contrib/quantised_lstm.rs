//! `DynamicQuantizeLSTM`: the input is quantised as a whole and the state at each step, both to u8
//! with a scale and a zero point found at run time.

use silure_ir::dialects::arith;
use silure_ir::{Attrs, Dim, Elem, Type, ValueId, attrs};

use super::super::cx::Cx;
use super::super::{Record, quant};
use super::contrib;
use super::quantised_product::Columns;
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[contrib("DynamicQuantizeLSTM", dynamic_quantize_lstm)];

/// What the steps of one direction take besides the state.
struct Layer {
    /// The recurrence weights `[hidden, 4·hidden]`, gates i, o, f, c.
    r: Columns,
    /// `[4·hidden]`.
    bias: Option<ValueId>,
    /// `[3·hidden]` for i, o, f.
    peephole: Option<ValueId>,
    /// Activations of the gates, of what enters the cell, and of the cell.
    act: [String; 3],
    clip: Option<f64>,
    coupled: bool,
    hidden: Dim,
}

/// Part `i` along the first axis of a value.
fn direction(cx: &mut Cx<'_, '_>, v: ValueId, i: usize) -> Result<ValueId> {
    let v = cx.cut(v, 0, Dim::from(i), Dim::from(i + 1))?;
    cx.squeeze(v, &[0])
}

/// Weights `[directions, rows, columns]` of one direction, with what quantised them.
fn weights(cx: &mut Cx<'_, '_>, n: &Node<'_>, at: [usize; 3], i: usize) -> Result<Columns> {
    let [x, scale, zero] = [cx.input(n, at[0])?, cx.input(n, at[1])?, cx.input(n, at[2])?];
    cx.typed(x, &[Elem::U8, Elem::I8], "a quantised tensor")?;
    cx.typed(scale, &[Elem::F32], "a scale")?;
    cx.typed(zero, &[cx.elem(x)?], "a zero point")?;
    for v in [scale, zero] {
        if !matches!(cx.rank(v)?, 1 | 2) {
            return Err(cx
                .wrong("scales and zero points of weights do not fit")
                .needed("one for each direction, or for each direction and column")
                .present(cx.ty(v)?.to_string()));
        }
    }
    let (x, scale) = (direction(cx, x, i)?, direction(cx, scale, i)?);
    Ok(Columns { x, scale, zero: Some(direction(cx, zero, i)?) })
}

fn dynamic_quantize_lstm(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (count, reverse) = match cx.word(n, "direction", "forward")?.as_str() {
        "forward" => (1, false),
        "reverse" => (1, true),
        "bidirectional" => (2, false),
        d => return Err(cx.wrong("attribute `direction` has no such value").present(d)),
    };
    let stated = cx.int(n, "hidden_size")?;
    let clip = cx.float(n, "clip")?;
    if clip.is_some_and(|c| c.is_nan() || c < 0.0) {
        return Err(cx.wrong("attribute `clip` is negative"));
    }
    let coupled = cx.flag_or(n, "input_forget", false)?;
    let given = cx.words(n, "activations")?.unwrap_or_default();
    let usual = ["Sigmoid", "Tanh", "Tanh"].into_iter().cycle().take(3 * count);
    let acts: Vec<String> =
        if given.is_empty() { usual.map(String::from).collect() } else { given };
    if acts.len() != 3 * count {
        return Err(cx
            .wrong("attribute `activations` has the wrong length")
            .needed((3 * count).to_string())
            .present(acts.len().to_string()));
    }
    for name in ["activation_alpha", "activation_beta"] {
        if cx.floats(n, name)?.is_some_and(|v| !v.is_empty()) {
            return Err(cx.unsupported(format!("attribute `{name}`")));
        }
    }
    if cx.maybe(n, 4)?.is_some() {
        return Err(cx.unsupported("sequences of different lengths"));
    }
    let (mut x, mut w, mut r) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.input(n, 2)?);
    if [x, w, r].iter().any(|v| cx.rank(*v).is_ok_and(|r| r != 3)) {
        return Err(cx.wrong("the operands of a recurrent layer have three axes"));
    }
    let hidden = cx.dims(r)?[1].clone();
    if stated.zip(hidden.as_const()).is_some_and(|(a, b)| a != b) {
        return Err(cx
            .wrong("attribute `hidden_size` is not that of the recurrence weights")
            .needed(hidden.to_string())
            .present(format!("{stated:?}")));
    }
    let gates = hidden.clone() * Dim::Const(4);
    for v in [&mut w, &mut r] {
        cx.expect_size(v, 0, &Dim::from(count), "directions of the weights")?;
        cx.expect_size(v, 2, &gates, "the hidden size and that of the weights")?;
    }
    cx.same_size(&mut x, 2, &mut w, 1, "the input size and that of the weights")?;
    let dims = cx.dims(x)?;
    let shape = [Dim::from(count), dims[1].clone(), hidden.clone()];
    let mut states = Vec::new();
    for i in [5, 6] {
        states.push(match cx.maybe(n, i)? {
            Some(mut s) => {
                cx.typed(s, &[Elem::F32], "a state")?;
                for (i, d) in shape.iter().enumerate() {
                    cx.expect_size(&mut s, i, d, "sizes of the initial state")?;
                }
                s
            }
            None => cx.zeros(Elem::F32, shape.to_vec())?,
        });
    }
    // A list of numbers for each direction: the bias (of both weights) and the peepholes.
    let mut lists = Vec::new();
    for (i, parts) in [(3, 8), (7, 3)] {
        lists.push(match cx.maybe(n, i)? {
            Some(mut v) => {
                cx.typed(v, &[Elem::F32], "an operand")?;
                let size = hidden.clone() * Dim::Const(parts);
                cx.expect_size(&mut v, 0, &Dim::from(count), "directions of a list")?;
                cx.expect_size(&mut v, 1, &size, "the hidden size and that of a list")?;
                Some(v)
            }
            None => None,
        });
    }
    let quantised = cx.dynamic(x)?;
    let mut all: [Vec<ValueId>; 3] = Default::default();
    for i in 0..count {
        let w = weights(cx, n, [1, 8, 9], i)?;
        let x = cx.scaled_product(quantised, w, None)?;
        let bias = match lists[0] {
            Some(b) => {
                let b = direction(cx, b, i)?;
                let b = cx.parts(b, 0, vec![gates.clone(), gates.clone()])?;
                Some(cx.two(&arith::ADD, b[0], b[1])?)
            }
            None => None,
        };
        let layer = Layer {
            r: weights(cx, n, [2, 10, 11], i)?,
            bias,
            peephole: lists[1].map(|p| direction(cx, p, i)).transpose()?,
            act: [acts[3 * i].clone(), acts[3 * i + 1].clone(), acts[3 * i + 2].clone()],
            clip,
            coupled,
            hidden: hidden.clone(),
        };
        let (h, c) = (direction(cx, states[0], i)?, direction(cx, states[1], i)?);
        let out = scan(cx, &layer, [h, c, x], reverse || i == 1)?;
        // y is [t, b, h].
        all[0].push(cx.unsqueeze(out[2], &[1])?);
        all[1].push(cx.unsqueeze(out[0], &[0])?);
        all[2].push(cx.unsqueeze(out[1], &[0])?);
    }
    Ok(vec![cx.concat(&all[0], 1)?, cx.concat(&all[1], 0)?, cx.concat(&all[2], 0)?])
}

/// The last h and c and all h of one direction, given h, c and the gates' part of the input.
fn scan(
    cx: &mut Cx<'_, '_>,
    layer: &Layer,
    operands: [ValueId; 3],
    backward: bool,
) -> Result<Vec<ValueId>> {
    let mut args = Vec::new();
    for (i, v) in operands.into_iter().enumerate() {
        let mut t = cx.ty(v)?;
        if i == 2 {
            t.dims.remove(0);
        }
        args.push(Type::Tensor(t));
    }
    let region = cx.region(&args, |cx, a| {
        let (h, c) = step(cx, layer, a[0], a[1], a[2])?;
        Ok(vec![h, c, h])
    })?;
    let back = i64::from(backward);
    let attrs = Attrs::new()
        .with("states", 2)
        .with("input_axes", vec![0])
        .with("output_axes", vec![0])
        .with("input_reverse", vec![back])
        .with("output_reverse", vec![back]);
    let def = cx.def("graph.scan")?;
    let operands: Vec<Option<ValueId>> = operands.into_iter().map(Some).collect();
    let op = cx.build(def, &operands, attrs, &[region], &[])?;
    Ok(cx.f.op(op).results.to_vec())
}

/// The next h and c.
fn step(
    cx: &mut Cx<'_, '_>,
    l: &Layer,
    h: ValueId,
    c: ValueId,
    x: ValueId,
) -> Result<(ValueId, ValueId)> {
    let q = cx.dynamic(h)?;
    let sum = quant::product(cx, (q.0, q.1.zero), (l.r.x, l.r.zero))?;
    let scale = cx.two(&arith::MUL, q.1.scale, l.r.scale)?;
    let sum = cx.cast(sum, Elem::F32)?;
    let sum = cx.two(&arith::MUL, sum, scale)?;
    let all = cx.two(&arith::ADD, x, sum)?;
    let all = cx.biased(all, l.bias)?;
    let gates = cx.parts(all, 1, vec![l.hidden.clone(); 4])?;
    let p = match l.peephole {
        Some(p) => cx.parts(p, 0, vec![l.hidden.clone(); 3])?,
        None => vec![],
    };
    // A gate with what it sees of the cell.
    let gate = |cx: &mut Cx<'_, '_>, i: usize, c: ValueId| -> Result<ValueId> {
        let mut g = gates[i];
        if let Some(p) = p.get(i) {
            let part = cx.two(&arith::MUL, c, *p)?;
            g = cx.two(&arith::ADD, g, part)?;
        }
        act(cx, l, 0, g)
    };
    let input = gate(cx, 0, c)?;
    let forget = match l.coupled {
        true => {
            let one = cx.number(Elem::F32, 1.0)?;
            cx.two(&arith::SUB, one, input)?
        }
        false => gate(cx, 2, c)?,
    };
    let new = act(cx, l, 1, gates[3])?;
    let (kept, new) = (cx.two(&arith::MUL, forget, c)?, cx.two(&arith::MUL, input, new)?);
    let c = cx.two(&arith::ADD, kept, new)?;
    let output = gate(cx, 1, c)?;
    let y = act(cx, l, 2, c)?;
    Ok((cx.two(&arith::MUL, output, y)?, c))
}

/// Activation `i` of a value, which is clipped unless it is the cell.
fn act(cx: &mut Cx<'_, '_>, l: &Layer, i: usize, x: ValueId) -> Result<ValueId> {
    let x = match l.clip {
        Some(c) if i < 2 => cx.one(&arith::CLIP, &[x], attrs! { lo: -c, hi: c })?,
        _ => x,
    };
    let def = match l.act[i].to_ascii_lowercase().as_str() {
        "sigmoid" => &arith::SIGMOID,
        "tanh" => &arith::TANH,
        "relu" => &arith::RELU,
        "softplus" => &arith::SOFTPLUS,
        a => return Err(cx.unsupported("an activation of this name").present(a)),
    };
    cx.one(def, &[x], attrs! {})
}
