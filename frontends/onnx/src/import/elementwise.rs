//! Elementwise operators: one op of `arith` where there is one, a few where there is not. Operands are
//! broadcast first.

use silure_ir::dialects::arith;
use silure_ir::{Attrs, Class, Dim, Elem, OpDef, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

/// Operators that are one op of the same operands; comparisons, logic and arithmetic broadcast.
macro_rules! direct {
    ($($op:literal $def:ident;)*) => {
        const DIRECT: &[(&str, &OpDef)] = &[$(($op, &arith::$def)),*];
    };
}

direct! {
    "Add" ADD; "Sub" SUB; "Mul" MUL; "Div" DIV; "And" AND; "Or" OR; "Xor" XOR; "Not" NOT;
    "BitwiseAnd" BITAND; "BitwiseOr" BITOR; "BitwiseXor" BITXOR; "BitwiseNot" BITNOT;
    "Equal" EQ; "Less" LT; "LessOrEqual" LE; "Greater" GT; "GreaterOrEqual" GE;
    "Neg" NEG; "Abs" ABS; "Sign" SIGN; "Relu" RELU; "Exp" EXP; "Log" LOG; "Sqrt" SQRT;
    "Reciprocal" RECIP; "Sin" SIN; "Cos" COS; "Tan" TAN; "Asin" ASIN; "Acos" ACOS; "Atan" ATAN;
    "Sinh" SINH; "Cosh" COSH; "Tanh" TANH; "Asinh" ASINH; "Acosh" ACOSH; "Atanh" ATANH;
    "Erf" ERF; "Sigmoid" SIGMOID; "Floor" FLOOR; "Ceil" CEIL; "Round" ROUND; "Softplus" SOFTPLUS;
    "IsNaN" IS_NAN;
}

pub(super) const TABLE: &[Record] = &[
    record("Add", direct),
    record("Sub", direct),
    record("Mul", direct),
    record("Div", direct),
    record("And", direct),
    record("Or", direct),
    record("Xor", direct),
    record("Not", direct),
    record("BitwiseAnd", direct),
    record("BitwiseOr", direct),
    record("BitwiseXor", direct),
    record("BitwiseNot", direct),
    record("Equal", direct),
    record("Less", direct),
    record("LessOrEqual", direct),
    record("Greater", direct),
    record("GreaterOrEqual", direct),
    record("Neg", direct),
    record("Abs", direct),
    record("Sign", direct),
    record("Relu", direct),
    record("Exp", direct),
    record("Log", direct),
    record("Sqrt", direct),
    record("Reciprocal", direct),
    record("Sin", direct),
    record("Cos", direct),
    record("Tan", direct),
    record("Asin", direct),
    record("Acos", direct),
    record("Atan", direct),
    record("Sinh", direct),
    record("Cosh", direct),
    record("Tanh", direct),
    record("Asinh", direct),
    record("Acosh", direct),
    record("Atanh", direct),
    record("Erf", direct),
    record("Sigmoid", direct),
    record("Floor", direct),
    record("Ceil", direct),
    record("Round", direct),
    record("Softplus", direct),
    record("IsNaN", direct),
    record("Identity", identity),
    record("Mod", modulo),
    record("Pow", pow),
    record("Min", |cx, n| fold(cx, n, &arith::MIN)),
    record("Max", |cx, n| fold(cx, n, &arith::MAX)),
    record("Sum", |cx, n| fold(cx, n, &arith::ADD)),
    record("Mean", mean),
    record("Where", where_),
    record("Clip", clip),
    record("Cast", cast),
    record("CastLike", cast_like),
    record("BitCast", bit_cast),
    record("BitShift", bit_shift),
    record("IsInf", is_inf),
    record("LeakyRelu", leaky_relu),
    record("Elu", elu),
    record("Selu", selu),
    record("Celu", celu),
    record("PRelu", prelu),
    record("HardSigmoid", hard_sigmoid),
    record("HardSwish", hard_swish),
    record("Gelu", gelu),
    record("Mish", mish),
    record("Swish", swish),
    record("SwiGLU", swiglu),
    record("Softsign", softsign),
    record("ThresholdedRelu", thresholded_relu),
    record("Shrink", shrink),
];

impl Cx<'_, '_> {
    /// An elementwise op after broadcasting its operands.
    pub fn elementwise(
        &mut self,
        def: &'static OpDef,
        operands: &[ValueId],
        attrs: Attrs,
    ) -> Result<ValueId> {
        let operands = self.broadcast_all(operands, 0)?;
        self.one(def, &operands, attrs)
    }

    /// An elementwise op of two operands, broadcast.
    pub fn two(&mut self, def: &'static OpDef, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.elementwise(def, &[a, b], attrs! {})
    }

    /// An elementwise op of a value and a number.
    pub fn with(&mut self, def: &'static OpDef, a: ValueId, number: f64) -> Result<ValueId> {
        let elem = self.elem(a)?;
        let b = self.number(elem, number)?;
        self.two(def, a, b)
    }

    /// A value as another element type.
    pub fn cast(&mut self, v: ValueId, to: Elem) -> Result<ValueId> {
        if self.elem(v)? == to {
            return Ok(v);
        }
        if to.is_str() || self.elem(v)?.is_str() {
            return self.cast_strings(v, to);
        }
        self.one(&arith::CAST, &[v], attrs! { to: to })
    }
}

fn direct(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let Some((_, def)) = DIRECT.iter().find(|(op, _)| *op == n.op.name) else {
        return Err(cx.unsupported("the operator is not supported"));
    };
    let mut operands = cx.inputs(n)?;
    if operands.len() != def.operands.len() {
        return Err(cx
            .wrong("the node has the wrong number of operands")
            .needed(def.operands.len().to_string())
            .present(operands.len().to_string()));
    }
    if let [a, b] = operands[..] {
        let (a, b) = cx.pair(n, a, b)?;
        operands = vec![a, b];
    }
    Ok(vec![cx.elementwise(def, &operands, attrs! {})?])
}

fn identity(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    Ok(vec![cx.input(n, 0)?])
}

fn modulo(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let fmod = cx.flag_or(n, "fmod", false)?;
    let (a, b) = (cx.input(n, 0)?, cx.input(n, 1)?);
    Ok(vec![cx.two(if fmod { &arith::REM } else { &arith::MOD }, a, b)?])
}

fn pow(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (a, b) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let (a, b) = cx.pair(n, a, b)?;
    let (ea, eb) = (cx.elem(a)?, cx.elem(b)?);
    // The result has the base's type; an integer base to a float power is computed in the power's.
    let at = if eb.is_float() && !ea.is_float() { eb } else { ea };
    let (a, b) = (cx.cast(a, at)?, cx.cast(b, at)?);
    let y = cx.two(&arith::POW, a, b)?;
    Ok(vec![cx.cast(y, ea)?])
}

fn fold(cx: &mut Cx<'_, '_>, n: &Node<'_>, def: &'static OpDef) -> Result<Vec<ValueId>> {
    let v = cx.inputs(n)?;
    let mut y = v[0];
    for &x in &v[1..] {
        y = cx.two(def, y, x)?;
    }
    Ok(vec![y])
}

fn mean(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let count = n.inputs.len();
    let sum = fold(cx, n, &arith::ADD)?[0];
    Ok(vec![if count == 1 { sum } else { cx.with(&arith::DIV, sum, count as f64)? }])
}

fn where_(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let v = [cx.input(n, 0)?, cx.input(n, 1)?, cx.input(n, 2)?];
    Ok(vec![cx.elementwise(&arith::SELECT, &v, attrs! {})?])
}

fn clip(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    let elem = cx.elem(x)?;
    if n.op.version < 11 {
        let (lo, hi) = (cx.float(n, "min")?, cx.float(n, "max")?);
        let mut a = attrs! {};
        lo.into_iter().for_each(|v| a.set("lo", v));
        hi.into_iter().for_each(|v| a.set("hi", v));
        return Ok(vec![cx.one(&arith::CLIP, &[x], a)?]);
    }
    let (lo, hi) = (cx.maybe(n, 1)?, cx.maybe(n, 2)?);
    let mut a = attrs! {};
    // Bounds as attributes are floats: exact for all but large 64-bit integers.
    let mut exact = true;
    for (name, v) in [("lo", lo), ("hi", hi)] {
        let Some(v) = v else { continue };
        match cx.known_floats(v).as_deref() {
            Some(&[b]) if !b.is_nan() && (elem.is_float() || b.abs() < 9e15) => a.set(name, b),
            _ => exact = false,
        }
    }
    if exact {
        return Ok(vec![cx.one(&arith::CLIP, &[x], a)?]);
    }
    let mut y = x;
    if let Some(lo) = lo {
        y = cx.two(&arith::MAX, y, lo)?;
    }
    if let Some(hi) = hi {
        y = cx.two(&arith::MIN, y, hi)?;
    }
    Ok(vec![y])
}

fn cast(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let Some(to) = cx.elem_named(n, "to")? else {
        return Err(cx.wrong("attribute `to` is missing"));
    };
    let x = cx.input(n, 0)?;
    Ok(vec![super::cast::convert(cx, n, x, to)?])
}

fn cast_like(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (x, like) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let to = cx.elem(like)?;
    Ok(vec![super::cast::convert(cx, n, x, to)?])
}

fn bit_cast(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let Some(to) = cx.elem_attr(n, "to")? else {
        return Err(cx.wrong("attribute `to` is missing"));
    };
    let x = cx.input(n, 0)?;
    Ok(vec![cx.one(&arith::BITCAST, &[x], attrs! { to: to })?])
}

fn bit_shift(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let def = match cx.word(n, "direction", "")?.as_str() {
        "LEFT" => &arith::SHL,
        "RIGHT" => &arith::SHR,
        d => return Err(cx.wrong("attribute `direction` is neither LEFT nor RIGHT").present(d)),
    };
    let (a, mut b) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let elem = cx.elem(b)?;
    if def.name == arith::SHR.name && elem.class() == Class::Signed {
        // A count that is negative or not below the width leaves the sign alone.
        let last = elem.bits() as f64 - 1.0;
        let (low, high) = (cx.with(&arith::LT, b, 0.0)?, cx.with(&arith::GT, b, last)?);
        let outside = cx.two(&arith::OR, low, high)?;
        let last = cx.number(elem, last)?;
        b = cx.elementwise(&arith::SELECT, &[outside, last, b], attrs! {})?;
    }
    Ok(vec![cx.two(def, a, b)?])
}

fn is_inf(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let negative = cx.flag_or(n, "detect_negative", true)?;
    let positive = cx.flag_or(n, "detect_positive", true)?;
    let x = cx.input(n, 0)?;
    Ok(vec![match (positive, negative) {
        (true, true) => cx.one(&arith::IS_INF, &[x], attrs! {})?,
        (true, false) => cx.with(&arith::EQ, x, f64::INFINITY)?,
        (false, true) => cx.with(&arith::EQ, x, f64::NEG_INFINITY)?,
        (false, false) => {
            let no = cx.number(Elem::Bool, 0.0)?;
            let dims = cx.dims(x)?;
            cx.broadcast(no, &dims)?
        }
    }])
}

fn leaky_relu(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let alpha = cx.float_or(n, "alpha", 0.01)?;
    let x = cx.input(n, 0)?;
    Ok(vec![cx.one(&arith::LEAKY_RELU, &[x], attrs! { alpha: alpha })?])
}

fn elu(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let alpha = cx.float_or(n, "alpha", 1.0)?;
    let x = cx.input(n, 0)?;
    Ok(vec![cx.one(&arith::ELU, &[x], attrs! { alpha: alpha })?])
}

fn selu(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let alpha = cx.float_or(n, "alpha", 1.673_263_2)?;
    let gamma = cx.float_or(n, "gamma", 1.050_701)?;
    let x = cx.input(n, 0)?;
    Ok(vec![cx.one(&arith::ELU, &[x], attrs! { alpha: alpha, gamma: gamma })?])
}

fn celu(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let alpha = cx.float_or(n, "alpha", 1.0)?;
    let x = cx.input(n, 0)?;
    Ok(vec![cx.one(&arith::ELU, &[x], attrs! { alpha: alpha, beta: 1.0 / alpha })?])
}

fn prelu(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (x, mut slope) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let elem = cx.elem(x)?;
    if n.op.version < 7 && cx.rank(slope)? == 1 && cx.rank(x)? > 1 {
        // One number for all channels or for each, and the channels are axis 1.
        if cx.dims(slope)?[0] != Dim::Const(1) {
            let channels = cx.dims(x)?[1].clone();
            cx.expect_size(&mut slope, 0, &channels, "the number of channels and of slopes")?;
        }
        let mut dims = vec![Dim::Const(1); cx.rank(x)? - 1];
        dims[0] = cx.dims(slope)?[0].clone();
        slope = cx.reshape(slope, dims)?;
    }
    let zero = cx.number(elem, 0.0)?;
    let below = cx.two(&arith::LT, x, zero)?;
    let scaled = cx.two(&arith::MUL, x, slope)?;
    Ok(vec![cx.elementwise(&arith::SELECT, &[below, scaled, x], attrs! {})?])
}

fn hard_sigmoid(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let alpha = cx.float_or(n, "alpha", 0.2)?;
    let beta = cx.float_or(n, "beta", 0.5)?;
    let x = cx.input(n, 0)?;
    Ok(vec![cx.one(&arith::HARD_SIGMOID, &[x], attrs! { alpha: alpha, beta: beta })?])
}

fn hard_swish(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    let a = attrs! { alpha: 1.0 / 6.0, beta: 0.5 };
    let s = cx.one(&arith::HARD_SIGMOID, &[x], a)?;
    Ok(vec![cx.two(&arith::MUL, x, s)?])
}

fn gelu(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let tanh = match cx.word(n, "approximate", "none")?.as_str() {
        "none" => false,
        "tanh" => true,
        a => return Err(cx.wrong("attribute `approximate` is neither none nor tanh").present(a)),
    };
    let x = cx.input(n, 0)?;
    Ok(vec![cx.one(&arith::GELU, &[x], attrs! { tanh: tanh })?])
}

fn mish(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    let s = cx.one(&arith::SOFTPLUS, &[x], attrs! {})?;
    let t = cx.one(&arith::TANH, &[s], attrs! {})?;
    Ok(vec![cx.two(&arith::MUL, x, t)?])
}

impl Cx<'_, '_> {
    /// x · sigmoid(alpha · x).
    pub fn swish(&mut self, x: ValueId, alpha: f64) -> Result<ValueId> {
        let inner = if alpha == 1.0 { x } else { self.with(&arith::MUL, x, alpha)? };
        let s = self.one(&arith::SIGMOID, &[inner], attrs! {})?;
        self.two(&arith::MUL, x, s)
    }
}

fn swish(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let alpha = cx.float_or(n, "alpha", 1.0)?;
    let x = cx.input(n, 0)?;
    Ok(vec![cx.swish(x, alpha)?])
}

fn swiglu(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let alpha = cx.float_or(n, "alpha", 1.0)?;
    let (mut gate, mut x) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let rank = cx.rank(gate)?;
    if rank != cx.rank(x)? {
        return Err(cx.wrong("the gate and the value have different shapes"));
    }
    for d in 0..rank {
        cx.same_size(&mut gate, d, &mut x, d, "sizes of the gate and of the value")?;
    }
    let gate = cx.swish(gate, alpha)?;
    Ok(vec![cx.two(&arith::MUL, gate, x)?])
}

fn softsign(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    let a = cx.one(&arith::ABS, &[x], attrs! {})?;
    let d = cx.with(&arith::ADD, a, 1.0)?;
    Ok(vec![cx.two(&arith::DIV, x, d)?])
}

fn thresholded_relu(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let alpha = cx.float_or(n, "alpha", 1.0)?;
    let x = cx.input(n, 0)?;
    let elem = cx.elem(x)?;
    let above = cx.with(&arith::GT, x, alpha)?;
    let zero = cx.number(elem, 0.0)?;
    Ok(vec![cx.elementwise(&arith::SELECT, &[above, x, zero], attrs! {})?])
}

fn shrink(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let bias = cx.float_or(n, "bias", 0.0)?;
    let lambd = cx.float_or(n, "lambd", 0.5)?;
    let x = cx.input(n, 0)?;
    let elem = cx.elem(x)?;
    // An integer is compared with and moved by a fraction: in f32, as ONNX computes it.
    let wide = if elem.is_float() { x } else { cx.cast(x, Elem::F32)? };
    let low = cx.with(&arith::LT, wide, -lambd)?;
    let high = cx.with(&arith::GT, wide, lambd)?;
    let up = cx.with(&arith::ADD, wide, bias)?;
    let down = cx.with(&arith::SUB, wide, bias)?;
    let we = cx.elem(wide)?;
    let zero = cx.number(we, 0.0)?;
    let y = cx.elementwise(&arith::SELECT, &[high, down, zero], attrs! {})?;
    let y = cx.elementwise(&arith::SELECT, &[low, up, y], attrs! {})?;
    Ok(vec![cx.cast(y, elem)?])
}
