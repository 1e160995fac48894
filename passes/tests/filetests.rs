//! Runs tests/filetests/*.sir.
//!
//! A file begins with `// RUN: pipeline`, optionally `// ALLOW: exact|reassociates|approximates`; then
//! the module; then a line `// EXPECT` and the module after the pipeline. Instead of the expectation, lines
//! may end in `//~ ERROR text`: then the diagnostics must be at exactly these lines and contain the
//! texts. `BLESS=1` rewrites expectations. Every module is also run through the oracle before and after.

use std::path::{Path, PathBuf};

use silure_ir::{Context, Diagnostic, Loc, Module, text};
use silure_passes::{Config, Driver, Exactness, Registry, Report, testing};

const SEPARATOR: &str = "// EXPECT\n";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests")
}

fn files() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "sir"))
        .collect();
    all.sort();
    all
}

struct Case {
    pipeline: String,
    allow: Exactness,
    input: String,
    expect: Option<String>,
}

fn read(path: &Path) -> Case {
    let all = std::fs::read_to_string(path).unwrap();
    let (input, expect) = match all.split_once(SEPARATOR) {
        Some((i, e)) => (i.to_string(), Some(e.to_string())),
        None => (all, None),
    };
    let header = |key: &str| {
        input.lines().find_map(|l| l.strip_prefix(&format!("// {key}: "))).map(str::to_string)
    };
    let allow = match header("ALLOW").as_deref() {
        None | Some("reassociates") => Exactness::Reassociates,
        Some("exact") => Exactness::Exact,
        Some("approximates") => Exactness::Approximates,
        Some(x) => panic!("{}: unknown ALLOW `{x}`", path.display()),
    };
    let pipeline = header("RUN").unwrap_or_else(|| panic!("{}: no RUN line", path.display()));
    Case { pipeline, allow, input, expect }
}

fn run(c: &Case) -> Result<(Module, Module, Report), Vec<Diagnostic>> {
    let (cx, registry) = (Context::new(), Registry::new());
    let before = text::parse_verified(&cx, "input", &c.input)?;
    let mut after = text::parse(&cx, "input", &c.input, Default::default()).map_err(|e| vec![e])?;
    let config = Config { verify_each: true, allow: c.allow, ..Config::default() };
    let report = Driver::new(&registry, &cx, config).run(&c.pipeline, &mut after)?;
    Ok((before, after, report))
}

fn check_errors(path: &Path, c: &Case, got: Vec<Diagnostic>) -> Vec<String> {
    let mut want: Vec<(u32, &str)> = c
        .input
        .lines()
        .enumerate()
        .filter_map(|(i, l)| Some((i as u32 + 1, l.split_once("//~ ERROR ")?.1.trim())))
        .collect();
    let mut wrong = Vec::new();
    for e in got {
        let line = match &e.loc {
            Loc::File(p) => p.line,
            _ => 0,
        };
        let text = e.to_string();
        match want.iter().position(|(l, t)| *l == line && text.contains(t)) {
            Some(i) => drop(want.remove(i)),
            None => wrong.push(format!("{}:{line}: unexpected: {text}", path.display())),
        }
    }
    for (l, t) in want {
        wrong.push(format!("{}:{l}: no error `{t}`", path.display()));
    }
    wrong
}

#[test]
fn filetests() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    let all = files();
    assert!(!all.is_empty());
    for path in all {
        let c = read(&path);
        let errors = c.input.contains("//~ ERROR ");
        let (before, after, _) = match run(&c) {
            Ok(_) if errors => {
                wrong.push(format!("{}: passes, errors were expected", path.display()));
                continue;
            }
            Err(e) => {
                wrong.extend(check_errors(&path, &c, e));
                continue;
            }
            Ok(r) => r,
        };
        let out = text::print(&after);
        if c.expect.as_deref() != Some(&*out) {
            if bless {
                std::fs::write(&path, format!("{}{SEPARATOR}{out}", c.input)).unwrap();
            } else {
                wrong.push(format!(
                    "{}: the result is not the expected one (BLESS=1 accepts it):\n{out}",
                    path.display()
                ));
            }
        }
        if let Err(e) = testing::compare(&before, &after, c.allow, 12) {
            wrong.push(format!("{}: {e}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Exact rules alone keep every bit, on every file.
#[test]
fn exact_rules_keep_every_bit() {
    for path in files() {
        let c = Case { allow: Exactness::Exact, ..read(&path) };
        if c.input.contains("//~ ERROR ") {
            continue;
        }
        let (before, after, _) = run(&c).unwrap_or_else(|e| panic!("{}: {}", path.display(), e[0]));
        if let Err(e) = testing::compare(&before, &after, Exactness::Exact, 12) {
            panic!("{}: {e}", path.display());
        }
    }
}

#[test]
fn every_rewrite_has_a_filetest() {
    let mut used = std::collections::BTreeSet::new();
    for path in files() {
        if let Ok((_, _, report)) = run(&read(&path)) {
            used.extend(report.passes.into_iter().flat_map(|p| p.rules).map(|(r, _)| r));
        }
    }
    let registry = Registry::new();
    let missing: Vec<&str> = registry
        .sets()
        .flat_map(|(_, rules)| rules.iter().map(|r| r.name))
        .filter(|n| !used.contains(*n))
        .collect();
    assert!(missing.is_empty(), "no filetest applies {missing:?}");
}
