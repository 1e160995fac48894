//! Spelling of MLIR: types, constants, attributes.

use silure_ir::{Elem, Num, Type};

/// The MLIR name of an element type in registers; `None` for types that MLIR does not have here.
/// Integers are signless, bools are `i1`.
pub fn elem(e: Elem) -> Option<&'static str> {
    Some(match e {
        Elem::Bool => "i1",
        Elem::I8 | Elem::U8 => "i8",
        Elem::I16 | Elem::U16 => "i16",
        Elem::I32 | Elem::U32 => "i32",
        Elem::I64 | Elem::U64 => "i64",
        Elem::F32 => "f32",
        Elem::F16 => "f16",
        Elem::Bf16 => "bf16",
        Elem::E4m3fn => "f8E4M3FN",
        Elem::E5m2 => "f8E5M2",
        _ => return None,
    })
}

/// The MLIR name of an element type in memory, where a bool is a byte.
pub fn stored(e: Elem) -> Option<&'static str> {
    if e == Elem::Bool { Some("i8") } else { elem(e) }
}

/// `64x64xf16`.
pub fn shaped(shape: &[usize], elem: &str) -> String {
    let mut s = String::new();
    for d in shape {
        s.push_str(&format!("{d}x"));
    }
    s + elem
}

/// The type of a value of a tile program. Types that MLIR lacks give `None`.
pub fn ty(t: &Type) -> Option<String> {
    Some(match t {
        Type::Index => "index".into(),
        Type::Scalar(e) => elem(*e)?.into(),
        Type::Tile(t) => format!("tensor<{}>", shaped(&t.shape, elem(t.elem)?)),
        _ => return None,
    })
}

/// A constant of an element type: decimal where that is exact and short, else bits.
pub fn literal(e: Elem, v: Num) -> String {
    match e {
        Elem::Bool => if v.truth() { "true" } else { "false" }.into(),
        _ if !e.is_float() => {
            // Signless: the bits as a signed number.
            let bits = v.encode(e);
            let unused = 64 - e.bits() as u32;
            (((bits << unused) as i64) >> unused).to_string()
        }
        _ => {
            let bits = v.encode(e);
            let x = e.decode(bits);
            let plain = x == 0.0 || (1e-4..1e7).contains(&x.abs());
            if x.is_finite() && plain && (x as f32) as f64 == x {
                format!("{:?}", x as f32)
            } else {
                format!("0x{bits:0width$X}", width = e.bits() / 4)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_exact() {
        assert_eq!(literal(Elem::F32, Num::F(1.5)), "1.5");
        assert_eq!(literal(Elem::F32, Num::F(f64::NEG_INFINITY)), "0xFF800000");
        assert_eq!(literal(Elem::F16, Num::F(f64::INFINITY)), "0x7C00");
        assert_eq!(literal(Elem::Bf16, Num::F(1e30)), "0x714A");
        assert_eq!(literal(Elem::F32, Num::F(-0.0)), "-0.0");
        assert_eq!(literal(Elem::U8, Num::I(200)), "-56");
        assert_eq!(literal(Elem::I64, Num::I(-3)), "-3");
        assert_eq!(literal(Elem::Bool, Num::I(1)), "true");
    }
}
