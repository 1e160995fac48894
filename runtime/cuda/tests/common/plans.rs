//! A kernel that adds, plans that launch it, engines of them.

use std::sync::Arc;

use silure_engine::plan::{Arg, BinOp, Buf, Val};
use silure_engine::{DeviceCode, DeviceKernel, DimSpec, EngineWriter, EntryBuilder, PlanBuilder};
use silure_runtime::{Engine, LoadOptions, Session, Tensor};
use silure_types::Elem;

/// `c[i] = a[i] + b[i]` for n floats, 32 a block.
pub const ADD: &str = "
.version 7.0
.target sm_80
.address_size 64
.visible .entry add(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 n) {
  .reg .pred %p<2>; .reg .b64 %d<9>; .reg .b32 %r<5>; .reg .f32 %f<4>;
  ld.param.u64 %d0, [a];
  ld.param.u64 %d1, [b];
  ld.param.u64 %d2, [c];
  ld.param.u64 %d3, [n];
  mov.u32 %r0, %ctaid.x;
  mov.u32 %r1, %ntid.x;
  mov.u32 %r2, %tid.x;
  mad.lo.u32 %r3, %r0, %r1, %r2;
  cvt.u64.u32 %d4, %r3;
  setp.ge.u64 %p0, %d4, %d3;
  @%p0 ret;
  shl.b64 %d5, %d4, 2;
  add.s64 %d6, %d0, %d5;
  add.s64 %d7, %d1, %d5;
  add.s64 %d8, %d2, %d5;
  ld.global.f32 %f0, [%d6];
  ld.global.f32 %f1, [%d7];
  add.f32 %f2, %f0, %f1;
  st.global.f32 [%d8], %f2;
  ret;
}";

pub fn code() -> DeviceCode {
    let (name, text) = ("add".into(), ADD.into());
    DeviceCode { kernels: vec![DeviceKernel { name, threads: 32, shared: 0, params: 4, text }] }
}

pub fn options() -> LoadOptions<'static> {
    LoadOptions { devices: vec![super::device()], ..LoadOptions::default() }
}

pub fn file(p: PlanBuilder) -> Vec<u8> {
    let weights = |_: u32, out: &mut dyn std::io::Write| {
        (0..64).try_for_each(|i| out.write_all(&(i as f32).to_le_bytes()))
    };
    let w = EngineWriter::new(p.finish().unwrap(), "0").device_code("cuda:sm_80", &code());
    w.to_bytes(weights).unwrap()
}

pub fn engine(p: PlanBuilder) -> Arc<Engine> {
    Engine::from_bytes_with(&file(p), &options()).unwrap()
}

pub fn add(e: &mut EntryBuilder<'_>, k: u32, [a, b, c]: [Buf; 3], n: Val) {
    let blocks = e.bin(BinOp::CeilDiv, n, 32);
    e.launch_device(k, &[Arg::In(a), Arg::In(b), Arg::Out(c)], &[n], blocks, n);
}

/// y = (x + x) + w, over a weight of 64 floats; `between` says whether the host has the sum in its hands.
pub fn sums(between: bool) -> PlanBuilder {
    let mut p = PlanBuilder::new();
    let cuda = p.device("cuda");
    let (w, k) = (p.weight("w", 256), p.device_kernel("add"));
    let mut e = p.entry("main");
    let x = e.input("x", Elem::F32, &[DimSpec::symbol("n", 0, 64)]);
    let y = e.output("y", Elem::F32, &["n"]);
    let n = e.dim(0, 0);
    let bytes = e.mul(n, 4);
    e.set_shape(0, &[n]);
    let held = e.temp("held", bytes);
    e.on(cuda);
    let (a, b, c) = (e.temp("a", bytes), e.temp("b", bytes), e.temp("c", bytes));
    let w = e.weight(w);
    e.copy(a, 0, x, 0, bytes);
    add(&mut e, k, [a, a, b], n);
    if between {
        // Through memory of the host, which its own copies touch before and after.
        e.copy(held, 0, x, 0, bytes);
        e.copy(held, 0, b, 0, bytes);
        e.copy(y, 0, held, 0, bytes);
        e.copy(b, 0, y, 0, bytes);
    }
    add(&mut e, k, [b, w, c], n);
    e.copy(y, 0, c, 0, bytes);
    e.finish();
    p
}

pub fn f32s(x: &[f32]) -> Tensor {
    Tensor::f32(&[x.len()], x).unwrap()
}

pub fn run(s: &mut Session, x: &[f32]) -> Vec<f64> {
    s.run(0, &[f32s(x).view()]).unwrap()[0].to_f64()
}

pub fn expected(x: &[f32]) -> Vec<f64> {
    x.iter().enumerate().map(|(i, v)| (2.0 * v + i as f32).into()).collect()
}
