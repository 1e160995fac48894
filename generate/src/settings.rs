//! How tokens are chosen, and what generation_config.json says of it.

use crate::error::{Error, Result};
use serde_json::Value;

/// How tokens are chosen, and which end a sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Logits are divided by it; 0: greedy.
    pub temperature: f64,
    /// Only the most probable tokens, that many.
    pub top_k: Option<usize>,
    /// Only the most probable tokens that together have this probability.
    pub top_p: f64,
    /// Only tokens at least this share as probable as the most probable one.
    pub min_p: f64,
    /// Logits of tokens that occurred are divided by it, negative ones multiplied.
    pub repetition_penalty: f64,
    /// Where the random numbers start.
    pub seed: u64,
    /// Tokens that end a sequence.
    pub stop: Vec<u32>,
    /// Most tokens to generate, where stated.
    pub max_new_tokens: Option<usize>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
            stop: vec![],
            max_new_tokens: None,
        }
    }
}

/// Largest token number a file may name: enough for every vocabulary, and no overflow.
const MOST_TOKEN: u64 = 1 << 30;

impl Settings {
    /// Whether the most probable token is always taken.
    pub fn greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Checks that every number is in its range.
    pub fn check(&self) -> Result<()> {
        let number = |name: &str, value: f64, ok: bool, needed: &str| match ok {
            true => Ok(()),
            false => Err(Error::field(name, needed, value)),
        };
        let t = self.temperature;
        number("temperature", t, (0.0..=1e6).contains(&t), "0 (greedy) to 10⁶")?;
        number("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0, at most 1")?;
        number("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1")?;
        let r = self.repetition_penalty;
        number("repetition_penalty", r, r > 0.0 && r <= 1e6, "above 0, at most 10⁶")?;
        number("top_k", 0.0, self.top_k != Some(0), "at least 1, or none")
    }

    /// What generation_config.json says. A field that is there must be of its type; the sampling fields
    /// count only where `do_sample` is true, which is how the file means them.
    pub fn parse(json: &[u8]) -> Result<Settings> {
        let file = "generation_config.json";
        let root: Value =
            serde_json::from_slice(json).map_err(|e| Error::field(file, "JSON", e))?;
        let Value::Object(map) = &root else {
            return Err(Error::field(file, "an object", kind(&root)));
        };
        let place = |name: &str| format!("{file}: {name}");
        let get = |name: &str| map.get(name).filter(|v| !v.is_null());
        let number = |name: &str| {
            get(name)
                .map(|v| v.as_f64().ok_or_else(|| Error::field(place(name), "a number", v)))
                .transpose()
        };
        let count = |name: &str| {
            get(name)
                .map(|v| {
                    v.as_u64()
                        .filter(|n| *n <= MOST_TOKEN)
                        .ok_or_else(|| Error::field(place(name), "a count up to 2³⁰", v))
                })
                .transpose()
        };
        let mut s = Settings {
            stop: tokens(get("eos_token_id"), &place("eos_token_id"))?,
            ..Settings::default()
        };
        s.max_new_tokens = count("max_new_tokens")?.map(|n| n as usize);
        s.repetition_penalty = number("repetition_penalty")?.unwrap_or(1.0);
        let sample = match get("do_sample") {
            None => false,
            Some(v) => {
                v.as_bool().ok_or_else(|| Error::field(place("do_sample"), "true or false", v))?
            }
        };
        let (temperature, top_p) = (number("temperature")?, number("top_p")?);
        let (min_p, top_k) = (number("min_p")?, count("top_k")?);
        if sample {
            s.temperature = temperature.unwrap_or(1.0);
            s.top_p = top_p.unwrap_or(1.0);
            s.min_p = min_p.unwrap_or(0.0);
            // 0 is how the file turns it off.
            s.top_k = top_k.filter(|k| *k > 0).map(|k| k as usize);
        }
        s.check().map_err(|e| match e {
            Error::Field { place: p, needed, present } => Error::field(place(&p), needed, present),
            e => e,
        })?;
        Ok(s)
    }
}

/// One token or a list of them, as files write the tokens that end a sequence.
pub(crate) fn tokens(value: Option<&Value>, place: &str) -> Result<Vec<u32>> {
    let one = |v: &Value| {
        v.as_u64()
            .filter(|n| *n <= MOST_TOKEN)
            .map(|n| n as u32)
            .ok_or_else(|| Error::field(place, "a token number or a list of them", v))
    };
    match value {
        None | Some(Value::Null) => Ok(vec![]),
        Some(Value::Array(list)) if list.len() <= 1024 => list.iter().map(one).collect(),
        Some(Value::Array(list)) => {
            Err(Error::field(place, "at most 1024 tokens", format!("{} tokens", list.len())))
        }
        Some(v) => Ok(vec![one(v)?]),
    }
}

/// The kind of a JSON value, for messages.
pub(crate) fn kind(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_stop_tokens_and_sampling_only_where_it_is_on() {
        let s =
            Settings::parse(br#"{"eos_token_id": 7, "temperature": 0.6, "top_k": 20}"#).unwrap();
        assert_eq!(s, Settings { stop: vec![7], ..Settings::default() });
        let s = Settings::parse(
            br#"{"eos_token_id": [7, 9], "do_sample": true, "temperature": 0.6, "top_k": 20,
                "top_p": 0.95, "min_p": null, "max_new_tokens": 12, "other": {}}"#,
        )
        .unwrap();
        assert_eq!((s.stop, s.temperature, s.top_k, s.top_p), (vec![7, 9], 0.6, Some(20), 0.95));
        assert_eq!(s.max_new_tokens, Some(12));
    }

    #[test]
    fn wrong_settings_name_file_field_and_value() {
        for (json, words) in [
            ("[", "generation_config.json: needed JSON"),
            ("[]", "needed an object, present a list"),
            (
                r#"{"eos_token_id": -1}"#,
                "eos_token_id: needed a token number or a list of them, present -1",
            ),
            (r#"{"eos_token_id": [1, "x"]}"#, "eos_token_id"),
            (r#"{"temperature": "hot"}"#, "temperature: needed a number, present \"hot\""),
            (r#"{"do_sample": 1}"#, "do_sample: needed true or false, present 1"),
            (
                r#"{"do_sample": true, "temperature": -1}"#,
                "temperature: needed 0 (greedy) to 10⁶, present -1",
            ),
            (r#"{"do_sample": true, "top_p": 0}"#, "top_p: needed above 0"),
            (r#"{"top_k": 1.5}"#, "top_k: needed a count"),
            (r#"{"repetition_penalty": 0}"#, "repetition_penalty: needed above 0"),
        ] {
            let e = Settings::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(e.contains(words), "{json}: {e}");
        }
    }
}
