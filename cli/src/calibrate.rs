//! `compile --calibration TEXT`: what a language model's products read over a text.
//!
//! The model as it is, with sums beside its products, is compiled for this machine and runs over the text; of very
//! wide models in turns, each with as many sums as [`SUMS`] holds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use silure::{Calibration, Compiler, Options, Precision};
use silure_generate::{Assets, Decoder, Model, feed};
use silure_runtime::{Device, Engine, Host, Pool, SessionOptions};

use crate::evaluate::{Passing, tokens};
use crate::failure::{Failure, Result};
use crate::model::CompileArgs;
use crate::report::Report;

/// Bytes of the sums of one turn; one that is larger is alone in its turn.
const SUMS: usize = 2 << 30;
/// The fewest tokens that say something.
const LEAST: usize = 256;
/// Tokens of a window, if the context has as many.
const WINDOW: usize = 2048;

/// Checks early what [`read`] needs.
pub fn check(
    source: &Path,
    args: &CompileArgs,
    text: &Path,
    other: Option<&Path>,
) -> Result<Option<String>> {
    if !silure::hf::is_model(source) {
        let m = "--calibration applies to language models: directories and .gguf files";
        return Err(Failure::usage(format!("{}: {m}", source.display())));
    }
    if args.meta {
        return Err(Failure::usage("--calibration needs the weights: not with --weights meta"));
    }
    if !matches!(args.options()?.precision, Some(Precision::Int4 { .. })) {
        return Err(Failure::usage("--calibration needs --precision int4"));
    }
    let read = |path: &Path| std::fs::read(path).map_err(|e| Failure::io(path, e));
    let bytes = read(text)?;
    if bytes.is_empty() {
        return Err(Failure::usage(format!("{}: the text is empty", text.display())));
    }
    let same = other.map(read).transpose()?.is_some_and(|o| o == bytes);
    let m =
        "--evaluate reads the text of --calibration: what it says of other texts is less than that";
    Ok(same.then(|| m.into()))
}

/// Runs the model over the text. A file beside `output` holds what is found.
pub fn read(
    c: &Compiler,
    source: &Path,
    args: &CompileArgs,
    output: &Path,
    text: &Path,
    report: &Report,
) -> Result<Read> {
    let here = CompileArgs { targets: vec![], ..args.clone() };
    let options =
        Options { precision: None, rounded_rows: false, tf32: false, ..here.options_here(report)? };
    let beside = |name: &str| {
        let mut path = output.as_os_str().to_owned();
        path.push(format!(".{}.{name}.tmp", std::process::id()));
        PathBuf::from(path)
    };
    let mut found = Calibration::new(&beside("calibration"))?;
    let all = Calibration::inputs(&c.load_directory(source, &args.directory())?.module);
    if all.is_empty() {
        let m = "no product of this model can be calibrated";
        return Err(Failure::unsupported(format!("{}: {m}", source.display())));
    }
    let pool = Arc::new(Pool::new(super::verbs::run::threads(None)));
    let (mut rest, mut count) = (&all[..], 0);
    while !rest.is_empty() {
        let mut bytes = 0usize;
        let fits = rest.iter().take_while(|i| {
            bytes = bytes.saturating_add(i.k.saturating_mul(i.k).saturating_mul(4));
            bytes <= SUMS
        });
        let (turn, later) = rest.split_at(fits.count().max(1));
        rest = later;
        let mut loaded = c.load_directory(source, &args.directory())?;
        Calibration::observed(&mut loaded, turn)?;
        let path = Passing(beside("observed"));
        c.compile(loaded, &options)?.write(&path.0)?;
        let engine = Engine::open(&path.0)?;
        let ids = tokens(text, Assets::of(&engine).tokenizer()?.as_ref())?;
        if ids.len() < LEAST {
            let m = format!("needed {LEAST} tokens or more to calibrate by, present {}", ids.len());
            return Err(Failure::usage(format!("{}: {m}", text.display())));
        }
        let session = SessionOptions { pool: Some(pool.clone()), memory_limit: None };
        let mut model = Model::new(&engine, session)?;
        let l = model.limits();
        let window = l.context.min(l.width * l.page).min(l.pages as usize * l.page).min(WINDOW);
        count = feed(&mut model, &ids, window)?;
        for i in turn {
            let bytes = model.session().state(&i.state)?;
            let sums: Vec<f32> =
                bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            found.add(i, &sums)?;
        }
    }
    let widest = all.iter().map(|i| i.k).max().unwrap_or(0);
    if count < widest {
        let m = "fewer than the inputs of its widest product";
        report.warn(&format!("{}: {count} tokens, {m}, {widest}", text.display()));
    }
    let bytes = std::fs::read(text).map_err(|e| Failure::io(text, e))?;
    let hex: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    let level = Host::detect().code_targets().first().map_or(String::new(), |l| l.to_string());
    let says = vec![
        ("precision.calibration".into(), format!("sha256:{hex}")),
        ("precision.calibration.tokens".into(), count.to_string()),
        ("precision.calibration.level".into(), level),
    ];
    Ok(Read { found, says })
}

/// What was found, and what the engine says of it.
pub struct Read {
    /// By this weights are rounded.
    pub found: Calibration,
    /// Options of the engine: the text's hash, its tokens, the level of the machine that ran it.
    pub says: Vec<(String, String)>,
}
