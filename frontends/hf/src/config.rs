//! config.json: fields by name and type.
//!
//! Numbers are taken as they are meant: an integer where a float is needed, a float without a fraction
//! where an integer is; `null` is absence. What was read is remembered, so that fields nobody asked
//! for can be named.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::error::{Code, Error, Result, cut};

/// The largest config.json that is read.
const MOST: u64 = 16 << 20;

/// The most layers of a model.
const MOST_LAYERS: usize = 4096;

/// Fields that say nothing about what is computed here.
#[rustfmt::skip]
const ASIDE: &[&str] = &[
    "_name_or_path", "architectures", "attention_dropout", "auto_map", "aux_loss_alpha", "bos_token_id",
    "classifier_dropout", "cls_token_id", "dtype", "embd_pdrop", "eos_token_id", "ep_size", "gradient_checkpointing",
    "id2label", "initializer_range", "is_encoder_decoder", "label2id", "max_length", "mask_token_id", "model_type",
    "output_attentions", "output_hidden_states", "output_router_logits", "pad_token_id", "pretraining_tp",
    "problem_type", "resid_pdrop", "return_dict", "router_aux_loss_coef", "router_jitter_noise", "sep_token_id",
    "seq_aux", "task_specific_params", "tie_encoder_decoder", "tokenizer_class", "torch_dtype", "transformers_version",
    "unk_token_id", "unsloth_fixed", "unsloth_version", "use_cache", "use_return_dict", "hidden_dropout_prob",
    "attention_probs_dropout_prob", "quantization_config",
];

/// An object of config.json.
pub struct Config {
    place: String,
    map: Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

impl Config {
    /// Reads the configuration of that name in a directory.
    pub fn open(folder: &crate::folder::Folder, name: &str) -> Result<Config> {
        Config::parse(name, &folder.read(name, MOST)?)
    }

    /// The object in a file's contents.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Config> {
        let v: Value = serde_json::from_slice(bytes)
            .map_err(|e| Error::new(Code::Malformed, file, format!("not JSON: {e}")))?;
        match v {
            Value::Object(map) => Ok(Config::of(file.into(), map)),
            v => Err(Error::new(Code::Malformed, file, "not an object").present(kind(&v))),
        }
    }

    fn of(place: String, map: Map<String, Value>) -> Config {
        Config { place, map, read: RefCell::default() }
    }

    /// An error at a field.
    pub fn wrong(&self, name: &str, what: impl Into<String>) -> Error {
        Error::new(Code::Type, format!("{}, `{name}`", self.place), what)
    }

    /// A field that says something this importer does not do.
    pub fn unsupported(&self, name: &str, what: impl Into<String>) -> Error {
        Error::new(Code::Unsupported, format!("{}, `{name}`", self.place), what)
    }

    fn missing(&self, name: &str, needed: &str) -> Error {
        let at = format!("{}, `{name}`", self.place);
        Error::new(Code::Missing, at, "the field is missing").needed(needed)
    }

    /// The value of a field; `None` if absent or null.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.read.borrow_mut().insert(name.into());
        self.map.get(name).filter(|v| !v.is_null())
    }

    /// Whether a field is there, `null` too.
    pub fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    fn maybe<T>(
        &self,
        name: &str,
        needed: &str,
        get: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(v) = self.value(name) else { return Ok(None) };
        match get(v) {
            Some(x) => Ok(Some(x)),
            None => {
                let e = self.wrong(name, "the field has the wrong type or value");
                Err(e.needed(needed).present(cut(&v.to_string())))
            }
        }
    }

    /// A size from 1 to 2³¹, if there is one.
    pub fn maybe_size(&self, name: &str) -> Result<Option<usize>> {
        let get = |v: &Value| int(v).filter(|i| (1..=1 << 31).contains(i)).map(|i| i as usize);
        self.maybe(name, "an integer from 1 to 2^31", get)
    }

    /// A size from 1 to 2³¹.
    pub fn size(&self, name: &str) -> Result<usize> {
        let needed = "an integer from 1 to 2^31";
        self.maybe_size(name)?.ok_or_else(|| self.missing(name, needed))
    }

    /// A count from 0 to 2³¹, if there is one.
    pub fn maybe_count(&self, name: &str) -> Result<Option<usize>> {
        let get = |v: &Value| int(v).filter(|i| (0..=1 << 31).contains(i)).map(|i| i as usize);
        self.maybe(name, "an integer from 0 to 2^31", get)
    }

    /// A finite number, if there is one.
    pub fn maybe_float(&self, name: &str) -> Result<Option<f64>> {
        self.maybe(name, "a number", |v| v.as_f64().filter(|x| x.is_finite()))
    }

    /// A finite number above 0, if there is one.
    pub fn maybe_positive(&self, name: &str) -> Result<Option<f64>> {
        self.maybe(name, "a number above 0", |v| v.as_f64().filter(|x| x.is_finite() && *x > 0.0))
    }

    /// A finite number above 0.
    pub fn positive(&self, name: &str) -> Result<f64> {
        self.maybe_positive(name)?.ok_or_else(|| self.missing(name, "a number above 0"))
    }

    /// True or false, or what holds if nothing is said.
    pub fn flag(&self, name: &str, otherwise: bool) -> Result<bool> {
        Ok(self.maybe(name, "true or false", Value::as_bool)?.unwrap_or(otherwise))
    }

    /// A word, if there is one.
    pub fn word(&self, name: &str) -> Result<Option<&str>> {
        let Some(v) = self.value(name) else { return Ok(None) };
        match v.as_str() {
            Some(s) => Ok(Some(s)),
            None => {
                let e = self.wrong(name, "the field has the wrong type");
                Err(e.needed("a string").present(cut(&v.to_string())))
            }
        }
    }

    /// A list of words, if there is one.
    pub fn words(&self, name: &str) -> Result<Option<Vec<String>>> {
        self.maybe(name, "a list of strings", |v| {
            v.as_array()?.iter().map(|v| v.as_str().map(str::to_string)).collect()
        })
    }

    /// A list of counts, if there is one.
    pub fn counts(&self, name: &str) -> Result<Option<Vec<usize>>> {
        self.maybe(name, "a list of integers from 0", |v| {
            let one = |v: &Value| int(v).and_then(|i| usize::try_from(i).ok());
            v.as_array()?.iter().map(one).collect()
        })
    }

    /// An object inside this one, if there is one.
    pub fn section(&self, name: &str) -> Result<Option<Config>> {
        let map = self.maybe(name, "an object", |v| v.as_object().cloned())?;
        Ok(map.map(|m| Config::of(format!("{}, {name}", self.place), m)))
    }

    /// Refuses a field that is there and has another value than the one this importer implements.
    pub fn only(&self, name: &str, value: Value) -> Result<()> {
        match self.value(name) {
            Some(v) if *v != value => Err(self
                .unsupported(name, "this is not supported")
                .needed(value.to_string())
                .present(cut(&v.to_string()))),
            _ => Ok(()),
        }
    }

    /// The same fields with nothing read.
    pub fn afresh(&self) -> Config {
        Config::of(self.place.clone(), self.map.clone())
    }

    /// The number of layers.
    pub fn layers(&self) -> Result<usize> {
        self.within("num_hidden_layers", MOST_LAYERS)
    }

    /// A size of at most `most`.
    pub fn within(&self, name: &str, most: usize) -> Result<usize> {
        let n = self.size(name)?;
        self.bounded(name, n, most)
    }

    /// Checks a size that was read from a field.
    pub fn bounded(&self, name: &str, n: usize, most: usize) -> Result<usize> {
        if n <= most {
            return Ok(n);
        }
        let at = format!("{}, `{name}`", self.place);
        let e = Error::new(Code::Limit, at, "the field is too large");
        Err(e.needed(format!("at most {most}")).present(n.to_string()))
    }

    /// Checks that the product of sizes is one that can be addressed.
    pub fn fits(&self, name: &str, sizes: &[usize]) -> Result<()> {
        const MOST: usize = 1 << 46;
        match sizes.iter().try_fold(1usize, |a, &b| a.checked_mul(b)) {
            Some(n) => self.bounded(name, n, MOST).map(drop),
            None => self.bounded(name, usize::MAX, MOST).map(drop),
        }
    }

    /// Fields that were read or say nothing about the computation.
    pub fn knows(&self, name: &str) -> bool {
        self.read.borrow().contains(name) || ASIDE.contains(&name)
    }

    /// Fields that somebody read and that are there.
    pub fn used(&self) -> usize {
        self.map.keys().filter(|k| self.read.borrow().contains(*k)).count()
    }

    /// Fields with a value that nobody read and that may matter.
    pub fn unread(&self) -> Vec<&str> {
        let says = |v: &Value| !v.is_null() && *v != Value::Bool(false);
        self.map.iter().filter(|(k, v)| says(v) && !self.knows(k)).map(|(k, _)| &**k).collect()
    }
}

/// An integer, also where it is written as a float.
fn int(v: &Value) -> Option<i64> {
    const EXACT: f64 = (1u64 << 53) as f64;
    v.as_i64().or_else(|| {
        let f = v.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < EXACT)?;
        Some(f as i64)
    })
}

fn kind(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
