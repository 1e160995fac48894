//! Kernels for the tests, and buffers of numbers on a device.

#![allow(dead_code, reason = "each test uses a part")]

pub mod plans;

use std::sync::Arc;

use silure_cuda_device::{Cuda, Which};
use silure_engine::{DeviceCode, DeviceKernel};
use silure_runtime::{Accelerator, Address, Queue};

/// The emulator, in place of a driver.
pub fn device() -> Arc<Cuda> {
    Cuda::open(Which::Emulated).unwrap()
}

/// A text with one kernel.
pub fn code(text: &str, name: &str, threads: u32, shared: u32) -> DeviceCode {
    let kernel = DeviceKernel { name: name.into(), threads, shared, params: 4, text: text.into() };
    DeviceCode { kernels: vec![kernel] }
}

/// `y = softmax(x)` over the rows of a matrix: blocks of 64 threads, 8 rows each; parameters x, y, rows, n.
pub fn softmax() -> DeviceCode {
    let text = include_str!("../../../../backends/cuda/tests/golden/softmax.ptx");
    code(text, "softmax", 64, 0)
}

/// Puts numbers where they are wanted.
pub fn put(q: &dyn Queue, to: Address, x: &[f32]) {
    // SAFETY: the numbers stay until the queue has been synchronised.
    unsafe { q.copy_in(to, x.as_ptr().cast(), 4 * x.len() as u64) }.unwrap();
    q.synchronize().unwrap();
}

/// Numbers that are there.
pub fn get(q: &dyn Queue, from: Address, n: usize) -> Vec<f32> {
    let mut x = vec![f32::NAN; n];
    // SAFETY: as above.
    unsafe { q.copy_out(x.as_mut_ptr().cast(), from, 4 * n as u64) }.unwrap();
    q.synchronize().unwrap();
    x
}

/// Memory with these numbers.
pub fn new(d: &dyn Accelerator, q: &dyn Queue, x: &[f32]) -> Address {
    let at = d.alloc(4 * x.len() as u64).unwrap();
    put(q, at, x);
    at
}

/// Numbers that differ, of a size that an exponential bears.
pub fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 + seed * 101) % 97) as f32 / 13.0 - 3.0).collect()
}

/// What the kernel should give.
pub fn softmax_of(x: &[f32], n: usize) -> Vec<f32> {
    let row = |r: &[f32]| {
        let most = r.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
        let e: Vec<f64> = r.iter().map(|v| (*v as f64 - most).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.into_iter().map(|v| (v / sum) as f32).collect::<Vec<_>>()
    };
    x.chunks(n).flat_map(row).collect()
}

/// Fails unless numbers are the same to a few units in the last place.
pub fn close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= 2e-6 * b.abs() + 1e-9, "at {i}: {a} and {b}");
    }
}
