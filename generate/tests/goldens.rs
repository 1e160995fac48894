//! Tokenizers, chat templates and sampling beside Python's tokenizers and transformers
//! (tests/language/text.py).

use serde_json::Value;
use silure_generate::{Message, Sampler, Settings, Stream, Template, Tokenizer};
use std::collections::BTreeMap;

fn golden(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/language/text");
    let text = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn ids(v: &Value) -> Vec<u32> {
    v.as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect()
}

const KINDS: [&str; 6] = ["qwen", "llama3", "gpt2", "sentencepiece", "unigram", "wordpiece"];

#[test]
fn tokenizers_give_the_same_tokens_and_text() {
    for kind in KINDS {
        let g = golden(&format!("tokenizer_{kind}"));
        let t = Tokenizer::parse(g["tokenizer"].to_string().as_bytes()).unwrap();
        let cases = g["cases"].as_array().unwrap();
        assert!(cases.len() > 10);
        for c in cases {
            let text = c["text"].as_str().unwrap();
            assert_eq!(t.encode(text, true).unwrap(), ids(&c["special"]), "{kind}: {text:?}");
            let plain = t.encode(text, false).unwrap();
            assert_eq!(plain, ids(&c["plain"]), "{kind}: {text:?}");
            assert_eq!(t.decode(&plain, false).unwrap(), c["decoded"], "{kind}: {text:?}");
            assert!(plain.iter().all(|id| (*id as usize) < t.vocab()));
        }
    }
}

#[test]
fn streams_are_the_whole_text_in_whole_characters() {
    for kind in KINDS {
        let g = golden(&format!("tokenizer_{kind}"));
        let t = Tokenizer::parse(g["tokenizer"].to_string().as_bytes()).unwrap();
        for c in g["cases"].as_array().unwrap() {
            let tokens = ids(&c["plain"]);
            let whole = c["decoded"].as_str().unwrap();
            let mut stream = Stream::behind(&t, &[]).unwrap();
            let mut text = String::new();
            for token in &tokens {
                let piece = stream.push(*token).unwrap();
                assert!(!piece.contains('\u{FFFD}'), "{kind}: {whole:?}: {piece:?}");
                text += &piece;
            }
            text += &stream.finish().unwrap();
            assert_eq!(text, whole, "{kind}");
            // Behind the first half: what was there is not said again.
            let half = tokens.len() / 2;
            let before = t.decode(&tokens[..half], false).unwrap();
            let mut stream = Stream::behind(&t, &tokens[..half]).unwrap();
            let mut text = String::new();
            tokens[half..].iter().for_each(|token| text += &stream.push(*token).unwrap());
            text += &stream.finish().unwrap();
            if whole.starts_with(&before) {
                assert_eq!(before + &text, whole, "{kind}");
            }
        }
    }
    // Bytes that are no character do not hold the text back for ever, and none is lost.
    let g = golden("tokenizer_gpt2");
    let t = Tokenizer::parse(g["tokenizer"].to_string().as_bytes()).unwrap();
    let lone = t.encode("é", false).unwrap()[0];
    let letter = t.encode("x", false).unwrap()[0];
    let tokens = [lone, lone, lone, lone, lone, letter, lone];
    let mut stream = Stream::behind(&t, &[]).unwrap();
    let mut text = String::new();
    tokens.iter().for_each(|token| text += &stream.push(*token).unwrap());
    text += &stream.finish().unwrap();
    assert_eq!(text, t.decode(&tokens, false).unwrap());
}

#[test]
fn templates_render_the_same_prompts() {
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let tokens: BTreeMap<String, String> = tokens.map(|(a, b)| (a.into(), b.into())).into();
    let (mut prompts, mut errors) = (0, 0);
    for c in golden("templates").as_array().unwrap() {
        let t = Template::parse(c["template"].as_str().unwrap(), tokens.clone()).unwrap();
        let messages: Vec<Message> = c["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| Message {
                role: m["role"].as_str().unwrap().into(),
                content: m["content"].as_str().unwrap().into(),
            })
            .collect();
        let got = t.render(&messages, c["answer"].as_bool().unwrap());
        let place = format!("{} on {messages:?}", c["name"]);
        match c["prompt"].as_str() {
            Some(want) => {
                assert_eq!(got.unwrap_or_else(|e| panic!("{place}: {e}")), want, "{place}");
                prompts += 1;
            }
            None => {
                let (e, want) = (got.unwrap_err().to_string(), c["error"].as_str().unwrap());
                assert!(e.contains(want), "{place}: {e}, needed {want}");
                errors += 1;
            }
        }
    }
    assert!(prompts > 40 && errors > 3, "{prompts} and {errors}");
}

#[test]
fn sampling_leaves_the_same_tokens_with_the_same_probabilities() {
    for c in golden("sampling").as_array().unwrap() {
        let (s, default) = (&c["settings"], Settings::default());
        let number = |name: &str, or: f64| s[name].as_f64().unwrap_or(or);
        let settings = Settings {
            temperature: number("temperature", 1.0),
            top_k: s["top_k"].as_u64().map(|k| k as usize),
            top_p: number("top_p", 1.0),
            min_p: number("min_p", 0.0),
            repetition_penalty: number("repetition_penalty", 1.0),
            ..default
        };
        let f64s = |v: &Value| -> Vec<f64> {
            v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        let logits: Vec<f32> = f64s(&c["logits"]).iter().map(|x| *x as f32).collect();
        let mut sampler = Sampler::new(&settings).unwrap();
        let got = sampler.candidates(&logits, &ids(&c["history"]));
        let want = f64s(&c["p"]);
        assert_eq!(got.len(), want.iter().filter(|p| **p > 0.0).count(), "{s}");
        assert!(got.windows(2).all(|w| w[0].1 >= w[1].1));
        for (token, p) in got {
            // Theirs are f32: a few roundings of the softmax.
            assert!((p - want[token as usize]).abs() < 1e-6, "{s}: token {token}");
        }
    }
}
