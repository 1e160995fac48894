//! The tutorial: its crate stays as short as docs/tutorial.md says, is formatted, and passes its tests in a
//! folder outside the workspace.

use std::path::{Path, PathBuf};
use std::process::Command;

/// File of docs/tutorial/src, and the most lines between its markers.
const MOST: [(&str, usize); 8] = [
    ("hard_swish.rs", 20),
    ("reduce_log_sum_exp.rs", 25),
    ("slice.rs", 40),
    ("fusion.rs", 30),
    ("lower_hard_swish.rs", 30),
    ("lower_log_sum_exp.rs", 30),
    ("lower_slice.rs", 30),
    ("lib.rs", 20),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The lines between `// begin` and `// end`, which stand in the file once, and those outside.
fn marked(text: &str) -> (Vec<&str>, Vec<&str>) {
    let lines: Vec<&str> = text.lines().collect();
    let at = |mark: &str| -> Vec<usize> {
        (0..lines.len()).filter(|&i| lines[i].starts_with(mark)).collect()
    };
    let (begin, end) = (at("// begin "), at("// end "));
    assert_eq!((begin.len(), end.len()), (1, 1));
    (lines[begin[0] + 1..end[0]].to_vec(), [&lines[..begin[0]], &lines[end[0] + 1..]].concat())
}

#[test]
fn every_part_is_as_short_as_promised() {
    let (folder, page) = (root().join("docs/tutorial/src"), read(&root().join("docs/tutorial.md")));
    let mut files: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut listed: Vec<String> = MOST.iter().map(|m| m.0.to_string()).collect();
    files.sort();
    listed.sort();
    assert_eq!(files, listed, "files of the crate, and those whose lines are counted");
    for (name, most) in MOST {
        let text = read(&folder.join(name));
        let (lines, outside) = marked(&text);
        let wide = lines.iter().find(|l| l.chars().count() > 100);
        assert!(wide.is_none(), "{name}: {wide:?} is wider than 100");
        assert!(lines.len() > 5 && lines.len() <= most, "{name}: {} of {most} lines", lines.len());
        // Outside stand only the file's description and, in lib.rs, the list of modules.
        let harmless = ["//", "mod ", "pub use ", "use "];
        let code =
            outside.iter().find(|l| !l.is_empty() && !harmless.iter().any(|p| l.starts_with(p)));
        assert!(code.is_none(), "{name}: {code:?} is not counted");
        if name != "lib.rs" {
            let used = outside.iter().find(|l| l.starts_with("use "));
            assert!(used.is_none(), "{name}: {used:?} is not counted");
        }
        let row = page.lines().find(|l| l.contains(&format!("(tutorial/src/{name})")));
        assert!(
            row.is_some_and(|r| r.trim_end().ends_with(&format!("| {most} |"))),
            "docs/tutorial.md does not promise at most {most} lines for {name}"
        );
    }
}

#[test]
fn the_crate_passes_its_tests_outside_the_workspace() {
    let (from, to) =
        (root().join("docs/tutorial"), Path::new(env!("CARGO_TARGET_TMPDIR")).join("tutorial"));
    for folder in ["src", "tests"] {
        // What was there before is not part of the crate any more.
        let _ = std::fs::remove_dir_all(to.join(folder));
        std::fs::create_dir_all(to.join(folder)).unwrap();
        for e in std::fs::read_dir(from.join(folder)).unwrap() {
            let name = e.unwrap().file_name();
            let (a, b) = (from.join(folder).join(&name), to.join(folder).join(&name));
            std::fs::copy(a, b).unwrap();
        }
    }
    let manifest = read(&from.join("Cargo.toml"));
    let here = root().display().to_string();
    let manifest = manifest.replace("path = \"../..", &format!("path = \"{here}"));
    std::fs::write(to.join("Cargo.toml"), manifest).unwrap();
    // The versions that everything else is built with.
    std::fs::copy(root().join("Cargo.lock"), to.join("Cargo.lock")).unwrap();
    std::fs::copy(root().join("rustfmt.toml"), to.join("rustfmt.toml")).unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    for args in [&["fmt", "--check"][..], &["test", "--offline", "--", "--include-ignored"]] {
        let mut cargo = Command::new(env!("CARGO"));
        let cargo = cargo.args(args).current_dir(&to).env("CARGO_TARGET_DIR", target);
        let out = cargo.env_remove("BLESS").output().unwrap();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        assert!(out.status.success(), "cargo {}:\n{text}", args.join(" "));
        if args[0] == "test" {
            assert!(text.contains("test the_engine_equals_the_oracle ... ok"), "{text}");
        }
    }
}
