//! The kernels in tests/kernels run by the interpreter against plain f64 loops, and faults planted in
//! their text, each of which must be noticed.

#[path = "../../tests/kernels/problems.rs"]
mod problems;

use problems::Problem;
use silure_ir::dialects::tile::{Options, Report, run_kernel};
use silure_ir::{Context, Module, text};

fn source(name: &str) -> String {
    let path = format!("{}/../tests/kernels/{name}.sir", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn parse(name: &str, source: &str) -> Result<Module, String> {
    text::parse_verified(&Context::new(), name, source)
        .map_err(|e| e.iter().map(|e| format!("{e}\n")).collect())
}

/// Runs a problem with the kernel of that text.
fn run(p: &Problem, source: &str, seed: u64) -> Result<Report, String> {
    let m = parse(p.name, source)?;
    let f = m.func(p.name).ok_or("no such kernel")?;
    let mut args = p.args.clone();
    let options = Options { seed, ..Options::default() };
    let report =
        run_kernel(f, &mut args, &options).map_err(|e| format!("{} {}: {e}", p.name, p.sizes))?;
    p.check(args[p.output.0].bytes())?;
    if report.unwritten != p.untouched() {
        return Err(format!("{} elements are not written", report.unwritten));
    }
    Ok(report)
}

#[test]
fn kernels_equal_plain_loops_over_random_sizes() {
    for seed in 0..12 {
        for p in problems::all(seed) {
            let r = run(&p, &source(p.name), seed).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert!(r.programs > 0 && r.ops > 0);
        }
    }
}

/// Kernel, text to replace (exactly one place), replacement.
const FAULTS: &[(&str, &str, &str)] = &[
    // A tail in n read as zeros, not as -inf.
    ("softmax", "%t = tile.load %xv, %row, %col {pad = -inf, ", "%t = tile.load %xv, %row, %col {"),
    // Rows that begin with a whole tile of -inf.
    ("softmax", "arith.select %none, %zeros, %m_new", "arith.select %none, %m_new, %m_new"),
    ("softmax", "arith.sub %m, %m_safe", "arith.sub %m_safe, %m"),
    // The view ends a row too late: two programs write one row or it is outside the buffer.
    ("softmax", "%yv = tile.view %y, %rows, %n,", "%yv = tile.view %y, %rows, %c256,"),
    // k's tail would run into the next row of a.
    ("matmul_bias_gelu", "%av = tile.view %a, %m, %k, %k", "%av = tile.view %a, %m, %c64, %k"),
    ("matmul_bias_gelu", "tile.for %c0, %k, %c64, %init", "tile.for %c0, %c64, %c64, %init"),
    ("matmul_bias_gelu", "broadcast %bias_row {axis = 0", "broadcast %bias_row {axis = 1"),
    (
        "matmul_bias_gelu",
        "%active = arith.gelu %biased",
        "%active = arith.gelu %biased {tanh = true}",
    ),
    // The diagonal, and what is behind it.
    ("flash_attention", "arith.le %ahead, %leads", "arith.lt %ahead, %leads"),
    ("flash_attention", "arith.le %ahead, %leads", "arith.eq %ahead, %ahead"),
    ("flash_attention", "tile.for %c0, %end, %c64,", "tile.for %c0, %row, %c64,"),
    ("flash_attention", "arith.mul %acc_in, %alpha_wide", "arith.mul %acc_in, %scales"),
    // Behind the last token of a page, and the page itself.
    ("paged_mla_decode", "tile.view %cache, %pages, %live,", "tile.view %cache, %pages, %c64,"),
    ("paged_mla_decode", "arith.lt %cols, %lives", "arith.le %cols, %lives"),
    ("paged_mla_decode", "tile.index %page32", "tile.index %len32"),
    ("paged_mla_decode", "tile.dot %q_pe, %k_pet, %s_nope", "tile.dot %q_pe, %k_pet, %score0"),
    ("paged_mla_decode", "arith.select %some, %sum, %ones", "arith.select %some, %sum, %sum"),
    // Padding: left border, upper border, the row's right end.
    ("conv3x3", "arith.sub %w_at, %c1", "arith.sub %w_at, %c0"),
    ("conv3x3", "arith.sub %row, %c1", "arith.sub %row, %c0"),
    ("conv3x3", "tile.view %x, %batch, %h, %w, %c,", "tile.view %x, %batch, %h, %x_row, %c,"),
    ("conv3x3", "arith.floordiv %tap, %c3", "arith.mod %tap, %c3"),
    // Rows behind a group's count are read or written.
    ("grouped_fp8_matmul", "tile.view %y, %groups, %count,", "tile.view %y, %groups, %m,"),
    ("grouped_fp8_matmul", "tile.load %asv, %g, %row, %block", "tile.load %asv, %g, %row, %c0"),
    (
        "grouped_fp8_matmul",
        "tile.load %bsv, %g, %block_n, %block",
        "tile.load %bsv, %g, %c0, %block",
    ),
    ("grouped_fp8_matmul", "tile.dot %ta, %tbt, %init", "tile.dot %ta, %tbt, %acc"),
];

#[test]
fn planted_faults_are_noticed() {
    for (name, from, to) in FAULTS {
        let good = source(name);
        assert_eq!(good.matches(from).count(), 1, "{name}: `{from}`");
        let bad = good.replace(from, to);
        parse(name, &bad).unwrap_or_else(|e| panic!("{name}: {e}"));
        let noticed = (0..12).any(|seed| {
            problems::all(seed).iter().any(|p| p.name == *name && run(p, &bad, seed).is_err())
        });
        assert!(noticed, "{name}: `{from}` became `{to}` and nothing noticed");
    }
}
