//! Kernel sizes by field name, as dims.
//!
//! ```
//! use silure_cpu::lower::Sizes;
//! use silure_ir::Dim;
//! use silure_kernels_cpu::rows::softmax::Softmax;
//! let s = Sizes::of(Softmax::FIELDS).set("rows", Dim::sym("b")).set("len", 10i64);
//! assert_eq!(s.done().unwrap(), [Dim::sym("b"), Dim::Const(10)]);
//! ```

use silure_ir::{Dim, Result, bail};
use silure_kernels_cpu::schedule::Schedule;

/// The sizes of one launch, being filled in.
pub struct Sizes {
    fields: &'static [(&'static str, usize)],
    slots: Vec<Option<Dim>>,
    bad: Option<&'static str>,
}

impl Sizes {
    /// Sizes with these fields, none filled in.
    pub fn of(fields: &'static [(&'static str, usize)]) -> Sizes {
        let n = fields.iter().map(|f| f.1).sum();
        Sizes { fields, slots: vec![None; n], bad: None }
    }

    /// Sizes that start as those of a problem with known numbers.
    pub fn from(fields: &'static [(&'static str, usize)], known: Vec<i64>) -> Sizes {
        Sizes {
            slots: known.into_iter().map(|v| Some(Dim::Const(v))).collect(),
            ..Sizes::of(fields)
        }
    }

    /// Fills a field of one slot.
    pub fn set(self, name: &'static str, v: impl Into<Dim>) -> Sizes {
        self.all(name, vec![v.into()])
    }

    /// Fills a field of one slot with a code or count.
    pub fn code(self, name: &'static str, v: usize) -> Sizes {
        self.set(name, Dim::Const(v as i64))
    }

    /// Fills a flag.
    pub fn flag(self, name: &'static str, v: bool) -> Sizes {
        self.set(name, Dim::Const(v as i64))
    }

    /// Leaves it to the kernel how its problem is cut; a tuning file may say otherwise later.
    pub fn unscheduled(self) -> Sizes {
        let own = Schedule::DEFAULT.to_vec();
        self.all("schedule", own.into_iter().map(Dim::Const).collect())
    }

    /// Fills a field with all its slots.
    pub fn all(mut self, name: &'static str, v: Vec<Dim>) -> Sizes {
        let mut at = 0;
        for (field, len) in self.fields {
            if *field == name && *len == v.len() {
                for (slot, d) in self.slots[at..].iter_mut().zip(v) {
                    *slot = Some(d);
                }
                return self;
            }
            at += len;
        }
        self.bad.get_or_insert(name);
        self
    }

    /// Fills a field of `n` slots from its end; the slots in front get `pad`.
    pub fn right(self, name: &'static str, v: &[Dim], pad: i64) -> Sizes {
        let n = self.fields.iter().find(|f| f.0 == name).map_or(0, |f| f.1);
        if v.len() > n {
            return Sizes { bad: Some(name), ..self };
        }
        let mut all = vec![Dim::Const(pad); n - v.len()];
        all.extend_from_slice(v);
        self.all(name, all)
    }

    /// The slots; an unfilled or unknown field is a defect of the lowering.
    pub fn done(self) -> Result<Vec<Dim>> {
        if let Some(b) = self.bad {
            bail!(Internal, "kernel sizes have no field `{b}` of that length");
        }
        let mut names = self.fields.iter().flat_map(|(f, n)| std::iter::repeat_n(*f, *n));
        self.slots
            .into_iter()
            .map(|s| match (s, names.next()) {
                (Some(d), _) => Ok(d),
                (None, name) => {
                    bail!(Internal, "kernel size `{}` is not given", name.unwrap_or("?"))
                }
            })
            .collect()
    }
}

/// An f64 parameter as a size slot; zeros are positive.
pub fn f64_bits(v: f64) -> Dim {
    Dim::Const((v + 0.0).to_bits() as i64)
}

/// An f32 parameter as a size slot.
pub fn f32_bits(v: f64) -> Dim {
    Dim::Const((v as f32).to_bits() as i64)
}
