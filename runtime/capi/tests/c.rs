//! The C example, compiled by the system's C compiler and run; and the border's own checks.

use silure_capi::*;
use silure_engine::{DimSpec, EngineWriter, PlanBuilder};
use silure_types::Elem;
use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// `(x: f32[n], k: f32[2]) -> (y: f32[n], k2: f32[2])`, both copies.
fn write_engine(path: &Path) {
    let mut p = PlanBuilder::new();
    let mut e = p.entry("main");
    let x = e.input("x", Elem::F32, &[DimSpec::symbol("n", 0, 100)]);
    let k = e.input("k", Elem::F32, &[DimSpec::fixed(2)]);
    let y = e.output("y", Elem::F32, &["n"]);
    let z = e.output("k2", Elem::F32, &["2"]);
    let n = e.dim(0, 0);
    let bytes = e.mul(n, 4);
    e.set_shape(0, &[n]);
    e.set_shape(1, &[2.into()]);
    e.copy(y, 0, x, 0, bytes);
    e.copy(z, 0, k, 0, 8);
    e.finish();
    let plan = p.finish().unwrap();
    EngineWriter::new(plan, "test").write(path, |_, _| Ok(())).unwrap();
}

/// The folder of the built libraries: beside this test's executable, or one above.
fn library_dir() -> Option<PathBuf> {
    let exe = std::env::current_exe().unwrap();
    let dirs = [exe.parent().unwrap().to_path_buf(), exe.parent().unwrap().join("..")];
    dirs.into_iter().find(|d| d.join("libsilure_capi.so").exists())
}

#[test]
fn the_c_example_runs() {
    if Command::new("cc").arg("--version").output().is_err() {
        eprintln!("SKIPPED: there is no C compiler 'cc' here; the C example was not compiled");
        return;
    }
    if !cfg!(target_os = "linux") {
        eprintln!("SKIPPED: this test knows the names of shared libraries on Linux only");
        return;
    }
    let libs = library_dir().expect("libsilure_capi.so beside the test");
    let dir = tempfile::tempdir().unwrap();
    let engine = dir.path().join("m.silure");
    write_engine(&engine);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = dir.path().join("run");
    let cc = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"])
        .arg(here.join("examples/run.c"))
        .arg("-I")
        .arg(here.join("include"))
        .arg("-L")
        .arg(&libs)
        .args(["-lsilure_capi", "-o"])
        .arg(&program)
        .output()
        .unwrap();
    assert!(cc.status.success(), "{}", String::from_utf8_lossy(&cc.stderr));
    let run = |engine: &Path| {
        Command::new(&program).arg(engine).env("LD_LIBRARY_PATH", &libs).output().unwrap()
    };
    let out = run(&engine);
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(text, "y: 0 1 2 3\nk2: 0 1\n");
    let out = run(&dir.path().join("none"));
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).starts_with("open: "));
}

#[test]
fn the_header_lists_the_element_types_as_they_are() {
    let header = include_str!("../include/silure.h");
    for e in Elem::ALL {
        let line = format!("SILURE_{} = {}", e.name().to_uppercase(), *e as u8);
        let found = header
            .match_indices(&line)
            .any(|(i, _)| !header[i + line.len()..].starts_with(|c: char| c.is_ascii_digit()));
        assert!(found, "{line}");
    }
}

#[test]
fn nulls_and_cancelling() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.silure");
    write_engine(&path);
    let path = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: live objects or nulls, as the functions allow.
    unsafe {
        let message = || CStr::from_ptr(silure_last_error()).to_str().unwrap().to_string();
        assert!(silure_open(std::ptr::null()).is_null());
        assert_eq!(message(), "path is null");
        assert!(silure_session_new(std::ptr::null(), 1, 0).is_null());
        let engine = silure_open(path.as_ptr());
        assert_eq!(message(), "");
        assert_eq!(silure_entry_count(engine), 1);
        assert_eq!(silure_entry(engine, c"main".as_ptr()), 0);
        assert_eq!(silure_entry(engine, c"other".as_ptr()), -1);
        assert!(message().contains("'other'"));
        assert_eq!(CStr::from_ptr(silure_input_dim(engine, 0, 0, 0)), c"n");
        assert!(silure_input_dim(engine, 0, 0, 1).is_null());
        assert_eq!(silure_output(engine, 0, 5, std::ptr::null_mut()), 2);
        let session = silure_session_new(engine, 1, 0);
        silure_close(engine);
        let null = std::ptr::null_mut();
        assert_eq!(silure_run(session, 0, null, 0, null, 0, 0.0), 2);
        assert_eq!(message(), "inputs: needed 2, present 0");
        assert_eq!(silure_run(session, 0, null, 1, null, 0, 0.0), 2);
        assert_eq!(silure_run(session, 0, null, 0, null, 0, f64::NAN), 2);
        assert_eq!(silure_reset(session), OK);
        silure_cancel(session);
        silure_cancel_reset(session);
        silure_session_free(session);
        silure_session_free(null.cast());
    }
}
