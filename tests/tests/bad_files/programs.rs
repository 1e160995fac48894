//! Damaged engines and arrays given to `silure-run`, and a loop without end to `silure`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use silure::{Compiler, Options};
use silure_runtime::{Engine, Tensor, npy};
use silure_tests::child::{SECONDS, bounded, run, silure, silure_run};
use silure_tests::{onnx, random};

/// The classifier's engine and an input for it.
pub fn engine(folder: &Path) -> (PathBuf, PathBuf) {
    let c = Compiler::new().unwrap();
    let mut m = c.load_bytes("digits.onnx", super::digits(), &Default::default()).unwrap();
    m.assets.push(("note.txt".into(), b"one of the host's files".repeat(100)));
    m.options.push(("note".into(), "1".into()));
    let path = folder.join("digits.silure");
    c.compile(m, &Options::default()).unwrap().write(&path).unwrap();
    let x = folder.join("x.npy");
    let values: Vec<f32> = (0..128).map(|i| (i % 17) as f32 / 16.0).collect();
    npy::write(&x, &Tensor::f32(&[2, 1, 8, 8], &values).unwrap()).unwrap();
    (path, x)
}

/// Runs `silure-run` on an engine and an array; gives the exit code.
pub fn answer(engine: &Path, x: &Path) -> i32 {
    let mut c = bounded(silure_run());
    c.arg(engine).args(["--threads", "1", "--timeout", "10", "--memory", "500000000", "--inputs"]);
    let ended = run(c.arg(x), Duration::from_secs(SECONDS));
    assert!(ended.orderly(), "{} with {}: {ended:?}", engine.display(), x.display());
    ended.code().unwrap()
}

#[test]
fn damaged_engines() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, x) = engine(dir.path());
    assert_eq!(answer(&engine, &x), 0, "the whole engine runs");
    let whole = std::fs::read(&engine).unwrap();
    let loaded = Engine::open(&engine).unwrap();
    assert_eq!(loaded.asset("note.txt").unwrap(), b"one of the host's files".repeat(100));
    assert_eq!((loaded.asset("note"), loaded.manifest().options["note"].as_str()), (None, "1"));
    let bad = dir.path().join("bad.silure");
    for (i, cut) in random::truncations(&whole).into_iter().enumerate() {
        std::fs::write(&bad, cut).unwrap();
        assert_ne!(answer(&bad, &x), 0, "cut at {i}/64");
    }
    let mut noticed = 0;
    for flip in random::flips(&whole, 21, 250) {
        std::fs::write(&bad, flip).unwrap();
        // Weights are hashed only when asked for, so that loading does not read them.
        let check =
            run(bounded(silure_run()).arg(&bad).arg("--check"), Duration::from_secs(SECONDS));
        assert!(check.orderly(), "{check:?}");
        let code = answer(&bad, &x);
        assert!(code == 0 || check.code() != Some(0), "what does not run does not pass --check");
        noticed += (check.code() != Some(0)) as usize;
    }
    assert!(noticed > 230, "{noticed} of 250 flips were noticed; padding is a small part");
}

#[test]
fn damaged_arrays() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, x) = engine(dir.path());
    let whole = std::fs::read(&x).unwrap();
    let bad = dir.path().join("bad.npy");
    for (i, cut) in random::truncations(&whole).into_iter().enumerate() {
        std::fs::write(&bad, cut).unwrap();
        assert_ne!(answer(&engine, &bad), 0, "cut at {i}/64");
    }
    // The header is what can be wrong; the data may be any numbers.
    let mut refused = 0;
    for flip in random::flips(&whole[..128], 22, 200) {
        std::fs::write(&bad, [&flip, &whole[128..]].concat()).unwrap();
        refused += (answer(&engine, &bad) != 0) as usize;
    }
    assert!(refused > 60, "{refused} of 200 damaged headers were refused");
    let text = |shape: &str| {
        let mut h = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
        h = format!("{h:117}\n");
        [b"\x93NUMPY\x01\x00\x76\x00".as_slice(), h.as_bytes(), &whole[128..]].concat()
    };
    for shape in [
        "(1099511627776,)",
        "(9223372036854775807, 9223372036854775807)",
        "(18446744073709551616,)",
        "(-1, 64)",
        "(0, 1, 8, 8, 1)",
        "(((((((((2,),),),),),),),),)",
        "()",
        "(2, 1, 8, 8",
    ] {
        std::fs::write(&bad, text(shape)).unwrap();
        assert_ne!(answer(&engine, &bad), 0, "{shape}");
    }
    std::fs::write(&bad, text("(2, 1, 8, 8)")).unwrap();
    assert_eq!(answer(&engine, &bad), 0, "the headers above are wrong in their shape alone");
    assert_ne!(answer(&engine, Path::new("/dev/zero")), 0);
    assert_ne!(answer(Path::new("/dev/zero"), &x), 0);
    assert_ne!(answer(dir.path(), &x), 0);
}

#[test]
fn an_endless_loop_stops_at_its_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let model = onnx::write(dir.path(), "endless", &onnx::endless());
    let (x, go) = (dir.path().join("x.npy"), dir.path().join("go.npy"));
    npy::write(&x, &Tensor::f32(&[4], &[0.1, 0.2, 0.3, 0.4]).unwrap()).unwrap();
    npy::write(&go, &Tensor::new(silure::ir::Elem::Bool, &[], &[1]).unwrap()).unwrap();
    let limit = Duration::from_secs(SECONDS);
    let out = dir.path().join("endless.silure");
    let compiled = run(bounded(silure()).arg("compile").arg(&model).arg("-o").arg(&out), limit);
    assert_eq!(compiled.code(), Some(0), "{compiled:?}");
    let inputs = |c: &mut std::process::Command| {
        c.args(["--timeout", "1", "--inputs"]).arg(&x).arg(&go);
    };
    for mut c in [bounded(silure_run()), bounded(silure())] {
        if c.get_args().any(|a| a == silure().as_os_str()) {
            c.arg("run").arg(&model);
        } else {
            c.arg(&out);
        }
        inputs(&mut c);
        let ended = run(&mut c, limit);
        assert!(ended.orderly() && ended.code() == Some(1), "{ended:?}");
        assert!(ended.stderr.contains("tim") && ended.time < Duration::from_secs(8), "{ended:?}");
    }
}
