//! The tolerance rule of docs/tolerance.md, for one function against the oracle.
//!
//! No reference implementation takes part here, so only the floor of the class is allowed: nothing for
//! exact ops, 4 units in the last place for elementwise ones, `4·√K·eps` of the largest magnitude for
//! reductions of length K, one step on one element in a thousand for quantised ones.

use silure::ir::{Def, Elem, Func, Tolerance, Type};
use silure_runtime::Tensor;

use crate::oracle::{Sizes, shape};

/// How far an implementation of a function may be from the oracle.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rule {
    /// The class of its widest op.
    pub class: Tolerance,
    /// The longest reduction.
    pub length: f64,
    /// Unit of rounding of the coarsest intermediate result.
    pub epsilon: f64,
}

/// What a comparison found.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Elements compared.
    pub elements: usize,
    /// Elements out of bounds.
    pub wrong: usize,
    /// The largest error over its bound (0 if all are equal).
    pub worst: f64,
    /// The largest absolute error.
    pub error: f64,
    /// The first wrong element: index, got, wanted.
    pub first: Option<(usize, f64, f64)>,
}

impl Verdict {
    /// Whether the rule holds.
    pub fn holds(&self) -> bool {
        self.wrong == 0
    }

    /// In words.
    pub fn text(&self) -> String {
        match self.first {
            None => format!(
                "{} elements agree (largest error {:.2e}, {:.3} of the bound)",
                self.elements, self.error, self.worst
            ),
            Some((i, got, want)) => format!(
                "{} of {} elements are wrong; element {i} is {got:e}, expected {want:e}",
                self.wrong, self.elements
            ),
        }
    }

    /// As JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "elements": self.elements, "wrong": self.wrong,
            "largest_error": self.error, "error_over_bound": self.worst,
        })
    }
}

impl Rule {
    /// The rule of a function of the graph or kernel dialect.
    pub fn of(f: &Func, sizes: &Sizes) -> Rule {
        let mut rule = Rule { class: Tolerance::Exact, length: 1.0, epsilon: 0.0 };
        let count =
            |t: &Type| shape(t, sizes).map_or(1.0, |(_, s)| s.iter().product::<usize>() as f64);
        for op in f.walk() {
            let o = f.op(op);
            let rank = |t: Tolerance| match t {
                Tolerance::Exact => 0,
                Tolerance::Elementwise => 1,
                Tolerance::Quantised => 2,
                Tolerance::Reduction => 3,
            };
            if rank(o.def.tolerance) > rank(rule.class) {
                rule.class = o.def.tolerance;
            }
            let Some(result) = o.results.first() else { continue };
            let out = count(f.ty(*result)).max(1.0);
            if o.def.tolerance == Tolerance::Reduction {
                let operands = o.operands().map(|v| count(f.ty(v))).fold(0.0, f64::max);
                let flops = o.def.cost.and_then(|c| {
                    let cost = c(&silure::ir::infer::InferCx::new(f, op)).flops;
                    cost.eval(&|s| sizes.get(s).copied())
                });
                let length = flops.map_or(operands / out, |n| n as f64 / 2.0 / out);
                rule.length = rule.length.max(length);
            }
            rule.coarsen(f, *result);
        }
        rule
    }

    /// Takes in the roundings of a device kernel: the types of what it computes.
    pub fn with_kernel(mut self, f: &Func) -> Rule {
        for op in f.walk() {
            let o = f.op(op);
            if o.def.dialect() == "arith" || o.def.name == "tile.dot" {
                o.results.iter().for_each(|r| self.coarsen(f, *r));
            }
        }
        self
    }

    fn coarsen(&mut self, f: &Func, v: silure::ir::ValueId) {
        if let (Some(e), Def::Result(..)) = (f.ty(v).elem(), f.value(v).def)
            && e.is_float()
        {
            self.epsilon = self.epsilon.max(e.epsilon());
        }
    }

    /// Compares an output with the oracle's.
    pub fn compare(&self, got: &Tensor, want: &Tensor) -> Verdict {
        let mut v = Verdict { elements: 0, wrong: 0, worst: 0.0, error: 0.0, first: None };
        if got.elem != want.elem || got.shape != want.shape {
            v.wrong = 1;
            v.elements = 1;
            v.first = Some((0, f64::NAN, f64::NAN));
            return v;
        }
        let (a, b) = (got.to_f64(), want.to_f64());
        let finite = |x: &&f64| x.is_finite();
        let scale = b.iter().filter(finite).fold(0.0f64, |m, x| m.max(x.abs()));
        v.elements = b.len();
        for (i, (&a, &b)) in a.iter().zip(&b).enumerate() {
            if a == b || (a.is_nan() && b.is_nan()) {
                continue;
            }
            let (error, bound) = ((a - b).abs(), self.bound(got.elem, b, scale));
            let fine = error <= bound;
            v.error = v.error.max(error);
            v.worst = v.worst.max(if bound > 0.0 { error / bound } else { f64::INFINITY });
            if !fine {
                v.wrong += 1;
                v.first.get_or_insert((i, a, b));
            }
        }
        if self.class == Tolerance::Quantised && v.worst <= 1.0 {
            // Steps are allowed, but only on one element in a thousand.
            let differing = a.iter().zip(&b).filter(|(a, b)| a != b).count();
            if differing > b.len() / 1000 {
                v.wrong = differing;
                let i = a.iter().zip(&b).position(|(a, b)| a != b).unwrap_or(0);
                v.first = Some((i, a[i], b[i]));
            }
        }
        v
    }

    fn bound(&self, elem: Elem, want: f64, scale: f64) -> f64 {
        let ulp = if elem.is_float() { elem.epsilon() * want.abs() } else { 0.0 };
        match self.class {
            Tolerance::Exact => 0.0,
            Tolerance::Elementwise => 4.0 * ulp.max(self.epsilon * want.abs()),
            Tolerance::Quantised if elem.is_float() => 4.0 * ulp,
            Tolerance::Quantised => 1.0,
            Tolerance::Reduction if !elem.is_float() => 0.0,
            Tolerance::Reduction => {
                4.0 * self.length.sqrt() * self.epsilon.max(elem.epsilon()) * scale
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(class: Tolerance, length: f64) -> Rule {
        Rule { class, length, epsilon: Elem::F32.epsilon() }
    }

    fn t(v: &[f32]) -> Tensor {
        Tensor::f32(&[v.len()], v).unwrap()
    }

    #[test]
    fn exact_means_equal() {
        let r = rule(Tolerance::Exact, 1.0);
        assert!(r.compare(&t(&[1.0, f32::NAN]), &t(&[1.0, f32::NAN])).holds());
        assert!(!r.compare(&t(&[1.0 + f32::EPSILON]), &t(&[1.0])).holds());
        assert!(!r.compare(&t(&[1.0, 2.0]), &t(&[1.0])).holds());
    }

    #[test]
    fn elementwise_allows_four_units() {
        let r = rule(Tolerance::Elementwise, 1.0);
        assert!(r.compare(&t(&[1.0 + 3.0 * f32::EPSILON]), &t(&[1.0])).holds());
        assert!(!r.compare(&t(&[1.0 + 6.0 * f32::EPSILON]), &t(&[1.0])).holds());
        assert!(!r.compare(&t(&[f32::NAN]), &t(&[1.0])).holds());
        assert!(!r.compare(&t(&[f32::INFINITY]), &t(&[1.0])).holds());
    }

    #[test]
    fn reductions_grow_with_the_root_of_their_length() {
        let off = |n: f32| t(&[100.0, 1.0 + n * f32::EPSILON]);
        let r = |k| rule(Tolerance::Reduction, k);
        assert!(r(1.0).compare(&off(300.0), &t(&[100.0, 1.0])).holds());
        assert!(!r(1.0).compare(&off(900.0), &t(&[100.0, 1.0])).holds());
        assert!(r(9.0).compare(&off(900.0), &t(&[100.0, 1.0])).holds());
    }

    #[test]
    fn quantised_allows_few_steps() {
        let r = rule(Tolerance::Quantised, 1.0);
        let want = Tensor::zeros(Elem::I8, &[1000]).unwrap();
        let mut got = want.clone();
        got.bytes_mut()[5] = 1;
        assert!(r.compare(&got, &want).holds());
        got.bytes_mut()[6] = 1;
        assert!(!r.compare(&got, &want).holds());
        got.bytes_mut()[6] = 0;
        got.bytes_mut()[5] = 2;
        assert!(!r.compare(&got, &want).holds());
    }
}
