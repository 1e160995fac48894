//! Rounding by a text: how far a model is from what it was on other text of the same kind.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use silure::{Calibration, Compiler, Options, Precision};
use silure_generate::{Model, Windows, compare, feed};
use silure_runtime::{Engine, SessionOptions};

use crate::load;
use crate::weights::Case;

/// A llama whose matrices are large enough to be narrowed.
fn wide(folder: &Path) {
    let mut case = Case::read("llama");
    let mut config: Value = serde_json::from_slice(&case.config).unwrap();
    for (key, n) in [("hidden_size", 192), ("intermediate_size", 320), ("vocab_size", 160)] {
        config[key] = n.into();
    }
    case.config = serde_json::to_vec(&config).unwrap();
    for (_, _, shape) in &mut case.tensors {
        for d in shape {
            *d = match *d {
                24 => 96,
                48 => 192,
                80 => 320,
                n => n,
            };
        }
    }
    case.write(folder, 1);
}

/// Words of three tokens each, out of eight.
fn text(seed: u64, words: usize) -> Vec<u32> {
    let mut s = seed;
    let mut next = || {
        s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (s >> 40) as u32 % 8
    };
    (0..words)
        .flat_map(|_| [next(); 3].map(|w| w * 20))
        .enumerate()
        .map(|(i, w)| w + i as u32 % 3)
        .collect()
}

#[test]
fn rounding_by_a_text_keeps_a_model_nearer_on_another() {
    let folder = tempfile::tempdir().unwrap();
    wide(folder.path());
    let c = Compiler::new().unwrap();
    let loaded = || load(&c, folder.path(), &Default::default());
    let plain = Options::default();
    let narrow = Options {
        precision: Some(Precision::Int4 { group: 32, pure: false }),
        ..Options::default()
    };
    let engine = |loaded, o: &Options| -> Arc<Engine> {
        let compiled = c.compile(loaded, o).unwrap_or_else(|e| panic!("{e}"));
        Engine::from_bytes(&compiled.to_bytes().unwrap()).unwrap()
    };
    let model = |e: &Arc<Engine>| Model::new(e, SessionOptions::default()).unwrap();

    let mut found = Calibration::new(&folder.path().join("scratch")).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "the file has no name");
    let inputs = Calibration::inputs(&loaded().module);
    let matrices: usize = inputs.iter().map(|i| i.rows.len()).sum();
    // In each layer q, k and v, o, gate and up, down read four values; the head keeps 8 bits.
    assert_eq!(inputs.len(), 8, "{inputs:?}");
    // Two turns see what one would.
    let seen = text(1, 300);
    for turn in [&inputs[..4], &inputs[4..]] {
        let mut observed = loaded();
        Calibration::observed(&mut observed, turn).unwrap();
        let mut m = model(&engine(observed, &plain));
        feed(&mut m, &seen, 100).unwrap();
        for i in turn {
            let bytes = m.session().state(&i.state).unwrap();
            let sums: Vec<f32> =
                bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            assert!((0..i.k).all(|j| sums[j * i.k + j] > 0.0), "{}: an input is 0", i.state);
            found.add(i, &sums).unwrap();
        }
    }
    let rounded = found.apply(&c, loaded(), &narrow).unwrap();
    let note = format!("precision int4 by 32: {matrices} matrices are rounded by the text");
    assert!(rounded.notes.contains(&note), "{:?}", rounded.notes);
    let by_text = c.compile(rounded, &plain).unwrap().to_bytes().unwrap();
    let again = found.apply(&c, loaded(), &narrow).unwrap();
    assert!(c.compile(again, &plain).unwrap().to_bytes().unwrap() == by_text, "other bytes");

    let (reference, nearest) = (engine(loaded(), &plain), engine(loaded(), &narrow));
    let by_text = Engine::from_bytes(&by_text).unwrap();
    assert_eq!(by_text.weight_bytes(), nearest.weight_bytes());
    let other = text(2, 60);
    let cut = Windows { window: 100, stride: 50 };
    let apart =
        |e: &Arc<Engine>| compare(&mut model(&reference), &mut model(e), &other, cut).unwrap().kl;
    let (a, b) = (apart(&nearest), apart(&by_text));
    println!("mean KL {b} instead of {a}");
    assert!(b < 0.7 * a, "mean KL {b} instead of {a}");

    let e = found.apply(&c, loaded(), &plain).err().unwrap().to_string();
    assert!(e.contains("int4"), "{e}");
}
