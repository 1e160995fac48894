//! Physical layouts of weights: their sizes, and packing while an engine is written.

use silure_ir::{Elem, Result, Tensor, Weight, WeightExpr, WeightSource, bail};
use silure_kernels_cpu::gemm::NR;
use silure_kernels_cpu::gemm::pack::{
    pack_b_bytes, pack_b_halves, pack_b_i8, pack_b_u4, pack_b_words, packed_b_f32_len,
    packed_b_i8_len, packed_b_u4_len,
};

use crate::lower::{
    BF16_PACKED, BYTES_PACKED, E4M3_PACKED, F32_PACKED, HALF_PACKED, I8_PACKED, U4_PACKED,
    packed_bytes,
};

/// Bytes that a weight takes in an engine.
pub fn weight_bytes(w: &Weight) -> Result<u64> {
    let Some(shape) = w.ty.shape() else {
        bail!(Invalid, "weight @{} has the symbolic type {}", w.name, w.ty)
    };
    match w.ty.encoding() {
        Some(layout) => match packed_bytes(layout, &shape) {
            Some(n) => Ok(n),
            None => bail!(Unsupported, "weight @{}: layout `{layout}` is not known", w.name),
        },
        None => {
            silure_ir::tensor::byte_len(w.ty.elem, &shape)?;
            Ok((shape.iter().product::<usize>() * w.ty.elem.cell_bytes()) as u64)
        }
    }
}

/// Elements of a weight that are made at once, where it can be cut: in f32 32 MiB, and about four times that
/// while they are computed.
const PART: usize = 8 << 20;

/// A weight as parts, whose [contents](part_contents) one after the other are the weight's.
pub fn weight_parts(w: &Weight) -> Result<Vec<WeightExpr>> {
    w.expr.parts(PART, NR)
}

/// The bytes of a part as the engine holds them: elements smaller than a byte take a byte each.
pub fn part_contents(part: &WeightExpr, source: &dyn WeightSource) -> Result<Vec<u8>> {
    let (ty, bytes) = (part.ty()?, part.bytes(&Packed(source))?);
    match (ty.encoding(), ty.count().as_size()) {
        (None, Some(n)) if ty.elem.bits() < 8 => Ok(ty.elem.to_cells(&bytes, n)),
        _ => Ok(bytes),
    }
}

/// A source of weights that can also pack them into this backend's layouts.
pub struct Packed<'a>(pub &'a dyn WeightSource);

impl WeightSource for Packed<'_> {
    fn read(&self, source: &str, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        self.0.read(source, offset, bytes)
    }

    fn pack(&self, layout: &str, dense: &Tensor) -> Result<Vec<u8>> {
        let [batch @ .., k, n] = dense.shape() else {
            bail!(Internal, "a packed weight has at least two axes")
        };
        let (batch, k, n): (usize, usize, usize) = (batch.iter().product(), *k, *n);
        match layout {
            F32_PACKED if dense.elem() == Elem::F32 => {
                let (size, len) = (k * n, packed_b_f32_len(k, n));
                let mut out = vec![0u8; batch * len * 4];
                for b in 0..batch {
                    let from = &dense.bytes()[b * size * 4..][..size * 4];
                    let to = &mut out[b * len * 4..][..len * 4];
                    pack_b_words(from.as_chunks().0, k, n, to.as_chunks_mut().0);
                }
                Ok(out)
            }
            I8_PACKED if dense.elem().bits() == 8 => {
                let (len, signed) = (packed_b_i8_len(k, n), dense.elem() == Elem::I8);
                let mut out = vec![0u8; batch * len];
                for b in 0..batch {
                    let from = &dense.bytes()[b * k * n..(b + 1) * k * n];
                    pack_b_i8(from, signed, (k, n), (n, 1), &mut out[b * len..(b + 1) * len]);
                }
                Ok(out)
            }
            BF16_PACKED | HALF_PACKED
                if dense.elem() == if layout == BF16_PACKED { Elem::Bf16 } else { Elem::F16 } =>
            {
                let (size, len) = (k * n, packed_b_f32_len(k, n));
                let mut out = vec![0u8; batch * len * 2];
                for b in 0..batch {
                    let from = &dense.bytes()[b * size * 2..][..size * 2];
                    let to = &mut out[b * len * 2..][..len * 2];
                    pack_b_halves(from.as_chunks().0, k, n, to.as_chunks_mut().0);
                }
                Ok(out)
            }
            E4M3_PACKED | BYTES_PACKED
                if dense.elem().bits() == 8
                    && (layout == E4M3_PACKED) == (dense.elem() == Elem::E4m3fn) =>
            {
                let (size, len) = (k * n, packed_b_f32_len(k, n));
                let mut out = vec![0u8; batch * len];
                let moved: Vec<u8>;
                let bytes = match dense.elem() {
                    Elem::U8 => {
                        moved = dense.bytes().iter().map(|b| b ^ 0x80).collect();
                        &moved
                    }
                    _ => dense.bytes(),
                };
                for b in 0..batch {
                    pack_b_bytes(&bytes[b * size..][..size], k, n, &mut out[b * len..][..len]);
                }
                Ok(out)
            }
            U4_PACKED if dense.elem().bits() == 4 => {
                let (size, len) = (k * n, packed_b_u4_len(k, n));
                let mut cells = dense.elem().to_cells(dense.bytes(), batch * size);
                if dense.elem() == Elem::I4 {
                    cells.iter_mut().for_each(|v| *v = (*v & 15) ^ 8);
                }
                let mut out = vec![0u8; batch * len];
                for b in 0..batch {
                    pack_b_u4(&cells[b * size..][..size], k, n, &mut out[b * len..][..len]);
                }
                Ok(out)
            }
            _ => bail!(Unsupported, "layout `{layout}` of {}", silure_ir::Type::Tensor(dense.ty())),
        }
    }
}

#[cfg(test)]
mod tests {
    use silure_ir::weight::NoFiles;

    use super::*;

    /// Parts of a packed weight, one after the other, are the packed weight, in every layout.
    #[test]
    fn parts_of_packed_weights_join() {
        let layouts = [
            (F32_PACKED, Elem::F32),
            (BF16_PACKED, Elem::Bf16),
            (E4M3_PACKED, Elem::E4m3fn),
            (BYTES_PACKED, Elem::I8),
            (BYTES_PACKED, Elem::U8),
            (I8_PACKED, Elem::I8),
            (I8_PACKED, Elem::U8),
            (U4_PACKED, Elem::U4),
            (U4_PACKED, Elem::I4),
        ];
        for (layout, elem) in layouts {
            for shape in [vec![13, 70], vec![3, 9, 33], vec![2, 5, 16]] {
                let n = shape.iter().product::<usize>();
                let values: Vec<f64> = (0..n).map(|i| (i * 37 % 15) as f64 - 7.0).collect();
                let t = Tensor::from_f64s(Elem::F32, &shape, &values).unwrap();
                let t = t.map(elem, |v| v).unwrap();
                let e = WeightExpr::Pack(Box::new(WeightExpr::Data(t.into())), layout.into());
                let whole = part_contents(&e, &NoFiles).unwrap();
                assert_eq!(Some(whole.len() as u64), packed_bytes(layout, &shape));
                for most in [1, 100, 300] {
                    let parts = e.parts(most, NR).unwrap();
                    let joined: Vec<u8> =
                        parts.iter().flat_map(|p| part_contents(p, &NoFiles).unwrap()).collect();
                    assert!(
                        parts.len() > 1 || n <= most,
                        "{layout} of {elem} {shape:?} is one part"
                    );
                    assert_eq!(joined, whole, "{layout} of {elem} {shape:?} by {most}");
                }
            }
        }
    }
}
