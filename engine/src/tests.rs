//! Plans and files made by hand, and damaged ones.

use crate::plan::*;
use crate::*;
use silure_types::Elem;
use std::io::Write;

mod assets;
mod devices;

/// A plan with a loop, a branch, heap, views, states, two entries and one weight.
pub(crate) fn rich_plan() -> Plan {
    let mut p = PlanBuilder::new();
    let w = p.weight("w", 100);
    let v = p.weight("v", 8);
    let s = p.state("count", Elem::I64, &[1]);
    let f = p.function("fused_0");
    let c = p.constant(&[1, 2, 3, 4]);
    for name in ["prefill", "decode"] {
        let mut e = p.entry(name);
        let n = DimSpec::symbol("n", 1, 64).multiple_of(2);
        let x = e.input("x", Elem::F32, &[n.clone(), DimSpec::fixed(3)]);
        let _ = e.input("z", Elem::I64, &[n]);
        let y = e.output("y", Elem::F32, &["n", "3"]);
        let n = e.dim(1, 0);
        let total = e.mul(n, 3);
        let bytes = e.mul(total, 4);
        e.set_shape(0, &[n, 3.into()]);
        let (a, b) = (e.temp("a", bytes), e.temp("b", bytes));
        let (wb, vb, cb, sb) = (e.weight(w), e.weight(v), e.constant(c), e.state(s));
        e.loc("layer/first").launch("add.f32", &[x, wb], &[a], &[total]);
        let turns = e.load(sb, 0, Elem::I64, LoadMode::Value);
        let i = e.var(0);
        let (top, done) = (e.label(), e.label());
        e.bind(top);
        let more = e.bin(BinOp::Lt, i, turns);
        e.br_zero(more, done);
        let slots = [Arg::In(a), Arg::None, Arg::In(cb), Arg::Out(b), Arg::Code(f)];
        e.launch_code(f, &slots, &[total], n, total, 64);
        e.swap(a, b);
        let next = e.add(i, 1);
        e.set(i, next);
        e.jump(top);
        e.bind(done);
        let h = e.temp("h", turns);
        e.fill(h, 7, 1, turns);
        let view = e.view(a, 0, bytes);
        e.copy(y, 0, view, 0, bytes);
        e.store(sb, 0, Elem::I64, next);
        e.check(more, "no more", 0, turns);
        e.free(h);
        e.loc("").launch("one.f32", &[vb], &[], &[]);
        e.finish();
    }
    p.finish().unwrap()
}

fn writer(plan: Plan) -> EngineWriter {
    EngineWriter::new(plan, "0.1.0")
        .target("cpu:x86-64-v3")
        .option("opt", "1")
        .code("x86-64", &[0], &[0xC3; 16])
        .code("x86-64-v3", &[4], &[0x90; 32])
        .debug(b"{}".to_vec())
}

fn weight_bytes(i: u32, out: &mut dyn Write) -> std::io::Result<()> {
    out.write_all(&vec![i as u8 + 1; [100, 8][i as usize]])
}

struct Rng(u64);
impl Rng {
    fn next(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
}

#[test]
fn arithmetic_rounds_as_named() {
    for a in -7i64..=7 {
        for b in [-3i64, -2, -1, 1, 2, 3] {
            let (q, exact) = (a as f64 / b as f64, |op: BinOp| op.eval(a, b).unwrap());
            assert_eq!(exact(BinOp::FloorDiv), q.floor() as i64, "{a} {b}");
            assert_eq!(exact(BinOp::CeilDiv), q.ceil() as i64, "{a} {b}");
            assert_eq!(exact(BinOp::Mod), a - b * q.floor() as i64, "{a} {b}");
        }
    }
    assert_eq!(BinOp::Mod.eval(i64::MIN, -1), Ok(0));
    assert_eq!(BinOp::FloorDiv.eval(i64::MIN, -1), Err(ArithError::Overflow));
    assert_eq!(BinOp::Mod.eval(1, 0), Err(ArithError::DivisionByZero));
    assert_eq!(BinOp::Add.eval(i64::MAX, 1), Err(ArithError::Overflow));
}

#[test]
fn plan_survives_its_binary_form() {
    let plan = rich_plan();
    let bytes = plan.encode();
    assert_eq!(Plan::decode(&bytes).unwrap(), plan);
    assert_eq!(bytes, rich_plan().encode());
}

/// A plan with every instruction on lists.
pub(crate) fn list_plan() -> Plan {
    let mut p = PlanBuilder::new();
    let mut e = p.entry("main");
    let s = e.input_list(PortKind::Sequence, "s", Elem::F32, None);
    let any = [DimSpec::expr("n"), DimSpec::fixed(3)];
    let o = e.input_list(PortKind::Optional, "o", Elem::F32, Some(&any));
    let x = e.input("x", Elem::F32, &[DimSpec::fixed(2), DimSpec::fixed(3)]);
    let y = e.output("y", Elem::F32, &["2", "3"]);
    let r = e.output_list(PortKind::OptionalSequence, "r", Elem::F32, Some(&["n", "3"]));
    let (l, at) = (e.list("l"), Val::Imm(0));
    let (dims, elem) = (vec![Val::Imm(2), Val::Imm(3)], Elem::F32);
    e.list_op(ListOp::New { list: r, present: false });
    e.list_op(ListOp::Copy { dst: l, src: s, take: false });
    e.list_op(ListOp::Insert { list: l, at, src: x, elem, dims: dims.clone() });
    let (axis, from, count, squeeze) = (1, Val::Imm(0), Val::Imm(1), true);
    let part = Part { list: l, src: x, elem, dims, axis, from, count, squeeze };
    e.list_op(ListOp::Part(Box::new(part)));
    let n = e.list_len(o);
    let d = e.list_dim(l, n, 1);
    e.list_op(ListOp::Erase { list: l, at: d });
    e.set_shape(0, &[2.into(), 3.into()]);
    e.list_op(ListOp::Read { buf: y, list: l, at });
    e.list_op(ListOp::Join { buf: y, list: l, elem, axis: 0, new_axis: true });
    e.list_op(ListOp::Copy { dst: r, src: l, take: true });
    e.finish();
    p.finish().unwrap()
}

/// Its bytes are read back, a part of them is refused, and whatever changed bytes say has no other bytes.
fn survives(plan: &Plan) {
    let bytes = plan.encode();
    assert_eq!(Plan::decode(&bytes).unwrap(), *plan);
    for n in 0..bytes.len() {
        assert!(Plan::decode(&bytes[..n]).is_err(), "truncated to {n}");
    }
    for i in 0..bytes.len() {
        for bit in 0..8 {
            let mut b = bytes.clone();
            b[i] ^= 1 << bit;
            if let Ok(p) = Plan::decode(&b) {
                assert_eq!(p.encode(), b);
            }
        }
    }
}

#[test]
fn lists_survive_their_binary_form_and_raise_the_version() {
    let plan = list_plan();
    survives(&plan);
    let text = plan.to_string();
    let signature = "main(s: seq<f32[…]>, o: opt<f32[n, 3]>, x: f32[2, 3]) -> \
                     (y: f32[2, 3], r: opt<seq<f32[n, 3]>>)";
    for part in [signature, "list.insert", "list.part", "list.erase", "list.join", "list absent"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert_eq!((version_of(&plan, false), version_of(&rich_plan(), false)), (2, 1));
    let file = EngineWriter::new(plan.clone(), "test").to_bytes(|_, _| Ok(())).unwrap();
    let (m, _) = EngineFile::manifest(&file).unwrap();
    assert_eq!((m.format_version, m.min_reader), (2, 2));
    let kinds: Vec<&str> = m.entries[0].inputs.iter().map(|p| p.kind.as_str()).collect();
    assert_eq!(kinds, ["sequence", "optional", ""]);
}

#[test]
fn lists_and_bytes_are_not_confused() {
    let with = |inst: Inst| {
        let mut plan = list_plan();
        plan.entries[0].code[0].inst = inst;
        plan.validate().unwrap_err().to_string()
    };
    let list = |op| Inst::List(Box::new(op));
    let (s, x, y) = (Buf(0), Buf(2), Buf(3));
    let e = with(list(ListOp::New { list: s, present: true }));
    assert!(e.contains("buffer written"), "{e}");
    let e = with(list(ListOp::New { list: y, present: true }));
    assert!(e.contains("needed a list"), "{e}");
    let e = with(list(ListOp::Read { buf: Buf(4), list: s, at: Val::Imm(0) }));
    assert!(e.contains("needed bytes"), "{e}");
    let zero = Val::Imm(0);
    let copy = Inst::Copy { dst: y, dst_offset: zero, src: s, src_offset: zero, bytes: zero };
    assert!(with(copy).contains("needed bytes"));
    let dims = vec![zero; 33];
    let insert = ListOp::Insert { list: Buf(5), at: zero, src: x, elem: Elem::F32, dims };
    assert!(with(list(insert)).contains("dims"));
    assert!(with(Inst::SetShape { output: 1, dims: vec![zero; 2] }).contains("a tensor"));
}

#[test]
fn dump_names_everything() {
    let text = rich_plan().to_string();
    for part in [
        "entry prefill(x: f32[n, 3], z: i64[n]) -> (y: f32[n, 3])",
        "size:",
        "launch add.f32(%0, %5, out %3)",
        "loc(\"layer/first\")",
        "swap %3, %4",
        "(%3, _, %7, out %4, code.0)",
        "brzero",
        "alloc",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn size_arithmetic_is_shared_and_unread_is_dropped() {
    let mut p = PlanBuilder::new();
    let mut e = p.entry("main");
    let x = e.input("x", Elem::F32, &[DimSpec::symbol("n", 0, 9)]);
    let y = e.output("y", Elem::F32, &["n"]);
    let n = e.dim(0, 0);
    let (a, b) = (e.mul(n, 4), e.mul(4, n));
    assert_eq!(a, b);
    let _unread = e.add(a, 17);
    assert_eq!(e.add(3, 4), Val::Imm(7));
    assert_eq!(e.select(1, a, b), a);
    e.set_shape(0, &[n]);
    e.copy(y, 0, x, 0, a);
    e.finish();
    let plan = p.finish().unwrap();
    let entry = &plan.entries[0];
    assert_eq!((entry.size_end, entry.regs, entry.code.len()), (2, 2, 5));
}

#[test]
fn live_ranges_cover_whole_loops() {
    let plan = rich_plan();
    let e = &plan.entries[0];
    let back = e.code.iter().enumerate().find_map(|(i, op)| match op.inst {
        Inst::Jump { target } if (target as usize) <= i => Some((target, i as u32)),
        _ => None,
    });
    let (top, jump) = back.unwrap();
    let mut arenas = 0;
    for b in &e.buffers {
        if let BufKind::Arena { first, last, .. } = b.kind {
            arenas += 1;
            assert!(first < top && last > jump, "{b:?}: loop {top}..{jump}");
        }
    }
    assert_eq!(arenas, 2);
}

#[test]
fn a_temporary_of_one_turn_lives_in_that_turn() {
    let mut p = PlanBuilder::new();
    let mut e = p.entry("main");
    let outer = e.temp("outer", 64);
    let (t, u) = (e.temp("t", 64), e.temp("u", 64));
    let i = e.var(3);
    e.fill(outer, 0, 1, 64);
    let top = e.label();
    e.bind(top);
    e.fill(t, 0, 1, 64);
    e.copy(outer, 0, t, 0, 64);
    e.fill(u, 0, 1, 64);
    e.copy(outer, 0, u, 0, 64);
    let left = e.sub(i, 1);
    e.set(i, left);
    let stop = e.not(left);
    e.br_zero(stop, top);
    e.finish();
    let plan = p.finish().unwrap();
    let range = |b: Buf| match plan.entries[0].buffers[b.0 as usize].kind {
        BufKind::Arena { first, last, .. } => (first, last),
        _ => unreachable!(),
    };
    assert_eq!(range(t), (2, 3));
    assert_eq!(range(u), (4, 5));
    assert_eq!(range(outer), (1, 9));
}

#[test]
fn wrong_plans_are_refused_with_the_place() {
    let cases: [(&str, fn(&mut Plan)); 9] = [
        ("target", |p| p.entries[0].code.push(op(Inst::Jump { target: 10_000 }))),
        ("register", |p| p.entries[0].code[0].inst = Inst::Set { dst: Reg(99), src: 0.into() }),
        ("buffer", |p| p.entries[0].code.insert(9, op(Inst::Free { buf: Buf(77) }))),
        ("falls through", |p| drop(p.entries[0].code.pop())),
        ("register count", |p| p.entries[0].regs = u32::MAX),
        ("unique", |p| p.entries[1].name = p.entries[0].name),
        ("string", |p| p.entries[0].code[0].loc = Str(4000)),
        ("multiple of 64", |p| p.weights[1].offset = 101),
        ("one that may be", |p| {
            p.entries[0]
                .code
                .insert(9, op(Inst::Fill { buf: Buf(0), pattern: 0, width: 1, bytes: 1.into() }))
        }),
    ];
    fn op(inst: Inst) -> Op {
        Op { inst, device: 0, loc: Str(0) }
    }
    for (word, change) in cases {
        let mut plan = rich_plan();
        change(&mut plan);
        let error = plan.validate().unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
        assert!(Plan::decode(&plan.encode()).is_err());
    }
}

#[test]
fn damaged_plans_never_panic() {
    let bytes = rich_plan().encode();
    for n in 0..bytes.len() {
        assert!(Plan::decode(&bytes[..n]).is_err(), "truncated to {n}");
    }
    let mut rng = Rng(1);
    for _ in 0..20_000 {
        let mut b = bytes.clone();
        for _ in 0..1 + rng.next(3) {
            let at = rng.next(b.len());
            b[at] = rng.next(256) as u8;
        }
        if let Ok(plan) = Plan::decode(&b) {
            // What is accepted is a plan like any other: its text and bytes can be made.
            assert_eq!(Plan::decode(&plan.encode()).unwrap(), plan);
            let _ = plan.to_string();
        }
    }
}

#[test]
fn files_are_the_same_every_time_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for name in ["a", "b"] {
        let path = dir.path().join(name);
        writer(rich_plan()).write(&path, weight_bytes).unwrap();
        all.push(std::fs::read(&path).unwrap());
    }
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0], writer(rich_plan()).to_bytes(weight_bytes).unwrap());
    let file = EngineFile::parse(&all[0]).unwrap();
    assert_eq!(file.plan, rich_plan());
    let code = file.code_objects();
    assert_eq!((code[1].target, &code[1].offsets[..]), ("x86-64-v3", &[4][..]));
    assert_eq!(code[1].code, [0x90; 32]);
    assert_eq!(file.debug(), Some(&b"{}"[..]));
    let w = file.weights().unwrap();
    assert_eq!((w.file, w.offset % PAGE, w.bytes), (None, 0, 136));
    let at = w.offset as usize;
    assert_eq!(&all[0][at..at + 100], &[1; 100]);
    assert_eq!(&all[0][at + 128..], &[2; 8]);
    for s in &file.manifest.sections {
        EngineFile::check_section(s, file.section(s).unwrap()).unwrap();
    }
}

#[test]
fn weights_beside_are_named_without_folder() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.silure");
    writer(rich_plan()).weights_beside(true).write(&path, weight_bytes).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = EngineFile::parse(&bytes).unwrap();
    let w = file.weights().unwrap();
    assert_eq!((w.file, w.offset, w.bytes), (Some("m.silure.weights"), 0, 136));
    assert_eq!(std::fs::read(dir.path().join("m.silure.weights")).unwrap().len(), 136);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn a_failed_write_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.silure");
    std::fs::write(&path, b"old").unwrap();
    let short = |_: u32, out: &mut dyn Write| out.write_all(&[0; 5]);
    let error = writer(rich_plan()).write(&path, short).unwrap_err().to_string();
    assert!(error.contains("weight 'w': needed 100 bytes, present 5 bytes"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn damaged_files_never_panic() {
    let bytes = writer(rich_plan()).to_bytes(weight_bytes).unwrap();
    let at = EngineFile::parse(&bytes).unwrap().weights().unwrap().offset as usize;
    for n in (0..bytes.len()).step_by(7) {
        assert!(EngineFile::parse(&bytes[..n]).is_err(), "truncated to {n}");
    }
    let mut rng = Rng(2);
    let clean = EngineFile::parse(&bytes).unwrap().plan;
    for _ in 0..500 {
        let mut b = bytes.clone();
        let i = rng.next(at);
        b[i] ^= 1 << rng.next(8);
        match EngineFile::parse(&b) {
            // Padding and the debug section are not hashed at load.
            Ok(file) => assert_eq!(file.plan, clean),
            Err(e) => assert!(e.to_string().contains("needed"), "{e}"),
        }
    }
}

#[test]
fn hostile_manifests_are_refused() {
    let bytes = writer(rich_plan()).to_bytes(weight_bytes).unwrap();
    let cases: &[(&str, fn(&mut Manifest))] = &[
        ("overlap", |m| m.sections[1].offset = m.sections[0].offset),
        ("multiple of 4096", |m| m.sections[4].offset += 64),
        ("63 bits", |m| m.sections[4].bytes = u64::MAX),
        ("bytes in the file", |m| m.sections[4].bytes = 1 << 40),
        ("without a folder", |m| m.sections[4].file = "../x".into()),
        ("without a folder", |m| m.sections[0].file = "x".into()),
        ("one plan", |m| drop(m.sections.remove(0))),
        ("signatures", |m| m.entries[0].name = "q".into()),
        ("weights section", |m| drop(m.sections.pop())),
    ];
    for (word, change) in cases {
        let error = changed(&bytes, change);
        assert!(error.contains(word), "{word}: {error}");
    }
}

/// Why a file whose manifest was changed, and hashed anew, is refused.
fn changed(bytes: &[u8], change: &fn(&mut Manifest)) -> String {
    use sha2::{Digest, Sha256};
    let (mut m, end) = EngineFile::manifest(bytes).unwrap();
    change(&mut m);
    let mut json = serde_json::to_vec(&m).unwrap();
    let room = end as usize - HEADER;
    assert!(json.len() <= room + 24, "the manifest must keep its place");
    json.resize(json.len().max(room), b' ');
    let mut b = bytes.to_vec();
    b[HEADER..HEADER + json.len()].copy_from_slice(&json);
    b[8..12].copy_from_slice(&m.format_version.to_le_bytes());
    b[12..16].copy_from_slice(&m.min_reader.to_le_bytes());
    b[16..24].copy_from_slice(&(json.len() as u64).to_le_bytes());
    b[32..64].copy_from_slice(&Sha256::digest(&json));
    EngineFile::parse(&b).unwrap_err().to_string()
}
