//! The manifest: what an engine file says of itself, readable without its devices.
//!
//! It is JSON with a fixed order of fields; nothing in it depends on the host or the time.

use crate::error::{FormatError, Result};
use crate::plan::{Plan, Port};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Newest version of the file format that this crate reads and writes: 2 added sequences,
/// optionals and strings, 3 assets, 4 devices besides the host. An engine is written in the oldest version that has all it uses.
pub const FORMAT_VERSION: u32 = 4;

/// Most assets of an engine.
pub const MOST_ASSETS: usize = 64;

/// Most bytes of an asset.
pub const MOST_ASSET_BYTES: u64 = 256 << 20;

/// The version an engine with this plan, and with or without assets, is written in, and the oldest
/// reader that understands it.
pub fn version_of(plan: &Plan, assets: bool) -> u32 {
    match (assets, plan.has_lists() || plan.has_strings()) {
        _ if plan.has_devices() => 4,
        (true, _) => 3,
        (false, true) => 2,
        (false, false) => 1,
    }
}

/// What an engine file says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the format the file is in.
    pub format_version: u32,
    /// Oldest format version a reader must know to read it.
    pub min_reader: u32,
    /// Version of the tool that wrote it.
    pub tool: String,
    /// Targets compiled for, for example `cpu:x86-64-v3`.
    pub targets: Vec<String>,
    /// Hash of the source model, `sha256:` and 64 digits, or empty where there is none.
    pub source: String,
    /// Options of the compilation and the type recipe, as names and values.
    pub options: BTreeMap<String, String>,
    /// What the buffers and sizes of its kernels are, as the compiler's table of kernels hashes it; empty if not stated.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub layouts: String,
    /// The entries' signatures.
    pub entries: Vec<Signature>,
    /// Where the parts of the file are.
    pub sections: Vec<Section>,
}

/// The signature of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The entry's name.
    pub name: String,
    /// Inputs in order.
    pub inputs: Vec<PortInfo>,
    /// Outputs in order.
    pub outputs: Vec<PortInfo>,
    /// Names of the states it uses.
    #[serde(default)]
    pub states: Vec<String>,
}

/// One input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortInfo {
    /// The user's name.
    pub name: String,
    /// Name of the element type.
    pub elem: String,
    /// Extents as text: numbers, symbols, expressions; `…` alone for tensors of any shape.
    pub dims: Vec<String>,
    /// `sequence`, `optional`, `optional sequence`; empty for a tensor.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
}

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SectionKind {
    /// The plan's binary form.
    Plan,
    /// A code object; `target` says for what.
    Code,
    /// The kernels of a device besides the host ([`DeviceCode`](crate::DeviceCode)); `target` says for what.
    Device,
    /// The compiler's report, opaque to the runtime.
    Debug,
    /// A named file for the host, opaque to the runtime: a tokenizer, a chat template.
    Asset,
    /// The weights.
    Weights,
}

/// A part of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// Of a code object: the ISA level or device, for example `x86-64-v3`; else empty.
    #[serde(default)]
    pub target: String,
    /// Of an asset: its name; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Name of the file beside the engine that holds it; empty: the engine itself.
    #[serde(default)]
    pub file: String,
    /// Byte offset in its file.
    pub offset: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes, 64 hexadecimal digits.
    pub sha256: String,
}

/// The signatures of a plan's entries.
pub fn signatures(plan: &Plan) -> Vec<Signature> {
    let ports = |list: &[Port]| {
        let info = |p: &Port| PortInfo {
            name: plan.str(p.name).into(),
            elem: p.elem.name().into(),
            dims: match p.any_shape {
                true => vec!["…".into()],
                false => p.dims.iter().map(|d| plan.str(d.expr).into()).collect(),
            },
            kind: p.kind.name().into(),
        };
        list.iter().map(info).collect()
    };
    plan.entries
        .iter()
        .map(|e| Signature {
            name: plan.str(e.name).into(),
            inputs: ports(&e.inputs),
            outputs: ports(&e.outputs),
            states: e
                .states
                .iter()
                .filter_map(|&s| plan.states.get(s as usize))
                .map(|s| plan.str(s.name).into())
                .collect(),
        })
        .collect()
}

impl Manifest {
    /// Reads a manifest and checks its versions.
    pub fn parse(json: &[u8]) -> Result<Manifest> {
        // The versions come first and alone, so that a newer file gives the clear message.
        #[derive(Deserialize)]
        struct Versions {
            format_version: u32,
            min_reader: u32,
        }
        let bad = |e| FormatError::field("manifest", "JSON of the engine format", e);
        let v: Versions = serde_json::from_slice(json).map_err(bad)?;
        if v.min_reader > FORMAT_VERSION || v.format_version == 0 {
            return Err(FormatError::field(
                "format version",
                format_args!("one that a reader of version {FORMAT_VERSION} knows"),
                format_args!("{} (min reader {})", v.format_version, v.min_reader),
            ));
        }
        serde_json::from_slice(json).map_err(bad)
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
