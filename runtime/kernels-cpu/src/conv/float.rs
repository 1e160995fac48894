//! `conv.f32`: grouped, strided, dilated, padded; depthwise goes to [`super::direct`].
//!
//! Buffers: `x`, `w` (row-major `[O, C/groups, kernel]`), `bias` (per output channel), `residual`
//! (layout of y), `callback`, `y`. Callback rows count image · O + channel, columns are pixels.

use super::{Window, direct};
use crate::abi::OK;
use crate::gemm::core::{self, Block, Cut, Grid, Panels, Strided};
use crate::gemm::epilogue::{Bound, Epilogue};
use crate::gemm::matmul::callback;
use crate::gemm::{NR, epilogue};
use crate::isa::{Call, Isa, kernel};
use crate::schedule::{Knobs, Schedule};

/// Most output channels of a task: columns are built once for so many.
const MAX_ROWS: usize = 192;
/// With at most so many output channels, a pointwise convolution reads the input in place.
const IN_PLACE_ROWS: usize = 12;

sizes! {
    /// Sizes of `conv.f32`.
    pub struct Conv {
        /// The geometry.
        pub window: Window,
        /// What is done to the output; a bias is per row.
        pub epilogue: Epilogue,
        /// Elements of y from pixel to pixel, where y is a slice of the channels of a larger tensor with
        /// channels last; 0 where it is not.
        pub y_row: usize,
        /// The slice's first element.
        pub y_at: usize,
        /// How it is cut; of channels last [`Knobs::PACKED`], depthwise [`Knobs::DEPTHWISE`], of channels first
        /// [`Knobs::BUILT`].
        pub schedule: Schedule,
    }
}

impl Conv {
    /// A convolution with an output of its own.
    pub fn whole(window: Window, epilogue: Epilogue) -> Conv {
        Conv { window, epilogue, y_row: 0, y_at: 0, schedule: Schedule::DEFAULT }
    }

    /// Whether the output is a tensor of its own, which is all that most kernels write.
    #[inline(always)]
    pub fn is_whole(&self) -> bool {
        self.y_row == 0 && self.y_at == 0
    }

    #[inline(always)]
    fn grid(&self) -> Grid {
        let w = &self.window;
        Grid::new(w.out_channels, w.y_plane(), w.depth(), MAX_ROWS, &self.schedule)
    }

    /// Whether each group has one input channel.
    #[inline(always)]
    fn is_depthwise(&self) -> bool {
        self.window.in_channels == 1 && self.window.groups > 1
    }

    fn tasks(&self) -> usize {
        let w = &self.window;
        if w.y_plane() == 0 {
            0
        } else if self.is_depthwise() {
            w.batch * w.groups * w.out_channels
        } else {
            w.batch * w.groups * self.grid().tasks()
        }
    }

    fn scratch(&self) -> usize {
        let cut = Cut::of(&self.schedule);
        core::cut_scratch_bytes(&cut, self.grid().max_rows(), self.window.depth(), true, false)
    }
}

/// Columns of one group, built on demand.
struct Columns<'a> {
    window: &'a Window,
    x: *const f32,
}

impl Panels for Columns<'_> {
    #[inline(always)]
    unsafe fn panel<I: Isa>(
        &self,
        k0: usize,
        kc: usize,
        n0: usize,
        cols: usize,
        buf: *mut f32,
    ) -> (*const f32, usize) {
        // SAFETY: by the trait's contract.
        unsafe {
            self.window.fill(self.x, (k0, kc), (n0, cols), |v: f32| v, |r| buf.add(r * NR), 1);
        }
        (buf, NR)
    }
}

#[inline(always)]
unsafe fn body<I: Isa>(s: &Conv, call: &Call) -> i32 {
    let w = &s.window;
    let (xp, yp, depth) = (w.x_plane(), w.y_plane(), w.depth());
    let bufs = call.bufs;
    let (grid, cut) = (s.grid(), Cut::of(&s.schedule));
    let per = if s.is_depthwise() { w.out_channels } else { grid.tasks() };
    // SAFETY: by the ABI the buffers cover the problem that `s` describes.
    unsafe {
        let (x, weights) = (bufs.get::<f32>(0), bufs.get::<f32>(1));
        let y = bufs.get::<f32>(5);
        for t in call.begin..call.end {
            let (image, group) = (t / per / w.groups, t / per % w.groups);
            let channel = group * w.out_channels;
            let out = (image * w.groups * w.out_channels + channel) * yp;
            let bias = bufs.get::<f32>(2);
            let residual = bufs.get::<f32>(3);
            let epi = Bound {
                spec: s.epilogue,
                bias: if s.epilogue.bias == epilogue::bias::NONE {
                    bias
                } else {
                    bias.add(channel)
                },
                residual: if s.epilogue.residual { residual.add(out) } else { residual },
                callback: if s.epilogue.callback { callback(bufs, 4) } else { None },
                ctx: call.ctx,
                bufs: bufs.0,
                sizes: call.sizes.add(Conv::LEN),
                row_base: image * w.groups * w.out_channels + channel,
            };
            let x = x.add((image * w.groups + group) * w.in_channels * xp);
            let a = weights.add(channel * depth);
            if s.is_depthwise() {
                let c = t % per;
                direct::plane::<I>(w, x, a.add(c * depth), y.add(out), c, &epi);
                continue;
            }
            let (m, n) = grid.block(t % per);
            let (a_row, c) = (depth as i64, y.add(out));
            let g = Block { a, a_row, a_col: 1, c, ldc: yp, m, n, k: depth };
            if w.is_pointwise() {
                let in_place = w.out_channels <= IN_PLACE_ROWS;
                let b = Strided { b: x, row: xp as i64, col: 1, in_place };
                core::run_cut::<I, _>(&cut, &g, &b, true, &epi, call.scratch);
            } else {
                let b = Columns { window: w, x };
                core::run_cut::<I, _>(&cut, &g, &b, true, &epi, call.scratch);
            }
        }
    }
    OK
}

kernel!(CONV_F32 = "conv.f32", Conv, bufs 6,
    "f32 convolution, NC(D)(H)W. Buffers x, w, bias, residual, callback, y; sizes `Conv`.",
    check |s| s.window.valid() && s.epilogue.valid() && s.is_whole() && Knobs::BUILT.allows(&s.schedule),
    tasks |s| s.tasks(),
    scratch |s| s.scratch(), flops |s| s.window.flops(), body body);
