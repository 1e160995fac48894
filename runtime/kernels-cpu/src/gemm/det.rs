//! Determinants: `det.f32`, `det.f64`.

use crate::abi::OK;
use crate::isa::{Call, Isa, align64, kernel};

sizes! {
    /// Sizes of `det.*`.
    pub struct Det {
        /// Matrices.
        pub batch: usize,
        /// Rows and columns of each.
        pub n: usize,
    }
}

#[inline(always)]
unsafe fn det<I: Isa, T: Copy + Into<f64>, const NARROW: bool>(s: &Det, call: &Call) -> i32 {
    let n = s.n;
    // SAFETY: x holds `batch × n × n` elements, y `batch`, scratch `n × n` f64.
    unsafe {
        let a = std::slice::from_raw_parts_mut(call.scratch as *mut f64, n * n);
        for m in call.begin..call.end {
            let x = call.bufs.get::<T>(0).add(m * n * n);
            a.iter_mut().enumerate().for_each(|(i, v)| *v = (*x.add(i)).into());
            let mut det = 1.0;
            for k in 0..n {
                // The row with the greatest element of the column.
                let mut pivot = k;
                for i in k + 1..n {
                    if a[i * n + k].abs() > a[pivot * n + k].abs() {
                        pivot = i;
                    }
                }
                if pivot != k {
                    (0..n).for_each(|j| a.swap(k * n + j, pivot * n + j));
                    det = -det;
                }
                let top = a[k * n + k];
                det *= top;
                if top == 0.0 {
                    break;
                }
                for i in k + 1..n {
                    let f = a[i * n + k] / top;
                    (k..n).for_each(|j| a[i * n + j] -= f * a[k * n + j]);
                }
            }
            match NARROW {
                true => *call.bufs.get::<f32>(1).add(m) = det as f32,
                false => *call.bufs.get::<f64>(1).add(m) = det,
            }
        }
    }
    OK
}

fn bytes(s: &Det) -> usize {
    align64(s.n.saturating_mul(s.n).saturating_mul(8))
}

kernel!(DET_F32 = "det.f32", Det, bufs 2,
    "Determinants by elimination with row pivots, in f64. Buffers x, y; sizes `Det`.",
    check |_| true, tasks |s| s.batch, scratch |s| bytes(s),
    flops |s| (s.batch * s.n * s.n * s.n) as u64, body det::<f32, true>);
kernel!(DET_F64 = "det.f64", Det, bufs 2,
    "Determinants by elimination with row pivots. Buffers x, y; sizes `Det`.",
    check |_| true, tasks |s| s.batch, scratch |s| bytes(s),
    flops |s| (s.batch * s.n * s.n * s.n) as u64, body det::<f64, false>);
