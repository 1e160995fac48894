//! The verb `generate` on a small model whose answers are computed here, with plain loops in f64.

mod common;

use std::path::{Path, PathBuf};

use silure::{Compiler, Options};
use silure_generate::Tokenizer;
use silure_runtime::{Tensor, npy};
use silure_types::Elem;

use common::{Ran, silure};

const WIDE: usize = 16;
const CONTEXT: usize = 40;
const PAGE: usize = 4;

/// Numbers in [−1, 1) by a linear congruence.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut s = seed;
    let mut next = || {
        s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (s >> 41) as f32 / (1u64 << 22) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn tokenizer() -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/language/text/tokenizer_gpt2.json");
    let v: serde_json::Value = serde_json::from_slice(&std::fs::read(folder).unwrap()).unwrap();
    v["tokenizer"].to_string().into_bytes()
}

/// A token and its place, then attention of one head over what was before, then a product.
struct Reference {
    vocab: usize,
    tokens: Vec<f32>,
    places: Vec<f32>,
    out: Vec<f32>,
}

impl Reference {
    fn new(vocab: usize) -> Reference {
        let out = numbers(WIDE * vocab, 3).iter().map(|x| x * 2.0).collect();
        Reference {
            vocab,
            tokens: numbers(vocab * WIDE, 1),
            places: numbers(CONTEXT * WIDE, 2),
            out,
        }
    }

    fn logits(&self, history: &[u32]) -> Vec<f64> {
        let row = |at: usize| -> Vec<f64> {
            let (t, p) = (history[at] as usize * WIDE, at * WIDE);
            (0..WIDE).map(|i| (self.tokens[t + i] + self.places[p + i]) as f64).collect()
        };
        let q = row(history.len() - 1);
        let keys: Vec<Vec<f64>> = (0..history.len()).map(row).collect();
        let dot =
            |k: &Vec<f64>| k.iter().zip(&q).map(|(a, b)| a * b).sum::<f64>() / (WIDE as f64).sqrt();
        let weights: Vec<f64> = keys.iter().map(|k| dot(k).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let y: Vec<f64> = (0..WIDE)
            .map(|i| keys.iter().zip(&weights).map(|(k, w)| k[i] * w / sum).sum())
            .collect();
        let column = |v: usize| (0..WIDE).map(|i| y[i] * self.out[i * self.vocab + v] as f64).sum();
        (0..self.vocab).map(column).collect()
    }

    fn greedy(&self, prompt: &[u32], n: usize) -> Vec<u32> {
        let mut all = prompt.to_vec();
        for _ in 0..n {
            let l = self.logits(&all);
            let best = (0..l.len()).max_by(|a, b| l[*a].total_cmp(&l[*b])).unwrap();
            all.push(best as u32);
        }
        all.split_off(prompt.len())
    }

    fn source(&self) -> String {
        let (vocab, rows) = (self.vocab, CONTEXT / PAGE * PAGE);
        let entry = |name: &str, prefill: bool| {
            let (dims, more, last) = match prefill {
                true => {
                    ("n: 1..16, b: 1..4, p: 1..10, r: 1..16", ", %ends: i64[b], %rows: i64[r]", "r")
                }
                false => ("n: 1..4, p: 1..10", "", "n"),
            };
            let b = if prefill { "b" } else { "n" };
            let ends = if prefill { "%ends" } else { "_" };
            let pick = match prefill {
                true => format!("    %z = graph.gather %f, %rows : f32[r, {WIDE}]\n"),
                false => format!(
                    "    %z = graph.reshape %f {{shape = dims[n, {WIDE}]}} : f32[n, {WIDE}]\n"
                ),
            };
            let cache = |s: &str| {
                format!(
                    "    %{s}0 = state {{name = @cache.0.{s}}} : state<f32[{rows}, 1, {WIDE}]>
    %{s}1 = state_write %{s}0, %q, %slots : state<f32[{rows}, 1, {WIDE}]>
    %{s} = state_read %{s}1 : f32[{rows}, 1, {WIDE}]
    state_store %{s}1 {{name = @cache.0.{s}}}\n"
                )
            };
            format!(
                "  entry @{name}<{dims}>(%tokens: i64[n], %positions: i64[n], %slots: i64[n], %lengths: i64[{b}], \
                 %pages: i64[{b}, p]{more}) -> (logits: f32[{last}, {vocab}]) {{
    %et = weight {{name = @tokens}} : f32[{vocab}, {WIDE}]
    %ep = weight {{name = @places}} : f32[{CONTEXT}, {WIDE}]
    %xt = graph.gather %et, %tokens : f32[n, {WIDE}]
    %xp = graph.gather %ep, %positions : f32[n, {WIDE}]
    %x = arith.add %xt, %xp : f32[n, {WIDE}]
    %q = graph.reshape %x {{shape = dims[n, 1, {WIDE}]}} : f32[n, 1, {WIDE}]
{}{}    %y = graph.paged_attention %q, %key, %value, %lengths, %pages, {ends} {{page = {PAGE}}} : f32[n, 1, {WIDE}]
    %f = graph.reshape %y {{shape = dims[n, {WIDE}]}} : f32[n, {WIDE}]
{pick}    %w = weight {{name = @out}} : f32[{WIDE}, {vocab}]
    %logits = graph.matmul %z, %w : f32[{last}, {vocab}]
    return %logits
  }}\n", cache("key"), cache("value"))
        };
        let mut offset = 0;
        let mut weight = |name: &str, rows: usize, cols: usize| {
            let bytes = rows * cols * 4;
            offset += bytes;
            format!(
                "  weight @{name} : f32[{rows}, {cols}] = file(\"w.bin\", {}, {bytes}, f32[{rows}, {cols}])\n",
                offset - bytes
            )
        };
        format!(
            "module @small {{\n{}{}{}  state @cache.0.key : f32[{rows}, 1, {WIDE}]\n  \
             state @cache.0.value : f32[{rows}, 1, {WIDE}]\n{}{}}}\n",
            weight("tokens", vocab, WIDE),
            weight("places", CONTEXT, WIDE),
            weight("out", WIDE, vocab),
            entry("prefill", true),
            entry("decode", false),
        )
    }

    /// The engine; what is in `without` is left out of options and assets.
    fn engine(&self, folder: &Path, without: &str) -> PathBuf {
        let all = self.tokens.iter().chain(&self.places).chain(&self.out);
        std::fs::write(folder.join("w.bin"), all.flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())
            .unwrap();
        let source = folder.join("small.sir");
        std::fs::write(&source, self.source()).unwrap();
        let c = Compiler::new().unwrap();
        let mut m = c.load(&source, &Default::default()).unwrap_or_else(|e| panic!("{e}"));
        let says = [
            ("language.page", PAGE),
            ("language.pages", CONTEXT / PAGE),
            ("language.context", CONTEXT),
            ("language.vocab", self.vocab),
        ];
        m.options = says.map(|(k, v)| (k.to_string(), v.to_string())).into();
        m.assets = vec![
            ("tokenizer.json".into(), tokenizer()),
            (
                "chat_template.jinja".into(),
                b"{{ messages[0].content }}|{{ messages[1].content }}".to_vec(),
            ),
        ];
        m.options.retain(|o| o.0 != without);
        m.assets.retain(|a| a.0 != without);
        let path = folder.join(format!("without-{without}.silure"));
        c.compile(m, &Options::default()).unwrap_or_else(|e| panic!("{e}")).write(&path).unwrap();
        path
    }
}

fn generate(engine: &Path, args: &[&str]) -> Ran {
    silure(&[&["generate", engine.to_str().unwrap()], args].concat())
}

fn fine(engine: &Path, args: &[&str]) -> String {
    generate(engine, args).code(0).out
}

#[test]
fn tokens_logits_and_text_are_those_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let t = Tokenizer::parse(&tokenizer()).unwrap();
    let model = Reference::new(t.vocab());
    let engine = model.engine(folder.path(), "nothing");
    let text = "The river carries é 12 x";
    let prompt = t.encode(text, true).unwrap();
    assert!((4..20).contains(&prompt.len()), "{}", prompt.len());
    let want = model.greedy(&prompt, 16);

    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (ids, logits, tokens) = (file("ids.npy"), file("logits.npy"), file("tokens.npy"));
    let values: Vec<i64> = prompt.iter().map(|x| *x as i64).collect();
    npy::write(ids.as_ref(), &Tensor::i64(&[1, values.len()], &values).unwrap()).unwrap();
    let script = ["--prompt-ids", &ids, "--max-new-tokens", "16", "--ignore-eos"];
    let dump = ["--dump-logits", &logits, "--dump-tokens", &tokens];
    for chunk in ["1", "3", "512"] {
        for threads in ["1", "2"] {
            let how = ["--chunk", chunk, "--threads", threads];
            fine(&engine, &[&script[..], &dump, &how].concat());
            let got = npy::read(tokens.as_ref()).unwrap().into_tensor(Elem::I64).unwrap();
            assert_eq!(got.to_f64(), want.iter().map(|t| *t as f64).collect::<Vec<_>>(), "{how:?}");
            let got = npy::read(logits.as_ref()).unwrap().into_tensor(Elem::F32).unwrap();
            assert_eq!(got.shape, [prompt.len(), model.vocab]);
            for (i, row) in got.to_f64().chunks(model.vocab).enumerate() {
                for (a, b) in row.iter().zip(model.logits(&prompt[..=i])) {
                    // Sums of 16 products twice and a softmax, of values up to 10.
                    assert!((a - b).abs() < 2e-5, "{how:?}, token {i}: {a} and {b}");
                }
            }
        }
    }
    // Text: stdout is the continuation and nothing else, from the text, from a file, in a chat.
    let whole = t.decode(&[&prompt[..], &want].concat(), false).unwrap();
    let continued = format!("{}\n", &whole[text.len()..]);
    let most = ["--max-new-tokens", "16", "--ignore-eos"];
    assert_eq!(fine(&engine, &[&["--prompt", text][..], &most].concat()), continued);
    std::fs::write(file("text"), text).unwrap();
    assert_eq!(fine(&engine, &[&["--file", &file("text")][..], &most].concat()), continued);
    let chat = t.encode("Be|you", false).unwrap();
    let answer = t.decode(&model.greedy(&chat, 3), false).unwrap();
    let args = ["--chat", "you", "--system", "Be", "--max-new-tokens", "3", "--ignore-eos"];
    assert_eq!(fine(&engine, &args), format!("{answer}\n"));
    // A stop string ends the text before it.
    let at = continued.char_indices().nth(3).unwrap().0;
    let end = continued.char_indices().nth(5).unwrap().0;
    let stop = [&["--prompt", text, "--stop", &continued[at..end]][..], &most].concat();
    let first = continued.find(&continued[at..end]).unwrap();
    assert_eq!(fine(&engine, &stop), format!("{}\n", &continued[..first]));
    // Drawing depends on the seed alone.
    let draw = |seed: &str, threads: &str| {
        let how = ["--temperature", "3", "--seed", seed, "--threads", threads];
        fine(&engine, &[&["--prompt", text][..], &most, &how].concat())
    };
    assert_eq!(draw("7", "1"), draw("7", "2"));
    assert_ne!(draw("7", "1"), draw("8", "1"));
    // The end of the context is said.
    let ended =
        generate(&engine, &["--prompt", text, "--max-new-tokens", "99", "--ignore-eos", "--stats"]);
    assert!(ended.err.contains("the end of the model's context of 40 tokens"), "{}", ended.err);
    assert!(ended.err.contains("tokens/s") && ended.err.contains("GB/s"), "{}", ended.err);
}

#[test]
fn what_is_missing_or_wrong_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let t = Tokenizer::parse(&tokenizer()).unwrap();
    let model = Reference::new(t.vocab());
    let engine = model.engine(folder.path(), "nothing");
    let bare = model.engine(folder.path(), "tokenizer.json");
    let silent = model.engine(folder.path(), "language.page");
    let ids = folder.path().join("ids.npy");
    npy::write(&ids, &Tensor::i64(&[2], &[1, 9999]).unwrap()).unwrap();
    let ids = ids.to_str().unwrap();
    let long = "x y ".repeat(60);
    let vocab = format!("needed tokens below {}, present 9999", model.vocab);
    let cases: [(&Path, &[&str], &str); 8] = [
        (&engine, &[], "say what to continue"),
        (&engine, &["--prompt", "a", "--chat", "b"], "cannot be used with"),
        (
            &engine,
            &["--prompt", &long],
            "prompt: needed 1 to 40 tokens (the model's context), present",
        ),
        (&engine, &["--prompt-ids", ids], &vocab),
        (
            &engine,
            &["--prompt", "a", "--top-p", "2"],
            "top_p: needed above 0, at most 1, present 2",
        ),
        (&engine, &["--file", "no/such/file"], "no/such/file"),
        (&bare, &["--prompt", "a"], "no tokenizer came with this model"),
        (&silent, &["--prompt", "a"], "option language.page: needed set by the importer"),
    ];
    for (engine, args, words) in cases {
        let ended = generate(engine, args);
        assert_ne!(ended.code, 0, "{args:?}");
        assert!(
            ended.err.contains(words) && ended.out.is_empty(),
            "{args:?}: {}{}",
            ended.out,
            ended.err
        );
    }
}
