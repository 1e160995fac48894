//! What converting a model takes: bytes live on the heap at their peak while a file becomes a module of the graph
//! dialect, and the time, for every real model (tests/models/fetch.py) and quantised one (qdq.py).
//!
//! The file itself is read to the heap and counts. The tables of ops (about 15 kB, once a process) count for the model that comes
//! first and for no other. Models are looked for in `$SILURE_MODELS`, else `target/models`; without them the test says
//! SKIPPED, which is an error in CI.

use silure_onnx::{ImportOptions, Model, import};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// Bytes of heap at the peak may be so many times the file's.
const MOST: f64 = 3.0;
/// Seconds for one model. Far above what any takes: a test beside others is no benchmark.
const SECONDS: f64 = 2.0;

struct Counting;
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn more(bytes: usize) {
    PEAK.fetch_max(LIVE.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

// SAFETY: everything is the system allocator's. What is not overridden goes through `alloc` and `dealloc`; a block that
// grows is thereby counted twice while it is copied, as it may be in memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Peak of the heap in `f` above what was live before, and what stays live behind it.
fn watched<T>(f: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let out = f();
    (out, PEAK.load(Relaxed) - before, LIVE.load(Relaxed) - before)
}

fn models(folder: &Path, out: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|e| e.path()) {
        if path.is_dir() && !path.ends_with("cases") {
            models(&path, out);
        } else if path.extension().is_some_and(|e| e == "onnx") {
            out.push(path);
        }
    }
}

// A program of its own, without the test harness: no other thread allocates meanwhile.
fn main() {
    a_block_that_is_gone_counts_at_the_peak();
    let here = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/models");
    let folder = std::env::var_os("SILURE_MODELS").map_or_else(here, PathBuf::from);
    let mut files = vec![];
    models(&folder, &mut files);
    files.sort();
    if files.is_empty() {
        let how = "run tests/models/fetch.py and tests/models/qdq.py";
        assert!(std::env::var_os("CI").is_none(), "real models are missing: {how}");
        eprintln!("SKIPPED: real models are not at {} ({how})", folder.display());
        return;
    }
    let mut bad = vec![];
    println!("model | file, kB | heap at the peak, kB | × file | module, kB | s");
    for path in &files {
        let size = std::fs::metadata(path).expect("the file is there").len() as usize;
        let start = Instant::now();
        let (imported, peak, left) = watched(|| {
            let model = Model::open(path)?;
            import(&model, &ImportOptions::default())
        });
        let seconds = start.elapsed().as_secs_f64();
        let name = path.file_stem().unwrap_or_default().display();
        imported.unwrap_or_else(|e| panic!("{name}: {e}"));
        let ratio = peak as f64 / size as f64;
        let kb = |n: usize| n as f64 / 1e3;
        let line = format!(
            "{name} | {:.0} | {:.0} | {ratio:.2} | {:.0} | {seconds:.3}",
            kb(size),
            kb(peak),
            kb(left)
        );
        println!("{line}");
        if ratio >= MOST || seconds >= SECONDS {
            bad.push(line);
        }
    }
    assert!(bad.is_empty(), "at most {MOST} times the file and {SECONDS} s:\n{}", bad.join("\n"));
    println!("test converting_a_model_takes_less_than_three_times_its_file ... ok");
}

fn a_block_that_is_gone_counts_at_the_peak() {
    let (kept, peak, left) = watched(|| {
        drop(std::hint::black_box(vec![1u8; 1 << 20]));
        std::hint::black_box(vec![1u8; 1 << 16])
    });
    assert_eq!((peak, left), (1 << 20, kept.len()), "the counting allocator");
}
