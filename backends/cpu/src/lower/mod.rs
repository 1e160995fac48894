//! Lowering: graph and kernel ops to macro-kernel launches (the plan dialect).
//!
//! Records ([`Lowering`]) stand beside each other by topic; an outside crate adds its own to
//! [`Lowerings`].

mod anchor;
mod attention;
mod blocks;
mod columns;
mod create;
mod detect;
mod experts;
mod index;
mod integer;
mod matmul;
mod movement;
mod nn;
mod quant;
mod rnn;

mod rows;
mod sizes;
mod slices;
mod string;

use std::collections::BTreeMap;

use silure_ir::{Diagnostic, Func, Module, OpId, Result};

use crate::codegen::ScalarLowering;

pub use blocks::{BF16_PACKED, E4M3_PACKED, HALF_PACKED, U4_PACKED};
pub use matmul::{BYTES_PACKED, F32_PACKED, I8_PACKED, packed_bytes};
pub use silure_launch::{
    Backend, Lower, Lowering, addressable, always, elem_is, legalise, lower, product, strides,
    width,
};
pub use sizes::{Sizes, f32_bits, f64_bits};

/// The table of lowerings: launches for whole ops, code for elementwise ones.
pub struct Lowerings {
    ops: BTreeMap<&'static str, &'static Lowering>,
    scalars: Vec<ScalarLowering>,
    /// The elementwise ops of this crate and `scalars`.
    elementwise: crate::codegen::Registry,
}

impl Default for Lowerings {
    fn default() -> Self {
        let (ops, elementwise) = (BTreeMap::new(), crate::codegen::Registry::default());
        let mut t = Lowerings { ops, scalars: vec![], elementwise };
        for topic in [
            anchor::TABLE,
            attention::TABLE,
            blocks::TABLE,
            experts::TABLE,
            create::TABLE,
            detect::TABLE,
            index::TABLE,
            matmul::TABLE,
            movement::TABLE,
            nn::TABLE,
            quant::TABLE,
            rnn::TABLE,
            rows::TABLE,
            string::TABLE,
            silure_launch::SHAPES,
        ] {
            for l in topic {
                t.register(l);
            }
        }
        t
    }
}

impl Lowerings {
    /// Adds a lowering; a later one for the same op replaces the earlier.
    pub fn register(&mut self, l: &'static Lowering) {
        self.ops.insert(l.op, l);
    }

    /// Adds code for an elementwise op of another crate, which then fuses like ours.
    pub fn register_scalar(&mut self, l: &ScalarLowering) {
        self.elementwise.add(l);
        self.scalars.push(*l);
    }

    /// The elementwise ops added, for [`Codegen::register`](crate::codegen::Codegen::register).
    pub fn scalars(&self) -> &[ScalarLowering] {
        &self.scalars
    }

    /// Names of all ops with a lowering.
    pub fn ops(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.ops.keys().copied()
    }

    /// Everything in a module that cannot be lowered, with reasons; nothing is generated.
    pub fn check(&self, m: &Module) -> Vec<Diagnostic> {
        silure_launch::check(m, self)
    }
}

impl Backend for Lowerings {
    fn get(&self, op: &str) -> Option<&'static Lowering> {
        self.ops.get(op).copied()
    }

    fn map(&self, f: &Func, op: OpId) -> Option<Result<()>> {
        Some(crate::codegen::legal(f, op, &self.elementwise))
    }

    fn lists(&self) -> bool {
        true
    }

    fn finish(&self, f: &mut Func) -> Result<()> {
        slices::write_in_place(f)?;
        columns::divide(f)
    }
}
