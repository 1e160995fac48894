//! The files' form, parsed and checked. Unknown keys are errors, so a misspelt one cannot be ignored.

use std::sync::Arc;

use serde::Deserialize;
use silure_types::Elem;

use crate::TargetError;
use crate::device::Device;

/// A family: targets with one backend.
#[derive(Clone, Debug)]
pub struct Family {
    /// Name.
    pub name: Arc<str>,
    /// One sentence.
    pub doc: String,
    /// The architecture meant by the bare family name, and by names unlike any described.
    pub default: String,
    /// Architectures, in the order of the file.
    pub archs: Vec<Arc<Arch>>,
    /// Products, in the order of the file.
    pub devices: Vec<Arc<Device>>,
}

/// One architecture.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arch {
    /// Name, as the vendor's compiler spells it.
    pub name: String,
    /// One sentence.
    pub doc: String,
    /// Other architectures whose code runs here.
    #[serde(default)]
    pub runs: Vec<String>,
    /// The lowest version of the instruction-set text (for PTX the `.version`).
    #[serde(default)]
    pub isa: Option<String>,
    /// Number of cores of one device; where products of the name differ, of the one that the file names.
    #[serde(default)]
    pub cores: Option<u32>,
    /// Named extensions that lowerings ask for.
    #[serde(default)]
    pub features: Vec<String>,
    /// Vector units.
    pub lanes: Lanes,
    /// On-chip memory, nearest first.
    pub memory: Vec<Memory>,
    /// What each unit computes on.
    pub caps: Vec<Cap>,
}

/// Vector units of a core.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lanes {
    /// Bits of one vector register, or of the widest access of one lane.
    pub vector_bits: u32,
    /// Registers that code may use (per lane on GPUs); 0 if there are none to allocate.
    pub registers: u32,
    /// Lanes in lockstep; 1 on CPUs.
    #[serde(default = "one")]
    pub warp: u32,
}

fn one() -> u32 {
    1
}

/// One level of on-chip memory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Name: l1, l2, shared, ub, l0a, …
    pub name: String,
    /// Usable bytes.
    pub bytes: u64,
    /// What has one: core, block, vector unit, chip.
    pub per: String,
    /// Alignment of buffers in it, bytes.
    pub align: u32,
    /// Where the number is from, if not a blocking choice of this project.
    #[serde(default)]
    pub source: Option<String>,
}

/// What one unit computes on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cap {
    /// The unit.
    pub unit: Unit,
    /// Element types.
    #[serde(deserialize_with = "elems")]
    pub elems: Vec<Elem>,
    /// How far it was checked.
    pub mark: Mark,
    /// Where it is from.
    pub source: String,
    /// By which instruction, or a caution.
    #[serde(default)]
    pub note: Option<String>,
}

/// A kind of unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Contractions.
    Matrix,
    /// Elementwise arithmetic.
    Vector,
    /// Load, store and conversion only.
    Storage,
}

impl Unit {
    /// The word in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Matrix => "matrix",
            Unit::Vector => "vector",
            Unit::Storage => "storage",
        }
    }
}

/// How far a capability was checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// Code that uses it was run.
    Executed,
    /// A vendor's or LLVM's assembler accepts code that uses it.
    Assembled,
    /// It was read in the source named.
    Read,
}

impl Mark {
    /// The word in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Mark::Executed => "executed",
            Mark::Assembled => "assembled",
            Mark::Read => "read",
        }
    }
}

pub(crate) fn elems<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<Elem>, D::Error> {
    Vec::<String>::deserialize(d)?
        .into_iter()
        .map(|n| {
            Elem::parse(&n)
                .ok_or_else(|| serde::de::Error::custom(format!("`{n}` is not an element type")))
        })
        .collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    family: Head,
    arch: Vec<toml::Spanned<Arch>>,
    #[serde(default)]
    device: Vec<toml::Spanned<Device>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    name: toml::Spanned<String>,
    doc: String,
    default: String,
}

/// Parses and checks one file.
pub(crate) fn parse(file: &str, text: &str) -> Result<Family, TargetError> {
    let at = |offset: usize, message: String| {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
        TargetError::File { file: file.to_string(), line, column, message }
    };
    let f: File = toml::from_str(text)
        .map_err(|e| at(e.span().map_or(0, |s| s.start), e.message().to_string()))?;
    let mut archs: Vec<Arc<Arch>> = Vec::new();
    for a in f.arch {
        let start = a.span().start;
        let a = a.into_inner();
        if archs.iter().any(|b| b.name == a.name) {
            return Err(at(start, format!("`{}` is described twice", a.name)));
        }
        if a.lanes.warp == 0 || a.lanes.vector_bits == 0 {
            return Err(at(start, format!("`{}`: lanes and vector bits are at least 1", a.name)));
        }
        if let Some(m) = a.memory.iter().find(|m| m.bytes == 0 || !m.align.is_power_of_two()) {
            let text =
                format!("`{}`: memory `{}` needs bytes and a power-of-two align", a.name, m.name);
            return Err(at(start, text));
        }
        archs.push(Arc::new(a));
    }
    let start = f.family.name.span().start;
    if !archs.iter().any(|a| a.name == f.family.default) {
        return Err(at(start, format!("the default `{}` is not described", f.family.default)));
    }
    let mut devices: Vec<Arc<Device>> = Vec::new();
    for d in f.device {
        let start = d.span().start;
        let d = d.into_inner();
        let twice = devices.iter().any(|b| b.name == d.name);
        let wrong = match archs.iter().any(|a| a.name == d.arch) {
            _ if twice => Some(format!("device `{}` is described twice", d.name)),
            false => Some(format!("device `{}`: `{}` is not described", d.name, d.arch)),
            true => d.wrong(),
        };
        if let Some(text) = wrong {
            return Err(at(start, text));
        }
        devices.push(Arc::new(d));
    }
    let name: Arc<str> = f.family.name.into_inner().into();
    Ok(Family { name, doc: f.family.doc, default: f.family.default, archs, devices })
}

impl Family {
    /// The architecture of that name.
    pub fn arch(&self, name: &str) -> Option<&Arc<Arch>> {
        self.archs.iter().find(|a| a.name == name)
    }

    /// The described architecture that an unknown name is taken to be like: of those with the same
    /// letters, the one with the greatest number not above (one without a suffix such as `a` first, as
    /// suffixed code runs nowhere else); if there is none, the family's default.
    pub fn nearest(&self, name: &str) -> &Arc<Arch> {
        let (letters, number, _) = split(name);
        let best = self
            .archs
            .iter()
            .filter(|a| {
                let (l, n, _) = split(&a.name);
                l == letters && n <= number
            })
            .max_by_key(|a| {
                let (_, n, suffix) = split(&a.name);
                // A suffixed one stands for its own number only.
                (suffix.is_empty() || n == number, n, std::cmp::Reverse(suffix.len()))
            });
        let default = || self.arch(&self.default).or(self.archs.first());
        match best.or_else(default) {
            Some(a) => a,
            None => unreachable!("a parsed family describes its default"),
        }
    }
}

/// `sm_90a` is `("sm_", 90, "a")`; the number is the first run of digits.
fn split(name: &str) -> (&str, u64, &str) {
    let start = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
    let (letters, rest) = name.split_at(start);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, suffix) = rest.split_at(end);
    (letters, digits.parse().unwrap_or(0), suffix)
}
