//! Integer operations. They wrap; a division by zero gives all ones (PTX leaves it to the machine).

use crate::code::{Alu, Mods, Part, Ty};

/// The low `bits` of a value.
pub(crate) fn mask(x: u64, bits: u32) -> u64 {
    if bits >= 64 { x } else { x & ((1 << bits) - 1) }
}

/// A value of `bits`, with its sign.
pub(crate) fn sign(x: u64, bits: u32) -> i64 {
    let s = 64 - bits.min(64);
    (x << s) as i64 >> s
}

/// The number that bits of a type mean.
pub(crate) fn number(ty: Ty, x: u64) -> i128 {
    if ty.signed() { sign(x, ty.bits()) as i128 } else { mask(x, ty.bits()) as i128 }
}

fn clamp(ty: Ty, x: i128) -> u64 {
    let bits = ty.bits();
    let (lo, hi) = match ty.signed() {
        true => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
        false => (0, (1i128 << bits) - 1),
    };
    x.clamp(lo, hi) as u64
}

fn product(ty: Ty, m: &Mods, a: u64, b: u64) -> i128 {
    let p = number(ty, a).wrapping_mul(number(ty, b));
    match m.part {
        Part::Hi => p >> ty.bits(),
        _ => p,
    }
}

/// An operation on integers or bits; the result is masked by the caller.
pub(crate) fn arith(f: Alu, ty: Ty, m: &Mods, s: [u64; 4]) -> u64 {
    let bits = ty.bits();
    let [a, b, c, d] = s;
    let (x, y) = (number(ty, a), number(ty, b));
    match f {
        Alu::Add | Alu::Sub if m.sat => clamp(ty, if f == Alu::Add { x + y } else { x - y }),
        Alu::Add => a.wrapping_add(b),
        Alu::Sub => a.wrapping_sub(b),
        Alu::Mul if m.part == Part::Lo => a.wrapping_mul(b),
        Alu::Mul => product(ty, m, a, b) as u64,
        Alu::Mad if m.part == Part::Lo => a.wrapping_mul(b).wrapping_add(c),
        Alu::Mad if m.sat => clamp(ty, product(ty, m, a, b) + number(ty, c)),
        Alu::Mad => (product(ty, m, a, b) as u64).wrapping_add(c),
        Alu::Div if y == 0 => u64::MAX,
        Alu::Div => (x / y) as u64,
        Alu::Rem if y == 0 => a,
        Alu::Rem => (x % y) as u64,
        Alu::Min => x.min(y) as u64,
        Alu::Max => {
            let r = x.max(y);
            if m.relu { r.max(0) as u64 } else { r as u64 }
        }
        Alu::Neg => a.wrapping_neg(),
        Alu::Abs => x.unsigned_abs() as u64,
        Alu::Sad => ((x - y).unsigned_abs() as u64).wrapping_add(c),
        Alu::And => a & b,
        Alu::Or => a | b,
        Alu::Xor => a ^ b,
        Alu::Not => !a,
        Alu::Cnot => (mask(a, bits) == 0) as u64,
        Alu::Shl => shift(b).filter(|n| *n < bits).map_or(0, |n| a << n),
        Alu::Shr => {
            let n = shift(b).unwrap_or(64);
            match ty.signed() {
                true => (sign(a, bits) >> n.min(63)) as u64,
                false => mask(a, bits).checked_shr(n).unwrap_or(0),
            }
        }
        Alu::Bfe => extract(ty, a, b, c),
        Alu::Bfi => {
            let (at, len) = (c & 0xFF, d & 0xFF);
            if at >= bits as u64 || len == 0 {
                return b;
            }
            let field = mask(u64::MAX, len.min(64) as u32) << at;
            b & !field | a << at & field
        }
        Alu::Brev => a.reverse_bits() >> (64 - bits),
        Alu::Clz => mask(a, bits).leading_zeros().wrapping_sub(64 - bits) as u64,
        Alu::Popc => mask(a, bits).count_ones() as u64,
        Alu::Bfind => {
            let v = if ty.signed() && sign(a, bits) < 0 { mask(!a, bits) } else { mask(a, bits) };
            match v {
                0 => u64::from(u32::MAX),
                v if m.flag => (bits - 1 - (63 - v.leading_zeros())) as u64,
                v => (63 - v.leading_zeros()) as u64,
            }
        }
        Alu::Prmt => permute(a, b, c),
        Alu::Lop3 => (0..8u64).filter(|i| d >> i & 1 == 1).fold(0, |r, i| {
            let pick = |x: u64, bit: u64| if i & bit != 0 { x } else { !x };
            r | pick(a, 4) & pick(b, 2) & pick(c, 1)
        }),
        Alu::Shf => {
            let both = mask(b, 32) << 32 | mask(a, 32);
            let n = if m.wrap { c & 31 } else { mask(c, 32).min(32) };
            if m.flag { ((both as u128) << n >> 32) as u64 } else { both >> n }
        }
        Alu::Dp4a => (0..4).fold(number(Ty::S32, c) as i64 as u64, |r, i| {
            // `wrap` says that a is unsigned, `flag` that b is.
            let byte = |x: u64, unsigned: bool| match unsigned {
                true => (x >> (8 * i) & 0xFF) as i64,
                false => (x >> (8 * i)) as u8 as i8 as i64,
            };
            r.wrapping_add((byte(a, m.wrap) * byte(b, m.flag)) as u64)
        }),
        _ => 0,
    }
}

/// A shift's amount as a number, if it is one that may matter.
fn shift(b: u64) -> Option<u32> {
    u32::try_from(mask(b, 32)).ok().filter(|n| *n < 64)
}

fn extract(ty: Ty, a: u64, b: u64, c: u64) -> u64 {
    let bits = ty.bits();
    let (at, len) = ((b & 0xFF) as u32, (c & 0xFF) as u32);
    let top = bits - 1;
    let a = mask(a, bits);
    let filled = if !ty.signed() || len == 0 { 0 } else { a >> (at + len - 1).min(top) & 1 };
    (0..bits).fold(0, |r, i| {
        let bit = if i < len && at + i <= top { a >> (at + i) & 1 } else { filled };
        r | bit << i
    })
}

fn permute(a: u64, b: u64, c: u64) -> u64 {
    let both = mask(b, 32) << 32 | mask(a, 32);
    (0..4).fold(0, |r, i| {
        let select = c >> (4 * i) & 0xF;
        let byte = both >> (8 * (select & 7)) & 0xFF;
        let byte = if select & 8 == 0 {
            byte
        } else if byte & 0x80 != 0 {
            0xFF
        } else {
            0
        };
        r | byte << (8 * i)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::MODS;

    #[test]
    fn bits() {
        let f = |f: Alu, ty, s: [u64; 4]| mask(arith(f, ty, &MODS, s), ty.bits());
        assert_eq!(f(Alu::Bfe, Ty::U32, [0xABCD_1234, 8, 8, 0]), 0x12);
        assert_eq!(f(Alu::Bfe, Ty::S32, [0x0000_8000, 8, 8, 0]), 0xFFFF_FF80);
        assert_eq!(f(Alu::Bfi, Ty::B32, [0xF, 0, 4, 4]), 0xF0);
        assert_eq!(
            f(Alu::Lop3, Ty::B32, [0xF0F0, 0xCCCC, 0xAAAA, 0x96]),
            (0xF0F0 ^ 0xCCCC ^ 0xAAAA) & 0xFFFF_FFFF
        );
        assert_eq!(f(Alu::Prmt, Ty::B32, [0x4433_2211, 0x8877_6655, 0x7410, 0]), 0x8855_2211);
        assert_eq!(f(Alu::Shl, Ty::B32, [1, 32, 0, 0]), 0);
        assert_eq!(f(Alu::Shr, Ty::S32, [0x8000_0000, 99, 0, 0]), 0xFFFF_FFFF);
        assert_eq!(f(Alu::Shr, Ty::S64, [1 << 63, 63, 0, 0]), u64::MAX);
        let left = Mods { flag: true, ..MODS };
        let shf =
            |m: &Mods, n| mask(arith(Alu::Shf, Ty::B32, m, [0x8000_0001, 0x1234_5678, n, 0]), 32);
        assert_eq!(shf(&left, 4), 0x2345_6788);
        assert_eq!(shf(&left, 32), 0x8000_0001);
        assert_eq!(shf(&MODS, 4), 0x8800_0000);
        assert_eq!(shf(&MODS, 40), 0x1234_5678);
    }
}
