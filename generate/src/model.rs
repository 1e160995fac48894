//! The two entries of a language model, checked and run.

use crate::error::{Error, Result};
use silure_engine::plan::{Port, PortKind};
use silure_runtime::sample::SETTINGS;
use silure_runtime::{Engine, RunOptions, Session, SessionOptions, Tensor, TensorRef};
use silure_types::Elem;
use std::sync::Arc;

/// One step over several sequences; see docs/language-models.md.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// New tokens of all sequences, one sequence after the other.
    pub tokens: Vec<i64>,
    /// Place of each in its sequence.
    pub positions: Vec<i64>,
    /// Row of the cache of each.
    pub slots: Vec<i64>,
    /// Length of each sequence, its new tokens counted.
    pub lengths: Vec<i64>,
    /// Pages of each sequence, `width` numbers each.
    pub pages: Vec<i64>,
    /// Where the new tokens of each sequence end in `tokens`.
    pub ends: Vec<i64>,
    /// Tokens whose logits are wanted, as indices into `tokens`.
    pub rows: Vec<i64>,
    /// Columns of `pages`.
    pub width: usize,
}

/// How the next tokens of a `decode` are drawn; see docs/language-models.md.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draws {
    /// Six numbers for each sequence ([`Row::numbers`](silure_runtime::sample::Row::numbers)).
    pub settings: Vec<f64>,
    /// Bits of the tokens that are penalised, `words` for each sequence.
    pub seen: Vec<i32>,
    /// Words of a row of `seen`.
    pub words: usize,
}

/// What a decoder can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows of a page.
    pub page: usize,
    /// Pages of the cache.
    pub pages: u32,
    /// Tokens of the longest sequence.
    pub context: usize,
    /// Logits of a token.
    pub vocab: usize,
    /// New tokens of a `prefill`.
    pub tokens: usize,
    /// Sequences of a step.
    pub sequences: usize,
    /// Pages of a sequence.
    pub width: usize,
}

/// Runs steps: an engine, or something like one.
pub trait Decoder {
    /// What it can take.
    fn limits(&self) -> Limits;
    /// One step of any number of tokens per sequence; gives `rows × vocab` logits.
    fn prefill(&mut self, batch: &Batch) -> Result<Vec<f32>>;
    /// One step of one token per sequence; gives `tokens × vocab` logits.
    fn decode(&mut self, batch: &Batch) -> Result<Vec<f32>>;
    /// Whether it draws tokens itself: then [`Decoder::draw`] takes the place of `decode`.
    fn draws(&self) -> bool {
        false
    }
    /// One step of one token per sequence; gives the next token of each, −1 where logits have none.
    fn draw(&mut self, _: &Batch, _: &Draws) -> Result<Vec<i64>> {
        Err(Error::field("decode", "a decoder that draws tokens", "one that gives logits"))
    }
    /// Copies the rows of a page of every cache.
    fn copy_page(&mut self, from: u32, to: u32) -> Result<()>;
}

/// The inputs: of a `decode` the first five, of one that draws the next two, of `prefill` the last two.
const INPUTS: [&str; 9] =
    ["tokens", "positions", "slots", "lengths", "pages", "settings", "seen", "ends", "rows"];
const STEP: [usize; 5] = [0, 1, 2, 3, 4];
const DRAWN: [usize; 7] = [0, 1, 2, 3, 4, 5, 6];
const PREFILL: [usize; 7] = [0, 1, 2, 3, 4, 7, 8];

/// An engine with the entries `prefill` and `decode`.
pub struct Model {
    session: Session,
    prefill: Entry,
    decode: Entry,
    limits: Limits,
    caches: Vec<String>,
    options: RunOptions,
}

/// An entry, and which of [`INPUTS`] each of its inputs is.
struct Entry {
    index: usize,
    name: &'static str,
    order: Vec<usize>,
    /// It gives tokens, not logits.
    draws: bool,
}

impl Model {
    /// Checks an engine's entries, options and states.
    pub fn new(engine: &Arc<Engine>, options: SessionOptions) -> Result<Model> {
        let option = |name: &str| {
            let value = engine.manifest().options.get(name);
            let value = value.ok_or_else(|| {
                let needed = "set by the importer of a language model";
                Error::field(format!("option {name}"), needed, "nothing")
            })?;
            value.parse::<u32>().ok().filter(|n| *n > 0 && *n <= 1 << 30).ok_or_else(|| {
                Error::field(format!("option {name}"), "a number from 1 to 2³⁰", value)
            })
        };
        let (page, pages) = (option("language.page")? as usize, option("language.pages")?);
        let (context, vocab) =
            (option("language.context")? as usize, option("language.vocab")? as usize);
        let prefill = Entry::find(engine, "prefill", &PREFILL, vocab)?;
        let decode = match draws(engine) {
            true => Entry::find(engine, "decode", &DRAWN, vocab)?,
            false => Entry::find(engine, "decode", &STEP, vocab)?,
        };
        let most = |e: &Entry, input: &str, axis: usize| e.extent(engine, input, axis).1 as usize;
        let limits = Limits {
            page,
            pages,
            context,
            vocab,
            tokens: most(&prefill, "tokens", 0).min(most(&prefill, "rows", 0)),
            sequences: [
                most(&prefill, "lengths", 0),
                most(&prefill, "pages", 0),
                most(&prefill, "ends", 0),
                most(&decode, "lengths", 0),
                most(&decode, "tokens", 0),
            ]
            .into_iter()
            .min()
            .unwrap_or(0),
            width: most(&prefill, "pages", 1).min(most(&decode, "pages", 1)),
        };
        let caches = caches(engine, page as u64 * pages as u64)?;
        let session = Session::with(engine, options)?;
        let options = RunOptions::default();
        Ok(Model { session, prefill, decode, limits, caches, options })
    }

    /// The session, for its profile and memory.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// How entries are run: timeout, cancelling, profile.
    pub fn options(&mut self) -> &mut RunOptions {
        &mut self.options
    }

    /// Runs an entry; gives its result, which must have so many elements.
    fn run(&mut self, decode: bool, batch: &Batch, draws: &Draws, count: usize) -> Result<Tensor> {
        let entry = if decode { &self.decode } else { &self.prefill };
        let (lengths, pages) = (batch.lengths.len(), [batch.lengths.len(), batch.width]);
        let (settings, seen) = ([lengths, SETTINGS], [lengths, draws.words]);
        let all: [(Elem, &[u8], &[usize]); 9] = [
            (Elem::I64, bytes_of(&batch.tokens), &[batch.tokens.len()]),
            (Elem::I64, bytes_of(&batch.positions), &[batch.positions.len()]),
            (Elem::I64, bytes_of(&batch.slots), &[batch.slots.len()]),
            (Elem::I64, bytes_of(&batch.lengths), &[lengths]),
            (Elem::I64, bytes_of(&batch.pages), &pages),
            (Elem::F64, bytes_of(&draws.settings), &settings),
            (Elem::I32, bytes_of(&draws.seen), &seen),
            (Elem::I64, bytes_of(&batch.ends), &[batch.ends.len()]),
            (Elem::I64, bytes_of(&batch.rows), &[batch.rows.len()]),
        ];
        let inputs: Vec<TensorRef<'_>> = entry
            .order
            .iter()
            .map(|i| {
                let (elem, bytes, shape) = all[*i];
                TensorRef { elem, shape, bytes, strings: None }
            })
            .collect();
        let mut out = self.session.run_with(entry.index, &inputs, &self.options)?;
        let needed = count * if entry.draws { 8 } else { 4 };
        let present = out.first().map_or(0, |t| t.bytes().len());
        if present != needed {
            let place = format!("entry {}: result", entry.name);
            return Err(Error::field(place, format!("{needed} bytes"), present));
        }
        Ok(out.swap_remove(0))
    }

    fn logits(&mut self, decode: bool, batch: &Batch) -> Result<Vec<f32>> {
        if decode && self.decode.draws {
            return Err(Error::field(
                "decode",
                "an engine that gives logits",
                "one that draws tokens",
            ));
        }
        let rows = if decode { batch.tokens.len() } else { batch.rows.len() };
        let count = rows.saturating_mul(self.limits.vocab);
        let out = self.run(decode, batch, &Draws::default(), count)?;
        let word = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        Ok(out.bytes().chunks_exact(4).map(word).collect())
    }
}

/// A number of 4 or 8 bytes.
trait Number: Copy {}
impl Number for i64 {}
impl Number for i32 {}
impl Number for f64 {}

/// The bytes of numbers; the machine is little-endian, as engines are.
fn bytes_of<T: Number>(values: &[T]) -> &[u8] {
    const { assert!(cfg!(target_endian = "little")) };
    // SAFETY: every byte of a number is initialised, and the slice covers exactly these.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), std::mem::size_of_val(values)) }
}

impl Decoder for Model {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn prefill(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        self.logits(false, batch)
    }

    fn decode(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        self.logits(true, batch)
    }

    fn draws(&self) -> bool {
        self.decode.draws
    }

    fn draw(&mut self, batch: &Batch, draws: &Draws) -> Result<Vec<i64>> {
        let out = self.run(true, batch, draws, batch.tokens.len())?;
        let word = |b: &[u8]| i64::from_le_bytes(std::array::from_fn(|i| b[i]));
        Ok(out.bytes().chunks_exact(8).map(word).collect())
    }

    fn copy_page(&mut self, from: u32, to: u32) -> Result<()> {
        let page = self.limits.page;
        for name in &self.caches {
            self.session.copy_rows(name, from as usize * page, to as usize * page, page)?;
        }
        Ok(())
    }
}

impl Entry {
    /// Finds an entry and checks its inputs and output.
    fn find(engine: &Engine, name: &'static str, inputs: &[usize], vocab: usize) -> Result<Entry> {
        let plan = engine.plan();
        let Some(index) = plan.entry(name) else {
            let all: Vec<_> = plan.entries.iter().map(|e| plan.str(e.name)).collect();
            return Err(Error::field("engine", format!("an entry '{name}'"), all.join(", ")));
        };
        let e = &plan.entries[index];
        let needed: Vec<&str> = inputs.iter().map(|i| INPUTS[*i]).collect();
        let draws = needed.contains(&"settings");
        let present: Vec<&str> = e.inputs.iter().map(|p| plan.str(p.name)).collect();
        let place = |n: &str| format!("entry {name}: {n}");
        let order: Option<Vec<usize>> =
            present.iter().map(|n| inputs.iter().copied().find(|i| INPUTS[*i] == *n)).collect();
        let mut sorted = order.clone().unwrap_or_default();
        sorted.sort_unstable();
        sorted.dedup();
        let Some(order) =
            order.filter(|_| sorted.len() == inputs.len() && present.len() == inputs.len())
        else {
            return Err(Error::field(place("inputs"), needed.join(", "), present.join(", ")));
        };
        let check = |p: &Port, elem: Elem, rank: usize, needed: &str| {
            let ok = p.kind == PortKind::Tensor && p.elem == elem && p.dims.len() == rank;
            let port = plan.port_text(p);
            if ok { Ok(()) } else { Err(Error::field(place(plan.str(p.name)), needed, port)) }
        };
        for (p, i) in e.inputs.iter().zip(&order) {
            match INPUTS[*i] {
                "pages" => check(p, Elem::I64, 2, "i64 [b, p]")?,
                "settings" => check(p, Elem::F64, 2, "f64 [b, 6]")?,
                "seen" => check(p, Elem::I32, 2, "i32 [b, w]")?,
                _ => check(p, Elem::I64, 1, "i64 of one axis")?,
            }
        }
        let [logits] = &e.outputs[..] else {
            return Err(Error::field(place("outputs"), "logits or tokens alone", e.outputs.len()));
        };
        if draws {
            check(logits, Elem::I64, 1, "i64 [b]")?;
            return Ok(Entry { index, name, order, draws });
        }
        check(logits, Elem::F32, 2, "f32 [rows, vocab]")?;
        let d = &logits.dims[1];
        if (d.min, d.max) != (vocab as u64, vocab as u64) {
            let needed = format!("f32 [rows, {vocab}] (option language.vocab)");
            return Err(Error::field(place("logits"), needed, plan.port_text(logits)));
        }
        Ok(Entry { index, name, order, draws })
    }

    /// Bounds of an axis of an input.
    fn extent(&self, engine: &Engine, input: &str, axis: usize) -> (u64, u64) {
        let plan = engine.plan();
        let e = &plan.entries[self.index];
        let port = e.inputs.iter().find(|p| plan.str(p.name) == input);
        port.and_then(|p| p.dims.get(axis)).map_or((0, 0), |d| (d.min, d.max.min(1 << 40)))
    }
}

/// Whether the engine's `decode` says that it draws.
fn draws(engine: &Engine) -> bool {
    let plan = engine.plan();
    let inputs = plan.entry("decode").map(|i| &plan.entries[i].inputs);
    inputs.is_some_and(|all| all.iter().any(|p| plan.str(p.name) == "settings"))
}

/// The states of the cache; each must have the rows that the options say.
fn caches(engine: &Engine, rows: u64) -> Result<Vec<String>> {
    let plan = engine.plan();
    let mut names = vec![];
    for s in plan.states.iter().filter(|s| plan.str(s.name).starts_with("cache.")) {
        let name = plan.str(s.name);
        let present = s.dims.first().copied().unwrap_or(0);
        if present != rows {
            let needed = format!("{rows} rows (language.page · language.pages)");
            return Err(Error::field(format!("state {name}"), needed, present));
        }
        names.push(name.to_string());
    }
    Ok(names)
}
