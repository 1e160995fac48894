//! Recurrent layers over a whole sequence: `lstm.f32`, `gru.f32`, `rnn.f32` (ONNX semantics).
//!
//! Time is the outer dim: x `[seq, batch, input]`, y `[seq, dirs, batch, hidden]`, states
//! `[dirs, batch, hidden]`. One task is one direction. The input projection of the whole sequence is
//! one product; each step then streams the packed recurrent weights once. W and R are packed per
//! direction as `B = Wᵀ` in layout f32 NR=16 KR=1, gates in ONNX order (LSTM iofc, GRU zrh).
//! An entry past its `sequence_lens` gives zeros and keeps its state; reversed entries run from
//! their own end.

pub mod gru;
pub mod lstm;
pub mod simple;

use crate::gemm::NR;
use crate::gemm::core::{self, Block, Packed};
use crate::gemm::epilogue::{Bound, Epilogue};
use crate::isa::{Call, Isa, align64};
use crate::math;

/// Activation codes of the gates.
pub mod function {
    /// Logistic.
    pub const SIGMOID: usize = 0;
    /// Hyperbolic tangent.
    pub const TANH: usize = 1;
    /// max(x, 0).
    pub const RELU: usize = 2;
    /// αx + β.
    pub const AFFINE: usize = 3;
    /// x if x ≥ 0 else αx.
    pub const LEAKY_RELU: usize = 4;
    /// x if x > α else 0.
    pub const THRESHOLDED_RELU: usize = 5;
    /// α·tanh(βx).
    pub const SCALED_TANH: usize = 6;
    /// min(max(αx + β, 0), 1).
    pub const HARD_SIGMOID: usize = 7;
    /// x if x ≥ 0 else α(eˣ − 1).
    pub const ELU: usize = 8;
    /// x/(1 + |x|).
    pub const SOFTSIGN: usize = 9;
    /// ln(1 + eˣ).
    pub const SOFTPLUS: usize = 10;
    /// One past the last code.
    pub const COUNT: usize = 11;
}

sizes! {
    /// Sizes of the recurrent layers.
    pub struct Rnn {
        /// Steps.
        pub seq: usize,
        /// Batch entries.
        pub batch: usize,
        /// Input features.
        pub input: usize,
        /// Hidden features.
        pub hidden: usize,
        /// Directions: 1 or 2 (the second runs backwards).
        pub dirs: usize,
        /// The first direction runs backwards.
        pub reverse: bool,
        /// Clip the gates' inputs to ±`clip`; 0 for no clip.
        pub clip: f32,
        /// LSTM: the forget gate is 1 − input gate.
        pub input_forget: bool,
        /// GRU: the reset gate applies after the recurrent product.
        pub linear_before_reset: bool,
        /// Codes of [`function`], three per direction (f, g, h; unused ones 0).
        pub functions: [usize; 6],
        /// α of each.
        pub alpha: [f32; 6],
        /// β of each.
        pub beta: [f32; 6],
    }
}

impl Rnn {
    fn valid(&self) -> bool {
        (1..=2).contains(&self.dirs) && self.functions.iter().all(|f| *f < function::COUNT)
    }

    fn flops(&self, gates: usize) -> u64 {
        let n = gates * self.hidden * (self.input + self.hidden);
        2 * (self.dirs * self.seq * self.batch * n) as u64
    }

    /// Elements of a packed W and a packed R (`split` matrices of `gates/split` gates each).
    fn packed(&self, gates: usize) -> usize {
        self.input * (gates * self.hidden).div_ceil(NR) * NR
    }

    fn backwards(&self, dir: usize) -> bool {
        self.reverse || dir == 1
    }
}

/// The regions of a call's scratch.
struct Scratch {
    /// Projected inputs `[seq · batch, gates · hidden]`.
    x: *mut f32,
    /// Recurrent products `[batch, gates · hidden]`.
    r: *mut f32,
    /// Hidden state `[batch, hidden]`.
    h: *mut f32,
    /// Cell state, or the reset hidden state.
    c: *mut f32,
    /// What the products need.
    rest: *mut u8,
}

/// Rows of one block of a product.
const ROWS: usize = 96;

fn scratch_bytes(s: &Rnn, gates: usize) -> usize {
    let width = gates.saturating_mul(s.hidden).saturating_mul(4);
    let state = align64(s.batch.saturating_mul(s.hidden).saturating_mul(4));
    align64(width.saturating_mul(s.batch).saturating_mul(s.seq))
        .saturating_add(align64(width.saturating_mul(s.batch)))
        .saturating_add(state.saturating_mul(2))
        .saturating_add(core::scratch_bytes(ROWS, s.input.max(s.hidden), false, false))
}

/// # Safety
/// The call's scratch has [`scratch_bytes`].
#[inline(always)]
unsafe fn carve(s: &Rnn, gates: usize, call: &Call) -> Scratch {
    let width = gates * s.hidden * 4;
    let state = align64(s.batch * s.hidden * 4);
    // SAFETY: by the caller's contract.
    unsafe {
        let x = call.scratch;
        let r = x.add(align64(width * s.batch * s.seq));
        let h = r.add(align64(width * s.batch));
        let c = h.add(state);
        Scratch { x: x.cast(), r: r.cast(), h: h.cast(), c: c.cast(), rest: c.add(state) }
    }
}

/// `c[m, n] = a[m, k] · packed`, rows of C `ldc` apart.
///
/// # Safety
/// The operands have these extents; `scratch` is [`Scratch::rest`].
#[inline(always)]
unsafe fn product<I: Isa>(
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    (m, n, k): (usize, usize, usize),
    ldc: usize,
    scratch: *mut u8,
) {
    let epi = Bound {
        spec: Epilogue::NONE,
        bias: std::ptr::null(),
        residual: std::ptr::null(),
        callback: None,
        ctx: std::ptr::null(),
        bufs: std::ptr::null(),
        sizes: std::ptr::null(),
        row_base: 0,
    };
    for m0 in (0..m).step_by(ROWS) {
        let rows = (m0, (m0 + ROWS).min(m));
        let g = Block { a, a_row: k as i64, a_col: 1, c, ldc, m: rows, n: (0, n), k };
        // SAFETY: by the caller's contract.
        unsafe { core::run::<I, _>(&g, &Packed { b, k }, false, &epi, scratch) }
    }
}

/// Copies an initial state into scratch, or zeros.
#[inline(always)]
unsafe fn load_state(dst: *mut f32, src: *const f32, dir: usize, n: usize) {
    // SAFETY: both hold `n` elements per direction.
    unsafe {
        if src.is_null() {
            std::ptr::write_bytes(dst, 0, n);
        } else {
            std::ptr::copy_nonoverlapping(src.add(dir * n), dst, n);
        }
    }
}

/// Copies a final state out, if it is wanted.
#[inline(always)]
unsafe fn store_state(dst: *mut f32, src: *const f32, dir: usize, n: usize) {
    if !dst.is_null() {
        // SAFETY: both hold `n` elements per direction.
        unsafe { std::ptr::copy_nonoverlapping(src, dst.add(dir * n), n) }
    }
}

/// The time step that entry `b` handles in step `t`; `None` past its end. `Err` for a bad length.
#[inline(always)]
unsafe fn step(
    s: &Rnn,
    lens: *const i32,
    dir: usize,
    t: usize,
    b: usize,
) -> Result<Option<usize>, ()> {
    // SAFETY: `lens` is null or holds one entry per batch entry.
    let len = if lens.is_null() { s.seq as i64 } else { unsafe { *lens.add(b) as i64 } };
    if len < 0 || len as usize > s.seq {
        return Err(());
    }
    let len = len as usize;
    Ok((t < len).then(|| if s.backwards(dir) { len - 1 - t } else { t }))
}

/// Fills the outputs of entry `b` that lie past its length with zeros.
#[inline(always)]
unsafe fn pad_outputs(s: &Rnn, y: *mut f32, dir: usize, t: usize, b: usize) {
    if !y.is_null() {
        // SAFETY: y is `[seq, dirs, batch, hidden]`.
        unsafe { std::ptr::write_bytes(y.add(row(s, t, dir, b)), 0, s.hidden) }
    }
}

/// The first element of one output row.
#[inline(always)]
fn row(s: &Rnn, t: usize, dir: usize, b: usize) -> usize {
    ((t * s.dirs + dir) * s.batch + b) * s.hidden
}

/// Bias element `i` of a direction with `2·gates·hidden` of them (input half, recurrent half).
#[inline(always)]
unsafe fn bias(p: *const f32, i: usize) -> f32 {
    // SAFETY: `p` is null or holds element `i`.
    if p.is_null() { 0.0 } else { unsafe { *p.add(i) } }
}

/// Clips (if asked) and applies function `which` of direction `dir` to `n` elements.
///
/// # Safety
/// `p` points at `n` elements.
#[inline(always)]
unsafe fn gate<I: Isa>(s: &Rnn, dir: usize, which: usize, clip: bool, p: *mut f32, n: usize) {
    use function::*;
    let i = dir * 3 + which;
    let (a, b) = (s.alpha[i], s.beta[i]);
    // SAFETY: by the caller's contract.
    let v = unsafe { std::slice::from_raw_parts_mut(p, n) };
    if clip && s.clip > 0.0 {
        let c = s.clip;
        for x in v.iter_mut() {
            let t = if *x > c { c } else { *x };
            *x = if t < -c { -c } else { t };
        }
    }
    macro_rules! each {
        (|$x:ident| $e:expr) => {
            for p in v.iter_mut() {
                let $x = *p;
                *p = $e;
            }
        };
    }
    match s.functions[i] {
        SIGMOID => each!(|x| math::sigmoid::<I>(x)),
        TANH => each!(|x| math::tanh::<I>(x)),
        RELU => each!(|x| if x < 0.0 { 0.0 } else { x }),
        AFFINE => each!(|x| I::fma(a, x, b)),
        LEAKY_RELU => each!(|x| if x < 0.0 { a * x } else { x }),
        THRESHOLDED_RELU => each!(|x| if x <= a { 0.0 } else { x }),
        SCALED_TANH => each!(|x| a * math::tanh::<I>(b * x)),
        HARD_SIGMOID => each!(|x| {
            let t = I::fma(a, x, b);
            let t = if t < 0.0 { 0.0 } else { t };
            if t > 1.0 { 1.0 } else { t }
        }),
        ELU => each!(|x| if x < 0.0 { a * math::expm1::<I>(x) } else { x }),
        SOFTSIGN => each!(|x| x / (1.0 + x.abs())),
        _ => each!(|x| math::softplus::<I>(x)),
    }
}
