//! Tensors of one or many safetensors files: where each one's bytes are.
//!
//! Headers are read when a checkpoint is opened and everything in them is checked: types, shapes
//! against ranges, ranges against the file and against each other, the index against the files. The
//! bytes are read later, range by range. A checkpoint may also be one that only a configuration promises
//! ([`Promised`]): it has whatever is asked for, and no bytes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use sha2::{Digest, Sha256};
use silure_ir::{Diagnostic, TensorType, WeightExpr, WeightSource};
use silure_types::Elem;

use crate::error::{Code, Error, Result, quoted};
use crate::folder::Folder;
use crate::promised::Promised;

/// The one file of a small checkpoint.
const SINGLE: &str = "model.safetensors";
/// The list of a large one's files.
const INDEX: &str = "model.safetensors.index.json";
/// The largest header and the largest index that are read.
const MOST_HEADER: u64 = 64 << 20;
/// The most files of one checkpoint.
const MOST_FILES: usize = 4096;
/// The most axes of a tensor.
const MOST_AXES: usize = 8;

/// A tensor of a checkpoint.
#[derive(Clone, PartialEq, Debug)]
pub struct Stored {
    /// The file, by its name in the directory.
    pub file: Arc<str>,
    /// First byte in the file.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
    /// Element type.
    pub elem: Elem,
    /// Sizes.
    pub shape: Vec<usize>,
    /// How the tensor is made, if it is not the bytes as they are.
    pub made: Option<WeightExpr>,
}

impl Stored {
    /// The tensor as a weight of its type.
    pub fn expr(&self) -> WeightExpr {
        if let Some(e) = &self.made {
            return e.clone();
        }
        WeightExpr::File {
            source: self.file.clone(),
            offset: self.offset,
            bytes: self.bytes,
            ty: TensorType::fixed(self.elem, &self.shape),
        }
    }
}

/// The files of a checkpoint, for reading weights.
pub struct Files {
    open: BTreeMap<Arc<str>, (File, u64)>,
    /// There are none: sources are names of tensors.
    promised: bool,
}

impl WeightSource for Files {
    fn read(&self, source: &str, offset: u64, bytes: u64) -> silure_ir::Result<Vec<u8>> {
        let io = |what: String| Diagnostic::new(silure_ir::Code::Io, what);
        if self.promised {
            let what = format!("tensor {} has no bytes", quoted(source));
            return Err(io(what).note(
                "the model was read from its configuration alone (weights `meta`): read the directory \
                 with its weights instead",
            ));
        }
        let Some((file, len)) = self.open.get(source) else {
            return Err(io(format!("weight file {} is not part of the model", quoted(source))));
        };
        if offset.checked_add(bytes).is_none_or(|end| end > *len) {
            return Err(io(format!("weight file {} is too short", quoted(source)))
                .need(format!("{bytes} bytes at {offset}"), format!("{len} bytes")));
        }
        let mut out = vec![0; bytes as usize];
        let read = file.read_exact_at(&mut out, offset);
        read.map_err(|e| io(format!("weight file {}: {e}", quoted(source))))?;
        Ok(out)
    }
}

/// All tensors of a directory or a file.
pub struct Checkpoint {
    tensors: BTreeMap<String, Stored>,
    promised: Option<Promised>,
    files: Files,
    /// What the user should know.
    pub notes: Vec<String>,
    hash: Sha256,
}

impl Checkpoint {
    /// Reads the headers of a directory's safetensors files.
    pub fn open(folder: &Folder) -> Result<Checkpoint> {
        let mut c = Checkpoint {
            tensors: BTreeMap::new(),
            promised: None,
            files: Files { open: BTreeMap::new(), promised: false },
            notes: vec![],
            hash: Sha256::new(),
        };
        if folder.has(SINGLE) {
            if folder.has(INDEX) {
                c.notes.push(format!("{INDEX} is not read: {SINGLE} is there"));
            }
            c.add(folder, SINGLE)?;
        } else if folder.has(INDEX) {
            c.sharded(folder)?;
        } else {
            let at = folder.path().display().to_string();
            let mut e = Error::new(Code::Missing, at, "the directory has no weights")
                .needed(format!("{SINGLE} or {INDEX}"));
            for old in ["pytorch_model.bin", "pytorch_model.bin.index.json"] {
                if folder.has(old) {
                    e = e.detail(format!("{old} is code of another program and is never read"));
                }
            }
            return Err(e);
        }
        Ok(c)
    }

    /// Tensors of one open file of that length, whose header has that hash.
    pub fn of(
        name: Arc<str>,
        file: (File, u64),
        tensors: BTreeMap<String, Stored>,
        hash: Sha256,
    ) -> Checkpoint {
        let files = Files { open: BTreeMap::from([(name, file)]), promised: false };
        Checkpoint { tensors, promised: None, files, notes: vec![], hash }
    }

    /// The tensors that a configuration promises.
    pub fn promised(promised: Promised, notes: Vec<String>) -> Checkpoint {
        let files = Files { open: BTreeMap::new(), promised: true };
        let tensors = BTreeMap::new();
        Checkpoint { tensors, promised: Some(promised), files, notes, hash: Sha256::new() }
    }

    fn sharded(&mut self, folder: &Folder) -> Result<()> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: HashMap<String, String>,
        }
        let bytes = folder.read(INDEX, MOST_HEADER)?;
        self.hash.update(&bytes);
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|e| Error::new(Code::Malformed, INDEX, format!("not an index: {e}")))?;
        let mut says: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, file) in &index.weight_map {
            says.entry(file).or_default().push(tensor);
        }
        if says.is_empty() || says.len() > MOST_FILES {
            return Err(Error::new(Code::Limit, INDEX, "the number of files is out of range")
                .needed(format!("1 to {MOST_FILES}"))
                .present(says.len().to_string()));
        }
        for (file, mut tensors) in says {
            self.add(folder, file).map_err(|e| e.detail(format!("{INDEX} names this file")))?;
            tensors.sort_unstable();
            let absent = tensors.into_iter().find(|t| match self.tensors.get(*t) {
                Some(s) => *s.file != *file,
                None => true,
            });
            if let Some(t) = absent {
                let what = format!("tensor {} is not in the file that {INDEX} names", quoted(t));
                return Err(Error::new(Code::Missing, quoted(file), what));
            }
        }
        let extra = self.tensors.keys().filter(|k| !index.weight_map.contains_key(*k)).count();
        if extra > 0 {
            self.notes.push(format!("{extra} tensors of the files are not in {INDEX}"));
        }
        Ok(())
    }

    fn add(&mut self, folder: &Folder, name: &str) -> Result<()> {
        let (file, len) = folder.file(name)?;
        let wrong = |code, what: &str| Error::new(code, quoted(name), what);
        let read = |at: u64, n: u64| -> Result<Vec<u8>> {
            let mut out = vec![0; n as usize];
            let read = file.read_exact_at(&mut out, at);
            read.map_err(|e| Error::io(&folder.path().join(name), "read", &e))?;
            Ok(out)
        };
        if len < 8 {
            return Err(wrong(Code::Malformed, "not a safetensors file")
                .needed("at least 8 bytes")
                .present(format!("{len} bytes")));
        }
        let mut size = [0; 8];
        size.copy_from_slice(&read(0, 8)?);
        let header = u64::from_le_bytes(size);
        if header > MOST_HEADER || header > len - 8 {
            return Err(wrong(Code::Range, "the header is longer than allowed")
                .needed(format!("at most {} bytes", MOST_HEADER.min(len - 8)))
                .present(format!("{header} bytes")));
        }
        let text = read(8, header)?;
        self.hash.update(name.as_bytes());
        self.hash.update(len.to_le_bytes());
        self.hash.update(&text);
        let entries: Entries = serde_json::from_slice(&text)
            .map_err(|e| wrong(Code::Malformed, &format!("the header cannot be read: {e}")))?;
        let start = 8 + header;
        let file_name: Arc<str> = name.into();
        let mut ranges = Vec::with_capacity(entries.0.len());
        for (tensor, e) in entries.0 {
            let stored = e.check(&file_name, &tensor, start, len)?;
            ranges.push((stored.offset, stored.offset + stored.bytes, tensor.clone()));
            if let Some(other) = self.tensors.insert(tensor.clone(), stored) {
                return Err(Error::new(Code::Malformed, quoted(name), "a tensor is there twice")
                    .needed("one of each name")
                    .present(format!("{}, also in {}", quoted(&tensor), quoted(&other.file))));
            }
        }
        ranges.sort_unstable();
        let whole = |r: &&(u64, u64, String)| r.1 > r.0;
        let filled: Vec<_> = ranges.iter().filter(whole).collect();
        for pair in filled.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            if b.0 < a.1 {
                let what = format!("tensors {} and {} overlap", quoted(&a.2), quoted(&b.2));
                return Err(wrong(Code::Range, &what)
                    .present(format!("bytes {}..{} and {}..{}", a.0, a.1, b.0, b.1)));
            }
        }
        self.files.open.insert(file_name, (file, len));
        Ok(())
    }

    /// The tensor of that name, which ought to have that shape: a stored one may have another.
    pub fn get(&self, name: &str, shape: &[usize]) -> Option<Cow<'_, Stored>> {
        match &self.promised {
            Some(p) => Some(Cow::Owned(p.stored(name, shape))),
            None => self.tensors.get(name).map(Cow::Borrowed),
        }
    }

    /// Whether there is a tensor that not every checkpoint has.
    pub fn has(&self, name: &str) -> bool {
        self.promised.as_ref().map_or(self.tensors.contains_key(name), |p| p.has(name))
    }

    /// The stored tensors, in the order of their names.
    pub fn stored(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.tensors.iter().map(|(n, t)| (n.as_str(), t))
    }

    /// The elements of a tensor.
    pub fn read(&self, t: &Stored) -> silure_ir::Result<silure_ir::Tensor> {
        t.expr().eval(&self.files)
    }

    /// What the index and all headers say, hashed.
    pub fn digest(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    /// The files alone, for reading.
    pub fn into_files(self) -> Files {
        self.files
    }
}

/// Entries of a header in their order; a name that is there twice is refused.
struct Entries(Vec<(String, Entry)>);

#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl Entry {
    fn check(&self, file: &Arc<str>, tensor: &str, start: u64, len: u64) -> Result<Stored> {
        let at = || format!("{}, tensor {}", quoted(file), quoted(tensor));
        let wrong = |code, what: &str| Error::new(code, at(), what);
        let Some(elem) = elem(&self.dtype) else {
            return Err(wrong(Code::Unsupported, "the element type is not supported")
                .needed(TYPES.iter().map(|t| t.0).collect::<Vec<_>>().join(", "))
                .present(quoted(&self.dtype)));
        };
        if self.shape.len() > MOST_AXES {
            return Err(wrong(Code::Limit, "the tensor has too many axes")
                .needed(format!("at most {MOST_AXES}"))
                .present(self.shape.len().to_string()));
        }
        let width = elem.cell_bytes() as u64;
        let need = self.shape.iter().try_fold(width, |a, &d| a.checked_mul(d));
        let [from, to] = self.data_offsets;
        let have = to.checked_sub(from);
        let (Some(need), Some(have)) = (need, have) else {
            return Err(wrong(Code::Range, "sizes or offsets are out of range")
                .present(format!("shape {:?}, bytes {from}..{to}", self.shape)));
        };
        if need != have {
            return Err(wrong(Code::Range, "the bytes do not fit type and shape")
                .needed(format!("{need} bytes for {} {:?}", self.dtype, self.shape))
                .present(format!("{have} bytes")));
        }
        let room = len - start;
        if to > room {
            return Err(wrong(Code::Range, "the bytes are outside the file")
                .needed(format!("{to} bytes behind the header"))
                .present(format!("{room} bytes")));
        }
        let shape = self.shape.iter().map(|&d| d as usize).collect();
        Ok(Stored {
            file: file.clone(),
            offset: start + from,
            bytes: need,
            elem,
            shape,
            made: None,
        })
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Entries, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Entries;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Entries, A::Error> {
                let mut out = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        out.push((name, map.next_value()?));
                    }
                }
                Ok(Entries(out))
            }
        }
        d.deserialize_map(Map)
    }
}

/// Element types by the names of safetensors.
const TYPES: &[(&str, Elem)] = &[
    ("F64", Elem::F64),
    ("F32", Elem::F32),
    ("F16", Elem::F16),
    ("BF16", Elem::Bf16),
    ("F8_E4M3", Elem::E4m3fn),
    ("F8_E5M2", Elem::E5m2),
    ("F8_E8M0", Elem::E8m0),
    ("I64", Elem::I64),
    ("I32", Elem::I32),
    ("I16", Elem::I16),
    ("I8", Elem::I8),
    ("U8", Elem::U8),
    ("BOOL", Elem::Bool),
];

fn elem(name: &str) -> Option<Elem> {
    TYPES.iter().find(|t| t.0 == name).map(|t| t.1)
}
