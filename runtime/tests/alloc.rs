//! For dims seen before, a run into the caller's buffers allocates nothing.

mod common;

use common::*;
use silure_runtime::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

struct Counting;
static CALLS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// A program of its own, without the test harness: no other thread allocates meanwhile.
fn main() {
    runs_for_known_dims_allocate_nothing();
    println!("test runs_for_known_dims_allocate_nothing ... ok");
}

fn runs_for_known_dims_allocate_nothing() {
    let engine = load(loop_plan());
    for threads in [1, 2] {
        let pool = Arc::new(Pool::new(threads));
        // Threads allocate when they start: all of them meet here before anything is counted.
        let met = AtomicU64::new(0);
        pool.run(threads as u64, 1, &|begin, end, _| {
            met.fetch_add(end - begin, Relaxed);
            while met.load(Relaxed) < threads as u64 {
                std::thread::yield_now();
            }
        });
        let options = SessionOptions { pool: Some(pool), memory_limit: None };
        let mut s = Session::with(&engine, options).unwrap();
        let sets: Vec<_> = [1000usize, 40_000]
            .iter()
            .map(|&n| {
                let x = Tensor::f32(&[n], &vec![1.0; n]).unwrap();
                (x, Tensor::i64(&[1], &[5]).unwrap(), Tensor::f32(&[n], &vec![0.0; n]).unwrap())
            })
            .collect();
        let options = RunOptions { timeout: Some(Duration::from_secs(60)), ..Default::default() };
        let mut outputs: Vec<Tensor> = sets.iter().map(|s| s.2.clone()).collect();
        let mut turn = |s: &mut Session| {
            for ((x, turns, _), y) in sets.iter().zip(&mut outputs) {
                let inputs = [x.view(), x.view(), turns.view()];
                s.run_into(0, &inputs, &mut [y.view_mut()], &options).unwrap();
            }
        };
        turn(&mut s);
        turn(&mut s);
        let before = CALLS.load(Relaxed);
        for _ in 0..10 {
            turn(&mut s);
        }
        assert_eq!(CALLS.load(Relaxed) - before, 0, "{threads} threads");
        assert!(outputs[1].to_f64().iter().all(|&v| v == 6.0));
    }
}
