//! Hostile attributes: every integer and float of every golden case is replaced by extremes. The
//! verifier or the run may refuse; neither may panic, and what a run accepts stays within its limits.

mod common;

use silure_ir::eval::{Interp, Limits};
use silure_ir::{Context, Datum, text, weight::NoFiles};

const INTS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "-2",
    "7",
    "63",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775807",
    "-9223372036854775808",
];
const FLOATS: &[&str] = &["0.0", "-1.0", "1e-300", "1e300", "nan", "inf", "-inf"];

/// Byte ranges of the numbers in an attribute list, outside words in quotes.
fn numbers(s: &str) -> Vec<std::ops::Range<usize>> {
    let (mut out, mut quoted, mut start) = (vec![], false, None);
    let bytes = s.as_bytes();
    for (i, &b) in bytes.iter().enumerate() {
        quoted ^= b == b'"';
        let digit = b.is_ascii_digit() || matches!(b, b'-' | b'.');
        let inside = start.is_some() || (i > 0 && matches!(bytes[i - 1], b' ' | b'['));
        match start {
            None if digit && inside && !quoted => start = Some(i),
            Some(from) if !digit => {
                out.push(from..i);
                start = None;
            }
            _ => {}
        }
    }
    out
}

#[test]
fn extreme_attributes_never_panic() {
    let cx = Context::new();
    let (mut tried, mut ran) = (0, 0);
    for block in include_str!("goldens/graph.txt").split("\n\n").filter(|b| !b.trim().is_empty()) {
        let (op, rest) = block.trim().split_once('\n').unwrap();
        let op = op.strip_prefix("op ").unwrap();
        let inputs: Vec<Option<silure_ir::Tensor>> = rest
            .lines()
            .filter_map(|l| l.strip_prefix("in "))
            .map(|t| (t != "_").then(|| common::tensor(t)))
            .collect();
        let outs = rest.lines().filter(|l| l.starts_with("out ")).count();
        for at in numbers(op) {
            for new in if op[at.clone()].contains('.') { FLOATS } else { INTS } {
                let op = format!("{}{new}{}", &op[..at.start], &op[at.end..]);
                tried += 1;
                let Some(m) = inferred(&cx, &op, &inputs, outs) else { continue };
                let args: Vec<Datum> = inputs.iter().flatten().map(|t| t.clone().into()).collect();
                let limits = Limits { ops: 100, elements: 1 << 20 };
                ran += Interp::new(&m, &NoFiles, limits).run("main", args).is_ok() as usize;
            }
        }
    }
    assert!(tried > 1000 && ran > 100, "{tried} tried, {ran} ran");
}

/// The module around the op with the types that inference gives; `None` if it refuses.
fn inferred(
    cx: &Context,
    op: &str,
    inputs: &[Option<silure_ir::Tensor>],
    outs: usize,
) -> Option<silure_ir::Module> {
    let outputs = (0..outs).map(|_| common::tensor("dense<f32[]: 0.0>")).collect();
    let case = common::Case { op: op.into(), inputs: inputs.to_vec(), outputs };
    let mut m = text::parse(cx, "t", &common::source(&case), Default::default()).ok()?;
    let f = &mut m.funcs[0];
    let old = f.region(f.body).ops[0];
    let (def, attrs) = (f.op(old).def, f.op(old).attrs.clone());
    let slots: Vec<_> = f.op(old).slots().collect();
    let mut g = silure_ir::Func::new("main", silure_ir::FuncKind::Entry);
    let mut map = vec![];
    for (i, a) in f.args().iter().enumerate() {
        map.push((*a, g.add_arg(&format!("a{i}"), f.ty(*a).clone())));
    }
    let slots: Vec<_> = slots
        .iter()
        .map(|s| s.and_then(|s| map.iter().find(|(a, _)| *a == s).map(|(_, v)| *v)))
        .collect();
    let mut b = silure_ir::Builder::at_end(&mut g);
    let new = b.build(def, &slots, attrs, &[], &[]).ok()?;
    let results = b.func.op(new).results.to_vec();
    b.ret(&results).ok()?;
    m.funcs[0] = g;
    silure_ir::verify::verify(&m).ok()?;
    Some(m)
}
