//! Deep and long files: what recurses must have a bound.

use silure_onnx_proto::{FunctionProto, GraphProto, OperatorSetIdProto};
use silure_tests::onnx::*;

fn nested_ifs(depth: usize) -> GraphProto {
    let mut g = graph(&[], vec![node("Relu", &["x"], &["t"])], &[info("t", F32, &["4"])]);
    for i in 0..depth {
        let out = format!("t{i}");
        let n = with(node("If", &["c"], &[&out]), subgraph("then_branch", g));
        let other = graph(&[], vec![node("Tanh", &["x"], &["e"])], &[info("e", F32, &["4"])]);
        g = graph(&[], vec![with(n, subgraph("else_branch", other))], &[info(&out, F32, &["4"])]);
    }
    g.input = vec![info("x", F32, &["4"]), info("c", BOOL, &[])];
    g
}

fn chain(op: &str, length: usize) -> GraphProto {
    let name = |i: usize| format!("v{i}");
    let nodes = (0..length).map(|i| node(op, &[&name(i)], &[&name(i + 1)])).collect();
    graph(&[info("v0", F32, &["4"])], nodes, &[info(&name(length), F32, &["4"])])
}

#[test]
fn deep_and_long_models() {
    let dir = tempfile::tempdir().unwrap();
    let mut cases = vec![];
    for depth in [3, 20, 40, 400] {
        cases.push((format!("ifs_{depth}"), model(nested_ifs(depth))));
    }
    for (op, length) in [("Relu", 3000), ("Identity", 20000), ("Softmax", 1000), ("Sin", 1000)] {
        cases.push((format!("chain_{op}"), model(chain(op, length))));
    }
    let local = |name: String, calls: String| {
        let mut n = node(&calls, &["a"], &["b"]);
        let top = calls != "Relu";
        n.domain = top.then(|| "local".into());
        FunctionProto {
            name: Some(name),
            domain: Some("local".into()),
            input: vec!["a".into()],
            output: vec!["b".into()],
            node: vec![n],
            opset_import: ["", "local"]
                .map(|d| OperatorSetIdProto { domain: Some(d.into()), version: Some(17) })
                .to_vec(),
            ..Default::default()
        }
    };
    for (what, count, last) in [("deep", 500, "Relu"), ("few", 8, "Relu"), ("recursive", 3, "f0")] {
        let mut m = model(chain("f0", 1));
        m.graph.as_mut().unwrap().node[0].domain = Some("local".into());
        m.opset_import.push(OperatorSetIdProto { domain: Some("local".into()), version: Some(17) });
        for i in 0..count {
            let next = if i + 1 == count { last.to_string() } else { format!("f{}", i + 1) };
            m.functions.push(local(format!("f{i}"), next));
        }
        cases.push((format!("functions_{what}"), m));
    }
    // Each function calls the next twice: 2^40 nodes when inlined.
    let mut m = model(chain("f0", 1));
    m.graph.as_mut().unwrap().node[0].domain = Some("local".into());
    m.opset_import.push(OperatorSetIdProto { domain: Some("local".into()), version: Some(17) });
    for i in 0..30 {
        let next = if i == 29 { "Relu".into() } else { format!("f{}", i + 1) };
        let mut f = local(format!("f{i}"), next);
        let mut second = f.node[0].clone();
        f.node[0].output = vec!["m".into()];
        second.input = vec!["m".into()];
        f.node.push(second);
        m.functions.push(f);
    }
    cases.push(("functions_doubling".into(), m));
    super::outcomes("nesting", dir.path(), &cases);
}

/// A length-delimited field of protobuf around `inner`, `depth` times.
fn wrapped(fields: &[u8], depth: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = vec![];
    for i in 0..depth {
        let mut head = vec![fields[i % fields.len()] << 3 | 2];
        let mut n = bytes.len();
        while n >= 128 {
            head.push(n as u8 | 128);
            n >>= 7;
        }
        head.push(n as u8);
        // Built from the inside: the whole is small enough to copy.
        head.extend(&bytes);
        bytes = head;
    }
    bytes
}

#[test]
fn deep_protobuf() {
    let dir = tempfile::tempdir().unwrap();
    let mut contents = vec![];
    // attribute.graph.node…; value_info.type.sequence.elem…; groups; long varints.
    for fields in [&[6, 5, 1][..], &[4, 1][..], &[7][..], &[1][..]] {
        for depth in [50, 1000, 8000] {
            contents.push([&[8, 8][..], &wrapped(fields, depth)].concat());
        }
    }
    contents.push(vec![0x0b; 100_000]);
    contents.push(vec![0xff; 100_000]);
    contents.push(
        [&[8, 8, 0x3a][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]].concat(),
    );
    super::check("deep protobuf", &super::files(dir.path(), "onnx", contents));
}

#[test]
fn deep_text() {
    let dir = tempfile::tempdir().unwrap();
    let text = |body: String| format!("module @m {{\n{body}\n}}\n").into_bytes();
    let entry = |ty: String, ops: String| {
        text(format!("  entry @main(%x: {ty}) -> (y: {ty}) {{\n{ops}\n    return %x\n  }}"))
    };
    let mut contents = vec![];
    for n in [90, 200, 100_000] {
        let (open, close) = ("(".repeat(n), ")".repeat(n));
        contents.push(entry(format!("f32[{open}4{close}]"), String::new()));
        contents.push(entry(format!("f32[{}4]", "-".repeat(n)), String::new()));
        contents.push(entry(format!("f32[{}]", vec!["1"; n].join(", ")), String::new()));
        contents.push(entry(format!("f32[{}]", vec!["2"; n].join(" * ")), String::new()));
        contents.push(entry(format!("f32[{}]", vec!["n"; n].join(" + ")), String::new()));
        let seq = format!("{}f32[4]{}", "seq<".repeat(n), ">".repeat(n));
        contents.push(entry(seq, String::new()));
        let open = "%r = graph.if %x do() { ".repeat(n);
        contents.push(entry("f32[4]".into(), open + &"}".repeat(n)));
        let open = "%r = graph.loop %x do(%i: i64[]) { ".repeat(n);
        contents.push(entry("f32[4]".into(), open));
        let expr = format!("{}x{}", "transpose(".repeat(n), ", [0])".repeat(n));
        contents.push(text(format!("  weight @w : f32[4] = {expr}")));
        let attr =
            format!("%1 = graph.relu %x {{a = {}{}}} : f32[4]", "[".repeat(n), "]".repeat(n));
        contents.push(entry("f32[4]".into(), attr));
        contents.push(entry("f32[4]".into(), format!("%1 = graph.relu {}", "loc(".repeat(n))));
        contents.push(format!("\"a.b\"(){}", "({".repeat(n)).into_bytes());
        let generic = format!("\"builtin.module\"() {}", "({ \"silure.func\"() ".repeat(n));
        contents.push(generic.into_bytes());
    }
    contents.push(entry("f32[99999999999999999999]".into(), String::new()));
    contents.push(entry("f32[9223372036854775807, 9223372036854775807]".into(), String::new()));
    contents.push(entry("f32[9223372036854775807 * n]".into(), String::new()));
    contents.push(vec![0xff; 4096]);
    contents.push(text("  weight @w : f32[4] = dense<f32[1099511627776]: 1>".into()));
    contents.push(entry(
        "f32[4]".into(),
        "%1 = core.constant {value = dense<f32[1099511627776]: 0>} : f32[1099511627776]".into(),
    ));
    super::check("deep text", &super::files(dir.path(), "sir", contents));
}
