//! The output stage of integer products: scale, bias, activation, residual, requantisation.
//!
//! `f32(acc + bias_i32) · (a_scale · b_scale) + bias_f32`, the activation; to bytes of a scale of its own and
//! back; plus the residual, which is f32 or bytes to be dequantised; the last activation; and
//! `saturate(round_even(y / y_scale) + y_zp)`, each part optional.

use super::NR;
use super::core::prefetch_lines;
use super::counts::Counts;
use super::epilogue::activation;
use super::requant::Steps;
use crate::conv::lanes::with_lanes;
use crate::isa::{Bufs, Isa};

/// How a zero point or a scale is indexed.
pub mod per {
    /// There is none (zero point 0, scale 1).
    pub const NONE: usize = 0;
    /// One for the tensor.
    pub const TENSOR: usize = 1;
    /// One per row (of A) or per column (of B).
    pub const AXIS: usize = 2;
}

/// Output types.
pub mod out {
    /// The sums.
    pub const I32: usize = 0;
    /// Scaled, with bias and activation.
    pub const F32: usize = 1;
    /// Requantised to unsigned bytes.
    pub const U8: usize = 2;
    /// Requantised to signed bytes.
    pub const I8: usize = 3;
}

/// Types of the bias.
pub mod bias {
    /// No bias.
    pub const NONE: usize = 0;
    /// f32 per output feature, added after scaling.
    pub const F32: usize = 1;
    /// i32 per output feature, added to the sum.
    pub const I32: usize = 2;
}

sizes! {
    /// The output stage of an integer product.
    pub struct Stage {
        /// A code of [`out`].
        pub out: usize,
        /// Indexing of the scale of A, a code of [`per`].
        pub a_scale: usize,
        /// Indexing of the scale of B, a code of [`per`].
        pub b_scale: usize,
        /// A code of [`bias`].
        pub bias: usize,
        /// A code of [`activation`], applied to what is scaled.
        pub activation: usize,
        /// First parameter of the activation.
        pub p0: f32,
        /// Second parameter of the activation.
        pub p1: f32,
        /// Bytes through which the activation's result goes, a code of [`out`], or 0.
        pub inner: usize,
        /// Their scale.
        pub inner_scale: f32,
        /// Their zero point.
        pub inner_zp: i64,
        /// Type of the residual, a code of [`out`], or 0 if there is none. It has the layout of the output.
        pub residual: usize,
        /// Scale of a residual of bytes.
        pub residual_scale: f32,
        /// Zero point of a residual of bytes.
        pub residual_zp: i64,
        /// Activation behind the residual: `NONE`, `RELU` or `CLIP`.
        pub last: usize,
        /// First parameter of the last activation.
        pub q0: f32,
        /// Second parameter of the last activation.
        pub q1: f32,
    }
}

impl Stage {
    /// The sums themselves.
    pub const SUMS: Stage = Stage {
        out: out::I32,
        a_scale: 0,
        b_scale: 0,
        bias: 0,
        activation: 0,
        p0: 0.0,
        p1: 0.0,
        inner: 0,
        inner_scale: 1.0,
        inner_zp: 0,
        residual: 0,
        residual_scale: 1.0,
        residual_zp: 0,
        last: 0,
        q0: 0.0,
        q1: 0.0,
    };

    /// Whether the codes mean something.
    pub fn valid(&self) -> bool {
        let byte = |code: usize, zp: i64| match code {
            out::U8 => (0..=255).contains(&zp),
            out::I8 => (-128..=127).contains(&zp),
            _ => zp == 0,
        };
        self.out <= 3
            && self.a_scale <= 2
            && self.b_scale <= 2
            && self.bias <= 2
            && self.activation < activation::COUNT
            && matches!(self.inner, 0 | out::U8 | out::I8)
            && byte(self.inner, self.inner_zp)
            && self.residual <= 3
            && byte(self.residual, self.residual_zp)
            && light(self.last)
    }

    /// Whether it ends in bytes and has neither activations nor floats or rows of their own scale on the way.
    #[inline(always)]
    fn plain(&self) -> bool {
        self.out > out::F32
            && self.activation == activation::NONE
            && self.last == activation::NONE
            && self.residual != out::F32
            && self.a_scale != per::AXIS
    }

    /// Whether it is scaled sums and perhaps a bias, as floats.
    #[inline(always)]
    fn floats(&self) -> bool {
        self.out == out::F32
            && self.activation == activation::NONE
            && self.last == activation::NONE
            && self.inner == 0
            && self.residual == 0
    }

    /// Bytes of one output element.
    #[inline(always)]
    pub fn out_bytes(&self) -> usize {
        if self.out <= out::F32 { 4 } else { 1 }
    }
}

/// Whether an activation is a matter of an instruction or two.
#[inline(always)]
fn light(code: usize) -> bool {
    matches!(code, activation::NONE | activation::RELU | activation::CLIP)
}

/// A [`light`] activation.
///
/// # Safety
/// The machine has the level.
#[inline(always)]
unsafe fn bound<L: Counts>(code: usize, p0: f32, p1: f32, y: L) -> L {
    // SAFETY: by the caller's contract.
    unsafe {
        match code {
            activation::RELU => y.clamp(L::splat(0.0), L::splat(f32::INFINITY)),
            activation::CLIP => y.clamp(L::splat(p0), L::splat(p1)),
            _ => y,
        }
    }
}

/// A byte as the integer it stands for.
#[inline(always)]
pub fn widen(byte: u8, signed: bool) -> i16 {
    if signed { byte as i8 as i16 } else { byte as i16 }
}

/// The output stage bound to its buffers.
#[derive(Clone, Copy)]
pub struct Sink {
    /// What to do.
    pub stage: Stage,
    a_scale: *const f32,
    b_scale: *const f32,
    bias: *const u8,
    residual: *const u8,
    c: *mut u8,
    output: Steps,
    inner: Steps,
    /// Below this bound of what is scaled, nothing in the stage is infinite or not a number.
    room: f32,
    /// Number of the buffers' first feature.
    base: usize,
}

/// What the output stage needs for 16 columns, read once for many rows.
#[derive(Clone, Copy)]
pub struct Features {
    /// Scale of B, times that of A if it is one for the tensor.
    scale: [f32; NR],
    bias: [f32; NR],
    /// What is added to the sums.
    pub add: [i32; NR],
    /// Whether whatever the sums, everything stays finite.
    tame: bool,
}

impl Features {
    /// No scale, no bias.
    pub const NONE: Features =
        Features { scale: [1.0; NR], bias: [0.0; NR], add: [0; NR], tame: false };
}

/// A tile of sums that is finished.
#[derive(Clone, Copy)]
pub struct Tile<'a> {
    /// Rows of `panels · 16` sums; overwritten.
    pub sums: *mut [i32; NR],
    /// Groups of 16 sums from row to row.
    pub step: usize,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Features of each 16 columns.
    pub features: &'a [Features],
    /// Number of the first row in the scale of A, if it has one for each.
    pub row: usize,
    /// Element of the output where the tile begins.
    pub at: usize,
    /// Elements from row to row of the output.
    pub ld: usize,
}

impl Sink {
    /// The buffers of an integer product: 4 and 5 the scales, 6 the bias, 7 and 8 the scale and the zero
    /// point of the output, 9 the residual, 10 the output; features are counted from `base`.
    ///
    /// # Safety
    /// The buffers are there where the stage reads them.
    #[inline(always)]
    pub unsafe fn new(stage: Stage, bufs: Bufs, base: usize) -> Sink {
        // SAFETY: by the caller's contract.
        unsafe {
            let (scale, zp) = (bufs.get::<f32>(7), bufs.get::<u8>(8));
            let signed = stage.out == out::I8;
            let quantised = stage.out > out::F32;
            let scale = if quantised { *scale } else { 1.0 };
            let zp = if quantised && !zp.is_null() { widen(*zp, signed) } else { 0 };
            let output = Steps::new(scale, zp, signed);
            let inner =
                Steps::new(stage.inner_scale, stage.inner_zp as i16, stage.inner == out::I8);
            Sink {
                stage,
                a_scale: bufs.get(4),
                b_scale: bufs.get(5),
                bias: bufs.get(6),
                residual: bufs.get(9),
                c: bufs.get(10),
                output,
                inner,
                room: room(&stage, &output, &inner),
                base,
            }
        }
    }

    /// The features of columns `col..col + cols`, at most 16, where features are columns.
    ///
    /// # Safety
    /// The buffers cover the columns.
    #[inline(always)]
    pub unsafe fn features(&self, col: usize, cols: usize) -> Features {
        // SAFETY: by the caller's contract.
        unsafe { self.gather(cols, |j| self.base + col + j) }
    }

    /// The same for 16 columns of one feature.
    ///
    /// # Safety
    /// The buffers have the feature.
    #[inline(always)]
    pub unsafe fn feature(&self, at: usize) -> Features {
        // SAFETY: by the caller's contract.
        unsafe { self.gather(NR, |_| self.base + at) }
    }

    #[inline(always)]
    unsafe fn gather(&self, cols: usize, at: impl Fn(usize) -> usize) -> Features {
        let (s, mut f) = (&self.stage, Features::NONE);
        // SAFETY: by the caller's contract.
        unsafe {
            let a = if s.a_scale == per::TENSOR { *self.a_scale } else { 1.0 };
            let mut tame = s.a_scale != per::AXIS;
            for j in 0..cols {
                let b = match s.b_scale {
                    per::NONE => 1.0,
                    per::TENSOR => *self.b_scale,
                    _ => *self.b_scale.add(at(j)),
                };
                f.scale[j] = a * b;
                match s.bias {
                    bias::F32 => f.bias[j] = *(self.bias as *const f32).add(at(j)),
                    bias::I32 => f.add[j] = *(self.bias as *const i32).add(at(j)),
                    _ => {}
                }
                tame &= f.scale[j].abs() * 2f32.powi(31) + f.bias[j].abs() < self.room;
            }
            f.tame = tame;
        }
        f
    }

    /// Asks for a tile of the output, so many rows and columns from element `at` on, before its sums begin.
    #[inline(always)]
    pub fn ask(&self, at: usize, ld: usize, (rows, cols): (usize, usize)) {
        let size = if self.stage.out > out::F32 { 1 } else { 4 };
        for r in 0..rows {
            let row = self.c.wrapping_add((at + r * ld) * size);
            prefetch_lines(row, (0, (cols * size).div_ceil(64)));
        }
    }

    /// Finishes a tile: whole groups of columns of a stage that is `Stage::plain` apart from all else.
    ///
    /// # Safety
    /// The buffers cover the tile.
    #[inline(always)]
    pub unsafe fn finish<I: Isa>(&self, t: &Tile) {
        let s = &self.stage;
        let bytes = s.plain() && t.features.iter().all(|f| f.tame);
        let whole = if bytes || s.floats() { t.cols / NR } else { 0 };
        let (first, last) = t.features.split_at(whole);
        // SAFETY: by the caller's contract.
        unsafe {
            if whole > 0 {
                let part = Tile { features: first, cols: whole * NR, ..*t };
                match (s.inner, s.residual) {
                    _ if !bytes => I::finish_floats(self, &part),
                    (0, 0) => I::finish_bytes::<false, false>(self, &part),
                    (0, _) => I::finish_bytes::<false, true>(self, &part),
                    (_, 0) => I::finish_bytes::<true, false>(self, &part),
                    (_, _) => I::finish_bytes::<true, true>(self, &part),
                }
            }
            if !last.is_empty() {
                let (sums, cols) = (t.sums.add(whole), t.cols - whole * NR);
                let part = Tile { sums, features: last, cols, at: t.at + whole * NR, ..*t };
                I::finish_sums(self, &part);
            }
        }
    }

    /// All of the stage for whole groups of columns, where it is [`Stage::floats`].
    ///
    /// # Safety
    /// As [`Sink::finish`]; the machine has the level.
    #[inline(always)]
    pub(crate) unsafe fn floats<I: Isa>(&self, t: &Tile) {
        // SAFETY: by the caller's contract.
        unsafe { with_lanes!(I, floats(self, t)) }
    }

    /// All of the stage for whole groups of tame columns, where the stage is [`Stage::plain`].
    ///
    /// # Safety
    /// As [`Sink::finish`]; the machine has the level.
    #[inline(always)]
    pub(crate) unsafe fn bytes<I: Isa, const INNER: bool, const RESIDUAL: bool>(&self, t: &Tile) {
        // SAFETY: by the caller's contract.
        unsafe { with_lanes!(I, bytes::<INNER, RESIDUAL>(self, t)) }
    }

    /// All of the stage for one tile.
    ///
    /// # Safety
    /// As [`Sink::finish`]; the machine has the level.
    #[inline(always)]
    pub(crate) unsafe fn tile<I: Isa>(&self, t: &Tile) {
        // SAFETY: by the caller's contract.
        unsafe { with_lanes!(I, tile(self, t)) }
    }
}

/// All of the stage for one tile.
///
/// # Safety
/// The buffers cover the tile; the machine has the level.
#[inline(always)]
unsafe fn tile<I: Isa, L: Counts>(sink: &Sink, t: &Tile) {
    let s = &sink.stage;
    let light = light(s.activation);
    // SAFETY: by the caller's contract; floats are written where sums were read.
    unsafe {
        for (q, f) in t.features.iter().enumerate() {
            let cols = (t.cols - q * NR).min(NR);
            let (scale, bias) = (L::load(f.scale.as_ptr()), L::load(f.bias.as_ptr()));
            for r in 0..t.rows {
                let sums = t.sums.add(r * t.step + q) as *mut i32;
                let at = t.at + r * t.ld + q * NR;
                if s.out == out::I32 {
                    for j in 0..NR {
                        *sums.add(j) = (*sums.add(j)).wrapping_add(f.add[j]);
                    }
                    std::ptr::copy_nonoverlapping(sums, (sink.c as *mut i32).add(at), cols);
                    continue;
                }
                let scale = match s.a_scale {
                    per::AXIS => L::splat(*sink.a_scale.add(t.row + r)).mul(scale),
                    _ => scale,
                };
                let y = L::of_sums(sums, f.add.as_ptr()).mul(scale);
                let y = if s.bias == bias::F32 { y.add(bias) } else { y };
                if light {
                    write::<I, L>(sink, bound(s.activation, s.p0, s.p1, y), f.tame, at, cols);
                } else {
                    y.store(sums as *mut f32);
                }
            }
        }
        if light || s.out == out::I32 {
            return;
        }
        // Many numbers at once, for these functions are long.
        let all = t.sums as *mut f32;
        I::activate(s.activation, s.p0, s.p1, all, t.rows * t.step * NR);
        for r in 0..t.rows {
            let row = all.add(r * t.step * NR);
            for (q, f) in t.features.iter().enumerate() {
                let cols = (t.cols - q * NR).min(NR);
                let at = t.at + r * t.ld + q * NR;
                write::<I, L>(sink, L::load(row.add(q * NR)), f.tame, at, cols);
            }
        }
    }
}

/// [`Sink::floats`] with the vectors of a level.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn floats<I: Isa, L: Counts>(sink: &Sink, t: &Tile) {
    let s = &sink.stage;
    let (by_row, biased) = (s.a_scale == per::AXIS, s.bias == bias::F32);
    let c = sink.c as *mut f32;
    // SAFETY: by the caller's contract.
    unsafe {
        for (q, f) in t.features.iter().enumerate() {
            let (scale, bias) = (L::load(f.scale.as_ptr()), L::load(f.bias.as_ptr()));
            let (mut sums, mut at) = (t.sums.add(q) as *const i32, t.at + q * NR);
            for r in 0..t.rows {
                let own =
                    if by_row { L::splat(*sink.a_scale.add(t.row + r)).mul(scale) } else { scale };
                let y = L::of_sums(sums, f.add.as_ptr()).mul(own);
                let y = if biased { y.add(bias) } else { y };
                y.store(c.add(at));
                (sums, at) = (sums.add(t.step * NR), at + t.ld);
            }
        }
    }
}

/// [`Sink::bytes`] with the vectors of a level.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn bytes<I: Isa, L: Counts, const INNER: bool, const RESIDUAL: bool>(sink: &Sink, t: &Tile) {
    let s = sink.stage;
    let flip = if s.residual == out::I8 { 0x80 } else { 0 };
    let zp = s.residual_zp as i32 + flip as i32;
    let (output, inner) = (sink.output, sink.inner);
    // SAFETY: by the caller's contract.
    unsafe {
        let by = L::splat(s.residual_scale);
        for (q, f) in t.features.iter().enumerate() {
            let (scale, bias) = (L::load(f.scale.as_ptr()), L::load(f.bias.as_ptr()));
            let (mut sums, mut at) = (t.sums.add(q) as *const i32, t.at + q * NR);
            for _ in 0..t.rows {
                let mut y = L::of_sums(sums, f.add.as_ptr()).mul(scale).add(bias);
                if INNER {
                    y = inner.through::<I, L>(y, true);
                }
                if RESIDUAL {
                    y = y.add(L::of_bytes(sink.residual.add(at), flip, zp).mul(by));
                }
                output.bytes::<I, L>(y, true, sink.c.add(at));
                (sums, at) = (sums.add(t.step * NR), at + t.ld);
            }
        }
    }
}

/// What follows the activation.
///
/// # Safety
/// The output, and the residual if there is one, have `cols` elements from `at`; the machine has the level.
#[inline(always)]
unsafe fn write<I: Isa, L: Counts>(sink: &Sink, mut y: L, tame: bool, at: usize, cols: usize) {
    let s = &sink.stage;
    // SAFETY: by the caller's contract; a row's part goes through an array.
    unsafe {
        if s.inner != 0 {
            y = sink.inner.through::<I, L>(y, tame);
        }
        if s.residual == out::F32 {
            y = y.add(L::load_part((sink.residual as *const f32).add(at), cols));
        } else if s.residual != 0 {
            let mut part = [0u8; NR];
            let mut from = sink.residual.add(at);
            if cols < NR {
                std::ptr::copy_nonoverlapping(from, part.as_mut_ptr(), cols);
                from = part.as_ptr();
            }
            // Signed bytes are moved up by 128, and their zero point with them.
            let flip = if s.residual == out::I8 { 0x80 } else { 0 };
            let r = L::of_bytes(from, flip, s.residual_zp as i32 + flip as i32);
            y = y.add(r.mul(L::splat(s.residual_scale)));
        }
        y = bound(s.last, s.q0, s.q1, y);
        if s.out == out::F32 {
            y.store_part((sink.c as *mut f32).add(at), cols);
        } else if cols == NR {
            sink.output.bytes::<I, L>(y, tame, sink.c.add(at));
        } else {
            let mut part = [0u8; NR];
            sink.output.bytes::<I, L>(y, tame, part.as_mut_ptr());
            std::ptr::copy_nonoverlapping(part.as_ptr(), sink.c.add(at), cols);
        }
    }
}

/// Below which bound of what is scaled nothing behind it is infinite or not a number; 0 if that cannot be said.
#[inline(always)]
fn room(s: &Stage, output: &Steps, inner: &Steps) -> f32 {
    /// A number whose products with bytes are finite.
    const LARGE: f32 = 1e30;
    let clips = |code: usize, p0: f32, p1: f32| {
        code != activation::CLIP || p0.abs().max(p1.abs()) < LARGE * output.scale
    };
    let shrinks = !matches!(s.activation, activation::LEAKY_RELU | activation::HARD_SIGMOID);
    let quantised = s.out > out::F32;
    let residual = match s.residual {
        0 => 0.0,
        out::F32 => return 0.0,
        _ => s.residual_scale.abs() * 512.0,
    };
    let most = LARGE * output.scale;
    let fits = residual < most && s.inner_scale < most;
    if quantised && !(output.usual() && fits)
        || s.inner != 0 && !inner.usual()
        || !shrinks
        || !clips(s.activation, s.p0, s.p1)
        || !clips(s.last, s.q0, s.q1)
    {
        return 0.0;
    }
    let first = if s.inner != 0 { inner.scale } else { output.scale };
    LARGE * first.min(1.0)
}
