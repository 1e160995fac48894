//! `gather.u4`, `.i8`, `.e4m3`: columns of a matrix in a narrow type that is packed for products, by number.
//!
//! A table whose rows are looked up and which is the transposed right side of a product is stored once. Buffers:
//! `q` (in its packed layout), `indices`, `scale` and `offset` (f32 NR=16 KR=1 of one row a block, f16 in kernels
//! whose names end in `.f16`; offsets may be missing), `y`. Row `t` of y is column `indices[t]` of
//! `(q − center) · scale − offset`.

use super::NR;
use super::blocks::Source;
use super::dot;
use crate::abi::{INDEX_OUT_OF_RANGE, OK};
use crate::isa::{Call, Isa, kernel};
use crate::movement::index;

sizes! {
    /// Sizes of a lookup in a packed table.
    pub struct Lookup {
        /// Columns of the matrix, rows of the table.
        pub n: usize,
        /// Elements of a row of the table.
        pub k: usize,
        /// Number of indices.
        pub indices: usize,
        /// Indices are i64 rather than i32.
        pub wide: bool,
        /// Elements with one scale; of 4 bits a multiple of 8, or at least K.
        pub block: usize,
        /// What is taken off each integer.
        pub center: f32,
        /// There are offsets.
        pub offsets: bool,
    }
}

impl Lookup {
    fn valid(&self, store: usize) -> bool {
        let whole = store != dot::U4 || self.block.is_multiple_of(8) || self.block >= self.k;
        self.block > 0 && whole
    }

    /// Indices of one task: about 64 KiB of output.
    fn per_task(&self) -> usize {
        (16_384 / self.k.max(1)).clamp(1, 8192)
    }
}

#[inline(always)]
unsafe fn body<I: Isa, const STORE: usize, const HALF: bool>(s: &Lookup, call: &Call) -> i32 {
    let per = s.per_task();
    // SAFETY: by the ABI the buffers cover the table, the indices and y.
    unsafe {
        let offset = if s.offsets { call.bufs.get::<u8>(3) } else { std::ptr::null_mut() };
        let table = Source::<STORE, HALF> {
            q: call.bufs.get(0),
            scale: call.bufs.get(2),
            offset,
            k: s.k,
            block: s.block,
            center: s.center,
        };
        let (ix, y) = (call.bufs.get::<u8>(1), call.bufs.get::<f32>(4));
        for t in call.begin * per..(call.end * per).min(s.indices) {
            let Some(row) = index(ix, s.wide, t, s.n) else { return INDEX_OUT_OF_RANGE };
            let (q, scale, offset) = table.at(row / NR * NR);
            let to = y.add(t * s.k);
            for (g, k0) in (0..s.k).step_by(s.block).enumerate() {
                let at = g * NR + row % NR;
                let scale = dot::factor::<HALF>(scale, at);
                let rest = match offset.is_null() {
                    true => 0.0,
                    false => dot::factor::<HALF>(offset, at),
                };
                for i in k0..(k0 + s.block).min(s.k) {
                    let v = dot::element::<STORE>(q, i, row % NR);
                    *to.add(i) = I::fma(v - s.center, scale, -rest);
                }
            }
        }
    }
    OK
}

macro_rules! lookup {
    ($id:ident = $name:literal, $store:expr, $half:literal, $doc:literal) => {
        kernel!($id = $name, Lookup, bufs 5, $doc,
            check |s| s.valid($store), tasks |s| s.indices.div_ceil(s.per_task()),
            scratch |_| 0, flops |_| 0, body body::<{ $store }, $half>);
    };
}

lookup!(
    GATHER_U4 = "gather.u4",
    dot::U4,
    false,
    "Rows of a table of 4-bit integers scaled by blocks, layout u4 NR=16 KR=8. Buffers q, indices, scale, offset, y; sizes `Lookup`."
);
lookup!(
    GATHER_U4_F16 = "gather.u4.f16",
    dot::U4,
    true,
    "Rows of a table of 4-bit integers scaled by blocks in f16, layout u4 NR=16 KR=8. Buffers q, indices, scale, offset, y; sizes `Lookup`."
);
lookup!(
    GATHER_I8 = "gather.i8",
    dot::I8,
    false,
    "Rows of a table of signed bytes scaled by blocks, layout i8 NR=16 KR=1. Buffers q, indices, scale, offset, y; sizes `Lookup`."
);
lookup!(
    GATHER_I8_F16 = "gather.i8.f16",
    dot::I8,
    true,
    "Rows of a table of signed bytes scaled by blocks in f16, layout i8 NR=16 KR=1. Buffers q, indices, scale, offset, y; sizes `Lookup`."
);
lookup!(
    GATHER_E4M3 = "gather.e4m3",
    dot::E4M3,
    false,
    "Rows of a table of 8-bit floats scaled by blocks, layout e4m3fn NR=16 KR=1. Buffers q, indices, scale, offset, y; sizes `Lookup`."
);
