//! The list of targets, for people and as JSON.

use serde::Serialize;

use crate::{Targets, Unit};

/// One line of the list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Listing {
    /// `family:arch`.
    pub name: String,
    /// One sentence.
    pub doc: String,
    /// Whether it is what the bare family name means.
    pub default: bool,
    /// Element types of the matrix units, each with how far it was checked.
    pub matrix: Vec<Known>,
    /// Element types of the vector units.
    pub vector: Vec<Known>,
    /// Types that are only stored and converted.
    pub storage: Vec<Known>,
    /// On-chip memory: name and bytes.
    pub memory: Vec<(String, u64)>,
    /// Named extensions.
    pub features: Vec<String>,
    /// Architectures whose code runs here too.
    pub runs: Vec<String>,
}

/// One element type of a unit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Known {
    /// Name of the element type.
    pub elem: &'static str,
    /// executed, assembled or read.
    pub mark: &'static str,
    /// Where it is from.
    pub source: String,
    /// By which instruction, or a caution.
    pub note: Option<String>,
}

impl Targets {
    /// Every described architecture, in the order of families and files.
    pub fn list(&self) -> Vec<Listing> {
        let mut out = Vec::new();
        for f in self.families() {
            for a in &f.archs {
                let of = |unit: Unit| {
                    let caps = a.caps.iter().filter(|c| c.unit == unit);
                    caps.flat_map(|c| {
                        c.elems.iter().map(|e| Known {
                            elem: e.name(),
                            mark: c.mark.name(),
                            source: c.source.clone(),
                            note: c.note.clone(),
                        })
                    })
                    .collect()
                };
                out.push(Listing {
                    name: format!("{}:{}", f.name, a.name),
                    doc: a.doc.clone(),
                    default: a.name == f.default,
                    matrix: of(Unit::Matrix),
                    vector: of(Unit::Vector),
                    storage: of(Unit::Storage),
                    memory: a.memory.iter().map(|m| (m.name.clone(), m.bytes)).collect(),
                    features: a.features.clone(),
                    runs: a.runs.clone(),
                });
            }
        }
        out
    }
}
