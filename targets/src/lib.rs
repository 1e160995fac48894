//! What a target is: capabilities, memory model and limits, as data in targets/*.toml.
//!
//! Every capability names its source and how far it was checked ([`Mark`]). An unknown name falls back
//! to a described one of its family, and [`Target::note`] says so. Nothing here looks at the machine
//! it runs on.
//!
//! ```
//! use silure_target::{Target, Unit};
//! use silure_types::Elem;
//! let t = Target::parse("cuda:sm_89").unwrap();
//! assert!(t.cap(Unit::Matrix, Elem::E4m3fn).is_some());
//! let old = Target::parse("cuda:sm_80").unwrap();
//! assert!(old.require(Unit::Matrix, Elem::E4m3fn).unwrap_err().to_string().contains("sm_80"));
//! let near = Target::parse("cuda:sm_87").unwrap();
//! assert_eq!(near.arch.name, "sm_86");
//! assert!(near.note.unwrap().contains("sm_87"));
//! ```

mod data;
mod device;
mod list;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use silure_types::Elem;

pub use data::{Arch, Cap, Family, Lanes, Mark, Memory, Unit};
pub use device::{Device, MemorySize, Peak, Rate};
pub use list::Listing;

/// The described families, in a fixed order.
pub struct Targets {
    families: Vec<Arc<Family>>,
}

/// One target: a described architecture, under the name that was asked for.
#[derive(Clone, Debug)]
pub struct Target {
    /// The family's name, for example `cuda`.
    pub family: Arc<str>,
    /// The name asked for, which generated code is for.
    pub name: String,
    /// What is known of it.
    pub arch: Arc<Arch>,
    /// Whether an emulator stands for the device; every report says so.
    pub emulated: bool,
    /// What the user is to be told: that the name is not described and which one stands for it.
    pub note: Option<String>,
}

/// What is wrong with a target's name or file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TargetError {
    /// A file does not parse or contradicts itself.
    #[error("{file}:{line}:{column}: {message}")]
    File {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A file cannot be read.
    #[error("cannot read `{file}`: {message}")]
    Io {
        /// The file.
        file: String,
        /// Why.
        message: String,
    },
    /// No such family.
    #[error("there is no target family `{family}`; families: {known}")]
    Family {
        /// The name given.
        family: String,
        /// The names there are.
        known: String,
    },
    /// The target cannot do what was asked.
    #[error("`{target}` has no {what}; needed {needed}, present {present}")]
    Missing {
        /// The target.
        target: String,
        /// What it lacks.
        what: String,
        /// What was needed.
        needed: String,
        /// What is there.
        present: String,
    },
}

static EMBEDDED: LazyLock<Result<Targets, TargetError>> = LazyLock::new(|| {
    let mut t = Targets { families: Vec::new() };
    for (file, text) in [
        ("targets/cpu.toml", include_str!("../cpu.toml")),
        ("targets/cuda.toml", include_str!("../cuda.toml")),
        ("targets/rocm.toml", include_str!("../rocm.toml")),
        ("targets/ascend.toml", include_str!("../ascend.toml")),
    ] {
        t.add_text(file, text)?;
    }
    Ok(t)
});

/// The target used when none is named.
pub const DEFAULT: &str = "cpu:x86-64-v3";

impl Targets {
    /// The families described in this crate.
    pub fn embedded() -> Result<Targets, TargetError> {
        let t = EMBEDDED.as_ref().map_err(Clone::clone)?;
        Ok(Targets { families: t.families.clone() })
    }

    /// Adds a user's file. A family that is there already gets its architectures replaced or extended.
    pub fn add_file(&mut self, path: &Path) -> Result<(), TargetError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => self.add_text(&file, &text),
            Err(e) => Err(TargetError::Io { file, message: e.to_string() }),
        }
    }

    /// Adds the text of a file.
    pub fn add_text(&mut self, file: &str, text: &str) -> Result<(), TargetError> {
        let new = data::parse(file, text)?;
        match self.families.iter_mut().find(|f| f.name == new.name) {
            None => self.families.push(Arc::new(new)),
            Some(slot) => {
                let mut merged = (**slot).clone();
                for a in new.archs {
                    match merged.archs.iter_mut().find(|b| b.name == a.name) {
                        Some(b) => *b = a,
                        None => merged.archs.push(a),
                    }
                }
                for d in new.devices {
                    match merged.devices.iter_mut().find(|b| b.name == d.name) {
                        Some(b) => *b = d,
                        None => merged.devices.push(d),
                    }
                }
                (merged.default, merged.doc) = (new.default, new.doc);
                *slot = Arc::new(merged);
            }
        }
        Ok(())
    }

    /// The families.
    pub fn families(&self) -> &[Arc<Family>] {
        &self.families
    }

    /// Every described product with its family's name, in the order of families and files.
    pub fn devices(&self) -> impl Iterator<Item = (&str, &Arc<Device>)> {
        self.families.iter().flat_map(|f| f.devices.iter().map(|d| (&*f.name, d)))
    }

    /// The product of a name, and its family's name.
    pub fn device(&self, name: &str) -> Option<(&str, &Arc<Device>)> {
        self.devices().find(|(_, d)| d.name.eq_ignore_ascii_case(name))
    }

    /// The target of a name: `family`, `family:arch` or `family:emulated`.
    pub fn parse(&self, text: &str) -> Result<Target, TargetError> {
        let (family, name) = text.split_once(':').unwrap_or((text, ""));
        let Some(f) = self.families.iter().find(|f| *f.name == *family) else {
            let known: Vec<&str> = self.families.iter().map(|f| &*f.name).collect();
            return Err(TargetError::Family { family: family.into(), known: known.join(", ") });
        };
        let emulated = name == "emulated";
        let wanted = if name.is_empty() || emulated { &f.default } else { name };
        let (arch, note) = match f.arch(wanted) {
            Some(a) => (a.clone(), None),
            None => {
                let near = f.nearest(wanted);
                let note = format!(
                    "`{wanted}` is not described in the {} family; it is taken to be like `{}`",
                    f.name, near.name
                );
                (near.clone(), Some(note))
            }
        };
        let (family, name) = (f.name.clone(), wanted.to_string());
        Ok(Target { family, name, arch, emulated, note })
    }
}

impl Target {
    /// A target of the embedded files; see [`Targets::parse`].
    pub fn parse(text: &str) -> Result<Target, TargetError> {
        EMBEDDED.as_ref().map_err(Clone::clone)?.parse(text)
    }

    /// `family:name`, with the emulator named.
    pub fn full_name(&self) -> String {
        let tail = if self.emulated { " (emulated)" } else { "" };
        format!("{}:{}{tail}", self.family, self.name)
    }

    /// The capability of a unit for an element type.
    pub fn cap(&self, unit: Unit, elem: Elem) -> Option<&Cap> {
        self.arch.caps.iter().find(|c| c.unit == unit && c.elems.contains(&elem))
    }

    /// As [`Target::cap`], with an error that names what there is.
    pub fn require(&self, unit: Unit, elem: Elem) -> Result<&Cap, TargetError> {
        self.cap(unit, elem).ok_or_else(|| {
            let present: Vec<&str> = self
                .arch
                .caps
                .iter()
                .filter(|c| c.unit == unit)
                .flat_map(|c| c.elems.iter().map(|e| e.name()))
                .collect();
            TargetError::Missing {
                target: self.full_name(),
                what: format!("{} unit for {elem}", unit.name()),
                needed: elem.to_string(),
                present: if present.is_empty() { "none".into() } else { present.join(", ") },
            }
        })
    }

    /// A level of memory.
    pub fn memory(&self, name: &str) -> Option<&Memory> {
        self.arch.memory.iter().find(|m| m.name == name)
    }

    /// Whether code needing the feature may be generated.
    pub fn has(&self, feature: &str) -> bool {
        self.arch.features.iter().any(|f| f == feature)
    }

    /// Whether code made for `name` runs here.
    pub fn runs(&self, name: &str) -> bool {
        self.arch.name == name || self.arch.runs.iter().any(|r| r == name)
    }
}

#[cfg(test)]
mod tests;
