//! Opening a model file: size, structure of the bytes, decoding, what it imports.
//!
//! The file is read whole (protobuf has no index), at most [`Limits::file_bytes`]; large weights are
//! meant to be external data, of which only ranges are kept. Every tensor that the file holds as raw
//! bytes is a slice of the buffer and a range of the file: nothing is copied.
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
use crate::proto::{GraphProto, ModelProto, TensorProto};
use crate::scan;
use prost::Message;
use prost::bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The newest IR version of the format that this crate knows (`Version` in `onnx-ml.proto`).
pub const NEWEST_IR: i64 = 14;

/// A decoded model file.
#[derive(Debug)]
pub struct Model {
    proto: ModelProto,
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
        let mut proto = ModelProto::decode(buffer.clone())
            .map_err(|e| malformed(format!("not an ONNX model: {e}")))?;
        match &mut proto.graph {
            Some(graph) => fit(graph),
            None => return Err(malformed("not an ONNX model: it has no graph".into())),
        }
        let mut notes = Vec::new();
        match proto.ir_version {
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
        for import in &proto.opset_import {
            let domain = domain(import.domain());
            if import.version() < 1 {
                let what = format!("opset import of domain {} has no version", quote(domain));
                return Err(malformed(what)
                    .needed("a version of at least 1")
                    .present(import.version().to_string()));
            }
            // Some exporters write an import twice.
            match opsets.insert(domain.to_string(), import.version()) {
                Some(v) if v != import.version() => {
                    let what = format!("domain {} is imported in two versions", quote(domain));
                    return Err(malformed(what).present(format!("{v} and {}", import.version())));
                }
                _ => {}
            }
        }
        if opsets.is_empty() && proto.ir_version() < 3 {
            opsets.insert(String::new(), 1);
        }
        if !proto.training_info.is_empty() {
            notes.push("training information is ignored: only inference is imported".into());
        }
        let tensor_bytes = AtomicU64::new(0);
        Ok(Model { proto, opsets, notes, buffer, path, name, limits, folder, tensor_bytes })
    }

    /// The decoded file.
    pub fn proto(&self) -> &ModelProto {
        &self.proto
    }

    /// The main graph.
    pub fn graph(&self) -> &GraphProto {
        self.proto.graph.as_ref().expect("checked when decoded")
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

/// Gives back what lists were made longer by than they are. A graph is no deeper than the walk before decoding allows.
fn fit(graph: &mut GraphProto) {
    for node in &mut graph.node {
        node.input.shrink_to_fit();
        node.output.shrink_to_fit();
        node.attribute.shrink_to_fit();
        for a in &mut node.attribute {
            a.ints.shrink_to_fit();
            a.floats.shrink_to_fit();
            a.g.iter_mut().for_each(|g| fit(g));
        }
        let tensors = node.attribute.iter_mut().filter_map(|a| a.t.as_deref_mut());
        tensors.for_each(fit_tensor);
    }
    graph.initializer.iter_mut().for_each(fit_tensor);
    graph.node.shrink_to_fit();
    graph.initializer.shrink_to_fit();
    graph.value_info.shrink_to_fit();
}

fn fit_tensor(t: &mut TensorProto) {
    t.dims.shrink_to_fit();
    t.float_data.shrink_to_fit();
    t.int32_data.shrink_to_fit();
    t.int64_data.shrink_to_fit();
    t.double_data.shrink_to_fit();
    t.uint64_data.shrink_to_fit();
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
