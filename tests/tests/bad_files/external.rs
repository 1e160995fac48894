//! External data that is not a plain file in the model's folder, by the whole way.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use silure_onnx_proto::ModelProto;
use silure_tests::child::Outcome;
use silure_tests::onnx::*;

fn reads(entries: &[(&str, &str)], dims: &[i64]) -> ModelProto {
    let nodes = vec![node("Add", &["x", "w"], &["y"])];
    let d: Vec<String> = dims.iter().map(|d| d.to_string()).collect();
    let d: Vec<&str> = d.iter().map(String::as_str).collect();
    let g = graph(&[info("x", F32, &["1"])], nodes, &[info("y", F32, &d)]);
    model(init(g, external("w", F32, dims, entries)))
}

/// A folder `models` beside a secret, with ways to it.
fn folder(top: &Path) -> std::path::PathBuf {
    let models = top.join("models");
    std::fs::create_dir_all(models.join("sub")).unwrap();
    std::fs::create_dir_all(top.join("outside")).unwrap();
    for place in ["models/good.bin", "models/sub/good.bin", "outside/secret.bin"] {
        let data: Vec<u8> = (0..4096).flat_map(|i| (i as f32).to_le_bytes()).collect();
        std::fs::write(top.join(place), data).unwrap();
    }
    symlink(top.join("outside"), models.join("parent")).unwrap();
    symlink("../outside/secret.bin", models.join("link.bin")).unwrap();
    symlink("good.bin", models.join("inner.bin")).unwrap();
    symlink("ring.bin", models.join("ring.bin")).unwrap();
    std::fs::hard_link(top.join("outside/secret.bin"), models.join("hard.bin")).unwrap();
    let made = Command::new("mkfifo").arg(models.join("fifo.bin")).status().unwrap();
    assert!(made.success(), "a pipe can be made");
    symlink("/dev/zero", models.join("zero.bin")).unwrap();
    let sparse = std::fs::File::create(models.join("sparse.bin")).unwrap();
    sparse.set_len(1 << 42).unwrap();
    models
}

#[test]
fn only_plain_files_of_the_folder_are_read() {
    let top = tempfile::tempdir().unwrap();
    let models = folder(top.path());
    let absolute = top.path().join("outside/secret.bin").display().to_string();
    let inside = models.join("good.bin").display().to_string();
    let locations = [
        "../outside/secret.bin",
        "sub/../../outside/secret.bin",
        &absolute,
        &inside,
        "parent/secret.bin",
        "link.bin",
        "inner.bin",
        "ring.bin",
        "hard.bin",
        "fifo.bin",
        "zero.bin",
        "/dev/zero",
        "/proc/self/mem",
        "sub",
        "./good.bin",
        "sub//good.bin",
        "..\\outside\\secret.bin",
        "good.bin\0",
        "file:good.bin",
        "~/good.bin",
        "",
    ];
    let cases: Vec<_> = locations
        .iter()
        .enumerate()
        .map(|(i, l)| (format!("location{i}"), reads(&[("location", l)], &[4])))
        .collect();
    for ((_, o), l) in super::outcomes("locations", &models, &cases).iter().zip(locations) {
        assert!(matches!(o, Outcome::Refused(_)), "{l:?}: {o:?}");
    }
    let good = [("good".to_string(), reads(&[("location", "sub/good.bin")], &[4]))];
    assert_eq!(super::outcomes("a good location", &models, &good)[0].1, Outcome::Right);
}

#[test]
fn ranges_and_sizes_of_external_data() {
    let top = tempfile::tempdir().unwrap();
    let models = folder(top.path());
    let mut cases = vec![];
    let max = u64::MAX.to_string();
    for (file, offset, length, dims) in [
        ("good.bin", "0", "17", vec![4]),
        ("good.bin", "16380", "16", vec![4]),
        ("good.bin", max.as_str(), "16", vec![4]),
        ("good.bin", "0", max.as_str(), vec![4]),
        ("good.bin", "-1", "16", vec![4]),
        ("sparse.bin", "4398046511104", "16", vec![4]),
        ("sparse.bin", "4398046511103", "16", vec![4]),
        ("good.bin", "0", "0", vec![1 << 40]),
    ] {
        let entries = [("location", file), ("offset", offset), ("length", length)];
        cases.push((format!("range{}", cases.len()), reads(&entries, &dims)));
    }
    for (_, o) in super::outcomes("ranges", &models, &cases) {
        assert!(matches!(o, Outcome::Refused(_)), "{o:?}");
    }
    // Weights larger than memory from a sparse file: four TiB and one that only just does not fit.
    let large: Vec<_> = [1i64 << 40, 1 << 38, 1 << 30]
        .map(|n| {
            (
                format!("sparse{n}"),
                reads(&[("location", "sparse.bin"), ("length", &(n * 4).to_string())], &[n]),
            )
        })
        .to_vec();
    for (n, o) in super::outcomes("large weights", &models, &large) {
        assert!(matches!(o, Outcome::Refused(_)), "{n}: {o:?}");
    }
}
