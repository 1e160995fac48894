//! The fuzzers' seeds: small files that reach most of what the fuzz targets cover.

use std::path::{Path, PathBuf};

use silure::hf::ImportOptions;
use silure_engine::{EngineFile, Manifest, Plan};
use silure_runtime::{Engine, npy, npz};

/// The seeds of a target, in order of their names.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}"));
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 10, "{folder:?} has {} seeds", paths.len());
    paths.iter().map(|p| std::fs::read(p).unwrap()).collect()
}

#[test]
fn seeds_of_models() {
    for (target, ext) in [("onnx", "onnx"), ("text", "sir")] {
        let dir = tempfile::tempdir().unwrap();
        let files = super::files(dir.path(), ext, seeds(target));
        super::check(&format!("seeds of {target}"), &files);
    }
}

#[test]
fn seeds_of_engines_and_arrays() {
    for data in seeds("engine") {
        let Some((what, data)) = data.split_first() else { continue };
        match what % 3 {
            0 => {
                let _ = EngineFile::parse(data);
                let _ = Engine::from_bytes(data);
            }
            1 => drop(Manifest::parse(data)),
            _ => {
                if let Ok(plan) = Plan::decode(data) {
                    assert_eq!(Plan::decode(&plan.encode()).unwrap(), plan);
                }
            }
        }
    }
    for data in seeds("npy") {
        let _ = npy::decode("seed.npy", &data);
        let _ = npz::decode("seed.npz", &data);
    }
}

/// What the importer of language models makes of a file or directory; it must not panic.
fn language_model(path: &Path, meta: bool) {
    let options = ImportOptions { context: Some(32), meta, ..Default::default() };
    if let Ok(i) = silure::hf::import(path, &options) {
        silure::ir::verify::verify(&i.module).unwrap_or_else(|e| panic!("{path:?}: {e:?}"));
    }
}

#[test]
fn seeds_of_language_models() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, data: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, data).unwrap();
        path
    };
    for data in seeds("gguf") {
        language_model(&put("seed.gguf", &data), false);
    }
    for data in seeds("config") {
        language_model(&put("seed.json", &data), true);
    }
    put("config.json", include_bytes!("../../../fuzz/fuzz_targets/llama.json"));
    for data in seeds("safetensors") {
        let Some((zeros, file)) = data.split_first_chunk() else { continue };
        let zeros = vec![0; u16::from_le_bytes(*zeros).into()];
        put("model.safetensors", &[file, &zeros].concat());
        language_model(dir.path(), false);
    }
}
