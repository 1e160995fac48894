//! Running the command as a user does.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What a call gave.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs `silure` with these arguments.
pub fn silure(args: &[&str]) -> Ran {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_silure"))
        .args(args)
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .output()
        .expect("the command starts");
    let text = |b: Vec<u8>| String::from_utf8(b).expect("UTF-8");
    Ran { code: status.code().expect("no signal"), out: text(stdout), err: text(stderr) }
}

impl Ran {
    /// Checks the exit code; shows both streams if it is another. No failure may be a panic.
    pub fn code(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }

    /// Checks that stderr says this.
    pub fn says(self, what: &str) -> Ran {
        assert!(self.err.contains(what), "`{what}` is not in:\n{}", self.err);
        self
    }

    /// Stdout as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}:\n{}", self.out))
    }
}

/// A file of the repository.
pub fn repo(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    root.join(path).display().to_string()
}

/// A path as an argument.
pub fn s(p: &Path) -> &str {
    p.to_str().expect("UTF-8")
}

/// Writes a file into a folder.
pub fn file(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let p = dir.join(name);
    std::fs::write(&p, bytes).expect("writable");
    p
}

/// A small module with a dynamic dim.
pub const RELU: &str = "module @m {\n  entry @main<b: 1..8>(%x: f32[b, 4]) -> (y: f32[b, 4]) {\n    \
    %0 = arith.relu %x : f32[b, 4]\n    return %0\n  }\n}\n";

/// An `.npy` file of f32 values; the dims as `2, 3`.
pub fn npy(shape: &str, values: &[f32]) -> Vec<u8> {
    // A tuple of one element has a comma.
    let shape = if shape.contains(',') { shape.into() } else { format!("{shape},") };
    let mut head = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
    while (10 + head.len() + 1) % 64 != 0 {
        head.push(' ');
    }
    head.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((head.len() as u16).to_le_bytes());
    out.extend(head.as_bytes());
    values.iter().for_each(|v| out.extend(v.to_le_bytes()));
    out
}
