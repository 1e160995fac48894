//! Checkpoints of tests/language/cases, made again by the rule of tests/language/weights.py.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// A case: config.json, the tensors of its checkpoint, and what others answered.
pub struct Case {
    pub name: String,
    pub config: Vec<u8>,
    /// Name, type and shape of each tensor.
    pub tensors: Vec<(String, String, Vec<usize>)>,
    pub prompt: Vec<i64>,
    /// Of an encoder: which tokens count, and their types.
    pub mask: Vec<i64>,
    pub types: Vec<i64>,
    /// Greedy tokens behind the prompt.
    pub tokens: Vec<i64>,
    /// The largest difference of the two tables.
    pub error: f64,
    /// Logits of the prompt's tokens (of an encoder features, then the pooled ones): the reference's, and
    /// the oracle's.
    pub reference: Vec<Vec<f64>>,
    pub truth: Vec<Vec<f64>>,
}

/// The folder of all cases.
fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("language/cases")
}

/// Names of all cases.
pub fn names() -> Vec<String> {
    let all = std::fs::read_dir(cases()).unwrap();
    let mut all: Vec<String> = all.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

impl Case {
    /// Reads a case.
    pub fn read(name: &str) -> Case {
        let folder = cases().join(name);
        let read = |f: &str| std::fs::read(folder.join(f)).unwrap();
        let v: Value = serde_json::from_slice(&read("case.json")).unwrap();
        let ints = |v: &Value| -> Vec<i64> {
            v.as_array().into_iter().flatten().map(|x| x.as_i64().unwrap()).collect()
        };
        let tensors = v["tensors"].as_array().unwrap().iter().map(|t| {
            let word = |i: usize| t[i].as_str().unwrap().to_string();
            (word(0), word(1), ints(&t[2]).into_iter().map(|d| d as usize).collect())
        });
        let prompt = ints(&v["prompt"]);
        let numbers: Vec<f64> = read("logits.bin")
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f64)
            .collect();
        let count = v["rows"].as_u64().map_or(prompt.len(), |n| n as usize);
        let rows: Vec<Vec<f64>> =
            numbers.chunks_exact(numbers.len() / (2 * count)).map(<[f64]>::to_vec).collect();
        Case {
            name: name.into(),
            config: read("config.json"),
            tensors: tensors.collect(),
            mask: ints(&v["mask"]),
            types: ints(&v["types"]),
            tokens: ints(&v["tokens"]),
            error: v["error"].as_f64().unwrap(),
            reference: rows[..count].to_vec(),
            truth: rows[count..].to_vec(),
            prompt,
        }
    }

    /// Writes the directory: one file, or two with an index.
    pub fn write(&self, folder: &Path, shards: usize) {
        std::fs::write(folder.join("config.json"), &self.config).unwrap();
        if shards == 1 {
            save(&folder.join("model.safetensors"), &self.tensors);
            return;
        }
        let mut map = serde_json::Map::new();
        for (i, part) in self.tensors.chunks(self.tensors.len().div_ceil(shards)).enumerate() {
            let file = format!("model-{:05}-of-{shards:05}.safetensors", i + 1);
            save(&folder.join(&file), part);
            map.extend(part.iter().map(|t| (t.0.clone(), Value::from(file.as_str()))));
        }
        let index = serde_json::json!({ "metadata": {}, "weight_map": map });
        let index = serde_json::to_vec(&index).unwrap();
        std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    }
}

fn save(path: &Path, tensors: &[(String, String, Vec<usize>)]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, kind, shape) in tensors {
        let from = data.len();
        data.extend(bytes(name, kind, shape));
        let entry = serde_json::json!({
            "dtype": kind, "shape": shape, "data_offsets": [from, data.len()]
        });
        header.insert(name.clone(), entry);
    }
    std::fs::write(path, file(&Value::Object(header).to_string(), &data)).unwrap();
}

/// A safetensors file of a header and what is behind it.
pub fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let size = (header.len() as u64).to_le_bytes();
    [&size[..], header.as_bytes(), data].concat()
}

/// Element i comes from splitmix64 at fnv1a64(name) + i + 1 steps.
fn random(name: &str, count: usize) -> impl Iterator<Item = u64> {
    let seed = name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325u64, |h, b| (h ^ b as u64).wrapping_mul(0x0100_0000_01B3));
    (1..=count as u64).map(move |i| {
        let z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// The bytes of a tensor.
pub fn bytes(name: &str, kind: &str, shape: &[usize]) -> Vec<u8> {
    let all = random(name, shape.iter().product());
    if kind == "F8_E4M3" {
        return all
            .map(|z| (z >> 56) as u8)
            .map(|b| if b & 0x7F == 0x7F { 0 } else { b })
            .collect();
    }
    let last = shape.last().copied().unwrap_or(1) as f64;
    let ends = |all: &[&str]| all.iter().any(|e| name.ends_with(e));
    let value = |u: f32| -> f32 {
        if ends(&["norm.weight", "LayerNorm.weight"]) {
            1.0 + u / 4.0
        } else if ends(&["_scale_inv"]) {
            (u / 2.0 + 1.0) / 1024.0
        } else if ends(&["e_score_correction_bias"]) {
            u / 4.0 - 1.0
        } else if ends(&["bias"]) {
            u / 8.0
        } else if name.contains("embed") {
            u
        } else if ends(&["mlp.gate.weight", "block_sparse_moe.gate.weight"]) {
            u / 2.0
        } else {
            u * 2f32.powi(-((last.log2() / 2.0).floor() as i32))
        }
    };
    let mut out = Vec::new();
    for z in all {
        let u = ((z >> 40) as f64 / (1u64 << 23) as f64 - 1.0) as f32;
        match kind {
            "F8_E8M0" => out.push(if u < 0.0 { 116 } else { 117 }),
            "BF16" => {
                let b = value(u).to_bits() as u64;
                out.extend((((b + 0x7FFF + ((b >> 16) & 1)) >> 16) as u16).to_le_bytes());
            }
            _ => out.extend(value(u).to_le_bytes()),
        }
    }
    out
}
