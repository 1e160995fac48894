//! The tutorial: its crate stays as short as docs/tutorial.md says, and Silure's crates know nothing of it. Its own
//! tests are the workspace's.

use std::path::{Path, PathBuf};

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
fn nothing_in_silure_knows_the_crate() {
    let manifest = read(&root().join("docs/tutorial/Cargo.toml"));
    assert!(manifest.contains("name = \"silure-tutorial\""));
    for line in read(&root().join("Cargo.lock")).split("[[package]]") {
        let name = line.lines().find_map(|l| l.strip_prefix("name = ")).unwrap_or("");
        let used = line.contains("\"silure-tutorial\"") && name != "\"silure-tutorial\"";
        assert!(!used, "{name} depends on the tutorial");
    }
}
