//! Kernels and plans made by hand for the runtime's tests.
#![allow(dead_code)]

use silure_engine::plan::{BinOp, LoadMode, Plan};
use silure_engine::{DimSpec, EngineWriter, PlanBuilder};
use silure_runtime::abi::{Ctx, INDEX_OUT_OF_RANGE, Kernel, OK};
use silure_runtime::{Engine, LoadOptions, With};
use silure_types::Elem;
use std::io::Write;
use std::sync::Arc;

/// `c[i] = a[i] + b[i]`; one task per element.
unsafe extern "C" fn add(
    _: *const Ctx,
    bufs: *const *mut u8,
    _: *const i64,
    begin: u64,
    end: u64,
    _: *mut u8,
) -> i32 {
    for i in begin as usize..end as usize {
        // SAFETY: the tests' plans give three buffers of at least `tasks` floats.
        unsafe {
            let [a, b, c] = [0, 1, 2].map(|k| *bufs.add(k) as *mut f32);
            *c.add(i) = *a.add(i) + *b.add(i);
        }
    }
    OK
}

/// Sums its input through scratch: `out[0] = Σ a`; one task.
unsafe extern "C" fn sum(
    _: *const Ctx,
    bufs: *const *mut u8,
    sizes: *const i64,
    _: u64,
    _: u64,
    scratch: *mut u8,
) -> i32 {
    // SAFETY: as above; scratch holds `sizes[0]` floats and is aligned.
    unsafe {
        assert_eq!(scratch as usize % 64, 0);
        let n = *sizes as usize;
        std::ptr::copy_nonoverlapping(*bufs, scratch, n * 4);
        let scratch = std::slice::from_raw_parts(scratch as *const f32, n);
        *(*bufs.add(1) as *mut f32) = scratch.iter().sum();
    }
    OK
}

/// Always finds an index outside.
unsafe extern "C" fn outside(
    _: *const Ctx,
    _: *const *mut u8,
    _: *const i64,
    _: u64,
    _: u64,
    _: *mut u8,
) -> i32 {
    INDEX_OUT_OF_RANGE
}

const fn kernel(
    name: &'static str,
    arity: (usize, usize),
    tasks: fn(&[i64]) -> u64,
    scratch: fn(&[i64]) -> usize,
    entry: silure_runtime::abi::KernelFn,
) -> Kernel {
    let flops: fn(&[i64]) -> u64 = |s| s[0].max(0) as u64 * 100;
    Kernel {
        name,
        doc: "",
        arity,
        fields: &[],
        tasks,
        scratch,
        flops,
        portable: entry,
        avx2: None,
        avx512: None,
        neon: None,
    }
}

pub static KERNELS: &[Kernel] = &[
    kernel("test.add", (3, 1), |s| s[0] as u64, |_| 0, add),
    kernel("test.sum", (2, 1), |_| 1, |s| s[0] as usize * 4, sum),
    kernel("test.outside", (0, 1), |_| 1, |_| 0, outside),
];

/// Loads a plan with the test kernels.
pub fn load(plan: Plan) -> Arc<Engine> {
    load_bytes(&bytes(plan)).unwrap()
}

pub fn load_bytes(file: &[u8]) -> silure_runtime::Result<Arc<Engine>> {
    let options = LoadOptions { kernels: &With(KERNELS), ..LoadOptions::default() };
    Engine::from_bytes_with(file, &options)
}

/// The engine file of a plan; weight `i` is floats `i + 1`.
pub fn bytes(plan: Plan) -> Vec<u8> {
    let sizes: Vec<u64> = plan.weights.iter().map(|w| w.bytes).collect();
    EngineWriter::new(plan, "test").to_bytes(|i, out| weight(&sizes, i, out)).unwrap()
}

pub fn weight(sizes: &[u64], i: u32, out: &mut dyn Write) -> std::io::Result<()> {
    (0..sizes[i as usize] / 4).try_for_each(|_| out.write_all(&(i as f32 + 1.0).to_le_bytes()))
}

/// Two additions through a temporary: `(x: f32[n], b: f32[n]) -> (y: f32[n])`, y = (x + b) + b.
pub fn add_plan() -> Plan {
    let mut p = PlanBuilder::new();
    let mut e = p.entry("main");
    let x = e.input("x", Elem::F32, &[DimSpec::symbol("n", 1, 1 << 22)]);
    let b = e.input("b", Elem::F32, &[DimSpec::symbol("n", 1, 1 << 22)]);
    let y = e.output("y", Elem::F32, &["n"]);
    let n = e.dim(0, 0);
    let bytes = e.mul(n, 4);
    let t = e.temp("t", bytes);
    e.set_shape(0, &[n]);
    e.loc("layer/first").launch("test.add", &[x, b], &[t], &[n]);
    e.loc("layer/second").launch("test.add", &[t, b], &[y], &[n]);
    e.finish();
    p.finish().unwrap()
}

/// Adds `b` to `x` as often as `turns[0]` says, in a loop with swapped temporaries.
pub fn loop_plan() -> Plan {
    let mut p = PlanBuilder::new();
    let mut e = p.entry("main");
    let x = e.input("x", Elem::F32, &[DimSpec::symbol("n", 1, 1 << 20)]);
    let b = e.input("b", Elem::F32, &[DimSpec::symbol("n", 1, 1 << 20)]);
    let turns = e.input("turns", Elem::I64, &[DimSpec::fixed(1)]);
    let y = e.output("y", Elem::F32, &["n"]);
    let n = e.dim(0, 0);
    let bytes = e.mul(n, 4);
    let (cur, next) = (e.temp("cur", bytes), e.temp("next", bytes));
    e.set_shape(0, &[n]);
    e.copy(cur, 0, x, 0, bytes);
    let count = e.load(turns, 0, Elem::I64, LoadMode::Value);
    let i = e.var(0);
    let (top, done) = (e.label(), e.label());
    e.bind(top);
    let more = e.bin(BinOp::Lt, i, count);
    e.br_zero(more, done);
    e.loc("loop/add").launch("test.add", &[cur, b], &[next], &[n]);
    e.swap(cur, next);
    let j = e.add(i, 1);
    e.set(i, j);
    e.jump(top);
    e.bind(done);
    e.copy(y, 0, cur, 0, bytes);
    e.finish();
    p.finish().unwrap()
}

/// Two entries over one weight and one state: `step` counts runs and adds the weight to x,
/// `total` gives the count.
pub fn state_plan() -> Plan {
    let mut p = PlanBuilder::new();
    let w = p.weight("w", 16);
    let s = p.state("count", Elem::I64, &[1]);
    let mut e = p.entry("step");
    let x = e.input("x", Elem::F32, &[DimSpec::fixed(4)]);
    let y = e.output("y", Elem::F32, &["4"]);
    let (wb, sb) = (e.weight(w), e.state(s));
    e.set_shape(0, &[4.into()]);
    let count = e.load(sb, 0, Elem::I64, LoadMode::Value);
    let next = e.add(count, 1);
    e.store(sb, 0, Elem::I64, next);
    e.launch("test.add", &[x, wb], &[y], &[4.into()]);
    let few = e.bin(BinOp::Lt, count, 5);
    e.loc("limit").check(few, "too many steps", 5, count);
    e.finish();
    let mut e = p.entry("total");
    let y = e.output("count", Elem::I64, &["1"]);
    let z = e.output("w", Elem::F32, &["4"]);
    let (wb, sb) = (e.weight(w), e.state(s));
    e.set_shape(0, &[1.into()]);
    e.set_shape(1, &[4.into()]);
    e.copy(y, 0, sb, 0, 8);
    e.copy(z, 0, wb, 0, 16);
    e.finish();
    p.finish().unwrap()
}
