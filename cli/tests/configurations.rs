//! Models without weights, by the command line.

mod common;

use common::{RELU, file, repo, s, silure};

#[test]
fn a_configuration_is_compiled_and_no_engine_is_written() {
    let config = repo("tests/language/cases/qwen3/config.json");
    let r = silure(&["compile", &config, "--weights", "meta", "--json", "--cache", "bf16"]).code(0);
    let v = r.json();
    assert!(v["engine"].is_null() && v["bytes"].is_null());
    assert!(v["parameters"]["total"].as_u64().unwrap() > 0 && v["launches"].as_u64().unwrap() > 0);
    let r = silure(&["compile", &config, "--weights", "meta"]).code(0).says("parameters");
    assert!(r.out.contains("no engine"), "{}", r.out);
    // A directory without weights, as well.
    let folder = repo("tests/language/cases/qwen3");
    silure(&["compile", &folder, "--weights", "meta", "-v"]).code(0);
    silure(&["compile", &folder, "-o", "x.silure"]).code(1).says("model.safetensors");
    silure(&["compile", &config, "-o", "x.silure"]).code(1).says("a configuration alone");
    let out = ["compile", &config, "--weights", "meta", "-o", "x.silure"];
    silure(&out).code(2).says("there are no weights to write");
    silure(&["check", &folder, "--weights", "meta"]).code(0);
    silure(&["generate", &config, "--prompt", "a"]).code(1).says("a configuration alone");
    let dir = tempfile::tempdir().unwrap();
    let text = file(dir.path(), "m.sir", RELU);
    silure(&["compile", s(&text), "--weights", "meta"]).code(2).says("language models");
}
