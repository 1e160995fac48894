//! Products: how much memory a device has, how fast it is, and what its units do at best.
//!
//! Figures are those of vendors. What is not public is absent, and whoever needs it says so.

use serde::Deserialize;
use silure_types::Elem;

use crate::data::{Mark, elems};

/// A product.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Short name, for example `rtx4090`.
    pub name: String,
    /// Its full name.
    pub doc: String,
    /// The architecture of the family that code for it is generated for.
    pub arch: String,
    /// Memory that tensors live in.
    #[serde(default)]
    pub memory: Option<MemorySize>,
    /// Its rate.
    #[serde(default)]
    pub bandwidth: Option<Rate>,
    /// Dense arithmetic, without sparsity.
    #[serde(default)]
    pub peaks: Vec<Peak>,
}

/// Bytes of memory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemorySize {
    /// All of it; drivers and systems take a part.
    pub bytes: u64,
    /// How far it was checked.
    pub mark: Mark,
    /// Where it is from.
    pub source: String,
}

/// A rate of memory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// 10⁹ bytes a second.
    pub gb_per_s: f64,
    /// How far it was checked.
    pub mark: Mark,
    /// Where it is from.
    pub source: String,
}

/// Arithmetic on some types.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peak {
    /// Element types of the operands.
    #[serde(deserialize_with = "elems")]
    pub elems: Vec<Elem>,
    /// 10¹² operations a second, a multiply-add being two.
    pub tera_per_s: f64,
    /// How far it was checked.
    pub mark: Mark,
    /// Where it is from.
    pub source: String,
    /// A caution.
    #[serde(default)]
    pub note: Option<String>,
}

impl Device {
    /// The peak of an element type.
    pub fn peak(&self, elem: Elem) -> Option<&Peak> {
        self.peaks.iter().find(|p| p.elems.contains(&elem))
    }

    /// What contradicts itself.
    pub(crate) fn wrong(&self) -> Option<String> {
        let rate = self.bandwidth.as_ref().map(|b| b.gb_per_s);
        let mut rates = rate.into_iter().chain(self.peaks.iter().map(|p| p.tera_per_s));
        if !rates.all(|r| r.is_finite() && r > 0.0) {
            return Some(format!("device `{}`: rates are numbers above 0", self.name));
        }
        if self.memory.as_ref().is_some_and(|m| m.bytes == 0) {
            return Some(format!("device `{}`: memory of 0 bytes", self.name));
        }
        let twice = |e: &Elem| self.peaks.iter().filter(|p| p.elems.contains(e)).count() > 1;
        Elem::ALL
            .iter()
            .find(|e| twice(e))
            .map(|e| format!("device `{}`: {e} has two peaks", self.name))
    }
}
