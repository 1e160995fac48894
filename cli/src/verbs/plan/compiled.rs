//! The model in every recipe, compiled, and what each needs.

use std::path::Path;

use silure::ir::Elem;
use silure::{Compiled, Compiler};
use silure_plan::estimate::Work;
use silure_plan::need::{Model, Need, Use};

use super::{Args, Wanted};
use crate::failure::{Failure, Result};
use crate::model::{self, CompileArgs, Width};
use crate::report::Report;

/// Most new tokens of a step, as importers have it.
const CHUNK: u64 = 512;

/// Rows of a page of the cache, as importers have it.
const PAGE: u64 = 64;

/// A model in its recipes.
pub struct Subject {
    /// Elements of all tensors, those of experts that are chosen from, and those of one token.
    pub parameters: Option<silure::hf::Parameters>,
    /// Type of the cache; none without one.
    pub cache: Option<Elem>,
    /// It has a prompt and tokens.
    pub language: bool,
    pub recipes: Vec<Recipe>,
}

/// One way to keep the weights.
pub struct Recipe {
    /// `as stored (bf16)`, `int4 by 32`.
    pub name: String,
    /// Bytes by element type, the most first.
    pub types: Vec<(Elem, u64)>,
    /// The weights of products are narrower than 32 bits.
    pub narrow: bool,
    pub cases: Vec<Case>,
}

/// A recipe at one context and batch.
pub struct Case {
    /// None where the model has no sequences.
    pub context: Option<u64>,
    pub batch: u64,
    pub need: Need,
    /// Bytes of the cache for one token of one sequence.
    pub per_token: u64,
    /// Until the first token.
    pub first: Option<Work>,
    /// One step: a token of every sequence, or a run.
    pub step: Work,
    /// Launches whose sizes only a run knows.
    pub unknown: usize,
}

impl Case {
    /// ` at context 4096, batch 1`.
    pub fn name(&self) -> String {
        let context = self.context.map_or(String::new(), |c| format!(" context {c},"));
        format!(" at{context} batch {}", self.batch)
    }
}

/// The recipes that are asked for, by what compilation they are.
fn wanted(a: &Args) -> Vec<(Wanted, Option<Width>)> {
    let all = a.precision.contains(&Wanted::All);
    let has = |w: Wanted| all || a.precision.contains(&w);
    let mut out = vec![];
    // What is stored in 8-bit floats stays so: both names are the model as it is.
    if has(Wanted::F32) || has(Wanted::Fp8) {
        out.push((Wanted::F32, None));
    }
    let rest =
        [(Wanted::Bf16, Width::Bf16), (Wanted::Int8, Width::Int8), (Wanted::Int4, Width::Int4)];
    out.extend(rest.into_iter().filter(|r| has(r.0)).map(|(w, t)| (w, Some(t))));
    out
}

impl Subject {
    /// Compiles the model in all recipes.
    pub fn compile(c: &Compiler, a: &Args, report: &mut Report) -> Result<Subject> {
        let mut args = a.compile();
        let language = silure::hf::is_model(&a.model);
        if language {
            args.meta = is_bare(&a.model);
            if args.meta && a.model.is_dir() {
                report.info("there are no weights in the directory: planned from config.json");
            }
            args.context = a.context.iter().max().map(|n| *n as usize);
            args.sequences = a.batch.iter().max().map(|n| (*n as usize).max(16));
        } else if !a.context.is_empty() {
            return Err(Failure::usage("--context applies to language models"));
        }
        let (parameters, cache, recipes) = (None, None, vec![]);
        let mut subject = Subject { parameters, cache, language: false, recipes };
        let recipes = wanted(a);
        report.start(recipes.len() as u64);
        let mut seen: Vec<Vec<(Elem, u64)>> = vec![];
        for (i, (wanted, width)) in recipes.into_iter().enumerate() {
            report.step(&format!("{wanted:?}").to_lowercase());
            args.precision = width;
            let mut loaded = read(c, a, &args, report, i == 0)?;
            if i == 0 && loaded.options.iter().any(|o| o.0 == "language.page") {
                // The engine is one that admits every case: its cache has rows for the largest.
                let most = a.context.iter().max().zip(a.batch.iter().max());
                let pages = most.map(|(c, b)| c.div_ceil(PAGE).saturating_mul(*b));
                args.pages = pages.map(|n| n as usize);
                loaded = read(c, a, &args, report, false)?;
            }
            subject.parameters = loaded.parameters;
            let says = loaded.options.clone();
            let options = args.options()?;
            let compiled = c.compile(loaded, &options)?;
            let types = types(&compiled)?;
            let stored = width.is_none();
            let fp8 = types.iter().any(|t| t.0 == Elem::E4m3fn);
            let only = |w: Wanted| a.precision == [w];
            if stored && only(Wanted::Fp8) && !fp8 {
                let m = "--precision fp8: the model has no 8-bit floats, and nothing makes them of other types";
                return Err(Failure::unsupported(m));
            }
            // A recipe that changes nothing is said once.
            if seen.contains(&types) {
                continue;
            }
            seen.push(types.clone());
            let name = match (width, options.precision) {
                (Some(_), Some(p)) => p.to_string(),
                _ => format!("as stored ({})", types.first().map_or("none", |t| t.0.name())),
            };
            let all: u64 = types.iter().map(|t| t.1).sum();
            let wide = types.iter().filter(|t| t.0.bits() >= 32).map(|t| t.1).sum::<u64>();
            // Tables may stay wide where a recipe narrows the products.
            let narrow = width.is_some() || wide * 2 < all;
            let mut recipe = Recipe { name, types, narrow, cases: vec![] };
            recipe.cases = cases(a, &compiled, &says, subject.parameters)?;
            subject.cache = compiled.encoded.plan.states.first().map(|s| s.elem);
            subject.language = recipe.cases.iter().any(|c| c.first.is_some());
            subject.recipes.push(recipe);
        }
        report.finish();
        Ok(subject)
    }
}

/// Whether the weights must be taken from the configuration.
fn is_bare(path: &Path) -> bool {
    let weights = ["model.safetensors", "model.safetensors.index.json"];
    match path.is_dir() {
        true => !weights.iter().any(|w| path.join(w).symlink_metadata().is_ok()),
        false => path.extension().is_some_and(|e| e == "json"),
    }
}

/// Reads the model; notes are said once.
fn read(
    c: &Compiler,
    a: &Args,
    args: &CompileArgs,
    report: &Report,
    say: bool,
) -> Result<silure::Loaded> {
    if model::is_engine(&a.model)? {
        let m = "is an engine; plan takes the model it was made of";
        return Err(Failure::usage(format!("{} {m}", a.model.display())));
    }
    if say {
        return model::load(c, &a.model, args, report);
    }
    let again = match silure::hf::is_model(&a.model) {
        true => c.load_directory(&a.model, &args.directory()),
        false => c.load(&a.model, &args.import()?),
    };
    Ok(again?)
}

/// Bytes of the plan's weights by type, the most first.
fn types(compiled: &Compiled) -> Result<Vec<(Elem, u64)>> {
    let mut out: Vec<(Elem, u64)> = vec![];
    let plan = &compiled.encoded.plan;
    for (name, w) in compiled.encoded.weights.iter().zip(&plan.weights) {
        let Some(weight) = compiled.module.weight(name) else {
            return Err(Failure::new(silure::Exit::Failure, format!("no weight @{name}")));
        };
        match out.iter_mut().find(|t| t.0 == weight.ty.elem) {
            Some(t) => t.1 += w.bytes,
            None => out.push((weight.ty.elem, w.bytes)),
        }
    }
    out.sort_by_key(|t| (std::cmp::Reverse(t.1), t.0.name()));
    Ok(out)
}

fn cases(
    a: &Args,
    compiled: &Compiled,
    says: &[(String, String)],
    parameters: Option<silure::hf::Parameters>,
) -> Result<Vec<Case>> {
    let plan = &compiled.encoded.plan;
    let code = compiled.objects.first().map_or(0, |o| o.1.bytes.len() as u64);
    let chosen = match parameters {
        Some(p) if p.routed > 0 => (p.active + p.routed - p.total) as f64 / p.routed as f64,
        _ => 1.0,
    };
    let model = Model { plan, code, chosen };
    let said = |name: &str| {
        let found = says.iter().find(|s| s.0 == name);
        found.and_then(|s| s.1.parse::<u64>().ok())
    };
    let wrong = |e: silure_plan::run::Error| match e {
        silure_plan::run::Error::Missing { ref symbol, .. } => {
            Failure::usage(format!("{e}: --size {symbol}=N"))
        }
        e => Failure::usage(e.to_string()),
    };
    let mut out = vec![];
    if !model.is_language() {
        let entry = plan.entries.first().map_or("", |e| plan.str(e.name));
        let given = a.given();
        let first = plan.entries.first().and_then(|e| {
            let axes = e.inputs.iter().filter_map(|p| p.dims.first()?.symbol).next()?;
            e.symbols.get(axes as usize).map(|s| plan.str(*s).to_string())
        });
        // Sequences of an encoder are as long as the context.
        let lengths: Vec<Option<u64>> = match a.context.is_empty() {
            true => vec![None],
            false => a.context.iter().map(|n| Some(*n)).collect(),
        };
        for (context, batch) in lengths.iter().flat_map(|l| a.batch.iter().map(move |b| (*l, *b))) {
            let size = |name: &str| {
                let batched = first.as_deref() == Some(name);
                let length = context.filter(|_| name == "s");
                given.get(name).copied().or(batched.then_some(batch)).or(length)
            };
            let (need, step, r) = model.other(entry, &size, a.threads).map_err(wrong)?;
            let (per_token, first) = (0, None);
            out.push(Case { context, batch, need, per_token, first, step, unknown: r.unknown });
        }
        return Ok(out);
    }
    let made = said("language.context").unwrap_or(1);
    let contexts = if a.context.is_empty() { vec![made] } else { a.context.clone() };
    for &context in &contexts {
        for &batch in &a.batch {
            let page = said("language.page").unwrap_or(1);
            let (prompt, chunk, threads) = (a.prompt.min(context), CHUNK, a.threads);
            let u = Use { context, batch, prompt, chunk, page, threads };
            let l = model.language(&u).map_err(wrong)?;
            let (first, per_token) = (Some(l.first), l.per_token);
            let (need, step, unknown) = (l.need, l.step, l.unknown);
            let context = Some(context);
            out.push(Case { context, batch, need, per_token, first, step, unknown });
        }
    }
    Ok(out)
}
