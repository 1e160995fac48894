//! Constants.

use silure_ir::{Attr, Attrs, Elem, Tensor, ValueId};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] =
    &[record("Constant", constant), record("ConstantOfShape", constant_of_shape)];

fn constant(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let given = n.attrs.len();
    if given != 1 {
        return Err(cx
            .wrong("a constant has exactly one value attribute")
            .present(format!("{given} attributes")));
    }
    let t = match cx.tensor(n, "value")? {
        Some(proto) => Some(cx.model.tensor(proto, &cx.at)?),
        None => match cx.sparse(n, "sparse_value")? {
            Some(proto) => Some(cx.model.sparse(proto, &cx.at)?),
            None => None,
        },
    };
    if let Some(t) = t {
        let name = n.outputs.first().copied().flatten();
        let name = name.map_or("constant", |v| cx.program.value(v).name);
        return Ok(vec![cx.tensor_value(&t, name)?]);
    }
    let t = if let Some(v) = cx.float(n, "value_float")? {
        Ok(Tensor::scalar(Elem::F32, silure_ir::Num::F(v)))
    } else if let Some(v) = cx.floats(n, "value_floats")? {
        Tensor::from_f64s(Elem::F32, &[v.len()], &v)
    } else if let Some(v) = cx.int(n, "value_int")? {
        Tensor::from_ints(Elem::I64, &[], &[v])
    } else if let Some(v) = cx.ints(n, "value_ints")? {
        Tensor::from_ints(Elem::I64, &[v.len()], &v)
    } else if n.attr("value_string").is_some() {
        let s = cx.word(n, "value_string", "")?;
        Tensor::from_strs(&[], &[s])
    } else if let Some(v) = cx.words(n, "value_strings")? {
        Tensor::from_strs(&[v.len()], &v)
    } else {
        let name = n.attrs[0].name;
        return Err(cx.unsupported(format!("a constant given as `{name}` is not read")));
    };
    let t = t.map_err(|d| cx.diag(d))?;
    Ok(vec![cx.constant(t)?])
}

fn constant_of_shape(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let value = match cx.tensor(n, "value")? {
        Some(proto) => {
            let t = cx.model.tensor(proto, &cx.at)?;
            if t.elements() != 1 {
                return Err(cx
                    .wrong("attribute `value` has the wrong size")
                    .needed("one element")
                    .present(t.elements().to_string()));
            }
            cx.dense(&t)?.reshaped(&[]).map_err(|d| cx.diag(d))?
        }
        None => Tensor::scalar(Elem::F32, silure_ir::Num::F(0.0)),
    };
    let shape = cx.input(n, 0)?;
    let attrs = Attrs::new().with("value", value);
    Ok(vec![match cx.known(shape) {
        Some(dims) => cx.op("graph.full", &[], attrs.with("shape", Attr::Dims(dims)))?,
        None => cx.op("graph.full", &[shape], attrs)?,
    }])
}
