//! Where the vendor's compiler is.
//!
//! The package `ascendnpu-ir` has `bin/bishengir-compile` (910B, 910C), `bin/bishengir-compile-a5` (950)
//! and `lib/meta_op.*.bc`, the device library. `tests/tools/fetch_ascend.sh` unpacks it to
//! `target/tools/ascend`.

use std::path::{Path, PathBuf};

use silure_ir::{Code, Diagnostic, Result};
use silure_target::Target;

use crate::legal::has_vector_registers;

/// The environment variable that names the package's folder.
pub const VARIABLE: &str = "SILURE_BISHENGIR_DIR";

/// The package's folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tools {
    bin: PathBuf,
    lib: Option<PathBuf>,
}

impl Tools {
    /// The tools in a folder that has `bin` and `lib`, or the executables themselves.
    pub fn at(dir: &Path) -> Tools {
        let bin = dir.join("bin");
        let lib = dir.join("lib");
        Tools {
            bin: if bin.is_dir() { bin } else { dir.to_path_buf() },
            lib: lib.is_dir().then_some(lib),
        }
    }

    /// Looks in `$SILURE_BISHENGIR_DIR`, then in `candidates`, then along `PATH`. What the variable names
    /// is taken even if nothing is there, so that a wrong value is an error and not a silent fallback.
    pub fn find(candidates: &[&Path]) -> Option<Tools> {
        if let Some(dir) = std::env::var_os(VARIABLE) {
            return Some(Tools::at(Path::new(&dir)));
        }
        let has = |bin: &Path| bin.join("bishengir-compile").is_file();
        for dir in candidates {
            let t = Tools::at(dir);
            if has(&t.bin) {
                return Some(t);
            }
        }
        let path = std::env::var_os("PATH")?;
        let bin = std::env::split_paths(&path).find(|p| has(p))?;
        let lib = bin.parent().map(|p| p.join("lib")).filter(|p| p.is_dir());
        Some(Tools { bin, lib })
    }

    /// The compiler of a target.
    pub fn compiler(&self, target: &Target) -> Result<PathBuf> {
        let name =
            if has_vector_registers(target) { "bishengir-compile-a5" } else { "bishengir-compile" };
        let path = self.bin.join(name);
        if path.is_file() {
            return Ok(path);
        }
        Err(Diagnostic::new(Code::Io, "the Ascend compiler is not there")
            .need(path.display(), "no such file")
            .note(format!("it is in the package `ascendnpu-ir`; {VARIABLE} names its folder")))
    }

    /// The device library's files for a target; empty if the package has no `lib`.
    pub fn library(&self, target: &Target) -> Vec<PathBuf> {
        let generation = if has_vector_registers(target) { "c310" } else { "c220" };
        let Some(lib) = &self.lib else { return vec![] };
        ["aic", "aiv", "mix.aic", "mix.aiv"]
            .iter()
            .map(|part| lib.join(format!("meta_op.{part}.{generation}.bc")))
            .filter(|p| p.is_file())
            .collect()
    }
}
