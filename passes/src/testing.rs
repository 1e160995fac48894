//! Comparing two modules through the oracle, for tests of passes.
//!
//! Inputs are random from a seed, with zeros of both signs, ones and large numbers among them. Exact
//! passes must give the same bits (NaN equals NaN); others stay within 16 units in the last place of
//! the largest magnitude in the result, which covers a handful of moved roundings and nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use silure_ir::eval::{Interp, Limits};
use silure_ir::tensor::Datum;
use silure_ir::weight::{NoFiles, WeightSource};
use silure_ir::{Func, Module, Num, Tensor, Type};

use crate::rewrite::Exactness;

/// A small generator (splitmix64): the same numbers on every machine.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    fn number(&mut self, float: bool) -> Num {
        if !float {
            return Num::I(self.below(9) as i128 - 4);
        }
        Num::F(match self.below(16) {
            0 => 0.0,
            1 => -0.0,
            2 => 1.0,
            3 => -1.0,
            _ => (self.bits() >> 11) as f64 / (1u64 << 52) as f64 * 6.0 - 6.0,
        })
    }
}

/// Random arguments for a function; symbols get sizes within their range.
pub fn random_args(f: &Func, r: &mut Random) -> Option<Vec<Datum>> {
    let mut bound: HashMap<Arc<str>, i64> = HashMap::new();
    for s in &f.symbols {
        let (lo, step) = (s.min.max(1), s.multiple.max(1));
        let first = (lo + step - 1) / step * step;
        let span = ((s.max - first) / step).clamp(0, 4);
        bound.insert(s.name.clone(), first + step * r.below(span as u64 + 1) as i64);
    }
    f.args()
        .iter()
        .map(|a| {
            let Type::Tensor(t) = f.ty(*a) else { return None };
            let t = t
                .dims
                .iter()
                .map(|d| d.eval(&|s| bound.get(s).copied()))
                .collect::<Option<Vec<_>>>()
                .map(|d| (t.elem, d.into_iter().map(|d| d as usize).collect::<Vec<_>>()));
            let (elem, shape) = t?;
            let n = shape.iter().product();
            let nums: Vec<Num> = (0..n).map(|_| r.number(elem.is_float())).collect();
            Tensor::from_nums(elem, &shape, nums.into_iter()).ok().map(Datum::from)
        })
        .collect()
}

/// Runs every entry of both modules on the same `rounds` random inputs; a message names the first
/// difference. Entries that take other things than tensors are an error, not a pass.
pub fn compare(
    before: &Module,
    after: &Module,
    class: Exactness,
    rounds: u64,
) -> Result<(), String> {
    compare_with(before, after, class, rounds, &NoFiles)
}

/// [`compare`] with a source of weights.
pub fn compare_with(
    before: &Module,
    after: &Module,
    class: Exactness,
    rounds: u64,
    source: &dyn WeightSource,
) -> Result<(), String> {
    for f in before.entries() {
        for seed in 0..rounds {
            let Some(args) = random_args(f, &mut Random(seed)) else {
                return Err(format!("@{} takes arguments that cannot be made at random", f.name));
            };
            let run = |m: &Module| {
                let limits = Limits { ops: 1_000_000, elements: 1 << 28 };
                Interp::new(m, source, limits).run(&f.name, args.clone())
            };
            match (run(before), run(after)) {
                (Ok(a), Ok(b)) => {
                    same(&a, &b, class).map_err(|e| format!("@{} with seed {seed}: {e}", f.name))?
                }
                (Err(_), Err(_)) => {}
                (Ok(_), Err(e)) => return Err(format!("@{}: fails only after: {e}", f.name)),
                (Err(e), Ok(_)) => return Err(format!("@{}: fails only before: {e}", f.name)),
            }
        }
    }
    Ok(())
}

fn same(a: &[Datum], b: &[Datum], class: Exactness) -> Result<(), String> {
    if a.len() != b.len() {
        return Err(format!("{} results, then {}", a.len(), b.len()));
    }
    for (k, (x, y)) in a.iter().zip(b).enumerate() {
        let (Datum::Tensor(x), Datum::Tensor(y)) = (x, y) else {
            if x != y {
                return Err(format!("result {k} differs"));
            }
            continue;
        };
        if x.elem() != y.elem() || x.shape() != y.shape() {
            return Err(format!("result {k} was {x:?} and is {y:?}"));
        }
        let largest = x.nums().map(|n| n.f().abs()).filter(|v| v.is_finite()).fold(0.0, f64::max);
        let room = match (class, x.elem().is_float()) {
            (Exactness::Exact, _) | (_, false) => 0.0,
            _ => 16.0 * x.elem().epsilon() * largest,
        };
        for i in 0..x.len() {
            let (p, q) = (x.get(i).f(), y.get(i).f());
            // Zeros of both signs are equal here: extrema may return either.
            let fine = x.bits(i) == y.bits(i) || p == q || (p.is_nan() && q.is_nan());
            if !fine && (p - q).abs().partial_cmp(&room).is_none_or(|o| o.is_gt()) {
                return Err(format!("element {i} of result {k} was {p:e} and is {q:e}"));
            }
        }
    }
    Ok(())
}
