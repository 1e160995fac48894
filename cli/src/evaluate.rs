//! How well language models foretell a text: for `generate --score` and `compile --evaluate`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use silure::{Calibration, Compiler, Loaded, Options};
use silure_generate::{Assets, Comparison, Model, Tokenizer, Windows, compare};
use silure_runtime::{Engine, Pool, SessionOptions, npy};
use silure_types::Elem;

use crate::failure::{Failure, Result};
use crate::model::CompileArgs;
use crate::report::Report;

/// The tokens of a text, or of a .npy file of token numbers.
pub fn tokens(path: &Path, tokenizer: Option<&Tokenizer>) -> Result<Vec<u32>> {
    if path.extension().is_some_and(|e| e == "npy") {
        return ids(path);
    }
    let Some(tokenizer) = tokenizer else {
        let m = "no tokenizer came with this model; a .npy file of token numbers is needed";
        return Err(Failure::usage(format!("{}: {m}", path.display())));
    };
    let text = std::fs::read_to_string(path).map_err(|e| Failure::io(path, e))?;
    Ok(tokenizer.encode(&text, true)?)
}

/// Token numbers of a .npy file: integers of one axis, or one row.
pub fn ids(path: &Path) -> Result<Vec<u32>> {
    let array = npy::read(path)?;
    let bad = |m: String| Failure::usage(format!("{}: {m}", path.display()));
    let elem =
        [Elem::I64, Elem::I32, Elem::U32].into_iter().find(|e| npy::dtype_of(*e) == array.dtype);
    let Some(elem) = elem else {
        return Err(bad(format!("needed tokens as i8, i4 or u4, present {}", array.dtype)));
    };
    let tensor = array.into_tensor(elem)?;
    let shape = &tensor.shape;
    if !matches!(shape[..], [_] | [1, _]) {
        return Err(bad(format!("needed tokens of one sequence, present shape {shape:?}")));
    }
    let mut ids = Vec::with_capacity(shape.iter().product());
    for (i, v) in tensor.to_f64().into_iter().enumerate() {
        if !(0.0..=u32::MAX as f64).contains(&v) {
            return Err(bad(format!("token {i}: needed 0 or more, present {v}")));
        }
        ids.push(v as u32);
    }
    Ok(ids)
}

/// How a text is cut for a model: windows of its context, at most 1024 tokens, each half a window further, unless
/// the user says otherwise.
pub fn windows(model: &Model, window: Option<usize>, stride: Option<usize>) -> Windows {
    let l = silure_generate::Decoder::limits(model);
    let most = l.context.min(l.width.saturating_mul(l.page)).min(l.pages as usize * l.page);
    let window = window.unwrap_or(most.min(1024));
    Windows { window, stride: stride.unwrap_or((window / 2).max(1)) }
}

/// A file that is gone when this is dropped.
pub struct Passing(pub PathBuf);

impl Drop for Passing {
    fn drop(&mut self) {
        // It may never have been written.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The model as it is beside the model in narrower types, on a text. Both are compiled for this machine into
/// files beside `output`, which are mapped and then removed.
pub fn precision(
    c: &Compiler,
    source: &Path,
    args: &CompileArgs,
    output: &Path,
    text: &Path,
    calibration: Option<&mut Calibration>,
    report: &Report,
) -> Result<Comparison> {
    let narrow = CompileArgs { targets: vec![], ..args.clone() };
    let options = narrow.options_here(report)?;
    let pool = Arc::new(Pool::new(super::verbs::run::threads(None)));
    let open = |name: &str, loaded: Loaded, o: &Options| -> Result<(Arc<Engine>, Passing)> {
        let mut path = output.as_os_str().to_owned();
        path.push(format!(".{}.{name}.tmp", std::process::id()));
        let path = Passing(path.into());
        // The notes were said when the engine itself was compiled.
        c.compile(loaded, o)?.write(&path.0)?;
        Ok((Engine::open(&path.0)?, path))
    };
    let load = || c.load_directory(source, &args.directory());
    // What was calibrated is narrow already.
    let done = Options { precision: None, ..options.clone() };
    let plain = Options { rounded_rows: false, tf32: false, ..done.clone() };
    let (reference, _first) = open("reference", load()?, &plain)?;
    let (other, _second) = match calibration {
        Some(found) => open("narrow", found.apply(c, load()?, &options)?, &done)?,
        None => open("narrow", load()?, &options)?,
    };
    let assets = Assets::of(&reference);
    let tokens = tokens(text, assets.tokenizer()?.as_ref())?;
    let session = || SessionOptions { pool: Some(pool.clone()), memory_limit: None };
    let (mut a, mut b) = (Model::new(&reference, session())?, Model::new(&other, session())?);
    let cut = windows(&a, None, None);
    Ok(compare(&mut a, &mut b, &tokens, cut)?)
}

/// Checks early what [`precision`] needs.
pub fn check(source: &Path, args: &CompileArgs, text: &Path) -> Result<()> {
    if !silure::hf::is_model(source) {
        let m = "--evaluate applies to language models: directories and .gguf files";
        return Err(Failure::usage(format!("{}: {m}", source.display())));
    }
    let options = args.options()?;
    if options.precision.is_none() && !options.rounded_rows && !options.tf32 {
        let m = "--evaluate needs --precision bf16, int8, int4, w8a8 or fp8, or --activations int8";
        return Err(Failure::usage(m));
    }
    std::fs::metadata(text).map_err(|e| Failure::io(text, e))?;
    Ok(())
}
