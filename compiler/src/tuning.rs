//! Tuning files: which schedule was measured to be the fastest for which problem.
//!
//! A file is an input of a compilation like the model: the engine depends on its bytes and on nothing of the machine that
//! compiles, and the manifest keeps its hash. It is small TOML that people read, written in one order:
//!
//! ```toml
//! version = 1
//! model = "sha256:6b86b273…"
//! target = "cpu:x86-64-v3"
//! level = "AVX-512"
//! machine = "…"
//! threads = 2
//!
//! [[choice]]
//! problem = "matmul.f32.packed batch=1x1x1x1x1x1 m=128 n=768 k=3072 a_col=1 b_col=0"
//! rows = 96
//! depth = 512
//! gain = [1.041, 1.062, 1.085]
//! ```
//!
//! A problem's text is [`silure_cpu::tuning::Problem`]'s; `rows`, `cols`, `depth` and `order` are the numbers of a
//! [`Schedule`], absent where the kernel decides. `gain` is how much faster that was, with its bounds: for people, like
//! `model`, `level`, `machine` and `threads`.
//!
//! A file may be wrong in every way. It has at most [`MOST_BYTES`] and [`MOST_CHOICES`]; every key is known, every problem
//! has one choice, and every choice is one that its kernel runs. An error names the file, the line, the key, what was needed
//! and what was there.

use std::fmt::Write;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use sha2::{Digest, Sha256};
use silure_cpu::tuning::{Applied, Choice, Problem};
use silure_kernels_cpu::schedule::Schedule;
use toml::de::{DeTable, DeValue};

use crate::load::digest;
use crate::{Error, Result};

/// The version of the form.
const VERSION: i64 = 1;
/// Most bytes of a file.
pub const MOST_BYTES: u64 = 1 << 20;
/// Most choices of a file.
pub const MOST_CHOICES: usize = 4096;
/// Most bytes of a text in it but problems'.
const MOST_TEXT: usize = 256;

/// A choice with what was measured.
#[derive(Clone, PartialEq, Debug)]
pub struct Measured {
    /// The schedule for the problem.
    pub choice: Choice,
    /// How many times faster it was than the kernel's own: lower bound, median, upper bound.
    pub gain: [f64; 3],
}

/// What a tuning file says.
#[derive(Clone, PartialEq, Debug)]
pub struct Tuning {
    /// `sha256:` and the hash of the model that was measured.
    pub model: String,
    /// The target that it was compiled for.
    pub target: String,
    /// The instruction-set level whose kernels ran.
    pub level: String,
    /// The machine, for people.
    pub machine: String,
    /// Threads that ran.
    pub threads: u32,
    /// The choices, by their problems' text.
    pub choices: Vec<Measured>,
    /// `sha256:` and the hash of the file.
    pub hash: String,
}

/// A table of a file, whose keys are taken one by one.
struct Keys<'a> {
    file: &'a str,
    text: &'a str,
    table: &'a DeTable<'a>,
    span: Range<usize>,
    /// What messages call it.
    what: String,
    taken: Vec<&'static str>,
}

/// An error at a place of a file.
fn error(file: &str, text: &str, at: usize, message: impl std::fmt::Display) -> Error {
    let line = text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1;
    Error::Tuning(format!("{file}:{line}: {message}"))
}

/// A value as messages show it, not all of a long one.
fn shown(v: &DeValue) -> String {
    let text = match v {
        DeValue::String(s) => format!("\"{}\"", s.escape_debug()),
        DeValue::Integer(i) if i.radix() == 10 => i.as_str().to_string(),
        DeValue::Float(f) => f.as_str().to_string(),
        DeValue::Boolean(b) => b.to_string(),
        v => format!("a value of type {}", v.type_str()),
    };
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn integer(v: &DeValue) -> Option<i64> {
    let i = v.as_integer()?;
    i64::from_str_radix(i.as_str(), i.radix()).ok()
}

impl<'a> Keys<'a> {
    fn error(&self, at: usize, key: &str, needed: impl std::fmt::Display, v: &DeValue) -> Error {
        let m = format!("{}`{key}`: needed {needed}, present {}", self.what, shown(v));
        error(self.file, self.text, at, m)
    }

    fn maybe(&mut self, key: &'static str) -> Option<(&'a DeValue<'a>, usize)> {
        self.taken.push(key);
        let found = self.table.iter().find(|(k, _)| k.get_ref() == key)?.1;
        Some((found.get_ref(), found.span().start))
    }

    fn needed(&mut self, key: &'static str) -> Result<(&'a DeValue<'a>, usize)> {
        let missing = format!("{}needed the key `{key}`, present: nothing", self.what);
        let (file, text, at) = (self.file, self.text, self.span.start);
        self.maybe(key).ok_or_else(|| error(file, text, at, missing))
    }

    fn text(&mut self, key: &'static str) -> Result<String> {
        let (v, at) = self.needed(key)?;
        match v.as_str() {
            Some(s) if s.len() <= MOST_TEXT && !s.chars().any(char::is_control) => Ok(s.into()),
            _ => Err(self.error(at, key, format_args!("one line of at most {MOST_TEXT} bytes"), v)),
        }
    }

    fn number(&mut self, key: &'static str, range: Range<i64>) -> Result<i64> {
        let (v, at) = self.needed(key)?;
        let (least, most) = (range.start, range.end - 1);
        let needed = format!("a whole number from {least} to {most}");
        integer(v).filter(|i| range.contains(i)).ok_or_else(|| self.error(at, key, needed, v))
    }

    /// Every key has been taken.
    fn end(&self) -> Result<()> {
        let unknown = self.table.keys().find(|k| !self.taken.contains(&k.get_ref().as_ref()));
        let Some(k) = unknown else { return Ok(()) };
        let all = self.taken.join("`, `");
        let present = shown(&DeValue::String(k.get_ref().clone()));
        let m = format!("{}needed one of the keys `{all}`, present {present}", self.what);
        Err(error(self.file, self.text, k.span().start, m))
    }
}

impl Tuning {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Tuning> {
        let name = path.display().to_string();
        let io = |source| Error::Io { path: name.clone(), source };
        let file = std::fs::File::open(path).map_err(io)?;
        let mut text = String::new();
        file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(io)?;
        Tuning::parse(&name, &text)
    }

    /// Reads the text of a file of that name.
    pub fn parse(name: &str, text: &str) -> Result<Tuning> {
        if text.len() as u64 > MOST_BYTES {
            let m = format!("{name}: needed at most {MOST_BYTES} bytes, present more");
            return Err(Error::Tuning(m));
        }
        let table = DeTable::parse(text).map_err(|e| {
            let at = e.span().map_or(0, |s| s.start);
            error(name, text, at, e.message().replace('\n', " "))
        })?;
        let (span, table) = (table.span(), table.into_inner());
        let what = String::new();
        let mut k = Keys { file: name, text, table: &table, span, what, taken: vec![] };
        // What else is there is another version's business.
        let (v, at) = k.needed("version")?;
        if integer(v) != Some(VERSION) {
            return Err(k.error(at, "version", VERSION, v));
        }
        let [model, target, level] = [k.text("model")?, k.text("target")?, k.text("level")?];
        let machine = k.text("machine")?;
        let threads = k.number("threads", 1..1025)? as u32;
        let list = k.maybe("choice");
        k.end()?;
        let mut choices: Vec<Measured> = vec![];
        if let Some((v, at)) = list {
            let Some(all) = v.as_array().filter(|a| a.len() <= MOST_CHOICES) else {
                let needed = format!("at most {MOST_CHOICES} tables [[choice]]");
                return Err(k.error(at, "choice", needed, v));
            };
            for (i, c) in all.iter().enumerate() {
                let Some(table) = c.get_ref().as_table() else {
                    return Err(k.error(c.span().start, "choice", "a table", c.get_ref()));
                };
                let what = format!("choice {}: ", i + 1);
                let (span, taken) = (c.span(), vec![]);
                let keys = Keys { file: name, text, table, span, what, taken };
                let one = choice(keys)?;
                if choices.iter().any(|c| c.choice.problem == one.choice.problem) {
                    let m = format!(
                        "choice {}: `problem`: needed one choice for each, present two for `{}`",
                        i + 1,
                        one.choice.problem
                    );
                    return Err(error(name, text, c.span().start, m));
                }
                choices.push(one);
            }
        }
        let hash = digest(Sha256::new().chain_update(text.as_bytes()));
        Ok(Tuning { model, target, level, machine, threads, choices, hash })
    }

    /// The file's text; the same choices give the same bytes.
    pub fn text(&self) -> String {
        let mut out = String::from(
            "# Measured by `silure tune`: an input of `silure compile --tuning`.\n\
             # What is not here is as the cost model decides.\n",
        );
        let quoted = |s: &str| {
            let plain = s.chars().filter(|c| !c.is_control());
            let short: String = plain.take(MOST_TEXT / 4).collect();
            toml::Value::String(short).to_string()
        };
        let mut line = |text: String| {
            out.push_str(&text);
            out.push('\n');
        };
        line(format!("version = {VERSION}"));
        // A hash is longer than what is cut here.
        line(format!("model = {}", toml::Value::String(self.model.clone())));
        line(format!("target = {}", quoted(&self.target)));
        line(format!("level = {}", quoted(&self.level)));
        line(format!("machine = {}", quoted(&self.machine)));
        line(format!("threads = {}", self.threads));
        let mut all: Vec<_> = self.choices.iter().collect();
        all.sort_by_cached_key(|m| m.choice.problem.to_string());
        for Measured { choice, gain } in all {
            let mut text = format!("\n[[choice]]\nproblem = \"{}\"\n", choice.problem);
            for (name, v) in Schedule::NAMES.iter().zip(choice.schedule.numbers()) {
                if v != 0 {
                    let _ = writeln!(text, "{name} = {v}");
                }
            }
            let _ = write!(text, "gain = [{:.3}, {:.3}, {:.3}]", gain[0], gain[1], gain[2]);
            line(text);
        }
        out
    }

    /// The choices alone.
    pub fn choices(&self) -> Vec<Choice> {
        self.choices.iter().map(|m| m.choice.clone()).collect()
    }

    /// What the user should know about a compilation with this file.
    pub fn notes(&self, done: &Applied, model: &str, targets: &[String]) -> Vec<String> {
        let Applied { launches, taken, at_sizes, unused, .. } = done;
        let mut out = vec![format!(
            "tuning: {taken} of {launches} launches that can be tuned take a choice{}; measured with kernels for {} on {} \
             with {} threads",
            match at_sizes {
                0 => String::new(),
                n => format!(", {n} more where the run has the sizes that were measured"),
            },
            self.level,
            self.machine,
            self.threads
        )];
        if !targets.contains(&self.target) {
            let now = targets.join(", ");
            let was = &self.target;
            out.push(format!(
                "tuning: the choices were measured for {was}, this engine is for {now}"
            ));
        }
        if self.model != model {
            let m = "tuning: the choices were measured on another model; they are taken where problems are the same";
            out.push(m.into());
        }
        if let [first, ..] = unused[..] {
            let p = &self.choices[first].choice.problem;
            let n = unused.len();
            out.push(format!(
                "tuning: {n} choices are for problems that the model does not have: `{p}`{}",
                if n > 1 { ", …" } else { "" }
            ));
        }
        out
    }
}

fn choice(mut k: Keys) -> Result<Measured> {
    let (v, at) = k.needed("problem")?;
    let Some(text) = v.as_str() else { return Err(k.error(at, "problem", "a text", v)) };
    let problem = Problem::parse(text)
        .map_err(|e| error(k.file, k.text, at, format!("{}`problem`: {e}", k.what)))?;
    let mut numbers = [0; 4];
    for (name, n) in Schedule::NAMES.into_iter().zip(&mut numbers) {
        if let Some((v, at)) = k.maybe(name) {
            let read = integer(v).and_then(|v| usize::try_from(v).ok());
            let needed = "a whole number that is not negative";
            *n = read.ok_or_else(|| k.error(at, name, needed, v))?;
            let one: [usize; 4] =
                std::array::from_fn(|i| if Schedule::NAMES[i] == name { *n } else { 0 });
            if let Some(reason) = problem.refusal(&Schedule::of(one)) {
                let m = format!("{}{reason} (kernel {})", k.what, problem.kernel());
                return Err(error(k.file, k.text, at, m));
            }
        }
    }
    let (v, at) = k.needed("gain")?;
    let three = |v: &DeValue| -> Option<[f64; 3]> {
        let all = v.as_array()?.iter().map(|v| v.get_ref().as_float()?.as_str().parse().ok());
        all.collect::<Option<Vec<f64>>>()?.try_into().ok()
    };
    let gain = three(v).filter(|g| g[0] > 0.0 && g[0] <= g[1] && g[1] <= g[2] && g[2] < 1e6);
    let needed = "three floats, ascending and above 0";
    let gain = gain.ok_or_else(|| k.error(at, "gain", needed, v))?;
    k.end()?;
    Ok(Measured { choice: Choice { problem, schedule: Schedule::of(numbers) }, gain })
}

#[cfg(test)]
mod tests;
