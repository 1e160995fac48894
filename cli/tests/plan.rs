//! `plan` by the command line.

mod common;

use common::{RELU, file, repo, s, silure};
use serde_json::Value;

fn config(case: &str) -> String {
    repo(&format!("tests/language/cases/{case}/config.json"))
}

#[test]
fn a_configuration_on_every_device() {
    let r =
        silure(&["plan", &config("qwen3-moe"), "--context", "64,100", "--batch", "1,4"]).code(0);
    for part in
        ["parameters", "in experts", "Estimates at 50 %", "rtx4090", "mi300x", "ascend910b2"]
    {
        assert!(r.out.contains(part), "`{part}` is not in:\n{}", r.out);
    }
    for part in
        ["as stored (f32)", "bf16", "int8 by 128", "int4 by 32", "planned", "unknown", "fits"]
    {
        assert!(r.out.contains(part) || part == "planned", "`{part}` is not in:\n{}", r.out);
    }
    assert!(r.out.contains("compiled for the CPU"), "{}", r.out);
    let folder = repo("tests/language/cases/qwen3-moe");
    let explain = ["plan", &folder, "--explain", "--target", "h20", "--precision", "int8"];
    let r = silure(&explain).code(0).says("no weights in the directory");
    assert!(
        r.out.contains("NVIDIA has no public data sheet") && r.out.contains("(read"),
        "{}",
        r.out
    );
}

#[test]
fn the_report_for_programs() {
    let at = [
        "plan",
        &config("deepseek-v3"),
        "--json",
        "--target",
        "rtx4090",
        "--precision",
        "f32,int4",
    ];
    let v = silure(&[&at[..], &["--cache", "bf16", "--context", "64"]].concat()).code(0).json();
    let recipes = v["recipes"].as_array().unwrap();
    assert_eq!(recipes.len(), 2);
    for r in recipes {
        let c = &r["cases"][0];
        let parts =
            ["weights", "cache", "temporaries", "workspace"].map(|k| c[k].as_u64().unwrap());
        assert_eq!(parts.iter().sum::<u64>(), c["bytes"].as_u64().unwrap());
        assert_eq!(c["cache"].as_u64(), c["cache_per_token"].as_u64().map(|n| 64 * n));
    }
    let e = v["estimates"].as_array().unwrap();
    assert!(e.iter().all(|l| l["fits"] == Value::Bool(true)));
    // Twice the efficiency, half the time.
    let half = e[0]["step"]["seconds"].as_f64().unwrap();
    let again = [&at[..], &["--cache", "bf16", "--context", "64", "--efficiency", "1"]].concat();
    let whole = silure(&again).code(0).json()["estimates"][0]["step"]["seconds"].as_f64().unwrap();
    assert!((half / whole - 2.0).abs() < 1e-9);
}

#[test]
fn what_does_not_fit_is_code_4() {
    let small = ["plan", &config("llama"), "--device-memory", "10kB", "--target", "rtx4090"];
    let r = silure(&small).code(4).says("nothing fits; the least is").says("it would fit: rtx4090");
    assert!(r.out.contains("too much"), "{}", r.out);
    let v3 = repo("tests/language/configs/deepseek-v3.json");
    let r = silure(&["plan", &v3, "--target", "h100-sxm", "--precision", "int4"]).code(4);
    assert!(r.err.contains("671") || r.out.contains("671.03 B parameters"), "{}", r.out);
    assert!(r.err.contains("no described device would hold it"), "{}", r.err);
}

#[test]
fn other_models_and_wrong_usage() {
    let digits = repo("cli/demo/digits.onnx");
    let r = silure(&["plan", &digits, "--target", "mi300x", "--batch", "1,8"]).code(0);
    assert!(r.out.contains("a run"), "{}", r.out);
    let dir = tempfile::tempdir().unwrap();
    let text = file(dir.path(), "m.sir", RELU);
    silure(&["plan", s(&text), "--target", "cuda:sm_89"]).code(0);
    silure(&["plan", s(&text), "--batch", "9"]).code(2).says("from 1 to 8");
    silure(&["plan", s(&text), "--context", "9"]).code(2).says("language models");
    silure(&["plan", s(&text), "--target", "rtx9999"]).code(5).says("rtx4090");
    silure(&["plan", s(&text), "--target", "tpu:v5"]).code(5);
    silure(&["plan", s(&text), "--efficiency", "0"]).code(2);
    silure(&["plan", &config("llama"), "--precision", "fp8"]).code(5).says("8-bit floats");
    let bad = file(dir.path(), "probe.json", "{}");
    silure(&["plan", s(&text), "--probe", s(&bad)]).code(2).says("silure probe --json");
    let good = r#"[{"threads": 2, "memory_bytes": 1000000000, "fma_gflop_per_s": 100.0,
        "read": [{"bytes": 16384, "gb_per_s": 200.0}, {"bytes": 134217728, "gb_per_s": 20.0}]}]"#;
    let good = file(dir.path(), "good.json", good);
    let v = silure(&["plan", &config("llama"), "--probe", s(&good), "--json"]).code(0).json();
    assert_eq!(v["devices"][0]["bytes_per_s"].as_f64(), Some(20e9));
    assert_eq!(v["estimates"][0]["fits"], Value::Bool(true));
    let encoder =
        ["plan", &config("bert"), "--probe", s(&good), "--context", "12,20", "--batch", "3"];
    let v = silure(&[&encoder[..], &["--json"]].concat()).code(0).json();
    assert_eq!(v["recipes"][0]["cases"].as_array().unwrap().len(), 2);
    silure(&["plan", &config("bert"), "--target", "h20"]).code(2).says("--size s=N");
}
