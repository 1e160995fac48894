//! Sources of panels of B: packed, packed as scaled bytes, a matrix with strides.

use super::NR;
use super::core::Panels;
use crate::isa::Isa;

/// A matrix in layout f32 NR=16 KR=1.
#[derive(Clone, Copy)]
pub struct Packed {
    /// First panel.
    pub b: *const f32,
    /// Depth.
    pub k: usize,
}

impl Panels for Packed {
    #[inline(always)]
    unsafe fn panel<I: Isa>(
        &self,
        k0: usize,
        _kc: usize,
        n0: usize,
        _cols: usize,
        _buf: *mut f32,
    ) -> (*const f32, usize) {
        // SAFETY: `n0` is a multiple of 16 inside the matrix.
        (unsafe { self.b.add(n0 / NR * self.k * NR + k0 * NR) }, NR)
    }
}

/// Signed bytes in layout i8 NR=16 KR=1 with an f32 scale for each column: the matrix is their product,
/// rounded once.
#[derive(Clone, Copy)]
pub struct Scaled {
    /// First panel.
    pub b: *const i8,
    /// Scale of the first column.
    pub scale: *const f32,
    /// Depth.
    pub k: usize,
}

impl Panels for Scaled {
    #[inline(always)]
    unsafe fn panel<I: Isa>(
        &self,
        k0: usize,
        kc: usize,
        n0: usize,
        cols: usize,
        buf: *mut f32,
    ) -> (*const f32, usize) {
        // SAFETY: `n0` is a multiple of 16 inside the matrix, whose panels are whole; there is a scale
        // for each of its columns; `buf` has `kc × 16` elements.
        unsafe {
            let mut scale = [0f32; NR];
            std::ptr::copy_nonoverlapping(self.scale.add(n0), scale.as_mut_ptr(), cols);
            let src = self.b.add((n0 / NR * self.k + k0) * NR);
            for p in 0..kc {
                let q = *(src.add(p * NR) as *const [i8; NR]);
                let mut row = [0f32; NR];
                for j in 0..NR {
                    row[j] = q[j] as f32 * scale[j];
                }
                *(buf.add(p * NR) as *mut [f32; NR]) = row;
            }
        }
        (buf, NR)
    }
}

/// A plain matrix with strides. Full panels with unit column stride are read in place when few rows
/// use them; others are copied.
#[derive(Clone, Copy)]
pub struct Strided {
    /// Element (0, 0).
    pub b: *const f32,
    /// Elements from row to row.
    pub row: i64,
    /// Elements from column to column.
    pub col: i64,
    /// Whether to read in place where possible.
    pub in_place: bool,
}

impl Panels for Strided {
    #[inline(always)]
    unsafe fn panel<I: Isa>(
        &self,
        k0: usize,
        kc: usize,
        n0: usize,
        cols: usize,
        buf: *mut f32,
    ) -> (*const f32, usize) {
        // SAFETY: every element read is inside the matrix; `buf` has `kc × 16` elements.
        unsafe {
            let src = self.b.offset((k0 as i64 * self.row + n0 as i64 * self.col) as isize);
            if self.col == 1 && cols == NR {
                if self.in_place && self.row >= 0 {
                    return (src, self.row as usize);
                }
                for p in 0..kc {
                    let s = src.offset(p as isize * self.row as isize);
                    *(buf.add(p * NR) as *mut [f32; NR]) = *(s as *const [f32; NR]);
                }
            } else if self.row == 1 && cols == NR {
                // Columns lie along k: blocks of 16 × 16 are transposed.
                let whole = kc / NR * NR;
                for p in (0..whole).step_by(NR) {
                    I::cross(src.add(p), self.col as isize, buf.add(p * NR));
                }
                for p in whole..kc {
                    for j in 0..NR {
                        *buf.add(p * NR + j) =
                            *src.offset(p as isize + j as isize * self.col as isize);
                    }
                }
            } else {
                for j in 0..NR {
                    if j < cols {
                        let s = src.offset(j as isize * self.col as isize);
                        for p in 0..kc {
                            *buf.add(p * NR + j) = *s.offset(p as isize * self.row as isize);
                        }
                    } else {
                        for p in 0..kc {
                            *buf.add(p * NR + j) = 0.0;
                        }
                    }
                }
            }
            (buf, NR)
        }
    }
}
