//! Which instructions of matrix units a text asks for, and which there are in the machine's code: the same, no more and no fewer.

use std::collections::BTreeSet;

/// What the text's `mma.sync` become on an architecture.
fn claimed(text: &str, arch: &str) -> BTreeSet<String> {
    // Where products of 8-bit floats have no unit of their own they are made by that of f16.
    let own = matches!(arch, "sm_89" | "sm_120");
    let lines = text.lines().filter_map(|l| l.split("//").next()?.split("mma.sync.").nth(1));
    let name = |l: &str| {
        let depth = if l.contains("m16n8k8.") { "1688" } else { "16816" };
        let has = |types: &[&str]| types.iter().any(|t| l.contains(t));
        if has(&[".s8", ".u8"]) {
            "IMMA".into()
        } else if has(&[".e4m3", ".e5m2"]) {
            if own { "QMMA".into() } else { "HMMA.16816.F32".into() }
        } else if has(&[".tf32"]) {
            format!("HMMA.{depth}.F32.TF32")
        } else if has(&[".bf16"]) {
            format!("HMMA.{depth}.F32.BF16")
        } else {
            format!("HMMA.{depth}.F32")
        }
    };
    lines.map(name).collect()
}

/// Those of what `nvdisasm` prints; integers and 8-bit floats by their unit alone.
fn found(sass: &str) -> BTreeSet<String> {
    let words = sass.split(|c: char| c.is_whitespace() || c == ';').filter(|w| w.contains("MMA."));
    let name = |w: &str| match w.split_once('.') {
        Some((unit @ ("IMMA" | "QMMA"), _)) => unit.to_string(),
        _ => w.to_string(),
    };
    words.map(name).collect()
}

/// Compares them; says which there are.
pub fn compare(text: &str, arch: &str, sass: &str) -> Result<Vec<String>, String> {
    if !sass.contains("EXIT") {
        return Err("no machine code".into());
    }
    let (want, has) = (claimed(text, arch), found(sass));
    match want == has {
        true => Ok(has.into_iter().collect()),
        false => Err(format!("matrix units {has:?} where the text asks for {want:?}")),
    }
}
