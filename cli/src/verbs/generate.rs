//! `generate`: text from a language model: an engine, or what the compiler makes one of.
//!
//! Stdout is the text (with `--score` the score) and nothing else; everything that is said about it goes to stderr.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use silure_engine::plan::{BufKind, Inst, KernelRef, Plan};
use silure_generate::{
    Assets, Decoder, End, Event, Message, Model, Request, Scheduler, Settings, StopStrings, Stream,
    Tokenizer,
};
use silure_runtime::{Engine, Pool, SessionOptions, Tensor, limits, npy};

use crate::device::DeviceArgs;
use crate::evaluate;
use crate::failure::{Failure, Result};
use crate::model::{self, CompileArgs};
use crate::report::{Report, bytes, seconds};

/// Options.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Without options of sampling the model's own generation_config.json decides; with \
                  --prompt-ids, and where there is none, the most probable token is taken. \
                  Drawing starts at --seed, 0 if it is not given."
)]
pub struct Args {
    /// An engine, a directory of Hugging Face, a .gguf file or text IR
    pub file: PathBuf,
    /// Text to continue
    #[arg(long, group = "what")]
    pub prompt: Option<String>,
    /// A user's message to answer, in the model's chat template
    #[arg(long, group = "what")]
    pub chat: Option<String>,
    /// A file whose text is continued
    #[arg(long = "file", value_name = "FILE", group = "what")]
    pub text: Option<PathBuf>,
    /// Tokens to continue (integers, one axis, or one row)
    #[arg(long, value_name = "F.npy", group = "what")]
    pub prompt_ids: Option<PathBuf>,
    /// Say how well the model foretells a text (or tokens, F.npy): the perplexity, over windows that overlap
    #[arg(long, value_name = "FILE", group = "what")]
    pub score: Option<PathBuf>,
    /// Tokens of a window (default: the context, at most 1024)
    #[arg(long, value_name = "N", requires = "score")]
    pub window: Option<usize>,
    /// Tokens from one window to the next, less than a window (default: half a window)
    #[arg(long, value_name = "N", requires = "score")]
    pub stride: Option<usize>,
    /// Print the score as JSON
    #[arg(long, requires = "score")]
    pub json: bool,
    /// What the system says before the user
    #[arg(long, requires = "chat")]
    pub system: Option<String>,
    /// Most tokens to generate (default: what generation_config.json says, else 256)
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// Logits are divided by it; 0 takes the most probable token
    #[arg(long)]
    pub temperature: Option<f64>,
    /// Draw from the most probable tokens, that many
    #[arg(long)]
    pub top_k: Option<usize>,
    /// Draw from the most probable tokens that together have this probability
    #[arg(long)]
    pub top_p: Option<f64>,
    /// Draw from tokens at least this share as probable as the most probable one
    #[arg(long)]
    pub min_p: Option<f64>,
    /// Logits of tokens that occurred are divided by it, negative ones multiplied
    #[arg(long)]
    pub repetition_penalty: Option<f64>,
    /// End before this text (repeat)
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Go on behind the tokens that end a text
    #[arg(long)]
    pub ignore_eos: bool,
    /// Threads (default: one per processor)
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Tokens of the prompt that are computed at once
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub chunk: usize,
    /// Refuse to hold more bytes than this
    #[arg(long, value_name = "BYTES")]
    pub memory: Option<u64>,
    /// Say times and rates, beside what this machine can do
    #[arg(long)]
    pub stats: bool,
    /// Write the logits of the prompt's tokens, f32 [tokens, vocabulary]
    #[arg(long, value_name = "F.npy")]
    pub dump_logits: Option<PathBuf>,
    /// Write the generated tokens, i64 [tokens]
    #[arg(long, value_name = "F.npy")]
    pub dump_tokens: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub compile: CompileArgs,
}

impl From<silure_generate::Error> for Failure {
    fn from(e: silure_generate::Error) -> Failure {
        match e {
            silure_generate::Error::Runtime(e) => e.into(),
            e => Failure::new(silure::Exit::Failure, e.to_string()),
        }
    }
}

/// See the module documentation.
pub fn run(a: &Args, report: &mut Report) -> Result<()> {
    let given = [a.prompt.is_some(), a.chat.is_some(), a.text.is_some(), a.prompt_ids.is_some()];
    if !given.contains(&true) && a.score.is_none() {
        let m = "say what to continue: --prompt, --chat, --file or --prompt-ids; or --score a text";
        return Err(Failure::usage(m));
    }
    if let Some(f) = a.text.iter().chain(&a.prompt_ids).chain(&a.score).next() {
        // Before the model is compiled, which may take longer.
        std::fs::metadata(f).map_err(|e| Failure::io(f, e))?;
    }
    // The seed is that of drawing; language models have no random operators.
    let mut compile = CompileArgs { seed: None, ..a.compile.clone() };
    // Logits stay on the device; only of a prompt's last token they come to the host.
    compile.sample |=
        a.device.device.is_some() && a.score.is_none() && silure::hf::is_model(&a.file);
    let engine = model::engine(&a.file, &compile, &a.device.open(report)?, report)?;
    let assets = Assets::of(&engine);
    let tokenizer = assets.tokenizer()?;
    if let Some(text) = &a.score {
        return score(a, &engine, &evaluate::tokens(text, tokenizer.as_ref())?, report);
    }
    let settings = settings(a, assets.settings(tokenizer.as_ref())?);
    let prompt = prompt(a, &assets, tokenizer.as_ref())?;
    if !settings.greedy() {
        report.info(&format!(
            "sampling: temperature {}, top-k {}, top-p {}, min-p {}, repetition penalty {}, seed {}",
            settings.temperature,
            settings.top_k.map_or("off".into(), |k| k.to_string()),
            settings.top_p,
            settings.min_p,
            settings.repetition_penalty,
            settings.seed
        ));
    }
    let threads = super::run::threads(a.threads);
    let pool = Arc::new(Pool::new(threads));
    let options = SessionOptions { pool: Some(pool.clone()), memory_limit: a.memory };
    let began = Instant::now();
    let model = Model::new(&engine, options)?;
    if a.device.device.is_some() && !model.draws() {
        report.info("tokens are drawn on the host: the engine's `decode` gives logits (--sample makes one that draws)");
    }
    let mut scheduler = Scheduler::new(model, a.chunk);
    let most = a.max_new_tokens.or(settings.max_new_tokens).unwrap_or(256);
    let request = Request {
        prompt: prompt.clone(),
        settings,
        max_new_tokens: most,
        ignore_stop: a.ignore_eos,
        prompt_logits: a.dump_logits.is_some(),
    };
    scheduler.add(request)?;
    let mut text = Text::new(tokenizer.as_ref(), &prompt, &a.stop)?;
    let (mut tokens, mut logits, mut times) = (vec![], vec![], vec![]);
    let mut end = None;
    while !scheduler.idle() && end.is_none() {
        for event in scheduler.step()? {
            match event {
                Event::Logits(_, rows) => logits.extend(rows),
                Event::Token(_, token) => {
                    times.push(began.elapsed().as_secs_f64());
                    tokens.push(token);
                    if text.push(token)? {
                        end = Some("a stop string".to_string());
                        break;
                    }
                }
                Event::End(_, e) => end = Some(why(e, most, scheduler.context())),
            }
        }
    }
    text.finish()?;
    report.detail(&format!(
        "{} tokens behind {}; ended at {}",
        tokens.len(),
        prompt.len(),
        end.as_deref().unwrap_or("the end")
    ));
    // A text that is cut off is no result of the model: the user is told.
    if let Some(end) = end.filter(|e| e.starts_with("the ")) {
        report.warn(&format!("the text ends at {end}"));
    }
    if let Some(path) = &a.dump_logits {
        let rows = prompt.len();
        npy::write(path, &Tensor::f32(&[rows, logits.len() / rows.max(1)], &logits)?)?;
    }
    if let Some(path) = &a.dump_tokens {
        let ids: Vec<i64> = tokens.iter().map(|t| *t as i64).collect();
        npy::write(path, &Tensor::i64(&[ids.len()], &ids)?)?;
    }
    if a.stats {
        stats(&engine, &pool, prompt.len(), &times, report)?;
    }
    Ok(())
}

/// The perplexity of a text.
fn score(a: &Args, engine: &Arc<Engine>, tokens: &[u32], report: &mut Report) -> Result<()> {
    let pool = Arc::new(Pool::new(super::run::threads(a.threads)));
    let options = SessionOptions { pool: Some(pool), memory_limit: a.memory };
    let mut model = Model::new(engine, options)?;
    let cut = evaluate::windows(&model, a.window, a.stride);
    let s = silure_generate::score(&mut model, tokens, cut)?;
    if a.json {
        return report.value(&json!({
            "tokens": s.tokens, "nll": s.nll, "perplexity": s.perplexity(),
            "window": cut.window, "stride": cut.stride,
        }));
    }
    report.line(&format!(
        "perplexity {:.4}, {:.6} nats a token over {} tokens (windows of {}, {} apart)",
        s.perplexity(),
        s.nll,
        s.tokens,
        cut.window,
        cut.stride
    ))
}

/// Why the text ended. What begins with "the " cut it off.
fn why(end: End, most: usize, context: usize) -> String {
    match end {
        End::Stop(token) => format!("token {token}"),
        End::Length => format!("{most} new tokens (--max-new-tokens)"),
        End::Context => format!("the end of the model's context of {context} tokens"),
        End::Cache => "the end of the cache (option language.pages)".into(),
    }
}

/// The model's settings with what the user says.
fn settings(a: &Args, model: Settings) -> Settings {
    let asked =
        a.temperature.is_some() || a.top_k.is_some() || a.top_p.is_some() || a.min_p.is_some();
    // Scripts compare tokens: what they do not ask for is not drawn.
    let mut s = match a.prompt_ids.is_some() {
        true => Settings { stop: model.stop, ..Settings::default() },
        false => model,
    };
    if asked && s.greedy() {
        s.temperature = 1.0;
    }
    s.temperature = a.temperature.unwrap_or(s.temperature);
    s.top_k = a.top_k.or(s.top_k);
    s.top_p = a.top_p.unwrap_or(s.top_p);
    s.min_p = a.min_p.unwrap_or(s.min_p);
    s.repetition_penalty = a.repetition_penalty.unwrap_or(s.repetition_penalty);
    s.seed = a.compile.seed.unwrap_or(0);
    s
}

/// The prompt's tokens.
fn prompt(a: &Args, assets: &Assets<'_>, tokenizer: Option<&Tokenizer>) -> Result<Vec<u32>> {
    if let Some(path) = &a.prompt_ids {
        return evaluate::ids(path);
    }
    let missing = |what: &str| {
        let m = format!("{}: no {what} came with this model", a.file.display());
        Failure::usage(format!("{m}; --prompt-ids takes token numbers"))
    };
    let tokenizer = tokenizer.ok_or_else(|| missing("tokenizer"))?;
    if let Some(user) = &a.chat {
        let template = assets.template()?.ok_or_else(|| missing("chat template"))?;
        let message =
            |role: &str, content: &str| Message { role: role.into(), content: content.into() };
        let mut messages: Vec<Message> = a.system.iter().map(|s| message("system", s)).collect();
        messages.push(message("user", user));
        return Ok(tokenizer.encode(&template.render(&messages, true)?, false)?);
    }
    let text = match (&a.prompt, &a.text) {
        (Some(p), _) => p.clone(),
        (_, Some(path)) => std::fs::read_to_string(path).map_err(|e| Failure::io(path, e))?,
        _ => String::new(),
    };
    Ok(tokenizer.encode(&text, true)?)
}

/// Text on stdout as it comes.
struct Text<'t> {
    stream: Option<Stream<'t>>,
    stops: StopStrings,
}

impl<'t> Text<'t> {
    fn new(tokenizer: Option<&'t Tokenizer>, prompt: &[u32], stops: &[String]) -> Result<Text<'t>> {
        let stream = tokenizer.map(|t| Stream::behind(t, prompt)).transpose()?;
        Ok(Text { stream, stops: StopStrings::new(stops) })
    }

    /// Adds a token; whether a stop string was met.
    fn push(&mut self, token: u32) -> Result<bool> {
        let Some(stream) = &mut self.stream else { return Ok(false) };
        let (text, stopped) = self.stops.push(&stream.push(token)?);
        write(&text)?;
        Ok(stopped)
    }

    fn finish(&mut self) -> Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let (text, stopped) = self.stops.push(&stream.finish()?);
        let rest = if stopped { String::new() } else { self.stops.finish() };
        write(&format!("{text}{rest}\n"))
    }
}

fn write(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(|e| Failure::io("stdout".as_ref(), e)),
    }
}

/// Bytes of the weights that a step of `decode` reads at most; tables that rows are taken from count as
/// nothing.
fn weights_per_step(plan: &Plan) -> u64 {
    let Some(entry) = plan.entry("decode").map(|i| &plan.entries[i]) else { return 0 };
    let mut read = std::collections::BTreeSet::new();
    for op in &entry.code {
        let Inst::Launch(l) = &op.inst else { continue };
        if let KernelRef::Builtin(k) = l.kernel
            && plan.str(plan.kernels[k as usize]).starts_with("gather")
        {
            continue;
        }
        for b in l.buffers() {
            if let BufKind::Weight(w) = entry.buffers[b.0 as usize].kind {
                read.insert(w);
            }
        }
    }
    read.iter().filter_map(|w| plan.weights.get(*w as usize)).map(|w| w.bytes).sum()
}

fn stats(
    engine: &Engine,
    pool: &Pool,
    prompt: usize,
    times: &[f64],
    report: &Report,
) -> Result<()> {
    let [first, .., last] = times else {
        report.info("no rates: fewer than two tokens were generated");
        return Ok(());
    };
    let per_token = (last - first) / (times.len() - 1) as f64;
    let weights = weights_per_step(engine.plan());
    // Larger than every cache, as the weights are.
    let limits = limits::measure(pool, &[128 << 20])?;
    let rate = weights as f64 / per_token / 1e9;
    report.info(&format!(
        "first token after {} ({prompt} tokens of prompt, {:.1} tokens/s)",
        seconds(*first),
        prompt as f64 / first
    ));
    report.info(&format!(
        "{} tokens, {:.2} tokens/s, {} a token",
        times.len(),
        1.0 / per_token,
        seconds(per_token)
    ));
    report.info(&format!(
        "{} of weights a token at most: {rate:.2} GB/s, {:.0} % of the {:.2} GB/s measured now on {} threads",
        bytes(weights),
        rate / limits.memory() * 100.0,
        limits.memory(),
        limits.threads
    ));
    Ok(())
}
