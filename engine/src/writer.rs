//! The engine file: writing.
//!
//! Weights stream: the layout is known from the plan, so each tensor is asked for once, in order,
//! and handed on in pieces. Everything is written to a temporary file in the target's folder and
//! renamed at the end; when anything fails, the target is as it was. Nothing of the host or the
//! time goes in, so the same input gives the same bytes.
//!
//! ```no_run
//! use silure_engine::{EngineWriter, PlanBuilder};
//! let plan = PlanBuilder::new().finish().unwrap();
//! EngineWriter::new(plan, "0.1.0")
//!     .target("cpu:x86-64-v3")
//!     .write("m.silure".as_ref(), |_weight, _sink| Ok(()))
//!     .unwrap();
//! ```

use crate::device::DeviceCode;
use crate::error::{FormatError, Result};
use crate::file::{HEADER, MAGIC, PAGE, check_assets, is_plain_name};
use crate::manifest::*;
use crate::pieces::Pieces;
use crate::plan::Plan;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Gives the bytes of a weight: called once per weight of the plan, in order.
pub type WeightSource<'a> = dyn FnMut(u32, &mut dyn Write) -> std::io::Result<()> + 'a;

/// Writes engine files.
pub struct EngineWriter {
    plan: Plan,
    manifest: Manifest,
    code: Vec<(SectionKind, String, Vec<u8>)>,
    debug: Option<Vec<u8>>,
    assets: Vec<(String, Vec<u8>)>,
    beside: bool,
}

/// A file that disappears unless it is kept.
struct Temp {
    path: PathBuf,
    kept: bool,
}

impl Temp {
    /// A new file in the folder of `target`; never one that exists.
    fn new(target: &Path) -> Result<(Temp, File)> {
        let name = target.file_name().map(|n| n.to_string_lossy().into_owned());
        let name = name.ok_or_else(|| FormatError::field("path", "a file name", "none"))?;
        for i in 0..1000u32 {
            let path = target.with_file_name(format!(".{name}.{}-{i}.tmp", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((Temp { path, kept: false }, file)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(FormatError::io(&path, e)),
            }
        }
        Err(FormatError::field("temporary file", "a free name", "1000 taken ones"))
    }

    fn keep(mut self, target: &Path) -> Result<()> {
        std::fs::rename(&self.path, target).map_err(|e| FormatError::io(target, e))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing better can be done about a temporary file that cannot be removed.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Writes through, hashing and counting.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hash.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// A file in memory, whose growth can fail.
#[derive(Default)]
struct Memory(std::io::Cursor<Vec<u8>>);

impl Memory {
    /// Makes room for so many more bytes.
    fn room(&mut self, bytes: u64) -> std::io::Result<()> {
        let held = self.0.get_ref().len();
        let n = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.0.get_mut().try_reserve(n).map_err(|_| {
            let what =
                format!("{bytes} bytes more than {held} are not there for an engine in memory");
            std::io::Error::new(std::io::ErrorKind::OutOfMemory, what)
        })
    }
}

impl Write for Memory {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let end = self.0.position().saturating_add(buf.len() as u64);
        self.room(end.saturating_sub(self.0.get_ref().len() as u64))?;
        self.0.write(buf)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Seek for Memory {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.0.seek(to)
    }
}

fn pad(w: &mut impl Write, n: u64) -> std::io::Result<()> {
    std::io::copy(&mut std::io::repeat(0).take(n), w).map(|_| ())
}

impl EngineWriter {
    /// A writer of a plan's engine; `tool` is the version of the tool that writes.
    pub fn new(plan: Plan, tool: &str) -> EngineWriter {
        let manifest = Manifest {
            format_version: version_of(&plan, false),
            min_reader: version_of(&plan, false),
            tool: tool.into(),
            targets: vec![],
            source: String::new(),
            options: Default::default(),
            layouts: String::new(),
            entries: signatures(&plan),
            sections: vec![],
        };
        EngineWriter { plan, manifest, code: vec![], debug: None, assets: vec![], beside: false }
    }

    /// Adds a target's name to the manifest.
    pub fn target(mut self, name: &str) -> Self {
        self.manifest.targets.push(name.into());
        self
    }

    /// States what its kernels' buffers and sizes are, see [`Manifest::layouts`].
    pub fn layouts(mut self, hash: &str) -> Self {
        self.manifest.layouts = hash.into();
        self
    }

    /// Sets an option or a part of the type recipe.
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.manifest.options.insert(name.into(), value.into());
        self
    }

    /// Sets the hash of the source model.
    pub fn source(mut self, hash: &str) -> Self {
        self.manifest.source = hash.into();
        self
    }

    /// Adds a code object: an offset in `code` for each of the plan's functions.
    pub fn code(mut self, target: &str, offsets: &[u32], code: &[u8]) -> Self {
        let mut bytes = (offsets.len() as u32).to_le_bytes().to_vec();
        offsets.iter().for_each(|o| bytes.extend(o.to_le_bytes()));
        bytes.resize(bytes.len().next_multiple_of(64), 0);
        bytes.extend_from_slice(code);
        self.code.push((SectionKind::Code, target.into(), bytes));
        self
    }

    /// Adds the kernels of a device besides the host, in the order of the plan's `device_kernels`.
    pub fn device_code(mut self, target: &str, code: &DeviceCode) -> Self {
        self.code.push((SectionKind::Device, target.into(), code.encode()));
        self
    }

    /// Adds the compiler's report.
    pub fn debug(mut self, bytes: Vec<u8>) -> Self {
        self.debug = Some(bytes);
        self
    }

    /// Adds a file for the host. Names are plain file names, each given once; what a reader would
    /// refuse is refused when the engine is written.
    pub fn asset(mut self, name: &str, bytes: Vec<u8>) -> Self {
        self.assets.push((name.into(), bytes));
        let version = version_of(&self.plan, true);
        (self.manifest.format_version, self.manifest.min_reader) = (version, version);
        self
    }

    /// Puts the weights into `NAME.weights` beside the engine.
    pub fn weights_beside(mut self, beside: bool) -> Self {
        self.beside = beside;
        self
    }

    /// Writes the engine. `weights(i, sink)` writes all bytes of the plan's weight `i`.
    pub fn write(
        &self,
        path: &Path,
        mut weights: impl FnMut(u32, &mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        let beside = match (self.beside && !self.plan.weights.is_empty(), path.file_name()) {
            (true, Some(name)) => format!("{}.weights", name.to_string_lossy()),
            _ => String::new(),
        };
        if !beside.is_empty() && !is_plain_name(&beside) {
            return Err(FormatError::field("engine file name", "a plain UTF-8 name", &beside));
        }
        let (temp, file) = Temp::new(path)?;
        let io = |e| FormatError::io(path, e);
        let mut out = Pieces::new(file);
        let mut extra = None;
        if beside.is_empty() {
            self.emit::<_, File>(&mut out, "", None, &mut weights, path)?;
        } else {
            let target = path.with_file_name(&beside);
            let (temp, file) = Temp::new(&target)?;
            let mut side = Pieces::new(file);
            self.emit(&mut out, &beside, Some(&mut side), &mut weights, path)?;
            side.flush().map_err(|e| FormatError::io(&target, e))?;
            extra = Some((temp, target));
        }
        out.flush().map_err(io)?;
        drop(out);
        if let Some((temp, target)) = extra {
            temp.keep(&target)?;
        }
        temp.keep(path)
    }

    /// The engine as bytes, weights inside.
    ///
    /// # Errors
    /// As [`EngineWriter::write`]; and if memory does not hold it.
    pub fn to_bytes(
        &self,
        mut weights: impl FnMut(u32, &mut dyn Write) -> std::io::Result<()>,
    ) -> Result<Vec<u8>> {
        let path = Path::new("memory");
        let mut out = Memory::default();
        out.room(self.plan.weight_bytes()).map_err(|e| FormatError::io(path, e))?;
        self.emit::<_, File>(&mut out, "", None, &mut weights, path)?;
        Ok(out.0.into_inner())
    }

    fn emit<W: Write + Seek, S: Write>(
        &self,
        out: &mut W,
        beside: &str,
        side: Option<&mut S>,
        weights: &mut WeightSource<'_>,
        path: &Path,
    ) -> Result<()> {
        let io = |e| FormatError::io(path, e);
        self.plan.validate()?;
        let plan = self.plan.encode();
        // Kind, target, name, bytes.
        let mut parts: Vec<(SectionKind, &str, &str, &[u8])> =
            vec![(SectionKind::Plan, "", "", &plan)];
        parts.extend(self.code.iter().map(|(k, t, b)| (*k, t.as_str(), "", &b[..])));
        parts.extend(self.debug.iter().map(|b| (SectionKind::Debug, "", "", &b[..])));
        parts.extend(self.assets.iter().map(|(n, b)| (SectionKind::Asset, "", n.as_str(), &b[..])));
        let mut manifest = self.manifest.clone();
        let blank = "0".repeat(64);
        manifest.sections = parts
            .iter()
            .map(|(kind, target, name, bytes)| Section {
                kind: *kind,
                target: target.to_string(),
                name: name.to_string(),
                file: String::new(),
                offset: 0,
                bytes: bytes.len() as u64,
                sha256: hex(&Sha256::digest(bytes)),
            })
            .collect();
        if !self.plan.weights.is_empty() {
            manifest.sections.push(Section {
                kind: SectionKind::Weights,
                target: String::new(),
                name: String::new(),
                file: beside.into(),
                offset: 0,
                bytes: self.plan.weight_bytes(),
                sha256: blank,
            });
        }
        check_assets(&manifest)?;
        let json = |m: &Manifest| {
            serde_json::to_vec(m).map_err(|e| FormatError::field("manifest", "JSON", e))
        };
        // Offsets and the manifest's size depend on each other through the digits: repeat until
        // they agree. Sizes only grow, so this ends.
        let mut size = 0u64;
        loop {
            let mut at = HEADER as u64 + size;
            for s in &mut manifest.sections {
                if !s.file.is_empty() {
                    continue;
                }
                let align = if s.kind == SectionKind::Weights { PAGE } else { 64 };
                s.offset = at.next_multiple_of(align);
                at = s.offset + s.bytes;
            }
            let len = json(&manifest)?.len() as u64;
            if len <= size {
                break;
            }
            size = len;
        }
        pad(out, HEADER as u64 + size).map_err(io)?;
        let mut at = HEADER as u64 + size;
        for ((.., bytes), s) in parts.iter().zip(&manifest.sections) {
            pad(out, s.offset - at).map_err(io)?;
            out.write_all(bytes).map_err(io)?;
            at = s.offset + s.bytes;
        }
        if let Some(s) = manifest.sections.last_mut().filter(|s| s.kind == SectionKind::Weights) {
            s.sha256 = match side {
                Some(side) => self.emit_weights(side, weights, path)?,
                None => {
                    pad(out, s.offset - at).map_err(io)?;
                    self.emit_weights(out, weights, path)?
                }
            };
        }
        let mut text = json(&manifest)?;
        // JSON ignores the spaces that bring the text to the size the offsets were computed for.
        text.resize(size as usize, b' ');
        let mut header = MAGIC.to_vec();
        header.extend(manifest.format_version.to_le_bytes());
        header.extend(manifest.min_reader.to_le_bytes());
        header.extend(size.to_le_bytes());
        header.extend(0u64.to_le_bytes());
        header.extend_from_slice(&Sha256::digest(&text));
        out.seek(SeekFrom::Start(0)).map_err(io)?;
        out.write_all(&header).map_err(io)?;
        out.write_all(&text).map_err(io)
    }

    fn emit_weights(
        &self,
        out: &mut impl Write,
        weights: &mut WeightSource<'_>,
        path: &Path,
    ) -> Result<String> {
        let io = |e| FormatError::io(path, e);
        let mut out = Hashed { inner: out, hash: Sha256::new(), bytes: 0 };
        for (i, w) in self.plan.weights.iter().enumerate() {
            let gap = w.offset - out.bytes;
            pad(&mut out, gap).map_err(io)?;
            weights(i as u32, &mut out).map_err(io)?;
            let written = out.bytes - w.offset;
            if written != w.bytes {
                return Err(FormatError::field(
                    format!("weight '{}'", self.plan.str(w.name)),
                    format!("{} bytes", w.bytes),
                    format!("{written} bytes"),
                ));
            }
        }
        Ok(hex(&out.hash.finalize()))
    }
}
