//! What is public of models: parameters, bytes, caches, and what fits into 24 GB.

use std::path::Path;

use serde_json::{Value, json};
use silure::hf::ImportOptions;
use silure::ir::Elem;
use silure::{Compiler, Loaded, Options, Precision};
use silure_plan::estimate::{Bound, Limits, Work, time, touched};
use silure_plan::need::{Model, Use, Verdict, verdict};

/// Qwen 2 and Llama 3 by their published sizes.
fn config(qwen: bool, sizes: [usize; 6]) -> Value {
    let [hidden, inner, layers, heads, kv, vocab] = sizes;
    let (class, kind) = match qwen {
        true => ("Qwen2ForCausalLM", "qwen2"),
        false => ("LlamaForCausalLM", "llama"),
    };
    let mut c = json!({
        "architectures": [class], "model_type": kind, "torch_dtype": "bfloat16", "hidden_act": "silu",
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocab,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "tie_word_embeddings": false,
        "rope_theta": 10000.0
    });
    if !qwen {
        c["rope_theta"] = json!(500000.0);
        c["rope_scaling"] = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192
        });
    }
    c
}

fn load(c: &Compiler, config: &Value, context: usize) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let o = ImportOptions {
        meta: true,
        context: Some(context),
        cache: Some(Elem::Bf16),
        ..Default::default()
    };
    c.load_directory(folder.path(), &o).unwrap_or_else(|e| panic!("{e}"))
}

/// The distilled R1s: (name, sizes, 10⁹ parameters, GB in bf16, int8 and int4 by 128 with 20 bits a group, KiB of
/// cache a token, recipes of which the first are too large for 24 GB and the last one fits).
#[test]
fn distilled_models() {
    type Row<'a> = (bool, [usize; 6], f64, [f64; 3], u64, &'a [(Option<Precision>, bool)]);
    let (int8, int4) =
        (Some(Precision::Int8(128)), Some(Precision::Int4 { group: 128, pure: false }));
    let table: [Row; 6] = [
        (true, [1536, 8960, 28, 12, 2, 151_936], 1.78, [3.6, 1.8, 0.9], 28, &[(None, true)]),
        (true, [3584, 18_944, 28, 28, 4, 152_064], 7.62, [15.2, 7.6, 4.0], 56, &[(None, true)]),
        (
            true,
            [5120, 13_824, 48, 40, 8, 152_064],
            14.77,
            [29.5, 14.8, 7.7],
            192,
            &[(None, false), (int8, true)],
        ),
        (
            true,
            [5120, 27_648, 64, 40, 8, 152_064],
            32.76,
            [65.5, 32.8, 17.0],
            256,
            &[(int8, false), (int4, true)],
        ),
        (false, [4096, 14_336, 32, 32, 8, 128_256], 8.03, [16.1, 8.0, 4.2], 128, &[(None, true)]),
        (
            false,
            [8192, 28_672, 80, 64, 8, 128_256],
            70.55,
            [141.1, 70.6, 36.7],
            320,
            &[(int4, false)],
        ),
    ];
    let compiler = Compiler::new().unwrap();
    for (qwen, sizes, billions, gigabytes, kib, recipes) in table {
        let config = config(qwen, sizes);
        let parameters = load(&compiler, &config, 8192).parameters.unwrap();
        let rounded = |x: f64, digits: i32| (x * 10f64.powi(digits)).round() / 10f64.powi(digits);
        assert_eq!(rounded(parameters.total as f64 / 1e9, 2), billions);
        assert_eq!((parameters.routed, parameters.active), (0, parameters.total));
        // By name of type alone, every parameter in it.
        let bits = [16.0, 8.0, 4.0 + 20.0 / 128.0];
        let by_bits = bits.map(|b| rounded(parameters.total as f64 * b / 8e9, 1));
        assert_eq!(by_bits, gigabytes);
        for (precision, fits) in recipes {
            let options = Options { precision: *precision, ..Options::default() };
            let compiled = compiler.compile(load(&compiler, &config, 8192), &options);
            let compiled = compiled.unwrap_or_else(|e| panic!("{e}"));
            let model = Model { plan: &compiled.encoded.plan, code: 0, chosen: 1.0 };
            assert_eq!(model.cache_per_token(), kib * 1024);
            let u = Use { context: 8192, batch: 1, prompt: 512, chunk: 512, page: 64, threads: 1 };
            let l = model.language(&u).unwrap();
            assert_eq!(l.need.cache, kib * 1024 * 8192);
            let n = l.need.total();
            let got = matches!(verdict(n, Some(24_000_000_000)), Verdict::Fits(_));
            println!("{billions} B, {precision:?}: {:?} = {:.2} GB", l.need, n as f64 / 1e9);
            assert_eq!(got, *fits, "{billions} B, {precision:?}: {n} bytes");
            // The engine's weights are those of the recipe, but for tables, small ones and padding.
            if precision.is_none() {
                let stored = parameters.total as f64 * 2.0;
                let held = l.need.weights as f64;
                assert!(held >= stored && held <= 1.01 * stored, "{held} of {stored}");
            }
        }
    }
}

/// What a token of DeepSeek V3 streams, and the bound that follows.
#[test]
fn deepseek_v3() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("language/configs/deepseek-v3.json");
    let o = ImportOptions { meta: true, ..Default::default() };
    let p = Compiler::new().unwrap().load_directory(&path, &o).unwrap().parameters.unwrap();
    let other = p.total - p.routed;
    assert_eq!(
        (p.total / 10_000_000, p.routed / 100_000_000, other / 100_000_000),
        (67_102, 6539, 171)
    );
    let streamed = p.active - other;
    assert_eq!(streamed / 10_000_000, 2043);
    // About 4.85 bits a weight in Q4_K_M; eight channels of DDR5-4800.
    let limits = Limits { bytes_per_s: Some(307e9), ops_per_s: None, efficiency: 1.0 };
    let t = time(Work { bytes: streamed as f64 * 4.85 / 8.0, ops: 0.0 }, &limits).unwrap();
    assert_eq!((format!("{:.1}", 1.0 / t.seconds), t.bound), ("24.8".into(), Bound::MemoryAtLeast));
    assert_eq!(70_272u64 * 65_536 / 100_000_000, 46);
    // One token touches its own experts; 64 tokens most of them.
    assert_eq!(256.0 * touched(8.0 / 256.0, 1), 8.0);
    assert_eq!((256.0 * touched(8.0 / 256.0, 64)).round(), 222.0);
}
