//! External data: tensors in other files of the model's folder.
//!
//! A location is written by whoever wrote the model, so it may name anything. Read are only regular
//! files whose real path is exactly the model's folder followed by the location. Refused, each with
//! its own message: absolute paths, `..` and `.`, empty parts, backslashes, drive letters and
//! streams (`:`), NUL, symbolic links anywhere below the folder, files with a second hard link,
//! folders, pipes, sockets, devices, and a spelling that differs from the file's own (letter case on
//! file systems that ignore it). The folder itself may be reached through links: the user named it.
//!
//! A file is looked at before and after it is opened and must be the same one.

use crate::error::{Code, Error, Result, quote};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The folder of a model, with the external files seen in it.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    seen: Mutex<HashMap<String, Arc<ExternalFile>>>,
}

/// One file of external data that was found fit to read.
#[derive(Debug)]
pub struct ExternalFile {
    path: PathBuf,
    len: u64,
    identity: Identity,
}

/// What must not change between looking at a file and reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Identity {
    len: u64,
    device_and_inode: (u64, u64),
}

impl Folder {
    pub(crate) fn new(path: &Path) -> Folder {
        Folder { path: path.to_path_buf(), seen: Mutex::default() }
    }

    /// The file at `location` beneath the folder; `at` names the tensor in errors.
    pub(crate) fn find(&self, location: &str, at: &str) -> Result<Arc<ExternalFile>> {
        let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(file) = seen.get(location) {
            return Ok(file.clone());
        }
        let file = Arc::new(self.look(location, at)?);
        seen.insert(location.to_string(), file.clone());
        Ok(file)
    }

    fn look(&self, location: &str, at: &str) -> Result<ExternalFile> {
        let refuse = |why: &str| {
            let what = format!("external data location {} {why}", quote(location));
            Error::new(Code::Path, at, what).needed("a plain file inside the model's folder")
        };
        check_spelling(location).map_err(&refuse)?;
        let folder = self.path.canonicalize().map_err(|e| Error::io(&self.path, "resolve", e))?;
        let path = folder.join(location);
        // Every part below the folder, in turn: none may be a link.
        let mut part = folder.clone();
        for name in location.split('/') {
            part.push(name);
            let meta = part.symlink_metadata().map_err(|e| match e.kind() {
                std::io::ErrorKind::NotFound => {
                    refuse("is not there").present(format!("no {}", part.display()))
                }
                _ => Error::io(&part, "look at", e),
            })?;
            if meta.is_symlink() {
                return Err(refuse("goes through a symbolic link"));
            }
        }
        let real = path.canonicalize().map_err(|e| Error::io(&path, "resolve", e))?;
        if real != path {
            return Err(
                refuse("is not the file's own spelling").present(format!("{}", real.display()))
            );
        }
        let meta = path.symlink_metadata().map_err(|e| Error::io(&path, "look at", e))?;
        check_kind(&meta).map_err(&refuse)?;
        let identity = identity(&meta);
        let file = ExternalFile { path, len: identity.len, identity };
        file.open(at)?;
        Ok(file)
    }
}

impl ExternalFile {
    /// The real path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length in bytes when the model was read.
    #[expect(clippy::len_without_is_empty, reason = "a length on disk, not a collection")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Opens the file if it is still the one that was looked at.
    fn open(&self, at: &str) -> Result<File> {
        let changed = |why: &str| {
            let what = format!("external data file {} {why}", self.path.display());
            Error::new(Code::Path, at, what)
        };
        let before =
            self.path.symlink_metadata().map_err(|e| Error::io(&self.path, "look at", e))?;
        check_kind(&before).map_err(&changed)?;
        let file = File::open(&self.path).map_err(|e| Error::io(&self.path, "open", e))?;
        let meta = file.metadata().map_err(|e| Error::io(&self.path, "look at", e))?;
        check_kind(&meta).map_err(&changed)?;
        if identity(&meta) != self.identity || identity(&before) != self.identity {
            return Err(changed("changed while the model was read"));
        }
        Ok(file)
    }

    /// Reads `len` bytes from `offset`.
    pub(crate) fn read(&self, offset: u64, len: u64, at: &str) -> Result<Vec<u8>> {
        let mut file = self.open(at)?;
        let memory = || {
            Error::new(Code::Limit, at, "not enough memory to read the external data")
                .needed(format!("{len} bytes"))
        };
        let n = usize::try_from(len).map_err(|_| memory())?;
        let mut data = Vec::new();
        data.try_reserve_exact(n).map_err(|_| memory())?;
        file.seek(SeekFrom::Start(offset)).map_err(|e| Error::io(&self.path, "read", e))?;
        file.take(len).read_to_end(&mut data).map_err(|e| Error::io(&self.path, "read", e))?;
        if data.len() != n {
            return Err(Error::new(Code::Range, at, "the external data file became shorter")
                .needed(format!("{n} bytes at {offset}"))
                .present(format!("{} bytes", data.len())));
        }
        Ok(data)
    }
}

fn check_spelling(location: &str) -> std::result::Result<(), &'static str> {
    if location.is_empty() {
        return Err("is empty");
    }
    if location.contains('\0') {
        return Err("contains a NUL character");
    }
    if location.contains('\\') {
        return Err("contains a backslash");
    }
    if location.contains(':') {
        return Err("contains a colon");
    }
    if location.chars().any(char::is_control) {
        return Err("contains a control character");
    }
    if location.starts_with('/') || Path::new(location).is_absolute() {
        return Err("is absolute");
    }
    if location.len() > 4096 {
        return Err("is longer than 4096 bytes");
    }
    for part in location.split('/') {
        match part {
            ".." => return Err("leaves the folder by `..`"),
            "." | "" => return Err("has an empty or `.` part"),
            _ => {}
        }
    }
    Ok(())
}

fn check_kind(meta: &Metadata) -> std::result::Result<(), &'static str> {
    if meta.is_symlink() {
        return Err("is a symbolic link");
    }
    if meta.is_dir() {
        return Err("is a folder");
    }
    if !meta.is_file() {
        return Err("is not a regular file (a pipe, a socket or a device)");
    }
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::nlink(meta) > 1 {
        return Err("has more than one hard link");
    }
    Ok(())
}

fn identity(meta: &Metadata) -> Identity {
    #[cfg(unix)]
    let device_and_inode = {
        use std::os::unix::fs::MetadataExt;
        (meta.dev(), meta.ino())
    };
    #[cfg(not(unix))]
    let device_and_inode = (0, 0);
    Identity { len: meta.len(), device_and_inode }
}
