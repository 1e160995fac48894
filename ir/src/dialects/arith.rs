//! `arith`: elementwise ops. One declaration serves tensors, scalars inside kernel regions, tiles and
//! lanes: the shape is whatever the operands have. Operands of one op have one shape; broadcasting is
//! explicit.

use silure_types::{Class, Elem};

use crate::attr::AttrKind;
use crate::diag::Result;
use crate::dim::Dim;
use crate::infer::{InferCx, elementwise, known_elementwise};
use crate::op::*;
use crate::special;
use crate::tensor::Num;
use crate::types::Type;

const EW: Traits = Traits::ELEMENTWISE;
const COMM: Traits = Traits::ELEMENTWISE.and(Traits::COMMUTATIVE);

/// Declares ops of one or two operands of the same element type, and the table of all.
macro_rules! table {
    ($(
        $id:ident $name:literal ($($operand:literal),*) $of:ident $traits:ident $tol:ident $doc:literal
        = $scalar:expr;
    )* ; also $($more:ident)*) => {
        $(
            #[doc = $doc]
            pub static $id: OpDef = OpDef {
                name: $name,
                doc: $doc,
                operands: &[$(one($operand, Of::$of)),*],
                results: &["y"],
                traits: $traits,
                infer: Some(same_elem),
                values: Some(|cx| known_elementwise(cx, |x| known(cx, x))),
                scalar: Some($scalar),
                tolerance: Tolerance::$tol,
                ..OpDef::NEW
            };
        )*
        /// All ops of the dialect.
        pub static OPS: &[&OpDef] = &[$(&$id,)* $(&$more,)*];
    };
}

/// Applies an integer function or a float function, by the first argument's kind.
fn by(x: &[Num], i: impl Fn(i128, i128) -> i128, f: impl Fn(f64, f64) -> f64) -> Num {
    match (x[0], x[1]) {
        (Num::I(a), Num::I(b)) => Num::I(i(a, b)),
        (a, b) => Num::F(f(a.f(), b.f())),
    }
}

fn f1(x: &[Num], f: impl Fn(f64) -> f64) -> Num {
    Num::F(f(x[0].f()))
}

fn same_elem(cx: &InferCx) -> Result<Vec<Type>> {
    let types = elementwise(cx)?;
    let n = cx.def().operands.len();
    for i in 1..n {
        if cx.ty(i)?.elem() != types[0].elem() {
            return Err(cx.wrong(i, &format!("the elements of {}", types[0]), cx.ty(i)?));
        }
    }
    Ok(types)
}

/// NaN-propagating extrema; of two zeros the order does not matter.
fn extremum(a: f64, b: f64, less: bool) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if (a < b) == less {
        a
    } else {
        b
    }
}

/// Shift counts at or above the width give 0, as in ONNX.
fn shift(cx: &ScalarCx, x: &[Num], left: bool) -> Num {
    let (v, n, bits) = (x[0].i(), x[1].i(), cx.out.bits() as i128);
    if n < 0 || n >= bits {
        return Num::I(0);
    }
    Num::I(if left { v << n } else { v >> n })
}

table! {
    ADD "arith.add" ("a", "b") Num COMM Elementwise "a + b; integers wrap."
        = |_, x| by(x, |a, b| a + b, |a, b| a + b);
    SUB "arith.sub" ("a", "b") Num EW Elementwise "a − b; integers wrap."
        = |_, x| by(x, |a, b| a - b, |a, b| a - b);
    MUL "arith.mul" ("a", "b") Num COMM Elementwise "a · b; integers wrap."
        = |_, x| by(x, |a, b| a.wrapping_mul(b), |a, b| a * b);
    DIV "arith.div" ("a", "b") Num EW Elementwise
        "a / b; integers truncate towards zero, division by zero gives 0."
        = |_, x| by(x, |a, b| if b == 0 { 0 } else { a / b }, |a, b| a / b);
    FLOORDIV "arith.floordiv" ("a", "b") Num EW Elementwise
        "floor(a / b); integer division by zero gives 0."
        = |_, x| by(x, floordiv, |a, b| (a / b).floor());
    REM "arith.rem" ("a", "b") Num EW Elementwise
        "Remainder with the sign of the dividend (C's %, fmod); integer remainder by zero is 0."
        = |_, x| by(x, |a, b| if b == 0 { 0 } else { a % b }, |a, b| a % b);
    MOD "arith.mod" ("a", "b") Num EW Elementwise
        "Remainder with the sign of the divisor (Python's %); integer remainder by zero is 0."
        = |_, x| by(x, |a, b| if b == 0 { 0 } else { a - b * floordiv(a, b) }, modulo);
    POW "arith.pow" ("a", "b") Num EW Elementwise
        "a to the power b; a negative power of an integer truncates towards zero."
        = |_, x| by(x, int_pow, f64::powf);
    MIN "arith.min" ("a", "b") Num COMM Exact "The smaller; NaN if either is NaN."
        = |_, x| by(x, |a, b| a.min(b), |a, b| extremum(a, b, true));
    MAX "arith.max" ("a", "b") Num COMM Exact "The larger; NaN if either is NaN."
        = |_, x| by(x, |a, b| a.max(b), |a, b| extremum(a, b, false));
    AND "arith.and" ("a", "b") Bool COMM Exact "Logical and."
        = |_, x| Num::bool(x[0].truth() && x[1].truth());
    OR "arith.or" ("a", "b") Bool COMM Exact "Logical or."
        = |_, x| Num::bool(x[0].truth() || x[1].truth());
    XOR "arith.xor" ("a", "b") Bool COMM Exact "Logical exclusive or."
        = |_, x| Num::bool(x[0].truth() != x[1].truth());
    NOT "arith.not" ("x") Bool EW Exact "Logical negation." = |_, x| Num::bool(!x[0].truth());
    BITAND "arith.bitand" ("a", "b") Int COMM Exact "Bitwise and." = |_, x| Num::I(x[0].i() & x[1].i());
    BITOR "arith.bitor" ("a", "b") Int COMM Exact "Bitwise or." = |_, x| Num::I(x[0].i() | x[1].i());
    BITXOR "arith.bitxor" ("a", "b") Int COMM Exact "Bitwise exclusive or."
        = |_, x| Num::I(x[0].i() ^ x[1].i());
    BITNOT "arith.bitnot" ("x") Int EW Exact "Bitwise complement." = |_, x| Num::I(!x[0].i());
    SHL "arith.shl" ("a", "b") Int EW Exact "a shifted left by b bits; 0 if b is not below the width."
        = |cx, x| shift(cx, x, true);
    SHR "arith.shr" ("a", "b") Int EW Exact
        "a shifted right by b bits, arithmetic for signed; 0 if b is not below the width."
        = |cx, x| shift(cx, x, false);
    NEG "arith.neg" ("x") Num EW Exact "−x." = |_, x| match x[0] { Num::I(v) => Num::I(-v), Num::F(v) => Num::F(-v) };
    ABS "arith.abs" ("x") Num EW Exact "|x|; the least integer wraps."
        = |_, x| match x[0] { Num::I(v) => Num::I(v.abs()), Num::F(v) => Num::F(v.abs()) };
    SIGN "arith.sign" ("x") Num EW Exact "−1, 0 or 1; NaN for NaN."
        = |_, x| match x[0] {
            Num::I(v) => Num::I(v.signum()),
            Num::F(v) => Num::F(if v == 0.0 || v.is_nan() { v } else { v.signum() }),
        };
    RELU "arith.relu" ("x") Num EW Exact "max(x, 0); NaN for NaN."
        = |_, x| match x[0] {
            Num::I(v) => Num::I(v.max(0)),
            Num::F(v) => Num::F(extremum(v, 0.0, false)),
        };
    EXP "arith.exp" ("x") Float EW Elementwise "e to the power x." = |_, x| f1(x, f64::exp);
    EXP2 "arith.exp2" ("x") Float EW Elementwise
        "2 to the power x, for weights that are added up: a result below 2⁻¹²⁶ may be 0."
        = |_, x| f1(x, f64::exp2);
    LOG "arith.log" ("x") Float EW Elementwise "Natural logarithm." = |_, x| f1(x, f64::ln);
    LOG1P "arith.log1p" ("x") Float EW Elementwise "ln(1 + x)." = |_, x| f1(x, f64::ln_1p);
    EXPM1 "arith.expm1" ("x") Float EW Elementwise "e to the power x, minus 1." = |_, x| f1(x, f64::exp_m1);
    SQRT "arith.sqrt" ("x") Float EW Elementwise "Square root." = |_, x| f1(x, f64::sqrt);
    RSQRT "arith.rsqrt" ("x") Float EW Elementwise "1 / √x." = |_, x| f1(x, |v| 1.0 / v.sqrt());
    RECIP "arith.recip" ("x") Float EW Elementwise "1 / x." = |_, x| f1(x, |v| 1.0 / v);
    SIN "arith.sin" ("x") Float EW Elementwise "Sine, radians." = |_, x| f1(x, f64::sin);
    COS "arith.cos" ("x") Float EW Elementwise "Cosine, radians." = |_, x| f1(x, f64::cos);
    TAN "arith.tan" ("x") Float EW Elementwise "Tangent, radians." = |_, x| f1(x, f64::tan);
    ASIN "arith.asin" ("x") Float EW Elementwise "Arcsine." = |_, x| f1(x, f64::asin);
    ACOS "arith.acos" ("x") Float EW Elementwise "Arccosine." = |_, x| f1(x, f64::acos);
    ATAN "arith.atan" ("x") Float EW Elementwise "Arctangent." = |_, x| f1(x, f64::atan);
    SINH "arith.sinh" ("x") Float EW Elementwise "Hyperbolic sine." = |_, x| f1(x, f64::sinh);
    COSH "arith.cosh" ("x") Float EW Elementwise "Hyperbolic cosine." = |_, x| f1(x, f64::cosh);
    TANH "arith.tanh" ("x") Float EW Elementwise "Hyperbolic tangent." = |_, x| f1(x, f64::tanh);
    ASINH "arith.asinh" ("x") Float EW Elementwise "Inverse hyperbolic sine." = |_, x| f1(x, f64::asinh);
    ACOSH "arith.acosh" ("x") Float EW Elementwise "Inverse hyperbolic cosine." = |_, x| f1(x, f64::acosh);
    ATANH "arith.atanh" ("x") Float EW Elementwise "Inverse hyperbolic tangent." = |_, x| f1(x, f64::atanh);
    ERF "arith.erf" ("x") Float EW Elementwise "Error function." = |_, x| f1(x, special::erf);
    SIGMOID "arith.sigmoid" ("x") Float EW Elementwise "1 / (1 + e⁻ˣ)."
        = |_, x| f1(x, |v| 1.0 / (1.0 + (-v).exp()));
    FLOOR "arith.floor" ("x") Float EW Exact "Greatest integer not above x." = |_, x| f1(x, f64::floor);
    CEIL "arith.ceil" ("x") Float EW Exact "Least integer not below x." = |_, x| f1(x, f64::ceil);
    ROUND "arith.round" ("x") Float EW Exact "Nearest integer, ties to even."
        = |_, x| f1(x, f64::round_ties_even);
    TRUNC "arith.trunc" ("x") Float EW Exact "Integer part." = |_, x| f1(x, f64::trunc);
    SOFTPLUS "arith.softplus" ("x") Float EW Elementwise "ln(1 + eˣ)."
        = |_, x| f1(x, |v| v.max(0.0) + (-v.abs()).exp().ln_1p() + if v.is_nan() { v } else { 0.0 });
    FMA "arith.fma" ("a", "b", "c") Float EW Elementwise "a · b + c with one rounding."
        = |_, x| Num::F(x[0].f().mul_add(x[1].f(), x[2].f()));
    ;
    also EQ NE LT LE GT GE IS_NAN IS_INF SELECT CAST BITCAST CLIP GELU LEAKY_RELU ELU HARD_SIGMOID
}

fn floordiv(a: i128, b: i128) -> i128 {
    if b == 0 { 0 } else { a.div_euclid(b) - (b < 0 && a.rem_euclid(b) != 0) as i128 }
}

fn modulo(a: f64, b: f64) -> f64 {
    let r = a % b;
    if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r }
}

fn int_pow(a: i128, b: i128) -> i128 {
    match (a, b) {
        (_, 0..) => {
            a.checked_pow(b.min(u32::MAX as i128) as u32).unwrap_or_else(|| wrapping_pow(a, b))
        }
        (1, _) => 1,
        (-1, _) => {
            if b % 2 == 0 {
                1
            } else {
                -1
            }
        }
        _ => 0,
    }
}

fn wrapping_pow(mut a: i128, mut b: i128) -> i128 {
    let mut out = 1i128;
    while b > 0 {
        if b & 1 == 1 {
            out = out.wrapping_mul(a);
        }
        a = a.wrapping_mul(a);
        b >>= 1;
    }
    out
}

fn to_bool(cx: &InferCx) -> Result<Vec<Type>> {
    let t = same_elem(cx)?;
    Ok(vec![t[0].with_elem(Elem::Bool).unwrap_or(Type::Scalar(Elem::Bool))])
}

/// Least and greatest sign of a − b.
fn difference(cx: &InferCx, a: &Dim, b: &Dim) -> Option<(i8, i8)> {
    let sign = |o: std::cmp::Ordering| o as i8;
    if let (Some(a), Some(b)) = (a.as_const(), b.as_const()) {
        return Some((sign(a.cmp(&b)), sign(a.cmp(&b))));
    }
    let difference = a.clone() - b.clone();
    if difference.is_invalid() {
        return None;
    }
    let (least, greatest) = difference.bounds(&|s| cx.func.symbol_range(s));
    Some((sign(least.cmp(&0)), sign(greatest.cmp(&0))))
}

macro_rules! compare {
    ($($id:ident $name:literal $doc:literal $cmp:expr;)*) => {$(
        #[doc = $doc]
        pub static $id: OpDef = OpDef {
            name: $name,
            doc: $doc,
            operands: &[one("a", Of::Any), one("b", Of::Any)],
            results: &["y"],
            traits: Traits::ELEMENTWISE,
            infer: Some(|cx| {
                let equality = matches!($name, "arith.eq" | "arith.ne");
                if !equality && cx.ty(0)?.elem().is_some_and(Elem::is_str) {
                    return Err(cx.wrong(0, "numbers: strings have no order", cx.ty(0)?));
                }
                to_bool(cx)
            }),
            values: Some(|cx| known_elementwise(cx, |x| {
                let f: fn(&f64, &f64) -> bool = $cmp;
                let (least, greatest) = difference(cx, &x[0], &x[1])?;
                // Known if all signs that the difference may have agree.
                let mut may = (least..=greatest).map(|sign| f(&f64::from(sign), &0.0));
                let first = may.next()?;
                may.all(|other| other == first).then_some(Dim::Const(first as i64))
            })),
            scalar: Some(|_, x| {
                let f: fn(&f64, &f64) -> bool = $cmp;
                Num::bool(match (x[0], x[1]) {
                    // 64-bit integers are compared exactly: by their difference's sign.
                    (Num::I(a), Num::I(b)) => f(&((a - b) as f64), &0.0),
                    (a, b) => f(&a.f(), &b.f()),
                })
            }),
            ..OpDef::NEW
        };
    )*};
}

compare! {
    EQ "arith.eq" "a = b." |a, b| a == b;
    NE "arith.ne" "a ≠ b." |a, b| a != b;
    LT "arith.lt" "a < b." |a, b| a < b;
    LE "arith.le" "a ≤ b." |a, b| a <= b;
    GT "arith.gt" "a > b." |a, b| a > b;
    GE "arith.ge" "a ≥ b." |a, b| a >= b;
}

/// Whether x is NaN.
pub static IS_NAN: OpDef = OpDef {
    name: "arith.is_nan",
    doc: "Whether x is NaN.",
    operands: &[one("x", Of::Float)],
    results: &["y"],
    traits: Traits::ELEMENTWISE,
    infer: Some(to_bool),
    scalar: Some(|_, x| Num::bool(x[0].f().is_nan())),
    ..OpDef::NEW
};

/// Whether x is infinite.
pub static IS_INF: OpDef = OpDef {
    name: "arith.is_inf",
    doc: "Whether x is infinite, of the signs asked for.",
    operands: &[one("x", Of::Float)],
    results: &["y"],
    attrs: &[flag("positive", true), flag("negative", true)],
    traits: Traits::ELEMENTWISE,
    infer: Some(to_bool),
    scalar: Some(|cx, x| {
        let v = x[0].f();
        let wanted = if v > 0.0 { "positive" } else { "negative" };
        Num::bool(v.is_infinite() && cx.attrs.bool(wanted))
    }),
    ..OpDef::NEW
};

/// One of two values.
pub static SELECT: OpDef = OpDef {
    name: "arith.select",
    doc: "a where the condition holds, b elsewhere.",
    operands: &[one("condition", Of::Bool), one("a", Of::Any), one("b", Of::Any)],
    results: &["y"],
    traits: Traits::ELEMENTWISE,
    infer: Some(|cx| {
        elementwise(cx)?;
        let (a, b) = (cx.ty(1)?, cx.ty(2)?);
        if a == b { Ok(vec![a.clone()]) } else { Err(cx.wrong(2, &a.to_string(), b)) }
    }),
    values: Some(|cx| {
        known_elementwise(cx, |x| {
            Some(if x[0].as_const()? != 0 { x[1].clone() } else { x[2].clone() })
        })
    }),
    scalar: Some(|_, x| if x[0].truth() { x[1] } else { x[2] }),
    ..OpDef::NEW
};

/// Strings are no numbers: `graph.to_string` and `graph.parse_number` convert.
fn no_strings(cx: &InferCx, to: Elem) -> Result<()> {
    if to.is_str() || (cx.ty(0)?.elem().is_some_and(Elem::is_str)) {
        return Err(cx.wrong(0, "numbers", cx.ty(0)?));
    }
    Ok(())
}

/// Another element type, same value.
pub static CAST: OpDef = OpDef {
    name: "arith.cast",
    doc: "x as element type `to`: floats round to nearest even, float to integer truncates and saturates \
          with NaN → 0, integers wrap.",
    operands: &[one("x", Of::Any)],
    results: &["y"],
    attrs: &[required("to", AttrKind::Elem)],
    traits: Traits::ELEMENTWISE,
    infer: Some(|cx| {
        let to = cx.elem("to")?;
        no_strings(cx, to)?;
        match cx.ty(0)? {
            Type::Index => Ok(vec![Type::Scalar(to)]),
            t => t.with_elem(to).map(|t| vec![t]).ok_or_else(|| cx.wrong(0, "elements", t)),
        }
    }),
    values: Some(|cx| {
        let to = cx.elem("to").ok()?;
        let known = cx.known(0)?;
        let fits = |d: &Dim| match (d.as_const(), to.class()) {
            (Some(c), Class::Bool) => Some(Dim::Const((c != 0) as i64)),
            (Some(c), _) => Some(Dim::Const(to.decode_int(to.encode_int(c as i128)) as i64)),
            // A size fits every integer type that shapes are computed in.
            (None, _) => (to.bits() >= 32).then(|| d.clone()),
        };
        known.iter().map(fits).collect()
    }),
    fold: Some(|cx| (cx.ty(0).ok()?.elem() == cx.elem("to").ok()).then_some(0)),
    scalar: Some(|cx, x| match (x[0], cx.out.class()) {
        (Num::F(v), Class::Signed | Class::Unsigned) => Num::F(v.trunc()),
        (v, _) => v,
    }),
    ..OpDef::NEW
};

/// The same bits as another element type of the same width.
pub static BITCAST: OpDef = OpDef {
    name: "arith.bitcast",
    doc: "The bits of x read as element type `to` of the same width.",
    operands: &[one("x", Of::Elem)],
    results: &["y"],
    attrs: &[required("to", AttrKind::Elem)],
    traits: Traits::ELEMENTWISE,
    infer: Some(|cx| {
        let (x, to) = (cx.ty(0)?, cx.elem("to")?);
        no_strings(cx, to)?;
        match x.elem().filter(|e| e.bits() == to.bits()).and_then(|_| x.with_elem(to)) {
            Some(t) => Ok(vec![t]),
            None => Err(cx.wrong(0, &format!("elements of {} bits", to.bits()), x)),
        }
    }),
    scalar: Some(|cx, x| Num::decode(cx.out, x[0].encode(cx.elems[0]))),
    ..OpDef::NEW
};

/// A value kept between two bounds.
pub static CLIP: OpDef = OpDef {
    name: "arith.clip",
    doc: "min(max(x, lo), hi); NaN for NaN; hi wins where the bounds cross.",
    operands: &[one("x", Of::Num)],
    results: &["y"],
    attrs: &[float("lo", f64::NEG_INFINITY), float("hi", f64::INFINITY)],
    traits: Traits::ELEMENTWISE,
    scalar: Some(|cx, x| {
        let (lo, hi) = (cx.attrs.float("lo"), cx.attrs.float("hi"));
        match x[0] {
            Num::F(v) => Num::F(extremum(extremum(v, lo, false), hi, true)),
            Num::I(v) => Num::I(v.max(lo as i128).min(hi as i128)),
        }
    }),
    ..OpDef::NEW
};

/// Gaussian error linear unit.
pub static GELU: OpDef = OpDef {
    name: "arith.gelu",
    doc: "x · Φ(x), or its tanh approximation (Hendrycks and Gimpel 2016).",
    operands: &[one("x", Of::Float)],
    results: &["y"],
    attrs: &[flag("tanh", false)],
    traits: Traits::ELEMENTWISE,
    scalar: Some(|cx, x| {
        let v = x[0].f();
        let y = if cx.attrs.bool("tanh") {
            // v/2·(1 + tanh u) = v/(1 + e^(−2u)), which keeps the lower tail.
            let c = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
            v / (1.0 + (-c * (v + 0.044715 * v * v * v)).exp())
        } else {
            v * 0.5 * special::erfc(-v / std::f64::consts::SQRT_2)
        };
        Num::F(if v == f64::NEG_INFINITY { -0.0 } else { y })
    }),
    tolerance: Tolerance::Elementwise,
    ..OpDef::NEW
};

/// Leaky rectifier.
pub static LEAKY_RELU: OpDef = OpDef {
    name: "arith.leaky_relu",
    doc: "x where x ≥ 0, alpha · x elsewhere.",
    operands: &[one("x", Of::Float)],
    results: &["y"],
    attrs: &[float("alpha", 0.01)],
    traits: Traits::ELEMENTWISE,
    scalar: Some(|cx, x| {
        let v = x[0].f();
        Num::F(if v < 0.0 { cx.attrs.float("alpha") * v } else { v })
    }),
    tolerance: Tolerance::Elementwise,
    ..OpDef::NEW
};

/// Exponential linear unit.
pub static ELU: OpDef = OpDef {
    name: "arith.elu",
    doc: "gamma · x where x > 0, gamma · alpha · (exp(x · beta) − 1) elsewhere: ELU, SELU (gamma) and CELU \
          (beta = 1/alpha).",
    operands: &[one("x", Of::Float)],
    results: &["y"],
    attrs: &[float("alpha", 1.0), float("beta", 1.0), float("gamma", 1.0)],
    traits: Traits::ELEMENTWISE,
    scalar: Some(|cx, x| {
        let (v, a) = (x[0].f(), cx.attrs);
        let neg = || a.float("alpha") * (v * a.float("beta")).exp_m1();
        Num::F(a.float("gamma") * if v > 0.0 { v } else { neg() })
    }),
    tolerance: Tolerance::Elementwise,
    ..OpDef::NEW
};

/// Piecewise linear sigmoid.
pub static HARD_SIGMOID: OpDef = OpDef {
    name: "arith.hard_sigmoid",
    doc: "clip(alpha · x + beta, 0, 1).",
    operands: &[one("x", Of::Float)],
    results: &["y"],
    attrs: &[float("alpha", 0.2), float("beta", 0.5)],
    traits: Traits::ELEMENTWISE,
    scalar: Some(|cx, x| {
        let v = cx.attrs.float("alpha") * x[0].f() + cx.attrs.float("beta");
        Num::F(extremum(extremum(v, 0.0, false), 1.0, true))
    }),
    tolerance: Tolerance::Elementwise,
    ..OpDef::NEW
};

/// Symbolic arithmetic of the integer ops, for the contents of shape tensors.
fn known(cx: &InferCx, x: &[Dim]) -> Option<Dim> {
    let positive = |d: &Dim, least| d.bounds(&|s| cx.func.symbol_range(s)).0 >= least;
    Some(match (cx.def().name, x) {
        ("arith.add", [a, b]) => a.clone() + b.clone(),
        ("arith.sub", [a, b]) => a.clone() - b.clone(),
        ("arith.mul", [a, b]) => a.clone() * b.clone(),
        ("arith.div", [a, b]) => match (a.as_const(), b.as_const()) {
            (Some(_), Some(0)) => Dim::Const(0),
            (Some(a), Some(b)) => Dim::Const(a.checked_div(b)?),
            // Truncating and flooring division agree on sizes.
            _ if positive(a, 0) && positive(b, 1) => a.floordiv(b),
            _ => return None,
        },
        ("arith.floordiv", [a, b]) => a.floordiv(b),
        ("arith.mod", [a, b]) => a.modulo(b),
        ("arith.min", [a, b]) => a.minimum(b),
        ("arith.max", [a, b]) => a.maximum(b),
        ("arith.neg", [a]) => -a.clone(),
        ("arith.relu", [a]) => a.maximum(&Dim::Const(0)),
        _ => return None,
    })
}
