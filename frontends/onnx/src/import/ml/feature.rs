//! Features: `ArrayFeatureExtractor`, `Binarizer`, `Scaler`, `Normalizer`, `Imputer`,
//! `FeatureVectorizer`.

use silure_ir::dialects::arith;
use silure_ir::{Dim, Elem, Tensor, ValueId, attrs};

use super::{Cx, Node, Record, ml};
use crate::error::Result;

pub(super) const TABLE: &[Record] = &[
    ml("ArrayFeatureExtractor", 1, array_feature_extractor),
    ml("Binarizer", 1, binarizer),
    ml("Scaler", 1, scaler),
    ml("Normalizer", 1, normalizer),
    ml("Imputer", 1, imputer),
    ml("FeatureVectorizer", 1, feature_vectorizer),
];

/// Elements of the last axis; a vector becomes one row, as in ONNX's reference.
fn array_feature_extractor(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (x, at) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let (count, rank) = (cx.ty(at)?.count(), cx.rank(x)?);
    if rank == 0 {
        return Err(cx.wrong("the operand has no axis"));
    }
    let at = cx.reshape(at, vec![count.clone()])?;
    let y = cx.op("graph.gather", &[x, at], attrs! { axis: rank as i64 - 1 })?;
    Ok(vec![if rank == 1 { cx.reshape(y, vec![Dim::Const(1), count])? } else { y }])
}

fn binarizer(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let threshold = cx.float_or(n, "threshold", 0.0)?;
    let x = cx.input(n, 0)?;
    let elem = cx.elem(x)?;
    // A whole number is compared with a fraction.
    let wide = if elem.is_float() { x } else { cx.cast(x, Elem::F64)? };
    let above = cx.with(&arith::GT, wide, threshold)?;
    Ok(vec![cx.cast(above, elem)?])
}

/// One value per feature of the last axis, or one for all.
fn per_feature(cx: &mut Cx<'_, '_>, x: &mut ValueId, t: Tensor, name: &str) -> Result<ValueId> {
    let rank = cx.rank(*x)?;
    if t.len() != 1 {
        if rank == 0 || t.is_empty() {
            return Err(cx.wrong(format!("attribute `{name}` has the wrong length")));
        }
        cx.expect_size(x, rank - 1, &Dim::from(t.len()), "the number of features")?;
    }
    cx.stored(t, name)
}

fn scaler(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (offset, scale) = (cx.floats(n, "offset")?, cx.floats(n, "scale")?);
    let mut x = cx.real(n, 0)?;
    for (name, def, list) in [("offset", &arith::SUB, offset), ("scale", &arith::MUL, scale)] {
        let Some(list) = list else {
            return Err(cx.unsupported(format!("a scaler without attribute `{name}`")));
        };
        let t = Tensor::from_f64s(cx.elem(x)?, &[list.len()], &list).map_err(|d| cx.diag(d))?;
        let by = per_feature(cx, &mut x, t, name)?;
        x = cx.two(def, x, by)?;
    }
    Ok(vec![cx.cast(x, Elem::F32)?])
}

fn normalizer(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let kind = match cx.word(n, "norm", "MAX")?.as_str() {
        "L1" => "l1",
        "L2" => "l2",
        // ONNX's text divides by the maximum, its reference by the greatest magnitude.
        k => return Err(cx.unsupported("the norm is not read").needed("L1 or L2").present(k)),
    };
    let x = cx.real(n, 0)?;
    let rank = cx.rank(x)?;
    if !(1..=2).contains(&rank) {
        return Err(cx.wrong("the operand has the wrong rank").needed("1 or 2"));
    }
    let norm = cx.reduce(x, kind, &[rank - 1], true)?;
    // A row of zeros stays one.
    let norm = cx.with(&arith::MAX, norm, 1e-30)?;
    let y = cx.two(&arith::DIV, x, norm)?;
    Ok(vec![cx.cast(y, Elem::F32)?])
}

fn imputer(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (floats, ints) =
        (cx.floats(n, "imputed_value_floats")?, cx.ints(n, "imputed_value_int64s")?);
    let replaced = cx.float_or(n, "replaced_value_float", 0.0)?;
    let replaced_int = cx.int_or(n, "replaced_value_int64", 0)?;
    let mut x = cx.input(n, 0)?;
    let elem = cx.elem(x)?;
    let values = match (elem.is_float(), floats, ints) {
        (true, Some(v), _) => Tensor::from_f64s(elem, &[v.len()], &v),
        (false, _, Some(v)) if elem.is_int() => {
            let fits = v
                .iter()
                .chain([&replaced_int])
                .all(|&v| elem.decode_int(elem.encode_int(v as i128)) == v as i128);
            if !fits {
                return Err(cx
                    .wrong("a value does not fit the operand's type")
                    .needed(elem.name()));
            }
            Tensor::from_ints(elem, &[v.len()], &v)
        }
        _ => return Err(cx.wrong("the imputed values are not those of the operand's type")),
    };
    let values = values.map_err(|d| cx.diag(d))?;
    let values = per_feature(cx, &mut x, values, "imputed_value")?;
    let missing = if elem.is_float() && replaced.is_nan() {
        cx.one(&arith::IS_NAN, &[x], attrs! {})?
    } else if elem.is_float() {
        cx.with(&arith::EQ, x, replaced)?
    } else {
        let v = Tensor::from_ints(elem, &[], &[replaced_int]).map_err(|d| cx.diag(d))?;
        let v = cx.constant(v)?;
        cx.two(&arith::EQ, x, v)?
    };
    Ok(vec![cx.elementwise(&arith::SELECT, &[missing, values, x], attrs! {})?])
}

fn feature_vectorizer(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let sizes = cx.ints(n, "inputdimensions")?.unwrap_or_default();
    if sizes.len() != n.inputs.len() {
        return Err(cx
            .wrong("attribute `inputdimensions` has the wrong length")
            .needed(n.inputs.len().to_string())
            .present(sizes.len().to_string()));
    }
    let mut parts = Vec::new();
    for (i, &size) in sizes.iter().enumerate() {
        let mut x = cx.real(n, i)?;
        let dims = cx.dims(x)?;
        if dims.len() != 2 || dims[1].as_const().is_some_and(|d| d != size) {
            return Err(cx
                .unsupported("features other than rows of the stated size")
                .needed(format!("[n, {size}]"))
                .present(cx.ty(x)?.to_string()));
        }
        cx.expect_size(&mut x, 1, &Dim::Const(size), "the stated number of features")?;
        let x = cx.cast(x, Elem::F32)?;
        parts.push(x);
    }
    for i in 1..parts.len() {
        let (mut a, mut b) = (parts[0], parts[i]);
        cx.same_size(&mut a, 0, &mut b, 0, "numbers of rows")?;
        (parts[0], parts[i]) = (a, b);
    }
    Ok(vec![cx.op("graph.concat", &parts, attrs! { axis: 1 })?])
}
