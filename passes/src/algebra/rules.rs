//! The laws, one line each. `?a ?b ?c` are numbers where the guard says so, `?x ?y` anything.
//!
//! No bare commutativity or associativity: a law that would only move things around needs a number in
//! the right place. Every law holds for real numbers; roundings move, and where an intermediate
//! overflows the two sides may differ, as with any reassociation.

use egg::{EGraph, Id, Rewrite, Subst, Var, rewrite};

use super::lang::{Math, Numbers};

/// A law.
pub type Law = Rewrite<Math, Numbers>;

/// Whether a variable is a number far from overflow and underflow.
fn number(v: &str) -> impl Fn(&mut EGraph<Math, Numbers>, Id, &Subst) -> bool + use<> {
    let v: Var = v.parse().unwrap_or_else(|_| unreachable!("a variable of a law"));
    move |g, _, s| g[s[v]].data.is_some_and(|c| (1e-15..1e15).contains(&c.get().abs()))
}

/// All laws. The names are what reports and bisecting show.
pub fn laws() -> Vec<Law> {
    vec![
        rewrite!("mul_numbers"; "(* (* ?x ?a) ?b)" => "(* ?x (* ?a ?b))" if number("?a") if number("?b")),
        rewrite!("add_numbers"; "(+ (+ ?x ?a) ?b)" => "(+ ?x (+ ?a ?b))" if number("?a") if number("?b")),
        rewrite!("div_by_number"; "(/ ?x ?a)" => "(* ?x (recip ?a))" if number("?a")),
        rewrite!("number_out_left"; "(* (* ?x ?a) ?y)" => "(* (* ?x ?y) ?a)" if number("?a")),
        rewrite!("number_out_right"; "(* ?x (* ?y ?a))" => "(* (* ?x ?y) ?a)" if number("?a")),
        rewrite!("number_out_of_div"; "(/ (* ?x ?a) ?y)" => "(* (/ ?x ?y) ?a)" if number("?a")),
        rewrite!("neg_number"; "(* (neg ?x) ?a)" => "(* ?x (neg ?a))" if number("?a")),
        rewrite!("neg_of_product"; "(neg (* ?x ?a))" => "(* ?x (neg ?a))" if number("?a")),
        rewrite!("neg_of_sub"; "(neg (- ?x ?y))" => "(- ?y ?x)"),
        rewrite!("common_number"; "(+ (* ?x ?a) (* ?y ?a))" => "(* (+ ?x ?y) ?a)" if number("?a")),
        rewrite!("common_number_sub"; "(- (* ?x ?a) (* ?y ?a))" => "(* (- ?x ?y) ?a)" if number("?a")),
        rewrite!("scaled_sum"; "(* (+ (* ?x ?a) ?b) ?c)" => "(+ (* ?x (* ?a ?c)) (* ?b ?c))"
            if number("?a") if number("?b") if number("?c")),
        rewrite!("sum_of_same"; "(+ (* ?x ?a) (* ?x ?b))" => "(* ?x (+ ?a ?b))" if number("?a") if number("?b")),
        rewrite!("twice"; "(+ ?x ?x)" => "(* ?x 2.0)"),
        rewrite!("div_by_sqrt"; "(/ ?x (sqrt ?y))" => "(* ?x (rsqrt ?y))"),
        rewrite!("recip_of_sqrt"; "(recip (sqrt ?x))" => "(rsqrt ?x)"),
        rewrite!("mul_by_recip"; "(* ?x (recip ?y))" => "(/ ?x ?y)"),
        rewrite!("div_by_div"; "(/ (/ ?x ?y) ?z)" => "(/ ?x (* ?y ?z))"),
        rewrite!("logistic"; "(recip (+ (exp (neg ?x)) 1.0))" => "(sigmoid ?x)"),
        rewrite!("logistic_div"; "(/ ?y (+ (exp (neg ?x)) 1.0))" => "(* ?y (sigmoid ?x))"),
        rewrite!("logistic_scaled"; "(recip (+ (exp (* ?x ?a)) 1.0))" => "(sigmoid (* ?x (neg ?a)))" if number("?a")),
        rewrite!("logistic_div_scaled"; "(/ ?y (+ (exp (* ?x ?a)) 1.0))" => "(* ?y (sigmoid (* ?x (neg ?a))))" if number("?a")),
        rewrite!("logistic_tanh"; "(* (+ (tanh (* ?x 0.5)) 1.0) 0.5)" => "(sigmoid ?x)"),
        rewrite!("mul_one"; "(* ?x 1.0)" => "?x"),
        rewrite!("mul_minus_one"; "(* ?x -1.0)" => "(neg ?x)"),
        rewrite!("neg_neg"; "(neg (neg ?x))" => "?x"),
    ]
}
