//! Chat templates: conversations to prompts, as transformers renders them.
//!
//! A template comes with a model and is untrusted: it sees the messages and nothing else, and the work it
//! may do is bounded. It knows no time: `strftime_now` is there only if the caller gives one.

use crate::error::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, ErrorKind, Value};
use std::collections::BTreeMap;

/// Work that a template may do, in the engine's instructions.
const FUEL: u64 = 5_000_000;

/// Most bytes of a template.
const MOST_BYTES: usize = 1 << 20;

/// Most bytes of a rendered prompt.
const MOST_PROMPT: usize = 64 << 20;

/// One part of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// A chat template.
pub struct Template {
    environment: Environment<'static>,
    tokens: BTreeMap<String, String>,
}

fn error(e: minijinja::Error) -> Error {
    let line = e.line().map_or(String::new(), |l| format!("line {l}: "));
    let reason = e.detail().map_or_else(|| e.kind().to_string(), str::to_string);
    Error::Template(format!("{line}{reason}"))
}

fn raise(message: String) -> Result<String, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// `tojson` as Python writes it: spaces behind `,` and `:`, characters as they are.
fn tojson(value: Value, rest: Rest<Value>, args: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<Value> = args.get("indent")?;
    args.get::<Option<bool>>("ensure_ascii")?;
    args.get::<Option<bool>>("sort_keys")?;
    args.get::<Option<Value>>("separators")?;
    args.assert_all_used()?;
    let indent = indent.or_else(|| rest.first().cloned()).filter(|v| !v.is_none());
    let width = indent.map(|v| v.as_usize().unwrap_or(0).min(16));
    let mut out = String::new();
    write_json(&value, width, 0, &mut out)?;
    Ok(Value::from_safe_string(out))
}

/// Nesting that is written; values refer to others, so the text may be far larger than they are.
const MOST_DEPTH: usize = 64;

fn write_json(
    v: &Value,
    width: Option<usize>,
    depth: usize,
    out: &mut String,
) -> Result<(), minijinja::Error> {
    let bad = |m: String| minijinja::Error::new(ErrorKind::BadSerialization, m);
    if depth > MOST_DEPTH || out.len() > MOST_PROMPT {
        return Err(bad(format!("tojson: at most {MOST_DEPTH} levels and {MOST_PROMPT} bytes")));
    }
    let line = |out: &mut String, depth: usize| {
        if let Some(w) = width {
            out.push('\n');
            out.push_str(&" ".repeat(w * depth));
        }
    };
    let next = |out: &mut String, i: usize| {
        if i > 0 {
            out.push_str(if width.is_some() { "," } else { ", " });
        }
        line(out, depth + 1);
    };
    let text = |s: &str, out: &mut String| out.push_str(&serde_json::Value::from(s).to_string());
    match v.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if v.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&v.to_string()),
        ValueKind::String => text(v.as_str().unwrap_or_default(), out),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            let mut count = 0;
            for (i, item) in v.try_iter()?.enumerate() {
                next(out, i);
                write_json(&item, width, depth + 1, out)?;
                count = i + 1;
            }
            if count > 0 {
                line(out, depth);
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            let mut count = 0;
            for (i, key) in v.try_iter()?.enumerate() {
                next(out, i);
                text(key.as_str().unwrap_or(&key.to_string()), out);
                out.push_str(": ");
                write_json(&v.get_item(&key)?, width, depth + 1, out)?;
                count = i + 1;
            }
            if count > 0 {
                line(out, depth);
            }
            out.push('}');
        }
        kind => return Err(bad(format!("tojson: {kind} is no JSON"))),
    }
    Ok(())
}

impl Template {
    /// Reads a template; `tokens` are the special tokens it may name, such as `bos_token`.
    pub fn parse(source: &str, tokens: BTreeMap<String, String>) -> Result<Template> {
        if source.len() > MOST_BYTES {
            let present = format!("{} bytes", source.len());
            return Err(Error::field(
                "chat template",
                format!("at most {MOST_BYTES} bytes"),
                present,
            ));
        }
        let mut environment = Environment::new();
        let mut syntax = SyntaxConfig::builder();
        let syntax = syntax.trim_blocks(true).lstrip_blocks(true).build().map_err(error)?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(64);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise);
        environment.add_filter("tojson", tojson);
        environment.add_template_owned("chat", source.to_string()).map_err(error)?;
        Ok(Template { environment, tokens })
    }

    /// What `strftime_now` gives for a format; without it a template that asks for the time fails.
    pub fn with_clock(mut self, now: impl Fn(&str) -> String + Send + Sync + 'static) -> Template {
        self.environment.add_function("strftime_now", move |format: String| now(&format));
        self
    }

    /// The prompt of a conversation, ready for the answer if `answer` is set.
    pub fn render(&self, messages: &[Message], answer: bool) -> Result<String> {
        let message = |m: &Message| {
            minijinja::context! { role => m.role.as_str(), content => m.content.as_str() }
        };
        let mut context: BTreeMap<String, Value> =
            self.tokens.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect();
        context.insert("messages".into(), messages.iter().map(message).collect());
        context.insert("add_generation_prompt".into(), answer.into());
        context.insert("tools".into(), Value::from(()));
        context.insert("documents".into(), Value::from(()));
        let mut out = Bounded(Vec::new());
        let template = self.environment.get_template("chat").map_err(error)?;
        template.render_captured_to(Value::from(context), &mut out).map_err(error)?;
        String::from_utf8(out.0).map_err(|e| Error::Template(e.to_string()))
    }
}

/// Text of a bounded size.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_PROMPT {
            return Err(std::io::Error::other(format!("the prompt exceeds {MOST_PROMPT} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String> {
        let tokens = BTreeMap::from([("bos_token".to_string(), "<s>".to_string())]);
        let message =
            |role: &str, content: &str| Message { role: role.into(), content: content.into() };
        let messages = [message("system", "Be brief. "), message("user", "Hé\"llo")];
        Template::parse(source, tokens)?.render(&messages, true)
    }

    #[test]
    fn what_templates_of_transformers_use_is_there() {
        for (source, want) in [
            (
                "{{ bos_token }}{% for m in messages %}\n[{{ m['role'] }}]{{ m.content | trim }}\n{% endfor %}",
                "<s>[system]Be brief.\n[user]Hé\"llo\n",
            ),
            (
                "{%- set ns = namespace(x='') %}{% for m in messages %}{% set ns.x = ns.x + m.role %}\
              {% if loop.first %}{% continue %}{% endif %}{{ ns.x }}{% break %}{% endfor %}",
                "systemuser",
            ),
            ("{{ messages[0]['content'].strip().split(' ')[-1].upper() }}", "BRIEF."),
            ("{{ messages[1] | tojson }}", r#"{"role": "user", "content": "Hé\"llo"}"#),
            ("{{ [1, {'a': none}] | tojson(indent=2) }}", "[\n  1,\n  {\n    \"a\": null\n  }\n]"),
            (
                "{% if tools is none and not x is defined %}{{ messages[1:] | length }}{% endif %}",
                "1",
            ),
            ("{% macro f(a, b=2) %}{{ a * b }}{% endmacro %}{{ f(3) }}{{ 'a' ~ 1 }}", "6a1"),
            (
                "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}{% endif %}{{ s }}",
                "Be brief. ",
            ),
        ] {
            assert_eq!(
                render(source).unwrap_or_else(|e| panic!("{source}: {e}")),
                want,
                "{source}"
            );
        }
    }

    #[test]
    fn hostile_and_wrong_templates_end_with_a_message() {
        for (source, words) in [
            ("{{ raise_exception('only users') }}", "only users"),
            ("a\n{% for %}", "line 2"),
            ("{{ strftime_now('%Y') }}", "strftime_now"),
            (
                "{% for i in range(9999999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
                "chat template",
            ),
            ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "chat template"),
            ("{% include 'other' %}", "chat template"),
            (
                "{% set x = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set x.s = x.s ~ x.s %}{% endfor %}",
                "chat template",
            ),
        ] {
            let e = render(source).unwrap_err().to_string();
            assert!(e.contains(words), "{source}: {e}");
        }
        let t = Template::parse("{{ strftime_now('%Y') }}", BTreeMap::new()).unwrap();
        let t = t.with_clock(|f| format!("now in {f}"));
        assert_eq!(t.render(&[], false).unwrap(), "now in %Y");
    }
}
