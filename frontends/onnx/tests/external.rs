//! External data is read from plain files of the model's folder, whatever the file says.
mod common;

use common::{file, graph, node, pair, tensor};
use silure_onnx::{Code, Data, Error, Model};
use silure_onnx_proto::TensorProto;
use std::fs;
use std::path::Path;

fn write_model(path: &Path, entries: &[(&str, &str)]) {
    let mut g = graph(&["x"], vec![node("Add", &["x", "w"], &["y"])], &["y"]);
    g.initializer.push(TensorProto {
        data_location: Some(1),
        external_data: entries.iter().map(|(k, v)| pair(k, v)).collect(),
        ..tensor("w", 1, &[4])
    });
    fs::write(path, file(g, vec![])).unwrap();
}

fn open(path: &Path, entries: &[(&str, &str)]) -> Result<Vec<u8>, Error> {
    write_model(path, entries);
    let model = Model::open(path)?;
    let program = model.resolve()?;
    let (_, index) = program.graph.constants[0];
    Ok(program.tensors[index].bytes()?.to_vec())
}

/// A folder `top/models` with a model and good data, and a secret beside it.
fn folders() -> (tempfile::TempDir, std::path::PathBuf) {
    let top = tempfile::tempdir().unwrap();
    let folder = top.path().join("models");
    fs::create_dir_all(folder.join("sub")).unwrap();
    fs::write(top.path().join("secret"), [7u8; 64]).unwrap();
    let data: Vec<u8> = (0..64).collect();
    fs::write(folder.join("data.bin"), &data).unwrap();
    fs::write(folder.join("sub/data.bin"), &data).unwrap();
    (top, folder)
}

#[test]
fn ranges_of_files_in_the_folder_are_found() {
    let (_top, folder) = folders();
    let path = folder.join("m.onnx");
    let whole = open(&path, &[("location", "data.bin")]).unwrap();
    assert_eq!(whole, (0..16).collect::<Vec<u8>>());
    let entries = [("location", "sub/data.bin"), ("offset", "48"), ("length", "16")];
    assert_eq!(open(&path, &entries).unwrap(), (48..64).collect::<Vec<u8>>());
    let model = Model::open(&path).unwrap();
    let program = model.resolve().unwrap();
    let tensor = &program.tensors[0];
    let (file, offset, len) = tensor.range().unwrap();
    assert!(file.ends_with("sub/data.bin") && (offset, len) == (48, 16));
    assert!(matches!(tensor.data, Data::External { .. }));
}

#[test]
fn ranges_that_leave_the_file_are_refused() {
    let (_top, folder) = folders();
    let path = folder.join("m.onnx");
    for (offset, length) in [
        ("49", "16"),
        ("64", "16"),
        ("18446744073709551615", "16"),
        ("9223372036854775807", "16"),
        ("0", "15"),
        ("0", "17"),
        ("0", "18446744073709551615"),
    ] {
        let entries = [("location", "data.bin"), ("offset", offset), ("length", length)];
        let e = open(&path, &entries).unwrap_err();
        assert_eq!(e.code(), Code::Range, "{offset} {length}: {e}");
        assert!(e.at().contains("\"w\""), "{e}");
    }
    for bad in ["-1", "1e3", "", " 1", "0x10", "99999999999999999999"] {
        let e = open(&path, &[("location", "data.bin"), ("offset", bad)]).unwrap_err();
        assert_eq!(e.code(), Code::Malformed, "{bad}: {e}");
    }
    let twice = [("location", "data.bin"), ("location", "sub/data.bin")];
    assert_eq!(open(&path, &twice).unwrap_err().code(), Code::Malformed);
    assert_eq!(open(&path, &[]).unwrap_err().code(), Code::Malformed);
}

#[test]
fn spellings_that_leave_the_folder_are_refused() {
    let (top, folder) = folders();
    let path = folder.join("m.onnx");
    let absolute = top.path().join("secret").display().to_string();
    let absolute_inside = folder.join("data.bin").display().to_string();
    let long = "a/".repeat(3000) + "b";
    for location in [
        "../secret",
        "sub/../../secret",
        "sub/../data.bin",
        "./data.bin",
        "sub//data.bin",
        &absolute,
        &absolute_inside,
        "..\\secret",
        "sub\\data.bin",
        "C:\\secret",
        "C:secret",
        "data.bin:stream",
        "data.bin\0.png",
        "data.bin/",
        "data.bin/x",
        "",
        ".",
        "..",
        "sub",
        "DATA.BIN",
        "data.bin ",
        "data.bin\n",
        "~/secret",
        "file:///etc/passwd",
        "*/_ORT_MEM_ADDR_/*",
        &long,
        "missing.bin",
    ] {
        let e = open(&path, &[("location", location)]).unwrap_err();
        assert!(matches!(e.code(), Code::Path | Code::Io), "{location:?}: {e}");
    }
}

#[cfg(unix)]
#[test]
fn links_pipes_and_devices_are_refused() {
    use std::os::unix::fs::symlink;
    let (top, folder) = folders();
    let path = folder.join("m.onnx");
    symlink(top.path().join("secret"), folder.join("link.bin")).unwrap();
    symlink(folder.join("data.bin"), folder.join("inner-link.bin")).unwrap();
    symlink(top.path(), folder.join("up")).unwrap();
    symlink("/dev", folder.join("dev")).unwrap();
    symlink("/dev/zero", folder.join("zero")).unwrap();
    symlink("loop", folder.join("loop")).unwrap();
    fs::hard_link(top.path().join("secret"), folder.join("hard.bin")).unwrap();
    let pipe = folder.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
    for location in [
        "link.bin",
        "inner-link.bin",
        "up/secret",
        "up/models/data.bin",
        "dev/zero",
        "zero",
        "loop",
        "hard.bin",
        "pipe",
        "socket",
    ] {
        let e = open(&path, &[("location", location)]).unwrap_err();
        assert_eq!(e.code(), Code::Path, "{location}: {e}");
    }
    // The folder itself may be reached through a link.
    symlink(&folder, top.path().join("alias")).unwrap();
    let alias = top.path().join("alias/m.onnx");
    assert_eq!(open(&alias, &[("location", "data.bin")]).unwrap().len(), 16);
    // And the model file must be a file.
    for bad in [pipe.as_path(), &folder, Path::new("/dev/zero")] {
        assert_eq!(Model::open(bad).unwrap_err().code(), Code::Io);
    }
}

#[test]
fn a_file_that_changes_is_noticed() {
    let (_top, folder) = folders();
    let path = folder.join("m.onnx");
    write_model(&path, &[("location", "data.bin")]);
    let model = Model::open(&path).unwrap();
    let program = model.resolve().unwrap();
    fs::write(folder.join("data.bin"), [0u8; 8]).unwrap();
    assert_eq!(program.tensors[0].bytes().unwrap_err().code(), Code::Path);
}

#[test]
fn a_model_in_memory_has_no_folder() {
    let (_top, folder) = folders();
    let path = folder.join("m.onnx");
    write_model(&path, &[("location", "data.bin")]);
    let model = common::load(fs::read(&path).unwrap()).unwrap();
    assert_eq!(model.resolve().unwrap_err().code(), Code::Path);
}
