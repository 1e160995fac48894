//! What the data files promise, and what bad files are told.

use super::*;

#[test]
fn every_described_target_parses_by_its_name() {
    let t = Targets::embedded().unwrap();
    let list = t.list();
    for l in &list {
        let target = t.parse(&l.name).unwrap();
        assert_eq!(target.full_name(), l.name);
        assert!(target.note.is_none() && !l.doc.is_empty());
        for r in &target.arch.runs {
            assert!(t.families().iter().any(|f| f.arch(r).is_some()), "{}: {r}", l.name);
        }
        assert!(target.cap(Unit::Vector, Elem::F32).is_some(), "{}", l.name);
        // Without its cores nothing would be divided among them, and nobody would be told.
        assert!(&*target.family != "cuda" || target.arch.cores.is_some(), "{}", l.name);
        let units = |e: Elem| {
            target
                .arch
                .caps
                .iter()
                .filter(|c| c.elems.contains(&e) && c.unit != Unit::Vector)
                .count()
        };
        for e in Elem::ALL {
            assert!(units(*e) <= 1, "{}: {e} is claimed twice", l.name);
        }
    }
    for f in ["cpu", "cuda", "rocm", "ascend"] {
        assert_eq!(list.iter().filter(|l| l.name.starts_with(f) && l.default).count(), 1);
    }
}

#[test]
fn facts_that_decide_code_generation() {
    let t = |n: &str| Target::parse(n).unwrap();
    assert!(t("rocm:gfx942").cap(Unit::Matrix, Elem::E4m3fn).is_none());
    assert!(t("rocm:gfx942").cap(Unit::Matrix, Elem::E4m3fnuz).is_some());
    assert!(t("ascend:Ascend910B2").cap(Unit::Matrix, Elem::E4m3fn).is_none());
    assert!(t("ascend:Ascend950PR_9589").cap(Unit::Matrix, Elem::E4m3fn).is_some());
    assert_eq!(t("ascend:Ascend910B2").memory("ub").unwrap().bytes, 192 * 1024);
    assert_eq!(t("cuda:sm_90a").memory("shared").unwrap().bytes, 227 * 1024);
    assert_eq!((t("rocm:gfx942").arch.lanes.warp, t("rocm:gfx1100").arch.lanes.warp), (64, 32));
    assert!(t("cuda:sm_89").runs("sm_80") && !t("cuda:sm_120a").runs("sm_90a"));
    assert!(t("cpu:x86-64-v3").has("avx2") && !t("cpu:x86-64").has("avx2"));
    assert_eq!(t(DEFAULT).name, "x86-64-v3");
}

#[test]
fn unknown_names_fall_back_and_say_so() {
    for (name, like) in [
        ("cuda:sm_87", "sm_86"),
        ("cuda:sm_90", "sm_90a"),
        ("cuda:sm_121", "sm_89"),
        ("cuda:sm_75", "sm_80"),
        ("rocm:gfx941", "gfx90a"),
        ("ascend:Ascend310P", "Ascend910B2"),
        ("cpu:riscv64", "x86-64-v3"),
    ] {
        let t = Target::parse(name).unwrap();
        assert_eq!(t.arch.name, like, "{name}");
        assert!(t.note.unwrap().contains(like), "{name}");
    }
    let e = Target::parse("tpu:v5").unwrap_err().to_string();
    assert!(e.contains("cpu, cuda, rocm, ascend"), "{e}");
    let t = Target::parse("ascend:emulated").unwrap();
    assert!(t.emulated && t.full_name().contains("emulated") && t.name == "Ascend910B2");
}

const GOOD: &str = r#"[family]
name = "mine"
doc = "A family."
default = "one"

[[arch]]
name = "one"
doc = "An arch."
lanes = { vector_bits = 128, registers = 8 }
memory = [{ name = "l1", bytes = 1024, per = "core", align = 16 }]
caps = [{ unit = "vector", elems = ["f32"], mark = "read", source = "here" }]
"#;

#[test]
fn errors_in_files_are_located() {
    let mut t = Targets::embedded().unwrap();
    t.add_text("good.toml", GOOD).unwrap();
    assert_eq!(t.parse("mine").unwrap().arch.lanes.warp, 1);
    for (from, to, line, what) in [
        ("\"f32\"", "\"f33\"", 11, "f33"),
        ("doc = \"An", "dok = \"An", 8, "dok"),
        ("mark = \"read\"", "mark = \"seen\"", 11, "seen"),
        ("default = \"one\"", "default = \"two\"", 2, "two"),
        ("align = 16", "align = 12", 6, "power-of-two"),
        ("bytes = 1024", "bytes = -1", 10, ""),
        ("[[arch]]", "[[arch]", 6, ""),
    ] {
        let e = t.add_text("bad.toml", &GOOD.replace(from, to)).unwrap_err();
        let TargetError::File { line: l, message, .. } = &e else { panic!("{e}") };
        assert_eq!(*l, line, "{e}");
        assert!(message.contains(what), "{e}");
    }
    assert!(matches!(t.add_file(Path::new("/nonexistent.toml")), Err(TargetError::Io { .. })));
}

#[test]
fn devices_have_sources_and_architectures() {
    let t = Targets::embedded().unwrap();
    let names: Vec<&str> = t.devices().map(|(_, d)| d.name.as_str()).collect();
    for n in
        ["rtx4090", "a100-40", "a100-80", "h100-sxm", "h20", "mi300x", "ascend910b2", "ascend950pr"]
    {
        assert!(names.contains(&n), "{n} is not among {names:?}");
    }
    for (family, d) in t.devices() {
        assert!(t.parse(&format!("{family}:{}", d.arch)).unwrap().note.is_none(), "{}", d.name);
        let sources =
            [d.memory.as_ref().map(|m| &m.source), d.bandwidth.as_ref().map(|b| &b.source)];
        let peaks = d.peaks.iter().map(|p| &p.source);
        assert!(sources.into_iter().flatten().chain(peaks).all(|s| s.len() > 8), "{}", d.name);
    }
    let (family, d) = t.device("RTX4090").unwrap();
    assert_eq!((family, d.memory.as_ref().unwrap().bytes), ("cuda", 24 << 30));
    assert_eq!(d.peak(Elem::Bf16).unwrap().tera_per_s, 165.2);
    // What is not public is absent.
    let (_, d) = t.device("ascend910b2").unwrap();
    assert!(d.bandwidth.is_none() && d.peaks.is_empty());
    assert!(t.device("rtx9999").is_none());
}

#[test]
fn devices_in_files_are_checked() {
    let device = "\n[[device]]\nname = \"d\"\ndoc = \"D.\"\narch = \"one\"\n\
        bandwidth = { gb_per_s = 10, mark = \"read\", source = \"a data sheet\" }\n";
    let mut t = Targets::embedded().unwrap();
    t.add_text("good.toml", &format!("{GOOD}{device}")).unwrap();
    assert_eq!(t.device("d").unwrap().0, "mine");
    for (from, to, what) in [
        ("arch = \"one\"\nbandwidth", "arch = \"two\"\nbandwidth", "two"),
        ("gb_per_s = 10", "gb_per_s = 0", "above 0"),
        ("gb_per_s", "mb_per_s", "mb_per_s"),
        (
            "\nbandwidth",
            "\nmemory = { bytes = 0, mark = \"read\", source = \"x\" }\nbandwidth",
            "0 bytes",
        ),
        (device, &format!("{device}{device}"), "twice"),
    ] {
        let text = format!("{GOOD}{device}").replace(from, to);
        let e = t.add_text("bad.toml", &text).unwrap_err().to_string();
        assert!(e.contains(what), "{e}");
    }
}
