//! A directory or a GGUF file as a module, the way to its weights, and what the host needs.

use std::path::Path;

use sha2::{Digest, Sha256};
use silure_ir::Module;
use silure_types::Elem;

use crate::blocks::latent::LatentForm;
use crate::checkpoint::{Checkpoint, Files};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::families::{self, Model};
use crate::folder::Folder;
use crate::gguf;
use crate::net::Net;
use crate::promised::Promised;

/// The file that says what a directory holds.
const CONFIG: &str = "config.json";
/// Files that the engine carries for its host.
const ASSETS: &[&str] = &[
    CONFIG,
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
];
/// The largest of them that is read.
const MOST_ASSET: u64 = 256 << 20;
/// The longest sequence that is planned for unless one is asked for.
const CONTEXT: usize = 4096;
/// The most rows of a cache, and the most tokens or sequences of a step.
const MOST_ROWS: usize = 1 << 31;

/// What the user decides about a language model.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ImportOptions {
    /// Longest sequence; what the model was made for or 4096, the smaller, if absent.
    pub context: Option<usize>,
    /// Pages of the cache; enough for one sequence of that length if absent.
    pub pages: Option<usize>,
    /// Rows of a page; 64 if absent.
    pub page: Option<usize>,
    /// Most new tokens of a step; 512 if absent.
    pub tokens: Option<usize>,
    /// Most sequences of a step; 16 if absent.
    pub sequences: Option<usize>,
    /// Type of the cache's elements, f32 or bf16; f32 if absent.
    pub cache: Option<Elem>,
    /// Read config.json alone: the weights are those that a published checkpoint would have, without bytes.
    pub meta: bool,
    /// The form of latent attention.
    pub latent: LatentForm,
    /// `decode` draws the next tokens itself and gives them instead of logits.
    pub sample: bool,
}

/// The sizes that the options lead to.
pub(crate) struct Sizes {
    pub context: usize,
    pub pages: usize,
    pub page: usize,
    pub tokens: usize,
    pub sequences: usize,
    /// Type of the cache's elements.
    pub cache: Elem,
    /// Whether `decode` draws tokens.
    pub sample: bool,
}

/// How many numbers a model has learned: elements of its tensors, scales not counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Parameters {
    /// All.
    pub total: u64,
    /// Those of experts that a router chooses from.
    pub routed: u64,
    /// Those that one token passes: all others, and of those of experts the chosen part.
    pub active: u64,
}

/// A model that was read.
pub struct Imported {
    /// The module.
    pub module: Module,
    /// What the user should know although the model was accepted.
    pub notes: Vec<String>,
    /// Where the weights are read.
    pub files: Files,
    /// Files for the host, by name.
    pub assets: Vec<(String, Vec<u8>)>,
    /// What the engine says about the model (docs/language-models.md).
    pub options: Vec<(String, String)>,
    /// How many parameters it has.
    pub parameters: Parameters,
    /// Hash of config.json, the index and the headers of all weight files, or of the header of a GGUF file.
    pub hash: [u8; 32],
}

/// What a module is made of, wherever it was.
pub(crate) struct Parts {
    pub config: Config,
    pub checkpoint: Checkpoint,
    pub assets: Vec<(String, Vec<u8>)>,
    /// Hash of the sizes and of what is said of the tensors.
    pub hash: [u8; 32],
}

/// Whether a path is what [`import`] reads: a directory, a file whose name ends in `.gguf`, or a
/// configuration, whose name ends in `.json`.
pub fn is_model(path: &Path) -> bool {
    path.is_dir() || gguf::is_gguf(path) || is_configuration(path)
}

fn is_configuration(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "json")
}

/// Reads a directory, or a file whose name ends in `.gguf`; with [`ImportOptions::meta`] the config.json of
/// a directory, or one by its path.
pub fn import(path: &Path, options: &ImportOptions) -> Result<Imported> {
    let at = || path.display().to_string();
    let parts = match (path.is_dir(), options.meta) {
        (true, false) => open(path)?,
        (true, true) => promised(path, CONFIG)?,
        (false, meta) if gguf::is_gguf(path) => {
            if meta {
                let what = "a GGUF file is its own configuration: weights `meta` does not apply";
                return Err(Error::new(Code::Unsupported, at(), what));
            }
            gguf::open(path)?
        }
        (false, true) => {
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
            let name =
                path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            promised(folder.unwrap_or(Path::new(".")), &name)?
        }
        (false, false) => {
            let e = Error::new(Code::Missing, at(), "a configuration alone has no weights");
            return Err(e.needed("the model's directory, or weights `meta`"));
        }
    };
    build(parts, options)
}

/// The parts of a configuration.
fn promised(folder: &Path, name: &str) -> Result<Parts> {
    let folder = Folder::open(folder)?;
    let config = Config::open(&folder, name)?;
    let mut notes = vec![];
    let checkpoint = Checkpoint::promised(Promised::of(&config, &mut notes)?, notes);
    let mut hash = Sha256::new();
    hash.update(b"meta");
    hash.update(folder.read(name, 1 << 30)?);
    Ok(Parts { config, checkpoint, assets: vec![], hash: hash.finalize().into() })
}

/// Reads the parts of a directory.
fn open(path: &Path) -> Result<Parts> {
    let folder = Folder::open(path)?;
    let config = Config::open(&folder, CONFIG)?;
    let checkpoint = Checkpoint::open(&folder)?;
    let mut hash = Sha256::new();
    hash.update(folder.read(CONFIG, 1 << 30)?);
    hash.update(checkpoint.digest());
    let mut assets = Vec::new();
    for name in ASSETS.iter().filter(|n| folder.has(n)) {
        assets.push((name.to_string(), folder.read(name, MOST_ASSET)?));
    }
    Ok(Parts { config, checkpoint, assets, hash: hash.finalize().into() })
}

fn build(parts: Parts, options: &ImportOptions) -> Result<Imported> {
    let Parts { config, mut checkpoint, assets, hash } = parts;
    let mut notes = Vec::new();
    if config.value("auto_map").is_some() {
        notes.push("config.json names code of the directory (`auto_map`): it is not run".into());
    }
    quantisation(&config)?;
    let (family, model) = families::read(&config)?;
    let unread = config.unread();
    if !unread.is_empty() {
        let list: Vec<String> = unread.iter().map(|f| format!("`{f}`")).collect();
        notes.push(format!("config.json: not used: {}", list.join(", ")));
    }
    notes.append(&mut checkpoint.notes);
    let mut net = Net::new(family.kind, &checkpoint);
    let mut says = Vec::new();
    let layers;
    match model {
        Model::Decoder(mut d) => {
            let sizes = options.sizes(d.context, &mut notes)?;
            d.latent_form(options.latent);
            notes.extend(d.latent_note(sizes.pages * sizes.page));
            layers = d.layers.len();
            d.build(&mut net, &sizes)?;
            let all = [
                ("page", sizes.page),
                ("pages", sizes.pages),
                ("context", sizes.context),
                ("vocab", d.vocab),
            ];
            says.extend(all.map(|(k, v)| (format!("language.{k}"), v.to_string())));
            says.push(("language.cache".into(), sizes.cache.name().into()));
        }
        Model::Encoder(e) => {
            refuse_cache(options)?;
            layers = e.layers;
            e.build(&mut net, &options.sizes(e.context(), &mut notes)?)?;
        }
    }
    let (mut beyond, mut unused) = (0, Vec::new());
    for name in net.unused() {
        match families::layer_of(name) {
            Some(l) if l >= layers => beyond += 1,
            _ if families::is_aside(name) => {}
            _ => unused.push(name),
        }
    }
    if beyond > 0 {
        notes.push(format!(
            "{beyond} tensors of layers from {layers} on, which predict further tokens, are left out"
        ));
    }
    if let Some(first) = unused.first() {
        let n = unused.len();
        notes.push(format!("{n} tensors are not used, {} the first", crate::error::quoted(first)));
    }
    let (parameters, module) = (net.parameters(), net.module);
    notes.extend(negative_corrections(&checkpoint)?);
    let files = checkpoint.into_files();
    Ok(Imported { module, notes, files, assets, options: says, parameters, hash })
}

/// A note where experts are corrected so far down that programs which hide other groups by 0, not by −∞,
/// choose other experts.
fn negative_corrections(checkpoint: &Checkpoint) -> Result<Option<String>> {
    const FAR: f64 = -0.5;
    /// As many elements as a layer has experts.
    const MOST: u64 = 1 << 20;
    let all = checkpoint.stored().filter(|t| t.0.ends_with(".e_score_correction_bias"));
    for (name, t) in all.filter(|t| (1..MOST).contains(&t.1.bytes)) {
        let all = checkpoint.read(t).map_err(|d| Error::diag(name, d))?.to_f64s();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        if mean < FAR {
            let name = crate::error::quoted(name);
            return Ok(Some(format!(
                "the mean of {name} is {mean:.2}: programs that hide groups of experts by 0 choose others"
            )));
        }
    }
    Ok(None)
}

/// Refuses what only decoders have.
fn refuse_cache(o: &ImportOptions) -> Result<()> {
    if o.page.is_some() || o.pages.is_some() || o.tokens.is_some() || o.cache.is_some() {
        let what =
            "an encoder has no cache: its type, pages, page size and tokens of a step do not apply";
        return Err(Error::new(Code::Unsupported, "options", what));
    }
    if o.sample {
        let what = "an encoder has no next tokens that it could draw";
        return Err(Error::new(Code::Unsupported, "options", what));
    }
    Ok(())
}

/// Refuses stored forms other than those that are read.
fn quantisation(config: &Config) -> Result<()> {
    let Some(q) = config.section("quantization_config")? else { return Ok(()) };
    let method = q.word("quant_method")?.unwrap_or("nothing").to_string();
    if method != "fp8" {
        let e = q.unsupported("quant_method", "weights stored by this method");
        return Err(e.needed("fp8").present(crate::error::quoted(&method)));
    }
    let block = crate::quantised::BLOCK;
    q.only("fmt", "e4m3".into())?;
    q.only("weight_block_size", vec![block, block].into())
}

impl ImportOptions {
    /// The sizes, checked; `made_for` is the longest sequence of the model.
    fn sizes(&self, made_for: usize, notes: &mut Vec<String>) -> Result<Sizes> {
        let check = |name: &str, n: usize, most: usize| {
            if (1..=most).contains(&n) {
                return Ok(n);
            }
            let e = Error::new(Code::Limit, name, "the size is out of range");
            Err(e.needed(format!("1 to {most}")).present(n.to_string()))
        };
        let context = match self.context {
            Some(n) => check("context", n, MOST_ROWS)?,
            None => made_for.min(CONTEXT),
        };
        if self.context.is_none() && made_for > context {
            notes.push(format!(
                "the longest sequence is {context} tokens, of the {made_for} that the model was made for"
            ));
        }
        if context > made_for {
            notes.push(format!(
                "sequences of {context} tokens are longer than the {made_for} that the model was made for"
            ));
        }
        let page = check("page size", self.page.unwrap_or(64), 1 << 20)?;
        let pages = self.pages.unwrap_or_else(|| context.div_ceil(page));
        let pages = check("pages", pages, MOST_ROWS / page)?;
        let tokens = check("tokens of a step", self.tokens.unwrap_or(512), MOST_ROWS)?;
        let sequences = check("sequences of a step", self.sequences.unwrap_or(16), MOST_ROWS)?;
        let cache = self.cache.unwrap_or(Elem::F32);
        if !matches!(cache, Elem::F32 | Elem::Bf16) {
            let e = Error::new(Code::Unsupported, "cache", "a cache of this type");
            return Err(e.needed("f32 or bf16").present(cache.name()));
        }
        let (tokens, sample) = (tokens.max(sequences), self.sample);
        Ok(Sizes { context, pages, page, tokens, sequences, cache, sample })
    }
}
