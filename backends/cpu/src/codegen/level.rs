//! Instruction-set levels.

use std::sync::Arc;

use cranelift_codegen::isa::{self, TargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use silure_ir::{Code, Diagnostic, Result};

use super::defect;
use super::emit::Features;

/// What generated code may assume of the processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IsaLevel {
    /// x86-64 with SSE2 alone.
    X86_64,
    /// x86-64-v3: AVX2, FMA, BMI.
    X86_64V3,
    /// AArch64 with Advanced SIMD.
    Aarch64,
}

impl IsaLevel {
    /// Every level.
    pub const ALL: [IsaLevel; 3] = [IsaLevel::X86_64, IsaLevel::X86_64V3, IsaLevel::Aarch64];

    /// Its name, as in `cpu:x86-64-v3`.
    pub fn name(self) -> &'static str {
        match self {
            IsaLevel::X86_64 => "x86-64",
            IsaLevel::X86_64V3 => "x86-64-v3",
            IsaLevel::Aarch64 => "aarch64",
        }
    }

    /// The level of that name.
    pub fn parse(name: &str) -> Result<IsaLevel> {
        IsaLevel::ALL.into_iter().find(|l| l.name() == name).ok_or_else(|| {
            let known = IsaLevel::ALL.map(IsaLevel::name).join(", ");
            Diagnostic::new(Code::Unsupported, "unknown CPU level").need(known, name)
        })
    }

    pub(crate) fn features(self) -> Features {
        let modern = self != IsaLevel::X86_64;
        Features { fma: modern, round: modern }
    }

    pub(super) fn isa(self) -> Result<Arc<dyn TargetIsa>> {
        let (triple, features): (_, &[&str]) = match self {
            IsaLevel::X86_64 => ("x86_64-unknown-linux-gnu", &[]),
            IsaLevel::X86_64V3 => (
                "x86_64-unknown-linux-gnu",
                &[
                    "has_sse3",
                    "has_ssse3",
                    "has_cmpxchg16b",
                    "has_sse41",
                    "has_sse42",
                    "has_avx",
                    "has_avx2",
                    "has_fma",
                    "has_bmi1",
                    "has_bmi2",
                    "has_lzcnt",
                    "has_popcnt",
                ],
            ),
            IsaLevel::Aarch64 => ("aarch64-unknown-linux-gnu", &[]),
        };
        let mut flags = settings::builder();
        let verify = if cfg!(debug_assertions) { "true" } else { "false" };
        for (name, value) in [
            ("opt_level", "speed"),
            ("is_pic", "true"),
            ("enable_verifier", verify),
            ("enable_probestack", "false"),
            ("unwind_info", "false"),
        ] {
            flags.set(name, value).map_err(|e| defect(name, e))?;
        }
        let mut b = isa::lookup_by_name(triple).map_err(|e| defect(triple, e))?;
        for f in features {
            b.enable(f).map_err(|e| defect(f, e))?;
        }
        b.finish(settings::Flags::new(flags)).map_err(|e| defect(triple, e))
    }
}
