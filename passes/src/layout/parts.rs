//! How each op takes part: which operands have a layout, whether its results have, what channels last
//! saves, and its attributes there.

use silure_ir::dialects::graph;
use silure_ir::infer::norm_axis;
use silure_ir::op::Traits;
use silure_ir::weight::is_weight;
use silure_ir::{Attr, Attrs, Dim, Func, OpId, ValueId};

use super::{count, permuted, spatial, to_first, to_last};

/// Output channels that a vector of a product holds: with fewer per group the rest of it is idle.
const VECTOR: i64 = 16;
/// The most spatial axes of a heavy op.
const SPATIAL: usize = 3;

/// An op that can work in both layouts.
pub(super) struct Part {
    /// The operands that have a layout; the others are as they are in both.
    pub operands: Vec<ValueId>,
    /// Whether the results have the layout of the operands, rather than none.
    pub gives: bool,
    /// Bytes that are gathered one by one with channels first and not with channels last.
    pub gain: u64,
}

/// How an op takes part; `None`: it works on channels first.
pub(super) fn part(f: &Func, op: OpId) -> Option<Part> {
    let o = f.op(op);
    let x = o.operands().next()?;
    let t = spatial(f, x)?;
    let single = |gives: bool, gain: u64| Some(Part { operands: vec![x], gives, gain });
    let bytes = t.elem.cell_bytes() as u64;
    let alone = o.operands().count() == 1;
    if o.def.is(Traits::ELEMENTWISE) {
        let operands: Vec<ValueId> = o.operands().collect();
        return Some(Part { operands, gives: true, gain: 0 });
    }
    if !o.results.iter().all(|v| no_new_size(f, op, *v)) {
        return None;
    }
    match o.def.name {
        "graph.conv" | "graph.conv_integer" if !o.attrs.bool("channels_last") => {
            single(true, conv(f, op)?.saturating_mul(bytes))
        }
        "graph.max_pool" | "graph.average_pool" | "graph.lp_pool" => {
            let free = !o.attrs.bool("channels_last") && !o.attrs.bool("indices");
            (free && t.rank() <= SPATIAL + 2).then_some(())?;
            let taps = o.attrs.ints("kernel").iter().fold(1u64, |n, k| n.saturating_mul(*k as u64));
            let float = t.elem.is_float();
            let y = count(f, &spatial(f, o.results[0])?.dims);
            single(true, if float { y.saturating_mul(taps).saturating_mul(bytes) } else { 0 })
        }
        "graph.concat" => {
            let operands: Vec<ValueId> = o.operands().collect();
            Some(Part { operands, gives: true, gain: 0 })
        }
        // Its other results are of the whole tensor.
        "graph.dynamic_quantize" => single(true, 0),
        // With one scale there is no axis.
        "graph.quantize" | "graph.dequantize" => {
            let scale = f.ty(o.operand(1)?).as_tensor()?;
            (scale.count() == Dim::Const(1)).then(|| single(true, 0))?
        }
        "graph.softmax" | "graph.log_softmax" => single(true, 0),
        "graph.split" | "graph.slice" | "graph.resize" if alone => single(true, 0),
        "graph.pad" if o.operand(2).is_none() => single(true, 0),
        "graph.reduce" => {
            let axes: Vec<usize> = o
                .attrs
                .ints("axes")
                .iter()
                .map(|&a| norm_axis(a, t.rank()).ok())
                .collect::<Option<_>>()?;
            let channel = axes.contains(&1);
            // Several axes are summed in their order in memory.
            if channel && axes.len() > 1 {
                return None;
            }
            let whole = (2..t.rank()).all(|a| axes.contains(&a));
            match o.attrs.bool("keep") {
                true => single(true, 0),
                false if channel || whole => single(false, 0),
                false => None,
            }
        }
        "graph.reshape" if alone => {
            let y = spatial(f, o.results[0])?;
            (y.dims[..2] == t.dims[..2]).then(|| single(true, 0))?
        }
        "graph.transpose" => {
            // A product reads through a transpose; there it costs nothing.
            let read = |u: &OpId| f.op(*u).def.name == graph::MATMUL.name;
            let free = f.uses(o.result()).iter().all(read);
            single(true, if free { 0 } else { super::cost(f, x).max(super::cost(f, o.result())) })
        }
        _ => None,
    }
}

/// Whether every size that only the run decides comes from an operand: an op that gives it its value
/// stays as it is.
fn no_new_size(f: &Func, op: OpId, v: ValueId) -> bool {
    let symbols = |v: ValueId| {
        f.ty(v)
            .as_tensor()
            .map_or(vec![], |t| t.dims.iter().flat_map(Dim::symbols).collect::<Vec<_>>())
    };
    let runtime = |s: &std::sync::Arc<str>| f.symbols.iter().any(|d| d.runtime && d.name == *s);
    let known: Vec<_> = f.op(op).operands().flat_map(symbols).collect();
    symbols(v).iter().all(|s| !runtime(s) || known.contains(s))
}

/// What a convolution saves: the columns it builds with channels first, as far as vectors of output
/// channels are full; of a depthwise one its taps' loads. `None` where only one layout is possible.
fn conv(f: &Func, op: OpId) -> Option<u64> {
    let o = f.op(op);
    let (w, y) = (o.operand(1)?, spatial(f, o.result())?);
    let k = f.ty(w).as_tensor()?;
    let shape: Vec<i64> = k.dims.iter().map(Dim::as_const).collect::<Option<_>>()?;
    let groups = o.attrs.int("groups").max(1);
    let outs = shape.first()? / groups;
    let channels = *shape.get(1)?;
    if !is_weight(f, w) || y.rank() > SPATIAL + 2 || shape.contains(&0) {
        return None;
    }
    let pixels = count(f, &[&y.dims[..1], &y.dims[2..]].concat());
    if channels == 1 && groups > 1 {
        // One input channel for several outputs is read in vectors only along the image, and so are
        // channels of bytes.
        return (outs == 1 && o.def.name == graph::CONV.name)
            .then(|| pixels.saturating_mul(groups as u64));
    }
    // There a vector is along the image, of which the last part may be idle too.
    let image = count(f, &y.dims[2..]).div_ceil(VECTOR as u64).saturating_mul(VECTOR as u64);
    let pixels = count(f, &y.dims[..1]).saturating_mul(image);
    let depth = shape[1..].iter().product::<i64>().saturating_mul(groups) as u64;
    Some(pixels.saturating_mul(depth) / VECTOR as u64 * outs.min(VECTOR) as u64)
}

/// Whether a transpose makes channels last of its operand.
pub(super) fn absorbs(f: &Func, op: OpId) -> bool {
    let p = f.op(op).attrs.ints("perm");
    p == to_last(p.len())
}

/// Whether a transpose makes channels first of channels last.
pub(super) fn makes(f: &Func, op: OpId) -> bool {
    let p = f.op(op).attrs.ints("perm");
    p == to_first(p.len())
}

/// The attributes of an op on channels last.
pub(super) fn attrs(f: &Func, op: OpId, rank: usize) -> Attrs {
    let o = f.op(op);
    let mut a = o.attrs.clone();
    let place = |axis: i64| match norm_axis(axis, rank) {
        Ok(0) => 0,
        Ok(1) => rank as i64 - 1,
        Ok(d) => d as i64 - 1,
        Err(_) => axis,
    };
    match o.def.name {
        "graph.conv" | "graph.conv_integer" | "graph.max_pool" | "graph.average_pool"
        | "graph.lp_pool" => {
            a.set("channels_last", true);
        }
        "graph.concat" | "graph.softmax" | "graph.log_softmax" | "graph.split" => {
            a.set("axis", place(o.attrs.int("axis")));
        }
        "graph.slice" | "graph.reduce" => {
            let axes: Vec<i64> = o.attrs.ints("axes").iter().map(|&x| place(x)).collect();
            a.set("axes", axes);
        }
        "graph.pad" => {
            let p = o.attrs.dims("pads");
            let (before, after) = p.split_at(p.len().min(rank));
            a.set("pads", Attr::Dims([permuted(before), permuted(after)].concat()));
        }
        "graph.resize" => {
            if let Some(Attr::Floats(v)) = o.attrs.get("scales") {
                a.set("scales", Attr::Floats(permuted(v)));
            }
            if let Some(Attr::Dims(v)) = o.attrs.get("sizes") {
                a.set("sizes", Attr::Dims(permuted(v)));
            }
            if let Some(Attr::Floats(v)) = o.attrs.get("roi") {
                let (starts, ends) = v.split_at(v.len().min(rank));
                a.set("roi", Attr::Floats([permuted(starts), permuted(ends)].concat()));
            }
        }
        "graph.reshape" => {
            let to = spatial(f, o.results[0]).map(|t| permuted(&t.dims));
            a.set("shape", Attr::Dims(to.unwrap_or_default()));
        }
        _ => {}
    }
    a
}
