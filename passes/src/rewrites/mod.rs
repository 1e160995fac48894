//! The tables of rewrites, one file a topic, one named rule an entry.
//!
//! Rules for rules: the law stands in `doc`; the guard stands in the match; a rule that is not bit-exact
//! for every input (NaN, infinities, both zeros, wrap-around included) says so; no rule undoes another;
//! constants stand on the right of commutative ops before any other rule looks; every rule has a
//! filetest in tests/filetests/ and is run against the oracle there.

mod arith;
mod attention;
mod cast;
mod control;
mod epilogue;
mod logic;
mod minmax;
mod movement;
mod quantised;
mod recognize;

use crate::rewrite::{Exactness, Match, Patch, Rewrite};

/// Every set with its tables.
pub static ALL: &[(&str, &[Rewrite])] = &[
    ("canonicalize", arith::RULES),
    ("canonicalize", logic::RULES),
    ("canonicalize", minmax::RULES),
    ("canonicalize", cast::RULES),
    ("canonicalize", movement::RULES),
    ("fold", crate::fold::RULES),
    ("shapes", crate::shapes::RULES),
    ("shapes", control::RULES),
    ("recognize", recognize::RULES),
    ("recognize", attention::RULES),
    ("quantised", quantised::blocks::RULES),
    ("quantised", quantised::product::RULES),
    ("quantised", quantised::movement::RULES),
    ("expand", quantised::expand::RULES),
    ("epilogues", epilogue::RULES),
];

/// An exact rule.
pub const fn exact(
    name: &'static str,
    doc: &'static str,
    roots: &'static [&'static str],
    apply: fn(&Match) -> Option<Patch>,
) -> Rewrite {
    Rewrite { name, doc, roots, exact: Exactness::Exact, apply }
}

/// A rule that moves roundings, or changes the sign of a zero.
pub const fn moves_rounding(
    name: &'static str,
    doc: &'static str,
    roots: &'static [&'static str],
    apply: fn(&Match) -> Option<Patch>,
) -> Rewrite {
    Rewrite { name, doc, roots, exact: Exactness::Reassociates, apply }
}
