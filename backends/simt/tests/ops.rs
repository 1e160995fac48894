//! Ops that the six kernels leave out, in the kernels of tests/ops: what a block of threads computes
//! equals what the tile interpreter computes. And rules of the verifier, faults planted in lowered code.

use silure_ir::dialects::tile::{self, KernelArg, Options};
use silure_ir::{Context, Elem, Func, Module, text};
use silure_simt::{Caps, interp, kernel, lower_tile};
use silure_target::Target;

fn context() -> Context {
    let mut cx = Context::new();
    silure_simt::register(&mut cx).unwrap();
    cx
}

fn parse(name: &str, source: &str) -> Func {
    let m = text::parse_verified(&context(), name, source).unwrap_or_else(|e| panic!("{e:?}"));
    m.funcs[0].clone()
}

fn kernel(dir: &str, name: &str) -> Func {
    let path = format!("{}/{dir}/{name}.sir", env!("CARGO_MANIFEST_DIR"));
    parse(name, &std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")))
}

fn caps() -> Caps {
    Caps::of(&Target::parse("cuda:sm_80").unwrap()).unwrap()
}

/// `n` numbers that `e` holds exactly, the same for one seed.
fn data(e: Elem, n: usize, seed: u64, scale: f64) -> KernelArg {
    let mut bytes = vec![0; n * e.bytes().unwrap()];
    let mut s = seed;
    for i in 0..n {
        s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let v = ((s >> 40) as f64 / (1u64 << 23) as f64 - 1.0) * scale;
        e.store(&mut bytes, i, e.encode(if e.is_int() { v.round() } else { v }));
    }
    KernelArg::Buffer(bytes)
}

fn out(e: Elem, n: usize) -> KernelArg {
    KernelArg::Output(vec![0; n * e.bytes().unwrap()])
}

/// Runs both interpreters; buffers must agree to `tolerance` (0: bit for bit).
fn same(name: &str, args: Vec<KernelArg>, elems: &[Elem], tolerance: f64) {
    let f = kernel("tests/ops", name);
    for warps in [1, 4, 8] {
        let options = silure_simt::Options { warps: Some(warps) };
        let g = lower_tile(&f, &caps(), &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        kernel::verify(&g, None).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let (mut want, mut have) = (args.clone(), args.clone());
        let a = tile::run_kernel(&f, &mut want, &Options::default()).unwrap();
        let b = interp::run_kernel(&g, &mut have, &Options { seed: 7, ..Default::default() })
            .unwrap_or_else(|e| panic!("{name}, {warps} warps: {e}"));
        assert_eq!(a.unwritten, b.unwritten, "{name}");
        for (i, e) in elems.iter().enumerate() {
            let n = want[i].bytes().len() / e.bytes().unwrap();
            for j in 0..n {
                let get = |a: &KernelArg| e.load(a.bytes(), j).unwrap();
                let (x, y) = (get(&want[i]), get(&have[i]));
                let near = (e.decode(x) - e.decode(y)).abs() <= tolerance;
                assert!(
                    x == y || near,
                    "{name}, {warps} warps, argument {i}, element {j}: {} and {}",
                    e.decode(x),
                    e.decode(y)
                );
            }
        }
    }
}

#[test]
fn product_in_f32() {
    use Elem::F32;
    for (m, n) in [(16, 8), (13, 5)] {
        let args = vec![
            data(F32, m * 32, 1, 1.0),
            data(F32, n * 32, 2, 1.0),
            out(F32, m * n),
            KernelArg::Index(m as i64),
            KernelArg::Index(n as i64),
        ];
        same("dot_f32", args, &[F32, F32, F32], 64.0 * 2f64.powi(-22));
    }
}

#[test]
fn product_of_bytes() {
    for (m, n) in [(32, 16), (31, 16), (7, 3)] {
        let args = vec![
            data(Elem::I8, m * 64, 3, 127.0),
            data(Elem::I8, n * 64, 4, 127.0),
            out(Elem::I32, m * n),
            KernelArg::Index(m as i64),
            KernelArg::Index(n as i64),
        ];
        same("dot_i8", args, &[Elem::I8, Elem::I8, Elem::I32], 0.0);
    }
}

#[test]
fn reductions_and_scans() {
    for (m, n) in [(64, 128), (50, 100), (64, 120), (1, 1)] {
        let args = vec![
            data(Elem::F16, m * n, 5, 2.0),
            out(Elem::F32, n),
            out(Elem::F16, m * n),
            KernelArg::Index(m as i64),
            KernelArg::Index(n as i64),
        ];
        // 64 terms below 2, twice.
        same("reduce_scan", args, &[Elem::F16, Elem::F32, Elem::F16], 256.0 * 2f64.powi(-23));
    }
}

#[test]
fn integers_and_choices() {
    for n in [1, 64, 65, 200, 256] {
        let args = vec![
            data(Elem::I32, n, 6, 1e6),
            data(Elem::I32, n, 7, 4.0),
            out(Elem::I32, n),
            KernelArg::Index(n as i64),
        ];
        same("integers", args, &[Elem::I32, Elem::I32, Elem::I32], 0.0);
    }
}

/// The matmul kernel as simt text.
fn matmul() -> String {
    let f = kernel("../../tests/kernels", "matmul_bias_gelu");
    let g = lower_tile(&f, &caps(), &Default::default()).unwrap();
    text::print(&Module { name: "m".into(), funcs: vec![g], ..Module::default() })
}

fn run(source: &str) -> Result<Vec<u8>, String> {
    let f = parse("m", source);
    // Two rounds of the loop over k.
    let [a, b] = [9, 10].map(|seed| data(Elem::F16, 64 * 128, seed, 1.0));
    let mut args = vec![a, b, data(Elem::F16, 64, 8, 1.0), out(Elem::F16, 64 * 64)];
    args.extend([64, 64, 128].map(KernelArg::Index));
    interp::run_kernel(&f, &mut args, &Options::default()).map_err(|e| e.to_string())?;
    Ok(args[3].bytes().to_vec())
}

/// Replaces the `n`-th occurrence.
fn replaced(text: &str, from: &str, to: &str, n: usize) -> String {
    let at = text.match_indices(from).nth(n).unwrap_or_else(|| panic!("no {n}-th `{from}`")).0;
    format!("{}{to}{}", &text[..at], &text[at + from.len()..])
}

#[test]
fn planted_faults_are_noticed() {
    let good = matmul();
    let want = run(&good).unwrap();
    // (what goes, what comes, the n-th, what is said; empty: the result differs). Without a barrier it depends on the
    // order of warps whether the byte is there too early or not yet.
    let faults = [
        ("simt.barrier", "simt.async_commit", 0, "shared byte"),
        ("simt.barrier", "simt.async_commit", 4, "shared byte"),
        (
            "simt.async_wait {pending = 2}",
            "simt.async_wait {pending = 3}",
            0,
            "before its copy is waited for",
        ),
        ("simt.async_commit", "simt.async_wait", 0, "before its copy is waited for"),
        ("count = 4}", "count = 4, trans = true}", 0, ""),
        ("count = 4, offset = 32", "count = 4, offset = 16", 0, ""),
        ("simt.lane_id", "simt.warp_id", 0, ""),
    ];
    for (from, to, n, said) in faults {
        let bad = replaced(&good, from, to, n);
        match run(&bad) {
            Err(e) => assert!(e.contains(said), "`{from}` {n}: {e}"),
            Ok(y) => assert!(said.is_empty() && y != want, "`{from}` {n} was not noticed"),
        }
    }
}

#[test]
fn the_verifier_says_what_is_wrong() {
    let source = |body: &str, shared: u32| {
        format!(
            "module @m {{\n  kernel @k(%x: ptr<f32, global>) {{grid = dims[1], shared = {shared}, \
             target = \"sm_80\", threads = 64, warp = 32}} {{\n{body}\n    return\n  }}\n}}\n"
        )
    };
    let said = |body: &str, shared: u32, message: &str| {
        let m = text::parse(&context(), "m", &source(body, shared), Default::default()).unwrap();
        let e = kernel::verify(&m.funcs[0], Some(1024)).expect_err(message);
        let all: String = e.iter().map(|e| format!("{e}\n")).collect();
        assert!(all.contains(message), "{all}");
    };
    let lane = "%t = simt.lane_id : i32\n%c = scalar {value = dense<i32[]: 3>} : i32\n\
                %p = arith.lt %t, %c : bool\n";
    let parted = format!("{lane}simt.if %p do {{\nsimt.barrier\nyield\n}} do {{\nyield\n}}");
    said(&parted, 0, "`simt.barrier` where threads may have parted");
    let part =
        |at: u32| format!("simt.shared {{at = {at}, bytes = 64, elem = f32}} : ptr<f32, shared>\n");
    said(&format!("%a = {}", part(64)), 100, "behind the end of shared memory");
    said(&format!("%a = {}%b = {}", part(0), part(32)), 128, "overlap");
    said(&format!("%a = {}", part(0)), 4096, "too much shared memory");
    let load =
        format!("%a = {}%v, %w = simt.load %a, _ {{count = 2, offset = 4}} : f32, f32", part(0));
    said(&load, 64, "misaligned");
    said("%v = tile.iota {size = 4} : tile<4xi32>", 0, "`tile.iota` is not an op of simt kernels");
}

#[test]
fn limits_are_told_with_numbers() {
    let f = kernel("../../tests/kernels", "paged_mla_decode");
    let small = Caps { shared: 49152, ..caps() };
    let e = lower_tile(&f, &small, &Default::default()).unwrap_err().to_string();
    assert!(e.contains("needs more shared memory") && e.contains("49152"), "{e}");
    let dot = kernel("tests/ops", "reduce_scan");
    let one = silure_simt::Options { warps: Some(1) };
    let large =
        text::print_func(&dot).replace("[64, 128]", "[128, 128]").replace("64x128", "128x128");
    let large = large.replace("64xf16", "128xf16");
    let e = lower_tile(&parse("m", &format!("module @m {{\n{large}\n}}")), &caps(), &one);
    let e = e.unwrap_err().to_string();
    assert!(e.contains("at most 256 elements of a thread, present 512"), "{e}");
    let wide = silure_simt::Options { warps: Some(64) };
    assert!(lower_tile(&f, &caps(), &wide).is_err());
}
