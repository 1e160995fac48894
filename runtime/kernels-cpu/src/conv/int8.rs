//! `conv.i8`: exact 8-bit convolution with zero points, on the i16 tile.
//!
//! Buffers: `x`, `w` (row-major `[O, C/groups, kernel]`), `x_zp`, `w_zp` (tensor or per output
//! channel), `x_scale`, `w_scale` (tensor or per output channel), `bias`, `y_scale`, `y_zp`, `residual`, `y`.
//! Pads count as the zero point. The output stage is [`Stage`] with features along rows.

use super::Window;
use crate::abi::OK;
use crate::gemm::core::Grid;
use crate::gemm::stage::{Sink, Stage, Tile, per, widen};
use crate::gemm::tile16::{Panels16, run16, widen_rows};
use crate::isa::{Call, Isa, align64, kernel};
use crate::schedule::{Knobs, Schedule};

const MAX_ROWS: usize = 96;

sizes! {
    /// Sizes of `conv.i8`.
    pub struct ConvI8 {
        /// The geometry.
        pub window: Window,
        /// x is i8 rather than u8.
        pub x_signed: bool,
        /// w is i8 rather than u8.
        pub w_signed: bool,
        /// x has a zero point.
        pub x_zp: bool,
        /// Indexing of w's zero point, a code of [`per`] (axis: output channel).
        pub w_zp: usize,
        /// The output stage (`a_scale`: x, tensor alone; `b_scale`: w).
        pub stage: Stage,
        /// How it is cut; [`Knobs::BYTES`].
        pub schedule: Schedule,
    }
}

impl ConvI8 {
    #[inline(always)]
    fn grid(&self) -> Grid {
        let w = &self.window;
        Grid::new(w.out_channels, w.y_plane(), w.depth(), MAX_ROWS, &self.schedule)
    }

    #[inline(always)]
    fn panel_bytes(&self) -> usize {
        align64(self.window.depth().div_ceil(2).saturating_mul(64))
    }

    fn scratch(&self) -> usize {
        let row = self.window.depth().div_ceil(2).saturating_mul(4);
        self.panel_bytes().saturating_add(align64(row.saturating_mul(self.grid().max_rows())))
    }

    pub(super) fn valid(&self) -> bool {
        self.window.valid() && self.w_zp <= 2 && self.stage.valid() && self.stage.a_scale <= 1
    }
}

struct Columns<'a> {
    window: &'a Window,
    x: *const u8,
    signed: bool,
    zp: i16,
}

impl Panels16 for Columns<'_> {
    #[inline(always)]
    unsafe fn build(&self, n0: usize, cols: usize, buf: *mut i16) {
        let k = self.window.depth();
        let (signed, zp) = (self.signed, self.zp);
        // SAFETY: by the trait's contract.
        unsafe {
            let slot = |r: usize| buf.add(r / 2 * 32 + r % 2);
            let convert = |v: u8| widen(v, signed) - zp;
            self.window.fill(self.x, (0, k), (n0, cols), convert, slot, 2);
            if k % 2 == 1 {
                for j in 0..16 {
                    *slot(k).add(2 * j) = 0;
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn body<I: Isa>(s: &ConvI8, call: &Call) -> i32 {
    let w = &s.window;
    let (xp, yp, depth) = (w.x_plane(), w.y_plane(), w.depth());
    let pairs = depth.div_ceil(2);
    let grid = s.grid();
    let per_group = grid.tasks();
    let bufs = call.bufs;
    // SAFETY: by the ABI the buffers cover the problem that `s` describes.
    unsafe {
        let (x, weights) = (bufs.get::<u8>(0), bufs.get::<u8>(1));
        let w_zp = bufs.get::<u8>(3);
        let zp = if s.x_zp { widen(*bufs.get::<u8>(2), s.x_signed) } else { 0 };
        let buf = call.scratch as *mut i16;
        let rows = call.scratch.add(s.panel_bytes()) as *mut i16;
        for t in call.begin..call.end {
            let (image, group) = (t / per_group / w.groups, t / per_group % w.groups);
            let (m, n) = grid.block(t % per_group);
            let channel = group * w.out_channels;
            let sink = Sink::new(s.stage, bufs, channel);
            let row_zp = |r: usize| match s.w_zp {
                per::NONE => 0,
                per::TENSOR => widen(*w_zp, s.w_signed),
                _ => widen(*w_zp.add(channel + m.0 + r), s.w_signed),
            };
            let a = weights.add((channel + m.0) * depth);
            let strides = (depth as isize, 1);
            widen_rows(a, strides, m.1 - m.0, depth, s.w_signed, row_zp, rows);
            let first = (image * w.groups * w.out_channels + channel) * yp;
            let x = x.add((image * w.groups + group) * w.in_channels * xp);
            let columns = Columns { window: w, x, signed: s.x_signed, zp };
            run16::<I, _>(rows, pairs, m, n, &columns, buf, |r, col, count, cols, sums| {
                for i in 0..count {
                    let (row, features) = (r + i, [sink.feature(r + i)]);
                    let t = Tile {
                        sums: &mut sums[i],
                        step: 1,
                        rows: 1,
                        cols,
                        features: &features,
                        row,
                        at: first + row * yp + col,
                        ld: yp,
                    };
                    sink.finish::<I>(&t);
                }
            });
        }
    }
    OK
}

kernel!(CONV_I8 = "conv.i8", ConvI8, bufs 11,
    "Exact 8-bit convolution. Buffers x, w, x_zp, w_zp, x_scale, w_scale, bias, y_scale, y_zp, residual, y; sizes `ConvI8`.",
    check |s| s.valid() && Knobs::BYTES.allows(&s.schedule), tasks |s| s.window.batch * s.window.groups * s.grid().tasks(),
    scratch |s| s.scratch(), flops |s| s.window.flops(), body body);
