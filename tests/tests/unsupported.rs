//! A model with ops that cannot be compiled: all are listed at once, and nothing is written.

use std::time::Duration;

use silure_tests::child::{bounded, run, silure};
use silure_tests::onnx::{F32, graph, info, model, node, write};

#[test]
fn all_unsupported_ops_are_listed_in_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = vec![
        node("Relu", &["x"], &["a"]),
        node("FirstMystery", &["a"], &["b"]),
        node("SecondMystery", &["b", "x"], &["c"]),
        node("Tanh", &["c"], &["d"]),
        node("ThirdMystery", &["d"], &["e"]),
        node("ThirdMystery", &["e"], &["y"]),
    ];
    for (i, n) in nodes.iter_mut().enumerate() {
        n.name = Some(format!("layer{i}/node"));
    }
    let m = model(graph(&[info("x", F32, &["2", "3"])], nodes, &[info("y", F32, &["2", "3"])]));
    let path = write(dir.path(), "mystery", &m);
    let out = dir.path().join("mystery.silure");
    for verb in ["compile", "check"] {
        let mut c = bounded(silure());
        c.arg(verb).arg(&path);
        if verb == "compile" {
            c.arg("-o").arg(&out);
        } else {
            c.args(["--target", "cpu:x86-64-v3"]);
        }
        let ended = run(&mut c, Duration::from_secs(20));
        assert_eq!(ended.code(), Some(5), "{verb}: {ended:?}");
        let said = format!("{}{}", ended.stdout, ended.stderr);
        for part in ["FirstMystery", "SecondMystery", "ThirdMystery", "layer1/node", "layer2/node"]
        {
            assert!(said.contains(part), "{verb}: no {part} in {said}");
        }
        assert!(said.contains("layer4/node") && said.contains("layer5/node"), "{verb}: {said}");
        assert!(said.contains("2") && said.contains("4 nodes"), "{verb}: counts in {said}");
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left, [path], "nothing else was written");
}
