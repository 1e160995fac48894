//! Floating-point formats as data: any finite number, exactly given, is rounded once into any of them.

use crate::code::{Round, Ty};

/// Sign, exponent, mantissa, and what the largest exponent means.
#[derive(Clone, Copy)]
pub(crate) struct Format {
    pub exponent: u32,
    pub mantissa: u32,
    /// The largest exponent holds infinity and NaN; otherwise one code is NaN and there is no infinity.
    pub infinite: bool,
    /// What arithmetic gives as NaN.
    pub nan: u64,
}

pub(crate) const F16: Format = Format { exponent: 5, mantissa: 10, infinite: true, nan: 0x7FFF };
pub(crate) const BF16: Format = Format { exponent: 8, mantissa: 7, infinite: true, nan: 0x7FFF };
pub(crate) const F32: Format =
    Format { exponent: 8, mantissa: 23, infinite: true, nan: 0x7FFF_FFFF };
pub(crate) const F64: Format =
    Format { exponent: 11, mantissa: 52, infinite: true, nan: 0x7FF8_0000_0000_0000 };
pub(crate) const TF32: Format = Format { exponent: 8, mantissa: 10, infinite: true, nan: 0x3_FFFF };
pub(crate) const E4M3: Format = Format { exponent: 4, mantissa: 3, infinite: false, nan: 0x7F };
pub(crate) const E5M2: Format = Format { exponent: 5, mantissa: 2, infinite: true, nan: 0x7F };

impl Format {
    pub(crate) fn of(ty: Ty) -> Format {
        match ty {
            Ty::F16 | Ty::F16x2 => F16,
            Ty::Bf16 | Ty::Bf16x2 => BF16,
            Ty::F64 => F64,
            Ty::Tf32 => TF32,
            Ty::E4m3 | Ty::E4m3x2 => E4M3,
            Ty::E5m2 | Ty::E5m2x2 => E5M2,
            _ => F32,
        }
    }

    fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }

    fn sign(self) -> u64 {
        1 << (self.exponent + self.mantissa)
    }

    fn infinity(self) -> u64 {
        ((1 << self.exponent) - 1) << self.mantissa
    }

    /// The largest finite number's bits.
    pub(crate) fn largest(self) -> u64 {
        if self.infinite { self.infinity() - 1 } else { self.nan - 1 }
    }

    /// The number that bits mean, exactly.
    pub(crate) fn decode(self, bits: u64) -> f64 {
        if self.mantissa == 52 {
            return f64::from_bits(bits);
        }
        if self.mantissa == 23 {
            return f32::from_bits(bits as u32) as f64;
        }
        let m = bits & ((1 << self.mantissa) - 1);
        let e = (bits >> self.mantissa & ((1 << self.exponent) - 1)) as i32;
        let top = (1 << self.exponent) - 1;
        let magnitude = if self.infinite && e == top {
            if m == 0 { f64::INFINITY } else { f64::NAN }
        } else if !self.infinite && bits & (self.sign() - 1) == self.nan {
            f64::NAN
        } else if e == 0 {
            m as f64 * power(1 - self.bias() - self.mantissa as i32)
        } else {
            (m | 1 << self.mantissa) as f64 * power(e - self.bias() - self.mantissa as i32)
        };
        if bits & self.sign() != 0 { -magnitude } else { magnitude }
    }

    /// ±mantissa·2^exponent, with `sticky` standing for something more that is less than one unit of it.
    /// `finite`: what is too large becomes the largest finite number.
    pub(crate) fn round(
        self,
        negative: bool,
        m: u64,
        e: i32,
        sticky: bool,
        mode: Round,
        finite: bool,
    ) -> u64 {
        let sign = if negative { self.sign() } else { 0 };
        if m == 0 && !sticky {
            return sign;
        }
        // Two bits below and the sticky bit: 2^(e-3)·m.
        let (mut m, mut e) = ((m as u128) << 3 | sticky as u128, e - 3);
        let width = 128 - m.leading_zeros() as i32;
        let least = 1 - self.bias() - self.mantissa as i32;
        // The exponent of the result's last place.
        let last = (e + width - 1 - self.mantissa as i32).max(least);
        let shift = last - e;
        let (kept, rest, half) = if shift <= 0 {
            (m << (-shift).min(64), 0, 1)
        } else if shift >= 127 {
            (0, 1, 2)
        } else {
            (m >> shift, m & ((1 << shift) - 1), 1u128 << (shift - 1))
        };
        e = last;
        m = kept;
        let up = match mode {
            Round::Nearest => rest > half || rest == half && m & 1 == 1,
            Round::Away => rest >= half && rest != 0,
            Round::Zero => false,
            Round::Down => negative && rest != 0,
            Round::Up => !negative && rest != 0,
        };
        m += up as u128;
        let mut exponent = e;
        if m >> (self.mantissa + 1) != 0 {
            m >>= 1;
            exponent += 1;
        }
        let bits = if m >> self.mantissa == 0 {
            m as u64
        } else {
            let biased = exponent + self.mantissa as i32 + self.bias();
            let top = 1 << self.exponent;
            if biased >= top {
                u64::MAX
            } else {
                (biased as u64) << self.mantissa | m as u64 & ((1 << self.mantissa) - 1)
            }
        };
        if bits <= self.largest() {
            return sign | bits;
        }
        let toward_zero = match mode {
            Round::Zero => true,
            Round::Down => !negative,
            Round::Up => negative,
            _ => false,
        };
        sign | if toward_zero || finite {
            self.largest()
        } else if self.infinite {
            self.infinity()
        } else {
            self.nan
        }
    }

    /// A number, rounded; `sticky` as in [`Format::round`].
    pub(crate) fn encode(self, x: f64, mode: Round, finite: bool) -> u64 {
        if x.is_nan() {
            return self.nan;
        }
        if self.mantissa == 23 && mode == Round::Nearest && !finite {
            return (x as f32).to_bits() as u64;
        }
        self.encode_bits(x, mode, finite)
    }

    /// [`Format::encode`] of a number, bit by bit.
    fn encode_bits(self, x: f64, mode: Round, finite: bool) -> u64 {
        let negative = x.is_sign_negative();
        if x.is_infinite() {
            let sign = if negative { self.sign() } else { 0 };
            return sign
                | if finite {
                    self.largest()
                } else if self.infinite {
                    self.infinity()
                } else {
                    self.nan
                };
        }
        let bits = x.to_bits();
        let (m, e) = ((bits & ((1 << 52) - 1)), (bits >> 52 & 0x7FF) as i32);
        let (m, e) = if e == 0 { (m, -1074) } else { (m | 1 << 52, e - 1075) };
        self.round(negative, m, e, false, mode, finite)
    }
}

/// 2^e, for exponents of `f64`.
fn power(e: i32) -> f64 {
    f64::from_bits(((e + 1023).clamp(1, 2046) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_a_small_format_is_itself() {
        for f in [F16, BF16, E4M3, E5M2] {
            for bits in 0..1u64 << (1 + f.exponent + f.mantissa) {
                let x = f.decode(bits);
                if x.is_nan() {
                    continue;
                }
                for mode in [Round::Nearest, Round::Zero, Round::Up, Round::Down, Round::Away] {
                    assert_eq!(f.encode(x, mode, false), bits, "{x}");
                }
            }
        }
    }

    #[test]
    fn halves_go_to_even_and_directions_are_kept() {
        let f = F16;
        for bits in (0..0x7BFFu64).step_by(7) {
            let (a, b) = (f.decode(bits), f.decode(bits + 1));
            let middle = (a + b) / 2.0;
            assert_eq!(f.encode(middle, Round::Nearest, false), bits + (bits & 1));
            assert_eq!(f.encode(middle, Round::Away, false), bits + 1);
            assert_eq!(f.encode(middle, Round::Zero, false), bits);
            assert_eq!(f.encode(-middle, Round::Down, false), 0x8000 | (bits + 1));
            assert_eq!(f.encode(a + (b - a) * 0.51, Round::Nearest, false), bits + 1);
        }
        assert_eq!(f.encode(65520.0, Round::Nearest, false), 0x7C00);
        assert_eq!(f.encode(65520.0, Round::Nearest, true), 0x7BFF);
        assert_eq!(E4M3.encode(1e9, Round::Nearest, true), 0x7E);
        assert_eq!(E4M3.encode(1e9, Round::Nearest, false), 0x7F);
    }

    #[test]
    fn f32_is_what_the_machine_rounds() {
        let mut x = 1u64;
        for _ in 0..20000 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let e = 0x380 - 160 + (x >> 8) % 500;
            let v = f64::from_bits(x & 0x800F_FFFF_FFFF_FFFF | e << 52);
            let bits = F32.encode_bits(v, Round::Nearest, false);
            assert_eq!(bits, (v as f32).to_bits() as u64, "{v:e}");
        }
    }
}
