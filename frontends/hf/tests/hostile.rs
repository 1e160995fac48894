//! Directories that are wrong in every way end with a message that names file and tensor or field.

use std::path::Path;

use serde_json::{Value, json};
use silure_hf::{Code, ImportOptions, import};

/// A llama of one layer: its config.json and the shapes of its tensors.
fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 12,
        "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 10, "max_position_embeddings": 32,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0
    })
}

fn shapes() -> Vec<(String, Vec<usize>)> {
    let l = |name: &str| format!("model.layers.0.{name}.weight");
    vec![
        ("lm_head.weight".into(), vec![10, 8]),
        ("model.embed_tokens.weight".into(), vec![10, 8]),
        (l("input_layernorm"), vec![8]),
        (l("mlp.down_proj"), vec![8, 12]),
        (l("mlp.gate_proj"), vec![12, 8]),
        (l("mlp.up_proj"), vec![12, 8]),
        (l("post_attention_layernorm"), vec![8]),
        (l("self_attn.k_proj"), vec![8, 8]),
        (l("self_attn.o_proj"), vec![8, 8]),
        (l("self_attn.q_proj"), vec![8, 8]),
        (l("self_attn.v_proj"), vec![8, 8]),
        ("model.norm.weight".into(), vec![8]),
    ]
}

/// The header of these tensors in f32, and how many bytes they take.
fn header(shapes: &[(String, Vec<usize>)]) -> (Value, usize) {
    let (mut h, mut at) = (json!({}), 0);
    for (name, shape) in shapes {
        let n = 4 * shape.iter().product::<usize>();
        h[name] = json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, at + n] });
        at += n;
    }
    (h, at)
}

fn file(header: &str, size: u64, data: usize) -> Vec<u8> {
    [&size.to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

fn write(folder: &Path, config: &Value, header: &Value, data: usize) {
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let text = header.to_string();
    let bytes = file(&text, text.len() as u64, data);
    std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
}

/// What is said of a directory that `spoil` has changed after it was right.
fn said(spoil: impl FnOnce(&Path)) -> (Code, String) {
    let folder = tempfile::tempdir().unwrap();
    let (h, n) = header(&shapes());
    write(folder.path(), &config(), &h, n);
    spoil(folder.path());
    match import(folder.path(), &ImportOptions::default()) {
        Ok(_) => panic!("accepted"),
        Err(e) => (e.code(), e.to_string()),
    }
}

/// The same for a changed config.json.
fn with_config(field: &str, value: Value) -> (Code, String) {
    said(|f| {
        let mut c = config();
        c[field] = value;
        std::fs::write(f.join("config.json"), c.to_string()).unwrap();
    })
}

/// The same for a changed header.
fn with_header(change: impl FnOnce(&mut Value, &mut usize)) -> (Code, String) {
    said(|f| {
        let (mut h, mut n) = header(&shapes());
        change(&mut h, &mut n);
        write(f, &config(), &h, n);
    })
}

fn expect((code, text): (Code, String), want: Code, parts: &[&str]) {
    assert_eq!(code, want, "{text}");
    for p in parts {
        assert!(text.contains(p), "`{p}` is not in: {text}");
    }
}

#[test]
fn the_directory_is_right_before_it_is_spoiled() {
    let folder = tempfile::tempdir().unwrap();
    let (h, n) = header(&shapes());
    write(folder.path(), &config(), &h, n);
    let i = import(folder.path(), &ImportOptions::default()).unwrap();
    silure_ir::verify::verify(&i.module).unwrap();
    assert_eq!(i.notes, Vec::<String>::new());
    assert_eq!(i.module.states.len(), 2);
}

#[test]
fn fields_of_config() {
    let field = |f: &str, v: Value, code, part: &str| {
        expect(with_config(f, v), code, &["config.json", &format!("`{f}`"), part]);
    };
    field("hidden_size", json!("big"), Code::Type, "\"big\"");
    field("hidden_size", json!(-8), Code::Type, "an integer from 1");
    field("hidden_size", json!(null), Code::Missing, "an integer from 1");
    field("hidden_size", json!(8.5), Code::Type, "8.5");
    field("hidden_size", json!(9), Code::Type, "a multiple of 2");
    field("num_hidden_layers", json!(1 << 30), Code::Limit, "at most");
    field("num_key_value_heads", json!(3), Code::Type, "a divisor of 2");
    field("head_dim", json!(1 << 30), Code::Limit, "at most");
    field("rms_norm_eps", json!("small"), Code::Type, "a number");
    field("rope_theta", json!([]), Code::Type, "a number");
    field("tie_word_embeddings", json!(1), Code::Type, "true or false");
    field("hidden_act", json!("swiglu"), Code::Unsupported, "silu");
    field("architectures", json!("LlamaForCausalLM"), Code::Type, "a list of strings");
    expect(
        with_config("quantization_config", json!({ "quant_method": "gptq" })),
        Code::Unsupported,
        &["quantization_config", "`quant_method`", "gptq", "fp8"],
    );
    expect(
        said(|f| std::fs::write(f.join("config.json"), "[1, 2]").unwrap()),
        Code::Malformed,
        &["config.json", "not an object"],
    );
    expect(
        said(|f| std::fs::write(f.join("config.json"), "[".repeat(1 << 20)).unwrap()),
        Code::Malformed,
        &["config.json", "not JSON"],
    );
    expect(
        said(|f| std::fs::remove_file(f.join("config.json")).unwrap()),
        Code::Missing,
        &["config.json"],
    );
}

#[test]
fn an_unknown_architecture_names_the_nearest() {
    let r = said(|f| {
        let mut c = config();
        c["architectures"] = json!(["Qwen3NextForCausalLM"]);
        c["model_type"] = json!("qwen3_next");
        c["linear_num_key_heads"] = json!(16);
        std::fs::write(f.join("config.json"), c.to_string()).unwrap();
    });
    expect(
        r,
        Code::Unsupported,
        &["Qwen3NextForCausalLM", "Qwen3ForCausalLM", "`linear_num_key_heads`"],
    );
}

#[test]
fn code_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let (h, n) = header(&shapes());
    let mut c = config();
    c["auto_map"] = json!({ "AutoModelForCausalLM": "modeling.Mine" });
    c["surprise"] = json!(3);
    write(folder.path(), &c, &h, n);
    let notes = import(folder.path(), &ImportOptions::default()).unwrap().notes.join("\n");
    assert!(notes.contains("it is not run") && notes.contains("`surprise`"), "{notes}");
}

#[test]
fn headers_that_lie() {
    const ONE: &str = "model.embed_tokens.weight";
    let tensor = |part: &str, change: fn(&mut Value)| {
        let r = with_header(|h, _| change(&mut h[ONE]));
        expect(r, Code::Range, &["model.safetensors", ONE, part]);
    };
    tensor("do not fit", |t| t["shape"] = json!([10, 9]));
    tensor("out of range", |t| t["shape"] = json!([1u64 << 40, 1u64 << 40]));
    tensor("out of range", |t| t["data_offsets"] = json!([400, 320]));
    tensor("outside the file", |t| t["data_offsets"] = json!([1u64 << 50, (1u64 << 50) + 320]));
    tensor("overlap", |t| t["data_offsets"] = json!([0, 320]));
    expect(
        with_header(|_, n| *n -= 4),
        Code::Range,
        &["outside the file", "bytes behind the header"],
    );
    expect(
        with_header(|h, _| h[ONE]["dtype"] = json!("F4")),
        Code::Unsupported,
        &[ONE, "\"F4\"", "BF16"],
    );
    expect(
        with_header(|h, _| h[ONE]["shape"] = json!([1, 1, 1, 1, 1, 1, 1, 10, 8])),
        Code::Limit,
        &[ONE, "axes"],
    );
    expect(with_header(|h, _| h[ONE] = json!("?")), Code::Malformed, &["model.safetensors"]);
    let raw =
        |bytes: Vec<u8>| said(|f| std::fs::write(f.join("model.safetensors"), bytes).unwrap());
    expect(raw(vec![1, 2, 3]), Code::Malformed, &["model.safetensors", "8 bytes"]);
    expect(raw(file("{}", u64::MAX, 0)), Code::Range, &["the header is longer"]);
    expect(raw(file("{}", 1 << 40, 0)), Code::Range, &["the header is longer"]);
    expect(raw(file("{]", 2, 0)), Code::Malformed, &["the header cannot be read"]);
    let two = r#"{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}"#;
    expect(
        raw(file(two, two.len() as u64, 2)),
        Code::Malformed,
        &["a tensor is there twice", "\"a\""],
    );
}

#[test]
fn tensors_that_do_not_fit() {
    const ONE: &str = "model.layers.0.mlp.up_proj.weight";
    let shape = |h: &mut Value, _: &mut usize| h[ONE]["shape"] = json!([8, 12]);
    expect(
        with_header(shape),
        Code::Type,
        &["model.safetensors", ONE, "needed: [12, 8]", "present: [8, 12]"],
    );
    let gone = |h: &mut Value, _: &mut usize| drop(h.as_object_mut().unwrap().remove(ONE));
    expect(with_header(gone), Code::Missing, &[ONE, "[12, 8]"]);
    let ints = |h: &mut Value, _: &mut usize| h[ONE]["dtype"] = json!("I32");
    expect(with_header(ints), Code::Unsupported, &[ONE, "i32"]);
    let bytes = |h: &mut Value, n: &mut usize| {
        h[ONE] = json!({ "dtype": "F8_E4M3", "shape": [12, 8], "data_offsets": [*n, *n + 96] });
        *n += 96;
    };
    expect(with_header(bytes), Code::Missing, &[ONE, "_scale_inv"]);
    let scaled = |h: &mut Value, n: &mut usize| {
        bytes(h, n);
        h[format!("{ONE}_scale_inv")] =
            json!({ "dtype": "F32", "shape": [2, 1], "data_offsets": [*n, *n + 8] });
        *n += 8;
    };
    expect(with_header(scaled), Code::Type, &["_scale_inv", "[1, 1]", "[2, 1]"]);
}

#[test]
fn indices_that_lie() {
    let index = |map: Value| {
        said(|f| {
            std::fs::rename(f.join("model.safetensors"), f.join("part.safetensors")).unwrap();
            let text = json!({ "weight_map": map }).to_string();
            std::fs::write(f.join("model.safetensors.index.json"), text).unwrap();
        })
    };
    let all = |other: &str| {
        let mut map = json!({});
        for (name, _) in shapes() {
            map[name] = json!("part.safetensors");
        }
        map["model.norm.weight"] = json!(other);
        map
    };
    const INDEX: &str = "model.safetensors.index.json";
    expect(index(all("gone.safetensors")), Code::Missing, &["gone.safetensors", INDEX]);
    expect(
        index(all("../part.safetensors")),
        Code::Path,
        &["../part.safetensors", "out of the dir"],
    );
    expect(index(all("/etc/passwd")), Code::Path, &["/etc/passwd"]);
    expect(index(all("")), Code::Path, &["the name leads out"]);
    expect(index(json!({})), Code::Limit, &[INDEX, "number of files"]);
    expect(index(json!([1])), Code::Malformed, &[INDEX]);
    let mut extra = all("part.safetensors");
    extra["nobody.weight"] = json!("part.safetensors");
    expect(index(extra), Code::Missing, &["part.safetensors", "nobody.weight"]);
    expect(
        said(|f| {
            std::fs::remove_file(f.join("model.safetensors")).unwrap();
            std::fs::write(f.join("pytorch_model.bin"), b"x").unwrap();
        }),
        Code::Missing,
        &["no weights", "pytorch_model.bin"],
    );
}

#[cfg(unix)]
#[test]
fn links_stay_inside() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    let there = outside.path().join("there.safetensors");
    let moved = |f: &Path| {
        std::fs::rename(f.join("model.safetensors"), &there).unwrap();
        symlink(&there, f.join("model.safetensors")).unwrap();
    };
    expect(said(moved), Code::Path, &["model.safetensors", "outside the directory"]);
    let folder = |f: &Path| {
        std::fs::remove_file(f.join("model.safetensors")).unwrap();
        std::fs::create_dir(f.join("model.safetensors")).unwrap();
    };
    expect(said(folder), Code::Path, &["model.safetensors", "not a regular file"]);
    // A cache of the hub: snapshots link into blobs beside them.
    let cache = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (cache.path().join("blobs"), cache.path().join("snapshots/abc"));
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    let (h, n) = header(&shapes());
    write(&blobs, &config(), &h, n);
    for name in ["config.json", "model.safetensors"] {
        symlink(Path::new("../../blobs").join(name), snapshot.join(name)).unwrap();
    }
    import(&snapshot, &ImportOptions::default()).unwrap();
    std::fs::rename(&blobs, cache.path().join("elsewhere")).unwrap();
    symlink(cache.path().join("elsewhere"), &blobs).unwrap();
    let e = import(&snapshot, &ImportOptions::default()).err().unwrap();
    assert_eq!(e.code(), Code::Path, "{e}");
}

#[test]
fn options_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (h, n) = header(&shapes());
    write(folder.path(), &config(), &h, n);
    for (o, part) in [
        (ImportOptions { context: Some(0), ..Default::default() }, "context"),
        (ImportOptions { page: Some(0), ..Default::default() }, "page size"),
        (ImportOptions { pages: Some(usize::MAX), ..Default::default() }, "pages"),
        (ImportOptions { tokens: Some(usize::MAX), ..Default::default() }, "tokens of a step"),
        (ImportOptions { sequences: Some(0), ..Default::default() }, "sequences of a step"),
    ] {
        let e = import(folder.path(), &o).err().unwrap();
        assert!(e.code() == Code::Limit && e.to_string().contains(part), "{e}");
    }
}

/// A few words that stand for very many tensors.
#[test]
fn experts_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let of = |experts: usize| {
        let mut c = config();
        c["architectures"] = json!(["MixtralForCausalLM"]);
        c["model_type"] = json!("mixtral");
        c["num_local_experts"] = json!(experts);
        c["num_experts_per_tok"] = json!(2);
        c["num_key_value_heads"] = json!(2);
        c["num_hidden_layers"] = json!(2);
        std::fs::write(&path, c.to_string()).unwrap();
        import(&path, &ImportOptions { meta: true, ..Default::default() })
    };
    of(4).unwrap();
    let Err(e) = of(1 << 16) else { panic!("accepted") };
    expect((e.code(), e.to_string()), Code::Limit, &["too many tensors", "at most 262144"]);
}
