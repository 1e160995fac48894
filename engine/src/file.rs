//! The engine file: reading.
//!
//! ```text
//! 0   magic "\x7fSILURE\n"
//! 8   format version, u32      12  oldest reader, u32
//! 16  manifest size, u64       24  reserved, u64 (0)
//! 32  SHA-256 of the manifest
//! 64  manifest (JSON), then sections at multiples of 64: plan, code objects, debug, assets
//!     weights last, at a multiple of 4096 (or beside, in NAME.weights); each tensor at one of 64
//! ```
//!
//! All integers are little-endian. Reading checks every size against the bytes there are, overlaps
//! and alignment, and the hashes of manifest, plan, code and assets; those of debug and weights only in
//! [`EngineFile::check_section`]. A code section begins with the number of functions (u32) and their offsets (u32
//! each) relative to the code, which begins at the next multiple of 64.

use crate::device::DeviceCode;
use crate::error::{FormatError, Result};
use crate::manifest::*;
use crate::plan::Plan;
use sha2::{Digest, Sha256};

/// First bytes of an engine file.
pub const MAGIC: [u8; 8] = *b"\x7fSILURE\n";
/// Bytes before the manifest.
pub const HEADER: usize = 64;
/// Alignment of the weights section.
pub const PAGE: u64 = 4096;

/// A parsed engine: the tables, and where the bytes are.
#[derive(Debug)]
pub struct EngineFile<'a> {
    bytes: &'a [u8],
    /// What the file says of itself.
    pub manifest: Manifest,
    /// The program.
    pub plan: Plan,
}

/// A code object: functions at offsets in position-independent code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeObject<'a> {
    /// The ISA level or device.
    pub target: &'a str,
    /// Offset of each of the plan's functions in `code`.
    pub offsets: Vec<u32>,
    /// The code, or a device's text or object.
    pub code: &'a [u8],
}

/// Where the weights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightsAt<'a> {
    /// File name beside the engine; `None`: in the engine itself.
    pub file: Option<&'a str>,
    /// Byte offset in that file.
    pub offset: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// Whether a name may be that of a file beside the engine: one plain component.
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && !name.contains(['/', '\\', '\0', ':'])
        && name.len() <= 255
}

impl<'a> EngineFile<'a> {
    /// Whether these bytes begin like an engine file.
    pub fn is_engine(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }

    /// Reads the manifest alone (its hash is checked).
    pub fn manifest(bytes: &[u8]) -> Result<(Manifest, u64)> {
        let present = format!("{} bytes", bytes.len());
        let header = bytes
            .get(..HEADER)
            .ok_or_else(|| FormatError::field("header", "64 bytes", &present))?;
        if header[..8] != MAGIC {
            return Err(FormatError::field("magic", hex(&MAGIC), hex(&header[..8])));
        }
        let u32_at = |i: usize| u32::from_le_bytes([0, 1, 2, 3].map(|k| header[i + k]));
        let u64_at = |i: usize| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|k| header[i + k]));
        if u32_at(12) > FORMAT_VERSION || u32_at(8) == 0 {
            return Err(FormatError::field(
                "format version",
                format_args!("one that a reader of version {FORMAT_VERSION} knows"),
                format_args!("{} (oldest reader {})", u32_at(8), u32_at(12)),
            ));
        }
        if u64_at(24) != 0 {
            return Err(FormatError::field("reserved", 0, u64_at(24)));
        }
        let size = u64_at(16);
        let json = usize::try_from(size)
            .ok()
            .and_then(|n| bytes[HEADER..].get(..n))
            .ok_or_else(|| FormatError::field("manifest", format!("{size} bytes"), &present))?;
        check_hash("manifest", json, &hex(&header[32..64]))?;
        let manifest = Manifest::parse(json)?;
        if (manifest.format_version, manifest.min_reader) != (u32_at(8), u32_at(12)) {
            return Err(FormatError::field(
                "manifest: versions",
                format_args!("{} and {}", u32_at(8), u32_at(12)),
                format_args!("{} and {}", manifest.format_version, manifest.min_reader),
            ));
        }
        Ok((manifest, HEADER as u64 + size))
    }

    /// Reads an engine and checks all but the debug and weights bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<EngineFile<'a>> {
        let (manifest, manifest_end) = EngineFile::manifest(bytes)?;
        check_sections(&manifest, manifest_end, bytes.len() as u64)?;
        let at = |s: &Section| &bytes[s.offset as usize..(s.offset + s.bytes) as usize];
        let mut plan = None;
        for s in &manifest.sections {
            match s.kind {
                SectionKind::Plan => {
                    check_hash("plan", at(s), &s.sha256)?;
                    plan = Some(Plan::decode(at(s)).map_err(|e| e.within("plan"))?);
                }
                SectionKind::Code | SectionKind::Device => {
                    check_hash(&format!("code '{}'", s.target), at(s), &s.sha256)?
                }
                SectionKind::Asset => check_hash(&format!("asset '{}'", s.name), at(s), &s.sha256)?,
                SectionKind::Debug | SectionKind::Weights => {}
            }
        }
        let plan = plan.ok_or_else(|| FormatError::field("sections", "one plan", "none"))?;
        if manifest.entries != signatures(&plan) {
            return Err(FormatError::field(
                "manifest: entries",
                "the signatures of the plan",
                "others",
            ));
        }
        let file = EngineFile { bytes, manifest, plan };
        let weights = file.weights().map_or(0, |w| w.bytes);
        if file.plan.weight_bytes() > weights {
            return Err(FormatError::field(
                "weights section",
                format!("{} bytes", file.plan.weight_bytes()),
                format!("{weights} bytes"),
            ));
        }
        for s in &file.manifest.sections {
            if s.kind == SectionKind::Device {
                let within = |e: FormatError| e.within(format!("code '{}'", s.target));
                let code = DeviceCode::decode(at(s)).map_err(within)?;
                code.check(&file.plan).map_err(within)?;
            }
            if s.kind == SectionKind::Code {
                let code = file.code_of(s).map_err(|e| e.within(format!("code '{}'", s.target)))?;
                if code.offsets.len() != file.plan.functions.len() {
                    return Err(FormatError::field(
                        format!("code '{}': functions", s.target),
                        file.plan.functions.len(),
                        code.offsets.len(),
                    ));
                }
            }
        }
        Ok(file)
    }

    /// The bytes of a section of the engine file itself; `None` for one beside it.
    pub fn section(&self, s: &Section) -> Option<&'a [u8]> {
        let end = s.offset.checked_add(s.bytes)?;
        let inside = s.file.is_empty();
        inside.then(|| self.bytes.get(s.offset as usize..end as usize)).flatten()
    }

    fn code_of<'s>(&self, s: &'s Section) -> Result<CodeObject<'s>>
    where
        'a: 's,
    {
        let bytes: &'s [u8] = self.section(s).unwrap_or(&[]);
        let word = |i: usize| {
            let b = bytes.get(i..i.checked_add(4)?)?;
            Some(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        };
        let short = |needed: usize| {
            FormatError::field("size", format!("{needed} bytes"), format!("{}", bytes.len()))
        };
        let n = word(0).ok_or_else(|| short(4))? as usize;
        let table = n.checked_mul(4).and_then(|t| t.checked_add(4)).ok_or_else(|| short(4))?;
        let start = table.next_multiple_of(64);
        let code = bytes.get(start..).ok_or_else(|| short(start))?;
        let mut offsets = Vec::with_capacity(n);
        for i in 0..n {
            let offset = word(4 + 4 * i).ok_or_else(|| short(table))?;
            if offset as usize >= code.len() {
                return Err(FormatError::field(
                    format!("function {i}"),
                    format_args!("an offset below {}", code.len()),
                    offset,
                ));
            }
            offsets.push(offset);
        }
        Ok(CodeObject { target: &s.target, offsets, code })
    }

    /// The code objects, in the file's order.
    pub fn code_objects(&self) -> Vec<CodeObject<'_>> {
        let sections = self.manifest.sections.iter().filter(|s| s.kind == SectionKind::Code);
        // Parsing was checked when the file was read.
        sections.filter_map(|s| self.code_of(s).ok()).collect()
    }

    /// The kernels for devices besides the host, each with its target, in the file's order.
    pub fn device_code(&self) -> Vec<(&str, DeviceCode)> {
        let sections = self.manifest.sections.iter().filter(|s| s.kind == SectionKind::Device);
        // Parsing was checked when the file was read.
        let read = |s: &'_ Section| DeviceCode::decode(self.section(s)?).ok();
        sections.filter_map(|s| Some((s.target.as_str(), read(s)?))).collect()
    }

    /// The compiler's report, if there is one.
    pub fn debug(&self) -> Option<&'a [u8]> {
        let s = self.manifest.sections.iter().find(|s| s.kind == SectionKind::Debug)?;
        self.section(s)
    }

    /// The assets' names and bytes, in the file's order.
    pub fn assets(&self) -> impl Iterator<Item = (&str, &'a [u8])> {
        let sections = self.manifest.sections.iter().filter(|s| s.kind == SectionKind::Asset);
        sections.filter_map(|s| Some((s.name.as_str(), self.section(s)?)))
    }

    /// The bytes of an asset; `None` if the engine has none of this name.
    pub fn asset(&self, name: &str) -> Option<&'a [u8]> {
        self.assets().find(|(n, _)| *n == name).map(|(_, bytes)| bytes)
    }

    /// Where the weights are; `None` if there are none.
    pub fn weights(&self) -> Option<WeightsAt<'_>> {
        let s = self.manifest.sections.iter().find(|s| s.kind == SectionKind::Weights)?;
        let file = (!s.file.is_empty()).then_some(s.file.as_str());
        Some(WeightsAt { file, offset: s.offset, bytes: s.bytes })
    }

    /// Compares the hash of a section with its bytes (read from wherever they are).
    pub fn check_section(s: &Section, bytes: &[u8]) -> Result<()> {
        check_hash(&format!("{:?} section", s.kind).to_lowercase(), bytes, &s.sha256)
    }
}

fn check_hash(field: &str, bytes: &[u8], needed: &str) -> Result<()> {
    let present = hex(&Sha256::digest(bytes));
    if present == needed {
        return Ok(());
    }
    Err(FormatError::field(format!("{field}: sha256"), needed, present))
}

/// Checks names, number and sizes of the assets, and that the format's version has any.
pub(crate) fn check_assets(manifest: &Manifest) -> Result<()> {
    let mut names = std::collections::HashSet::new();
    for s in &manifest.sections {
        let field = format!("asset '{}'", s.name);
        let bad =
            |needed: String, present: String| Err(FormatError::field(&field, needed, present));
        if s.kind != SectionKind::Asset {
            if !s.name.is_empty() {
                return bad("a section of kind asset".into(), format!("{:?}", s.kind));
            }
            continue;
        }
        if manifest.min_reader < 3 {
            return bad("format version 3".into(), manifest.min_reader.to_string());
        }
        if !is_plain_name(&s.name) || !names.insert(&s.name) {
            return bad("a plain file name of its own".into(), format!("{:?}", s.name));
        }
        if names.len() > MOST_ASSETS {
            return bad(format!("at most {MOST_ASSETS} assets"), names.len().to_string());
        }
        if s.bytes > MOST_ASSET_BYTES {
            return bad(format!("at most {MOST_ASSET_BYTES} bytes"), s.bytes.to_string());
        }
    }
    Ok(())
}

fn check_sections(manifest: &Manifest, start: u64, file_len: u64) -> Result<()> {
    check_assets(manifest)?;
    let mut end = start;
    let (mut plans, mut debugs, mut weights) = (0, 0, 0);
    let mut targets = std::collections::HashSet::new();
    for (i, s) in manifest.sections.iter().enumerate() {
        let field = format!("section {i} ({:?})", s.kind).to_lowercase();
        let bad =
            |needed: String, present: String| Err(FormatError::field(&field, needed, present));
        let counted = match s.kind {
            SectionKind::Plan => &mut plans,
            SectionKind::Debug => &mut debugs,
            SectionKind::Weights => &mut weights,
            SectionKind::Code | SectionKind::Device => {
                if s.target.is_empty() || !targets.insert(&s.target) {
                    return bad("a target of its own".into(), format!("'{}'", s.target));
                }
                &mut 0
            }
            SectionKind::Asset => &mut 0,
        };
        *counted += 1;
        if *counted > 1 {
            return bad("one section of this kind".into(), counted.to_string());
        }
        if s.sha256.len() != 64 || !s.sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
            return bad("a hash of 64 hexadecimal digits".into(), s.sha256.clone());
        }
        let Some(section_end) = s.offset.checked_add(s.bytes).filter(|&e| e <= i64::MAX as u64)
        else {
            return bad("an end that fits 63 bits".into(), format!("{} + {}", s.offset, s.bytes));
        };
        let align = if s.kind == SectionKind::Weights { PAGE } else { 64 };
        if s.offset % align != 0 {
            return bad(format!("an offset that is a multiple of {align}"), s.offset.to_string());
        }
        if !s.file.is_empty() {
            if s.kind != SectionKind::Weights || !is_plain_name(&s.file) || s.offset != 0 {
                let needed = "weights, at 0 of a file named without a folder";
                return bad(needed.into(), format!("'{}' at {}", s.file, s.offset));
            }
            continue;
        }
        if s.offset < end {
            return bad(format!("an offset from {end} on (no overlap)"), s.offset.to_string());
        }
        if section_end > file_len {
            return bad(format!("{section_end} bytes in the file"), format!("{file_len}"));
        }
        end = section_end;
    }
    if plans != 1 {
        return Err(FormatError::field("sections", "one plan", "none"));
    }
    Ok(())
}
