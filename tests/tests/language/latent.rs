//! Both forms of latent attention, and where a step goes from one to the other.

use silure::hf::{ImportOptions, LatentForm};
use silure::ir::dialects::graph;
use silure::{Compiler, Loaded};

use super::steps::Steps;
use super::weights::Case;
use super::{PAGE, PAGES, engine, load, options};

/// Logits of two sequences: the first three pages of one alone, where making keys and values costs less, then what
/// is left of it beside the other, where it does not.
fn logits(compiler: &Compiler, case: &Case, latent: LatentForm) -> Vec<f64> {
    let o = ImportOptions { latent, ..options() };
    let mut steps = Steps::new(&engine(compiler, case, 1, &o), PAGE, PAGES);
    let prompt = &case.prompt[..];
    let (mut a, mut b) = (steps.sequence(prompt.len() + 1), steps.sequence(prompt.len() + 1));
    let (head, tail) = prompt.split_at(3 * PAGE);
    let mut all = steps.step("prefill", &mut [(&mut a, head)]);
    all.extend(steps.step("prefill", &mut [(&mut a, tail), (&mut b, prompt)]));
    all.extend(steps.step("decode", &mut [(&mut a, &prompt[..1]), (&mut b, &prompt[..1])]));
    all.concat()
}

/// The forms agree to 1e-5 of the largest logit.
#[test]
fn forms_of_latent_attention_agree() {
    let compiler = Compiler::new().unwrap();
    for name in ["deepseek-v2", "deepseek-v3"] {
        let case = Case::read(name);
        let forms = [LatentForm::Naive, LatentForm::Absorbed, LatentForm::ByCost];
        let [naive, absorbed, by_cost] = forms.map(|f| logits(&compiler, &case, f));
        let most = naive.iter().fold(0.0f64, |a, v| a.max(v.abs()));
        for ((a, b), c) in naive.iter().zip(&absorbed).zip(&by_cost) {
            assert!((a - b).abs() <= 1e-5 * most, "{name}: {a} and {b}");
            assert!((c - b).abs() <= 1e-5 * most, "{name}: {c} and {b}");
        }
    }
}

/// Both sides of the comparison in front of the branches of an entry, for n tokens over so many pages.
fn sides(model: &Loaded, entry: &str, n: i64, pages: i64) -> Option<[i64; 2]> {
    let f = model.module.funcs.iter().find(|f| *f.name == *entry)?;
    let branch = f.walk().into_iter().find(|o| f.op(*o).def.name == graph::IF.name)?;
    let less = f.op(f.def_op(f.op(branch).operand(0)?)?);
    assert_eq!(less.def.name, "arith.lt");
    let side = |i| {
        let o = f.op(f.def_op(less.operand(i)?)?);
        let at = |s: &str| {
            Some(match s {
                "n" => n,
                "b" => 1,
                "p" => pages,
                s => panic!("{s}"),
            })
        };
        o.attrs.dims("value").first()?.eval(&at)
    };
    Some([side(0)?, side(1)?])
}

/// From 171 tokens over a long cache on, keys and values are made: the sizes of DeepSeek-V3.
#[test]
fn the_form_follows_the_cost() {
    let compiler = Compiler::new().unwrap();
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/language/configs/deepseek-v3.json");
    let o = ImportOptions { meta: true, ..Default::default() };
    let model = load(&compiler, config.as_ref(), &o);
    let naive = |n: i64, pages: i64| {
        let [more, saved] = sides(&model, "prefill", n, pages).expect("a choice");
        more < saved
    };
    assert!(!naive(170, 100_000) && naive(171, 100_000));
    for (n, pages) in [(64, 1), (128, 2), (20, 1), (100, 16), (160, 64), (170, 64), (512, 64)] {
        // Multiply-adds of each head.
        let rows = 64 * pages;
        let (made, left) = (320 * n * rows + 131_072 * rows, 1088 * n * rows + 131_072 * n);
        assert_eq!(naive(n, pages), made < left, "{n} tokens over {rows} rows");
    }
    assert!(sides(&model, "decode", 1, 64).is_none(), "a token alone never pays for all rows");
    // Keys and values of 8192 rows would be 1.3 GB.
    let o = ImportOptions { meta: true, context: Some(8192), ..Default::default() };
    let long = load(&compiler, config.as_ref(), &o);
    assert!(sides(&long, "prefill", 512, 64).is_none());
    let told = |m: &Loaded| m.notes.iter().any(|n| n.contains("absorbed in every step"));
    assert!(told(&long) && !told(&model), "{:?}", long.notes);
}
