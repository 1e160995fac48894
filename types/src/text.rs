//! Numbers as text and back, and what strings are split into: the meaning of ops on strings.
//!
//! Numbers are printed as NumPy prints array elements: integers in decimal, floats with the fewest
//! digits that read back to the same value, in scientific form below 1e-4 and from 1e16 on (NumPy 2.4
//! begins earlier for f16 and f32), `inf`, `-inf`, `nan`, and `True` or `False`.
//!
//! ```
//! use silure_types::{Elem, text};
//! assert_eq!(text::format(Elem::F32, 0.1f32.to_bits() as u64).as_deref(), Some("0.1"));
//! assert_eq!(text::parse(Elem::F64, " 1e16 "), Some(1e16f64.to_bits()));
//! assert_eq!(text::split("a  b", None, usize::MAX), ["a", "b"]);
//! ```

use crate::{Class, Elem};

/// Whether elements of a type have a text form: integers, bool, f16, f32 and f64.
pub fn has_format(elem: Elem) -> bool {
    match elem.class() {
        Class::Float => matches!(elem, Elem::F16 | Elem::F32 | Elem::F64),
        Class::Bool | Class::Signed | Class::Unsigned => true,
        Class::Str => false,
    }
}

/// Whether text can be read as elements of a type: integers, f16, bf16, f32 and f64.
pub fn has_parse(elem: Elem) -> bool {
    match elem.class() {
        Class::Float => matches!(elem, Elem::F16 | Elem::Bf16 | Elem::F32 | Elem::F64),
        Class::Signed | Class::Unsigned => true,
        Class::Bool | Class::Str => false,
    }
}

/// The text of an element's bits; `None` for types without one.
pub fn format(elem: Elem, bits: u64) -> Option<String> {
    if !has_format(elem) {
        return None;
    }
    Some(match elem.class() {
        Class::Bool => if bits & 0xFF != 0 { "True" } else { "False" }.into(),
        Class::Float => float(elem, bits),
        _ => elem.decode_int(bits).to_string(),
    })
}

fn float(elem: Elem, bits: u64) -> String {
    let v = elem.decode(bits);
    if v.is_nan() {
        return "nan".into();
    }
    if v.is_infinite() {
        return if v > 0.0 { "inf" } else { "-inf" }.into();
    }
    let (digits, exponent) = shortest(elem, v.abs());
    let sign = if v.is_sign_negative() { "-" } else { "" };
    if v != 0.0 && !(1e-4..1e16).contains(&v.abs()) {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        let e = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{dot}{rest}e{e}{:02}", exponent.abs());
    }
    let point = exponent + 1;
    if point <= 0 {
        return format!("{sign}0.{}{digits}", "0".repeat(-point as usize));
    }
    let point = point as usize;
    if point >= digits.len() {
        return format!("{sign}{digits}{}.0", "0".repeat(point - digits.len()));
    }
    format!("{sign}{}.{}", &digits[..point], &digits[point..])
}

/// The fewest digits that read back to `v`, which is not negative, and the exponent of the first. Of
/// two that are equally near, the even one.
fn shortest(elem: Elem, v: f64) -> (String, i32) {
    let parts = |s: &str| {
        let (mantissa, exponent) = s.split_once('e').unwrap_or((s, "0"));
        let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
        (digits, exponent.parse().unwrap_or(0))
    };
    let reads_back = |s: &str| match elem {
        Elem::F32 => s.parse().is_ok_and(|x: f32| x == v as f32),
        _ => s.parse().is_ok_and(|x: f64| elem.encode(x) == elem.encode(v)),
    };
    let first = match elem {
        Elem::F32 => parts(&format!("{:e}", v as f32)).0.len() - 1,
        Elem::F64 => parts(&format!("{v:e}")).0.len() - 1,
        // Few digits identify a narrow float.
        _ => 0,
    };
    for p in first..17 {
        let near = format!("{v:.p$e}");
        if reads_back(&near) {
            return parts(&near);
        }
        // Neighbours below a power of two are nearer, so that the next number may be the one.
        let (digits, exponent) = parts(&near);
        let up = digits.parse::<u64>().unwrap_or(0) + 1;
        if reads_back(&format!("{up}e{}", exponent - p as i32)) {
            let up = up.to_string();
            return (up[..p + 1].into(), exponent + (up.len() - 1 - p) as i32);
        }
    }
    parts(&format!("{v:e}"))
}

/// The bits of the element that text means: white space around it is ignored, floats are plain,
/// scientific, or `inf`, `infinity`, `nan` in any case; integers are decimal. `None` if it is not a
/// number of the type.
pub fn parse(elem: Elem, text: &str) -> Option<u64> {
    let text = text.trim();
    if !has_parse(elem) {
        return None;
    }
    match elem {
        Elem::F32 => text.parse::<f32>().ok().map(|v| v.to_bits() as u64),
        e if e.is_float() => text.parse::<f64>().ok().map(|v| e.encode(v)),
        e => {
            let v: i128 = text.parse().ok()?;
            let bits = e.encode_int(v);
            (e.decode_int(bits) == v).then_some(bits)
        }
    }
}

/// A string in lower or upper case by Unicode's rules, which no locale changes.
pub fn case(s: &str, upper: bool) -> String {
    if upper { s.to_uppercase() } else { s.to_lowercase() }
}

/// What a string splits into: at each `delimiter`, or without one (or with an empty one) at runs of
/// white space, of which those at the ends do not count; at most `most` times, from the left, after
/// which the rest stays whole.
pub fn split<'a>(s: &'a str, delimiter: Option<&str>, most: usize) -> Vec<&'a str> {
    if let Some(d) = delimiter.filter(|d| !d.is_empty()) {
        return s.splitn(most.saturating_add(1), d).collect();
    }
    // The four information separators count as white space in Python, not in Unicode's property.
    let space = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
    let (mut out, mut rest) = (Vec::new(), s.trim_start_matches(space));
    while !rest.is_empty() {
        if out.len() == most {
            out.push(rest);
            break;
        }
        let end = rest.find(space).unwrap_or(rest.len());
        out.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(space);
    }
    out
}
