//! The verbs on small files, each by its result.

mod common;

use common::{RELU, file, npy, repo, s, silure};

#[test]
fn compile_then_run_then_inspect_then_bench() {
    let dir = tempfile::tempdir().unwrap();
    let (model, engine) = (repo("cli/demo/digits.onnx"), dir.path().join("digits.silure"));
    let phases = dir.path().join("phases");
    let r = silure(&[
        "compile",
        &model,
        "-o",
        s(&engine),
        "--dim",
        "batch=1..16",
        "--verify-each",
        "--dump-phases",
        s(&phases),
        "--time-passes",
    ])
    .code(0)
    .says("launches")
    .says("canonicalize");
    assert_eq!(r.out.trim(), s(&engine));
    for name in ["0-import.sir", "1-graph.sir", "2-kernel.sir", "3-plan.sir"] {
        let path = phases.join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(silure(&["opt", s(&path)]).code(0).out, text, "{name} reads back");
    }
    let x = file(dir.path(), "x.npy", npy("2, 1, 8, 8", &[0.5; 128]));
    let named = format!("image=@{}", s(&x));
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    silure(&["run", s(&engine), "--input", &named, "--out-dir", s(&a)]).code(0);
    silure(&["run", &model, "--inputs", s(&x), "--out-dir", s(&b), "--profile"]).code(0);
    let read = |d: &std::path::Path| std::fs::read(d.join("out_0.npy")).unwrap();
    assert!(read(&a) == read(&b), "in memory and from the file: the same bytes");
    let wrong = file(dir.path(), "w.npy", npy("17, 1, 8, 8", &[0.5; 17 * 64]));
    silure(&["run", s(&engine), "--inputs", s(&wrong)]).code(1).says("needed 1 to 16, present 17");
    silure(&["run", s(&engine), "--inputs", s(&x), "--dim", "batch=2"]).code(2);

    assert!(silure(&["inspect", s(&engine)]).code(0).out.contains("x86-64-v3"));
    let all =
        ["inspect", s(&engine), "--layers", "--memory", "--weights", "--size", "batch=2", "--json"];
    let v = silure(&all).code(0).json();
    assert!(v["layers"].as_array().unwrap().len() > 3);
    assert!(v["memory"][0]["arena"].as_u64().unwrap() > 0);
    assert!(silure(&["inspect", s(&engine), "--plan"]).code(0).out.contains("launch"));
    silure(&["inspect", s(&engine), "--phase", "graph"]).code(2).says("need the model");
    let generic = silure(&["inspect", &model, "--phase", "kernel", "--generic"]).code(0).out;
    assert!(generic.contains("kernel.") || generic.contains("graph."));
    assert!(silure(&["inspect", &model, "--fusion"]).code(0).out.contains("fused ops"));

    let args = ["bench", s(&engine), "--dim", "batch=4", "--iterations", "3", "--threads", "1"];
    let v = silure(&[&args[..], &["--json"]].concat()).code(0).json();
    assert_eq!(v["iterations"], 3);
    assert!(v["seconds"]["median"].as_f64().unwrap() > 0.0);
    assert!(v["inputs"][0].as_str().unwrap().contains("[4, 1, 8, 8]"));
    assert!(silure(&args).code(0).out.contains("GFLOP/s"));
    let limits = &v["limits"];
    assert!(limits["fma_gflop_per_s"].as_f64().unwrap() > 0.1, "{limits}");
    assert!(limits["memory_gb_per_s"].as_f64().unwrap() > 0.01, "{limits}");

    let trace = dir.path().join("trace.json");
    silure(&[&args[..], &["--trace", s(&trace)]].concat()).code(0);
    let trace: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(trace).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let calls: u64 =
        v["profile"].as_array().unwrap().iter().map(|r| r["calls"].as_u64().unwrap()).sum();
    assert_eq!(events.len() as u64, calls, "an event for each launch");
    let time = |e: &serde_json::Value, k: &str| e[k].as_f64().unwrap();
    let after =
        |w: &[serde_json::Value]| time(&w[1], "ts") >= time(&w[0], "ts") + time(&w[0], "dur");
    assert!(events.windows(2).all(after), "one after the other");
}

#[test]
fn probe_measures_both_limits() {
    let v = silure(&["probe", "--threads", "1", "--json"]).code(0).json();
    assert_eq!(v[0]["threads"], 1);
    assert!(v[0]["fma_gflop_per_s"].as_f64().unwrap() > 0.1);
    let read = v[0]["read"].as_array().unwrap();
    assert!(read.len() > 3 && read.iter().all(|r| r["gb_per_s"].as_f64().unwrap() > 0.01));
}

#[test]
fn a_failed_compile_leaves_an_old_engine_alone() {
    let dir = tempfile::tempdir().unwrap();
    let engine = file(dir.path(), "e.silure", "old");
    let bad = file(dir.path(), "m.sir", "module @m {");
    silure(&["compile", s(&bad), "-o", s(&engine)]).code(1);
    assert_eq!(std::fs::read(&engine).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file is left");
}

#[test]
fn opt_prints_the_module_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let text = RELU.replace(
        "return %0",
        "%1 = arith.neg %0 : f32[b, 4]\n    \
        %2 = arith.neg %1 : f32[b, 4]\n    return %2",
    );
    let f = file(dir.path(), "m.sir", &text);
    let r = silure(&["opt", s(&f), "--passes", "canonicalize,dce", "--time"]).code(0);
    assert_eq!(r.out, RELU);
    assert!(r.err.contains("double_negation"));
    let r = silure(&["opt", s(&f), "--passes", "canonicalize,dce", "--stop-after", "0"]).code(0);
    assert!(r.out.contains("arith.neg"));
    let r = silure(&["opt", s(&f), "--passes", "canonicalize", "--print-ir-before-all"]).code(0);
    assert!(r.err.contains("// before canonicalize"));
    let generic = silure(&["opt", s(&f), "--generic"]).code(0).out;
    let g = file(dir.path(), "g.mlir", &generic);
    assert_eq!(silure(&["opt", s(&g)]).code(0).out, silure(&["opt", s(&f)]).code(0).out);
}

#[test]
fn bisect_finds_no_difference_in_the_standard_pipeline() {
    let dir = tempfile::tempdir().unwrap();
    let f = file(dir.path(), "m.sir", RELU);
    assert!(silure(&["bisect-pass", s(&f)]).code(0).out.contains("no difference"));
}

#[test]
fn check_lists_every_op_with_a_verdict() {
    let model = repo("cli/demo/digits.onnx");
    let v = silure(&["check", &model, "--target", "cpu:x86-64-v3", "--json"]).code(0).json();
    assert_eq!(v[0]["supported"], true);
    assert!(v[0]["ops"].as_array().unwrap().iter().all(|o| o["ok"] == true));
    silure(&["check", &model, "--target", "cuda:sm_80"]).code(0);
    // A kernel without a form in PTX is found before anybody compiles.
    let dir = tempfile::tempdir().unwrap();
    let log = RELU.replace("relu", "log").replace("f32", "f64");
    let r = silure(&["check", s(&file(dir.path(), "m.sir", &log)), "--target", "cuda:sm_80"]);
    assert!(r.code(5).out.contains("has no PTX"), "f64 logarithms");
    let r = silure(&["check", &model, "--target", "ascend:Ascend910B2"]).code(5);
    assert!(r.out.contains("not lowered to ascend yet"));
    assert!(r.out.contains("converted"), "{}", r.out);
}

#[test]
fn kernels_run_against_their_graph_form() {
    let run = |name: &str, args: &[&str]| {
        let path = repo(&format!("tests/kernels/{name}.sir"));
        for target in ["interp", "cpu:x86-64-v3", "cpu:x86-64"] {
            if target.starts_with("cpu") && cfg!(not(target_arch = "x86_64")) {
                eprintln!("SKIPPED: @{name} on {target}, this machine is another");
                continue;
            }
            let mut all = vec!["kernel", "run", &path, "--target", target, "--json"];
            all.extend(args.iter().flat_map(|a| ["--arg", a]));
            let v = silure(&all).code(0).json();
            assert_eq!(v["outputs"][0]["verdict"]["wrong"], 0, "{v}");
            assert!(v["outputs"][0]["verdict"]["elements"].as_u64().unwrap() > 0);
        }
    };
    run("softmax", &["rows=9", "n=300"]);
    run("matmul_bias_gelu", &["m=20", "n=70", "k=33"]);
    run("flash_attention", &["heads=1", "s=70", "scale=0.125"]);
    run("conv3x3", &["batch=1", "h=3", "w=9", "c=5", "k=7"]);
}

#[test]
fn a_wrong_kernel_is_code_3() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["softmax.sir", "softmax.graph.sir"] {
        let text = std::fs::read_to_string(repo(&format!("tests/kernels/{name}"))).unwrap();
        // The kernel multiplies by the sum instead of dividing; the graph form has no such line.
        let text = text.replace("arith.div %e2, %sum_wide", "arith.mul %e2, %sum_wide");
        file(dir.path(), name, text);
    }
    let f = dir.path().join("softmax.sir");
    let args = ["kernel", "run", s(&f), "--target", "interp", "--arg", "rows=2", "--arg", "n=5"];
    silure(&args).code(3).says("tolerance rule");
}

#[test]
fn a_kernel_without_graph_form_says_that_nothing_is_compared() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(repo("tests/kernels/softmax.sir")).unwrap();
    let f = file(dir.path(), "alone.sir", text);
    let args = ["kernel", "run", s(&f), "--target", "interp", "--arg", "rows=2", "--arg", "n=5"];
    let r = silure(&args).code(0).says("compared with nothing");
    assert!(r.out.contains("not compared"));
}

#[test]
fn entries_run_on_the_cpu_against_the_oracle() {
    let path = repo("tests/kernels/softmax.graph.sir");
    let args = ["kernel", "run", &path, "--target", "cpu:x86-64-v3", "--arg", "x=7x33", "--json"];
    let v = silure(&args).code(0).json();
    assert_eq!(v["outputs"][0]["verdict"]["elements"], 7 * 33);
    let emit = silure(&["kernel", "emit", &path, "--target", "cpu:x86-64-v3"]).code(0).out;
    assert!(emit.contains("launch"));
}

#[test]
fn one_kernel_as_ptx_and_as_ascend_text() {
    let path = repo("tests/kernels/softmax.sir");
    let ptx = silure(&["kernel", "emit", &path, "--target", "cuda:sm_80"]).code(0).out;
    assert!(ptx.contains(".target sm_80") && ptx.contains(".entry softmax"));
    let mlir = silure(&["kernel", "emit", &path, "--target", "ascend:Ascend910B2"]).code(0).out;
    assert!(mlir.contains("func.func") && mlir.contains("memref"));
}

#[test]
fn the_demo_reads_digits() {
    let v = silure(&["demo", "--json"]).code(0).json();
    assert_eq!(v["samples"], 450);
    assert_eq!(v["right"], 441, "what training measured");
    let r = silure(&["demo"]).code(0);
    assert!(r.out.contains('█') && r.out.contains("441 of 450"));
}
