//! Prints the rate of the packed f32 and i8 products of 1024³, one thread, and of a few odd shapes.

use std::time::Instant;

use silure_kernels_cpu::abi::{Ctx, Kernel};
use silure_kernels_cpu::gemm::{int8::MatmulI8, matmul::Matmul};
use silure_kernels_cpu::{detect_isa, find};

fn rate(k: &Kernel, sizes: &[i64], bufs: &[*mut u8]) -> f64 {
    let ctx = Ctx { helpers: std::ptr::null(), isa: detect_isa(), threads: 1 };
    let mut scratch = vec![0u128; (k.scratch)(sizes) / 16 + 8];
    let scratch = scratch.as_mut_ptr() as *mut u8;
    // SAFETY: at most 63 bytes further, and the vector has 128 more than needed.
    let scratch = unsafe { scratch.add(scratch.align_offset(64)) };
    let mut best = f64::INFINITY;
    for _ in 0..7 {
        let start = Instant::now();
        // SAFETY: `main` passes buffers of the sizes it states.
        let status = unsafe {
            k.entry(ctx.isa)(&ctx, bufs.as_ptr(), sizes.as_ptr(), 0, (k.tasks)(sizes), scratch)
        };
        assert_eq!(status, 0);
        best = best.min(start.elapsed().as_secs_f64());
    }
    (k.flops)(sizes) as f64 / best / 1e9
}

fn main() {
    let null = std::ptr::null_mut();
    for (m, n, k) in
        [(1024usize, 1024usize, 1024usize), (1, 1024, 1024), (4, 1536, 384), (128, 384, 1536)]
    {
        let mut a = vec![0.5f32; m * k];
        let mut b = vec![0.25f32; k * n.div_ceil(16) * 16];
        let mut c = vec![0f32; m * n];
        let (a, b, c) =
            (a.as_mut_ptr() as *mut u8, b.as_mut_ptr() as *mut u8, c.as_mut_ptr() as *mut u8);
        let f32_bufs = [a, b, null, null, null, c];
        let i8_bufs = [a, b, null, null, null, null, null, null, null, c];
        let s = Matmul::dense(m, n, k).to_vec();
        let i = MatmulI8::dense(m, n, k).to_vec();
        for name in ["matmul.f32.packed", "matmul.f32", "matmul.i8.packed", "matmul.i8"] {
            let Some(kernel) = find(name) else { continue };
            let r = if name.contains("i8") {
                rate(kernel, &i, &i8_bufs)
            } else {
                rate(kernel, &s, &f32_bufs)
            };
            println!("{name:20} {m}x{n}x{k}: {r:8.1} G/s");
        }
    }
}
