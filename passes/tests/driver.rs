//! The driver's promises: stopping, bisecting, watching, rolling back, naming, printing.

use silure_ir::diag::Code;
use silure_ir::dialects::arith;
use silure_ir::{Attrs, Context, Module, Num, text};
use silure_passes::options::parse_calls;
use silure_passes::rewrite::{Exactness, Rewrite};
use silure_passes::{
    Bisected, Changed, Config, Driver, PassDef, Preserves, Print, Registry, bisect,
};

const CHAIN: &str = "module @m {\n  entry @main(%x: f32[2]) -> (y: f32[2]) {\n    %0 = arith.neg %x : f32[2]\n    \
    %1 = arith.neg %0 : f32[2]\n    %2 = arith.abs %1 : f32[2]\n    %3 = arith.abs %2 : f32[2]\n    \
    %4 = arith.relu %3 : f32[2]\n    %5 = arith.relu %4 : f32[2]\n    return %5\n  }\n}\n";

fn parse(t: &str) -> Module {
    text::parse_verified(&Context::new(), "t", t).unwrap()
}

fn run(r: &Registry, config: Config, pipeline: &str, m: &mut Module) -> Result<u64, String> {
    let cx = Context::new();
    Driver::new(r, &cx, config).run(pipeline, m).map(|r| r.changes).map_err(|e| e[0].to_string())
}

#[test]
fn stops_after_the_nth_change() {
    let full = run(&Registry::new(), Config::default(), "canonicalize", &mut parse(CHAIN)).unwrap();
    assert_eq!(full, 3);
    for n in 0..=full {
        let mut m = parse(CHAIN);
        let config = Config { stop_after: Some(n), ..Config::default() };
        assert_eq!(run(&Registry::new(), config, "canonicalize,cse", &mut m).unwrap(), n);
    }
}

#[test]
fn bisecting_names_the_change() {
    let (r, cx) = (Registry::new(), Context::new());
    let abs = |m: &Module| text::print(m).matches("arith.abs").count();
    let found =
        bisect(&r, &cx, &Config::default(), "canonicalize", &parse(CHAIN), &mut |m| abs(m) == 2);
    let Bisected::First(c) = found.unwrap() else { panic!("not found") };
    assert_eq!((c.rule, c.pass), ("idempotent", "canonicalize"));
    let start = bisect(&r, &cx, &Config::default(), "dce", &parse(CHAIN), &mut |_| false).unwrap();
    assert_eq!(start, Bisected::BadFromStart);
    let never = bisect(&r, &cx, &Config::default(), "canonicalize", &parse(CHAIN), &mut |_| true);
    assert_eq!(never.unwrap(), Bisected::NeverBad(3));
}

static LOOPING: &[Rewrite] = &[
    Rewrite {
        name: "there",
        doc: "abs becomes relu.",
        roots: &["arith.abs"],
        exact: Exactness::Exact,
        apply: |m| {
            let x = m.operand(0)?;
            m.replace(move |p| p.one(&arith::RELU, [x], Attrs::new()))
        },
    },
    Rewrite {
        name: "back",
        doc: "relu becomes abs.",
        roots: &["arith.relu"],
        exact: Exactness::Exact,
        apply: |m| {
            let x = m.operand(0)?;
            m.replace(move |p| p.one(&arith::ABS, [x], Attrs::new()))
        },
    },
];

#[test]
fn a_loop_ends_with_the_names_of_its_rewrites() {
    let mut r = Registry::new();
    r.add_rewrites("canonicalize", LOOPING).unwrap();
    let e = run(&r, Config::default(), "canonicalize", &mut parse(CHAIN)).unwrap_err();
    assert!(e.contains("there, back"), "{e}");
    assert!(r.add_rewrites("canonicalize", LOOPING).is_err());
}

static WRONG_TYPE: &[Rewrite] = &[Rewrite {
    name: "wrong_type",
    doc: "Replaces a value by one of another type, after building more.",
    roots: &["arith.neg"],
    exact: Exactness::Exact,
    apply: |m| {
        let ty = m.ty(m.result()?).clone();
        m.replace(move |p| {
            p.splat(&ty, Num::F(2.0))?;
            p.scalar_tensor(silure_ir::Elem::F32, Num::F(1.0))
        })
    },
}];

#[test]
fn a_failed_patch_leaves_nothing() {
    let mut r = Registry::new();
    r.add_rewrites("shapes", WRONG_TYPE).unwrap();
    let mut m = parse(CHAIN);
    let e = run(&r, Config::default(), "shapes", &mut m).unwrap_err();
    assert!(e.contains("`wrong_type`") && e.contains("another type"), "{e}");
    silure_ir::verify::verify(&m).unwrap();
    assert_eq!(m.funcs[0].walk().len(), 7);
}

static LIAR: PassDef = PassDef {
    name: "liar",
    doc: "Says it keeps weights.",
    options: &[],
    preserves: Preserves::ALL,
    run: |cx| {
        cx.module.weights.clear();
        Ok(Changed::Yes)
    },
};

#[test]
fn claims_are_checked() {
    let mut r = Registry::new();
    r.add_pass(&LIAR).unwrap();
    let t = "module @m {\n  weight @w : f32[1] = dense<f32[1]: 1.0>\n  entry @main(%x: f32[2]) -> (y: f32[2]) {\n    \
             return %x\n  }\n}\n";
    let e = run(&r, Config::default(), "liar", &mut parse(t)).unwrap_err();
    assert!(e.contains("claims to keep weights"), "{e}");
    assert_eq!(run(&r, Config::default(), "dce", &mut parse(t)).unwrap(), 1);
}

#[test]
fn only_what_is_allowed_is_applied() {
    let t = "module @m {\n  entry @main(%x: f32[2]) -> (y: f32[2]) {\n    %0 = constant {value = dense<f32[2]: 2.0, 2.0>} : f32[2]\n    \
             %1 = arith.pow %x, %0 : f32[2]\n    return %1\n  }\n}\n";
    let (r, cx) = (Registry::new(), Context::new());
    let config = Config { allow: Exactness::Exact, ..Config::default() };
    let report = Driver::new(&r, &cx, config).run("canonicalize", &mut parse(t)).unwrap();
    assert_eq!(report.changes, 0);
    assert_eq!(report.passes[0].forbidden, [("pow_two".to_string(), 1)]);
}

#[test]
fn pipelines_and_options_are_checked() {
    let r = Registry::new();
    let bad = |p: &str| run(&r, Config::default(), p, &mut parse(CHAIN)).unwrap_err();
    assert!(bad("canonicalise").contains("near names: canonicalize"));
    assert!(bad("fold{limt=3}").contains("needed limit, weights"));
    assert!(bad("fold{limit=yes}").contains("an integer"));
    for broken in ["fold{limit=3", "fold}", ",", "fold{=3}", "a b"] {
        assert_eq!(parse_calls(broken).unwrap_err().code, Code::Syntax, "{broken}");
    }
    let calls = parse_calls(" cse , fold{limit=3, weights=false} ").unwrap();
    let shown: Vec<String> = calls.iter().map(|c| c.to_string()).collect();
    assert_eq!(shown, ["cse", "fold{limit=3,weights=false}"]);
    assert!(parse_calls("").unwrap().is_empty());
}

#[test]
fn prints_and_dumps_phases() {
    let (r, cx) = (Registry::new(), Context::new());
    let dir = std::env::temp_dir().join(format!("silure-dump-{}", std::process::id()));
    let mut seen = Vec::new();
    let config = Config {
        print_before: Print::Passes(vec!["dce".into()]),
        print_after: Print::All,
        dump: Some(dir.clone()),
        ..Config::default()
    };
    let mut m = parse(CHAIN);
    Driver::new(&r, &cx, config)
        .with_sink(|h, t| seen.push((h.to_string(), t.len())))
        .run("canonicalize,dce", &mut m)
        .unwrap();
    let heads: Vec<&str> = seen.iter().map(|s| &*s.0).collect();
    assert_eq!(heads, ["after canonicalize", "before dce"]);
    let last = std::fs::read_to_string(dir.join("02-dce.sir")).unwrap();
    assert_eq!(last, text::print(&m));
    assert!(dir.join("00-input.sir").exists());
    std::fs::remove_dir_all(dir).unwrap();
}

/// Stopping inside a proof leaves a valid module with the same meaning, and the pass gives the same
/// text every time.
#[test]
fn algebra_stops_anywhere_and_is_deterministic() {
    let file = include_str!("filetests/algebra.sir");
    let t = file.split("// EXPECT").next().unwrap();
    let before = parse(t);
    let pipeline = "canonicalize,algebra";
    let mut whole = parse(t);
    let n = run(&Registry::new(), Config::default(), pipeline, &mut whole).unwrap();
    assert!(n > 5);
    for k in 0..=n {
        let mut m = parse(t);
        let config = Config { stop_after: Some(k), ..Config::default() };
        run(&Registry::new(), config, pipeline, &mut m).unwrap();
        silure_passes::testing::compare(&before, &m, Exactness::Reassociates, 4)
            .unwrap_or_else(|e| panic!("after {k} changes: {e}"));
    }
    for _ in 0..3 {
        let mut m = parse(t);
        run(&Registry::new(), Config::default(), pipeline, &mut m).unwrap();
        assert_eq!(text::print(&m), text::print(&whole));
    }
}

#[test]
fn merging_unifies_run_time_symbols() {
    let t = "module @m {\n  entry @main<n0: 0..4 runtime, n1: 0..4 runtime>(%x: f32[4]) -> (a: i64[1, n0], b: i64[1, n1]) {\n    \
             %0 = graph.nonzero %x : i64[1, n0]\n    %1 = graph.nonzero %x : i64[1, n1]\n    return %0, %1\n  }\n}\n";
    let (before, mut m) = (parse(t), parse(t));
    assert_eq!(run(&Registry::new(), Config::default(), "cse", &mut m).unwrap(), 1);
    assert_eq!(m.funcs[0].symbols.len(), 1);
    silure_passes::testing::compare(&before, &m, Exactness::Exact, 8).unwrap();
}
