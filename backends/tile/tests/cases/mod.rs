//! Problems of every op: text, kernel, inputs and the interpreter's answer. Targets run the kernels on them too.

#![allow(dead_code, reason = "each test that includes this file uses a part of it")]

/// Name, op, what differs from an exact op of any size, function.
macro_rules! cases {
    ($($name:literal $op:literal $([$($k:ident : $v:expr),*])? $body:literal;)*) => {
        &[$(crate::cases::graph::Case {
            name: $name, op: $op, body: $body, $($($k: $v,)*)? ..crate::cases::graph::EXACT
        }),*]
    };
}

pub mod attention;
pub mod graph;
pub mod rare;
pub mod sample;
pub mod units;

use silure_ir::dialects::tile::KernelArg;
use silure_ir::eval::Interp;
use silure_ir::weight::NoFiles;
use silure_ir::{Context, Datum, Module, Tensor, text};
use silure_tile::{Arg, Kernel, map, matmul, rows};

/// Cores of the device that kernels are made for.
pub const CORES: i64 = 108;

/// Sizes n and m: single, none, tails, whole tiles, many.
pub const SIZES: [(i64, i64); 7] = [(1, 1), (0, 3), (4, 0), (5, 7), (300, 2), (3, 700), (67, 129)];

/// Name, signature, one op: every way in which an operand can lie in the space.
pub const CASES: &[(&str, &str)] = &[
    ("dense", "(%x: f32[n, 5, 3]) -> (y: f32[n, 5, 3]) {
      %y = kernel.map %x {maps = [[0, 1, 2]], shape = dims[n, 5, 3]} do(%u: f32) {
        %a = arith.exp %u : f32
        yield %a
      } : f32[n, 5, 3]"),
    ("row_column_one", "(%x: f32[n, m], %r: f32[m], %c: f32[n, 1], %s: f32[]) -> (y: f32[n, m]) {
      %y = kernel.map %x, %r, %c, %s {maps = [[0, 1], [1], [0, -1], []], shape = dims[n, m]} do(%u: f32, %v: f32, %w: f32, %z: f32) {
        %a = arith.mul %u, %v : f32
        %b = arith.sub %a, %w : f32
        %d = arith.div %b, %z : f32
        yield %d
      } : f32[n, m]"),
    ("transposed", "(%x: f32[m, n], %y: f32[n, m]) -> (z: f32[n, m]) {
      %z = kernel.map %x, %y {maps = [[1, 0], [0, 1]], shape = dims[n, m]} do(%u: f32, %v: f32) {
        %a = arith.max %u, %v : f32
        yield %a
      } : f32[n, m]"),
    ("permuted", "(%x: f32[m, 2, n], %y: f32[2, 1, m]) -> (z: f32[n, 2, m]) {
      %z = kernel.map %x, %y {maps = [[2, 1, 0], [1, -1, 2]], shape = dims[n, 2, m]} do(%u: f32, %v: f32) {
        %a = arith.add %u, %v : f32
        yield %a
      } : f32[n, 2, m]"),
    ("lead_repeated", "(%x: f32[7], %y: f32[n, 7, m]) -> (z: f32[n, 7, m]) {
      %z = kernel.map %x, %y {maps = [[1], [0, 1, 2]], shape = dims[n, 7, m]} do(%u: f32, %v: f32) {
        %a = arith.mul %u, %v : f32
        yield %a
      } : f32[n, 7, m]"),
    ("types_and_constants", "(%x: f32[n, 3], %i: i32[n, 3]) -> (y: f16[n, 3], k: i32[n, 3]) {
      %y, %k = kernel.map %x, %i {maps = [[0, 1], [0, 1]], shape = dims[n, 3]} do(%u: f32, %j: i32) {
        %zero = scalar {value = dense<f32[]: 0.0>} : f32
        %two = scalar {value = dense<i32[]: 2>} : i32
        %neg = arith.lt %u, %zero : bool
        %a = arith.select %neg, %zero, %u : f32
        %h = arith.cast %a {to = f16} : f16
        %d = arith.floordiv %two, %j : i32
        yield %h, %d
      } : f16[n, 3], i32[n, 3]"),
    // Normal, subnormal and too large; halves between two codes.
    ("floats_of_a_byte", "(%x: f32[n, m]) -> (y: e4m3fn[n, m], k: e5m2[n, m]) {
      %y, %k = kernel.map %x {maps = [[0, 1]], shape = dims[n, m]} do(%u: f32) {
        %c = scalar {value = dense<f32[]: 0.00048828125>} : f32
        %d = scalar {value = dense<f32[]: 0.0000019073486328125>} : f32
        %v = arith.mul %u, %c : f32
        %w = arith.mul %u, %d : f32
        %a = arith.cast %v {to = e4m3fn} : e4m3fn
        %b = arith.cast %w {to = e5m2} : e5m2
        yield %a, %b
      } : e4m3fn[n, m], e5m2[n, m]"),
    ("large_floats_of_a_byte", "(%x: f32[n, m]) -> (y: e4m3fn[n, m], k: e5m2[n, m]) {
      %y, %k = kernel.map %x {maps = [[0, 1]], shape = dims[n, m]} do(%u: f32) {
        %q = arith.mul %u, %u : f32
        %p = arith.mul %q, %u : f32
        %r = arith.mul %q, %q : f32
        %a = arith.cast %p {to = e4m3fn} : e4m3fn
        %b = arith.cast %r {to = e5m2} : e5m2
        yield %a, %b
      } : e4m3fn[n, m], e5m2[n, m]"),
    ("angles", "(%x: f32[n, m]) -> (y: f32[n, m], k: f32[n, m]) {
      %y, %k = kernel.map %x {maps = [[0, 1]], shape = dims[n, m]} do(%u: f32) {
        %c = scalar {value = dense<f32[]: 12345.678>} : f32
        %v = arith.mul %u, %c : f32
        %a = arith.cos %v : f32
        %w = arith.mul %v, %v : f32
        %z = arith.mul %w, %w : f32
        %t = arith.mul %z, %v : f32
        %b = arith.sin %t : f32
        yield %a, %b
      } : f32[n, m], f32[n, m]"),
    ("one_element", "(%x: f32[], %y: f32[1]) -> (z: f32[1, 1]) {
      %z = kernel.map %x, %y {maps = [[], [0]], shape = dims[1, 1]} do(%u: f32, %v: f32) {
        %a = arith.add %u, %v : f32
        yield %a
      } : f32[1, 1]"),
];

/// Products. Numbers are small and whole, so that sums are exact in any order.
pub const PRODUCTS: &[(&str, &str)] = &[
    ("plain", "(%a: f32[n, 40], %b: f32[40, m]) -> (y: f32[n, m]) {
      %y = graph.matmul %a, %b : f32[n, m]"),
    ("epilogue", "(%a: f32[n, m], %b: f32[m, 70], %c: f32[70], %r: f32[n, 70]) -> (y: f32[n, 70]) {
      %y = kernel.anchor %a, %b, %c, %r {inputs = 2, maps = [[1], [0, 1]]} do(%u: f32[n, m], %v: f32[m, 70]) {
        %p = graph.matmul %u, %v : f32[n, 70]
        yield %p
      } do(%s: f32, %d: f32, %e: f32) {
        %f = arith.add %s, %d : f32
        %g = arith.relu %f : f32
        %h = arith.add %g, %e : f32
        yield %h
      } : f32[n, 70]"),
    ("batched_epilogue", "(%a: f32[n, 3, m], %b: f32[n, m, 20], %c: f32[n, 3, 1]) -> (y: f32[n, 3, 20]) {
      %y = kernel.anchor %a, %b, %c {inputs = 2, maps = [[0, 1, -1]]} do(%u: f32[n, 3, m], %v: f32[n, m, 20]) {
        %p = graph.matmul %u, %v : f32[n, 3, 20]
        yield %p
      } do(%s: f32, %d: f32) {
        %f = arith.mul %s, %d : f32
        yield %f
      } : f32[n, 3, 20]"),
    ("batched", "(%a: f32[2, n, 9, m], %b: f32[2, n, m, 5]) -> (y: f32[2, n, 9, 5]) {
      %y = graph.matmul %a, %b : f32[2, n, 9, 5]"),
    ("one_row", "(%a: f32[1, m], %b: f32[m, n]) -> (y: f32[1, n]) {
      %y = graph.matmul %a, %b : f32[1, n]"),
    ("half_rounds", "(%a: f16[n, 416], %b: f16[416, 72]) -> (y: f16[n, 72]) {
      %y = graph.matmul %a, %b : f16[n, 72]"),
    ("half_tiles", "(%a: bf16[n, 72], %b: bf16[72, 6912]) -> (y: bf16[n, 6912]) {
      %y = graph.matmul %a, %b : bf16[n, 6912]"),
    ("half_row", "(%a: bf16[1, 648], %b: bf16[648, n]) -> (y: bf16[1, n]) {
      %y = graph.matmul %a, %b : bf16[1, n]"),
    ("halves", "(%a: f16[n, m], %b: f16[m, 17]) -> (y: f32[n, 17]) {
      %y = kernel.anchor %a, %b {inputs = 2, maps = []} do(%u: f16[n, m], %v: f16[m, 17]) {
        %p = graph.matmul %u, %v : f16[n, 17]
        yield %p
      } do(%s: f16) {
        %f = arith.cast %s {to = f32} : f32
        yield %f
      } : f32[n, 17]"),
];

/// Rows: sums and functions are rounded.
pub const ROWS: &[(&str, &str)] = &[
    (
        "softmax",
        "(%x: f32[n, m]) -> (y: f32[n, m]) {
      %y = graph.softmax %x : f32[n, m]",
    ),
    (
        "softmax_of_a_line",
        "(%x: f32[m]) -> (y: f32[m]) {
      %y = graph.softmax %x : f32[m]",
    ),
    (
        "rms_norm",
        "(%x: f32[n, 2, m], %s: f32[m]) -> (y: f32[n, 2, m]) {
      %y = graph.rms_norm %x, %s {epsilon = 0.001} : f32[n, 2, m]",
    ),
    (
        "layer_norm",
        "(%x: f32[n, m], %s: f32[m], %b: f32[m], %r: f32[n, m]) -> (y: f32[n, m]) {
      %y = kernel.anchor %x, %s, %b, %r {inputs = 3, maps = [[0, 1]]} do(%u: f32[n, m], %v: f32[m], %w: f32[m]) {
        %p = graph.layer_norm %u, %v, %w : f32[n, m]
        yield %p
      } do(%c: f32, %d: f32) {
        %f = arith.add %c, %d : f32
        yield %f
      } : f32[n, m]",
    ),
    (
        "layer_norm_of_planes",
        "(%x: f32[n, 3, m]) -> (y: f32[n, 3, m]) {
      %y = graph.layer_norm %x {axis = 1} : f32[n, 3, m]",
    ),
];

/// How far a result may be from the interpreter's, relative to the greatest: exponentials are approximated to 4 units in
/// the last place, sums of K terms to √K.
pub fn allowed(name: &str) -> f64 {
    let unit = 2f64.powi(-23);
    match name {
        "dense" | "angles" => 4.0 * unit,
        n if ROWS.iter().any(|c| c.0 == n) => 40.0 * unit,
        _ => 0.0,
    }
}

/// Compares a result's bytes.
pub fn close(name: &str, got: &[u8], want: &Tensor) -> Result<(), String> {
    let e = want.elem();
    let most = want.to_f64s().iter().fold(0f64, |m, v| m.max(v.abs()));
    for j in 0..want.len() {
        let (y, w) = (e.decode(e.load(got, j).unwrap()), want.get(j).f());
        let off = (y - w).abs();
        if !(y == w || off <= allowed(name) * most || y.is_nan() && w.is_nan()) {
            return Err(format!("element {j} is {y}, {w} is wanted"));
        }
    }
    Ok(())
}

pub fn module(name: &str, body: &str) -> Module {
    let results = body[body.find("->").unwrap()..body.find('{').unwrap()].matches(':').count();
    let names = if body.contains("%y = graph") {
        "%y"
    } else if results == 2 {
        "%y, %k"
    } else if body.contains("%z = kernel") {
        "%z"
    } else {
        "%y"
    };
    let source =
        format!("module @t {{\n entry @{name}<n: 0.., m: 0..>{body}\n return {names}\n }}\n}}");
    text::parse_verified(&Context::new(), name, &source).unwrap_or_else(|e| {
        panic!("{source}\n{}", e.iter().map(|e| format!("{e}\n")).collect::<String>())
    })
}

pub fn made(m: &Module) -> Kernel {
    let f = &m.funcs[0];
    let op = f.walk()[0];
    let k = match f.op(op).def.name {
        "kernel.map" => map(f, op, "k"),
        n if n == "graph.matmul" || text::print(m).contains("graph.matmul") => {
            matmul(f, op, "k", CORES)
        }
        _ => rows(f, op, "k"),
    };
    let k = k.unwrap_or_else(|e| panic!("{e}"));
    // What was made is text that parses back and passes the verifier.
    let mut own = Module::new("t");
    own.funcs.push(k.func.clone());
    let printed = text::print(&own);
    let again = text::parse_verified(&Context::new(), "k", &printed).unwrap_or_else(|e| {
        panic!("{printed}\n{}", e.iter().map(|e| format!("{e}\n")).collect::<String>())
    });
    assert_eq!(text::print(&again), printed);
    k
}

/// Numbers of either sign, none of them 0, exact in f32.
fn filled(t: &silure_ir::TensorType, size: &dyn Fn(&str) -> Option<i64>, seed: usize) -> Tensor {
    let shape: Vec<usize> = t.dims.iter().map(|d| d.eval(size).unwrap() as usize).collect();
    let n: usize = shape.iter().product();
    // Without a step now and then every run of 41 elements would be like the others.
    let value = |i: usize| ((i * 7919 + seed * 31) % 41) as f64 - 20.5 + (i / 640 % 8) as f64;
    let values: Vec<f64> =
        (0..n).map(|i| if t.elem.is_int() { value(i).trunc() + 30.0 } else { value(i) }).collect();
    Tensor::from_f64s(t.elem, &shape, &values).unwrap()
}

/// A kernel's arguments for sizes n and m, and what its results must be.
pub fn problem(
    m: &Module,
    k: &Kernel,
    (n, cols): (i64, i64),
    seed: usize,
) -> (Vec<KernelArg>, Vec<Tensor>) {
    let size = |s: &str| Some(if s == "n" { n } else { cols });
    let f = &m.funcs[0];
    let tensors: Vec<Tensor> =
        f.args().iter().map(|v| filled(f.ty(*v).as_tensor().unwrap(), &size, seed)).collect();
    let inputs = tensors.iter().cloned().map(Datum::from).collect();
    let out = Interp::new(m, &NoFiles, Default::default()).run(&f.name, inputs);
    let out = out.unwrap_or_else(|e| panic!("{}: {e}", f.name));
    let want: Vec<Tensor> = out.iter().map(|d| (**d.tensor().unwrap()).clone()).collect();
    let args = k.args.iter().map(|a| match a {
        Arg::Operand(i) => KernelArg::Buffer(tensors[*i].bytes().to_vec()),
        Arg::Result(i) => KernelArg::Output(vec![0; want[*i].bytes().len()]),
        Arg::Size(d) => KernelArg::Index(d.eval(&size).unwrap()),
        Arg::Value(_) | Arg::Status | Arg::Workspace(..) => panic!("not of these ops"),
    });
    (args.collect(), want)
}
