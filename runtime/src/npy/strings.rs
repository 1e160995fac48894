//! NumPy's `<U…` arrays: strings of one width, four bytes a code point, zeros at the end.

use super::{Array, bad};
use crate::error::Result;
use crate::tensor::Tensor;

/// An array of strings larger than this is not written: one long string widens all.
const MOST: usize = 1 << 32;

/// The strings of a little-endian `U` array whose elements have `width` bytes.
pub(super) fn read(a: &Array, width: usize) -> Result<Tensor> {
    let count: usize = a.shape.iter().product();
    let mut strings = Vec::new();
    for i in 0..count {
        let element = &a.bytes[i * width..(i + 1) * width];
        let codes = element.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let codes: Vec<u32> = codes.collect();
        let len = codes.iter().rposition(|c| *c != 0).map_or(0, |last| last + 1);
        let text: Option<String> = codes[..len].iter().map(|c| char::from_u32(*c)).collect();
        strings.push(text.ok_or_else(|| {
            bad(&a.path, "data", "Unicode code points", format!("others in element {i}"))
        })?);
    }
    Tensor::strings(&a.shape, &strings)
}

/// The element width in code points and the bytes of a tensor of strings.
pub(super) fn bytes(t: &Tensor) -> Result<(usize, Vec<u8>)> {
    let refuse =
        |needed: String, present: String| Err(bad("a .npy of strings", "data", needed, present));
    let texts = t.texts();
    let width = texts.iter().map(|s| s.chars().count()).max().unwrap_or(0).max(1);
    let total = texts.len().checked_mul(width).and_then(|n| n.checked_mul(4));
    let Some(total) = total.filter(|n| *n <= MOST) else {
        return refuse(
            format!("at most {MOST} bytes"),
            format!("{} strings of {width} characters", texts.len()),
        );
    };
    let mut out = vec![0; total];
    for (text, element) in texts.iter().zip(out.chunks_exact_mut(width * 4)) {
        if text.ends_with('\0') {
            return refuse("strings that NumPy can hold".into(), "one that ends with NUL".into());
        }
        for (c, to) in text.chars().zip(element.chunks_exact_mut(4)) {
            to.copy_from_slice(&(c as u32).to_le_bytes());
        }
    }
    Ok((width, out))
}
