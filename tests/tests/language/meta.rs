//! Modules from configurations alone: the same as those of checkpoints but for the bytes.

use serde_json::{Value, json};
use silure::hf::ImportOptions;
use silure::ir::{Func, WeightExpr};
use silure::{Compiler, Options};

use crate::weights::{self, Case};
use crate::{engine, load, options};

/// Places in files are all that may differ: sources and offsets are removed.
fn bare(e: &WeightExpr) -> String {
    let text = e.to_string();
    let mut out = String::new();
    for (i, part) in text.split("file(").enumerate() {
        // A name, an offset; names have no quotes inside.
        let rest = match i {
            0 => part,
            _ => part.splitn(3, ", ").nth(2).unwrap(),
        };
        out += rest;
    }
    out
}

/// config.json with the type of the checkpoint's tensors, which those of the cases do not state.
fn configuration(case: &Case) -> Value {
    let mut config: Value = serde_json::from_slice(&case.config).unwrap();
    let narrow = case.tensors.iter().any(|t| t.1 == "BF16");
    config["torch_dtype"] = if narrow { "bfloat16" } else { "float32" }.into();
    config
}

/// Every family asks for the same tensors and gets the same types, and what is made of them is the same plan.
#[test]
fn configurations_promise_what_checkpoints_hold() {
    let compiler = Compiler::new().unwrap();
    for name in weights::names() {
        let case = Case::read(&name);
        let o = match name.as_str() {
            "bert" | "roberta" => ImportOptions { context: Some(20), ..Default::default() },
            _ => options(),
        };
        let folder = tempfile::tempdir().unwrap();
        case.write(folder.path(), 1);
        std::fs::write(folder.path().join("config.json"), configuration(&case).to_string())
            .unwrap();
        let real = load(&compiler, folder.path(), &o);
        let alone = tempfile::tempdir().unwrap();
        let file = alone.path().join("of-a-case.json");
        std::fs::write(&file, configuration(&case).to_string()).unwrap();
        let o = ImportOptions { meta: true, ..o };
        let meta = load(&compiler, &file, &o);
        let weights = |m: &silure::Loaded| -> Vec<String> {
            m.module
                .weights
                .iter()
                .map(|w| format!("{} {} {}", w.name, w.ty, bare(&w.expr)))
                .collect()
        };
        // Scales of this case are e8m0 in the file, which configurations do not say.
        if name != "deepseek-v3-ue8m0" {
            assert_eq!(weights(&real), weights(&meta), "{name}");
        }
        let entries = |m: &silure::Loaded| {
            let text = |f: &Func| silure::ir::text::print_func(f);
            m.module.funcs.iter().map(text).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(entries(&real), entries(&meta), "{name}");
        assert_eq!(real.parameters, meta.parameters, "{name}");
        // Each file that is beside says the same to a directory that has nothing else.
        let same = load(&compiler, folder.path(), &o);
        assert_eq!(weights(&same), weights(&meta), "{name}");
        let [a, b] = [real, meta].map(|m| compiler.compile(m, &Options::default()).unwrap());
        assert_eq!(a.encoded.plan.encode(), b.encoded.plan.encode(), "{name}");
    }
}

/// Parameters are elements of tensors, those that nothing uses not among them.
#[test]
fn parameters_are_counted() {
    let compiler = Compiler::new().unwrap();
    for name in ["llama", "qwen3-moe", "deepseek-v3", "deepseek-v3-fp8"] {
        let case = Case::read(name);
        let folder = tempfile::tempdir().unwrap();
        case.write(folder.path(), 1);
        let p = load(&compiler, folder.path(), &options()).parameters.unwrap();
        let config: Value = serde_json::from_slice(&case.config).unwrap();
        let layers = config["num_hidden_layers"].as_u64().unwrap();
        let held = |t: &&(String, String, Vec<usize>)| {
            let layer = t.0.strip_prefix("model.layers.").and_then(|r| r.split('.').next());
            let beyond = layer.is_some_and(|l| l.parse::<u64>().unwrap() >= layers);
            !beyond && !t.0.ends_with("_scale_inv")
        };
        let count = |keep: &dyn Fn(&str) -> bool| -> u64 {
            let all = case.tensors.iter().filter(held).filter(|t| keep(&t.0));
            all.map(|t| t.2.iter().product::<usize>() as u64).sum()
        };
        let (total, routed) = (count(&|_| true), count(&|n| n.contains(".experts.")));
        let experts = [&config["n_routed_experts"], &config["num_experts"]];
        let experts = experts.into_iter().find_map(Value::as_u64).unwrap_or(1);
        let chosen = config["num_experts_per_tok"].as_u64().unwrap_or(1);
        assert_eq!((p.total, p.routed), (total, routed), "{name}");
        assert_eq!(p.active, total - routed + routed * chosen / experts, "{name}");
    }
}

/// What has no bytes cannot be written, and the message says which tensor and what to do.
#[test]
fn engines_need_bytes() {
    let compiler = Compiler::new().unwrap();
    let case = Case::read("llama");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), configuration(&case).to_string()).unwrap();
    let o = ImportOptions { meta: true, ..options() };
    let model = load(&compiler, folder.path(), &o);
    assert!(model.meta && model.assets.is_empty());
    let compiled = compiler.compile(model, &Options::default()).unwrap();
    let file = folder.path().join("model.silure");
    let e = compiled.write(&file).unwrap_err().to_string();
    assert!(e.contains("tensor \"model.") && e.contains("has no bytes"), "{e}");
    assert!(e.contains("read the directory with its weights"), "{e}");
    assert!(!file.exists());
    // The module is that of the checkpoint, which runs.
    engine(&compiler, &case, 1, &options());
    let refused = |config: Value, o: &ImportOptions| {
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        compiler.load_directory(folder.path(), o).err().unwrap().to_string()
    };
    let mut config = configuration(&case);
    config["torch_dtype"] = json!("int8");
    let e = refused(config.clone(), &o);
    assert!(e.contains("`torch_dtype`") && e.contains("bfloat16, float16 or float32"), "{e}");
    config["torch_dtype"] = json!(["float32"]);
    assert!(refused(config.clone(), &o).contains("`torch_dtype`"));
    config["torch_dtype"] = json!("float32");
    config["vocab_size"] = json!(1u64 << 31);
    config["hidden_size"] = json!(1u64 << 30);
    assert!(refused(config, &o).contains("too large"));
    let alone = folder.path().join("config.json");
    let e = compiler.load_directory(&alone, &options()).err().unwrap().to_string();
    assert!(e.contains("a configuration alone has no weights"), "{e}");
}
