//! Translated kernels on disk, so that a driver translates a text once.
//!
//! A file's name is the SHA-256 of the text, the device's name and capability and the driver's version: another driver or
//! card never reads it. Its contents begin with their own hash; a file that was cut or changed counts as not there.
//! Files are written beside and renamed. What the folder holds is code: it is as trusted as the engine, and belongs
//! to its user alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use sha2::{Digest, Sha256};

/// Where it is: a folder, or `off`. Without it, `silure/cubin` among the user's caches; nothing is kept for the emulator.
pub(crate) const VARIABLE: &str = "SILURE_CACHE";
/// Bytes at which the oldest files go, and how many are left then.
const MOST: u64 = 512 << 20;
const LEFT: u64 = 384 << 20;
const HASH: usize = 32;

/// What came of the texts of all engines that were loaded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Translated {
    /// Kernels whose translation was found on disk.
    pub found: u64,
    /// Kernels that the driver translated.
    pub made: u64,
    /// The folder, if there is one.
    pub folder: Option<PathBuf>,
    /// Why translations could not be kept.
    pub problem: Option<String>,
}

/// The folder of a device.
pub(crate) struct Cache {
    device: String,
    state: Mutex<Translated>,
}

impl Cache {
    /// For a device, by what its translations depend on.
    pub fn new(device: String, emulated: bool) -> Cache {
        let set = std::env::var_os(VARIABLE);
        let home = || {
            let plain = |v: &str| std::env::var_os(v).filter(|p| Path::new(p).is_absolute());
            let base = plain("XDG_CACHE_HOME").map(PathBuf::from);
            base.or_else(|| plain("HOME").map(|h| PathBuf::from(h).join(".cache")))
        };
        let folder = match set {
            Some(v) if v == "off" => None,
            Some(v) => Some(PathBuf::from(v)),
            None if emulated => None,
            None => home().map(|b| b.join("silure/cubin")),
        };
        Cache { device, state: Mutex::new(Translated { folder, ..Translated::default() }) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Translated> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// What came of it so far.
    pub fn translated(&self) -> Translated {
        self.state().clone()
    }

    /// Whether translations are kept.
    pub fn is_on(&self) -> bool {
        let s = self.state();
        s.folder.is_some() && s.problem.is_none()
    }

    fn file(&self, text: &str) -> Option<PathBuf> {
        let mut h = Sha256::new();
        for part in [self.device.as_str(), text] {
            h.update((part.len() as u64).to_le_bytes());
            h.update(part);
        }
        let name: String = h.finalize().iter().map(|b| format!("{b:02x}")).collect();
        self.state().folder.as_ref().map(|f| f.join(name + ".cubin"))
    }

    /// The translation of a text.
    pub fn get(&self, text: &str) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.file(text)?).ok()?;
        if bytes.len() < HASH || Sha256::digest(&bytes[HASH..])[..] != bytes[..HASH] {
            return None;
        }
        bytes.drain(..HASH);
        Some(bytes)
    }

    /// Counts a kernel.
    pub fn count(&self, found: bool) {
        let mut s = self.state();
        match found {
            true => s.found += 1,
            false => s.made += 1,
        }
    }

    /// Keeps a translation. A folder that cannot be written is no error of the run: it is said in [`Translated::problem`].
    pub fn put(&self, text: &str, code: &[u8]) {
        let Some(file) = self.file(text) else { return };
        let Some(folder) = file.parent() else { return };
        let written = make(folder).and_then(|()| {
            let temp = file.with_extension(format!("{}.tmp", std::process::id()));
            let all = [&Sha256::digest(code)[..], code].concat();
            fs::write(&temp, all).and_then(|()| fs::rename(&temp, &file)).inspect_err(|_| {
                // The first error is the one that is told.
                let _ = fs::remove_file(&temp);
            })
        });
        if let Err(e) = written.and_then(|()| trim(folder)) {
            self.state().problem = Some(format!("{}: {e}", folder.display()));
        }
    }
}

fn make(folder: &Path) -> std::io::Result<()> {
    let mut b = fs::DirBuilder::new();
    b.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut b, 0o700);
    b.create(folder)
}

/// Removes the oldest files of a folder that has grown too large.
fn trim(folder: &Path) -> std::io::Result<()> {
    let mut all = vec![];
    for e in fs::read_dir(folder)? {
        let e = e?;
        // Another process may have removed it.
        let Ok(m) = e.metadata() else { continue };
        if m.is_file() && e.path().extension().is_some_and(|x| x == "cubin") {
            all.push((m.modified()?, m.len(), e.path()));
        }
    }
    let mut total: u64 = all.iter().map(|f| f.1).sum();
    if total <= MOST {
        return Ok(());
    }
    all.sort();
    for (_, bytes, path) in all {
        if total <= LEFT {
            break;
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => total -= bytes,
        }
    }
    Ok(())
}
