//! What an engine carries for its host: tokenizer, template, settings.

use crate::error::{Error, Result};
use crate::settings::{Settings, kind, tokens};
use crate::template::Template;
use crate::tokenizer::Tokenizer;
use serde_json::{Map, Value};
use silure_runtime::Engine;
use std::collections::BTreeMap;

/// The files of a language model by name, as an engine or a directory has them.
pub struct Assets<'a>(Box<dyn Fn(&str) -> Option<&'a [u8]> + 'a>);

impl<'a> Assets<'a> {
    /// Those of an engine.
    pub fn of(engine: &'a Engine) -> Assets<'a> {
        Assets(Box::new(|name| engine.asset(name)))
    }

    /// Those that a function finds.
    pub fn new(find: impl Fn(&str) -> Option<&'a [u8]> + 'a) -> Assets<'a> {
        Assets(Box::new(find))
    }

    /// The tokenizer; an engine without one takes and gives token numbers alone.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        self.0("tokenizer.json").map(Tokenizer::parse).transpose()
    }

    /// How the model's author wants tokens chosen, and the tokens that end a sequence: those of
    /// generation_config.json, else of config.json, else the tokenizer's.
    pub fn settings(&self, tokenizer: Option<&Tokenizer>) -> Result<Settings> {
        let mut s = match self.0("generation_config.json") {
            Some(json) => Settings::parse(json)?,
            None => Settings::default(),
        };
        if s.stop.is_empty()
            && let Some(map) = self.object("config.json")?
        {
            s.stop = tokens(map.get("eos_token_id"), "config.json: eos_token_id")?;
        }
        if s.stop.is_empty()
            && let (Some(t), Some(eos)) = (tokenizer, self.special()?.get("eos_token"))
        {
            let missing = || Error::field("tokenizer_config.json: eos_token", "a token", eos);
            s.stop = vec![t.token(eos).ok_or_else(missing)?];
        }
        Ok(s)
    }

    /// The chat template: chat_template.jinja, or the one of tokenizer_config.json.
    pub fn template(&self) -> Result<Option<Template>> {
        let special = self.special()?;
        if let Some(bytes) = self.0("chat_template.jinja") {
            let text = std::str::from_utf8(bytes);
            let text = text.map_err(|e| Error::field("chat_template.jinja", "UTF-8", e))?;
            return Template::parse(text, special).map(Some);
        }
        for file in ["chat_template.json", "tokenizer_config.json"] {
            let Some(map) = self.object(file)? else { continue };
            let place = || format!("{file}: chat_template");
            let text = match map.get("chat_template") {
                None | Some(Value::Null) => continue,
                Some(Value::String(s)) => s.as_str(),
                // Several by name: the one for plain conversations.
                Some(Value::Array(list)) => {
                    let named = list.iter().find(|t| t["name"] == "default");
                    let text = named.and_then(|t| t["template"].as_str());
                    text.ok_or_else(|| Error::field(place(), "one named 'default'", "others"))?
                }
                Some(v) => return Err(Error::field(place(), "a string or a list", kind(v))),
            };
            return Template::parse(text, special).map(Some);
        }
        Ok(None)
    }

    fn object(&self, name: &str) -> Result<Option<Map<String, Value>>> {
        let Some(bytes) = self.0(name) else { return Ok(None) };
        match serde_json::from_slice(bytes).map_err(|e| Error::field(name, "JSON", e))? {
            Value::Object(map) => Ok(Some(map)),
            v => Err(Error::field(name, "an object", kind(&v))),
        }
    }

    /// Special tokens by their names, such as `bos_token`.
    fn special(&self) -> Result<BTreeMap<String, String>> {
        let mut all = BTreeMap::new();
        for file in ["special_tokens_map.json", "tokenizer_config.json"] {
            for (name, v) in self.object(file)?.unwrap_or_default() {
                let text = v.as_str().or_else(|| v.get("content").and_then(Value::as_str));
                if let Some(text) = text.filter(|_| name.ends_with("_token")) {
                    all.insert(name, text.to_string());
                }
            }
        }
        Ok(all)
    }
}
