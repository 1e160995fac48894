//! Strings. Their elements are handles of interned strings (see [`crate::strings`]): what moves,
//! compares for equality or selects elements works on strings as on numbers; these ops make strings
//! or look into them.
//!
//! * `to_string(x)`, `parse_number(x) {to}`
//! * `string_case(x) {upper}`, `string_concat(a, b)`, `regex_full_match(x) {pattern}`
//! * `string_split(x) {delimiter, most}` → parts, numbers of parts
//! * `lookup(x, keys)`, `ngram_counts(x, pool, grams) {skip, columns}`: numbers too

use std::collections::HashMap;

use silure_types::{Elem, text};

use crate::attr::AttrKind;
use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::op::*;
use crate::tensor::{Datum, Num, Tensor};
use crate::types::Type;

/// The type of operand 0 with other elements.
fn like(cx: &InferCx, elem: Elem) -> Result<Vec<Type>> {
    Ok(vec![Type::Tensor(cx.tensor(0)?.with_elem(elem))])
}

/// Each string of operand 0 replaced.
fn each(cx: &EvalCx, f: impl Fn(&str) -> String) -> Result<Vec<Datum>> {
    let x = cx.tensor(0)?;
    let y: Vec<String> = x.strs()?.iter().map(|s| f(s)).collect();
    Ok(vec![Tensor::from_strs(x.shape(), &y)?.into()])
}

/// Numbers as text.
pub static TO_STRING: OpDef = OpDef {
    name: "graph.to_string",
    doc: "The numbers as NumPy prints elements: the fewest digits that read back to the same value, `1e-05`, \
          `inf`, `nan`, `True`.",
    operands: &[one("x", Of::Elem)],
    results: &["y"],
    infer: Some(|cx| {
        if !text::has_format(cx.tensor(0)?.elem) {
            return Err(cx.wrong(0, "integers, bool, f16, f32 or f64", cx.ty(0)?));
        }
        like(cx, Elem::Str)
    }),
    eval: Some(|cx| {
        let x = cx.tensor(0)?;
        let one = |i| text::format(x.elem(), x.bits(i)).unwrap_or_default();
        let y: Vec<String> = (0..x.len()).map(one).collect();
        Ok(vec![Tensor::from_strs(x.shape(), &y)?.into()])
    }),
    ..OpDef::NEW
};

/// Text as numbers.
pub static PARSE_NUMBER: OpDef = OpDef {
    name: "graph.parse_number",
    doc: "The numbers that the strings are, as element type `to`, rounded once: decimal integers; floats plain, \
          scientific, `inf` and `nan` in any case; white space around them is ignored, anything else ends the \
          run with an error.",
    operands: &[one("x", Of::Str)],
    results: &["y"],
    attrs: &[required("to", AttrKind::Elem)],
    infer: Some(|cx| {
        let to = cx.elem("to")?;
        if !text::has_parse(to) {
            bail!(Type, "`to` is {to}: integers, f16, bf16, f32 or f64 are needed");
        }
        like(cx, to)
    }),
    eval: Some(|cx| {
        let (x, to) = (cx.tensor(0)?, cx.out_elem(0)?);
        let mut y = Tensor::zeros(to, x.shape())?;
        for (i, s) in x.strs()?.iter().enumerate() {
            let Some(bits) = text::parse(to, s) else {
                bail!(Eval, "`{s}` is no number of type {to}")
            };
            y.set_bits(i, bits);
        }
        Ok(vec![y.into()])
    }),
    ..OpDef::NEW
};

/// Upper or lower case.
pub static STRING_CASE: OpDef = OpDef {
    name: "graph.string_case",
    doc: "The strings in lower or `upper` case by Unicode's rules, which no locale changes.",
    operands: &[one("x", Of::Str)],
    results: &["y"],
    attrs: &[flag("upper", false)],
    infer: Some(|cx| like(cx, Elem::Str)),
    eval: Some(|cx| each(cx, |s| text::case(s, cx.attrs().bool("upper")))),
    ..OpDef::NEW
};

/// Strings behind each other.
pub static STRING_CONCAT: OpDef = OpDef {
    name: "graph.string_concat",
    doc: "Each string of a with that of b behind it.",
    operands: &[one("a", Of::Str), one("b", Of::Str)],
    results: &["y"],
    infer: Some(|cx| {
        if cx.ty(0)? != cx.ty(1)? {
            return Err(cx.wrong(1, &cx.ty(0)?.to_string(), cx.ty(1)?));
        }
        like(cx, Elem::Str)
    }),
    eval: Some(|cx| {
        let (a, b) = (cx.tensor(0)?, cx.tensor(1)?);
        let y: Vec<String> =
            a.strs()?.iter().zip(b.strs()?).map(|(a, b)| format!("{a}{b}")).collect();
        Ok(vec![Tensor::from_strs(a.shape(), &y)?.into()])
    }),
    ..OpDef::NEW
};

/// A pattern as a matcher of whole strings; an error of code `Unsupported` if it is not read, or is
/// read in another sense than RE2's.
fn matcher(pattern: &str) -> Result<regex_lite::Regex> {
    let other = ["\\<", "\\>", "\\b{"].into_iter().find(|s| pattern.contains(s));
    if let Some(s) = other {
        bail!(Unsupported, "the pattern `{pattern}` has `{s}`, which RE2 reads in another way");
    }
    // Alone first: a bracket too many must not close the group around it.
    let whole = regex_lite::Regex::new(pattern)
        .and_then(|_| regex_lite::Regex::new(&format!(r"\A(?:{pattern})\z")));
    match whole {
        Ok(r) => Ok(r),
        Err(e) => bail!(Unsupported, "the pattern `{pattern}` is not read: {e}"),
    }
}

/// Whether strings match a pattern.
pub static REGEX_FULL_MATCH: OpDef = OpDef {
    name: "graph.regex_full_match",
    doc: "Whether `pattern` (RE2's syntax; classes such as `\\d` and case are ASCII's) matches the whole \
          string, in linear time.",
    operands: &[one("x", Of::Str)],
    results: &["y"],
    attrs: &[required("pattern", AttrKind::Str)],
    infer: Some(|cx| {
        matcher(cx.attrs().str("pattern"))?;
        like(cx, Elem::Bool)
    }),
    eval: Some(|cx| {
        let (x, r) = (cx.tensor(0)?, matcher(cx.attrs().str("pattern"))?);
        let y = x.strs()?.into_iter().map(|s| Num::bool(r.is_match(&s)));
        Ok(vec![Tensor::from_nums(Elem::Bool, x.shape(), y)?.into()])
    }),
    ..OpDef::NEW
};

/// Strings in parts.
pub static STRING_SPLIT: OpDef = OpDef {
    name: "graph.string_split",
    doc: "The parts of each string between `delimiter`s, or runs of white space if it is empty, after at most \
          `most` splits if given; rows are as long as the longest, filled up with empty strings. The second \
          result is the number of parts of each.",
    operands: &[one("x", Of::Str)],
    results: &["parts", "counts"],
    attrs: &[word("delimiter", ""), maybe("most", AttrKind::Int)],
    infer: Some(|cx| {
        let x = cx.tensor(0)?;
        if cx.attrs().int("most") < 0 {
            bail!(Type, "`most` is not negative");
        }
        let mut dims = x.dims.clone();
        dims.push(cx.fresh("parts", &Dim::Const(i64::MAX)));
        Ok(vec![Type::tensor(Elem::Str, dims), Type::tensor(Elem::I64, x.dims.clone())])
    }),
    eval: Some(|cx| {
        let x = cx.tensor(0)?;
        let most = cx.attrs().get("most").map_or(usize::MAX, |_| cx.attrs().int("most") as usize);
        let texts = x.strs()?;
        let split = |s| text::split(s, Some(cx.attrs().str("delimiter")), most);
        let rows: Vec<Vec<&str>> = texts.iter().map(|s| split(s)).collect();
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut shape = x.shape().to_vec();
        shape.push(longest);
        cx.afford(&shape)?;
        let part = |row: &Vec<&str>, k| row.get(k).copied().unwrap_or("").to_string();
        let parts: Vec<String> =
            rows.iter().flat_map(|r| (0..longest).map(move |k| part(r, k))).collect();
        let counts = rows.iter().map(|r| Num::I(r.len() as i128));
        let counts = Tensor::from_nums(Elem::I64, x.shape(), counts)?;
        Ok(vec![Tensor::from_strs(&shape, &parts)?.into(), counts.into()])
    }),
    ..OpDef::NEW
};

/// Bits that are equal where elements are: one zero, one NaN.
fn key(t: &Tensor, i: usize) -> u64 {
    match t.get(i) {
        Num::F(v) if v.is_nan() => u64::MAX,
        Num::F(0.0) => 0,
        _ => t.bits(i),
    }
}

/// Positions among keys.
pub static LOOKUP: OpDef = OpDef {
    name: "graph.lookup",
    doc: "The position of the first of `keys` that equals each element of x (NaN equals NaN), or the number of \
          keys if none does.",
    operands: &[one("x", Of::Elem), one("keys", Of::Elem)],
    results: &["positions"],
    infer: Some(|cx| {
        let (x, keys) = (cx.tensor(0)?, cx.tensor(1)?);
        if keys.elem != x.elem || keys.rank() != 1 {
            return Err(cx.wrong(1, &format!("{}[n]", x.elem), cx.ty(1)?));
        }
        like(cx, Elem::I64)
    }),
    eval: Some(|cx| {
        let (x, keys) = (cx.tensor(0)?, cx.tensor(1)?);
        let mut map = HashMap::new();
        for k in 0..keys.len() {
            map.entry(key(keys, k)).or_insert(k);
        }
        let y = (0..x.len()).map(|i| map.get(&key(x, i)).copied().unwrap_or(keys.len()));
        Ok(vec![Tensor::from_nums(Elem::I64, x.shape(), y.map(|p| Num::I(p as i128)))?.into()])
    }),
    ..OpDef::NEW
};

/// How often n-grams occur.
pub static NGRAM_COUNTS: OpDef = OpDef {
    name: "graph.ngram_counts",
    doc: "How often n-grams occur in each row of x: n elements at equal distances 1 … `skip` + 1 (one element \
          at one distance). Each row of `grams` is where an n-gram begins in `pool`, its length, and the column \
          of the result that counts it; n-grams differ.",
    operands: &[one("x", Of::Elem), one("pool", Of::Elem), one("grams", Of::Position)],
    results: &["y"],
    attrs: &[int("skip", 0), required("columns", AttrKind::Int)],
    infer: Some(|cx| {
        let (x, pool, grams) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        if !(1..=2).contains(&x.rank()) || !matches!(x.elem, Elem::I64 | Elem::Str) {
            return Err(cx.wrong(0, "i64 or strings of rank 1 or 2", cx.ty(0)?));
        }
        if pool.elem != x.elem || pool.rank() != 1 {
            return Err(cx.wrong(1, &format!("{}[n]", x.elem), cx.ty(1)?));
        }
        let three = grams.rank() == 2 && grams.dims[1] == Dim::Const(3);
        if grams.elem != Elem::I64 || !three {
            return Err(cx.wrong(2, "i64[n, 3]", cx.ty(2)?));
        }
        let (skip, columns) = (cx.attrs().int("skip"), cx.attrs().int("columns"));
        if skip < 0 || columns < 0 {
            bail!(Type, "`skip` and `columns` are not negative");
        }
        let mut dims = x.dims.clone();
        dims[x.rank() - 1] = Dim::Const(columns);
        Ok(vec![Type::tensor(Elem::F32, dims)])
    }),
    eval: Some(eval_ngrams),
    ..OpDef::NEW
};

fn eval_ngrams(cx: &EvalCx) -> Result<Vec<Datum>> {
    let (x, pool, grams) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?.to_i64s());
    let (skip, columns) = (cx.attrs().int("skip") as usize, cx.attrs().int("columns") as usize);
    let len = x.shape().last().copied().unwrap_or(0);
    let mut shape = x.shape().to_vec();
    shape[x.shape().len() - 1] = columns;
    cx.afford(&shape)?;
    let mut y = vec![0.0; shape.iter().product()];
    for g in grams.chunks_exact(3) {
        let [first, n, column] = [0, 1, 2].map(|i| usize::try_from(g[i]).unwrap_or(usize::MAX));
        let end = first.saturating_add(n);
        if n == 0 || end > pool.len() || column >= columns {
            bail!(Eval, "n-gram {g:?} of a pool of {} and {columns} columns", pool.len());
        }
        let distances = if n == 1 { 1 } else { skip.saturating_add(1).min(len) };
        for row in 0..x.len().checked_div(len).unwrap_or(0) {
            for distance in 1..=distances {
                let reach = distance.saturating_mul(n - 1);
                let starts = (0..len.saturating_sub(reach)).filter(|s| {
                    let at = row * len + s;
                    (0..n).all(|k| x.bits(at + k * distance) == pool.bits(first + k))
                });
                y[row * columns + column] += starts.count() as f64;
            }
        }
    }
    Ok(vec![Tensor::from_f64s(Elem::F32, &shape, &y)?.into()])
}
