//! How each `arith` op becomes instructions: one table of [`ScalarLowering`]s.
//!
//! Float operands are f32 or f64 here (narrow floats are widened, elementary functions on f32 are
//! expanded before); integers are canonical registers of [`super::emit`].

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value, types};
use silure_ir::{Class, Elem, Num, Result};

use super::cast;
use super::emit::{Current, Emit, Features, has_wide, internal, register};

/// How one elementwise op is emitted. An outside crate registers its own with
/// [`super::Codegen::register`]:
///
/// ```
/// use cranelift_codegen::ir::InstBuilder;
/// use silure_cpu::codegen::ScalarLowering;
/// static SQUARE: ScalarLowering =
///     ScalarLowering::new("mine.square", |e, x| Ok(e.b.ins().fmul(x[0], x[0])));
/// ```
#[derive(Clone, Copy)]
pub struct ScalarLowering {
    /// The op's name.
    pub op: &'static str,
    /// Whether `emit` may be given four lanes; if not it is called once per lane. Never asked for
    /// 64-bit types, which have no vector form.
    pub(super) wide: fn(&Current, Features) -> bool,
    /// Emits the op on one register per operand.
    pub emit: fn(&mut Emit, &[Value]) -> Result<Value>,
}

impl ScalarLowering {
    /// A lowering that works on scalars.
    pub const fn new(
        op: &'static str,
        emit: fn(&mut Emit, &[Value]) -> Result<Value>,
    ) -> ScalarLowering {
        ScalarLowering { op, wide: |_, _| false, emit }
    }

    /// A lowering that works on scalars and on four lanes alike.
    pub const fn lanes(
        op: &'static str,
        emit: fn(&mut Emit, &[Value]) -> Result<Value>,
    ) -> ScalarLowering {
        ScalarLowering { op, wide: |_, _| true, emit }
    }
}

macro_rules! helpers {
    ($($op:literal $name:literal)*) => {
        [$(ScalarLowering::new($op, |e, x| named(e, $name, x))),*]
    };
}

/// Functions that are calls: of a helper whose name ends in the type.
static CALLS: [ScalarLowering; 18] = helpers! {
    "arith.exp" "exp" "arith.log" "log" "arith.log1p" "log1p" "arith.expm1" "expm1"
    "arith.sin" "sin" "arith.cos" "cos" "arith.tan" "tan" "arith.asin" "asin" "arith.acos" "acos"
    "arith.atan" "atan" "arith.sinh" "sinh" "arith.cosh" "cosh" "arith.tanh" "tanh"
    "arith.asinh" "asinh" "arith.acosh" "acosh" "arith.atanh" "atanh" "arith.erf" "erf"
    "arith.sigmoid" "sigmoid"
};

fn named(e: &mut Emit, name: &str, x: &[Value]) -> Result<Value> {
    let ty = e.elem(0);
    match ty {
        Elem::F32 | Elem::F64 => e.helper(&format!("{name}_{ty}"), x),
        _ => Err(internal(format!("{name} of {ty}"))),
    }
}

/// The lowerings of the `arith` dialect.
pub(super) fn builtin() -> impl Iterator<Item = &'static ScalarLowering> {
    CALLS.iter().chain(TABLE)
}

const fn float_only(
    op: &'static str,
    f: fn(&mut Emit, &[Value]) -> Result<Value>,
) -> ScalarLowering {
    ScalarLowering { op, wide: |c, _| c.elems[0].is_float(), emit: f }
}

const fn rounding(op: &'static str, f: fn(&mut Emit, &[Value]) -> Result<Value>) -> ScalarLowering {
    ScalarLowering { op, wide: |_, f| f.round, emit: f }
}

static TABLE: &[ScalarLowering] = &[
    ScalarLowering::lanes("arith.add", |e, x| {
        arithmetic(e, x, |e, a, b| e.b.ins().fadd(a, b), |e, a, b| e.b.ins().iadd(a, b))
    }),
    ScalarLowering::lanes("arith.sub", |e, x| {
        arithmetic(e, x, |e, a, b| e.b.ins().fsub(a, b), |e, a, b| e.b.ins().isub(a, b))
    }),
    ScalarLowering::lanes("arith.mul", |e, x| {
        arithmetic(e, x, |e, a, b| e.b.ins().fmul(a, b), |e, a, b| e.b.ins().imul(a, b))
    }),
    float_only("arith.div", |e, x| match e.elem(0).is_float() {
        true => Ok(e.b.ins().fdiv(x[0], x[1])),
        false => int_division(e, x, Division::Quotient, false),
    }),
    rounding_or_int("arith.floordiv", |e, x| match e.elem(0).is_float() {
        true => {
            let q = e.b.ins().fdiv(x[0], x[1]);
            round(e, Rounding::Floor, q)
        }
        false => int_division(e, x, Division::Quotient, true),
    }),
    ScalarLowering::new("arith.rem", |e, x| match e.elem(0).is_float() {
        true => named(e, "fmod", x),
        false => int_division(e, x, Division::Remainder, false),
    }),
    ScalarLowering::new("arith.mod", |e, x| {
        if !e.elem(0).is_float() {
            return int_division(e, x, Division::Remainder, true);
        }
        let r = named(e, "fmod", x)?;
        let zero = e.float(0.0);
        let some = e.fcmp(FloatCC::OrderedNotEqual, r, zero);
        let a = e.fcmp(FloatCC::LessThan, r, zero);
        let b = e.fcmp(FloatCC::LessThan, x[1], zero);
        let differ = e.b.ins().bxor(a, b);
        let fix = e.b.ins().band(some, differ);
        let sum = e.b.ins().fadd(r, x[1]);
        Ok(e.select(fix, sum, r))
    }),
    ScalarLowering::new("arith.pow", |e, x| match e.elem(0).is_float() {
        true => named(e, "pow", x),
        false => int_power(e, x),
    }),
    ScalarLowering::lanes("arith.min", |e, x| extremum(e, x[0], x[1], true)),
    ScalarLowering::lanes("arith.max", |e, x| extremum(e, x[0], x[1], false)),
    ScalarLowering::lanes("arith.and", |e, x| Ok(e.b.ins().band(x[0], x[1]))),
    ScalarLowering::lanes("arith.or", |e, x| Ok(e.b.ins().bor(x[0], x[1]))),
    ScalarLowering::lanes("arith.xor", |e, x| Ok(e.b.ins().bxor(x[0], x[1]))),
    ScalarLowering::lanes("arith.not", |e, x| {
        Ok(if e.is_wide() { e.b.ins().bnot(x[0]) } else { e.b.ins().bxor_imm_s(x[0], 1) })
    }),
    ScalarLowering::lanes("arith.bitand", |e, x| Ok(e.b.ins().band(x[0], x[1]))),
    ScalarLowering::lanes("arith.bitor", |e, x| Ok(e.b.ins().bor(x[0], x[1]))),
    ScalarLowering::lanes("arith.bitxor", |e, x| Ok(e.b.ins().bxor(x[0], x[1]))),
    ScalarLowering::lanes("arith.bitnot", |e, x| {
        let v = e.b.ins().bnot(x[0]);
        Ok(e.canonical(e.out(), v))
    }),
    ScalarLowering { op: "arith.shl", wide: constant_count, emit: |e, x| shift(e, x, true) },
    ScalarLowering { op: "arith.shr", wide: constant_count, emit: |e, x| shift(e, x, false) },
    ScalarLowering::lanes("arith.neg", |e, x| {
        let v = if e.elem(0).is_float() { e.b.ins().fneg(x[0]) } else { e.b.ins().ineg(x[0]) };
        Ok(e.canonical(e.out(), v))
    }),
    ScalarLowering::lanes("arith.abs", |e, x| {
        let v = match e.elem(0).class() {
            Class::Float => e.b.ins().fabs(x[0]),
            Class::Signed => e.b.ins().iabs(x[0]),
            _ => return Ok(x[0]),
        };
        Ok(e.canonical(e.out(), v))
    }),
    ScalarLowering::lanes("arith.sign", |e, x| {
        let ty = e.elem(0);
        let consts = [0, 1, -1].map(|v| e.constant(ty, number(ty, v), e.wide));
        let [zero, one, minus] = consts;
        if ty.is_float() {
            let (n, p) =
                (e.fcmp(FloatCC::LessThan, x[0], zero), e.fcmp(FloatCC::LessThan, zero, x[0]));
            let v = e.select(n, minus, x[0]);
            return Ok(e.select(p, one, v));
        }
        let signed = ty.class() == Class::Signed;
        let above =
            e.icmp(if signed { IntCC::SignedGreaterThan } else { IntCC::NotEqual }, x[0], zero);
        let v = e.select(above, one, zero);
        if !signed {
            return Ok(v);
        }
        let below = e.icmp(IntCC::SignedLessThan, x[0], zero);
        Ok(e.select(below, minus, v))
    }),
    ScalarLowering::lanes("arith.relu", |e, x| match e.elem(0).class() {
        Class::Float => {
            let zero = e.float(0.0);
            Ok(above(e, x[0], zero))
        }
        Class::Signed => {
            let zero = e.int(e.elem(0), 0);
            Ok(e.b.ins().smax(x[0], zero))
        }
        _ => Ok(x[0]),
    }),
    ScalarLowering::lanes("arith.sqrt", |e, x| Ok(e.b.ins().sqrt(x[0]))),
    rounding("arith.floor", |e, x| round(e, Rounding::Floor, x[0])),
    rounding("arith.ceil", |e, x| round(e, Rounding::Ceil, x[0])),
    rounding("arith.round", |e, x| round(e, Rounding::Even, x[0])),
    rounding("arith.trunc", |e, x| round(e, Rounding::Trunc, x[0])),
    ScalarLowering { op: "arith.fma", wide: |_, f| f.fma, emit: fma },
    ScalarLowering::lanes("arith.eq", |e, x| compare(e, x, FloatCC::Equal, IntCC::Equal)),
    ScalarLowering::lanes("arith.ne", |e, x| compare(e, x, FloatCC::NotEqual, IntCC::NotEqual)),
    ScalarLowering::lanes("arith.lt", |e, x| {
        compare(e, x, FloatCC::LessThan, IntCC::SignedLessThan)
    }),
    ScalarLowering::lanes("arith.le", |e, x| {
        compare(e, x, FloatCC::LessThanOrEqual, IntCC::SignedLessThanOrEqual)
    }),
    ScalarLowering::lanes("arith.gt", |e, x| {
        compare(e, x, FloatCC::GreaterThan, IntCC::SignedGreaterThan)
    }),
    ScalarLowering::lanes("arith.ge", |e, x| {
        compare(e, x, FloatCC::GreaterThanOrEqual, IntCC::SignedGreaterThanOrEqual)
    }),
    ScalarLowering::lanes("arith.is_nan", |e, x| Ok(e.fcmp(FloatCC::NotEqual, x[0], x[0]))),
    ScalarLowering::lanes("arith.is_inf", |e, x| {
        let wanted = |e: &mut Emit, on: bool, v: f64| {
            let c = e.float(if on { v } else { f64::NAN });
            e.fcmp(FloatCC::Equal, x[0], c)
        };
        let (p, n) = (e.attrs().bool("positive"), e.attrs().bool("negative"));
        let (p, n) = (wanted(e, p, f64::INFINITY), wanted(e, n, f64::NEG_INFINITY));
        Ok(e.b.ins().bor(p, n))
    }),
    ScalarLowering::lanes("arith.select", |e, x| {
        if e.wide && e.out() == Elem::Bool {
            return Ok(e.b.ins().bitselect(x[0], x[1], x[2]));
        }
        Ok(e.select(x[0], x[1], x[2]))
    }),
    ScalarLowering {
        op: "arith.cast",
        wide: |c, _| cast::has_wide(c.elems[0], c.out),
        emit: |e, x| cast::cast(e, e.elem(0), e.out(), x[0]),
    },
    ScalarLowering::lanes("arith.bitcast", |e, x| {
        let (from, to) = (e.elem(0), e.out());
        if from == Elem::Bool || to == Elem::Bool {
            return cast::cast(e, if from == Elem::Bool { from } else { Elem::I32 }, to, x[0]);
        }
        let v = e.cast_bits(x[0], register(to, e.wide));
        Ok(if to.is_float() { unsigned(e, to, v) } else { e.canonical(to, v) })
    }),
    ScalarLowering::lanes("arith.clip", clip),
];

const fn rounding_or_int(
    op: &'static str,
    emit: fn(&mut Emit, &[Value]) -> Result<Value>,
) -> ScalarLowering {
    ScalarLowering { op, wide: |c, f| c.elems[0].is_float() && f.round, emit }
}

fn constant_count(c: &Current, _: Features) -> bool {
    matches!(c.known.get(1), Some(Some(_)))
}

fn number(e: Elem, v: i64) -> Num {
    if e.is_float() { Num::F(v as f64) } else { Num::I(v as i128) }
}

/// The bits of a narrow float: zero-extended.
fn unsigned(e: &mut Emit, to: Elem, v: Value) -> Value {
    if to.bits() >= 32 {
        return v;
    }
    let mask = e.int(Elem::I32, to.mask() as i64);
    e.b.ins().band(v, mask)
}

fn arithmetic(
    e: &mut Emit,
    x: &[Value],
    float: fn(&mut Emit, Value, Value) -> Value,
    int: fn(&mut Emit, Value, Value) -> Value,
) -> Result<Value> {
    if e.elem(0).is_float() {
        return Ok(float(e, x[0], x[1]));
    }
    let v = int(e, x[0], x[1]);
    Ok(e.canonical(e.out(), v))
}

fn compare(e: &mut Emit, x: &[Value], float: FloatCC, int: IntCC) -> Result<Value> {
    Ok(match e.elem(0).class() {
        Class::Float => e.fcmp(float, x[0], x[1]),
        Class::Signed => e.icmp(int, x[0], x[1]),
        // A wide bool is 0 or −1: as a signed number its order is reversed.
        Class::Bool if e.wide => e.icmp(int, x[1], x[0]),
        _ => e.icmp(int.unsigned(), x[0], x[1]),
    })
}

/// max(x, bound) for a bound that is not NaN; NaN for NaN. One instruction.
fn above(e: &mut Emit, x: Value, bound: Value) -> Value {
    let c = e.fcmp(FloatCC::LessThan, x, bound);
    e.select(c, bound, x)
}

/// min(x, bound), likewise.
fn below(e: &mut Emit, x: Value, bound: Value) -> Value {
    let c = e.fcmp(FloatCC::LessThan, bound, x);
    e.select(c, bound, x)
}

fn extremum(e: &mut Emit, a: Value, b: Value, least: bool) -> Result<Value> {
    Ok(match (e.elem(0).class(), least) {
        (Class::Float, _) => {
            let pick = if least { below } else { above };
            let is_number = |n: Option<Num>| n.is_some_and(|n| !n.f().is_nan());
            if is_number(e.known(1)) {
                return Ok(pick(e, a, b));
            }
            if is_number(e.known(0)) {
                return Ok(pick(e, b, a));
            }
            // The comparison is false for a NaN on either side and keeps a: b's NaN is put back.
            let v = pick(e, a, b);
            let nan = e.fcmp(FloatCC::NotEqual, b, b);
            e.select(nan, b, v)
        }
        (Class::Signed, true) => e.b.ins().smin(a, b),
        (Class::Signed, false) => e.b.ins().smax(a, b),
        (_, true) => e.b.ins().umin(a, b),
        (_, false) => e.b.ins().umax(a, b),
    })
}

fn clip(e: &mut Emit, x: &[Value]) -> Result<Value> {
    let (lo, hi) = (e.attrs().float("lo"), e.attrs().float("hi"));
    let ty = e.elem(0);
    if ty.is_float() {
        if lo.is_nan() || hi.is_nan() {
            return Ok(e.float(f64::NAN));
        }
        let (l, h) = (e.float(lo), e.float(hi));
        let v = if lo == f64::NEG_INFINITY { x[0] } else { above(e, x[0], l) };
        return Ok(if hi == f64::INFINITY { v } else { below(e, v, h) });
    }
    let (lo, hi) = (lo as i128, hi as i128);
    let least = ty.decode_int(if ty.class() == Class::Signed { 1 << (ty.bits() - 1) } else { 0 });
    let most = ty.decode_int(if ty.class() == Class::Signed { ty.mask() >> 1 } else { ty.mask() });
    if lo > most || hi < least {
        // The bound itself, wrapped, whatever x is.
        let v = if lo > most { lo.min(hi) } else { hi };
        return Ok(e.constant(ty, Num::I(v), e.wide));
    }
    let lo = e.constant(ty, Num::I(lo.max(least)), e.wide);
    let hi = e.constant(ty, Num::I(hi.min(most)), e.wide);
    let v = if ty.class() == Class::Signed {
        e.b.ins().smax(x[0], lo)
    } else {
        e.b.ins().umax(x[0], lo)
    };
    Ok(if ty.class() == Class::Signed { e.b.ins().smin(v, hi) } else { e.b.ins().umin(v, hi) })
}

#[derive(Clone, Copy)]
enum Rounding {
    Floor,
    Ceil,
    Even,
    Trunc,
}

fn round(e: &mut Emit, how: Rounding, x: Value) -> Result<Value> {
    if !e.features.round {
        let name = match how {
            Rounding::Floor => "floor",
            Rounding::Ceil => "ceil",
            Rounding::Even => "round_even",
            Rounding::Trunc => "trunc",
        };
        return named(e, name, &[x]);
    }
    Ok(match how {
        Rounding::Floor => e.b.ins().floor(x),
        Rounding::Ceil => e.b.ins().ceil(x),
        Rounding::Even => e.b.ins().nearest(x),
        Rounding::Trunc => e.b.ins().trunc(x),
    })
}

/// Without the instruction, f32 goes through f64, where the product is exact.
fn fma(e: &mut Emit, x: &[Value]) -> Result<Value> {
    if e.features.fma {
        return Ok(e.b.ins().fma(x[0], x[1], x[2]));
    }
    if e.elem(0) == Elem::F64 {
        return e.helper("fma_f64", x);
    }
    let [a, b, c] = [0, 1, 2].map(|i| e.b.ins().fpromote(types::F64, x[i]));
    let p = e.b.ins().fmul(a, b);
    let s = e.b.ins().fadd(p, c);
    Ok(e.b.ins().fdemote(types::F32, s))
}

#[derive(Clone, Copy, PartialEq)]
enum Division {
    Quotient,
    Remainder,
}

/// Integer division: by zero gives 0, the least integer by −1 wraps.
fn int_division(e: &mut Emit, x: &[Value], part: Division, floor: bool) -> Result<Value> {
    let ty = e.elem(0);
    let (a, b) = (x[0], x[1]);
    let (zero, one) = (e.int(ty, 0), e.int(ty, 1));
    let by_zero = e.icmp(IntCC::Equal, b, zero);
    if ty.class() != Class::Signed {
        let d = e.select(by_zero, one, b);
        let v = match part {
            Division::Quotient => e.b.ins().udiv(a, d),
            Division::Remainder => e.b.ins().urem(a, d),
        };
        return Ok(e.select(by_zero, zero, v));
    }
    let minus = e.int(ty, -1);
    let by_minus = e.icmp(IntCC::Equal, b, minus);
    let special = e.b.ins().bor(by_zero, by_minus);
    let d = e.select(special, one, b);
    let (q, r) = (e.b.ins().sdiv(a, d), e.b.ins().srem(a, d));
    let (mut q, mut r) = (q, r);
    if floor {
        // Away from truncation where the remainder's sign is not the divisor's.
        let some = e.icmp(IntCC::NotEqual, r, zero);
        let x = e.b.ins().bxor(r, d);
        let differ = e.icmp(IntCC::SignedLessThan, x, zero);
        let fix = e.b.ins().band(some, differ);
        let (less, more) = (e.b.ins().isub(q, one), e.b.ins().iadd(r, d));
        q = e.select(fix, less, q);
        r = e.select(fix, more, r);
    }
    let v = match part {
        Division::Quotient => {
            let n = e.b.ins().ineg(a);
            e.select(by_minus, n, q)
        }
        Division::Remainder => r,
    };
    let v = e.select(by_zero, zero, v);
    Ok(e.canonical(ty, v))
}

fn int_power(e: &mut Emit, x: &[Value]) -> Result<Value> {
    let ty = e.elem(0);
    let (signed, to) = match ty.class() {
        Class::Signed => (true, Elem::I64),
        _ => (false, Elem::U64),
    };
    let (a, mut b) = (cast::cast(e, ty, to, x[0])?, cast::cast(e, ty, to, x[1])?);
    if !signed {
        // Exponents from 2⁶² on: powers of odd numbers repeat with that period, of even ones are 0.
        let big = e.b.ins().iconst(types::I64, 1 << 62);
        let over = e.icmp(IntCC::UnsignedGreaterThanOrEqual, b, big);
        let low = e.b.ins().band_imm_s(b, (1 << 62) - 1);
        let reduced = e.b.ins().bor(low, big);
        b = e.select(over, reduced, b);
    }
    let v = e.helper("pow_i64", &[a, b])?;
    cast::cast(e, to, ty, v)
}

/// Counts outside 0…width − 1 give 0.
fn shift(e: &mut Emit, x: &[Value], left: bool) -> Result<Value> {
    let ty = e.elem(0);
    let bits = ty.bits() as i64;
    let signed = ty.class() == Class::Signed;
    if let Some(n) = e.known(1) {
        let n = n.i();
        if n < 0 || n >= bits as i128 {
            return Ok(e.int(ty, 0));
        }
        let v = match (left, signed) {
            (true, _) => e.b.ins().ishl_imm_s(x[0], n as i64),
            (false, true) => e.b.ins().sshr_imm_s(x[0], n as i64),
            (false, false) => e.b.ins().ushr_imm_s(x[0], n as i64),
        };
        return Ok(e.canonical(ty, v));
    }
    let width = e.int(ty, bits.min(127));
    let fits = e.icmp(IntCC::UnsignedLessThan, x[1], width);
    let zero = e.int(ty, 0);
    let v = match (left, signed) {
        (true, _) => e.b.ins().ishl(x[0], x[1]),
        (false, true) => e.b.ins().sshr(x[0], x[1]),
        (false, false) => e.b.ins().ushr(x[0], x[1]),
    };
    let v = e.select(fits, v, zero);
    Ok(e.canonical(ty, v))
}

/// Whether all types of an op have a vector form.
pub(super) fn all_wide(c: &Current) -> bool {
    has_wide(c.out) && c.elems.iter().all(|e| has_wide(*e))
}
