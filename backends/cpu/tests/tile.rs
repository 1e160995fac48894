//! Tile kernels as machine code, executed from a mapping: the kernels of tests/kernels against plain f64
//! loops, and small kernels of every op against the interpreter.
#![cfg(target_arch = "x86_64")]

#[path = "../../../tests/kernels/problems.rs"]
mod problems;

use problems::Problem;
use silure_cpu::codegen::IsaLevel;
use silure_cpu::tile::{self, TileCode};
use silure_ir::dialects::tile::{KernelArg, Options, run_kernel};
use silure_ir::{Context, Elem, Func, Type, text};
use silure_kernels_cpu::abi::{Ctx, KernelFn};
use silure_kernels_cpu::helpers::helper_table;

/// Levels that this machine can run.
fn levels() -> Vec<IsaLevel> {
    let mut v = vec![IsaLevel::X86_64];
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        v.push(IsaLevel::X86_64V3);
    }
    v
}

fn parse(name: &str, source: &str) -> Func {
    let m = text::parse_verified(&Context::new(), name, source).unwrap_or_else(|e| {
        panic!("{name}: {}", e.iter().map(|e| e.to_string()).collect::<String>())
    });
    m.funcs[0].clone()
}

fn kernel(name: &str) -> Func {
    let path = format!("{}/../../tests/kernels/{name}.sir", env!("CARGO_MANIFEST_DIR"));
    parse(name, &std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")))
}

/// A kernel mapped for execution.
struct Loaded {
    code: TileCode,
    map: memmap2::Mmap,
    helpers: Vec<*const u8>,
}

/// Bytes behind every buffer that nothing may change.
const GUARD: usize = 64;

impl Loaded {
    fn new(f: &Func, level: IsaLevel) -> Loaded {
        let code = tile::compile(f, level).unwrap_or_else(|e| panic!("{}: {e}", level.name()));
        let mut map = memmap2::MmapMut::map_anon(code.object.bytes.len()).unwrap();
        map.copy_from_slice(&code.object.bytes);
        let helpers = helper_table(0);
        Loaded { code, map: map.make_exec().unwrap(), helpers }
    }

    /// Runs the tasks in pieces of `split`, last piece first if `back`; the buffers afterwards, and the
    /// status.
    fn run(&self, f: &Func, args: &[KernelArg], split: u64, back: bool) -> (Vec<KernelArg>, i32) {
        let mut out = args.to_vec();
        let values: Vec<Option<i64>> = args
            .iter()
            .zip(f.args())
            .map(|(a, v)| match (a, f.ty(*v)) {
                (KernelArg::Index(i), _) => Some(*i),
                (KernelArg::Scalar(n), Type::Scalar(e)) => Some(n.encode(*e) as i64),
                _ => None,
            })
            .collect();
        let (sizes, tasks) = self.code.bind(&values).unwrap();
        let mut bufs = Vec::new();
        for &i in &self.code.bufs {
            match &mut out[i] {
                KernelArg::Buffer(b) => b.resize(b.len() + GUARD, 0xA5),
                KernelArg::Output(b) => {
                    b.fill(0xFF);
                    b.resize(b.len() + GUARD, 0xA5);
                }
                _ => panic!("argument {i} is no buffer"),
            }
            let (KernelArg::Buffer(b) | KernelArg::Output(b)) = &mut out[i] else { continue };
            bufs.push(b.as_mut_ptr());
        }
        let scratch = self.code.scratch as usize;
        let mut memory = vec![0u8; scratch + 64 + GUARD];
        let at = memory.as_ptr().align_offset(64);
        let mut pieces: Vec<(u64, u64)> = (0..tasks.div_ceil(split))
            .map(|i| (i * split, (i * split).saturating_add(split).min(tasks)))
            .collect();
        if back {
            pieces.reverse();
        }
        let cx =
            Ctx { helpers: self.helpers.as_ptr(), isa: 0, threads: 1, strings: std::ptr::null() };
        let mut status = 0;
        for (from, to) in pieces {
            memory.fill(0xFF);
            // SAFETY: offset 0 is a function of this signature; buffers, sizes and scratch are what
            // it was made for.
            let s = unsafe {
                let entry = self.map.as_ptr().add(self.code.object.offsets[0] as usize);
                let entry: KernelFn = std::mem::transmute(entry);
                entry(&cx, bufs.as_ptr(), sizes.as_ptr(), from, to, memory.as_mut_ptr().add(at))
            };
            assert!(
                memory[at + scratch..].iter().all(|b| *b == 0xFF),
                "written behind the scratch"
            );
            status = status.max(s);
        }
        for a in &mut out {
            if let KernelArg::Buffer(b) | KernelArg::Output(b) = a {
                let end = b.split_off(b.len() - GUARD);
                assert!(end.iter().all(|x| *x == 0xA5), "written behind a buffer");
            }
        }
        (out, status)
    }
}

fn solve(p: &Problem, f: &Func, l: &Loaded) -> Result<(), String> {
    let (all, status) = l.run(f, &p.args, u64::MAX, false);
    if status != 0 {
        return Err(format!("{} {}: status {status}", p.name, p.sizes));
    }
    p.check(all[p.output.0].bytes())?;
    for (split, back) in [(1, true), (3, false)] {
        if l.run(f, &p.args, split, back).0 != all {
            return Err(format!("{} {}: pieces of {split} differ", p.name, p.sizes));
        }
    }
    for (i, (a, b)) in p.args.iter().zip(&all).enumerate() {
        if i != p.output.0 && a != b {
            return Err(format!("{} {}: argument {i} was changed", p.name, p.sizes));
        }
    }
    Ok(())
}

fn equal(name: &str, seeds: u64) {
    let f = kernel(name);
    assert!(tile::can(&f).is_empty());
    for level in levels() {
        let l = Loaded::new(&f, level);
        let same = tile::compile(&f, level).unwrap();
        assert!(same == l.code, "the same input gives other code");
        for seed in 0..seeds {
            for p in problems::all(seed).iter().filter(|p| p.name == name) {
                solve(p, &f, &l).unwrap_or_else(|e| panic!("{}, seed {seed}: {e}", level.name()));
            }
        }
    }
}

#[test]
fn softmax() {
    equal("softmax", 24);
}

#[test]
fn matmul_bias_gelu() {
    equal("matmul_bias_gelu", 12);
}

#[test]
fn flash_attention() {
    equal("flash_attention", 12);
}

#[test]
fn paged_mla_decode() {
    equal("paged_mla_decode", 10);
}

#[test]
fn conv3x3() {
    equal("conv3x3", 12);
}

#[test]
fn grouped_fp8_matmul() {
    equal("grouped_fp8_matmul", 10);
}

/// Code for another processor is generated, though it cannot run here.
#[test]
fn every_level_compiles() {
    for name in ["softmax", "grouped_fp8_matmul"] {
        for level in IsaLevel::ALL {
            let code = tile::compile(&kernel(name), level).unwrap();
            assert!(!code.object.bytes.is_empty() && code.scratch > 0);
        }
    }
}

/// The loaded tiles are f32[3, 5], i32[3, 5] and f16[3, 5]; %f, %i, %h stand for them.
fn around(body: &str) -> String {
    format!(
        "module @ops {{
  kernel @ops<n: 1.., s: 0..>(%x: ptr<f32, global>, %k: ptr<i32, global>, %b: ptr<f16, global>, %y: ptr<f32, global>, %z: ptr<i32, global>, %w: ptr<f16, global>, %a: f32, %n: index, %s: index) {{grid = dims[floordiv(n + 2, 3), 2]}} {{
    %c0 = scalar {{value = dense<i64[]: 0>}} : index
    %c1 = scalar {{value = dense<i64[]: 1>}} : index
    %c2 = scalar {{value = dense<i64[]: 2>}} : index
    %c3 = scalar {{value = dense<i64[]: 3>}} : index
    %c5 = scalar {{value = dense<i64[]: 5>}} : index
    %c10 = scalar {{value = dense<i64[]: 10>}} : index
    %p = tile.program_id : index
    %half = tile.program_id {{axis = 1}} : index
    %row = arith.mul %p, %c3 : index
    %col = arith.mul %half, %c5 : index
    %xv = tile.view %x, %n, %c10, %c10, %c1 : view<f32, 2>
    %kv = tile.view %k, %n, %c10, %c10, %c1 : view<i32, 2>
    %bv = tile.view %b, %n, %c10, %c10, %c1 : view<f16, 2>
    %yv = tile.view %y, %n, %c10, %c10, %c1 : view<f32, 2>
    %zv = tile.view %z, %n, %c10, %c10, %c1 : view<i32, 2>
    %wv = tile.view %w, %n, %c10, %c10, %c1 : view<f16, 2>
    %f = tile.load %xv, %row, %col {{pad = 0.5, tile = [3, 5]}} : tile<3x5xf32>
    %i = tile.load %kv, %row, %col {{pad = 7.0, tile = [3, 5]}} : tile<3x5xi32>
    %h = tile.load %bv, %row, %col {{pad = -2.0, tile = [3, 5]}} : tile<3x5xf16>
{body}
    return
  }}
}}
"
    )
}

const OPS: &[(&str, &str)] = &[
    (
        "sums along both axes, in three types",
        "%0 = tile.reduce %f {axis = 1, kind = \"sum\"} : tile<3xf32>
         %1 = tile.broadcast %0 {axis = 1, size = 5} : tile<3x5xf32>
         tile.store %yv, %1, %row, %col
         %2 = tile.reduce %i {axis = 0, kind = \"prod\"} : tile<5xi32>
         %3 = tile.broadcast %2 {axis = 0, size = 3} : tile<3x5xi32>
         tile.store %zv, %3, %row, %col
         %4 = tile.reduce %h {axis = 0, kind = \"sum\"} : tile<5xf16>
         %5 = tile.broadcast %4 {axis = 0, size = 3} : tile<3x5xf16>
         tile.store %wv, %5, %row, %col",
    ),
    (
        "extrema down to a scalar",
        "%0 = tile.reduce %f {axis = 0, kind = \"max\"} : tile<5xf32>
         %1 = tile.reduce %0 {axis = 0, kind = \"min\"} : f32
         %2 = arith.mul %1, %a : f32
         %3 = tile.full %2 {shape = [3, 5]} : tile<3x5xf32>
         tile.store %yv, %3, %row, %col
         %4 = tile.reduce %h {axis = 1, kind = \"min\"} : tile<3xf16>
         tile.store %wv, %4, %row, %col {axes = [0]}",
    ),
    (
        "scans, forwards and back",
        "%0 = tile.scan %f {axis = 1, kind = \"max\"} : tile<3x5xf32>
         tile.store %yv, %0, %row, %col
         %1 = tile.scan %i {axis = 0, kind = \"sum\", reverse = true} : tile<3x5xi32>
         tile.store %zv, %1, %row, %col
         %2 = tile.scan %h {axis = 1, kind = \"min\", reverse = true} : tile<3x5xf16>
         tile.store %wv, %2, %row, %col",
    ),
    (
        "shapes",
        "%0 = tile.broadcast %f {axis = 1, size = 2} : tile<3x2x5xf32>
         %1 = tile.transpose %0 {perm = [2, 0, 1]} : tile<5x3x2xf32>
         %2 = tile.reshape %1 {shape = [6, 5]} : tile<6x5xf32>
         %3 = tile.transpose %2 {perm = [1, 0]} : tile<5x6xf32>
         %4 = tile.reduce %3 {axis = 1, kind = \"sum\"} : tile<5xf32>
         %5 = tile.broadcast %4 {axis = 0, size = 3} : tile<3x5xf32>
         tile.store %yv, %5, %row, %col
         %6 = tile.iota {size = 5} : tile<5xi32>
         %7 = tile.broadcast %6 {axis = 0, size = 3} : tile<3x5xi32>
         %8 = arith.mul %7, %i : tile<3x5xi32>
         tile.store %zv, %8, %row, %col",
    ),
    (
        "products of every kind",
        "%0 = tile.transpose %f {perm = [1, 0]} : tile<5x3xf32>
         %zero = scalar {value = dense<f32[]: 0.25>} : f32
         %1 = tile.full %zero {shape = [3, 3]} : tile<3x3xf32>
         %2 = tile.dot %f, %0, %1 : tile<3x3xf32>
         %3 = tile.dot %2, %f, %f : tile<3x5xf32>
         tile.store %yv, %3, %row, %col
         %4 = arith.cast %i {to = i8} : tile<3x5xi8>
         %5 = tile.transpose %4 {perm = [1, 0]} : tile<5x3xi8>
         %6 = arith.cast %5 {to = u8} : tile<5x3xu8>
         %7 = scalar {value = dense<i32[]: 3>} : i32
         %8 = tile.full %7 {shape = [3, 3]} : tile<3x3xi32>
         %9 = tile.dot %4, %6, %8 : tile<3x3xi32>
         tile.store %zv, %9, %row, %col
         %10 = arith.cast %f {to = f64} : tile<3x5xf64>
         %11 = tile.transpose %10 {perm = [1, 0]} : tile<5x3xf64>
         %12 = arith.cast %1 {to = f64} : tile<3x3xf64>
         %13 = tile.dot %10, %11, %12 : tile<3x3xf64>
         %14 = arith.cast %13 {to = f16} : tile<3x3xf16>
         tile.store %wv, %14, %row, %col",
    ),
    (
        "loops that exchange what they carry",
        "%g = arith.neg %f : tile<3x5xf32>
         %u, %v, %m = tile.for %c0, %s, %c2, %f, %g, %c1 do(%t: index, %u_in: tile<3x5xf32>, %v_in: tile<3x5xf32>, %m_in: index) {
           %m_out = arith.add %m_in, %t : index
           %t32 = arith.cast %m_out {to = i32} : i32
           %tf = arith.cast %t32 {to = f32} : f32
           %ts = tile.full %tf {shape = [3, 5]} : tile<3x5xf32>
           %sum = arith.add %u_in, %ts : tile<3x5xf32>
           %uu = tile.for %c0, %c2, %c1, %v_in do(%tt: index, %w_in: tile<3x5xf32>) {
             %w_out = arith.mul %w_in, %ts : tile<3x5xf32>
             yield %w_out
           } : tile<3x5xf32>
           %mixed = arith.add %uu, %sum : tile<3x5xf32>
           tile.store %yv, %mixed, %row, %col
           yield %v_in, %u_in, %m_out
         } : tile<3x5xf32>, tile<3x5xf32>, index
         tile.store %yv, %u, %row, %col
         %i32 = arith.cast %m {to = i32} : i32
         %is = tile.full %i32 {shape = [3, 5]} : tile<3x5xi32>
         tile.store %zv, %is, %row, %col
         %vh = arith.cast %v {to = f16} : tile<3x5xf16>
         tile.store %wv, %vh, %row, %col",
    ),
    (
        "choices with results",
        "%many = tile.num_programs : index
         %on = arith.lt %half, %s : bool
         %r, %q = tile.if %on do {
           %0 = arith.exp %f : tile<3x5xf32>
           yield %0, %many
         } do {
           yield %f, %s
         } : tile<3x5xf32>, index
         tile.store %yv, %r, %row, %col
         %q32 = arith.cast %q {to = i32} : i32
         tile.store %zv, %q32, %row, %col",
    ),
    (
        "accesses that reach outside on every side",
        "%up = arith.sub %row, %c2 : index
         %left = arith.sub %col, %c3 : index
         %0 = tile.load %xv, %up, %left {pad = -inf, tile = [3, 5]} : tile<3x5xf32>
         %1 = tile.load %xv, %row, %s {pad = 9.0, tile = []} : f32
         %2 = tile.full %1 {shape = [3, 5]} : tile<3x5xf32>
         %3 = arith.max %0, %2 : tile<3x5xf32>
         tile.store %yv, %3, %row, %col
         %tv = tile.view %k, %c10, %n, %c1, %c10 : view<i32, 2>
         %4 = tile.load %tv, %col, %row {pad = 1.0, tile = [5, 3]} : tile<5x3xi32>
         %5 = tile.transpose %4 {perm = [1, 0]} : tile<3x5xi32>
         tile.store %zv, %5, %row, %col
         %line = tile.load %bv, %s, %col {axes = [1], pad = 3.0, tile = [5]} : tile<5xf16>
         %lines = tile.broadcast %line {axis = 0, size = 3} : tile<3x5xf16>
         tile.store %wv, %lines, %row, %col",
    ),
];

#[test]
fn every_op_equals_the_interpreter() {
    let mut r = problems::Rng(7);
    for (what, body) in OPS {
        let f = parse(what, &around(body));
        for level in levels() {
            let l = Loaded::new(&f, level);
            for n in [1usize, 3, 8] {
                let args = |r: &mut problems::Rng| {
                    let part = |r: &mut problems::Rng, e: Elem, scale: f64| {
                        let v = r.reals(e, n * 10, scale);
                        problems::buffer(e, &v)
                    };
                    let out = |e: Elem| KernelArg::Output(vec![0xFF; n * 10 * e.bytes().unwrap()]);
                    vec![
                        part(r, Elem::F32, 2.0),
                        part(r, Elem::I32, 40.0),
                        part(r, Elem::F16, 2.0),
                        out(Elem::F32),
                        out(Elem::I32),
                        out(Elem::F16),
                        KernelArg::Scalar(silure_ir::Num::F(1.5)),
                        KernelArg::Index(n as i64),
                    ]
                };
                for s in [0, 1, 5, 40] {
                    let mut want = args(&mut r);
                    want.push(KernelArg::Index(s));
                    let (got, status) = l.run(&f, &want, u64::MAX, false);
                    assert_eq!(status, 0);
                    run_kernel(&f, &mut want, &Options::default())
                        .unwrap_or_else(|e| panic!("{what}: {e}"));
                    for (i, e) in [(3, Elem::F32), (4, Elem::I32), (5, Elem::F16)] {
                        for at in 0..n * 10 {
                            let bits = |a: &KernelArg| e.load(a.bytes(), at).unwrap();
                            let (g, w) = (bits(&got[i]), bits(&want[i]));
                            let (gv, wv) = (e.decode(g), e.decode(w));
                            let near = (gv - wv).abs() <= 16.0 * e.epsilon() * wv.abs().max(1.0);
                            assert!(
                                g == w || (e.is_float() && (near || (gv.is_nan() && wv.is_nan()))),
                                "{what}, {}, n {n}, s {s}: output {i} [{at}] is {gv}, wanted {wv}",
                                level.name()
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_step_that_is_not_positive_ends_the_call() {
    let body = "tile.for %c0, %n, %s do(%t: index) {\n yield\n}";
    let f = parse("step", &around(body));
    let zeros = |e: Elem| problems::buffer(e, &[0.0; 10]);
    let args = [Elem::F32, Elem::I32, Elem::F16].map(zeros);
    let mut args: Vec<KernelArg> = args.iter().chain(&args).cloned().collect();
    args.push(KernelArg::Scalar(silure_ir::Num::F(1.5)));
    args.extend([KernelArg::Index(1), KernelArg::Index(0)]);
    let l = Loaded::new(&f, IsaLevel::X86_64);
    assert_eq!(l.run(&f, &args, u64::MAX, false).1, silure_kernels_cpu::abi::BAD_SIZES);
}

#[test]
fn what_does_not_fit_is_refused_with_numbers() {
    let tile = "tile<1048576xf32>";
    let mut body = String::new();
    for k in 0..20 {
        body += &format!("%t{k} = tile.full %a {{shape = [1048576]}} : {tile}\n");
    }
    body += "%s0 = arith.add %t0, %t1 : tile<1048576xf32>\n";
    for k in 1..19 {
        body += &format!("%s{k} = arith.add %s{}, %t{} : {tile}\n", k - 1, k + 1);
    }
    body += "tile.store %yv, %s18, %row, %col {axes = [1]}";
    let f = parse("large", &around(&body));
    let e = tile::compile(&f, IsaLevel::X86_64).unwrap_err();
    assert_eq!(e.code, silure_ir::Code::Limit, "{e}");
    assert!(e.to_string().contains("67108864"), "{e}");
}

#[test]
fn sizes_out_of_range_are_refused() {
    let code = tile::compile(&kernel("softmax"), IsaLevel::X86_64).unwrap();
    let e = code.bind(&[None, None, Some(0), Some(4)]).unwrap_err();
    assert!(e.to_string().contains("`rows`"), "{e}");
    assert!(code.bind(&[None, None, Some(1)]).is_err());
    assert_eq!(code.bind(&[None, None, Some(17), Some(4)]).unwrap(), (vec![17, 4, 3], 3));
}

/// `cargo test -p silure-cpu --test tile -- --ignored --nocapture`: time of each kernel's problems.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let Some(&level) = levels().last() else { return };
    for p in problems::all(3) {
        let f = kernel(p.name);
        let t = std::time::Instant::now();
        let l = Loaded::new(&f, level);
        let compile = t.elapsed();
        let mut best = f64::MAX;
        for _ in 0..20 {
            let t = std::time::Instant::now();
            l.run(&f, &p.args, u64::MAX, false);
            best = best.min(t.elapsed().as_secs_f64());
        }
        println!(
            "{:20} {:40} {:8.3} ms, compiled in {:.0} ms, {} bytes, scratch {}, {} elementwise loops",
            p.name,
            p.sizes,
            best * 1e3,
            compile.as_secs_f64() * 1e3,
            l.code.object.bytes.len(),
            l.code.scratch,
            tile::elementwise_loops(&f)
        );
    }
}
