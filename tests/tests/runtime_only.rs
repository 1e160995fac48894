//! The runtime-only program: what is in it, how large it is, and that a large embedding of which few rows
//! are used takes little memory.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use silure::{Compiler, Options};
use silure_runtime::{Engine, Session, Tensor, npy};
use silure_tests::child::{run, silure_run};
use silure_tests::onnx::{self, F32, I64, external, graph, info, init, model, node};

const MIB: u64 = 1 << 20;
const ROWS: u64 = 1 << 18;
const WIDTH: usize = 1024;
const USED: [u64; 8] = [0, 1, 77, 4095, 70_000, 131_072, 200_001, ROWS - 1];

#[test]
fn the_program_is_small_and_has_no_compiler_and_no_oracle() {
    let dir = tempfile::tempdir().unwrap();
    let tool = |name: &str, args: &[&str], file: &Path| {
        let out = Command::new(name).args(args).arg(file).output();
        let out = out.unwrap_or_else(|e| panic!("{name} (binutils) is needed: {e}"));
        assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let symbols = tool("nm", &["-C"], silure_run());
    // The list is a real one: what the program does have is in it.
    assert!(symbols.contains("silure_runtime::") && symbols.contains("silure_engine::"));
    for banned in ["cranelift", "silure_ir", "silure_passes", "silure_onnx", "silure_cpu", "egg::"]
    {
        let found: Vec<&str> = symbols.lines().filter(|l| l.contains(banned)).take(3).collect();
        assert!(found.is_empty(), "{banned}: {found:?}");
    }
    // The same check does see a compiler where there is one.
    let probe = silure_tests::child::program("silure-tests", "probe");
    assert!(tool("nm", &["-C"], &probe).contains("cranelift"));
    let stripped = dir.path().join("silure-run");
    std::fs::copy(silure_run(), &stripped).unwrap();
    tool("strip", &[], &stripped);
    let size = std::fs::metadata(&stripped).unwrap().len();
    eprintln!("silure-run, stripped: {:.2} MB", size as f64 / 1e6);
    assert!(size < 10_000_000, "{size} bytes");
}

/// What `Cargo.toml` of the runtime pulls in, by cargo itself.
#[test]
fn the_runtime_depends_on_no_compiler() {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "-p", "silure-runtime", "-e", "normal", "--prefix", "none", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && tree.contains("silure-engine"), "{out:?}");
    for banned in ["silure-ir", "silure-passes", "silure-onnx", "silure-cpu", "cranelift", "egg "] {
        assert!(!tree.contains(banned), "{banned} in\n{tree}");
    }
}

/// The number at `[row, column]`: only used rows are not zero.
fn value(row: u64, column: usize) -> f32 {
    row as f32 + column as f32 / 1024.0
}

/// An engine with an embedding of 1 GiB, and ids of eight rows.
fn embedding(folder: &Path) -> (PathBuf, PathBuf) {
    let mut data = std::fs::File::create(folder.join("table.bin")).unwrap();
    data.set_len(ROWS * WIDTH as u64 * 4).unwrap();
    for r in USED {
        let bytes: Vec<u8> = (0..WIDTH).flat_map(|c| value(r, c).to_le_bytes()).collect();
        data.seek(SeekFrom::Start(r * WIDTH as u64 * 4)).unwrap();
        data.write_all(&bytes).unwrap();
    }
    let table = external("table", F32, &[ROWS as i64, WIDTH as i64], &[("location", "table.bin")]);
    let nodes = vec![node("Gather", &["table", "ids"], &["rows"]), node("Relu", &["rows"], &["y"])];
    let out = info("y", F32, &["n", "1024"]);
    let m = model(init(graph(&[info("ids", I64, &["n"])], nodes, &[out]), table));
    let path = onnx::write(folder, "embedding", &m);
    let c = Compiler::new().unwrap();
    let engine = folder.join("embedding.silure");
    let loaded = c.load(&path, &Default::default()).unwrap();
    c.compile(loaded, &Options::default()).unwrap().write(&engine).unwrap();
    std::fs::remove_file(folder.join("table.bin")).unwrap();
    let ids = folder.join("ids.npy");
    npy::write(&ids, &Tensor::i64(&[8], &USED.map(|r| r as i64)).unwrap()).unwrap();
    (engine, ids)
}

/// A line of `/proc/self/status`, in bytes.
fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|l| l.starts_with(field)).expect("Linux states it");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_large_embedding_is_mapped_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, ids) = embedding(dir.path());
    assert!(std::fs::metadata(&engine).unwrap().len() > 1024 * MIB);
    let mut c = Command::new(silure_run());
    c.arg(&engine).args(["--threads", "4", "--json", "--out-dir"]).arg(dir.path());
    let ended = run(c.arg("--inputs").arg(&ids), Duration::from_secs(20));
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let number = |k: &str| report[k].as_u64().unwrap_or_else(|| panic!("no {k} in {report}"));
    let (file, anon, held) =
        (number("resident_file"), number("resident_anonymous"), number("peak_memory"));
    eprintln!("silure-run: file {file}, anonymous {anon}, session {held} bytes");
    assert!(file <= 64 * MIB, "{file} bytes of files are resident");
    assert!(anon <= held + 32 * MIB, "{anon} bytes of memory, the session holds {held}");
    let y = npy::read(&dir.path().join("out_0.npy")).unwrap();
    let y = y.into_tensor(silure::ir::Elem::F32).unwrap().to_f64();
    for (i, r) in USED.into_iter().enumerate() {
        for c in 0..WIDTH {
            assert_eq!(y[i * WIDTH + c], f64::from(value(r, c)), "row {r} column {c}");
        }
    }
    four_sessions(&engine);
}

/// Four threads, each with a session on one engine: the same answers, one mapping of the weights.
fn four_sessions(path: &Path) {
    let (file, anon) = (status("RssFile"), status("RssAnon"));
    let engine = Engine::open(path).unwrap();
    let ids = Tensor::i64(&[8], &USED.map(|r| r as i64)).unwrap();
    let answers: Vec<Vec<f64>> = std::thread::scope(|s| {
        let one = |engine: Arc<Engine>| {
            let ids = ids.clone();
            move || {
                let mut session = Session::new(&engine).unwrap();
                (0..50)
                    .map(|_| session.run(0, &[ids.view()]).unwrap()[0].to_f64())
                    .next_back()
                    .unwrap()
            }
        };
        let all: Vec<_> = (0..4).map(|_| s.spawn(one(engine.clone()))).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|a| *a == answers[0]), "four sessions give one answer");
    assert_eq!(answers[0][WIDTH], f64::from(value(1, 0)));
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let bytes: u64 = maps
        .lines()
        .filter(|l| l.ends_with(name))
        .map(|l| {
            let (a, b) = l.split(' ').next().unwrap().split_once('-').unwrap();
            u64::from_str_radix(b, 16).unwrap() - u64::from_str_radix(a, 16).unwrap()
        })
        .sum();
    let length = std::fs::metadata(path).unwrap().len();
    assert!(bytes >= length && bytes < length + length / 2, "{bytes} bytes are mapped of {length}");
    let (file, anon) = (
        status("RssFile") - file.min(status("RssFile")),
        status("RssAnon") - anon.min(status("RssAnon")),
    );
    eprintln!("four sessions: {file} bytes of files, {anon} of memory more");
    assert!(file <= 64 * MIB && anon <= 64 * MIB);
}
