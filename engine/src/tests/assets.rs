//! Files that an engine carries for its host.

use super::*;

fn with_assets() -> EngineWriter {
    writer(rich_plan()).asset("tokenizer.json", b"{\"a\":1}".to_vec()).asset("empty", vec![])
}

#[test]
fn assets_read_back_and_raise_the_version() {
    let bytes = with_assets().to_bytes(weight_bytes).unwrap();
    let file = EngineFile::parse(&bytes).unwrap();
    assert_eq!((file.manifest.format_version, file.manifest.min_reader), (3, 3));
    let all: Vec<_> = file.assets().collect();
    assert_eq!(all, [("tokenizer.json", &b"{\"a\":1}"[..]), ("empty", &b""[..])]);
    assert_eq!(file.asset("tokenizer.json"), Some(&b"{\"a\":1}"[..]));
    assert_eq!(file.asset("tokenizer"), None);
    for s in &file.manifest.sections {
        EngineFile::check_section(s, file.section(s).unwrap()).unwrap();
    }
    // What has no assets is written as before there were any.
    let plain = writer(rich_plan()).to_bytes(weight_bytes).unwrap();
    assert_eq!(plain[8], 1);
    assert!(!plain.windows(6).any(|w| w == b"\"name\":\"\""));
}

#[test]
fn names_that_are_no_file_names_are_not_written() {
    for (name, needed) in [
        ("", "a plain file name"),
        ("../x", "a plain file name"),
        ("a/b", "a plain file name"),
        ("tokenizer.json", "of its own"),
    ] {
        let e = with_assets().asset(name, vec![]).to_bytes(weight_bytes).unwrap_err().to_string();
        assert!(e.contains(needed), "{name:?}: {e}");
    }
    let many = (0..=MOST_ASSETS).fold(writer(rich_plan()), |w, i| w.asset(&i.to_string(), vec![]));
    let e = many.to_bytes(weight_bytes).unwrap_err().to_string();
    assert!(e.contains("at most 64 assets"), "{e}");
}

#[test]
fn hostile_assets_are_refused() {
    let bytes = with_assets().to_bytes(weight_bytes).unwrap();
    let cases: &[(&str, fn(&mut Manifest))] = &[
        ("plain file name", |m| m.sections[4].name = "../x".into()),
        ("plain file name", |m| m.sections[4].name.clear()),
        ("of its own", |m| m.sections[5].name = m.sections[4].name.clone()),
        ("at most 268435456 bytes", |m| m.sections[4].bytes = 1 << 40),
        ("of kind asset", |m| m.sections[3].name = "x".into()),
        ("needed format version 3", |m| (m.format_version, m.min_reader) = (1, 1)),
        ("asset 'tokenizer.json': sha256", |m| m.sections[4].bytes -= 1),
        ("bytes in the file", |m| m.sections[4].bytes = 1 << 20),
        ("no overlap", |m| m.sections[4].offset = m.sections[3].offset),
    ];
    for (word, change) in cases {
        let error = changed(&bytes, change);
        assert!(error.contains(word), "{word}: {error}");
    }
    let at = EngineFile::parse(&bytes).unwrap().manifest.sections[4].offset as usize;
    for bit in 0..8 * 7 {
        let mut b = bytes.clone();
        b[at + bit / 8] ^= 1 << (bit % 8);
        assert!(EngineFile::parse(&b).is_err(), "bit {bit} of an asset");
    }
}
