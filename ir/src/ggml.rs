//! Rows of weights in the block types of GGUF files.
//!
//! A row of k elements is k / 32 or k / 256 blocks of bytes, each with its scale or scales. [`unpack`]
//! gives what they stand for, as the format's own implementation computes it in f32, or their parts: the
//! integers, one scale for each 32 or 16 of them, and what is then taken off, so that code · scale − offset is
//! the element. Scales and offsets are f16, as they are stored; the two levels of scales of the `k` types
//! are multiplied to one, which is exact in f32.

use silure_types::Elem;

use crate::bail;
use crate::diag::Result;
use crate::tensor::Tensor;
use crate::types::TensorType;

/// A block type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// 32 signed bytes and a scale.
    Q8_0,
    /// 32 times 4 bits around 8, and a scale.
    Q4_0,
    /// 32 times 4 bits, a scale and a minimum.
    Q4_1,
    /// 256 times 4 bits, a scale and a minimum for each 32, in two levels.
    Q4K,
    /// 256 times 6 bits around 32, a scale for each 16, in two levels.
    Q6K,
}

/// What of the blocks is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The elements, f32.
    Values,
    /// The integers: i8, i4 or u4.
    Codes,
    /// The scales: f16, or f32 of two levels.
    Scales,
    /// What is taken off the scaled integers, in types that have a minimum; the type of the scales.
    Offsets,
}

impl Form {
    /// All of them.
    pub const ALL: [Form; 5] = [Form::Q8_0, Form::Q4_0, Form::Q4_1, Form::Q4K, Form::Q6K];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Form::Q8_0 => "q8_0",
            Form::Q4_0 => "q4_0",
            Form::Q4_1 => "q4_1",
            Form::Q4K => "q4_k",
            Form::Q6K => "q6_k",
        }
    }

    /// Elements and bytes of a block.
    pub fn block(self) -> (usize, usize) {
        match self {
            Form::Q8_0 => (32, 34),
            Form::Q4_0 => (32, 18),
            Form::Q4_1 => (32, 20),
            Form::Q4K => (256, 144),
            Form::Q6K => (256, 210),
        }
    }

    /// Elements that share a scale.
    pub fn group(self) -> usize {
        if self == Form::Q6K { 16 } else { 32 }
    }

    /// Type of the integers.
    pub fn codes(self) -> Elem {
        match self {
            Form::Q8_0 | Form::Q6K => Elem::I8,
            Form::Q4_0 => Elem::I4,
            Form::Q4_1 | Form::Q4K => Elem::U4,
        }
    }

    /// Type of scales and offsets.
    pub fn scales(self) -> Elem {
        if matches!(self, Form::Q4K | Form::Q6K) { Elem::F32 } else { Elem::F16 }
    }

    /// Whether elements have a minimum.
    pub fn has_offsets(self) -> bool {
        matches!(self, Form::Q4_1 | Form::Q4K)
    }
}

impl Part {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Part::Values => "values",
            Part::Codes => "codes",
            Part::Scales => "scales",
            Part::Offsets => "offsets",
        }
    }

    /// All of them.
    pub const ALL: [Part; 4] = [Part::Values, Part::Codes, Part::Scales, Part::Offsets];
}

/// The type of a part of rows of bytes.
pub fn unpacked(form: Form, part: Part, t: &TensorType) -> Result<TensorType> {
    let (elements, bytes) = form.block();
    let Some(mut shape) = t.shape().filter(|s| !s.is_empty() && t.elem == Elem::U8) else {
        bail!(Invalid, "{t} as {}: rows of u8 are needed", form.name());
    };
    let last = shape.len() - 1;
    let k = (shape[last] / bytes).checked_mul(elements).filter(|_| shape[last] % bytes == 0);
    let Some(k) = k else {
        bail!(Invalid, "{t} as {}: rows of a multiple of {bytes} bytes are needed", form.name());
    };
    if part == Part::Offsets && !form.has_offsets() {
        bail!(Invalid, "{} has no offsets", form.name());
    }
    let (elem, per) = match part {
        Part::Values => (Elem::F32, 1),
        Part::Codes => (form.codes(), 1),
        Part::Scales | Part::Offsets => (form.scales(), form.group()),
    };
    shape[last] = k / per;
    Ok(TensorType::fixed(elem, &shape))
}

/// A block's integers, and for each group its scale and what is added: −0, which changes nothing, where
/// there is no minimum.
struct Block {
    codes: [i8; 256],
    groups: [(f32, f32); 16],
}

/// A part of rows of bytes; every scale must be finite.
pub fn unpack(form: Form, part: Part, t: &Tensor) -> Result<Tensor> {
    let ty = unpacked(form, part, &t.ty())?;
    let (elements, bytes) = form.block();
    let group = form.group();
    let mut out = Vec::new();
    let mut cells = Vec::new();
    let mut b = Block { codes: [0; 256], groups: [(0.0, -0.0); 16] };
    for (i, raw) in t.bytes().chunks_exact(bytes).enumerate() {
        read(form, raw, &mut b);
        let groups = &b.groups[..elements / group];
        if let Some((s, o)) = groups.iter().find(|g| !g.0.is_finite() || !g.1.is_finite()) {
            bail!(Invalid, "block {i} of {}: its scale is {s}, its minimum {o}", form.name());
        }
        let number = |out: &mut Vec<u8>, v: f32| match ty.elem {
            Elem::F16 => out.extend((Elem::F16.encode(v as f64) as u16).to_le_bytes()),
            _ => out.extend(v.to_le_bytes()),
        };
        for ((scale, least), codes) in groups.iter().zip(b.codes.chunks(group)) {
            match part {
                Part::Values => codes
                    .iter()
                    .for_each(|c| out.extend((*scale * *c as f32 + *least).to_le_bytes())),
                Part::Codes => cells.extend(codes.iter().map(|c| *c as u8)),
                Part::Scales => number(&mut out, *scale),
                Part::Offsets => number(&mut out, -*least),
            }
        }
    }
    if part == Part::Codes {
        out = form.codes().from_cells(&cells);
    }
    Tensor::new(ty.elem, &ty.shape().unwrap_or_default(), out)
}

fn half(b: &[u8]) -> f32 {
    Elem::F16.decode(u16::from_le_bytes([b[0], b[1]]) as u64) as f32
}

/// Reads a block of as many bytes as the form has.
fn read(form: Form, raw: &[u8], b: &mut Block) {
    let nibbles = |q: &[u8], codes: &mut [i8], from: i8| {
        let n = q.len();
        for (j, q) in q.iter().enumerate() {
            codes[j] = (q & 15) as i8 - from;
            codes[j + n] = (q >> 4) as i8 - from;
        }
    };
    match form {
        Form::Q8_0 => {
            b.groups[0] = (half(raw), -0.0);
            b.codes.iter_mut().zip(&raw[2..]).for_each(|(c, q)| *c = *q as i8);
        }
        Form::Q4_0 => {
            b.groups[0] = (half(raw), -0.0);
            nibbles(&raw[2..], &mut b.codes, 8);
        }
        Form::Q4_1 => {
            b.groups[0] = (half(raw), half(&raw[2..]));
            nibbles(&raw[4..], &mut b.codes, 0);
        }
        Form::Q4K => {
            let (d, least, s) = (half(raw), half(&raw[2..]), &raw[4..16]);
            for j in 0..8 {
                // Six bits each; the upper two of the last four lie above the first ones.
                let (scale, min) = match j {
                    0..4 => (s[j] & 63, s[j + 4] & 63),
                    _ => {
                        ((s[j + 4] & 15) | (s[j - 4] >> 6) << 4, (s[j + 4] >> 4) | (s[j] >> 6) << 4)
                    }
                };
                b.groups[j] = (d * scale as f32, -(least * min as f32));
            }
            for (j, q) in raw[16..].chunks_exact(32).enumerate() {
                nibbles(q, &mut b.codes[64 * j..], 0);
            }
        }
        Form::Q6K => {
            let (low, high, scales) = (&raw[..128], &raw[128..192], &raw[192..208]);
            let d = half(&raw[208..]);
            for (j, s) in scales.iter().enumerate() {
                b.groups[j] = (d * (*s as i8) as f32, -0.0);
            }
            for n in 0..2 {
                for l in 0..32 {
                    let (a, c, h) = (low[64 * n + l], low[64 * n + 32 + l], high[32 * n + l]);
                    let six = |four: u8, two: u8| (four | (two & 3) << 4) as i8 - 32;
                    let at = 128 * n + l;
                    b.codes[at] = six(a & 15, h);
                    b.codes[at + 32] = six(c & 15, h >> 2);
                    b.codes[at + 64] = six(a >> 4, h >> 4);
                    b.codes[at + 96] = six(c >> 4, h >> 6);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of anything, with finite scales.
    fn rows(form: Form, n: usize, blocks: usize) -> Tensor {
        let (_, bytes) = form.block();
        let mut s = 7u64;
        let mut raw: Vec<u8> = (0..n * blocks * bytes)
            .map(|_| {
                s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (s >> 40) as u8
            })
            .collect();
        for b in raw.chunks_mut(bytes) {
            let halves: &[usize] = match form {
                Form::Q8_0 | Form::Q4_0 => &[0],
                Form::Q4_1 | Form::Q4K => &[0, 2],
                Form::Q6K => &[208],
            };
            halves.iter().for_each(|h| b[h + 1] &= 0xBB);
        }
        Tensor::new(Elem::U8, &[n, blocks * bytes], raw).unwrap()
    }

    #[test]
    fn the_parts_give_the_values() {
        for form in Form::ALL {
            let t = rows(form, 3, 5);
            let get = |p| unpack(form, p, &t).unwrap();
            let (v, c, s) = (get(Part::Values), get(Part::Codes), get(Part::Scales));
            let o = form.has_offsets().then(|| get(Part::Offsets));
            assert_eq!(c.shape(), v.shape());
            for i in 0..v.len() {
                let g = i / form.group();
                let offset = o.as_ref().map_or(0.0, |o| o.get(g).f()) as f32;
                let y = c.get(i).f() as f32 * s.get(g).f() as f32 - offset;
                assert_eq!(v.get(i).f(), y as f64, "{form:?} {i}");
            }
        }
    }

    #[test]
    fn a_block_whose_scale_is_zero_is_its_minimum() {
        let mut raw = vec![0u8; 20];
        raw[2..4].copy_from_slice(&0x3C00u16.to_le_bytes());
        raw[4..].fill(0x5A);
        let t = Tensor::new(Elem::U8, &[1, 20], raw).unwrap();
        let get = |p| unpack(Form::Q4_1, p, &t).unwrap().to_f64s();
        assert_eq!(get(Part::Values), vec![1.0; 32]);
        assert_eq!((get(Part::Scales), get(Part::Offsets)), (vec![0.0], vec![-1.0]));
    }

    #[test]
    fn scales_that_are_no_numbers_and_cut_rows_are_refused() {
        for form in Form::ALL {
            let (_, bytes) = form.block();
            let nan = Tensor::new(Elem::U8, &[1, bytes], vec![0xFF; bytes]).unwrap();
            let e = unpack(form, Part::Values, &nan).unwrap_err().to_string();
            assert!(e.contains("block 0") && e.contains("scale"), "{e}");
            let cut = Tensor::new(Elem::U8, &[1, bytes + 1], vec![0; bytes + 1]).unwrap();
            assert!(unpack(form, Part::Values, &cut).is_err());
            let floats = Tensor::zeros(Elem::F32, &[1, bytes]).unwrap();
            assert!(unpack(form, Part::Codes, &floats).is_err());
        }
        assert!(unpack(Form::Q8_0, Part::Offsets, &rows(Form::Q8_0, 1, 1)).is_err());
    }
}
