//! Categories: `LabelEncoder`, `CategoryMapper`, `OneHotEncoder`.

use std::collections::HashMap;

use silure_ir::dialects::arith;
use silure_ir::{Attr, Dim, Elem, Num, Tensor, ValueId, attrs};

use super::{Cx, Node, Record, ml};
use crate::error::Result;

pub(super) const TABLE: &[Record] = &[
    ml("LabelEncoder", 1, label_encoder),
    ml("CategoryMapper", 1, category_mapper),
    ml("OneHotEncoder", 1, one_hot_encoder),
];

impl Cx<'_, '_> {
    /// A list that is given as one of several attributes, the last a tensor.
    fn keyed(&mut self, n: &Node<'_>, names: [&'static str; 4]) -> Result<Tensor> {
        let [ints, floats, strings, tensor] = names;
        let mut lists = Vec::new();
        if let Some(v) = self.ints(n, ints)? {
            lists.push(Tensor::from_ints(Elem::I64, &[v.len()], &v));
        }
        if let Some(v) = self.floats(n, floats)? {
            lists.push(Tensor::from_f64s(Elem::F32, &[v.len()], &v));
        }
        if let Some(v) = self.words(n, strings)? {
            lists.push(Tensor::from_strs(&[v.len()], &v));
        }
        if n.op.version >= 4
            && let Some(proto) = self.tensor(n, tensor)?
        {
            let t = self.model.tensor(proto, &self.at)?;
            let t = self.dense(&t)?;
            let count = t.len();
            lists.push(t.reshaped(&[count]));
        }
        match (lists.pop(), lists.is_empty()) {
            (Some(t), true) => t.map_err(|d| self.diag(d)),
            _ => Err(self.wrong(format!("one of `{}` is needed", names.join("`, `")))),
        }
    }

    /// The value of each element's key, `default` for what is no key.
    fn encode(
        &mut self,
        x: ValueId,
        keys: Tensor,
        values: Tensor,
        default: Tensor,
    ) -> Result<ValueId> {
        let elem = self.elem(x)?;
        if elem != keys.elem() || keys.len() != values.len() || default.len() != 1 {
            return Err(self
                .wrong("keys, values, default and operand do not fit")
                .needed(format!("as many values as keys of type {elem}, one default"))
                .present(format!("{} for {}, {}", values.ty(), keys.ty(), default.ty())));
        }
        let mut seen = HashMap::new();
        for i in 0..keys.len() {
            if *seen.entry(keys.bits(i)).or_insert(values.bits(i)) != values.bits(i) {
                return Err(self.unsupported("a key that is given twice with different values"));
            }
        }
        let mut all =
            Tensor::zeros(values.elem(), &[values.len() + 1]).map_err(|d| self.diag(d))?;
        (0..values.len()).for_each(|i| all.set_bits(i, values.bits(i)));
        all.set_bits(values.len(), default.bits(0));
        let keys = self.stored(keys, "keys")?;
        let at = self.op("graph.lookup", &[x, keys], attrs! {})?;
        let all = self.stored(all, "values")?;
        self.rows_of(all, at)
    }

    /// The defaults for strings and integers.
    fn defaults(&mut self, n: &Node<'_>) -> Result<(Tensor, Tensor)> {
        let string = self.word(n, "default_string", "_Unused")?;
        let int = self.int_or(n, "default_int64", -1)?;
        let string = Tensor::from_strs(&[], &[string]).map_err(|d| self.diag(d))?;
        Ok((string, Tensor::scalar(Elem::I64, Num::I(int as i128))))
    }
}

fn label_encoder(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    let (string, int) = cx.defaults(n)?;
    if n.op.version < 2 {
        let Some(classes) = cx.words(n, "classes_strings")? else {
            return Err(cx.wrong("attribute `classes_strings` is missing"));
        };
        let count = classes.len();
        let classes = Tensor::from_strs(&[count], &classes).map_err(|d| cx.diag(d))?;
        let places: Vec<i64> = (0..count as i64).collect();
        let places = Tensor::from_ints(Elem::I64, &[count], &places).map_err(|d| cx.diag(d))?;
        return Ok(vec![match cx.elem(x)? {
            Elem::Str => cx.encode(x, classes, places, int)?,
            _ => cx.encode(x, places, classes, string)?,
        }]);
    }
    let float = cx.float_or(n, "default_float", -0.0)?;
    let names = ["keys_int64s", "keys_floats", "keys_strings", "keys_tensor"];
    let keys = cx.keyed(n, names)?;
    let names = ["values_int64s", "values_floats", "values_strings", "values_tensor"];
    let values = cx.keyed(n, names)?;
    let given = if n.op.version >= 4 { cx.tensor(n, "default_tensor")? } else { None };
    let default = match given {
        Some(proto) => {
            let t = cx.model.tensor(proto, &cx.at)?;
            let t = cx.dense(&t)?;
            if t.elem() != values.elem() {
                return Err(cx
                    .wrong("attribute `default_tensor` has the wrong type")
                    .needed(values.elem().name())
                    .present(t.elem().name()));
            }
            t
        }
        None => match values.elem() {
            Elem::Str => string,
            e if e.is_float() => Tensor::scalar(e, Num::F(float)),
            e => Tensor::scalar(e, int.get(0)),
        },
    };
    Ok(vec![cx.encode(x, keys, values, default)?])
}

fn category_mapper(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    let (string, int) = cx.defaults(n)?;
    let (ints, strings) = (cx.ints(n, "cats_int64s")?, cx.words(n, "cats_strings")?);
    let (Some(ints), Some(strings)) = (ints, strings) else {
        return Err(cx.wrong("attributes `cats_int64s` and `cats_strings` are needed"));
    };
    let ints = Tensor::from_ints(Elem::I64, &[ints.len()], &ints).map_err(|d| cx.diag(d))?;
    let strings = Tensor::from_strs(&[strings.len()], &strings).map_err(|d| cx.diag(d))?;
    Ok(vec![match cx.elem(x)? {
        Elem::Str => cx.encode(x, strings, ints, int)?,
        _ => cx.encode(x, ints, strings, string)?,
    }])
}

fn one_hot_encoder(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let zeros = cx.flag_or(n, "zeros", true)?;
    let categories = cx.labels(n, "cats_int64s", "cats_strings")?;
    let mut x = cx.input(n, 0)?;
    if cx.elem(x)? == Elem::I32 && categories.elem() == Elem::I64 {
        x = cx.cast(x, Elem::I64)?;
    }
    if !zeros {
        return Err(cx.unsupported("an encoding that fails for what is no category (`zeros` = 0)"));
    }
    if cx.elem(x)? != categories.elem() {
        return Err(cx
            .unsupported("categories of another type than the operand")
            .needed(categories.elem().name())
            .present(cx.elem(x)?.name()));
    }
    let count = categories.len();
    let bits: std::collections::HashSet<u64> = (0..count).map(|i| categories.bits(i)).collect();
    if bits.len() != count {
        return Err(cx.unsupported("a category that is given twice"));
    }
    let categories = cx.stored(categories, "categories")?;
    let at = cx.op("graph.lookup", &[x, categories], attrs! {})?;
    // What is no category has the position behind the last, which is no column.
    let places: Vec<i64> = (0..count as i64).collect();
    let places = cx.integers(&[count], &places, "columns")?;
    let mut dims = cx.dims(at)?;
    dims.push(Dim::Const(1));
    let at = cx.op("graph.reshape", &[at], attrs! { shape: Attr::Dims(dims) })?;
    let found = cx.two(&arith::EQ, at, places)?;
    Ok(vec![cx.cast(found, Elem::F32)?])
}
