//! The perplexity of tokens beside transformers (tests/language/score.py).

use serde_json::Value;
use silure::{Compiler, Options};
use silure_generate::{Model, Windows, compare, score};
use silure_runtime::{Engine, SessionOptions};

use crate::load;
use crate::weights::Case;

#[test]
fn scores_are_those_of_transformers() {
    let golden: Value = serde_json::from_str(include_str!("../../language/score.json")).unwrap();
    let tokens: Vec<u32> =
        golden["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
    let case = Case::read(golden["case"].as_str().unwrap());
    let folder = tempfile::tempdir().unwrap();
    case.write(folder.path(), 1);
    let c = Compiler::new().unwrap();
    let model = || {
        let loaded = load(&c, folder.path(), &Default::default());
        let compiled = c.compile(loaded, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
        let engine = Engine::from_bytes(&compiled.to_bytes().unwrap()).unwrap();
        Model::new(&engine, SessionOptions::default()).unwrap()
    };
    let mut own = model();
    let results = golden["results"].as_array().unwrap();
    for r in results {
        let n = |key: &str| r[key].as_u64().unwrap() as usize;
        let cut = Windows { window: n("window"), stride: n("stride") };
        let (got, want) = (score(&mut own, &tokens, cut).unwrap(), r["nll"].as_f64().unwrap());
        assert_eq!(got.tokens, n("tokens"));
        // A mean of logarithms of softmax over logits of f32.
        println!("{cut:?}: {} and {want}", got.nll);
        assert!((got.nll - want).abs() <= 1e-6 * want, "{cut:?}: {} and {want}", got.nll);
    }
    assert_eq!(results.len(), 3);
    let cut = Windows { window: 100, stride: 50 };
    let alone = score(&mut own, &tokens, cut).unwrap();
    let same = compare(&mut own, &mut model(), &tokens, cut).unwrap();
    assert_eq!((same.kl, same.top1, same.reference, same.other), (0.0, 1.0, alone, alone));
}
