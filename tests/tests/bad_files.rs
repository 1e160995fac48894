//! Bad files of every kind the programs read: a diagnostic or a right answer, never a panic, within
//! 20 s and 2 GiB of address space. Every case is a file given to a child process (see `child.rs`).

#[path = "bad_files/bombs.rs"]
mod bombs;
#[path = "bad_files/external.rs"]
mod external;
#[path = "bad_files/headers.rs"]
mod headers;
#[path = "bad_files/kinds.rs"]
mod kinds;
#[path = "bad_files/names.rs"]
mod names;
#[path = "bad_files/nesting.rs"]
mod nesting;
#[path = "bad_files/operators.rs"]
mod operators;
#[path = "bad_files/programs.rs"]
mod programs;
#[path = "bad_files/quantised.rs"]
mod quantised;
#[path = "bad_files/scopes.rs"]
mod scopes;
#[path = "bad_files/seeds.rs"]
mod seeds;
#[path = "bad_files/structure.rs"]
mod structure;

use std::path::{Path, PathBuf};

use silure::Compiler;
use silure_tests::child::{Outcome, all_fine, probe};
use silure_tests::{onnx, random};

/// The demo's classifier.
fn digits() -> Vec<u8> {
    include_bytes!("../../cli/demo/digits.onnx").to_vec()
}

/// Writes each content to a file of its own.
fn files(folder: &Path, ext: &str, contents: Vec<Vec<u8>>) -> Vec<PathBuf> {
    let write = |(i, bytes): (usize, Vec<u8>)| {
        let path = folder.join(format!("case{i:03}.{ext}"));
        std::fs::write(&path, bytes).unwrap();
        path
    };
    contents.into_iter().enumerate().map(write).collect()
}

/// Gives models to the probe; every one must end as bad files may.
fn check(what: &str, files: &[PathBuf]) -> (usize, usize, usize) {
    all_fine(what, files, &probe("model", files))
}

/// Writes models and gives them to the probe; the outcomes by name.
fn outcomes(
    what: &str,
    folder: &Path,
    models: &[(String, silure_onnx_proto::ModelProto)],
) -> Vec<(String, Outcome)> {
    let files: Vec<PathBuf> = models.iter().map(|(n, m)| onnx::write(folder, n, m)).collect();
    let outcomes = probe("model", &files);
    all_fine(what, &files, &outcomes);
    models.iter().map(|m| m.0.clone()).zip(outcomes).collect()
}

#[test]
fn whole_files_are_right() {
    let dir = tempfile::tempdir().unwrap();
    let digits = files(dir.path(), "onnx", vec![digits()]);
    assert_eq!(check("the classifier", &digits).1, 1);
    let mixed = onnx::write(dir.path(), "mixed", &onnx::mixed(dir.path()));
    assert_eq!(check("the mixed model", &[mixed]).1, 1);
}

#[test]
fn truncated_models() {
    let dir = tempfile::tempdir().unwrap();
    let mixed = onnx::bytes(&onnx::mixed(dir.path()));
    let cut: Vec<_> = [random::truncations(&digits()), random::truncations(&mixed)].concat();
    let (refused, ..) = check("truncated models", &files(dir.path(), "onnx", cut));
    assert!(refused >= 120, "{refused} of 128 were refused");
}

#[test]
fn flipped_bytes_in_the_classifier() {
    let dir = tempfile::tempdir().unwrap();
    check("flips", &files(dir.path(), "onnx", random::flips(&digits(), 11, 500)));
}

#[test]
fn flipped_bytes_in_the_mixed_model() {
    let dir = tempfile::tempdir().unwrap();
    let mixed = onnx::bytes(&onnx::mixed(dir.path()));
    check("flips", &files(dir.path(), "onnx", random::flips(&mixed, 12, 500)));
}

/// The mixed model as text in the pretty form, beside its files.
fn mixed_text(folder: &Path) -> String {
    let path = onnx::write(folder, "mixed", &onnx::mixed(folder));
    let c = Compiler::new().unwrap();
    silure::ir::text::print(&c.load(&path, &Default::default()).unwrap().module)
}

#[test]
fn truncated_and_flipped_text() {
    let dir = tempfile::tempdir().unwrap();
    let text = mixed_text(dir.path()).into_bytes();
    let whole = files(dir.path(), "sir", vec![text.clone()]);
    assert_eq!(check("text", &whole).1, 1);
    let bad = [random::truncations(&text), random::flips(&text, 13, 500)].concat();
    check("damaged text", &files(dir.path(), "sir", bad));
}

#[test]
fn truncated_and_flipped_generic_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = onnx::write(dir.path(), "mixed", &onnx::mixed(dir.path()));
    let c = Compiler::new().unwrap();
    let m = c.load(&path, &Default::default()).unwrap().module;
    let text = silure::ir::text::print_generic(&m).into_bytes();
    let bad = [random::truncations(&text), random::flips(&text, 14, 250)].concat();
    check("damaged generic text", &files(dir.path(), "sir", bad));
}
