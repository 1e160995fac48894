//! Text of whole models at every phase: print → parse → print is identical in both forms, and the
//! generic form goes through `mlir-opt` and comes back as the same module.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use silure::ir::text::{self, print, print_generic};
use silure::{Compiler, Loaded, Options, Phase};
use silure_tests::onnx;

/// `mlir-opt` of LLVM 22, or of any version.
fn mlir_opt() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let all = |name: &str| std::env::split_paths(&path).map(|d| d.join(name)).find(|p| p.is_file());
    all("mlir-opt-22").or_else(|| all("mlir-opt"))
}

/// What `mlir-opt` makes of a module in generic form.
fn through(tool: &Path, what: &str, generic: &str, locations: bool) -> String {
    let mut c = Command::new(tool);
    c.args(["--allow-unregistered-dialect", "--mlir-print-op-generic"]);
    if locations {
        c.arg("--mlir-print-debuginfo");
    }
    c.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = c.spawn().expect("mlir-opt starts");
    let mut pipe = child.stdin.take().expect("a pipe was asked for");
    let text = generic.to_string();
    let writer = std::thread::spawn(move || pipe.write_all(text.as_bytes()));
    let out = child.wait_with_output().expect("mlir-opt ends");
    // A broken pipe shows in the tool's own message.
    let _ = writer.join();
    let said: String = String::from_utf8_lossy(&out.stderr).chars().take(2000).collect();
    assert!(out.status.success(), "{what}: {said}");
    String::from_utf8(out.stdout).expect("mlir-opt writes UTF-8")
}

/// The first line in which two texts differ.
fn same(what: &str, a: &str, b: &str) {
    if let Some((i, (x, y))) = a.lines().zip(b.lines()).enumerate().find(|(_, (x, y))| x != y) {
        panic!("{what}, line {}:\n{x}\n{y}", i + 1);
    }
    assert_eq!(a.len(), b.len(), "{what}: one text is longer");
}

/// A generic text without locations.
fn bare(c: &Compiler, generic: &str) -> String {
    let mut m = text::parse(&c.context, "bare", generic, Default::default()).expect("parses");
    for f in &mut m.funcs {
        for op in f.walk() {
            f.op_mut(op).loc = silure::ir::Loc::Unknown;
        }
    }
    print_generic(&m)
}

/// Follows a model through its phases and checks the text of each; gives the number of lines.
fn check(c: &Compiler, name: &str, mut model: Loaded, tool: Option<&Path>) -> usize {
    let mut texts = vec![];
    let watch = &mut |phase: Phase, m: &silure::ir::Module| {
        texts.push((phase, print(m), print_generic(m)));
    };
    c.lower_to(&mut model.module, &model.source, &Options::default(), Phase::Plan, watch)
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(texts.len(), Phase::ALL.len());
    let parse = |what: &str, t: &str| {
        text::parse(&c.context, what, t, Default::default())
            .unwrap_or_else(|e| panic!("{what}: {e}"))
    };
    let mut lines = 0;
    for (phase, pretty, generic) in &texts {
        let what = format!("{name} behind {}", phase.name());
        lines += pretty.lines().count();
        let again = parse(&what, pretty);
        same(&what, pretty, &print(&again));
        same(&what, generic, &print_generic(&again));
        let again = parse(&what, generic);
        same(&what, generic, &print_generic(&again));
        same(&what, pretty, &print(&again));
        silure::ir::verify::verify(&again).unwrap_or_else(|e| panic!("{what}: {}", e[0]));
        let Some(tool) = tool else { continue };
        let back = parse(&what, &through(tool, &what, generic, true));
        same(&format!("{what}, through mlir-opt"), generic, &print_generic(&back));
        same(&format!("{what}, through mlir-opt, pretty"), pretty, &print(&back));
        let back = parse(&what, &through(tool, &what, generic, false));
        same(&format!("{what}, without locations"), &bare(c, generic), &print_generic(&back));
    }
    lines
}

fn tool() -> Option<PathBuf> {
    let tool = mlir_opt();
    if tool.is_none() {
        eprintln!("SKIPPED: mlir-opt-22 is not on PATH, the generic form is not shown to MLIR");
    }
    tool
}

#[test]
fn small_models_at_every_phase() {
    let dir = tempfile::tempdir().unwrap();
    let tool = tool();
    let c = Compiler::new().unwrap();
    let mixed = onnx::write(dir.path(), "mixed", &onnx::mixed(dir.path()));
    let endless = onnx::write(dir.path(), "endless", &onnx::endless());
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/demo/digits.onnx");
    for path in [mixed, endless, digits] {
        let m = c.load(&path, &Default::default()).unwrap();
        assert!(check(&c, &path.display().to_string(), m, tool.as_deref()) > 40);
    }
}

#[test]
fn real_models_at_every_phase() {
    let folder = std::env::var_os("SILURE_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/models"),
        PathBuf::from,
    );
    let tool = tool();
    let c = Compiler::new().unwrap();
    let mut failed = vec![];
    for name in [
        "minilm-int8",
        "silero-vad",
        "silero-vad-16k-op15",
        "silero-vad-op18-ifless",
        "ocr-det",
        "ocr-rec",
        "ocr-cls",
        "magika",
        "table",
        "open-nsfw",
    ] {
        let path = folder.join(format!("{name}.onnx"));
        if !path.is_file() {
            eprintln!("SKIPPED: {} is not there (tests/models/fetch.py)", path.display());
            continue;
        }
        let one = || {
            let m = c.load(&path, &Default::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
            check(&c, name, m, tool.as_deref())
        };
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(one)) {
            Ok(lines) => eprintln!("{name}: {lines} lines in all phases"),
            Err(_) => failed.push(name),
        }
    }
    assert!(failed.is_empty(), "{failed:?}: see above");
}
