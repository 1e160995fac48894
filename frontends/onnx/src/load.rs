//! Opening a model file: size, structure of the bytes, decoding, what it imports.
//!
//! The file is read whole (protobuf has no index), at most [`Limits::file_bytes`]; large weights are
//! meant to be external data, of which only ranges are kept. It is walked once ([`crate::scan`]) and read from then on
//! in place: names, nodes and attributes are lent from the buffer ([`crate::proto`]). Every tensor that the file holds
//! as raw bytes is a slice of the buffer and a range of the file: nothing is copied.
//!
//! ```no_run
//! let model = silure_onnx::Model::open("model.onnx".as_ref())?;
//! println!("opset {:?}", model.opset(""));
//! let program = model.resolve()?;
//! for (op, count) in program.ops() {
//!     println!("{count:5} {op}");
//! }
//! # Ok::<(), silure_onnx::Error>(())
//! ```

use crate::error::{Code, Error, Result, quote};
use crate::external::Folder;
use crate::limits::Limits;
use crate::proto::{GraphProto, ModelProto};
use crate::scan;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The newest IR version of the format that this crate knows (`Version` in `onnx-ml.proto`).
pub const NEWEST_IR: i64 = 14;

/// A model file that was found well-formed.
#[derive(Debug)]
pub struct Model {
    pub(crate) ir_version: i64,
    opsets: BTreeMap<String, i64>,
    notes: Vec<String>,
    pub(crate) buffer: Bytes,
    pub(crate) path: Option<Arc<Path>>,
    pub(crate) name: String,
    pub(crate) limits: Limits,
    pub(crate) folder: Option<Folder>,
    pub(crate) tensor_bytes: AtomicU64,
}

impl Model {
    /// Reads the model file at `path` with default [`Limits`].
    pub fn open(path: &Path) -> Result<Model> {
        Model::open_with(path, Limits::default())
    }

    /// Reads the model file at `path`.
    pub fn open_with(path: &Path, limits: Limits) -> Result<Model> {
        let at = path.display().to_string();
        // Looked at before opening: opening a pipe would wait for its writer.
        let meta = std::fs::metadata(path).map_err(|e| Error::io(path, "open", e))?;
        if !meta.is_file() {
            return Err(Error::new(Code::Io, at, "not a regular file").needed("an ONNX file"));
        }
        let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
        if meta.len() > limits.file_bytes {
            return Err(too_large(&at, meta.len(), &limits));
        }
        let mut data = Vec::new();
        let room = meta.len() as usize + 1;
        data.try_reserve_exact(room).map_err(|_| {
            Error::new(Code::Limit, &at, "not enough memory to read the file")
                .needed(format!("{room} bytes"))
        })?;
        file.take(limits.file_bytes + 1)
            .read_to_end(&mut data)
            .map_err(|e| Error::io(path, "read", e))?;
        if data.len() as u64 > limits.file_bytes {
            return Err(too_large(&at, data.len() as u64, &limits));
        }
        let folder = match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => Folder::new(p),
            _ => Folder::new(Path::new(".")),
        };
        Model::decode(data.into(), at, Some(path.into()), Some(folder), limits)
    }

    /// Decodes a model held in memory. It may not refer to external data. `name` is used in errors.
    pub fn from_bytes(data: impl Into<Bytes>, name: &str, limits: Limits) -> Result<Model> {
        let data = data.into();
        if data.len() as u64 > limits.file_bytes {
            return Err(too_large(name, data.len() as u64, &limits));
        }
        Model::decode(data, name.into(), None, None, limits)
    }

    fn decode(
        buffer: Bytes,
        name: String,
        path: Option<Arc<Path>>,
        folder: Option<Folder>,
        limits: Limits,
    ) -> Result<Model> {
        let malformed = |what: String| Error::new(Code::Malformed, &name, what);
        if buffer.is_empty() {
            return Err(malformed("not an ONNX model: the file is empty".into()));
        }
        scan::scan(&buffer, &name, &limits)?;
        let proto = ModelProto::new(&buffer);
        if proto.graph().is_none() {
            return Err(malformed("not an ONNX model: it has no graph".into()));
        }
        let mut notes = Vec::new();
        let ir_version = proto.ir_version();
        match ir_version {
            None => return Err(malformed("not an ONNX model: it has no ir_version".into())),
            Some(v) if v < 1 => {
                return Err(malformed("ir_version is not a version".into()).present(v.to_string()));
            }
            Some(v) if v > NEWEST_IR => notes.push(format!(
                "the model's IR version {v} is newer than {NEWEST_IR}, the newest known here"
            )),
            Some(_) => {}
        }
        let mut opsets = BTreeMap::new();
        for import in proto.opset_import() {
            let (domain, version) = (domain(import.domain()), import.version().unwrap_or(0));
            if version < 1 {
                let what = format!("opset import of domain {} has no version", quote(domain));
                return Err(malformed(what)
                    .needed("a version of at least 1")
                    .present(version.to_string()));
            }
            // Some exporters write an import twice.
            match opsets.insert(domain.to_string(), version) {
                Some(v) if v != version => {
                    let what = format!("domain {} is imported in two versions", quote(domain));
                    return Err(malformed(what).present(format!("{v} and {version}")));
                }
                _ => {}
            }
        }
        if opsets.is_empty() && ir_version < Some(3) {
            opsets.insert(String::new(), 1);
        }
        if proto.training_info().next().is_some() {
            notes.push("training information is ignored: only inference is imported".into());
        }
        let tensor_bytes = AtomicU64::new(0);
        Ok(Model {
            ir_version: ir_version.unwrap_or(0),
            opsets,
            notes,
            buffer,
            path,
            name,
            limits,
            folder,
            tensor_bytes,
        })
    }

    /// The file's message.
    pub fn proto(&self) -> ModelProto<'_> {
        ModelProto::new(&self.buffer)
    }

    /// The main graph.
    pub fn graph(&self) -> GraphProto<'_> {
        self.proto().graph().unwrap_or_default()
    }

    /// The version imported of an operator domain; `""` is ONNX's own.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        self.opsets.get(self::domain(domain)).copied()
    }

    /// All imported operator domains with their versions.
    pub fn opsets(&self) -> &BTreeMap<String, i64> {
        &self.opsets
    }

    /// What the user should be told about this file although it was accepted.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The model's name in messages: its path as given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file it was read from.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

/// ONNX's own domain has two spellings.
pub(crate) fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

fn too_large(at: &str, len: u64, limits: &Limits) -> Error {
    Error::new(Code::Limit, at, "the model file is too large")
        .needed(format!("at most {} bytes", limits.file_bytes))
        .present(format!("{len} bytes"))
}
