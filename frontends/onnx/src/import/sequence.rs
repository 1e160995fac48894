//! Sequences and optionals. `SequenceMap` is a loop, as its definition in the standard says.

use silure_ir::{Attr, Attrs, Elem, OpId, Type, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::{Graph, Node};

pub(super) const TABLE: &[Record] = &[
    record("SequenceConstruct", construct),
    record("SequenceEmpty", empty),
    record("SequenceMap", map),
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
    cx.ignore("type");
    let stated = match n.attr("type").and_then(|a| a.tp()) {
        Some(t) => Some(cx.list_type(t)?),
        None => None,
    };
    let of = match (x, stated) {
        (Some(x), _) => cx.f.ty(x).clone(),
        (None, Some(t)) => t,
        (None, None) => return Err(cx.wrong("the value and its type are missing")),
    };
    cx.ops("graph.optional", &[x], Attrs::new().with("of", Attr::Type(Box::new(of))))
}

fn empty(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let of = Type::Scalar(cx.elem_attr(n, "dtype")?.unwrap_or(Elem::F32));
    Ok(vec![cx.op("graph.seq_empty", &[], Attrs::new().with("of", Attr::Type(Box::new(of))))?])
}

fn map(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    cx.ignore("body");
    let Some(body) = n.graph("body") else { return Err(cx.wrong("subgraph `body` is missing")) };
    let v = cx.inputs(n)?;
    if !matches!(cx.f.ty(v[0]), Type::Seq(_)) {
        let present = cx.f.ty(v[0]).to_string();
        return Err(cx.wrong("operand 0 is not a sequence").needed("a sequence").present(present));
    }
    let trip = cx.op("graph.seq_len", &[v[0]], attrs! {})?;
    let head = [Type::tensor(Elem::I64, []), Type::tensor(Elem::Bool, [])];
    // The types of the elements made are found by converting the body once.
    let trial = cx.region(&head, |cx, args| mapped(cx, body, &v, args[0]))?;
    let mut init = Vec::new();
    for y in cx.f.yields(trial) {
        let of = cx.f.ty(y).clone();
        if of.as_tensor().is_none() {
            return Err(cx
                .unsupported("a sequence of other things than tensors")
                .present(of.to_string()));
        }
        let of = cx.unbound(&of);
        init.push(cx.op(
            "graph.seq_empty",
            &[],
            Attrs::new().with("of", Attr::Type(Box::new(of))),
        )?);
    }
    cx.discard(trial);
    let mut types = head.to_vec();
    types.extend(init.iter().map(|s| cx.f.ty(*s).clone()));
    let region = cx.region(&types, |cx, args| {
        let made = mapped(cx, body, &v, args[0])?;
        let mut out = vec![args[1]];
        for (s, x) in args[2..].iter().zip(made) {
            out.push(cx.op("graph.seq_insert", &[*s, x], attrs! {})?);
        }
        Ok(out)
    })?;
    let operands: Vec<Option<ValueId>> =
        [Some(trip), None].into_iter().chain(init.into_iter().map(Some)).collect();
    let def = cx.def("graph.loop")?;
    let op: OpId = cx.build(def, &operands, attrs! {}, &[region], &[])?;
    Ok(cx.f.op(op).results.to_vec())
}

/// The body of a `SequenceMap` on the elements at a position.
fn mapped(
    cx: &mut Cx<'_, '_>,
    body: &Graph<'_>,
    inputs: &[ValueId],
    at: ValueId,
) -> Result<Vec<ValueId>> {
    let mut args = Vec::new();
    for v in inputs {
        args.push(match cx.f.ty(*v) {
            Type::Seq(_) => cx.op("graph.seq_at", &[*v, at], attrs! {})?,
            _ => *v,
        });
    }
    cx.nested(|cx| cx.body(body, &args))
}

impl Cx<'_, '_> {
    /// The type of an element of a list: sizes that are not numbers or symbols of the signature are
    /// any size.
    pub fn unbound(&mut self, ty: &Type) -> Type {
        match ty {
            Type::Tensor(t) => {
                let mut t = t.clone();
                for d in &mut t.dims {
                    let runtime =
                        |s: &str| self.f.symbols.iter().any(|x| *x.name == *s && x.runtime);
                    if d.symbols().iter().any(|s| runtime(s)) {
                        *d = self.f.fresh_symbol("element", i64::MAX);
                    }
                }
                Type::Tensor(t)
            }
            Type::Seq(t) => Type::Seq(Box::new(self.unbound(t))),
            Type::Opt(t) => Type::Opt(Box::new(self.unbound(t))),
            t => t.clone(),
        }
    }

    /// The type that two values at one place of a list have in common: sizes that differ are any size,
    /// ranks that differ any shape. `None` if there is none.
    pub fn widened(&mut self, a: &Type, b: &Type) -> Option<Type> {
        Some(match (a, b) {
            (Type::Tensor(x), Type::Tensor(y)) if x.elem == y.elem && x.rank() == y.rank() => {
                let mut t = x.clone();
                for (d, e) in t.dims.iter_mut().zip(&y.dims) {
                    if d != e {
                        *d = self.f.fresh_symbol("element", i64::MAX);
                    }
                }
                Type::Tensor(t)
            }
            (Type::Tensor(_) | Type::Scalar(_), Type::Tensor(_) | Type::Scalar(_))
                if a.elem() == b.elem() =>
            {
                Type::Scalar(a.elem()?)
            }
            (Type::Seq(x), Type::Seq(y)) => Type::Seq(Box::new(self.widened(x, y)?)),
            (Type::Opt(x), Type::Opt(y)) => Type::Opt(Box::new(self.widened(x, y)?)),
            _ => return None,
        })
    }

    /// Types of what a region puts into a sequence that it gets as `arg` and yields as `to`, if that
    /// is all it does with it.
    pub fn inserted(&self, arg: ValueId, to: ValueId) -> Option<Vec<Type>> {
        let (mut at, mut out) = (to, Vec::new());
        while at != arg {
            let op = self.f.op(self.f.def_op(at)?);
            match op.def.name {
                "graph.seq_insert" => out.push(self.f.ty(op.operand(1)?).clone()),
                "graph.seq_erase" => {}
                _ => return None,
            }
            at = op.operand(0)?;
        }
        Some(out)
    }
}
