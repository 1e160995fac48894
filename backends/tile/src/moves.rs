//! Elements moved: parts, joins, margins, rows by an index, states written in place, rotary positions.

use silure_ir::dialects::arith;
use silure_ir::infer::norm_axis;
use silure_ir::{Dim, Elem, Func, OpId, Result, ValueId, bail};

use crate::lanes::tensor_of;
use crate::points::{Points, around};
use crate::writer::Title;
use crate::{INDEX, Kernel, POSITION, TOKENS};

fn dims_of(f: &Func, v: Option<ValueId>) -> Result<Vec<Dim>> {
    match v {
        Some(v) => Ok(tensor_of(f.ty(v))?.dims.clone()),
        None => bail!(Internal, "an operand is missing"),
    }
}

fn result_dims(f: &Func, op: OpId, i: usize) -> Result<Vec<Dim>> {
    dims_of(f, f.op(op).results.get(i).copied())
}

fn axis_of(f: &Func, op: OpId, rank: usize) -> Result<usize> {
    norm_axis(f.op(op).attrs.int("axis"), rank)
}

/// A number that counts from the end if it is negative, as one from the front; refused where its sign is not known.
fn from_front(f: &Func, d: &Dim, n: &Dim) -> Result<Dim> {
    match d.bounds(&|s| f.symbol_range(s)) {
        (0.., _) => Ok(d.clone()),
        (_, ..0) => Ok(d.clone() + n.clone()),
        _ => bail!(Unsupported, "position {d}, whose sign is not known, in a tile kernel"),
    }
}

/// `graph.slice`.
pub(crate) fn slice(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let (x, y) = (dims_of(f, f.op(op).operand(0))?, result_dims(f, op, 0)?);
    let mut p = Points::new(f, op, name, (&[0], &[0]), &y)?;
    let mut at = p.coordinates(&y)?;
    let axes = p.o.attrs.ints("axes");
    let (Some(starts), steps) = (p.cx().dims_param("starts", 1), p.cx().dims_param("steps", 3))
    else {
        bail!(Unsupported, "a slice from positions that only the run knows, in a tile kernel")
    };
    if steps.is_none() && p.o.operand(3).is_some() {
        bail!(Unsupported, "a slice by steps that only the run knows, in a tile kernel");
    }
    for (j, a) in axes.iter().enumerate() {
        let a = norm_axis(*a, x.len())?;
        let step = steps.as_ref().map_or(Dim::Const(1), |s| s[j].clone());
        let Some(step) = step.as_const() else { bail!(Unsupported, "a step {step} of a slice") };
        let start = from_front(f, &starts[j], &x[a])?;
        let last = if step > 0 { x[a].clone() } else { x[a].clone() - Dim::Const(1) };
        let start = start.maximum(&Dim::Const(0)).minimum(&last);
        let (first, by) = (p.w.place_of(f, &start)?, p.w.num(step)?);
        let walked = p.w.mul(at[a], by)?;
        at[a] = p.w.add(walked, first)?;
    }
    let v = p.read(0, &at, None, 0.0)?;
    p.done(0, v)
}

/// `graph.pad`.
pub(crate) fn pad(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let (x, y) = (dims_of(f, f.op(op).operand(0))?, result_dims(f, op, 0)?);
    let mut p = Points::new(f, op, name, (&[0, 1], &[0]), &y)?;
    let Some(pads) = p.cx().dims_param("pads", 2) else {
        bail!(Unsupported, "pads that only the run knows, in a tile kernel")
    };
    let mode = p.o.attrs.str("mode");
    let (mut at, mut only) = (p.coordinates(&y)?, None);
    for (d, at) in at.iter_mut().enumerate() {
        if mode == "constant" && pads[d] == Dim::Const(0) && y[d] == x[d] {
            continue;
        }
        let (n, begin) = (p.w.place_of(f, &x[d])?, p.w.place_of(f, &pads[d])?);
        let w = &mut p.w;
        *at = w.sub(*at, begin)?;
        let (zero, one) = (w.num(0)?, w.num(1)?);
        let last = w.sub(n, one)?;
        match mode {
            "constant" => {
                let inside = w.within(*at, n)?;
                only = w.also(only, inside)?;
            }
            "edge" => {
                *at = w.two(&arith::MAX, *at, zero)?;
                *at = w.two(&arith::MIN, *at, last)?;
            }
            "wrap" => *at = w.two(&arith::MOD, *at, n)?,
            _ => {
                let two = w.num(2)?;
                let turn = w.mul(last, two)?;
                // A remainder by 0 is 0: the only element.
                let r = w.two(&arith::MOD, *at, turn)?;
                let back = w.sub(turn, r)?;
                *at = w.two(&arith::MIN, r, back)?;
            }
        }
    }
    let mut v = p.read(0, &at, only, 0.0)?;
    if let (Some(only), true) = (only, p.o.operand(1).is_some()) {
        let (fill, zero) = (p.operand(1)?, p.w.index(0)?);
        let fill = fill.single(&mut p.w, f, zero, 0.0)?;
        let fill = p.w.every(fill)?;
        v = p.w.choose(only, v, fill)?;
    }
    p.done(0, v)
}

/// `graph.concat`: one kernel for each part.
pub(crate) fn concat(f: &Func, op: OpId, name: Title) -> Result<Vec<Kernel>> {
    let y = result_dims(f, op, 0)?;
    let axis = axis_of(f, op, y.len())?;
    let [_, whole, _] = around(&y, axis);
    let mut first = Dim::Const(0);
    let mut kernels = vec![];
    for (i, v) in f.op(op).operands().enumerate() {
        let x = dims_of(f, Some(v))?;
        let [outer, n, inner] = around(&x, axis);
        let mut p =
            Points::new(f, op, Title { name: &part(name.name, i), ..name }, (&[i], &[0]), &x)?;
        let v = p.operand(i)?;
        let v = p.w.load(v.base, &[0], 0.0)?;
        // The axis and what is behind it are one.
        let at = p.coordinates(&[outer.clone(), n.clone() * inner.clone()])?;
        let offset = p.w.place_of(f, &(first.clone() * inner.clone()))?;
        let behind = p.w.add(at[1], offset)?;
        let to = p.w.join(f, &[at[0], behind], &[outer, whole.clone() * inner])?;
        kernels.push(p.put(0, to, v)?);
        first = first + n;
    }
    Ok(kernels)
}

/// `graph.split`: one kernel for each part.
pub(crate) fn split(f: &Func, op: OpId, name: Title) -> Result<Vec<Kernel>> {
    let x = dims_of(f, f.op(op).operand(0))?;
    let axis = axis_of(f, op, x.len())?;
    let [_, whole, _] = around(&x, axis);
    let mut first = Dim::Const(0);
    let mut kernels = vec![];
    for i in 0..f.op(op).results.len() {
        let y = result_dims(f, op, i)?;
        let [outer, n, inner] = around(&y, axis);
        let mut p =
            Points::new(f, op, Title { name: &part(name.name, i), ..name }, (&[0], &[i]), &y)?;
        let at = p.coordinates(&[outer.clone(), n.clone() * inner.clone()])?;
        let offset = p.w.place_of(f, &(first.clone() * inner.clone()))?;
        let behind = p.w.add(at[1], offset)?;
        let v = p.read_as(0, &[at[0], behind], &[outer, whole.clone() * inner])?;
        kernels.push(p.done(i, v)?);
        first = first + n;
    }
    Ok(kernels)
}

fn part(name: &str, i: usize) -> String {
    if i == 0 { name.into() } else { format!("{name}_{i}") }
}

/// `graph.gather`. An index outside gives zeros.
pub(crate) fn gather(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let (x, ix) = (dims_of(f, f.op(op).operand(0))?, dims_of(f, f.op(op).operand(1))?);
    let axis = axis_of(f, op, x.len())?;
    let [outer, n, inner] = around(&x, axis);
    let rows = ix.into_iter().fold(Dim::Const(1), |a, d| a * d);
    let mut p = Points::new(f, op, name, (&[0, 1], &[0]), &result_dims(f, op, 0)?)?;
    let at = p.coordinates(&[outer.clone(), rows, inner.clone()])?;
    let (row, inside) = p.index(1, at[1], &n)?;
    let there = p.inside()?;
    p.w.demand(inside, Some(there), INDEX)?;
    let from = p.w.join(f, &[at[0], row, at[2]], &[outer, n, inner])?;
    let v = p.fetch(0, from, Some(inside), 0.0)?;
    p.done(0, v)
}

/// `graph.gather_elements`. An index outside gives zero.
pub(crate) fn gather_elements(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let (x, y) = (dims_of(f, f.op(op).operand(0))?, result_dims(f, op, 0)?);
    let axis = axis_of(f, op, x.len())?;
    let mut p = Points::new(f, op, name, (&[0, 1], &[0]), &y)?;
    let mut at = p.coordinates(&y)?;
    let (place, mut only) = p.index(1, p.at, &x[axis])?;
    at[axis] = place;
    for d in (0..x.len()).filter(|d| *d != axis && x[*d] != y[*d]) {
        let n = p.w.place_of(f, &x[d])?;
        let inside = p.w.within(at[d], n)?;
        only = p.w.two(&arith::AND, only, inside)?;
    }
    let there = p.inside()?;
    p.w.demand(only, Some(there), INDEX)?;
    let v = p.read(0, &at, Some(only), 0.0)?;
    p.done(0, v)
}

/// `graph.gather_nd`. A tuple outside gives zeros.
pub(crate) fn gather_nd(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let (x, ix) = (dims_of(f, f.op(op).operand(0))?, dims_of(f, f.op(op).operand(1))?);
    let y = result_dims(f, op, 0)?;
    let Some((depth, lead)) = ix.split_last() else { bail!(Internal, "indices without axes") };
    let Some(depth) = depth.as_size() else { bail!(Unsupported, "tuples of {depth}") };
    let batch = f.op(op).attrs.int("batch") as usize;
    let mut p = Points::new(f, op, name, (&[0, 1], &[0]), &y)?;
    let (at, there) = (p.coordinates(&y)?, p.inside()?);
    let (tuple, each) = (p.w.join(f, &at[..lead.len()], lead)?, p.w.num(depth as i64)?);
    let tuple = p.w.mul(tuple, each)?;
    let mut from = at[..batch].to_vec();
    let mut only: Option<ValueId> = None;
    for d in 0..depth {
        let d_at = p.w.num(d as i64)?;
        let place = p.w.add(tuple, d_at)?;
        let (i, inside) = p.index(1, place, &x[batch + d])?;
        p.w.demand(inside, Some(there), INDEX)?;
        from.push(i);
        only = p.w.also(only, inside)?;
    }
    from.extend(&at[lead.len()..]);
    let v = p.read(0, &from, only, 0.0)?;
    p.done(0, v)
}

/// `graph.tile`.
pub(crate) fn repeat(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let (x, y) = (dims_of(f, f.op(op).operand(0))?, result_dims(f, op, 0)?);
    let mut p = Points::new(f, op, name, (&[0], &[0]), &y)?;
    let mut at = p.coordinates(&y)?;
    for d in (0..x.len()).filter(|d| x[*d] != y[*d]) {
        let n = p.w.place_of(f, &x[d])?;
        at[d] = p.w.two(&arith::MOD, at[d], n)?;
    }
    let v = p.read(0, &at, None, 0.0)?;
    p.done(0, v)
}

/// `graph.reverse_sequence`. A length that does not fit leaves its sequence as it is.
pub(crate) fn reverse_sequence(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let x = dims_of(f, f.op(op).operand(0))?;
    let mut p = Points::new(f, op, name, (&[0, 1], &[0]), &x)?;
    let (t, b) = (p.o.attrs.int("time_axis"), p.o.attrs.int("batch_axis"));
    let (t, b) = (norm_axis(t, x.len())?, norm_axis(b, x.len())?);
    let (mut at, there) = (p.coordinates(&x)?, p.inside()?);
    let length = p.fetch(1, at[b], None, 0.0)?;
    let w = &mut p.w;
    let (length, size) = (w.cast_to(length, Elem::I64)?, w.place_of(f, &x[t])?);
    let (zero, one) = (w.num(0)?, w.num(1)?);
    let (least, most) = (w.two(&arith::GE, length, zero)?, w.two(&arith::LE, length, size)?);
    let fits = w.two(&arith::AND, least, most)?;
    w.demand(fits, Some(there), TOKENS)?;
    let first = w.two(&arith::LT, at[t], length)?;
    let first = w.two(&arith::AND, first, fits)?;
    let end = w.sub(length, one)?;
    let turned = w.sub(end, at[t])?;
    at[t] = w.choose(first, turned, at[t])?;
    let v = p.read(0, &at, None, 0.0)?;
    p.done(0, v)
}

/// `core.state_write`, into the state itself. What would be outside is not written.
pub(crate) fn state_write(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let (s, x) = (dims_of(f, f.op(op).operand(0))?, dims_of(f, f.op(op).operand(1))?);
    let mut p = Points::new(f, op, name, (&[0, 1, 2], &[]), &x)?;
    let (state, value) = (p.operand(0)?, p.operand(1)?);
    let v = p.w.load(value.base, &[0], 0.0)?;
    let mut only = p.inside()?;
    let mut to = p.at;
    if let Some(position) = p.o.operand(2) {
        let axis = axis_of(f, op, s.len())?;
        let [outer, n, inner] = around(&x, axis);
        let [_, whole, _] = around(&s, axis);
        let mut at = p.coordinates(&[outer.clone(), n.clone(), inner.clone()])?;
        let each = tensor_of(f.ty(position))?.dims == [n];
        let zero = p.w.num(0)?;
        let place = p.fetch(2, if each { at[1] } else { zero }, None, -1.0)?;
        let place = p.w.cast_to(place, Elem::I64)?;
        at[1] = if each { place } else { p.w.add(place, at[1])? };
        let size = p.w.place_of(f, &whole)?;
        let inside = p.w.within(at[1], size)?;
        p.w.demand(inside, Some(only), POSITION)?;
        only = p.w.two(&arith::AND, only, inside)?;
        to = p.w.join(f, &at, &[outer, whole, inner])?;
    }
    state.write(&mut p.w, f, to, Some(only), v)?;
    p.w.done()
}

/// `graph.rotary`.
pub(crate) fn rotary(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let (x, angles) = (dims_of(f, f.op(op).operand(0))?, dims_of(f, f.op(op).operand(1))?);
    let mut p = Points::new(f, op, name, (&[0, 1, 2], &[0]), &x)?;
    let elem = p.operand(0)?.elem;
    let (at, half) = (p.coordinates(&x)?, p.w.place_of(f, &angles[1])?);
    let (turned, i) = (p.w.place_of(f, &(angles[1].clone() * Dim::Const(2)))?, at[2]);
    // The other feature of the pair, the pair, and whether this is its second.
    let w = &mut p.w;
    let (other, pair, second) = if p.o.attrs.bool("interleaved") {
        let (one, two) = (w.num(1)?, w.num(2)?);
        let odd = w.two(&arith::MOD, i, two)?;
        let second = w.two(&arith::EQ, odd, one)?;
        let (before, behind) = (w.sub(i, one)?, w.add(i, one)?);
        (w.choose(second, before, behind)?, w.two(&arith::FLOORDIV, i, two)?, second)
    } else {
        let second = w.two(&arith::GE, i, half)?;
        let (before, behind) = (w.sub(i, half)?, w.add(i, half)?);
        (w.choose(second, before, behind)?, w.choose(second, before, i)?, second)
    };
    let inside = w.two(&arith::LT, i, turned)?;
    let own = p.fetch(0, p.at, None, 0.0)?;
    let place = p.w.join(f, &[at[0], at[1], other], &x)?;
    let mut parts = vec![p.fetch(0, place, Some(inside), 0.0)?];
    let angle = p.w.join(f, &[at[0], pair], &angles)?;
    for operand in [1, 2] {
        parts.push(p.fetch(operand, angle, Some(inside), 0.0)?);
    }
    let w = &mut p.w;
    for v in &mut parts {
        *v = w.cast_to(*v, Elem::F32)?;
    }
    let (x, [y, cos, sin]) = (w.cast_to(own, Elem::F32)?, parts[..].try_into().unwrap_or([own; 3]));
    let (a, b) = (w.two(&arith::MUL, x, cos)?, w.two(&arith::MUL, y, sin)?);
    let (plus, minus) = (w.two(&arith::ADD, a, b)?, w.two(&arith::SUB, a, b)?);
    let v = w.choose(second, plus, minus)?;
    let v = w.cast_to(v, elem)?;
    let v = w.choose(inside, v, own)?;
    p.done(0, v)
}

/// `graph.dim`, `graph.size_of` and `graph.range`: numbers of the launch; of a range its start and step are in memory.
pub(crate) fn numbers(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let o = f.op(op);
    let y = result_dims(f, op, 0)?;
    let range = o.def.name == "graph.range";
    let mut p = Points::new(f, op, name, (if range { &[0, 2] } else { &[] }, &[0]), &y)?;
    let elem = p.result(0)?.elem;
    if !range {
        let d = match (o.def.name, o.attrs.dims("value")) {
            ("graph.size_of", _) => {
                dims_of(f, o.operand(0))?.into_iter().fold(Dim::Const(1), |a, d| a * d)
            }
            (_, [d]) => d.clone(),
            _ => bail!(Internal, "`{}` has one value", o.def.name),
        };
        let v = p.w.place_of(f, &d)?;
        return p.done(0, v);
    }
    if !matches!(elem, Elem::I32 | Elem::I64 | Elem::F32) {
        bail!(Unsupported, "a range of {elem} in a tile kernel");
    }
    let mut ends = vec![];
    for i in [0, 2] {
        let (x, zero) = (p.operand(i)?, p.w.index(0)?);
        let v = x.single(&mut p.w, f, zero, 0.0)?;
        ends.push(p.w.every(v)?);
    }
    let n = p.w.cast_to(p.at, elem)?;
    let walked = p.w.two(&arith::MUL, n, ends[1])?;
    let v = p.w.two(&arith::ADD, ends[0], walked)?;
    p.done(0, v)
}

/// `graph.one_hot`.
pub(crate) fn one_hot(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let y = result_dims(f, op, 0)?;
    let axis = axis_of(f, op, y.len())?;
    let [outer, n, inner] = around(&y, axis);
    let mut p = Points::new(f, op, name, (&[0, 1], &[0]), &y)?;
    let at = p.coordinates(&[outer.clone(), n.clone(), inner.clone()])?;
    let from = p.w.join(f, &[at[0], at[2]], &[outer, inner])?;
    let (place, _) = p.index(0, from, &n)?;
    let hot = p.w.two(&arith::EQ, place, at[1])?;
    let values = p.operand(1)?;
    let mut parts = vec![];
    for i in [0, 1] {
        let i = p.w.index(i)?;
        let v = values.single(&mut p.w, f, i, 0.0)?;
        parts.push(p.w.every(v)?);
    }
    let v = p.w.choose(hot, parts[1], parts[0])?;
    p.done(0, v)
}
