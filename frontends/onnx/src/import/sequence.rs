//! Sequences and optionals.

use silure_ir::{Attr, Attrs, Elem, Type, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    record("SequenceConstruct", construct),
    record("SequenceAt", at),
    record("SequenceLength", length),
    record("SequenceInsert", insert),
    record("SequenceErase", erase),
    record("ConcatFromSequence", concat),
    record("SplitToSequence", split),
    record("OptionalHasElement", has),
    record("OptionalGetElement", get),
    record("Optional", optional),
];

fn construct(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let v = cx.inputs(n)?;
    Ok(vec![cx.op("graph.seq_construct", &v, attrs! {})?])
}

fn at(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (s, i) = (cx.input(n, 0)?, cx.input(n, 1)?);
    let i = cx.reshape(i, vec![])?;
    Ok(vec![cx.op("graph.seq_at", &[s, i], attrs! {})?])
}

fn length(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let s = cx.input(n, 0)?;
    Ok(vec![cx.op("graph.seq_len", &[s], attrs! {})?])
}

fn insert(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let operands = [Some(cx.input(n, 0)?), Some(cx.input(n, 1)?), cx.maybe(n, 2)?];
    cx.ops("graph.seq_insert", &operands, attrs! {})
}

fn erase(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let operands = [Some(cx.input(n, 0)?), cx.maybe(n, 1)?];
    cx.ops("graph.seq_erase", &operands, attrs! {})
}

fn concat(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let Some(axis) = cx.int(n, "axis")? else {
        return Err(cx.wrong("attribute `axis` is missing"));
    };
    let new = cx.flag_or(n, "new_axis", false)?;
    let s = cx.input(n, 0)?;
    Ok(vec![cx.op("graph.concat_from_sequence", &[s], attrs! { axis: axis, new_axis: new })?])
}

fn split(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int_or(n, "axis", 0)?;
    let keep = cx.flag_or(n, "keepdims", true)?;
    let (x, sizes) = (cx.input(n, 0)?, cx.maybe(n, 1)?);
    let axis = cx.axis(axis, cx.rank(x)?)? as i64;
    // With sizes the axis always stays.
    let attrs = attrs! { axis: axis, keep: keep || sizes.is_some() };
    cx.ops("graph.split_to_sequence", &[Some(x), sizes], attrs)
}

fn has(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let o = cx.maybe(n, 0)?;
    Ok(vec![match o {
        Some(o) if matches!(cx.f.ty(o), Type::Opt(_)) => {
            cx.op("graph.optional_has", &[o], attrs! {})?
        }
        // A plain value is there; an omitted one is not.
        o => cx.number(Elem::Bool, f64::from(u8::from(o.is_some())))?,
    }])
}

fn get(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let o = cx.input(n, 0)?;
    if !matches!(cx.f.ty(o), Type::Opt(_)) {
        return Ok(vec![o]);
    }
    Ok(vec![cx.op("graph.optional_get", &[o], attrs! {})?])
}

fn optional(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let x = cx.maybe(n, 0)?;
    if n.attr("type").is_some() && x.is_none() {
        return Err(cx.unsupported("an absent optional"));
    }
    cx.ignore("type");
    let Some(x) = x else { return Err(cx.wrong("the value and its type are missing")) };
    let of = cx.f.ty(x).clone();
    Ok(vec![cx.op("graph.optional", &[x], Attrs::new().with("of", Attr::Type(of)))?])
}
