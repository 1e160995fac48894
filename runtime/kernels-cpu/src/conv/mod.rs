//! Convolutions and pooling over up to three spatial dims, channels first (NC(D)(H)W) or last.
//!
//! Channels last, a convolution is a product whose rows are pixels read in place ([`last`]).
//! Channels first it is the matrix product `W[O, C·k] · columns[C·k, pixels]` per image and group, so the
//! output is written in its own layout and weights stay row-major as ONNX stores them. The columns
//! are built panel by panel in scratch ([`Window::fill`]) and never exist as a whole. Fewer spatial
//! dims leave the leading ones at 1.

pub mod depthwise;
pub mod depthwise8;
pub mod direct;
pub mod float;
pub mod int8;
pub mod lanes;
pub mod last;
pub mod last8;
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

    /// Builds columns `n0..n0+cols` of rows `k0..k0+kc` of one group's column matrix. Row `r` goes to
    /// 16 slots from `dst(r)`, `step` apart; pads and columns past `cols` get `U::default()`.
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
        let [kd, kh, kw] = self.kernel;
        let [xd, xh, xw] = self.x.map(|v| v as i64);
        let [dz, dy, dx] = self.dilation.map(|v| v as i64);
        let sx = self.stride[2] as i64;
        // Runs of columns in one output row: first column, length, input coordinates of tap 0.
        let mut runs = [(0usize, 0usize, [0i64; 3]); 16];
        let mut count = 0;
        let mut at = [n0 / (self.y[1] * self.y[2]), n0 / self.y[2] % self.y[1], n0 % self.y[2]];
        let mut j = 0;
        while j < cols {
            let len = (cols - j).min(self.y[2] - at[2]);
            let base = std::array::from_fn(|d| (at[d] * self.stride[d]) as i64 - self.pad[d]);
            runs[count] = (j, len, base);
            count += 1;
            j += len;
            at = if at[1] + 1 < self.y[1] { [at[0], at[1] + 1, 0] } else { [at[0] + 1, 0, 0] };
        }
        let runs = &runs[..count];
        let taps = (kd * kh * kw).max(1);
        let (c0, tap) = (k0 / taps, k0 % taps);
        let (mut kz, mut ky, mut kx) = (tap / (kh * kw), tap / kw % kh, tap % kw);
        let size = self.x_plane();
        // SAFETY: coordinates are checked against the input's extents before a read.
        unsafe {
            let mut plane = x.add(c0 * size);
            for r in 0..kc {
                let out = dst(r);
                for slot in cols..16 {
                    *out.add(slot * step) = U::default();
                }
                for (first, len, base) in runs {
                    let out = out.add(first * step);
                    let (z, y) = (base[0] + kz as i64 * dz, base[1] + ky as i64 * dy);
                    let x0 = base[2] + kx as i64 * dx;
                    let inside = z >= 0 && z < xd && y >= 0 && y < xh;
                    let line = plane.wrapping_offset(((z * xh + y) * xw + x0) as isize);
                    if sx == 1 {
                        // Zeros before and after what lies inside the row.
                        let n = *len as i64;
                        let lo = if inside { (-x0).clamp(0, n) } else { n } as usize;
                        let hi = (xw - x0).clamp(lo as i64, n) as usize;
                        for j in (0..lo).chain(hi..*len) {
                            *out.add(j * step) = U::default();
                        }
                        run(line.wrapping_add(lo), out.add(lo * step), hi - lo, step, &convert);
                    } else {
                        for j in 0..*len {
                            let at = x0 + j as i64 * sx;
                            *out.add(j * step) = if inside && at >= 0 && at < xw {
                                convert(*line.offset((j as i64 * sx) as isize))
                            } else {
                                U::default()
                            };
                        }
                    }
                }
                kx += 1;
                if kx == kw {
                    (kx, ky) = (0, ky + 1);
                    if ky == kh {
                        (ky, kz) = (0, kz + 1);
                        if kz == kd {
                            kz = 0;
                            plane = plane.wrapping_add(size);
                        }
                    }
                }
            }
        }
    }
}

/// Converts `n ≤ 16` adjacent elements, by fixed lengths that need no loop.
///
/// # Safety
/// `src` holds `n` elements, `dst` `n` slots `step` apart.
#[inline(always)]
unsafe fn run<T: Copy, U>(
    src: *const T,
    dst: *mut U,
    n: usize,
    step: usize,
    convert: &impl Fn(T) -> U,
) {
    let mut j = 0;
    // SAFETY: `j + width ≤ n` in every arm.
    unsafe {
        macro_rules! fixed {
            ($width:literal) => {
                for q in 0..$width {
                    *dst.add((j + q) * step) = convert(*src.add(j + q));
                }
                j += $width;
            };
        }
        if n == 16 {
            fixed!(16);
        }
        if n - j >= 8 {
            fixed!(8);
        }
        if n - j >= 4 {
            fixed!(4);
        }
        if n - j >= 2 {
            fixed!(2);
        }
        if n - j == 1 {
            *dst.add(j * step) = convert(*src.add(j));
        }
    }
}
