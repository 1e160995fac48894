//! Faults are named with their place; hostile text is an error with its line, never a panic.

mod common;

use common::{NAMES, Rng, text};
use silure_ptx_emulator::{Device, Error, Kind, Launch, Module, Options, Param, Races};

const HEAD: &str = ".version 7.0\n.target sm_80\n.address_size 64\n";

/// A kernel `k(.u64 p)` with registers, from line 10 on; `p` is at `buffer`, 1024 bytes, half of them written.
fn run_with(body: &str, block: u32, grid: u32, options: &Options) -> Result<Vec<u8>, Error> {
    let t = format!(
        "{HEAD}.visible .entry k(.param .u64 p)\n{{\n.reg .pred %p<9>; .reg .b16 %h<9>;\n.reg .b32 %r<9>; .reg .f32 %f<9>; .reg \
         .b64 %d<9>;\n.shared .align 16 .b8 s[1024];\nld.param.u64 %d0, [p]; mov.u32 %r0, %tid.x;\n{body}\nret;\n}}\n"
    );
    let module = Module::parse(&t)?;
    let mut d = Device::new(1 << 20);
    let p = d.alloc(1024)?;
    d.write(p, &[7; 512])?;
    let launch = Launch {
        grid: [grid, 1, 1],
        block: [block, 1, 1],
        shared: 0,
        params: vec![Param::from(p)],
    };
    d.launch(&module, "k", &launch, options)?;
    let mut out = vec![0; 1024];
    d.read(p, &mut out)?;
    Ok(out)
}

fn run(body: &str, block: u32) -> Result<Vec<u8>, Error> {
    run_with(body, block, 1, &Options::default())
}

fn fails(body: &str, block: u32, kind: Kind, words: &str) {
    let e = run(body, block).expect_err(body);
    assert_eq!(e.kind, kind, "{e}");
    let said = e.to_string();
    assert!(said.contains(words), "{said}");
    assert!(said.contains("line"), "{said}");
}

#[test]
fn memory() {
    fails("ld.global.u32 %r1, [%d0+1024];", 1, Kind::Address, "outside of every allocation");
    fails("ld.global.u32 %r1, [%d0+2];", 1, Kind::Address, "not aligned");
    fails("ld.global.u32 %r1, [%d0+512];", 1, Kind::Uninitialised, "never written");
    fails(
        "ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%d0+8];",
        1,
        Kind::Address,
        "16 bytes is not aligned",
    );
    fails("ld.shared.u32 %r1, [s];", 1, Kind::Uninitialised, "shared memory");
    fails(
        "mov.u32 %r1, s; st.shared.u32 [%r1+1024], %r1;",
        1,
        Kind::Address,
        "1024 bytes of shared memory",
    );
    fails("mov.b64 %d1, 0; ld.global.u32 %r1, [%d1];", 1, Kind::Address, "no allocation is here");
    let e = run("setp.eq.u32 %p0, %r0, 37; @%p0 ld.global.u32 %r1, [%d0+4096];", 64).unwrap_err();
    let said = e.to_string();
    for word in ["kernel k", "line 10", "block (0, 0, 0)", "warp 1", "lane 5", "address 0x"] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn freed_memory() {
    let m = Module::parse(&format!(
        "{HEAD}.entry k(.param .u64 p) {{ .reg .b64 %d<2>; .reg .b32 %r; ld.param.u64 %d0, [p]; ld.global.u32 %r, [%d0]; ret; }}"
    ))
    .unwrap();
    let mut d = Device::new(1 << 16);
    let p = d.alloc(64).unwrap();
    d.write(p, &[0; 64]).unwrap();
    let launch = Launch { params: vec![Param::from(p)], ..Launch::default() };
    d.launch(&m, "k", &launch, &Options::default()).unwrap();
    d.free(p).unwrap();
    assert!(d.free(p).is_err());
    let e = d.launch(&m, "k", &launch, &Options::default()).unwrap_err();
    assert!(e.to_string().contains("has been freed"), "{e}");
    assert_eq!(d.alloc(1 << 17).unwrap_err().kind, Kind::Limit);
}

#[test]
fn races() {
    let store =
        "mul.lo.u32 %r1, %r0, 4; mov.u32 %r2, s; add.s32 %r1, %r1, %r2; st.shared.u32 [%r1], %r0;";
    let load = "xor.b32 %r3, %r1, 128; ld.shared.u32 %r4, [%r3]; st.global.u32 [%d0], %r4;";
    let first = "setp.eq.u32 %p0, %r0, 0; @%p0 ";
    let fixed = format!(
        "{store}\nbar.sync 0;\nxor.b32 %r3, %r1, 128; ld.shared.u32 %r4, [%r3]; {first} st.global.u32 [%d0], %r4;"
    );
    assert_eq!(run(&fixed, 64).unwrap()[0], 32);
    let broken = fixed.replace("bar.sync 0;", "");
    let mut kinds = Vec::new();
    for seed in 0..20 {
        let e = run_with(&broken, 64, 1, &Options { seed, ..Options::default() }).unwrap_err();
        kinds.push(e.kind);
    }
    assert!(kinds.iter().all(|k| matches!(k, Kind::Race | Kind::Uninitialised)), "{kinds:?}");
    // Written first and read later by another warp without a barrier: seen whoever comes first.
    let both =
        format!("{store} bar.sync 0;\n{store} {}", load.replace("st.global.u32 [%d0], %r4;", ""));
    for seed in 0..20 {
        let e = run_with(&both, 64, 1, &Options { seed, ..Options::default() }).unwrap_err();
        assert_eq!(e.kind, Kind::Race, "{e}");
    }
    assert!(run_with(&both, 64, 1, &Options { races: Races::Off, ..Options::default() }).is_ok());
    // Blocks: plain writes to one place; atomics are fine.
    let blocks =
        |body: &str, races| run_with(body, 32, 8, &Options { races, ..Options::default() });
    let plain = blocks("st.global.u32 [%d0], 1;", Races::All).unwrap_err();
    assert_eq!(plain.kind, Kind::Race, "{plain}");
    assert!(blocks("st.global.u32 [%d0], 1;", Races::Shared).is_ok());
    let out = blocks("red.global.add.u32 [%d0], 1;", Races::All).unwrap();
    assert_eq!(u32::from_le_bytes(out[..4].try_into().unwrap()), 0x0707_0707 + 256);
    let mixed = blocks("red.global.add.u32 [%d0], 1; ld.global.u32 %r1, [%d0];", Races::All);
    assert_eq!(mixed.unwrap_err().kind, Kind::Race);
}

/// What a kernel gives in some orders.
fn orders(body: &str, block: u32, grid: u32) -> Vec<Result<Vec<u8>, Kind>> {
    let run = |seed| run_with(body, block, grid, &Options { seed, ..Options::default() });
    (0..20).map(|seed| run(seed).map_err(|e| e.kind)).collect()
}

/// Bytes of a word that are touched alone, and words that are touched whole.
#[test]
fn parts_of_words() {
    let is_race = |body: &str, block, grid| {
        for said in orders(body, block, grid) {
            assert_eq!(said.expect_err(body), Kind::Race, "{body}");
        }
    };
    // The first lane of each of four warps has byte 0 to 3.
    let head = "shr.u32 %r1, %r0, 5; and.b32 %r2, %r0, 31; mov.u32 %r3, s; add.s32 %r4, %r3, %r1;\n\
        setp.eq.u32 %p0, %r2, 0; setp.eq.u32 %p1, %r0, 64; setp.eq.u32 %p2, %r0, 0;\n";
    let bytes = format!("{head}@%p0 st.shared.u8 [%r4], %r1;");
    let read = "ld.shared.u32 %r5, [s]; @%p2 st.global.u32 [%d0], %r5;";
    for out in orders(&format!("{bytes}\nbar.sync 0;\n{read}"), 128, 1) {
        assert_eq!(out.unwrap()[..4], [0, 1, 2, 3]);
    }
    let again = format!("{bytes}\nbar.sync 0;\n{read}\n");
    is_race(&format!("{again}@%p1 st.shared.u8 [s+1], %r1;"), 128, 1);
    is_race(&format!("{again}@%p1 st.shared.u32 [s], %r1;"), 128, 1);
    is_race(&format!("{again}bar.sync 0; @%p0 st.shared.u8 [s+1], %r1;"), 128, 1);
    // Read in part by all, written whole by one; and the other way round.
    let part = "ld.shared.u8 %r5, [s+3];";
    is_race(&format!("{bytes}\nbar.sync 0;\n{part} @%p1 st.shared.u32 [s], %r1;"), 128, 1);
    let beside = format!("{bytes}\nbar.sync 0;\n{part} @%p1 st.shared.u8 [s+2], %r1;");
    assert!(orders(&beside, 128, 1).iter().all(|r| r.is_ok()));
    let three = format!(
        "{head}setp.lt.and.u32 %p3, %r1, 3, %p0;\n@%p3 st.shared.u8 [%r4], %r1;\nbar.sync 0;\n{read}"
    );
    for said in orders(&three, 128, 1) {
        assert_eq!(said.unwrap_err(), Kind::Uninitialised);
    }

    // Each block has a byte, and one of them the whole word too.
    let head = "mov.u32 %r1, %ctaid.x; cvt.u64.u32 %d1, %r1; add.u64 %d1, %d0, %d1;\n\
        setp.eq.u32 %p0, %r1, 5;\n";
    let bytes = format!("{head}st.global.u8 [%d1], %r1;");
    for out in orders(&bytes, 1, 8) {
        assert_eq!(out.unwrap()[..8], [0, 1, 2, 3, 4, 5, 6, 7]);
    }
    is_race(&format!("{bytes} @%p0 st.global.u32 [%d0+4], %r1;"), 1, 8);
    is_race(&format!("{bytes} @%p0 ld.global.u32 %r2, [%d0+4];"), 1, 8);
    is_race(&format!("{head} ld.global.u8 %r2, [%d1]; @%p0 st.global.u32 [%d0+4], %r1;"), 1, 8);
    is_race(&format!("{bytes} @%p0 ld.global.u8 %r2, [%d0+4];"), 1, 8);
    let fine = format!("{bytes} @%p0 ld.global.u32 %r2, [%d0+8];");
    assert!(orders(&fine, 1, 8).iter().all(|r| r.is_ok()));
}

#[test]
fn copies() {
    let copy =
        "mov.u32 %r1, s; cp.async.ca.shared.global [%r1], [%d0], 16, 8; cp.async.commit_group;";
    let whole = |wait: &str| {
        format!("{copy} {wait} ld.shared.u32 %r2, [%r1+4]; st.global.u32 [%d0+1020], %r2;")
    };
    let out = run(&whole("cp.async.wait_group 0;"), 1).unwrap();
    assert_eq!(out[1020..], [7; 4]);
    fails(&whole(""), 1, Kind::Unfinished, "has not been waited for");
    fails(&whole("cp.async.wait_group 1;"), 1, Kind::Unfinished, "has not been waited for");
    // Waited for by its own warp, read by another.
    let first = "setp.lt.u32 %p0, %r0, 1; mov.u32 %r1, s;\n@%p0 cp.async.ca.shared.global [%r1], [%d0], 4; cp.async.wait_all;";
    let read = "setp.eq.u32 %p1, %r0, 40; @%p1 ld.shared.u32 %r2, [%r1];";
    assert!(run(&format!("{first} bar.sync 0; {read}"), 64).is_ok());
    for seed in 0..10 {
        let e =
            run_with(&format!("{first} {read}"), 64, 1, &Options { seed, ..Options::default() })
                .unwrap_err();
        assert!(matches!(e.kind, Kind::Race | Kind::Unfinished | Kind::Uninitialised), "{e}");
    }
}

#[test]
fn lanes() {
    let odd = "and.b32 %r1, %r0, 1; setp.eq.u32 %p0, %r1, 1;";
    let half = "shfl.sync.bfly.b32 %r2, %r0, 1, 31, -1;";
    fails(&format!("{odd} @%p0 {half}"), 32, Kind::Divergence, "a shuffle needs lanes 0xffffffff");
    fails(&format!("{odd} @%p0 bar.sync 0;"), 32, Kind::Divergence, "a barrier needs lanes");
    fails(
        "setp.lt.u32 %p0, %r0, 32; @%p0 bra A; bar.sync 0; A:",
        64,
        Kind::Deadlock,
        "waits at barrier 0",
    );
    fails("setp.eq.u32 %p0, %r0, 3; @%p0 trap;", 32, Kind::Trap, "lane 3");
    let mma = "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f0, %f1, %f2, %f3}, {%r1, %r2}, {%r3}, {%f0, %f1, %f2, %f3};";
    fails(mma, 16, Kind::Divergence, "`mma.sync`");
    // Both sides of a branch meet again before the shuffle.
    let meet = "and.b32 %r1, %r0, 1; setp.eq.u32 %p0, %r1, 1; mov.u32 %r3, 5; @%p0 bra B; mov.u32 %r3, 9;\nB: \
                shfl.sync.bfly.b32 %r2, %r3, 1, 31, -1; mul.wide.u32 %d1, %r0, 4; add.s64 %d1, %d1, %d0; st.global.u32 [%d1], %r2;";
    let out = run(meet, 32).unwrap();
    assert_eq!((out[0], out[4]), (5, 9));
    let e = run_with("A: bra A;", 1, 1, &Options { budget: 1 << 16, ..Options::default() })
        .unwrap_err();
    assert_eq!((e.kind, e.line), (Kind::Limit, Some(10)), "{e}");
}

#[test]
fn launches() {
    let m = Module::parse(&format!("{HEAD}.entry k(.param .u32 p).reqntid 64 {{ ret; }}")).unwrap();
    let mut d = Device::new(1 << 16);
    let mut go = |name: &str, block: u32, params: Vec<Param>| {
        let l = Launch { block: [block, 1, 1], params, ..Launch::default() };
        d.launch(&m, name, &l, &Options::default()).map_err(|e| e.to_string())
    };
    assert!(go("k", 64, vec![Param::from(1u32)]).is_ok());
    assert!(go("k", 32, vec![Param::from(1u32)]).unwrap_err().contains("requires [64, 1, 1]"));
    assert!(go("k", 64, vec![]).unwrap_err().contains("1 arguments are needed, 0 are given"));
    assert!(
        go("k", 64, vec![Param::from(1u64)]).unwrap_err().contains("has 8 bytes, 4 are needed")
    );
    assert!(go("x", 64, vec![]).unwrap_err().contains("no kernel `x`; there are: k"));
}

#[test]
fn texts() {
    let says = |body: &str, kind: Kind, words: &str| {
        let e = Module::parse(&format!("{HEAD}{body}")).expect_err(body);
        assert_eq!(e.kind, kind, "{e}");
        assert!(e.to_string().contains(words) && e.line.is_some(), "{e}");
    };
    let kernel = |s: &str| {
        format!(".entry k() {{ .reg .b32 %r<4>; .reg .pred %p; .reg .f32 %f<4>; {s} ret; }}")
    };
    says(
        &kernel("frobnicate.b32 %r0, %r1;"),
        Kind::Unsupported,
        "`frobnicate.b32`: this instruction is not emulated",
    );
    says(&kernel("wgmma.fence.sync.aligned;"), Kind::Unsupported, "wgmma");
    says(
        &kernel("add.bogus.s32 %r0, %r1, %r2;"),
        Kind::Unsupported,
        "`.bogus` is not emulated here",
    );
    says(&kernel("add.s32 %r0, %r1;"), Kind::Parse, "3 operands are needed");
    says(&kernel("add.s32 %r0, %q1, %r2;"), Kind::Parse, "`%q1` is not declared");
    says(&kernel("add.s32 %r0, %r4, %r2;"), Kind::Parse, "`%r4` is not declared");
    says(&kernel("add.s64 %r0, %r1, %r2;"), Kind::Parse, "a register of 32 bits");
    says(&kernel("bra NOWHERE;"), Kind::Parse, "no label `NOWHERE`");
    says(&kernel("A: A: add.s32 %r0, %r0, 1;"), Kind::Parse, "there twice");
    says(&kernel("selp.b32 %r0, %r1, %r2, %r3;"), Kind::Parse, "a predicate where");
    says(&kernel("call.uni f, ();"), Kind::Parse, "no function `f`");
    says(".func f() { call.uni f; } .entry k() { call.uni f; }", Kind::Unsupported, "calls itself");
    says(".entry k() { ret;", Kind::Parse, "a `{` is not closed");
    says(".shared .b8 s[99999999999999999999];", Kind::Parse, "is no number");
    says(".global .b8 s[9999999999];", Kind::Limit, "elements");
    says(".entry k() { .shared .b8 s[9999999]; ret; }", Kind::Limit, "shared memory");
    says("é", Kind::Parse, "no part of PTX");
    // Calls that copy themselves into more than can be.
    let mut bomb = String::from(".func f0() { bar.warp.sync -1; bar.warp.sync -1; }\n");
    for i in 1..30 {
        bomb += &format!(".func f{i}() {{ call.uni f{}; call.uni f{}; }}\n", i - 1, i - 1);
    }
    says(&format!("{bomb} .entry k() {{ call.uni f29; }}"), Kind::Limit, "instructions");
    says(
        &format!(".entry k() {{ {} }}", "{".repeat(100) + &"}".repeat(100)),
        Kind::Limit,
        "scopes",
    );
}

#[test]
fn functions_are_called() {
    let t = format!(
        "{HEAD}.func (.param .b32 r) twice(.param .b32 a) {{ .reg .b32 %x<3>; .reg .pred %p; ld.param.b32 %x0, [a];
           setp.gt.s32 %p, %x0, 100; @%p bra BIG; add.s32 %x1, %x0, %x0; st.param.b32 [r], %x1; ret;
           BIG: mov.b32 %x2, 0; st.param.b32 [r+0], %x2; ret; }}
         .const .align 4 .b32 table[2] = {{30, 300}};
         .entry k(.param .u64 p) {{ .reg .b32 %r<9>; .reg .b64 %d<9>; ld.param.u64 %d0, [p]; mov.u32 %r0, %tid.x;
           mul.wide.u32 %d1, %r0, 4; mov.b64 %d2, table; add.s64 %d2, %d2, %d1; ld.const.b32 %r1, [%d2];
           {{ .param .b32 a; st.param.b32 [a], %r1; .param .b32 b; call.uni (b), twice, (a); ld.param.b32 %r2, [b]; }}
           add.s64 %d3, %d0, %d1; st.global.b32 [%d3], %r2; ret; }}"
    );
    let m = Module::parse(&t).unwrap();
    let mut d = Device::new(1 << 16);
    let p = d.alloc(8).unwrap();
    let l = Launch { block: [2, 1, 1], params: vec![Param::from(p)], ..Launch::default() };
    d.launch(&m, "k", &l, &Options::default()).unwrap();
    let mut out = [0; 8];
    assert!(d.read(p, &mut out).unwrap());
    assert_eq!(out, [60, 0, 0, 0, 0, 0, 0, 0]);
}

/// Texts of the corpus with bytes and lines changed at random: an error or a module, and a bounded run.
#[test]
fn changed_texts_do_no_harm() {
    let mut r = Rng(7);
    let (mut parsed, mut ran) = (0, 0);
    for round in 0..1200 {
        let name = NAMES[round % NAMES.len()];
        let mut c = common::case(name, 1);
        let mut t = text(c.file).into_bytes();
        for _ in 0..1 + r.next() % 4 {
            let (a, n) = (r.next() as usize % t.len(), r.next() as usize % 20);
            let b = r.next() as usize % t.len();
            match r.next() % 5 {
                0 => t[a] = b" \n{}[](),;:@!%.0123456789abcdefghrsx_-"[b % 38],
                1 => drop(t.drain(a..(a + n).min(t.len()))),
                2 => t.truncate(t.len() - n.min(t.len() / 2)),
                3 => t.swap(a, b),
                _ => {
                    let piece = t[b..(b + n).min(t.len())].to_vec();
                    drop(t.splice(a..a, piece));
                }
            }
        }
        let t = String::from_utf8_lossy(&t).into_owned();
        parsed += Module::parse(&t).is_ok() as usize;
        if round % 10 == 0 {
            let options = Options { budget: 50_000, threads: 1, ..Options::default() };
            ran += c.run(&t, &options).is_ok() as usize;
        }
    }
    println!("{parsed} of 1200 parse, {ran} of 120 run");
    assert!(parsed > 50 && ran > 5);
}
