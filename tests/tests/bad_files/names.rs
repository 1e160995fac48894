//! Names are data: they are never paths and never part of emitted text unescaped.

use silure_tests::child::Outcome;
use silure_tests::onnx::*;

const NAMES: &[&str] = &[
    "../escaped",
    "/etc/passwd",
    "a\nb",
    "a\r\n",
    "\"quoted\"",
    "'; rm -rf .; '",
    "%0",
    "%x : f32[4]",
    "@main",
    "} func @evil() {",
    "loc(\"x\")",
    "\\",
    "\\\"",
    "\u{0}",
    "\u{1b}[31mred",
    "\u{202e}right to left",
    "é\u{301}漢字🦀",
    " ",
    "//",
    "#silure<\"x\">",
    "-o",
    "${HOME}",
    "`id`",
    "NUL",
    "con.npy",
    "a/b",
    "a\\b",
    "x=1",
];

#[test]
fn hostile_names_are_only_names() {
    let dir = tempfile::tempdir().unwrap();
    let mut cases = vec![];
    let long = "n".repeat(100_000);
    for (i, name) in NAMES.iter().copied().chain([long.as_str()]).enumerate() {
        let result = format!("{name}!");
        let inner = format!("{name}?");
        let nodes = vec![node("Add", &[name, "w"], &[&inner]), node("Relu", &[&inner], &[&result])];
        let io = |n: &str| info(n, F32, &["n", "4"]);
        let g = graph(&[io(name)], nodes, &[io(&result)]);
        let w = f32s("w", &[4], &[1.0, -2.0, 3.0, -4.0]);
        let mut m = model(init(g, w));
        if let Some(g) = &mut m.graph {
            g.name = Some(name.to_string());
        }
        m.producer_name = Some(name.to_string());
        cases.push((format!("value_{i}"), m));
        // As the symbol of a dim, the name of a weight and of a node.
        let sized = |n: &str| info(n, F32, &[name, "4"]);
        let weight = format!("{name}w");
        let mut n = node("Add", &["x", &weight], &["y"]);
        n.name = Some(name.to_string());
        let t = f32s(&weight, &[4], &[0.5; 4]);
        cases.push((
            format!("symbol_{i}"),
            model(init(graph(&[sized("x")], vec![n], &[sized("y")]), t)),
        ));
        // As an operator and as a domain nobody knows.
        let mut n = node(name, &["x"], &["y"]);
        let one = |n| model(graph(&[io("x")], vec![n], &[io("y")]));
        cases.push((format!("operator_{i}"), one(n.clone())));
        n.domain = Some(name.to_string());
        cases.push((format!("domain_{i}"), one(n)));
    }
    for (name, o) in super::outcomes("names", dir.path(), &cases) {
        if name.starts_with("operator") || name.starts_with("domain") {
            assert!(matches!(o, Outcome::Refused(_)), "{name}: {o:?}");
        } else {
            assert!(matches!(o, Outcome::Right | Outcome::Refused(_)), "{name}: {o:?}");
        }
    }
    assert!(!dir.path().join("../escaped").exists(), "a name became a path");
}
