//! Options of passes, and the text of pipelines: `canonicalize,cse,fold{limit=65536,weights=false}`.
//!
//! Every option is declared with a default, so an unknown name or a value of the wrong kind is an
//! error that lists what there is.

use std::fmt;

use silure_ir::bail;
use silure_ir::diag::{Code, Diagnostic, Result};

/// The value of an option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OptValue {
    /// An integer.
    Int(i64),
    /// True or false; a bare name in text means true.
    Flag(bool),
    /// A word.
    Word(String),
}

impl fmt::Display for OptValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptValue::Int(v) => write!(f, "{v}"),
            OptValue::Flag(v) => write!(f, "{v}"),
            OptValue::Word(v) => f.write_str(v),
        }
    }
}

/// The default of a declared option; it also says the kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the variants of `OptValue`")]
pub enum OptDefault {
    Int(i64),
    Flag(bool),
    Word(&'static str),
}

impl OptDefault {
    /// The default as a value.
    pub fn value(self) -> OptValue {
        match self {
            OptDefault::Int(v) => OptValue::Int(v),
            OptDefault::Flag(v) => OptValue::Flag(v),
            OptDefault::Word(v) => OptValue::Word(v.to_string()),
        }
    }
}

/// One declared option of a pass.
#[derive(Clone, Copy, Debug)]
pub struct OptDef {
    /// Name.
    pub name: &'static str,
    /// One sentence.
    pub doc: &'static str,
    /// Default.
    pub default: OptDefault,
}

/// The options of one run of a pass: every declared one, with its value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options(Vec<(&'static str, OptValue)>);

impl Options {
    /// The defaults of a declaration, with `given` in place of some.
    pub fn new(pass: &str, defs: &[OptDef], given: &[(String, OptValue)]) -> Result<Options> {
        let mut all: Vec<(&'static str, OptValue)> =
            defs.iter().map(|d| (d.name, d.default.value())).collect();
        for (name, value) in given {
            let Some(slot) = all.iter_mut().find(|(n, _)| n == name) else {
                let has: Vec<&str> = defs.iter().map(|d| d.name).collect();
                return Err(Diagnostic::new(
                    Code::Invalid,
                    format!("pass `{pass}` has no option `{name}`"),
                )
                .need(if has.is_empty() { "no options".into() } else { has.join(", ") }, name));
            };
            if std::mem::discriminant(&slot.1) != std::mem::discriminant(value) {
                let what = match slot.1 {
                    OptValue::Int(_) => "an integer",
                    OptValue::Flag(_) => "true or false",
                    OptValue::Word(_) => "a word",
                };
                return Err(Diagnostic::new(
                    Code::Invalid,
                    format!("option `{name}` of pass `{pass}` has the wrong kind"),
                )
                .need(what, value));
            }
            slot.1 = value.clone();
        }
        Ok(Options(all))
    }

    fn get(&self, name: &str) -> Option<&OptValue> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// An integer option; 0 if it is not declared.
    pub fn int(&self, name: &str) -> i64 {
        match self.get(name) {
            Some(OptValue::Int(v)) => *v,
            _ => 0,
        }
    }

    /// A flag; false if it is not declared.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some(OptValue::Flag(true)))
    }

    /// A word; empty if it is not declared.
    pub fn word(&self, name: &str) -> &str {
        match self.get(name) {
            Some(OptValue::Word(v)) => v,
            _ => "",
        }
    }
}

/// One element of a pipeline's text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PassCall {
    /// Name of the pass.
    pub name: String,
    /// Options given.
    pub options: Vec<(String, OptValue)>,
}

impl fmt::Display for PassCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if !self.options.is_empty() {
            let o: Vec<String> = self.options.iter().map(|(n, v)| format!("{n}={v}")).collect();
            write!(f, "{{{}}}", o.join(","))?;
        }
        Ok(())
    }
}

/// Parses `a,b{x=1,flag,word=abc},c`. Blanks are ignored; an empty text is an empty pipeline.
pub fn parse_calls(text: &str) -> Result<Vec<PassCall>> {
    let mut out = Vec::new();
    for part in split(text, text)? {
        let (name, rest) = match part.split_once('{') {
            Some((n, r)) => (n.trim(), Some(r)),
            None => (part.trim(), None),
        };
        if name.is_empty()
            || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            bail!(Syntax, "`{}` is not the name of a pass, in pipeline `{text}`", name);
        }
        let mut options = Vec::new();
        if let Some(rest) = rest {
            let Some(body) = rest.trim_end().strip_suffix('}') else {
                bail!(Syntax, "`{{` without `}}` after `{name}`, in pipeline `{text}`");
            };
            for o in split(body, text)? {
                options.push(parse_option(&o, text)?);
            }
        }
        out.push(PassCall { name: name.to_string(), options });
    }
    Ok(out)
}

fn parse_option(o: &str, text: &str) -> Result<(String, OptValue)> {
    let (n, v) = o.split_once('=').unwrap_or((o, "true"));
    let (n, v) = (n.trim(), v.trim());
    if n.is_empty() || v.is_empty() {
        bail!(Syntax, "`{o}` is not an option, in pipeline `{text}`");
    }
    let value = match v {
        "true" => OptValue::Flag(true),
        "false" => OptValue::Flag(false),
        _ => match v.parse() {
            Ok(i) => OptValue::Int(i),
            Err(_) => OptValue::Word(v.to_string()),
        },
    };
    Ok((n.to_string(), value))
}

/// Splits at commas outside braces.
fn split(text: &str, whole: &str) -> Result<Vec<String>> {
    let (mut out, mut depth, mut cur) = (Vec::new(), 0usize, String::new());
    for c in text.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => bail!(Syntax, "`}}` without `{{`, in pipeline `{whole}`"),
            '}' => depth -= 1,
            ',' if depth == 0 => {
                out.push(std::mem::take(&mut cur));
                continue;
            }
            _ => {}
        }
        cur.push(c);
    }
    if depth != 0 {
        bail!(Syntax, "`{{` without `}}`, in pipeline `{whole}`");
    }
    if !cur.trim().is_empty() || !out.is_empty() {
        out.push(cur);
    }
    Ok(out)
}
