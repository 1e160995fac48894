//! Arithmetic of dims: sums in any order are one expression, and expressions have a bound.

use silure_ir::Dim;

fn sym(i: usize) -> Dim {
    Dim::sym(&format!("s{i}"))
}

/// Terms are merged in order, equal ones added, those that vanish dropped.
#[test]
fn sums_in_any_order_are_equal() {
    let terms: Vec<Dim> = (0..40).map(|i| sym(i % 13) * Dim::Const(i as i64 % 7 - 3)).collect();
    let all = |order: &[usize]| order.iter().fold(Dim::Const(5), |a, &i| a + terms[i].clone());
    let forth: Vec<usize> = (0..40).collect();
    let back: Vec<usize> = (0..40).rev().collect();
    let mixed: Vec<usize> = (0..40).map(|i| i * 27 % 40).collect();
    let want = all(&forth);
    assert_eq!((&all(&back), &all(&mixed)), (&want, &want));
    // Halves added to each other, and what is left of a sum without itself.
    let half = |r: std::ops::Range<usize>| r.fold(Dim::Const(0), |a, i| a + terms[i].clone());
    assert_eq!(half(0..20) + half(20..40) + 5, want);
    assert_eq!(want.clone() - want.clone(), Dim::Const(0));
    assert_eq!(want.clone() - (want.clone() - sym(99)), sym(99));
    let value = |d: &Dim| d.eval(&|s| s[1..].parse().ok());
    let by_hand = (0..40i64).map(|i| (i % 13) * (i % 7 - 3)).sum::<i64>() + 5;
    assert_eq!(value(&want), Some(by_hand));
}

#[test]
fn coefficients_and_terms_have_bounds() {
    let most = sym(0) * Dim::Const(i64::MAX) + sym(1);
    assert!((most.clone() + most).is_invalid());
    let sum = |n: usize| (0..n).fold(Dim::Const(0), |a, i| a + sym(i));
    assert!(!sum(2048).is_invalid());
    assert!(sum(2049).is_invalid());
    assert!((sum(300) * sum(301)).is_invalid());
    // Nothing comes back from there.
    assert!((sum(2049) - sum(2049)).is_invalid());
}

#[test]
fn a_substitution_that_replaces_nothing_is_the_dim_itself() {
    let d = (sym(1) + 3).floordiv(&Dim::Const(2));
    assert_eq!(d.subst(&|_| None), d);
    assert_eq!(d.subst(&|s| (s == "s1").then_some(Dim::Const(5))), Dim::Const(4));
    assert_eq!(d.subst(&|s| (s == "s1").then(|| sym(2))).to_string(), "floordiv(s2 + 3, 2)");
}
