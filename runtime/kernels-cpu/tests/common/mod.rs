//! Runs a kernel the ways the runtime may: every level this machine has, whole and task by task.

#![allow(dead_code, reason = "each test file uses a part")]

use silure_kernels_cpu::abi::Ctx;
use silure_kernels_cpu::{detect_isa, find, levels};

/// A small deterministic generator.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    pub fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 33) % n as u64) as usize
    }
    /// Uniform in −1..1.
    pub fn float(&mut self) -> f32 {
        ((self.next() >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    }
    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| (self.next() >> 50) as u8).collect()
    }
}

/// A value that can stand in a buffer.
pub trait Pod: Copy {
    fn push(self, out: &mut Vec<u8>);
    fn read(b: &[u8]) -> Self;
}
macro_rules! pods {
    ($($t:ty)*) => { $(impl Pod for $t {
        fn push(self, out: &mut Vec<u8>) {
            out.extend(self.to_le_bytes());
        }
        fn read(b: &[u8]) -> $t {
            <$t>::from_le_bytes(b.try_into().unwrap())
        }
    })* };
}
pods!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);

pub fn buf<T: Pod>(v: &[T]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    v.iter().for_each(|x| x.push(&mut out));
    Some(out)
}

/// An output buffer of `n` elements, holding rubbish.
pub fn out<T: Pod>(n: usize) -> Option<Vec<u8>> {
    Some(vec![0xA5; n * size_of::<T>()])
}

pub fn read<T: Pod>(b: &[u8]) -> Vec<T> {
    b.chunks_exact(size_of::<T>()).map(T::read).collect()
}

const GUARD: usize = 64;

struct Memory(Vec<u128>, usize);

impl Memory {
    fn new(b: &[u8], fill: u8) -> Memory {
        let mut m = Memory(vec![0; (b.len() + GUARD).div_ceil(16) + 4], b.len());
        let all = m.bytes();
        all.fill(fill);
        all[..b.len()].copy_from_slice(b);
        m
    }
    fn ptr(&mut self) -> *mut u8 {
        let p = self.0.as_mut_ptr() as *mut u8;
        p.wrapping_add(p.align_offset(64))
    }
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the vector has 64 bytes for the alignment besides these.
        unsafe { std::slice::from_raw_parts_mut(self.ptr(), self.1 + GUARD.min(16)) }
    }
}

/// The status and the buffers after one run: whole, or one task at a time from the last.
pub fn once(
    name: &str,
    isa: u32,
    sizes: &[i64],
    bufs: &[Option<Vec<u8>>],
    extra: &[(usize, *mut u8)],
    split: bool,
) -> (i32, Vec<Vec<u8>>) {
    let k = find(name).unwrap_or_else(|| panic!("no kernel {name}"));
    assert!(bufs.len() >= k.arity.0 && sizes.len() >= k.arity.1, "{name}: arity {:?}", k.arity);
    let mut memory: Vec<Option<Memory>> =
        bufs.iter().map(|b| b.as_ref().map(|b| Memory::new(b, 0x5A))).collect();
    let mut ptrs: Vec<*mut u8> =
        memory.iter_mut().map(|m| m.as_mut().map_or(std::ptr::null_mut(), |m| m.ptr())).collect();
    for (slot, p) in extra {
        ptrs[*slot] = *p;
    }
    let ctx = Ctx { helpers: std::ptr::null(), isa, threads: 1, strings: std::ptr::null() };
    let tasks = (k.tasks)(sizes);
    let ranges: Vec<(u64, u64)> =
        if split { (0..tasks).rev().map(|t| (t, t + 1)).collect() } else { vec![(0, tasks)] };
    let mut status = 0;
    for (begin, end) in ranges {
        let mut scratch = Memory::new(&vec![0xFFu8; (k.scratch)(sizes)], 0x5A);
        // SAFETY: the test states the buffers' extents as the kernel documents them.
        let s = unsafe {
            let p = scratch.ptr();
            (k.entry(isa))(&ctx, ptrs.as_ptr(), sizes.as_ptr(), begin, end, p)
        };
        let n = scratch.1;
        assert!(scratch.bytes()[n..].iter().all(|b| *b == 0x5A), "{name}: wrote past scratch");
        if s != 0 {
            status = s;
        }
    }
    let result = memory
        .iter_mut()
        .map(|m| {
            m.as_mut().map_or(Vec::new(), |m| {
                let n = m.1;
                assert!(m.bytes()[n..].iter().all(|b| *b == 0x5A), "{name}: wrote past a buffer");
                m.bytes()[..n].to_vec()
            })
        })
        .collect();
    (status, result)
}

/// Runs at every level, whole and split, and gives `check` each level's buffers.
pub fn run(name: &str, sizes: &[i64], bufs: &[Option<Vec<u8>>], mut check: impl FnMut(&[Vec<u8>])) {
    run_with(name, sizes, bufs, &[], &mut check)
}

/// [`run`] with raw pointers in some slots.
pub fn run_with(
    name: &str,
    sizes: &[i64],
    bufs: &[Option<Vec<u8>>],
    extra: &[(usize, *mut u8)],
    check: &mut dyn FnMut(&[Vec<u8>]),
) {
    for &isa in levels() {
        let (status, whole) = once(name, isa, sizes, bufs, extra, false);
        assert_eq!(status, 0, "{name}: status at level {isa}");
        let (_, split) = once(name, isa, sizes, bufs, extra, true);
        assert!(whole == split, "{name}: the split changes the result at level {isa}");
        check(&whole);
    }
}

/// The status of a run that may fail.
pub fn status(name: &str, sizes: &[i64], bufs: &[Option<Vec<u8>>]) -> i32 {
    once(name, detect_isa(), sizes, bufs, &[], false).0
}

/// Asserts that each element is within `scale · eps` of its reference, where `scale` bounds the
/// magnitudes that were summed.
pub fn close(got: &[f32], want: &[(f64, f64)], ulps: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    for (i, (g, (w, scale))) in got.iter().zip(want).enumerate() {
        let bound = ulps * scale.max(w.abs()) * f32::EPSILON as f64;
        let ok = (*g as f64 - w).abs() <= bound || (g.is_nan() && w.is_nan()) || *g as f64 == *w;
        assert!(ok, "{what}: element {i} is {g}, should be {w} ± {bound:e}");
    }
}
