//! The runtime-only binary, as a user calls it.

mod common;

use silure_engine::EngineWriter;
use silure_engine::{DimSpec, PlanBuilder};
use silure_runtime::{Tensor, npy};
use silure_types::Elem;
use std::path::Path;
use std::process::{Command, Output};

fn run(dir: &Path, args: &[&str]) -> Output {
    let bin = env!("CARGO_BIN_EXE_silure-run");
    Command::new(bin).args(args).current_dir(dir).output().unwrap()
}

fn out(o: &Output) -> (i32, String) {
    let text =
        format!("{}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr));
    (o.status.code().unwrap(), text)
}

/// Doubles `x: i4[n]` by a copy to two outputs, with `k: bf16[2]` passed through.
fn engine(dir: &Path) {
    let mut p = PlanBuilder::new();
    let mut e = p.entry("main");
    let x = e.input("x", Elem::I4, &[DimSpec::symbol("n", 0, 100)]);
    let k = e.input("k", Elem::Bf16, &[DimSpec::fixed(2)]);
    let y = e.output("y", Elem::I4, &["n"]);
    let z = e.output("z", Elem::Bf16, &["2"]);
    let n = e.dim(0, 0);
    e.set_shape(0, &[n]);
    e.set_shape(1, &[2.into()]);
    e.loc("copies").copy(y, 0, x, 0, n);
    e.copy(z, 0, k, 0, 4);
    e.finish();
    let plan = p.finish().unwrap();
    EngineWriter::new(plan, "t").write(&dir.join("m.silure"), |_, _| Ok(())).unwrap();
    let mut x = Tensor::zeros(Elem::I4, &[3]).unwrap();
    for (i, v) in [-8, 7, -1].into_iter().enumerate() {
        Elem::I4.store_cell(x.bytes_mut(), i, Elem::I4.encode_int(v));
    }
    npy::write(&dir.join("x.npy"), &x).unwrap();
    let k = Tensor::new(Elem::Bf16, &[2], &[0x80, 0x3F, 0x00, 0x40]).unwrap();
    npy::write(&dir.join("k.npy"), &k).unwrap();
}

#[test]
fn runs_lists_and_reports() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    engine(d);
    assert_eq!(
        out(&run(d, &["m.silure", "--list"])),
        (0, "main(x: i4[n], k: bf16[2]) -> (y: i4[n], z: bf16[2])\n".into())
    );
    let (code, text) = out(&run(d, &["m.silure", "--list", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, json[0]["inputs"][1]["elem"].as_str()), (0, Some("bf16")));
    let all = ["m.silure", "--inputs", "x.npy", "k.npy", "--out-dir", "o/p", "--threads=1"];
    let (code, text) = out(&run(d, &all));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("y: i4[3] → o/p/out_0.npy"), "{text}");
    let file = |n: &str| std::fs::read(d.join(n)).unwrap();
    assert_eq!(file("o/p/out_0.npy"), file("x.npy"));
    assert_eq!(file("o/p/out_1.npy"), file("k.npy"));
    assert_eq!(std::fs::read_dir(d.join("o/p")).unwrap().count(), 2);
    let named = ["m.silure", "--input", "k=@k.npy", "--input=x=@x.npy", "--json", "--profile"];
    let (code, text) = out(&run(d, &[&named[..], &["--repeat", "3"]].concat()));
    assert_eq!(code, 0, "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["seconds"].as_array().unwrap().len(), 3);
    assert_eq!(json["profile"][0]["node"], "copies");
    assert_eq!(json["profile"][0]["calls"], 3);
    assert_eq!(out(&run(d, &["m.silure", "--check"])).0, 0);
    assert!(out(&run(d, &["--help"])).1.contains("--out-dir"));
}

#[test]
fn exit_codes_and_messages() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    engine(d);
    std::fs::write(d.join("bad.npy"), b"nonsense").unwrap();
    std::fs::write(d.join("bad.silure"), b"nonsense").unwrap();
    let plan = common::add_plan();
    EngineWriter::new(plan, "t").write(&d.join("k.silure"), |_, _| Ok(())).unwrap();
    let cases: [(&[&str], i32, &str); 14] = [
        (&[], 2, "needed an engine file"),
        (&["m.silure", "--frob"], 2, "unknown option '--frob'"),
        (&["m.silure", "x.npy"], 2, "one argument too many"),
        (&["m.silure", "--threads", "no"], 2, "needed a positive number, present 'no'"),
        (&["m.silure", "--timeout", "-1"], 2, "--timeout: needed seconds"),
        (&["m.silure", "--input", "x.npy"], 2, "needed NAME=@FILE.npy"),
        (&["m.silure", "--input", "q=@x.npy"], 2, "the entry has x, k"),
        (&["m.silure", "--input", "x=@x.npy"], 2, "input 'k' is not given"),
        (&["m.silure", "--inputs", "x.npy"], 2, "inputs: needed 2, present 1"),
        (&["m.silure", "--entry", "f", "--inputs"], 2, "entry 'f'"),
        (&["m.silure", "--inputs", "bad.npy", "k.npy"], 1, "bad.npy: magic"),
        (&["m.silure", "--inputs", "x.npy", "none.npy"], 1, "none.npy"),
        (&["bad.silure"], 1, "engine: header: needed 64 bytes, present 8 bytes"),
        (&["k.silure"], 5, "kernel 'test.add' is not in this runtime"),
    ];
    for (args, code, word) in cases {
        let (c, text) = out(&run(d, args));
        assert!(c == code && text.contains(word), "{args:?}: {c} {text}");
    }
    let (c, text) = out(&run(d, &["m.silure", "--inputs", "k.npy", "x.npy"]));
    assert!(c == 1 && text.contains("needed i1 (for i4), present u2"), "{text}");
}
