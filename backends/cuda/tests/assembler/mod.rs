//! NVIDIA's assembler and disassembler, where they are found.

mod units;

use std::path::{Path, PathBuf};
use std::process::Command;

use silure_cuda::PtxModule;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn ptxas() -> Option<PathBuf> {
    if let Some(p) = std::env::var_os("SILURE_PTXAS") {
        let p = PathBuf::from(p);
        assert!(p.is_file(), "$SILURE_PTXAS is {p:?}, not a file");
        return Some(p);
    }
    tool("ptxas")
}

fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.push(root().join("target/tools"));
    places.into_iter().map(|d| d.join(name)).find(|p| p.is_file())
}

/// Assembles a module; what `ptxas -v` says of registers and spills, and the instructions of matrix units that there are:
/// those that the text asks for.
pub fn assemble(ptxas: &Path, m: &PtxModule, arch: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (source, object) = (dir.path().join("k.ptx"), dir.path().join("k.cubin"));
    std::fs::write(&source, &m.text).unwrap();
    let out = Command::new(ptxas)
        .arg(format!("-arch={arch}"))
        .args(["-v", "-Werror", "-warn-spills", "-warn-lmem-usage"])
        .args([&source, Path::new("-o"), &object])
        .output()
        .unwrap_or_else(|e| panic!("{ptxas:?}: {e}"));
    let said =
        String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    if !out.status.success() {
        panic!("{} for {arch}: {said}", m.entries[0].name);
    }
    let units = match tool("nvdisasm") {
        Some(tool) => {
            let out = Command::new(tool).arg(&object).output().unwrap();
            let sass = String::from_utf8_lossy(&out.stdout);
            let units = units::compare(&m.text, arch, &sass);
            units.unwrap_or_else(|e| panic!("{} for {arch}: {e}", m.entries[0].name)).join(", ")
        }
        None => "SKIPPED: no nvdisasm, matrix units not compared".into(),
    };
    let facts = said.lines().filter(|l| l.contains("registers") || l.contains("spill"));
    let facts = facts.map(|l| l.trim().trim_start_matches("ptxas info    : ")).chain([&*units]);
    facts.collect::<Vec<_>>().join("; ")
}
