//! Files of a model's directory: regular ones whose real path stays inside.
//!
//! The one place outside that a link may lead to is where the cache of the hub keeps its files: a
//! directory `snapshots/REVISION` holds links into `blobs` beside `snapshots`.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use crate::error::{Code, Error, Result, quoted};

/// A model's directory.
pub struct Folder {
    path: PathBuf,
    inside: Vec<PathBuf>,
}

impl Folder {
    /// The directory at `path`.
    pub fn open(path: &Path) -> Result<Folder> {
        let real = path.canonicalize().map_err(|e| Error::io(path, "open the directory", &e))?;
        if !real.is_dir() {
            return Err(Error::new(Code::Path, path.display().to_string(), "not a directory"));
        }
        let mut inside = vec![real.clone()];
        if let Some(snapshots) = real.parent()
            && snapshots.file_name().is_some_and(|n| n == "snapshots")
        {
            inside.push(snapshots.with_file_name("blobs"));
        }
        Ok(Folder { path: path.to_path_buf(), inside })
    }

    /// The path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is anything of that name.
    pub fn has(&self, name: &str) -> bool {
        self.path.join(name).symlink_metadata().is_ok()
    }

    /// Opens a file by its name, which a file of the directory may have said; gives its length too.
    pub fn file(&self, name: &str) -> Result<(File, u64)> {
        let wrong = |what: &str| Error::new(Code::Path, quoted(name), what);
        let plain = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
        if !plain || name.is_empty() {
            return Err(wrong("the name leads out of the directory").needed("a name inside it"));
        }
        let path = self.path.join(name);
        let io = |e| Error::io(&path, "open", &e);
        let real = path.canonicalize().map_err(io)?;
        if !self.inside.iter().any(|p| real.starts_with(p)) {
            let there = real.display().to_string();
            return Err(wrong("the file is outside the directory").present(there));
        }
        // Opening something else than a regular file may block.
        if !real.metadata().map_err(io)?.is_file() {
            return Err(wrong("not a regular file"));
        }
        let file = File::open(&real).map_err(io)?;
        let meta = file.metadata().map_err(io)?;
        if !meta.is_file() {
            return Err(wrong("not a regular file"));
        }
        Ok((file, meta.len()))
    }

    /// The contents of a file of at most `most` bytes.
    pub fn read(&self, name: &str, most: u64) -> Result<Vec<u8>> {
        let (file, len) = self.file(name)?;
        let at = || self.path.join(name).display().to_string();
        let mut out = Vec::new();
        let read = file.take(most.saturating_add(1)).read_to_end(&mut out);
        read.map_err(|e| Error::io(&self.path.join(name), "read", &e))?;
        if len > most || out.len() as u64 > most {
            return Err(Error::new(Code::Limit, at(), "the file is too large")
                .needed(format!("at most {most} bytes"))
                .present(format!("{} bytes", len.max(out.len() as u64))));
        }
        Ok(out)
    }
}
