//! PTX that others wrote: Triton's and MLIR's kernels for sm_80 against plain f64 loops, in five orders of warps each;
//! then the same texts with one thing taken out, which must be noticed.
//!
//! tests/corpus/generate.py writes the texts; `generate.py --check` compares them with what the compilers give today.

mod common;

use common::{NAMES, case, text};
use silure_ptx_emulator::{Kind, Options};

fn options(seed: u64) -> Options {
    Options { seed, ..Options::default() }
}

#[test]
fn values_in_five_orders() {
    for name in NAMES {
        let mut worst = 0f64;
        for seed in 0..5 {
            let mut c = case(name, seed);
            let t = text(c.file);
            for order in 0..5 {
                let (d, _) = c
                    .run(&t, &options(100 * seed + order))
                    .unwrap_or_else(|e| panic!("{name}, seed {seed}: {e}"));
                worst = worst.max(d);
            }
        }
        println!("{name}: {worst:.3} of the bound");
        assert!(worst <= 1.0, "{name}: {worst} times the bound");
    }
}

/// A text without the n-th line that has a word.
fn without(t: &str, word: &str, n: usize) -> String {
    let mut seen = 0;
    let keep = |l: &&str| {
        let has = l.contains(word);
        seen += has as usize;
        !(has && seen == n + 1)
    };
    let out: Vec<&str> = t.lines().filter(keep).collect();
    assert!(seen > n, "{word} is there {seen} times");
    out.join("\n")
}

/// What a changed text gives in five orders and five inputs: the kinds of errors, or "wrong".
fn outcome(name: &str, t: &str) -> Vec<String> {
    let mut out = Vec::new();
    for seed in 0..5 {
        let said = match case(name, seed).run(t, &options(seed)) {
            Err(e) => format!("{:?}", e.kind),
            Ok((d, _)) if d > 1.0 => "wrong".into(),
            Ok(_) => continue,
        };
        if !out.contains(&said) {
            out.push(said);
        }
    }
    out
}

/// Barriers of the corpus that order nothing.
const SPARE: [(&str, usize); 2] = [
    // At the head of the loop: what is read behind it was waited for before the barrier before it.
    ("triton_matmul_f16", 1),
    // Behind the loop, whose last barrier lies behind all reads; what is written next is no copy's place.
    ("triton_attention_bf16", 2),
];

#[test]
fn every_barrier_is_needed() {
    let mut spare = Vec::new();
    for name in ["triton_softmax", "triton_matmul_f16", "triton_attention_bf16", "mlir_matmul"] {
        let t = text(case(name, 0).file);
        for n in 0..t.matches("bar.sync").count() {
            let said = outcome(name, &without(&t, "bar.sync", n));
            println!("{name} without barrier {n}: {said:?}");
            // A reader that comes first reads what nobody wrote: the same race, seen from the other side.
            if !said.iter().any(|s| matches!(&**s, "Race" | "Uninitialised" | "Unfinished")) {
                spare.push((name, n));
            }
        }
    }
    assert_eq!(spare, SPARE);
}

#[test]
fn a_wait_is_needed() {
    for name in ["triton_matmul_f16", "triton_attention_f16", "mlir_matmul"] {
        let t = text(case(name, 0).file);
        let said = outcome(name, &without(&t, "cp.async.wait", 0));
        assert!(said.contains(&format!("{:?}", Kind::Unfinished)), "{name}: {said:?}");
    }
}

#[test]
fn a_transposed_fragment_is_wrong() {
    for name in ["triton_matmul_bf16", "triton_attention_f16", "mlir_matmul"] {
        let t = text(case(name, 0).file).replacen("m8n8.x4.shared", "m8n8.x4.trans.shared", 1);
        assert_eq!(outcome(name, &t), ["wrong"], "{name}");
    }
}
