//! Convolutions and pooling over up to three spatial dims, NC(D)(H)W.
//!
//! A convolution is the matrix product `W[O, C·k] · columns[C·k, pixels]` per image and group, so the
//! output is written in its own layout and weights stay row-major as ONNX stores them. The columns
//! are built panel by panel in scratch ([`Window::fill`]) and never exist as a whole. Fewer spatial
//! dims leave the leading ones at 1.

pub mod direct;
pub mod float;
pub mod int8;
pub mod pool;
pub mod transpose;

sizes! {
    /// The geometry shared by every convolution.
    pub struct Window {
        /// Images.
        pub batch: usize,
        /// Groups.
        pub groups: usize,
        /// Input channels of one group.
        pub in_channels: usize,
        /// Output channels of one group.
        pub out_channels: usize,
        /// Input extents.
        pub x: [usize; 3],
        /// Output extents.
        pub y: [usize; 3],
        /// Kernel extents.
        pub kernel: [usize; 3],
        /// Strides.
        pub stride: [usize; 3],
        /// Dilations.
        pub dilation: [usize; 3],
        /// Pads before each dim.
        pub pad: [i64; 3],
    }
}

impl Window {
    /// Input elements of one channel.
    #[inline(always)]
    pub fn x_plane(&self) -> usize {
        self.x.iter().product()
    }

    /// Output elements of one channel.
    #[inline(always)]
    pub fn y_plane(&self) -> usize {
        self.y.iter().product()
    }

    /// Kernel elements of one channel.
    #[inline(always)]
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Depth of the product.
    #[inline(always)]
    pub fn depth(&self) -> usize {
        self.in_channels * self.taps()
    }

    /// Multiplications and additions.
    pub fn flops(&self) -> u64 {
        let per_image = self.groups * self.out_channels * self.y_plane() * self.depth();
        2 * (self.batch * per_image) as u64
    }

    /// Whether the columns are the input itself.
    #[inline(always)]
    pub fn is_pointwise(&self) -> bool {
        self.kernel == [1; 3] && self.stride == [1; 3] && self.pad == [0; 3] && self.x == self.y
    }

    /// Whether strides and dilations are usable.
    pub fn valid(&self) -> bool {
        !self.stride.contains(&0) && !self.dilation.contains(&0)
    }

    /// Builds columns `n0..n0+cols` of rows `k0..k0+kc` of one group's column matrix: calls
    /// `put(row, column, value)` semantics through `dst(row)`, a pointer to 16 slots `step` apart.
    /// Slots of pads and of columns past `cols` get `T::default()`.
    ///
    /// # Safety
    /// `x` is the group's input; `dst(r)` has 16 slots for every `r < kc`.
    #[inline(always)]
    pub unsafe fn fill<T: Copy, U: Copy + Default>(
        &self,
        x: *const T,
        (k0, kc): (usize, usize),
        (n0, cols): (usize, usize),
        convert: impl Fn(T) -> U,
        dst: impl Fn(usize) -> *mut U,
        step: usize,
    ) {
        let [_, kh, kw] = self.kernel;
        let [xd, xh, xw] = self.x.map(|v| v as i64);
        let [dz, dy, dx] = self.dilation.map(|v| v as i64);
        // Input coordinates of tap 0 for each column.
        let mut base = [[0i64; 3]; 16];
        let mut one_row = true;
        for j in 0..cols {
            let n = n0 + j;
            let (oz, oy, ox) =
                (n / (self.y[1] * self.y[2]), n / self.y[2] % self.y[1], n % self.y[2]);
            let at = [oz, oy, ox];
            for d in 0..3 {
                base[j][d] = (at[d] * self.stride[d]) as i64 - self.pad[d];
            }
            one_row &= base[j][0] == base[0][0] && base[j][1] == base[0][1];
        }
        let sx = self.stride[2] as i64;
        let taps = self.taps().max(1);
        let (mut c, mut tap) = (k0 / taps, k0 % taps);
        for r in 0..kc {
            let (kz, ky, kx) = (tap / (kh * kw), tap / kw % kh, tap % kw);
            let off = [kz as i64 * dz, ky as i64 * dy, kx as i64 * dx];
            // SAFETY: coordinates are checked against the input's extents before a read.
            unsafe {
                let plane = x.add(c * self.x_plane());
                let out = dst(r);
                if one_row {
                    let (z, y, x0) =
                        (base[0][0] + off[0], base[0][1] + off[1], base[0][2] + off[2]);
                    let inside = z >= 0 && z < xd && y >= 0 && y < xh;
                    let end = x0 + (cols as i64 - 1) * sx;
                    if inside && x0 >= 0 && end < xw {
                        let line = plane.add(((z * xh + y) * xw + x0) as usize);
                        if cols == 16 && sx == 1 {
                            for j in 0..16 {
                                *out.add(j * step) = convert(*line.add(j));
                            }
                        } else {
                            for j in 0..16 {
                                *out.add(j * step) = if j < cols {
                                    convert(*line.add(j * sx as usize))
                                } else {
                                    U::default()
                                };
                            }
                        }
                    } else {
                        for j in 0..16 {
                            let at = x0 + j as i64 * sx;
                            *out.add(j * step) = if inside && j < cols && at >= 0 && at < xw {
                                convert(*plane.add(((z * xh + y) * xw + at) as usize))
                            } else {
                                U::default()
                            };
                        }
                    }
                } else {
                    for (j, b) in base.iter().enumerate() {
                        let (z, y, at) = (b[0] + off[0], b[1] + off[1], b[2] + off[2]);
                        let inside = j < cols
                            && (z >= 0 && z < xd)
                            && (y >= 0 && y < xh)
                            && (at >= 0 && at < xw);
                        *out.add(j * step) = if inside {
                            convert(*plane.add(((z * xh + y) * xw + at) as usize))
                        } else {
                            U::default()
                        };
                    }
                }
            }
            tap += 1;
            if tap == taps {
                (tap, c) = (0, c + 1);
            }
        }
    }
}
