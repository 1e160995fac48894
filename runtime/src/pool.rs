//! The thread pool: fixed threads, one job at a time, the caller takes part.
//!
//! A job is a number of tasks in as many contiguous parts as there are threads. A thread takes chunks of
//! its own part and then of the others': tasks of equal place in jobs that follow each other mostly run on one
//! thread, so what one writes and the next reads stays in that thread's cache. Workers spin
//! for a bounded time, then park. If the pool is busy (another session runs a job) or the call
//! comes from inside a job, the caller runs everything itself: nobody waits for a turn, and since
//! results never depend on the split, nothing changes but the time.
//!
//! ```
//! use silure_runtime::Pool;
//! use std::sync::atomic::{AtomicU64, Ordering};
//! let sum = AtomicU64::new(0);
//! Pool::new(2).run(100, 1, &|begin, end, _worker| {
//!     sum.fetch_add((begin..end).sum(), Ordering::Relaxed);
//! });
//! assert_eq!(sum.into_inner(), 4950);
//! ```

use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// What a job runs: `(first task, one past the last, worker below Pool::threads)`.
pub type Job<'a> = dyn Fn(u64, u64, usize) + Sync + 'a;

/// Turns a worker spins before it parks, and a caller before it yields.
const SPINS: u32 = 4000;

/// A fixed set of threads.
pub struct Pool {
    shared: Arc<Shared>,
    submit: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Odd while a job is open; changes with every job.
    gate: AtomicU64,
    /// Workers that are inside (or deciding about) the job.
    inside: AtomicUsize,
    sleeping: AtomicUsize,
    stop: AtomicBool,
    job: UnsafeCell<Option<Current>>,
    /// The next task of each thread's part.
    next: Box<[Next]>,
    park: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is written only by the thread that holds `submit` while the gate is closed and
// nobody is inside, and read only by workers inside an open gate.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer in `job` is to a `Sync` closure.
unsafe impl Send for Shared {}

/// A counter on a line of its own, and the next one: lines are fetched in pairs.
#[repr(align(128))]
struct Next(AtomicU64);

#[derive(Clone, Copy)]
struct Current {
    job: *const Job<'static>,
    tasks: u64,
    chunk: u64,
}

impl Current {
    /// The first task of a part.
    fn begin(&self, part: usize, parts: usize) -> u64 {
        (self.tasks as u128 * part as u128 / parts as u128) as u64
    }
}

thread_local! {
    static IN_JOB: Cell<bool> = const { Cell::new(false) };
}

fn lock(m: &Mutex<()>) -> MutexGuard<'_, ()> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

impl Shared {
    /// Takes chunks until there are none, of the worker's own part first.
    fn work(&self, c: Current, worker: usize) {
        let parts = self.next.len();
        for part in (worker..parts).chain(0..worker) {
            let end = c.begin(part + 1, parts);
            loop {
                let begin = self.next[part].0.fetch_add(c.chunk, Relaxed);
                if begin >= end {
                    break;
                }
                // SAFETY: the submitter keeps the closure alive until everybody is outside.
                unsafe { (*c.job)(begin, end.min(begin.saturating_add(c.chunk)), worker) };
            }
        }
    }

    fn worker(&self, worker: usize) {
        IN_JOB.set(true);
        let mut seen = 0;
        loop {
            let mut spins = 0;
            while !self.fresh(seen) {
                if self.stop.load(SeqCst) {
                    return;
                }
                spins += 1;
                if spins < SPINS {
                    std::hint::spin_loop();
                    continue;
                }
                let mut guard = lock(&self.park);
                self.sleeping.fetch_add(1, SeqCst);
                while !self.fresh(seen) && !self.stop.load(SeqCst) {
                    guard = self.wake.wait(guard).unwrap_or_else(|e| e.into_inner());
                }
                self.sleeping.fetch_sub(1, SeqCst);
                spins = 0;
            }
            // Either the submitter sees us inside and waits, or we see the gate it closed.
            self.inside.fetch_add(1, SeqCst);
            let gate = self.gate.load(SeqCst);
            if gate % 2 == 1 && gate != seen {
                seen = gate;
                // SAFETY: the gate is open and we are inside: the job is set and stays.
                if let Some(c) = unsafe { *self.job.get() } {
                    self.work(c, worker);
                }
            }
            self.inside.fetch_sub(1, SeqCst);
        }
    }

    fn fresh(&self, seen: u64) -> bool {
        let gate = self.gate.load(SeqCst);
        gate % 2 == 1 && gate != seen
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller included (0 counts as 1). If the system gives
    /// fewer threads, the pool has fewer: see [`Pool::threads`].
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            inside: AtomicUsize::new(0),
            sleeping: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            next: (0..threads.max(1)).map(|_| Next(AtomicU64::new(0))).collect(),
            park: Mutex::new(()),
            wake: Condvar::new(),
        });
        let spawn = |i: usize| {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(format!("silure-{i}"));
            thread.spawn(move || shared.worker(i)).ok()
        };
        let workers = (1..threads).map_while(spawn).collect();
        Pool { shared, submit: Mutex::new(()), workers }
    }

    /// Threads that take part, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job` over all of `0..tasks`, in chunks of at least `grain` tasks; returns when all
    /// have run. The caller is worker 0. The job must not panic.
    pub fn run(&self, tasks: u64, grain: u64, job: &Job<'_>) {
        let grain = grain.max(1);
        if tasks == 0 {
            return;
        }
        if self.workers.is_empty() || tasks <= grain || IN_JOB.get() {
            return job(0, tasks, 0);
        }
        let Ok(_turn) = self.submit.try_lock() else {
            return job(0, tasks, 0);
        };
        let s = &*self.shared;
        let chunk = grain.max(tasks.div_ceil(16 * self.threads() as u64));
        // SAFETY: only the lifetime changes; the job is not called after this function returns.
        let job: *const Job<'static> = unsafe { std::mem::transmute(job as *const Job<'_>) };
        let current = Current { job, tasks, chunk };
        // SAFETY: we hold `submit`, the gate is closed and nobody is inside (see the end).
        unsafe { *s.job.get() = Some(current) };
        for (part, next) in s.next.iter().enumerate() {
            next.0.store(current.begin(part, s.next.len()), Relaxed);
        }
        s.gate.fetch_add(1, SeqCst);
        if s.sleeping.load(SeqCst) > 0 {
            drop(lock(&s.park));
            s.wake.notify_all();
        }
        /// Closes the gate and waits until nobody is inside, whatever happens in the caller's part.
        struct Close<'a>(&'a Shared);
        impl Drop for Close<'_> {
            fn drop(&mut self) {
                IN_JOB.set(false);
                self.0.gate.fetch_add(1, SeqCst);
                let mut spins = 0u32;
                while self.0.inside.load(SeqCst) != 0 {
                    spins += 1;
                    if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
                }
            }
        }
        IN_JOB.set(true);
        let close = Close(s);
        s.work(current, 0);
        drop(close);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        drop(lock(&self.shared.park));
        self.shared.wake.notify_all();
        for w in self.workers.drain(..) {
            // A worker that panicked has nothing more to say.
            let _ = w.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 4] {
            let pool = Pool::new(threads);
            for tasks in [0u64, 1, 2, 7, 64, 1000] {
                for round in 0..30 {
                    let counts: Vec<AtomicU64> = (0..tasks).map(|_| AtomicU64::new(0)).collect();
                    pool.run(tasks, 1 + round % 5, &|a, b, worker| {
                        assert!(worker < threads);
                        for i in a..b {
                            counts[i as usize].fetch_add(1, Relaxed);
                        }
                    });
                    assert!(counts.iter().all(|c| c.load(Relaxed) == 1), "{threads} {tasks}");
                }
            }
        }
    }

    #[test]
    fn many_callers_and_nested_calls() {
        let pool = Pool::new(3);
        let sum = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        pool.run(16, 1, &|a, b, _| {
                            pool.run(b - a, 1, &|x, y, _| {
                                sum.fetch_add(y - x, Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * 300 * 16);
    }

    #[test]
    fn parked_workers_wake() {
        let pool = Pool::new(2);
        std::thread::sleep(std::time::Duration::from_millis(30));
        // Both tasks wait for each other: only two threads can finish this.
        let arrived = AtomicU64::new(0);
        pool.run(2, 1, &|_, _, _| {
            arrived.fetch_add(1, SeqCst);
            while arrived.load(SeqCst) < 2 {
                std::thread::yield_now();
            }
        });
    }
}
