//! Problems of modules, choices in launches.

use silure_ir::text::parse_verified;
use silure_ir::{Context, Weight};

use super::*;
use crate::lower::{Lowerings, lower};

/// Two products of the same sizes and one of others, with rows that only a run knows.
fn module() -> Module {
    let text = "module @m {
  entry @main<s: 1..512>(%x: f32[s, 64], %z: f32[96, 64], %b: f32[64, 64], %c: f32[64, 32]) -> (y: f32[s, 64], v: f32[s, 32], w: f32[96, 64]) {
    %y = graph.matmul %x, %b : f32[s, 64]
    %v = graph.matmul %y, %c : f32[s, 32]
    %w = graph.matmul %z, %b : f32[96, 64]
    return %y, %v, %w
  }
}
";
    let mut m = parse_verified(&Context::new(), "m.sir", text).unwrap();
    lower(&mut m, &Lowerings::default()).unwrap();
    m
}

const AT_96: &str = "matmul.f32 batch=1x1x1x1x1x1 m=96 n=64 k=64 a_col=1 b_col=1";

fn schedules(m: &Module) -> Vec<Vec<Dim>> {
    let f = &m.funcs[0];
    let sizes = |(op, _, slot): &(OpId, &'static str, usize)| {
        f.op(*op).attrs.dims("sizes")[*slot..*slot + NUMBERS].to_vec()
    };
    launches(f).iter().map(sizes).collect()
}

fn choice(rows: usize) -> Choice {
    let schedule = Schedule { rows, ..Schedule::DEFAULT };
    Choice { problem: Problem::parse(AT_96).unwrap(), schedule }
}

#[test]
fn text_has_one_spelling() {
    let p = Problem::parse(AT_96).unwrap();
    assert_eq!(p.to_string(), AT_96);
    assert_eq!(p.extents(), [96, 64, 64]);
    for (bad, needed) in [
        ("", "needed a kernel"),
        ("softmax.f32 rows=1", "needed a kernel"),
        ("matmul.f32", "needed `batch=NxNxNxNxNxN`"),
        ("matmul.f32 batch=1x1x1x1x1x1 m=+96 n=64 k=64 a_col=1 b_col=1", "needed the spelling"),
        ("matmul.f32 batch=1x1x1x1x1 m=96 n=64 k=64 a_col=1 b_col=1", "needed `batch="),
        ("matmul.f32 batch=1x1x1x1x1x1 m=9999999999999999999 n=64 k=64", "needed `m=N`"),
        ("matmul.f32 batch=1x1x1x1x1x1 m=96 n=64 k=64 a_col=1 b_col=1 ", "needed nothing more"),
    ] {
        let e = Problem::parse(bad).unwrap_err();
        assert!(e.contains(needed), "{bad}: {e}");
    }
    assert!(Problem::parse(&"9".repeat(5000)).unwrap_err().contains("at most 1024 bytes"));
}

#[test]
fn a_choice_is_taken_where_its_sizes_are() {
    let mut m = module();
    let done = apply(&mut m, &[choice(48)]).unwrap();
    assert_eq!((done.launches, done.taken, done.at_sizes), (3, 1, 1), "{done:?}");
    let all = schedules(&m);
    // The product of a known number of rows takes it, that of s rows where s = 96, that of other columns never.
    let rows = |s: i64, i: usize| all[i][0].eval(&|_| Some(s)).unwrap();
    let mut found: Vec<_> = (0..3).map(|i| [rows(96, i), rows(95, i), rows(1, i)]).collect();
    found.sort();
    assert_eq!(found, [[0, 0, 0], [48, 0, 0], [48, 48, 48]]);
    silure_ir::verify::verify(&m).unwrap();
    let other = "matmul.f32 batch=1x1x1x1x1x1 m=97 n=65 k=64 a_col=1 b_col=1";
    let other = Choice { problem: Problem::parse(other).unwrap(), ..choice(48) };
    let done = apply(&mut module(), &[other]).unwrap();
    assert_eq!((done.taken, done.at_sizes, done.unused), (0, 0, vec![0]));
}

#[test]
fn what_a_kernel_cannot_run_is_refused() {
    for rows in [1, 47, 1 << 40] {
        let e = apply(&mut module(), &[choice(rows)]).unwrap_err().to_string();
        assert!(e.contains("`rows`: needed 0 or a multiple of 24 from 48 to 1536"), "{e}");
    }
}

#[test]
fn an_opened_module_reads_its_schedules() {
    let mut m = module();
    let known = open(&mut m, "main", &|_| None).unwrap();
    assert_eq!((known.problems.len(), known.unknown), (1, 2));
    let mut m = module();
    let all = open(&mut m, "main", &|s| (s == "s").then_some(96)).unwrap();
    assert_eq!((all.problems.len(), all.unknown), (2, 0));
    let mut launches = all.launches.clone();
    launches.sort();
    assert_eq!(launches, [1, 2]);
    silure_ir::verify::verify(&m).unwrap();
    let mut codegen = crate::codegen::Codegen::new(crate::codegen::IsaLevel::ALL[0]).unwrap();
    let bytes = |w: &Weight| crate::weight_bytes(w);
    let plan = silure_launch::encode::encode(&m, &mut codegen, &bytes, None).unwrap().plan;
    let inputs = &plan.entries[0].inputs;
    assert_eq!(plan.str(inputs.last().unwrap().name), INPUT);
    assert!(open(&mut module(), "other", &|_| None).is_err());
}

/// Candidates are ones that the kernel runs, differ, and are the same for the same seed.
#[test]
fn candidates_are_bounded_and_seeded() {
    let bits = |seed: u64| {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 33
        }
    };
    for text in [
        AT_96,
        "matmul.f32.packed batch=1x1x1x1x1x1 m=1 n=1000 k=2048 a_col=1 b_col=0",
        "matmul.i8.packed batch=1x1x1x1x1x1 m=128 n=768 k=768 a_col=1 b_col=0",
        "conv.f32.last batch=1 groups=1 in_channels=64 out_channels=64 x=1x56x56 y=1x56x56 kernel=1x3x3 stride=1x1x1 dilation=1x1x1 pad=0x1x1",
        "conv.f32.last.depthwise batch=1 groups=96 in_channels=1 out_channels=1 x=1x112x112 y=1x56x56 kernel=1x3x3 stride=1x2x2 dilation=1x1x1 pad=0x1x1",
        "attention.f32 batch=1 heads=12 kv_heads=12 queries=128 keys=128 depth=64 value_depth=64 causal=0",
    ] {
        let p = Problem::parse(text).unwrap();
        let found = candidates(&p, 24, &mut bits(3));
        assert!((4..=24).contains(&found.len()), "{text}: {found:?}");
        assert_eq!(found, candidates(&p, 24, &mut bits(3)));
        let more = mixed(&p, &found[..3], 6);
        assert!(more.len() <= 6);
        for (i, s) in found.iter().enumerate() {
            assert!(!found[..i].contains(s), "{text}: {s:?}");
        }
        for s in found.iter().chain(&more) {
            assert!(!s.is_default() && p.refusal(s).is_none(), "{text}: {s:?}");
        }
        assert!(candidates(&p, 1, &mut bits(3)).len() <= 1);
    }
    let few =
        Problem::parse("matmul.f32.packed batch=1x1x1x1x1x1 m=1 n=1000 k=2048 a_col=1 b_col=0");
    let only_columns = |s: &Schedule| s.numbers()[0] + s.numbers()[2] + s.numbers()[3] == 0;
    assert!(candidates(&few.unwrap(), 24, &mut bits(9)).iter().all(only_columns));
}
