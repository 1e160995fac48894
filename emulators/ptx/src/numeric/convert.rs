//! `cvt`: any number type to any other.

use super::float::{flush, saturate};
use super::format::{E4M3, E5M2, Format};
use super::int;
use crate::code::{Mods, Round, Ty};

/// One element. A float that is no number becomes 0 as an integer, or 2^(n-1) where PTX says so.
pub(crate) fn convert(from: Ty, to: Ty, m: &Mods, x: u64) -> u64 {
    match (from.float(), to.float()) {
        (false, false) => {
            let v = int::number(from, x);
            if m.sat { limit(to, v) } else { int::number(to, v as u64) as u64 }
        }
        (false, true) => {
            let v = int::number(from, x);
            let magnitude = v.unsigned_abs() as u64;
            let y = Format::of(to).round(v < 0, magnitude, 0, false, m.round, m.satfinite);
            if m.sat { saturate(to, y) } else { y }
        }
        (true, false) => to_int(from, to, m, x),
        (true, true) => to_float(from, to, m, x),
    }
}

fn limit(to: Ty, v: i128) -> u64 {
    let bits = to.bits();
    match to.signed() {
        true => v.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1) as u64,
        false => v.clamp(0, (1 << bits) - 1) as u64,
    }
}

fn integral(v: f64, mode: Round) -> f64 {
    match mode {
        Round::Nearest => v.round_ties_even(),
        Round::Zero => v.trunc(),
        Round::Down => v.floor(),
        Round::Up => v.ceil(),
        Round::Away => v.round(),
    }
}

fn to_int(from: Ty, to: Ty, m: &Mods, x: u64) -> u64 {
    let x = if m.ftz && from == Ty::F32 { flush(x) } else { x };
    let v = Format::of(from).decode(x);
    if v.is_nan() {
        let high = from == Ty::F64 || to.bits() == 64;
        return if high { 1 << (to.bits() - 1) } else { 0 };
    }
    limit(to, integral(v, m.round) as i128)
}

fn to_float(from: Ty, to: Ty, m: &Mods, x: u64) -> u64 {
    let x = if m.ftz && from == Ty::F32 { flush(x) } else { x };
    let (a, b) = (Format::of(from), Format::of(to));
    let mut v = a.decode(x);
    if m.integral {
        v = integral(v, m.round);
    }
    // Narrow floats by satfinite: NaN stays NaN, infinity becomes the largest number.
    let mut y = b.encode(v, m.round, m.satfinite);
    if v.is_nan() && from == to && from == Ty::F64 {
        y = x;
    }
    if m.relu && v < 0.0 {
        y = 0;
    }
    if m.ftz && to == Ty::F32 {
        y = flush(y);
    }
    if to == Ty::Tf32 {
        // A register holds it as an f32 whose low bits are zero.
        y <<= 13;
        if v.is_nan() {
            y = 0x7FFF_FFFF;
        }
    }
    if m.sat { saturate(to, y) } else { y }
}

/// A pair: `hi` and `lo` of one element each, packed.
pub(crate) fn pair(from: Ty, to: Ty, m: &Mods, s: [u64; 2]) -> u64 {
    match (from.half(), to.half()) {
        (Some(f), Some(t)) => {
            let (w, n) = (f.bits(), t.bits());
            let each =
                |i: u32| int::mask(convert(f, t, m, int::mask(s[0] >> (i * w), w)), n) << (i * n);
            each(0) | each(1)
        }
        (None, Some(t)) => {
            let n = t.bits();
            int::mask(convert(from, t, m, s[0]), n) << n | int::mask(convert(from, t, m, s[1]), n)
        }
        _ => convert(from, to, m, s[0]),
    }
}

/// The number that a tensor-core operand's bits mean.
pub(crate) fn operand(ty: Ty, bits: u64) -> f64 {
    match ty {
        Ty::E4m3 => E4M3.decode(bits),
        Ty::E5m2 => E5M2.decode(bits),
        // The upper 19 bits of an f32.
        Ty::Tf32 => f32::from_bits(bits as u32 & 0xFFFF_E000) as f64,
        t => Format::of(t).decode(bits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::MODS;

    #[test]
    fn as_the_isa_says() {
        let f = |x: f32| x.to_bits() as u64;
        let z = Mods { round: Round::Zero, ..MODS };
        assert_eq!(convert(Ty::F32, Ty::S32, &z, f(-1.9)) as u32 as i32, -1);
        assert_eq!(convert(Ty::F32, Ty::U8, &z, f(300.0)), 255);
        assert_eq!(convert(Ty::F32, Ty::S32, &z, f(f32::NAN)), 0);
        assert_eq!(convert(Ty::F64, Ty::S32, &z, f64::NAN.to_bits()), 1 << 31);
        assert_eq!(convert(Ty::F32, Ty::S64, &z, f(1e30)), i64::MAX as u64);
        assert_eq!(convert(Ty::S64, Ty::F32, &MODS, i64::MAX as u64), f(9.223372e18));
        assert_eq!(convert(Ty::S8, Ty::S32, &MODS, 0xFF), u64::MAX);
        let s = Mods { sat: true, ..MODS };
        assert_eq!(convert(Ty::F32, Ty::F32, &s, f(7.0)), f(1.0));
        assert_eq!(convert(Ty::F32, Ty::F32, &s, f(f32::NAN)), 0);
        assert_eq!(convert(Ty::S32, Ty::U8, &s, -5i64 as u64), 0);
        assert_eq!(pair(Ty::F32, Ty::F16x2, &MODS, [f(1.0), f(2.0)]), 0x3C00_4000);
        let finite = Mods { satfinite: true, ..MODS };
        assert_eq!(pair(Ty::F32, Ty::E4m3x2, &finite, [f(1e9), f(-1.0)]), 0x7EB8);
        let away = Mods { round: Round::Away, ..MODS };
        assert_eq!(convert(Ty::F32, Ty::Tf32, &away, 0x3F80_1000), 0x3F80_2000);
    }
}
