//! f16 and bf16 to and from f32 in integer arithmetic, branch-free: exact one way, round to nearest
//! even the other. NaN stays NaN (quiet, payload cut), denormals are kept.

/// f16 bits to f32.
#[inline(always)]
pub fn f16_to_f32(h: u16) -> f32 {
    let sign = (h as u32 & 0x8000) << 16;
    let mag = h as u32 & 0x7FFF;
    // Rebias by a multiplication with 2¹¹², which also normalises denormals.
    let scaled = f32::from_bits(mag << 13) * f32::from_bits(0x7780_0000);
    let special = f32::from_bits((mag << 13) | 0x7F80_0000);
    let v = if mag >= 0x7C00 { special } else { scaled };
    f32::from_bits(v.to_bits() | sign)
}

/// f32 to f16 bits.
#[inline(always)]
pub fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let mag = bits & 0x7FFF_FFFF;
    // Below 2⁻¹⁴: adding 0.5 leaves the denormal's code, rounded to even, in the low mantissa bits.
    let small = (f32::from_bits(mag) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let normal = mag.wrapping_sub(0x3800_0000).wrapping_add(0xFFF + ((mag >> 13) & 1)) >> 13;
    let v = if mag < 0x3880_0000 { small } else { normal };
    let v = if mag >= 0x477F_F000 { 0x7C00 } else { v };
    let v = if mag > 0x7F80_0000 { 0x7E00 } else { v };
    (v | sign) as u16
}

/// f32 to bf16 bits.
#[inline(always)]
pub fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
    let nan = ((bits >> 16) & 0x8000) | 0x7FC0;
    (if bits & 0x7FFF_FFFF > 0x7F80_0000 { nan } else { rounded }) as u16
}
