//! Tensors of the model as constants and weights.
//!
//! Up to [`INLINE_LIMIT`] bytes are constants in the IR; larger ones are weights: ranges of the files
//! they are in, so that the IR never holds them, or data if the file has them in another form. Strings
//! are constants however many there are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use silure_ir::dialects::core::WEIGHT;
use silure_ir::weight::INLINE_LIMIT;
use silure_ir::{
    Attr, Attrs, Code as IrCode, Diagnostic, TensorType, Type, ValueId, Weight, WeightExpr,
    WeightSource,
};

use super::cx::Cx;
use crate::error::Result;
use crate::external::ExternalFile;
use crate::tensor::{Data, Tensor};

/// Constants are lent from a file of at most so many bytes, which lives as long as they do then. Of a longer one, whose
/// weights are not wanted in memory, they are copied.
const LENT: usize = 1 << 20;

/// The files that a module's weights are ranges of: their names in the module and where they are.
///
/// Reading checks that a range is inside its file and that the file is as long as it was.
#[derive(Clone, Debug, Default)]
pub struct Files {
    files: BTreeMap<Arc<str>, Source>,
}

#[derive(Clone, Debug)]
enum Source {
    /// The model file, as named by the user.
    Model { path: PathBuf, len: u64 },
    /// A file of external data, checked again whenever it is opened.
    External(Arc<ExternalFile>),
}

impl Files {
    /// Names in the module, and the files' paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.files.iter().map(|(name, s)| {
            let path: &Path = match s {
                Source::Model { path, .. } => path,
                Source::External(f) => f.path(),
            };
            (&**name, path)
        })
    }

    /// The name of a source; a file keeps the name it was first given.
    fn name(&mut self, source: Source) -> Arc<str> {
        let path = |s: &Source| match s {
            Source::Model { path, .. } => path.clone(),
            Source::External(f) => f.path().to_path_buf(),
        };
        let own = path(&source);
        if let Some((name, _)) = self.files.iter().find(|(_, s)| path(s) == own) {
            return name.clone();
        }
        let base = own.file_name().map_or("data".into(), |n| n.to_string_lossy().into_owned());
        let mut name = base.clone();
        let mut n = 0;
        while self.files.contains_key(name.as_str()) {
            n += 1;
            name = format!("{base}#{n}");
        }
        let name: Arc<str> = name.into();
        self.files.insert(name.clone(), source);
        name
    }
}

impl WeightSource for Files {
    fn read(&self, source: &str, offset: u64, bytes: u64) -> silure_ir::Result<Vec<u8>> {
        let io = |what: String| Diagnostic::new(IrCode::Io, what);
        let Some(file) = self.files.get(source) else {
            return Err(io(format!("weight file `{source}` is not part of this model")));
        };
        match file {
            Source::External(f) => f.read(offset, bytes, source).map_err(|e| io(e.to_string())),
            Source::Model { path, len } => {
                if offset.checked_add(bytes).is_none_or(|end| end > *len) {
                    return Err(io(format!("a weight leaves its file {}", path.display()))
                        .need(format!("{bytes} bytes at {offset}"), format!("{len} bytes")));
                }
                read_range(path, *len, offset, bytes)
                    .map_err(|e| io(format!("cannot read {}: {e}", path.display())))
            }
        }
    }
}

fn read_range(path: &Path, len: u64, offset: u64, bytes: u64) -> std::io::Result<Vec<u8>> {
    use std::io::{Error, Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() != len {
        return Err(Error::other("the file changed after the model was read"));
    }
    let n = usize::try_from(bytes).map_err(Error::other)?;
    let mut data = Vec::new();
    data.try_reserve_exact(n).map_err(Error::other)?;
    file.seek(SeekFrom::Start(offset))?;
    file.take(bytes).read_to_end(&mut data)?;
    if data.len() != n {
        return Err(Error::other("the file became shorter"));
    }
    Ok(data)
}

impl Cx<'_, '_> {
    /// The value of initializer `index`, which `name` is one name of.
    pub fn initializer(&mut self, index: usize, name: &str) -> Result<ValueId> {
        let tensor = &self.tensors[index].clone();
        if tensor.byte_len() <= INLINE_LIMIT as u64 || tensor.elem.is_str() {
            return self.inline(tensor);
        }
        let known = self.weights.get(&index).cloned();
        let weight = match known {
            Some(w) => w,
            None => {
                let w = self.weight(tensor, name)?;
                self.weights.insert(index, w.clone());
                w
            }
        };
        self.weight_value(weight, tensor)
    }

    /// A tensor of the model as a value; `name` is the weight's name if it is large.
    pub fn tensor_value(&mut self, tensor: &Tensor, name: &str) -> Result<ValueId> {
        if tensor.byte_len() <= INLINE_LIMIT as u64 || tensor.elem.is_str() {
            return self.inline(tensor);
        }
        let weight = self.weight(tensor, name)?;
        self.weight_value(weight, tensor)
    }

    fn inline(&mut self, tensor: &Tensor) -> Result<ValueId> {
        let t = self.dense(tensor)?;
        self.constant(t)
    }

    /// The tensor with its bytes.
    pub fn dense(&self, tensor: &Tensor) -> Result<silure_ir::Tensor> {
        let shape = self.tensor_type(tensor)?.shape().unwrap_or_default();
        if let Data::Strings(s) = &tensor.data {
            return silure_ir::Tensor::from_strs(&shape, s).map_err(|d| self.diag(d));
        }
        let bytes = tensor.bytes()?;
        let made = match self.model.buffer.len() <= LENT {
            true => silure_ir::Tensor::lent(tensor.elem, &shape, bytes),
            false => silure_ir::Tensor::new(tensor.elem, &shape, bytes.to_vec()),
        };
        made.map_err(|d| self.diag(d))
    }

    fn tensor_type(&self, t: &Tensor) -> Result<TensorType> {
        let shape: Option<Vec<usize>> = t.dims.iter().map(|d| usize::try_from(*d).ok()).collect();
        match shape {
            Some(s) => Ok(TensorType::fixed(t.elem, &s)),
            None => Err(self.wrong("a dim does not fit this machine's sizes")),
        }
    }

    fn weight(&mut self, tensor: &Tensor, name: &str) -> Result<Arc<str>> {
        let ty = self.tensor_type(tensor)?;
        let range = |source: Arc<str>, offset: u64, ty: &TensorType| WeightExpr::File {
            source,
            offset,
            bytes: tensor.byte_len(),
            ty: ty.clone(),
        };
        let expr = match &tensor.data {
            Data::Memory(_) | Data::Strings(_) => WeightExpr::Data(Arc::new(self.dense(tensor)?)),
            Data::Model { path, offset, .. } => {
                let len = self.model.buffer.len() as u64;
                let source = self.files.name(Source::Model { path: path.to_path_buf(), len });
                range(source, *offset, &ty)
            }
            Data::External { file, offset, .. } => {
                let source = self.files.name(Source::External(file.clone()));
                range(source, *offset, &ty)
            }
        };
        let name = super::signature::identifier(name).into();
        Ok(self.module.add_weight(Weight { name, ty, expr }))
    }

    fn weight_value(&mut self, name: Arc<str>, tensor: &Tensor) -> Result<ValueId> {
        let ty = Type::Tensor(self.tensor_type(tensor)?);
        let attrs = Attrs::new().with("name", Attr::Symbol(name));
        let op = self.build(&WEIGHT, &[], attrs, &[], &[ty])?;
        Ok(self.f.op(op).result())
    }
}
