//! Prints the rates of the main kernels on one thread: products, convolutions, rows.
//!
//! An argument limits it to the lines that contain it, for example `1024x1024x1024`.
//!
//! Each figure is the best of several runs. `G/s` counts the kernel's own operations
//! ([`Kernel::flops`]), `GB/s` the bytes of its buffers.

use std::time::Instant;

use silure_kernels_cpu::abi::{Ctx, Kernel};
use silure_kernels_cpu::conv::Window;
use silure_kernels_cpu::conv::float::Conv;
use silure_kernels_cpu::gemm::epilogue::{Epilogue, activation};
use silure_kernels_cpu::gemm::int8::MatmulI8;
use silure_kernels_cpu::gemm::matmul::Matmul;
use silure_kernels_cpu::gemm::stage::{self, Stage};
use silure_kernels_cpu::rows::norm::Norm;
use silure_kernels_cpu::rows::softmax::Softmax;
use silure_kernels_cpu::{detect_isa, find};

/// Seconds of the best run; `lens` are the bytes of the buffers, 0 for a missing one.
fn time(k: &Kernel, sizes: &[i64], lens: &[usize]) -> f64 {
    let ctx =
        Ctx { helpers: std::ptr::null(), isa: detect_isa(), threads: 1, strings: std::ptr::null() };
    let mut memory: Vec<Vec<u64>> =
        lens.iter().map(|n| vec![0x3E00_0000_3E00_0000; n.div_ceil(8) + 8]).collect();
    let bufs: Vec<*mut u8> = memory
        .iter_mut()
        .zip(lens)
        .map(|(m, n)| {
            let p = m.as_mut_ptr() as *mut u8;
            if *n == 0 { std::ptr::null_mut() } else { p.wrapping_add(p.align_offset(64)) }
        })
        .collect();
    let mut scratch = vec![0u128; (k.scratch)(sizes) / 16 + 8];
    let scratch = scratch.as_mut_ptr() as *mut u8;
    // SAFETY: at most 63 bytes further, and the vector has 128 more than needed.
    let scratch = unsafe { scratch.add(scratch.align_offset(64)) };
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    while begin.elapsed().as_millis() < 300 {
        let start = Instant::now();
        // SAFETY: `main` states the buffers' extents as the kernel documents them.
        let status = unsafe {
            k.entry(ctx.isa)(&ctx, bufs.as_ptr(), sizes.as_ptr(), 0, (k.tasks)(sizes), scratch)
        };
        assert_eq!(status, 0);
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

fn show(name: &str, what: &str, sizes: &[i64], lens: &[usize]) {
    let Some(k) = find(name) else { return };
    if std::env::args().nth(1).is_some_and(|f| !format!("{name} {what}").contains(&f)) {
        return;
    }
    let t = time(k, sizes, lens);
    let bytes: usize = lens.iter().sum();
    println!(
        "{name:18} {what:34} {:9.1} µs {:7.1} G/s {:6.1} GB/s",
        t * 1e6,
        (k.flops)(sizes) as f64 / t / 1e9,
        bytes as f64 / t / 1e9
    );
}

fn main() {
    for (m, n, k) in [
        (1024usize, 1024usize, 1024usize),
        (1, 1024, 1024),
        (4, 1536, 384),
        (128, 384, 1536),
        (100, 100, 32usize),
    ] {
        let what = format!("{m}x{n}x{k}");
        let wide = n.div_ceil(16usize) * 16;
        let s = Matmul::dense(m, n, k).to_vec();
        let lens = [m * k * 4, k * wide * 4, 0, 0, 0, m * n * 4];
        show("matmul.f32.packed", &what, &s, &lens);
        show("matmul.f32", &what, &s, &lens);
        let mut s = MatmulI8::dense(m, n, k);
        let lens = [m * k, (k + 8) * wide, 0, 0, 4, 4, 0, 0, 0, 0, m * n * 4];
        show("matmul.i8.packed", &what, &s.to_vec(), &lens);
        s.stage = Stage { out: stage::out::F32, a_scale: 1, b_scale: 1, ..Stage::SUMS };
        show("matmul.i8.packed", &format!("{what} to f32"), &s.to_vec(), &lens);
        show("matmul.i8", &what, &s.to_vec(), &lens);
    }
    let mut s = Matmul::dense(128, 1536, 384);
    s.epilogue.activation = activation::GELU_ERF;
    let lens = [128 * 384 * 4, 384 * 1536 * 4, 0, 0, 0, 128 * 1536 * 4];
    show("matmul.f32.packed", "128x1536x384 gelu", &s.to_vec(), &lens);
    for (what, groups, ic, oc, side, k, stride) in [
        ("64 to 64, 56², 3×3", 1, 64, 64, 56usize, 3usize, 1usize),
        ("3 to 32, 224², 3×3/2", 1, 3, 32, 224, 3, 2),
        ("128 to 128, 28², 1×1", 1, 128, 128, 28, 1, 1),
        ("depthwise 96, 56², 3×3", 96, 1, 1, 56, 3, 1),
        ("depthwise 96, 56², 5×5/2", 96, 1, 1, 56, 5, 2),
    ] {
        let pad = k as i64 / 2;
        let out = (side + 2 * pad as usize - k) / stride + 1;
        let window = Window {
            batch: 1,
            groups,
            in_channels: ic,
            out_channels: oc,
            x: [1, side, side],
            y: [1, out, out],
            kernel: [1, k, k],
            stride: [1, stride, stride],
            dilation: [1; 3],
            pad: [0, pad, pad],
        };
        let s = Conv::whole(window, Epilogue::NONE).to_vec();
        let weights = groups * oc * ic * k * k * 4;
        let lens = [groups * ic * side * side * 4, weights, 0, 0, 0, groups * oc * out * out * 4];
        show("conv.f32", what, &s, &lens);
    }
    let (rows, len) = (512, 384);
    let bytes = rows * len * 4;
    show("softmax.f32", "512x384", &Softmax { rows, len }.to_vec(), &[bytes, bytes]);
    let s = Norm { rows, len, epsilon: 1e-5 }.to_vec();
    show("layer_norm.f32", "512x384", &s, &[bytes, len * 4, len * 4, bytes, 0, 0]);
}
