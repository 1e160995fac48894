//! Arrays whose headers lie, archives whose records do, and engines with a manifest that contradicts the file though
//! its hash fits.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use silure_runtime::{Tensor, npz};
use silure_tests::child::{SECONDS, bounded, run, silure_run};

use super::programs::{answer, engine};

/// An array file of that version with this header as it stands, and `data` zeros behind it.
fn array(version: u8, header: &str, data: usize) -> Vec<u8> {
    let mut file = b"\x93NUMPY".to_vec();
    file.extend([version, 0]);
    let text = format!("{header}\n");
    if version == 1 {
        file.extend((text.len() as u16).to_le_bytes());
    } else {
        file.extend((text.len() as u32).to_le_bytes());
    }
    file.extend(text.bytes());
    file.resize(file.len() + data, 0);
    file
}

const DATA: usize = 2 * 64 * 4;

#[test]
fn headers_that_lie() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = engine(dir.path());
    let path = dir.path().join("bad.npy");
    let code = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        answer(&engine, &path)
    };
    let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1, 8, 8), }";
    for (version, header) in [
        (1, good),
        (2, good),
        (3, good),
        (1, "{'shape': (2, 1, 8, 8), 'fortran_order': True, 'descr': '>f4'}"),
        (1, "{\"descr\": \"<f4\", \"fortran_order\": False, \"shape\": (2,1,8,8,)}"),
    ] {
        assert_eq!(code(&array(version, header, DATA)), 0, "{header}");
    }
    let header = |descr: &str, order: &str, shape: &str| {
        format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}")
    };
    let mut headers = vec![
        good.replace("'shape'", "'shapes'"),
        good.replace("'fortran_order': False, ", ""),
        good.replace(", 'shape': (2, 1, 8, 8)", ""),
        good.replace("(2, 1, 8, 8), ", "(2, 1, 8, 8), 'shape': (2, 1, 8, 8), "),
        good.replace("'<f4'", "'<f4', 'descr': '<f4'"),
        good.replace("False", "False, 'fortran_order': True"),
        good.replace("False", "0"),
        good.replace("False", "FALSE"),
        good.replace("}", ""),
        good.replace("{", ""),
        good.replace("}", "} }"),
        good.replace("}", "} or {}"),
        good.replace(", 'shape'", " 'shape'"),
        good.replace("'descr':", "'descr'"),
        good.replace("'shape': (2, 1, 8, 8), ", "'shape': (2, 1, 8, 8), 'more': 1, "),
        format!("[{good}]"),
        String::new(),
        "{}".into(),
        "{'descr': '<f4".into(),
    ];
    for shape in [
        "2, 1, 8, 8",
        "[2, 1, 8, 8]",
        "(2, 1, 8, 8",
        "(2, 1, 8 8)",
        "(2, 1,, 8, 8)",
        "(,2, 1, 8, 8)",
        "(128)",
        "(2, 1, 8, 8.0)",
        "(2, 1, 8, 0x8)",
        "(2, 1, 8, +8)",
        "(2, 1, -8, -8)",
        "(2, 1, 8, 8LL)",
        "(2, 1, 8, '8')",
        "(2, 1, 8, 1e1)",
        "(2, 1, 8, 9)",
        "(2, 1, 8, 7)",
        "(4294967296, 4294967296)",
        "(0, 18446744073709551615)",
        "(٢, 1, 8, 8)",
        "True",
        "None",
    ] {
        headers.push(header("'<f4'", "False", shape));
    }
    headers.push(header("'<f4'", "False", &format!("({})", "1, ".repeat(33))));
    headers.push(header("'<f4'", "False", &format!("({}2, 1, 8, 8)", "1, ".repeat(4))));
    for descr in [
        "'|O'",
        "'<c8'",
        "'<f3'",
        "'<f16'",
        "'<V4'",
        "'<M8[s]'",
        "'f4'",
        "'<<f4'",
        "'<F4'",
        "'<f4 '",
        "''",
        "'<'",
        "'<U'",
        "'<U-1'",
        "'<U4294967296'",
        "'<U268435457'",
        "[('a', '<f4')]",
        "('<f4', (2,))",
        "<f4",
        "'<i4'",
        "'<f8'",
        "'é4'",
    ] {
        headers.push(header(descr, "False", "(2, 1, 8, 8)"));
    }
    assert!(headers.len() >= 60);
    for h in &headers {
        for version in [1, 3] {
            assert_ne!(code(&array(version, h, DATA)), 0, "{h}");
        }
    }
    let whole = array(1, good, DATA);
    let with = |at: usize, bytes: &[u8]| {
        let mut w = whole.clone();
        w[at..at + bytes.len()].copy_from_slice(bytes);
        w
    };
    let long = array(2, &format!("{good}{}", " ".repeat(1 << 17)), DATA);
    for (what, bytes) in [
        ("version 0", with(6, &[0])),
        ("version 4", with(6, &[4])),
        ("a header to the end", with(8, &(whole.len() as u16 - 10).to_le_bytes())),
        ("a header behind the end", with(8, &u16::MAX.to_le_bytes())),
        ("no header", with(8, &[0, 0])),
        ("half a header", with(8, &[20, 0])),
        (
            "a header of 4 GiB",
            [b"\x93NUMPY\x02\x00\xff\xff\xff\xff".as_slice(), &whole[10..]].concat(),
        ),
        ("a long header", long),
        ("more data", array(1, good, DATA + 1)),
        ("less data", array(1, good, DATA - 1)),
        ("no data", array(1, good, 0)),
        ("another magic", with(0, b"\x93NUMPz")),
        ("bytes that are no text", with(20, &[0xff, 0xfe])),
    ] {
        assert_ne!(code(&bytes), 0, "{what}");
    }
}

/// The places of the central directory's records of an archive as [`npz::encode`] writes it.
fn records(zip: &[u8]) -> Vec<usize> {
    (0..zip.len() - 4).filter(|&i| zip[i..].starts_with(b"PK\x01\x02")).collect()
}

#[test]
fn archives_that_lie() {
    let t = Tensor::f32(&[64], &[1.0; 64]).unwrap();
    let whole = npz::encode(&[("0".into(), &t), ("1".into(), &t)]).unwrap();
    assert_eq!(npz::decode("x.npz", &whole).unwrap().len(), 2);
    let at = records(&whole);
    let end = whole.len() - 22;
    let with = |at: usize, bytes: &[u8]| {
        let mut w = whole.clone();
        w[at..at + bytes.len()].copy_from_slice(bytes);
        w
    };
    let name = |w: &[u8], from: &[u8], to: &[u8]| {
        let mut w = w.to_vec();
        for i in 0..w.len() - from.len() {
            if w[i..].starts_with(from) {
                w[i..i + from.len()].copy_from_slice(to);
            }
        }
        w
    };
    // Many records of one member: any number of times what the file holds.
    let bomb = {
        let record = whole[at[0]..at[1]].to_vec();
        let mut w = whole[..at[0]].to_vec();
        let start = w.len() as u32;
        for i in 0..26u8 {
            let mut r = record.clone();
            let n = r.len();
            r[n - 5] = b'a' + i;
            w.extend(r);
        }
        let mut tail = whole[end..].to_vec();
        tail[8..12].copy_from_slice(&[26, 0, 26, 0]);
        tail[16..20].copy_from_slice(&start.to_le_bytes());
        w.extend(tail);
        w
    };
    for (what, bytes) in [
        ("a directory behind the end", with(end + 16, &[0xff; 4])),
        ("a directory at the end", with(end + 16, &(end as u32).to_le_bytes())),
        ("a directory at the first member", with(end + 16, &[0; 4])),
        ("more members", with(end + 10, &3u16.to_le_bytes())),
        ("a member behind the end", with(at[0] + 42, &[0xf0; 4])),
        ("a member inside another", with(at[1] + 42, &40u32.to_le_bytes())),
        ("a packed size behind the end", with(at[0] + 20, &[0xf0; 4])),
        ("a smaller packed size", with(at[0] + 20, &[16, 0, 0, 0])),
        ("a larger plain size", with(at[0] + 24, &[0, 16, 0, 0])),
        ("a plain size of 4 GiB", with(at[0] + 24, &[0xf0; 4])),
        ("a smaller plain size", with(at[0] + 24, &[16, 0, 0, 0])),
        ("another sum", with(at[0] + 16, &[0; 4])),
        ("deflated", with(at[0] + 10, &[8, 0])),
        ("an unknown method", with(at[0] + 10, &[12, 0])),
        ("a name behind the end", with(at[1] + 28, &[0xff; 2])),
        ("sizes of 64 bits that are not there", with(at[0] + 20, &[0xff; 8])),
        ("a name twice", name(&whole, b"1.npy", b"0.npy")),
        ("a name that is no text", name(&whole, b"1.npy", b"\xff.npy")),
        ("no array inside", with(at[0] - whole[..at[0]].len() + 30 + 5, b"\x93NUMPZ")),
        ("members that share bytes", bomb),
    ] {
        let got = npz::decode("bad.npz", &bytes);
        assert!(got.is_err(), "{what}: {:?}", got.unwrap().len());
    }
}

/// The engine with its manifest changed, its hash and size with it.
fn altered(whole: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let size = u64::from_le_bytes(whole[16..24].try_into().unwrap()) as usize;
    let mut manifest: Value = serde_json::from_slice(&whole[64..64 + size]).unwrap();
    change(&mut manifest);
    rewritten(whole, size, &serde_json::to_vec(&manifest).unwrap())
}

/// The engine with these bytes for a manifest. Sections stay where they are: there is room before the first.
fn rewritten(whole: &[u8], old: usize, json: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    let room = (64 + old).next_multiple_of(64) - 64;
    let mut json = json.to_vec();
    // Spaces are allowed behind it, so that a shorter one fills its place; one that does not fit moves nothing.
    json.resize(json.len().max(old), b' ');
    if json.len() > room {
        // Overwrites what follows: the manifest is what is looked at first.
        bytes.resize(bytes.len().max(64 + json.len()), 0);
    }
    bytes[64..64 + json.len()].copy_from_slice(&json);
    bytes[16..24].copy_from_slice(&(json.len() as u64).to_le_bytes());
    bytes[32..64].copy_from_slice(&Sha256::digest(&json));
    bytes
}

fn check(engine: &Path) -> i32 {
    let mut c = bounded(silure_run());
    let ended = run(c.arg(engine).arg("--check"), Duration::from_secs(SECONDS));
    assert!(ended.orderly(), "{ended:?}");
    ended.code().unwrap()
}

#[test]
fn manifests_that_lie() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, x): (PathBuf, PathBuf) = engine(dir.path());
    let whole = std::fs::read(&engine).unwrap();
    let bad = dir.path().join("bad.silure");
    let put = |bytes: Vec<u8>| std::fs::write(&bad, bytes).unwrap();
    put(altered(&whole, |_| {}));
    assert_eq!((check(&bad), answer(&bad, &x)), (0, 0), "an unchanged manifest, written anew");
    type Change = Box<dyn FnOnce(&mut Value)>;
    let set = |path: &'static str, value: Value| -> (String, Change) {
        let what = format!("{path} = {value}");
        (what, Box::new(move |m| *m.pointer_mut(path).expect(path) = value))
    };
    let n = |i: u64| json!(i);
    let mut cases: Vec<(String, Change)> = vec![];
    let kinds: Vec<String> = {
        let size = u64::from_le_bytes(whole[16..24].try_into().unwrap()) as usize;
        let m: Value = serde_json::from_slice(&whole[64..64 + size]).unwrap();
        let kind = |s: &Value| s["kind"].as_str().unwrap().to_string();
        m["sections"].as_array().unwrap().iter().map(kind).collect()
    };
    assert!(
        ["plan", "code", "asset", "weights"].iter().all(|k| kinds.iter().any(|h| h == k)),
        "{kinds:?}"
    );
    for (i, kind) in kinds.iter().enumerate() {
        let field = move |what: String, name: &'static str, value: Value| -> (String, Change) {
            (what, Box::new(move |m| m["sections"][i][name] = value))
        };
        for (what, value) in [
            ("at 0", n(0)),
            ("in the manifest", n(64)),
            ("at an odd place", n(4097)),
            ("at the end", n((whole.len() as u64).next_multiple_of(4096))),
            ("behind the end", n(1 << 40)),
            ("at the greatest place", n(u64::MAX)),
            ("at a negative place", json!(-64)),
            ("at no number", json!("4096")),
        ] {
            cases.push(field(format!("{kind} {what}"), "offset", value));
        }
        for (what, value) in [
            ("longer than the file", n(whole.len() as u64 + 1)),
            ("of the greatest size", n(u64::MAX)),
            ("of a size that overflows", n(i64::MAX as u64)),
        ] {
            cases.push(field(format!("{kind} {what}"), "bytes", value));
        }
        cases.push(field(format!("{kind} with another hash"), "sha256", json!("0".repeat(64))));
        cases.push(field(format!("{kind} with half a hash"), "sha256", json!("0".repeat(32))));
        cases.push(field(format!("{kind} in a folder above"), "file", json!("../x")));
        cases.push(field(format!("{kind} in a device"), "file", json!("/dev/zero")));
        cases.push(field(format!("{kind} of no kind"), "kind", json!("kernel")));
        let twice = move |m: &mut Value| {
            let s = m["sections"][i].clone();
            m["sections"].as_array_mut().unwrap().push(s);
        };
        cases.push((format!("{kind} twice"), Box::new(twice)));
        if i > 0 {
            let swap = move |m: &mut Value| m["sections"].as_array_mut().unwrap().swap(i - 1, i);
            cases.push((format!("{kind} before its place"), Box::new(swap)));
            let shared = move |m: &mut Value| {
                let at = m["sections"][i - 1]["offset"].clone();
                m["sections"][i]["offset"] = at;
            };
            cases.push((format!("{kind} over its neighbour"), Box::new(shared)));
        }
    }
    cases.extend([
        set("/sections", json!([])),
        set("/entries", json!([])),
        set("/format_version", n(0)),
        set("/format_version", n(99)),
        set("/min_reader", n(99)),
        set("/min_reader", n(1)),
        set("/entries/0/name", json!("other")),
        set("/entries/0/inputs", json!([])),
        set("/entries/0/inputs/0/elem", json!("f64")),
        set("/entries/0/inputs/0/dims/0", json!("7")),
        set("/targets", json!("cpu")),
    ]);
    let field = |m: &mut Value| {
        m.as_object_mut().unwrap().insert("more".into(), json!(1));
    };
    cases.push(("an unknown field".into(), Box::new(field)));
    assert!(cases.len() >= 80, "{}", cases.len());
    for (what, change) in cases {
        put(altered(&whole, change));
        assert_ne!(check(&bad), 0, "{what} passes --check");
    }
    let old = u64::from_le_bytes(whole[16..24].try_into().unwrap()) as usize;
    let deep = "[".repeat(100_000);
    let text = std::str::from_utf8(&whole[64..64 + old]).unwrap();
    let again = text.replacen('{', "{\"tool\":\"x\",", 1);
    for (what, json) in [
        ("no JSON", "silure".into()),
        ("a list", "[]".into()),
        ("nothing", String::new()),
        ("deep lists", deep.clone()),
        ("deep lists as options", format!("{{\"options\":{deep}")),
        ("a field twice", again),
        ("text after the end", format!("{text}{{}}")),
    ] {
        put(rewritten(&whole, old, json.as_bytes()));
        assert_ne!(check(&bad), 0, "{what} passes --check");
    }
}
