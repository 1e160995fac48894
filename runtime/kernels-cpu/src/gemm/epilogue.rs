//! What is done to an f32 output tile while it is hot: scale, bias, residual, activation, callback.
//!
//! `out = callback(activation(alpha · acc + bias + residual))`, each part optional, in this order.

use crate::abi::Ctx;
use crate::isa::{Call, Isa};
use crate::math;
use crate::strip::map_in_place;

/// Activation codes of [`Epilogue::activation`].
pub mod activation {
    /// Identity.
    pub const NONE: usize = 0;
    /// max(x, 0).
    pub const RELU: usize = 1;
    /// x/2 · (1 + erf(x/√2)).
    pub const GELU_ERF: usize = 2;
    /// x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³))).
    pub const GELU_TANH: usize = 3;
    /// x · sigmoid(x).
    pub const SILU: usize = 4;
    /// 1/(1+e⁻ˣ).
    pub const SIGMOID: usize = 5;
    /// tanh(x).
    pub const TANH: usize = 6;
    /// min(max(x, p0), p1).
    pub const CLIP: usize = 7;
    /// x · min(max(x/6 + 1/2, 0), 1).
    pub const HARD_SWISH: usize = 8;
    /// x if x ≥ 0, else p0·x.
    pub const LEAKY_RELU: usize = 9;
    /// min(max(p0·x + p1, 0), 1).
    pub const HARD_SIGMOID: usize = 10;
    /// One past the last code.
    pub const COUNT: usize = 11;
}

/// How [`Epilogue::bias`] is indexed.
pub mod bias {
    /// No bias.
    pub const NONE: usize = 0;
    /// One value per column of the output matrix (features of a matmul).
    pub const COLUMN: usize = 1;
    /// One value per row of the output matrix (channels of a convolution).
    pub const ROW: usize = 2;
}

sizes! {
    /// The closed set of epilogues.
    pub struct Epilogue {
        /// Factor of the product; 1 for none.
        pub alpha: f32,
        /// A code of [`bias`]; the bias buffer is read when it is not `NONE`.
        pub bias: usize,
        /// Add the residual buffer, which has the layout of the output.
        pub residual: bool,
        /// A code of [`activation`].
        pub activation: usize,
        /// First parameter of the activation.
        pub p0: f32,
        /// Second parameter of the activation.
        pub p1: f32,
        /// Call the [`TileFn`] in the callback buffer slot.
        pub callback: bool,
    }
}

impl Epilogue {
    /// No epilogue at all.
    pub const NONE: Epilogue = Epilogue {
        alpha: 1.0,
        bias: bias::NONE,
        residual: false,
        activation: activation::NONE,
        p0: 0.0,
        p1: 0.0,
        callback: false,
    };

    /// Whether the codes mean something.
    pub fn valid(&self) -> bool {
        self.bias <= bias::ROW && self.activation < activation::COUNT
    }
}

/// The beginning of an epilogue, done in registers before a sum is stored: `clamp(alpha · sum + bias + residual)`.
#[derive(Clone, Copy)]
pub struct Head {
    /// Factor of the sum; 1 for none.
    pub alpha: f32,
    /// Least result; −∞ for none. NaN stays.
    pub lo: f32,
    /// Greatest result; ∞ for none.
    pub hi: f32,
    /// Bias of row or column 0; null for none.
    pub bias: *const f32,
    /// Whether the bias is of the rows rather than of the columns.
    pub by_row: bool,
    /// Residual element (0, 0), in the layout of the output; null for none.
    pub residual: *const f32,
}

impl Head {
    /// Nothing is done.
    pub const NONE: Head = Head {
        alpha: 1.0,
        lo: f32::NEG_INFINITY,
        hi: f32::INFINITY,
        bias: std::ptr::null(),
        by_row: false,
        residual: std::ptr::null(),
    };

    /// The head of an epilogue, and what is left of it.
    #[inline(always)]
    pub fn of(e: &Epilogue, own: *const f32, residual: *const f32) -> (Head, Epilogue) {
        let (lo, hi) = match e.activation {
            activation::RELU => (0.0, f32::INFINITY),
            activation::CLIP => (e.p0, e.p1),
            _ => (f32::NEG_INFINITY, f32::INFINITY),
        };
        let done = matches!(e.activation, activation::RELU | activation::CLIP);
        let left = if done { activation::NONE } else { e.activation };
        let rest = Epilogue {
            activation: left,
            p0: e.p0,
            p1: e.p1,
            callback: e.callback,
            ..Epilogue::NONE
        };
        let null = std::ptr::null();
        let own = if e.bias == bias::NONE { null } else { own };
        let residual = if e.residual { residual } else { null };
        let by_row = e.bias == bias::ROW;
        (Head { alpha: e.alpha, lo, hi, bias: own, by_row, residual }, rest)
    }

    /// The head of the tile whose first element is (`row`, `col`) of an output with rows `ld` apart.
    #[inline(always)]
    pub fn at(&self, row: usize, col: usize, ld: usize) -> Head {
        let mut h = *self;
        if !h.bias.is_null() {
            h.bias = h.bias.wrapping_add(if h.by_row { row } else { col });
        }
        if !h.residual.is_null() {
            h.residual = h.residual.wrapping_add(row * ld + col);
        }
        h
    }

    /// Finishes row `r`, its first columns `v`, of an output with rows `ld` apart.
    ///
    /// # Safety
    /// Bias and residual cover the elements.
    #[inline(always)]
    pub unsafe fn finish(&self, v: &mut [f32], r: usize, ld: usize) {
        // SAFETY: by the caller's contract.
        unsafe {
            if self.alpha != 1.0 {
                v.iter_mut().for_each(|v| *v *= self.alpha);
            }
            if !self.bias.is_null() && self.by_row {
                let b = *self.bias.add(r);
                v.iter_mut().for_each(|v| *v += b);
            } else if !self.bias.is_null() {
                let b = std::slice::from_raw_parts(self.bias, v.len());
                v.iter_mut().zip(b).for_each(|(v, b)| *v += *b);
            }
            if !self.residual.is_null() {
                let x = std::slice::from_raw_parts(self.residual.add(r * ld), v.len());
                v.iter_mut().zip(x).for_each(|(v, x)| *v += *x);
            }
        }
        for v in v {
            *v = if *v < self.lo { self.lo } else { *v };
            *v = if *v > self.hi { self.hi } else { *v };
        }
    }
}

/// An epilogue in generated code, called once per finished output tile.
///
/// `tile` is element (`row0`, `col0`) of the output matrix, `ld` elements from row to row. Rows
/// count through the batch: row = batch index · M + m (for a convolution, image · O + channel).
/// `bufs` are the kernel's buffers, with the callback's own operands after them; `sizes` are the
/// callback's own, which follow the kernel's.
pub type TileFn = unsafe extern "C" fn(
    ctx: *const Ctx,
    tile: *mut f32,
    ld: u64,
    row0: u64,
    col0: u64,
    rows: u64,
    cols: u64,
    bufs: *const *mut u8,
    sizes: *const i64,
);

/// An epilogue bound to the buffers of one output matrix.
#[derive(Clone, Copy)]
pub struct Bound {
    /// What to do.
    pub spec: Epilogue,
    /// Bias of column or row 0.
    pub bias: *const f32,
    /// Residual element (0, 0).
    pub residual: *const f32,
    /// The callback, if `spec.callback`.
    pub callback: Option<TileFn>,
    /// The context handed to the callback.
    pub ctx: *const Ctx,
    /// The buffers handed to the callback.
    pub bufs: *const *mut u8,
    /// The sizes handed to the callback.
    pub sizes: *const i64,
    /// The callback's number of row 0.
    pub row_base: usize,
}

impl Bound {
    /// Nothing is done.
    #[inline(always)]
    pub fn none(call: &Call) -> Bound {
        Bound {
            spec: Epilogue::NONE,
            bias: std::ptr::null(),
            residual: std::ptr::null(),
            callback: None,
            ctx: call.ctx,
            bufs: call.bufs.0,
            sizes: call.sizes,
            row_base: 0,
        }
    }

    /// What register tiles do before they store, and what is left to do behind them.
    #[inline(always)]
    pub fn split(&self) -> (Head, Bound) {
        let (head, spec) = Head::of(&self.spec, self.bias, self.residual);
        (head, Bound { spec, ..*self })
    }

    /// Finishes the tile whose first element is (`row`, `col`) at `c`.
    ///
    /// # Safety
    /// The tile is `rows × cols` with rows `ldc` apart; the bound buffers cover it.
    #[inline(always)]
    pub unsafe fn finish<I: Isa>(
        &self,
        c: *mut f32,
        ldc: usize,
        row: usize,
        col: usize,
        rows: usize,
        cols: usize,
    ) {
        let s = &self.spec;
        let plain = s.alpha == 1.0
            && s.bias == bias::NONE
            && !s.residual
            && s.activation == activation::NONE;
        // SAFETY: by the caller's contract.
        unsafe {
            if !plain {
                for r in 0..rows {
                    I::finish_row(self, c.add(r * ldc), ldc, row + r, col, cols);
                }
            }
            if let Some(f) = self.callback {
                f(
                    self.ctx,
                    c,
                    ldc as u64,
                    (self.row_base + row) as u64,
                    col as u64,
                    rows as u64,
                    cols as u64,
                    self.bufs,
                    self.sizes,
                );
            }
        }
    }

    /// All parts but the callback, on one row.
    ///
    /// # Safety
    /// As [`Bound::finish`].
    #[inline(always)]
    pub(crate) unsafe fn row<I: Isa>(
        &self,
        c: *mut f32,
        ldc: usize,
        row: usize,
        col: usize,
        cols: usize,
    ) {
        let s = &self.spec;
        // SAFETY: by the contract of `finish`.
        unsafe {
            let out = std::slice::from_raw_parts_mut(c, cols);
            if s.alpha != 1.0 {
                out.iter_mut().for_each(|v| *v *= s.alpha);
            }
            match s.bias {
                bias::COLUMN => {
                    let b = std::slice::from_raw_parts(self.bias.add(col), cols);
                    out.iter_mut().zip(b).for_each(|(v, b)| *v += *b);
                }
                bias::ROW => {
                    let b = *self.bias.add(row);
                    out.iter_mut().for_each(|v| *v += b);
                }
                _ => {}
            }
            if s.residual {
                let r = std::slice::from_raw_parts(self.residual.add(row * ldc + col), cols);
                out.iter_mut().zip(r).for_each(|(v, r)| *v += *r);
            }
            activate::<I>(s.activation, s.p0, s.p1, c, cols);
        }
    }
}

/// Applies an activation to `n` contiguous elements.
///
/// # Safety
/// `p` points at `n` elements.
#[inline(always)]
pub unsafe fn activate<I: Isa>(code: usize, p0: f32, p1: f32, p: *mut f32, n: usize) {
    use activation::*;
    // SAFETY: by the caller's contract.
    unsafe {
        match code {
            RELU => map_in_place(p, n, |x: f32| if x < 0.0 { 0.0 } else { x }),
            GELU_ERF => map_in_place(p, n, |x: f32| math::gelu::<I>(x)),
            GELU_TANH => map_in_place(p, n, |x: f32| math::gelu_tanh::<I>(x)),
            SILU => map_in_place(p, n, |x: f32| x * math::sigmoid::<I>(x)),
            SIGMOID => map_in_place(p, n, |x: f32| math::sigmoid::<I>(x)),
            TANH => map_in_place(p, n, |x: f32| math::tanh::<I>(x)),
            CLIP => map_in_place(p, n, |x: f32| {
                let x = if x < p0 { p0 } else { x };
                if x > p1 { p1 } else { x }
            }),
            HARD_SWISH => map_in_place(p, n, |x: f32| x * clamp01(I::fma(x, 1.0 / 6.0, 0.5))),
            LEAKY_RELU => map_in_place(p, n, |x: f32| if x < 0.0 { p0 * x } else { x }),
            HARD_SIGMOID => map_in_place(p, n, |x: f32| clamp01(I::fma(p0, x, p1))),
            _ => {}
        }
    }
}

#[inline(always)]
fn clamp01(x: f32) -> f32 {
    let x = if x < 0.0 { 0.0 } else { x };
    if x > 1.0 { 1.0 } else { x }
}
