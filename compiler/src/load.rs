//! Reading models: ONNX files, directories of Hugging Face, GGUF files, and text IR.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use silure_ir::{Code, Diagnostic, Module, WeightSource};
use silure_onnx::{Files, ImportOptions, Limits, Model};

use crate::calibration::Scratch;
use crate::{Compiler, Error, Result};

/// The largest text module that is read.
const MOST_TEXT: u64 = 1 << 30;

/// A model as a module, with the way to its weights.
pub struct Loaded {
    /// The module, verified.
    pub module: Module,
    /// What the user should know although the model was accepted.
    pub notes: Vec<String>,
    /// Where its weights are read.
    pub source: Source,
    /// `sha256:` and the hash of the model file.
    pub hash: String,
    /// Files that the engine carries for its host, by name.
    pub assets: Vec<(String, Vec<u8>)>,
    /// What the engine's manifest says besides the options of the compilation.
    pub options: Vec<(String, String)>,
    /// How many parameters it has, where the importer counts them.
    pub parameters: Option<silure_hf::Parameters>,
    /// There are no bytes of weights: what is compiled cannot be written.
    pub meta: bool,
}

impl Loaded {
    /// A model that is a module alone.
    pub fn new(module: Module, source: Source, hash: String) -> Loaded {
        let (notes, assets, options) = (vec![], vec![], vec![]);
        Loaded { module, notes, source, hash, assets, options, parameters: None, meta: false }
    }
}

/// Where the weights of a module are.
pub enum Source {
    /// Ranges of an ONNX model's files.
    Onnx(Files),
    /// Ranges of a directory's weight files, or of a GGUF file.
    Directory(silure_hf::Files),
    /// Ranges of files beside a text module, by plain file name.
    Beside(PathBuf),
    /// Everything is in the module.
    None,
    /// The same with weights that were rounded by a text ([`crate::Calibration`]).
    Rounded(Box<Source>, Arc<Scratch>),
}

impl WeightSource for Source {
    fn read(&self, source: &str, offset: u64, bytes: u64) -> silure_ir::Result<Vec<u8>> {
        match self {
            Source::Onnx(files) => files.read(source, offset, bytes),
            Source::Directory(files) => files.read(source, offset, bytes),
            Source::Beside(folder) => beside(folder, source, offset, bytes),
            Source::None => silure_ir::weight::NoFiles.read(source, offset, bytes),
            Source::Rounded(inner, scratch) => match scratch.read(source, offset, bytes) {
                Some(read) => read.map_err(|e| Diagnostic::new(Code::Io, format!("{source}: {e}"))),
                None => inner.read(source, offset, bytes),
            },
        }
    }
}

fn beside(folder: &Path, source: &str, offset: u64, bytes: u64) -> silure_ir::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let io = |what: String| Diagnostic::new(Code::Io, what);
    let mut parts = Path::new(source).components();
    let plain =
        matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(_)), None));
    if !plain {
        return Err(io(format!("weight file `{source}` is not a plain file name")));
    }
    let path = folder.join(source);
    let meta =
        std::fs::symlink_metadata(&path).map_err(|e| io(format!("{}: {e}", path.display())))?;
    if !meta.is_file() {
        return Err(io(format!("weight file `{source}` is not a regular file")));
    }
    let end = offset.checked_add(bytes);
    if end.is_none_or(|e| e > meta.len()) {
        return Err(io(format!("weight file `{source}` is too short"))
            .need(format!("{bytes} bytes at {offset}"), format!("{} bytes", meta.len())));
    }
    let file = File::open(&path).map_err(|e| io(format!("{}: {e}", path.display())))?;
    let mut out = vec![0; bytes as usize];
    file.read_exact_at(&mut out, offset).map_err(|e| io(format!("{}: {e}", path.display())))?;
    Ok(out)
}

impl Compiler {
    /// Reads a model: `.sir` is text IR (either form), a directory one of Hugging Face and `.gguf` a
    /// language model, with the options of their importer left open ([`Compiler::load_directory`] takes
    /// them), everything else ONNX.
    pub fn load(&self, path: &Path, options: &ImportOptions) -> Result<Loaded> {
        if silure_hf::is_model(path) {
            return self.load_directory(path, &silure_hf::ImportOptions::default());
        }
        if path.extension().is_some_and(|e| e == "sir" || e == "mlir") {
            return self.load_text(path);
        }
        let model = Model::open(path)?;
        let hash = hash_file(path)?;
        self.import(&model, hash, options)
    }

    /// Reads a directory of Hugging Face or a GGUF file.
    pub fn load_directory(
        &self,
        path: &Path,
        options: &silure_hf::ImportOptions,
    ) -> Result<Loaded> {
        let i = silure_hf::import(path, options)?;
        silure_ir::verify::verify(&i.module)?;
        let (source, hash) = (Source::Directory(i.files), named(&i.hash));
        let (notes, assets) = (i.notes, i.assets);
        let (parameters, meta) = (Some(i.parameters), options.meta);
        let rest = Loaded::new(i.module, source, hash);
        Ok(Loaded { notes, assets, options: i.options, parameters, meta, ..rest })
    }

    /// Reads a model from bytes, for embedded ones.
    pub fn load_bytes(
        &self,
        name: &str,
        bytes: Vec<u8>,
        options: &ImportOptions,
    ) -> Result<Loaded> {
        let hash = digest(Sha256::new().chain_update(&bytes));
        let model = Model::from_bytes(bytes, name, Limits::default())?;
        self.import(&model, hash, options)
    }

    fn import(&self, model: &Model, hash: String, options: &ImportOptions) -> Result<Loaded> {
        let imported = silure_onnx::import(model, options)?;
        silure_ir::verify::verify(&imported.module)?;
        let mut notes = model.notes().to_vec();
        notes.extend(imported.notes);
        let source = Source::Onnx(imported.files);
        Ok(Loaded { notes, ..Loaded::new(imported.module, source, hash) })
    }

    fn load_text(&self, path: &Path) -> Result<Loaded> {
        let name = path.display().to_string();
        let io = |source| Error::Io { path: name.clone(), source };
        let file = File::open(path).map_err(io)?;
        let mut text = String::new();
        file.take(MOST_TEXT).read_to_string(&mut text).map_err(io)?;
        let file_name = path.file_name().map_or(name.clone(), |n| n.to_string_lossy().into_owned());
        let module = silure_ir::text::parse(&self.context, &file_name, &text, Default::default())?;
        silure_ir::verify::verify(&module)?;
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let hash = digest(Sha256::new().chain_update(text.as_bytes()));
        Ok(Loaded::new(module, Source::Beside(folder), hash))
    }
}

fn hash_file(path: &Path) -> Result<String> {
    let io = |source| Error::Io { path: path.display().to_string(), source };
    let mut file = File::open(path).map_err(io)?;
    let mut h = Sha256::new();
    std::io::copy(&mut file, &mut h).map_err(io)?;
    Ok(digest(h))
}

pub(crate) fn digest(h: Sha256) -> String {
    named(&h.finalize())
}

fn named(hash: &[u8]) -> String {
    let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}
