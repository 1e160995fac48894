//! Strings: casts from and to them, and the operators that make them or look into them.

use std::collections::HashSet;

use silure_ir::dialects::arith;
use silure_ir::{Dim, Elem, Tensor, ValueId, attrs};
use silure_types::text;

use super::cx::Cx;
use super::{Record, record};
use crate::error::{Result, quote};
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    record("StringNormalizer", normalizer),
    record("StringConcat", concat),
    record("StringSplit", split),
    record("RegexFullMatch", regex_full_match),
    record("TfIdfVectorizer", tf_idf),
];

impl Cx<'_, '_> {
    /// A cast of which one side is strings.
    pub fn cast_strings(&mut self, x: ValueId, to: Elem) -> Result<ValueId> {
        let from = self.elem(x)?;
        if from == to {
            return Ok(x);
        }
        if to.is_str() && text::has_format(from) {
            if from == Elem::Bool {
                self.note("bools become the strings `True` and `False`, as in ONNX's reference");
            }
            return self.op("graph.to_string", &[x], attrs! {});
        }
        if from.is_str() && text::has_parse(to) {
            return self.op("graph.parse_number", &[x], attrs! { to: to });
        }
        Err(self.unsupported(format!("a cast from {from} to {to}")))
    }

    /// A 1-D constant of strings.
    pub fn strings_value<S: AsRef<str>>(&mut self, v: &[S]) -> Result<ValueId> {
        let t = Tensor::from_strs(&[v.len()], v).map_err(|d| self.diag(d))?;
        self.constant(t)
    }

    /// An operand that has to hold strings.
    pub fn strings(&self, n: &Node<'_>, i: usize) -> Result<ValueId> {
        let x = self.input(n, i)?;
        match self.elem(x)? {
            Elem::Str => Ok(x),
            e => Err(self
                .wrong(format!("operand {i} has the wrong element type"))
                .needed("string")
                .present(e.name())),
        }
    }
}

fn concat(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let v = [cx.strings(n, 0)?, cx.strings(n, 1)?];
    let v = cx.broadcast_all(&v, 0)?;
    Ok(vec![cx.op("graph.string_concat", &v, attrs! {})?])
}

fn split(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let delimiter = cx.word(n, "delimiter", "")?;
    let most = cx.int(n, "maxsplit")?;
    let x = cx.strings(n, 0)?;
    let mut attrs = attrs! { delimiter: delimiter.as_str() };
    // A negative number is Python's way of having no limit.
    if let Some(most) = most.filter(|m| *m >= 0) {
        attrs.set("most", most);
    }
    cx.ops("graph.string_split", &[Some(x)], attrs)
}

fn regex_full_match(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let pattern = cx.word(n, "pattern", "")?;
    let x = cx.strings(n, 0)?;
    if pattern.contains("(?") && pattern.contains('i') {
        cx.note("a pattern that ignores case does so for ASCII letters");
    }
    Ok(vec![cx.op("graph.regex_full_match", &[x], attrs! { pattern: pattern.as_str() })?])
}

/// Stopwords are left out, then the case is changed; of nothing left one empty string remains.
fn normalizer(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let case = match cx.word(n, "case_change_action", "NONE")?.as_str() {
        "NONE" => None,
        "LOWER" => Some(false),
        "UPPER" => Some(true),
        a => return Err(cx.wrong("attribute `case_change_action` has no such value").present(a)),
    };
    let sensitive = cx.flag_or(n, "is_case_sensitive", false)?;
    let mut stopwords = cx.words(n, "stopwords")?.unwrap_or_default();
    let locale = cx.word(n, "locale", "")?;
    // Turkic languages and Lithuanian are the ones whose case differs from Unicode's default.
    if ["tr", "az", "lt"].iter().any(|l| locale.to_lowercase().starts_with(l)) {
        return Err(cx.unsupported("case rules of this locale").present(quote(&locale)));
    }
    if !locale.is_empty() {
        cx.note(format!("locale {} is read as Unicode's own rules of case", quote(&locale)));
    }
    let mut x = cx.strings(n, 0)?;
    let dims = cx.dims(x)?;
    let axis = match dims.len() {
        1 => 0,
        2 => {
            let one = Dim::Const(1);
            cx.expect_size(&mut x, 0, &one, "the rows of the operand and 1")?;
            1
        }
        r => {
            return Err(cx
                .wrong("the operand has the wrong rank")
                .needed("1 or 2")
                .present(r.to_string()));
        }
    };
    if !stopwords.is_empty() {
        let mut compared = x;
        if !sensitive {
            compared = cx.op("graph.string_case", &[x], attrs! {})?;
            stopwords.iter_mut().for_each(|w| *w = text::case(w, false));
        }
        let count = stopwords.len() as f64;
        let words = cx.strings_value(&stopwords)?;
        let at = cx.op("graph.lookup", &[compared, words], attrs! {})?;
        let kept = cx.with(&arith::EQ, at, count)?;
        let length = cx.dims(kept)?[axis].clone();
        let mut kept = cx.reshape(kept, vec![length])?;
        // One more element, which is kept if no other is.
        let ints = cx.cast(kept, Elem::I32)?;
        let attrs = attrs! { axes: vec![0i64], kind: "max", keep: true };
        let any = cx.op("graph.reduce", &[ints], attrs)?;
        let none = cx.with(&arith::LT, any, 1.0)?;
        kept = cx.op("graph.concat", &[kept, none], attrs! { axis: 0 })?;
        let empty = cx.strings_value(&[""])?;
        let empty = if axis == 1 { cx.reshape(empty, vec![Dim::Const(1); 2])? } else { empty };
        let longer = cx.op("graph.concat", &[x, empty], attrs! { axis: axis as i64 })?;
        x = cx.op("graph.compress", &[longer, kept], attrs! { axis: axis as i64 })?;
    }
    if let Some(upper) = case {
        x = cx.op("graph.string_case", &[x], attrs! { upper: upper })?;
    }
    Ok(vec![x])
}

/// Counts of n-grams, weighted.
fn tf_idf(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let mode = cx.word(n, "mode", "")?;
    let [most, least, skip] = [
        cx.int(n, "max_gram_length")?,
        cx.int(n, "min_gram_length")?,
        cx.int(n, "max_skip_count")?,
    ]
    .map(|v| v.unwrap_or(-1));
    if !["TF", "IDF", "TFIDF"].contains(&mode.as_str()) || least < 1 || most < least || skip < 0 {
        return Err(cx
            .wrong("the attributes describe no n-grams")
            .needed(
                "mode TF, IDF or TFIDF, 1 ≤ min_gram_length ≤ max_gram_length, max_skip_count ≥ 0",
            )
            .present(format!("{mode}, {least}, {most}, {skip}")));
    }
    let counts = cx.ints(n, "ngram_counts")?.unwrap_or_default();
    let indexes = cx.ints(n, "ngram_indexes")?.unwrap_or_default();
    let weights = cx.floats(n, "weights")?;
    let pool = match (cx.ints(n, "pool_int64s")?, cx.words(n, "pool_strings")?) {
        (Some(ints), None) => Tensor::from_ints(Elem::I64, &[ints.len()], &ints),
        (None, Some(words)) => Tensor::from_strs(&[words.len()], &words),
        _ => return Err(cx.wrong("one of `pool_int64s` and `pool_strings` is needed")),
    };
    let pool = pool.map_err(|d| cx.diag(d))?;
    let grams = ngrams(cx, &pool, &counts, &indexes, (least, most))?;
    let columns = indexes.iter().max().map_or(0, |m| m + 1);
    let mut x = cx.input(n, 0)?;
    if pool.elem() == Elem::I64 && cx.elem(x)? == Elem::I32 {
        x = cx.cast(x, Elem::I64)?;
    }
    if cx.rank(x)? == 0 {
        x = cx.reshape(x, vec![Dim::Const(1)])?;
    }
    let rows = grams.len() / 3;
    let grams = Tensor::from_ints(Elem::I64, &[rows, 3], &grams).map_err(|d| cx.diag(d))?;
    let (pool, grams) = (cx.constant(pool)?, cx.constant(grams)?);
    let attrs = attrs! { skip: skip, columns: columns };
    let mut y = cx.op("graph.ngram_counts", &[x, pool, grams], attrs)?;
    if mode == "TF" {
        return Ok(vec![y]);
    }
    if mode == "IDF" {
        let found = cx.with(&arith::GT, y, 0.0)?;
        y = cx.cast(found, Elem::F32)?;
    }
    if let Some(weights) = weights {
        let weights = column_weights(cx, &weights, &indexes, columns)?;
        y = cx.two(&arith::MUL, y, weights)?;
    }
    Ok(vec![y])
}

/// Rows of (first element, length, column) of the n-grams that are counted.
fn ngrams(
    cx: &Cx<'_, '_>,
    pool: &Tensor,
    counts: &[i64],
    indexes: &[i64],
    (least, most): (i64, i64),
) -> Result<Vec<i64>> {
    let (mut grams, mut seen, mut number) = (Vec::new(), HashSet::new(), 0);
    for (i, &start) in counts.iter().enumerate() {
        let n = i as i64 + 1;
        let end = counts.get(i + 1).copied().unwrap_or(pool.len() as i64);
        if start < 0 || start > end || end > pool.len() as i64 || (end - start) % n != 0 {
            return Err(cx
                .wrong("attribute `ngram_counts` does not divide the pool into n-grams")
                .needed(format!("multiples of {n} up to {}", pool.len()))
                .present(format!("{start} to {end}")));
        }
        for first in (start..end).step_by(n as usize) {
            let Some(&column) = indexes.get(number).filter(|c| **c >= 0) else {
                return Err(cx.wrong("attribute `ngram_indexes` has no place for each n-gram"));
            };
            number += 1;
            let bits: Vec<u64> = (first..first + n).map(|k| pool.bits(k as usize)).collect();
            if !seen.insert(bits) {
                return Err(cx.unsupported("an n-gram that is in the pool twice"));
            }
            if (least..=most).contains(&n) {
                grams.extend([first, n, column]);
            }
        }
    }
    if number != indexes.len() {
        return Err(cx
            .wrong("attribute `ngram_indexes` has the wrong length")
            .needed(number.to_string())
            .present(indexes.len().to_string()));
    }
    Ok(grams)
}

/// Weights by column. Weight i is that of n-gram i; ONNX's implementations take it for column i, so
/// it has to be both.
fn column_weights(
    cx: &mut Cx<'_, '_>,
    weights: &[f64],
    indexes: &[i64],
    columns: i64,
) -> Result<ValueId> {
    let agree = |(i, c): (usize, &i64)| {
        let by_gram = weights.get(i);
        by_gram.is_some() && by_gram == weights.get(*c as usize)
    };
    if weights.len() != indexes.len() || !indexes.iter().enumerate().all(agree) {
        return Err(cx.unsupported(
            "weights whose order is neither that of the n-grams nor that of the columns",
        ));
    }
    let columns = columns as usize;
    let weights: Vec<f64> = (0..columns).map(|c| weights.get(c).copied().unwrap_or(0.0)).collect();
    let t = Tensor::from_f64s(Elem::F32, &[columns], &weights).map_err(|d| cx.diag(d))?;
    cx.constant(t)
}
