//! Real models and their reference outputs, as `tests/models/fetch.py` and `oracle.py` leave them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// One model with its cases.
pub struct Model {
    /// Short name.
    pub name: String,
    /// The ONNX file.
    pub file: PathBuf,
    /// Cases in order.
    pub cases: Vec<Case>,
}

/// One run of a model by the reference.
pub struct Case {
    /// Name, unique in the model.
    pub name: String,
    /// Input files by input name.
    pub inputs: HashMap<String, PathBuf>,
    /// Outputs in order.
    pub outputs: Vec<Output>,
}

/// A reference output.
pub struct Output {
    /// The model's name for it.
    pub name: String,
    /// What the reference computed.
    pub reference: PathBuf,
    /// The same in f64, where it could be had.
    pub f64: Option<PathBuf>,
    /// Largest distance of the reference from f64.
    pub error_max: Option<f64>,
    /// Largest magnitude of the output.
    pub scale: f64,
}

/// The folder with the models: `$SILURE_MODELS`, else `target/models` of the workspace.
pub fn folder() -> PathBuf {
    std::env::var_os("SILURE_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/models"),
        PathBuf::from,
    )
}

/// The models there are; `None`, said loudly, if they were not fetched. In CI that is a failure.
pub fn all() -> Option<Vec<Model>> {
    let cases = folder().join("cases");
    let Ok(text) = std::fs::read_to_string(cases.join("index.json")) else {
        let how = "run tests/models/fetch.py and tests/models/oracle.py";
        assert!(std::env::var_os("CI").is_none(), "real models are missing: {how}");
        eprintln!("SKIPPED: real models are not at {} ({how})", folder().display());
        return None;
    };
    let index: Value = serde_json::from_str(&text).expect("index.json is JSON");
    let models = index["models"].as_object().expect("models");
    Some(models.iter().map(|(name, m)| model(name, m, &cases)).collect())
}

fn model(name: &str, m: &Value, cases: &Path) -> Model {
    let text = |v: &Value| v.as_str().expect("a string").to_string();
    let list = |v: &Value| v.as_array().expect("a list").clone();
    Model {
        name: name.into(),
        file: folder().join(text(&m["file"])),
        cases: list(&m["cases"])
            .iter()
            .map(|c| Case {
                name: text(&c["name"]),
                inputs: c["inputs"]
                    .as_object()
                    .expect("inputs")
                    .iter()
                    .map(|(n, p)| (n.clone(), cases.join(text(p))))
                    .collect(),
                outputs: list(&c["outputs"])
                    .iter()
                    .map(|o| Output {
                        name: text(&o["name"]),
                        reference: cases.join(text(&o["path"])),
                        f64: o["f64"].as_str().map(|p| cases.join(p)),
                        error_max: o["error_max"].as_f64(),
                        scale: o["scale"].as_f64().unwrap_or(1.0),
                    })
                    .collect(),
            })
            .collect(),
    }
}
