//! Maps. One that goes out is rows of values: the keys of `ZipMap`'s are all the same and known. One that
//! comes in is two inputs of one size, `NAME.keys` and `NAME.values`, entries in any order: [`Map`].
//! No IR type holds a map; operators that take one ask [`Cx::map`], all others are told what it is.

use silure_ir::dialects::arith;
use silure_ir::{Attr, Dim, Elem, Tensor, TensorType, ValueId, attrs};

use super::super::signature::describe;
use super::{Cx, Node, Record, ml};
use crate::error::{Result, quote};
use crate::proto::{TypeMap, TypeValue};

pub(super) const TABLE: &[Record] = &[
    ml("ZipMap", 1, zip_map),
    ml("CastMap", 1, cast_map),
    ml("DictVectorizer", 1, dict_vectorizer),
];

/// Keys that a note lists at most.
const LISTED: usize = 16;

/// A map: vectors of one size. Whether a key is given twice is decided when running, by [`Cx::map`].
#[derive(Clone, Copy, Debug)]
pub(in crate::import) struct Map {
    /// Integers or strings.
    pub keys: ValueId,
    /// What belongs to each key.
    pub values: ValueId,
}

impl Cx<'_, '_> {
    /// Element types of the keys and values of a map that the model takes.
    pub(in crate::import) fn map_elems(&mut self, ty: TypeMap<'_>) -> Result<(Elem, Elem)> {
        let keys = match crate::tensor::elem(ty.key_type().unwrap_or(0)) {
            Ok(e @ (Elem::I64 | Elem::Str)) => e,
            other => {
                let e = self.unsupported("the map's keys are not read").needed("i64 or str");
                return Err(e.present(other.map_or_else(|e| e, Elem::name)));
            }
        };
        let of = ty.value_type();
        let values = match of.and_then(|t| t.value()) {
            Some(TypeValue::Tensor(t)) if t.shape().is_none_or(|s| s.dim().next().is_none()) => {
                crate::tensor::elem(t.elem_type().unwrap_or(0)).ok()
            }
            _ => None,
        };
        match values {
            Some(values) => Ok((keys, values)),
            None => Err(self
                .unsupported("the map's values are not read")
                .needed("single elements")
                .present(describe(of))),
        }
    }

    /// Operand `i`, a map. A run in which a key is given twice ends with an error.
    fn map(&mut self, n: &Node<'_>, i: usize) -> Result<Map> {
        self.reads(i);
        let given = n.inputs.get(i).copied().flatten();
        let Some(map) = given.and_then(|v| self.maps.get(&v)).copied() else {
            let x = self.input(n, i)?;
            return Err(self
                .wrong("an operand is not a map")
                .needed("an input of the model that is a map")
                .present(self.f.ty(x).to_string()));
        };
        // Every key is the first of its kind.
        let first = self.op("graph.lookup", &[map.keys, map.keys], attrs! {})?;
        let count = self.size_of(map.keys, 0)?;
        let places = self.iota(count)?;
        let new = self.two(&arith::EQ, first, places)?;
        let keys = self.every(map.keys, new, "the numbers of keys and of different keys")?;
        Ok(Map { keys, values: map.values })
    }

    /// x, which must have no element where the condition does not hold.
    fn every(&mut self, x: ValueId, condition: ValueId, what: &str) -> Result<ValueId> {
        let count = self.dims(x)?[0].clone();
        let mut y = self.op("graph.compress", &[x, condition], attrs! { axis: 0 })?;
        self.expect_size(&mut y, 0, &count, what)?;
        Ok(y)
    }

    /// The value of each wanted key, `default` of those that the map lacks; as one row.
    fn pick(&mut self, map: Map, wanted: ValueId, default: Tensor) -> Result<ValueId> {
        let at = self.op("graph.lookup", &[wanted, map.keys], attrs! {})?;
        let default = self.constant(default)?;
        let all = self.op("graph.concat", &[map.values, default], attrs! { axis: 0 })?;
        let y = self.rows_of(all, at)?;
        self.row(y)
    }

    /// A vector as one row.
    fn row(&mut self, x: ValueId) -> Result<ValueId> {
        let mut dims = self.dims(x)?;
        dims.insert(0, Dim::Const(1));
        self.reshape(x, dims)
    }
}

fn zip_map(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let labels = cx.labels(n, "classlabels_int64s", "classlabels_strings")?;
    let mut x = cx.matrix(n, 0)?;
    cx.expect_size(&mut x, 1, &labels.len().into(), "the number of values and of keys")?;
    let mut keys: Vec<String> = match labels.elem().is_str() {
        true => labels.strs().map_err(|d| cx.diag(d))?.iter().map(|s| quote(s)).collect(),
        false => labels.to_i64s().iter().map(i64::to_string).collect(),
    };
    if keys.len() > LISTED {
        keys.truncate(LISTED);
        keys.push(format!("… ({} in all)", labels.len()));
    }
    let keys = keys.join(", ");
    let note = format!("{}: maps are rows of values, in the order of the keys {keys}", cx.at);
    cx.note(note);
    Ok(vec![x])
}

/// The values in the order of their keys (DENSE), or each at the place that its key says (SPARSE), where a
/// place without a key holds zero.
fn cast_map(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let to = match cx.word(n, "cast_to", "TO_FLOAT")?.as_str() {
        "TO_FLOAT" => Elem::F32,
        "TO_INT64" => Elem::I64,
        "TO_STRING" => Elem::Str,
        to => {
            let e = cx.wrong("attribute `cast_to` has an unknown value");
            return Err(e.needed("TO_FLOAT, TO_INT64 or TO_STRING").present(quote(to)));
        }
    };
    let form = cx.word(n, "map_form", "DENSE")?;
    let most = cx.int_or(n, "max_map", 1)?;
    let mut map = cx.map(n, 0)?;
    let TensorType { elem: from, .. } = cx.ty(map.values)?;
    if cx.elem(map.keys)? != Elem::I64 || !matches!(from, Elem::F32 | Elem::Str) {
        let e = cx.wrong("the operand is a map of other types");
        let present = format!("map({}, {from})", cx.elem(map.keys)?);
        return Err(e.needed("map(i64, f32) or map(i64, str)").present(present));
    }
    if from == Elem::F32 && to == Elem::Str {
        cx.note(format!("{}: numbers become strings as `Cast` writes them", cx.at));
    }
    match form.as_str() {
        "DENSE" => {
            let k = Attr::Dims(cx.dims(map.keys)?);
            let attrs = attrs! { axis: 0, largest: false, sorted: true, k: k };
            let sorted = cx.ops("graph.top_k", &[Some(map.keys), None], attrs)?;
            let y = cx.rows_of(map.values, sorted[1])?;
            let y = cx.cast(y, to)?;
            Ok(vec![cx.row(y)?])
        }
        "SPARSE" if most < 1 => {
            let e = cx.wrong("attribute `max_map` is not positive").needed("1 or more");
            Err(e.present(most.to_string()))
        }
        "SPARSE" => {
            map.values = cx.cast(map.values, to)?;
            let bound = cx.int_number(most)?;
            let zero = cx.int_number(0)?;
            let (low, high) =
                (cx.two(&arith::GE, map.keys, zero)?, cx.two(&arith::LT, map.keys, bound)?);
            let inside = cx.two(&arith::AND, low, high)?;
            let what = "the numbers of keys and of keys from 0 to below `max_map`";
            map.keys = cx.every(map.keys, inside, what)?;
            let places = cx.iota(bound)?;
            let absent = match to {
                // The standard does not say; this is what its users' runtime writes.
                Elem::Str => Tensor::from_strs(&[1], &["0.f"]).map_err(|d| cx.diag(d))?,
                to => Tensor::zeros(to, &[1]).map_err(|d| cx.diag(d))?,
            };
            if to == Elem::Str {
                cx.note(format!("{}: a place without a key holds the string \"0.f\"", cx.at));
            }
            Ok(vec![cx.pick(map, places, absent)?])
        }
        form => {
            let e = cx.wrong("attribute `map_form` has an unknown value");
            Err(e.needed("DENSE or SPARSE").present(quote(form)))
        }
    }
}

/// For each word of the vocabulary the map's value, zero or the empty string where there is none.
fn dict_vectorizer(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let words = cx.labels(n, "int64_vocabulary", "string_vocabulary")?;
    let map = cx.map(n, 0)?;
    let (keys, values) = (cx.elem(map.keys)?, cx.elem(map.values)?);
    let read = matches!(values, Elem::I64 | Elem::F32 | Elem::F64 | Elem::Str);
    if keys != words.elem() || !read || keys == values {
        let e = cx.wrong("the operand is a map of other types");
        let needed = format!(
            "keys of the vocabulary's type {}, values of another of i64, f32, f64 and str",
            words.elem()
        );
        return Err(e.needed(needed).present(format!("map({keys}, {values})")));
    }
    cx.note(format!("{}: keys that are not in the vocabulary are left out", cx.at));
    let none = Tensor::zeros(values, &[1]).map_err(|d| cx.diag(d))?;
    let words = cx.stored(words, "vocabulary")?;
    Ok(vec![cx.pick(map, words, none)?])
}
