//! Integer products with an epilogue. The kernels' output stage is
//! `quantise(last(through(activation(f32(sum + bias_i32) · scale + bias_f32)) + residual))`, each part optional
//! ([`silure_kernels_cpu::gemm::stage`]); as much of an epilogue as has this form goes into the launch, and what is
//! left is elementwise code behind it, on what the stage gives: sums, floats or quantised bytes.

use std::collections::HashMap;

use silure_ir::dialects::{core, graph, kernel};
use silure_ir::func::Op;
use silure_ir::{
    Attr, Attrs, Dim, Elem, Func, Num, OpId, RegionId, Result, Tensor, Type, ValueId, bail,
};
use silure_kernels_cpu::gemm::epilogue::activation;
use silure_kernels_cpu::gemm::stage::{Stage, bias, out, per};

use super::Lower;
use super::anchor::activation_at;
use super::matmul::{Requant, matmul_integer};
use super::nn::conv_integer;

/// Whether a `kernel.anchor` holds an integer product.
pub(super) fn is(f: &Func, op: OpId) -> bool {
    inner(f, op).is_some_and(|i| {
        let name = f.op(i).def.name;
        name == graph::MATMUL_INTEGER.name || name == graph::CONV_INTEGER.name
    })
}

fn inner(f: &Func, op: OpId) -> Option<OpId> {
    f.region(*f.op(op).regions.first()?).ops.first().copied()
}

/// Lowers an anchor for which [`is`] holds.
pub(super) fn anchor(l: &mut Lower, op: OpId) -> Result<ValueId> {
    let f = &*l.b.func;
    let Some(heavy) = inner(f, op) else { bail!(Internal, "an anchor without a product") };
    let (o, heavy) = (f.op(op).clone(), f.op(heavy).clone());
    let n = o.attrs.int("inputs") as usize;
    let operands: Vec<ValueId> = o.operands().collect();
    let (inputs, extras) = operands.split_at(n);
    let args = f.region(o.regions[0]).args.clone();
    let given: HashMap<ValueId, ValueId> = args.into_iter().zip(inputs.iter().copied()).collect();
    let mut slots = [None; 4];
    for (slot, v) in slots.iter_mut().zip(heavy.slots()) {
        *slot = v.and_then(|v| given.get(&v).copied());
    }
    let maps = o.attrs.maps("maps").to_vec();
    let shape = l.out(op, 0)?;
    let is_matmul = heavy.def.name == graph::MATMUL_INTEGER.name;
    let columns = is_matmul || heavy.attrs.bool("channels_last");
    let feature = if columns { shape.rank() - 1 } else { 1 };
    let place = Place { f: l.b.func, region: o.regions[1], maps: &maps, feature };
    let mut types = Vec::new();
    for v in extras {
        types.push(l.t(*v)?);
    }
    let mut found = stage(&place, &types, &shape.dims);
    let value = |l: &mut Lower, p: &Option<Part>| -> Result<Option<ValueId>> {
        Ok(match p {
            None => None,
            Some(Part::Extra(i)) => Some(extras[*i]),
            Some(Part::Number(e, n)) => Some(l.constant(Tensor::scalar(*e, *n))?),
        })
    };
    let mut scales = [value(l, &found.rows)?, value(l, &found.scale)?];
    if let [None, Some(s)] = scales
        && let Some(pair) = factors(l, s)?
    {
        scales = pair.map(Some);
        found.stage.a_scale = per::TENSOR;
    }
    let operands = [
        scales[0],
        scales[1],
        value(l, &found.bias)?,
        value(l, &found.y_scale)?,
        value(l, &found.y_zero)?,
        value(l, &found.residual)?,
    ];
    let tail = Requant { stage: found.stage, operands, out: shape.with_elem(found.elem) };
    let y = match is_matmul {
        true => matmul_integer(l, slots, &tail)?,
        false => conv_integer(l, &heavy.attrs, slots, &tail)?,
    };
    rest(l, y, found.end, o.regions[1], extras, maps)
}

/// What a scale is made of, if it is a product of one number and what has the scale's shape: the kernels
/// multiply the two themselves.
fn factors(l: &mut Lower, scale: ValueId) -> Result<Option<[ValueId; 2]>> {
    let parts = match product(l.b.func, scale) {
        Some(p) => p,
        None => return Ok(None),
    };
    let mut value = |p: Factor| match p {
        Factor::One(v) | Factor::All(v) => Ok(v),
        Factor::Number(n) => l.constant(Tensor::scalar(Elem::F32, n)),
    };
    Ok(Some(match parts {
        [b, a @ (Factor::One(_) | Factor::Number(_))] => [value(a)?, value(b)?],
        [a, b] => [value(a)?, value(b)?],
    }))
}

/// A factor of a scale.
#[derive(Clone, Copy)]
enum Factor {
    /// A tensor of one element.
    One(ValueId),
    /// A tensor with the elements of the product in its order.
    All(ValueId),
    /// A number.
    Number(Num),
}

/// The factors that a loop of its own multiplies, at most one of them with several elements.
fn product(f: &Func, scale: ValueId) -> Option<[Factor; 2]> {
    let o = f.op(f.def_op(scale)?);
    if o.def.name == graph::RESHAPE.name && o.operand(1).is_none() {
        return product(f, o.operand(0)?);
    }
    if o.def.name != kernel::MAP.name || o.results.len() != 1 {
        return None;
    }
    let region = f.region(o.regions[0]);
    let mul = f.op(f.def_op(f.op(*region.ops.last()?).operand(0)?)?);
    let (operands, maps) = (o.operands().collect::<Vec<_>>(), o.attrs.maps("maps"));
    let to = f.ty(scale).as_tensor()?;
    let factor = |v: ValueId| {
        let Some(i) = region.args.iter().position(|a| *a == v) else {
            return core::constant_of(f, v)
                .filter(|t| t.len() == 1)
                .map(|t| Factor::Number(t.get(0)));
        };
        let t = f.ty(operands[i]).as_tensor()?;
        let wide = |d: &&i64| to.dims.get(**d as usize).is_some_and(|d| *d != Dim::Const(1));
        if t.count() == Dim::Const(1) {
            return Some(Factor::One(operands[i]));
        }
        let all = t.count() == to.count() && maps[i].iter().filter(wide).is_sorted();
        all.then_some(Factor::All(operands[i]))
    };
    let float = to.elem == Elem::F32 && mul.def.name == "arith.mul";
    let pair = [factor(mul.operand(0)?)?, factor(mul.operand(1)?)?];
    let wide = |p: &Factor| matches!(p, Factor::All(_));
    let fits = pair.iter().filter(|p| wide(p)).count() == (to.count() != Dim::Const(1)) as usize;
    (float && fits).then_some(pair)
}

/// What of an epilogue the output stage does.
struct Found {
    stage: Stage,
    /// Type of what it gives.
    elem: Elem,
    /// One for each row, beside `scale`.
    rows: Option<Part>,
    scale: Option<Part>,
    bias: Option<Part>,
    y_scale: Option<Part>,
    y_zero: Option<Part>,
    residual: Option<Part>,
    /// The value of the region that it gives.
    end: ValueId,
}

/// An operand of the stage.
#[derive(Clone, Copy)]
enum Part {
    /// An operand of the epilogue.
    Extra(usize),
    /// A number of the region.
    Number(Elem, Num),
}

/// An epilogue region and how its operands are read.
struct Place<'a> {
    f: &'a Func,
    region: RegionId,
    maps: &'a [Vec<i64>],
    feature: usize,
}

impl Place<'_> {
    /// The only user of a value in the region.
    fn only(&self, v: ValueId) -> Option<&Op> {
        match *self.f.uses(v) {
            [u] => Some(self.f.op(u)),
            _ => None,
        }
    }

    /// The other operand of a commutative op.
    fn other(&self, o: &Op, v: ValueId) -> Option<ValueId> {
        let all: Vec<ValueId> = o.operands().collect();
        match *all.as_slice() {
            [a, b] if a == v && b != v => Some(b),
            [a, b] if b == v && a != v => Some(a),
            _ => None,
        }
    }

    fn number(&self, v: ValueId) -> Option<Num> {
        core::constant_of(self.f, v).filter(|t| t.len() == 1).map(|t| t.get(0))
    }

    /// A number, or an operand of one element.
    fn one(&self, v: ValueId, types: &[silure_ir::TensorType]) -> Option<Part> {
        if let Some(n) = self.number(v) {
            return Some(Part::Number(self.f.ty(v).elem()?, n));
        }
        let i = self.f.region(self.region).args[1..].iter().position(|a| *a == v)?;
        (types[i].count() == Dim::Const(1)).then_some(Part::Extra(i))
    }

    /// An operand with one element for each row of a matrix.
    fn rows(&self, v: ValueId, types: &[silure_ir::TensorType], dims: &[Dim]) -> Option<Part> {
        let i = self.f.region(self.region).args[1..].iter().position(|a| *a == v)?;
        let [rows, _] = dims else { return None };
        let alone =
            self.maps[i].iter().zip(&types[i].dims).all(|(a, d)| *a == 0 || *d == Dim::Const(1));
        let float = types[i].elem == Elem::F32 && self.feature == 1;
        (alone && float && types[i].count() == *rows).then_some(Part::Extra(i))
    }

    /// An operand with one element per output feature, laid out densely.
    fn line(&self, v: ValueId, types: &[silure_ir::TensorType], dims: &[Dim]) -> Option<Part> {
        let i = self.f.region(self.region).args[1..].iter().position(|a| *a == v)?;
        let alone = self.maps[i]
            .iter()
            .zip(&types[i].dims)
            .all(|(a, d)| *a == self.feature as i64 || *d == Dim::Const(1));
        (alone && types[i].count() == dims[self.feature]).then_some(Part::Extra(i))
    }
}

/// The longest beginning of an epilogue that the stage does.
fn stage(p: &Place, types: &[silure_ir::TensorType], dims: &[Dim]) -> Found {
    let sums = p.f.region(p.region).args[0];
    let mut c = Found {
        stage: Stage::SUMS,
        elem: Elem::I32,
        rows: None,
        scale: None,
        bias: None,
        y_scale: None,
        y_zero: None,
        residual: None,
        end: sums,
    };
    // Each step either extends the stage or leaves it as it was.
    let _ = (|| {
        let mut o = p.only(c.end)?;
        let mut at = c.end;
        let (mut bias_kind, mut bias_part) = (bias::NONE, None);
        if o.def.name == "arith.add" {
            bias_part = Some(p.line(p.other(o, at)?, types, dims)?);
            bias_kind = bias::I32;
            at = o.result();
            o = p.only(at)?;
        }
        if o.def.name != "arith.cast" || o.attrs.elem("to") != Some(Elem::F32) {
            return None;
        }
        at = o.result();
        o = p.only(at)?;
        if o.def.name != "arith.mul" {
            return None;
        }
        let by = p.other(o, at)?;
        let feature = |v| match p.one(v, types) {
            Some(s) => Some((s, per::TENSOR)),
            None => Some((p.line(v, types, dims)?, per::AXIS)),
        };
        let (scale, kind) = match feature(by) {
            Some(s) => s,
            // A scale of the rows times one of the columns.
            None => {
                let two = Some(p.f.op(p.f.def_op(by)?)).filter(|o| o.def.name == "arith.mul")?;
                let (a, b) = (two.operand(0)?, two.operand(1)?);
                let (rows, b) = match p.rows(a, types, dims) {
                    Some(rows) => (rows, b),
                    None => (p.rows(b, types, dims)?, a),
                };
                let found = feature(b)?;
                (c.stage.a_scale, c.rows) = (per::AXIS, Some(rows));
                found
            }
        };
        (c.stage.bias, c.bias) = (bias_kind, bias_part);
        (c.stage.b_scale, c.scale) = (kind, Some(scale));
        (c.stage.out, c.elem, c.end) = (out::F32, Elem::F32, o.result());
        if c.stage.bias == bias::NONE
            && let Some(o) = p.only(c.end)
            && o.def.name == "arith.add"
            && let Some(b) = p.other(o, c.end).and_then(|v| p.line(v, types, dims))
        {
            (c.stage.bias, c.bias, c.end) = (bias::F32, Some(b), o.result());
        }
        if let Some(a) = activation_at(p.f, c.end) {
            (c.stage.activation, c.stage.p0, c.stage.p1) = (a.code, a.p0, a.p1);
            c.end = a.end;
        }
        if let Some(t) = through(p, c.end, types) {
            c.stage.inner = if t.elem == Elem::I8 { out::I8 } else { out::U8 };
            (c.stage.inner_scale, c.stage.inner_zp, c.end) = (t.scale, t.zero, t.end);
        }
        if let Some(r) = residual(p, c.end, types, dims) {
            (c.stage.residual, c.residual, c.end) = (r.code, Some(Part::Extra(r.extra)), r.end);
            (c.stage.residual_scale, c.stage.residual_zp) = (r.scale, r.zero);
            let light = [activation::RELU, activation::CLIP];
            if let Some(a) = activation_at(p.f, c.end).filter(|a| light.contains(&a.code)) {
                (c.stage.last, c.stage.q0, c.stage.q1) = (a.code, a.p0, a.p1);
                c.end = a.end;
            }
        }
        if let Some(q) = quantised(p, c.end, types) {
            c.stage.out = if q.elem == Elem::I8 { out::I8 } else { out::U8 };
            (c.elem, c.y_scale, c.y_zero, c.end) = (q.elem, Some(q.scale), q.zero, q.end);
        }
        Some(())
    })();
    debug_assert!(c.stage.activation < activation::COUNT);
    c
}

/// A quantisation in a region.
struct Quantised {
    elem: Elem,
    scale: Part,
    zero: Option<Part>,
    end: ValueId,
}

/// Matches the parts of `graph.quantize` to bytes that begin at a value.
fn quantised(p: &Place, x: ValueId, types: &[silure_ir::TensorType]) -> Option<Quantised> {
    let f = p.f;
    let o = p.only(x)?;
    let by = p.other(o, x)?;
    let scale = match (o.def.name, p.one(by, types)?) {
        ("arith.div", s) if o.operand(0) == Some(x) => s,
        // A division by a power of two, written as the product that is equal to it.
        ("arith.mul", Part::Number(e, n)) if (n.f().to_bits() << 12) == 0 && n.f() > 0.0 => {
            let s = 1.0 / n.f();
            (e.decode(e.encode(s)) == s).then_some(Part::Number(e, Num::F(s)))?
        }
        _ => return None,
    };
    let v = o.result();
    let &[a, b] = f.uses(v) else { return None };
    let (nan, round) = if f.op(a).def.name == "arith.is_nan" { (a, b) } else { (b, a) };
    let (nan, round) = (f.op(nan), f.op(round));
    if nan.def.name != "arith.is_nan" || round.def.name != "arith.round" {
        return None;
    }
    let select = p.only(nan.result())?;
    let zero = p.number(select.operand(1)?)?.f();
    if select.def.name != "arith.select"
        || select.operand(0) != Some(nan.result())
        || select.operand(2) != Some(round.result())
        || p.only(round.result())?.result() != select.result()
        || zero != 0.0
    {
        return None;
    }
    let (mut at, mut o) = (select.result(), p.only(select.result())?);
    let mut zero = None;
    if o.def.name == "arith.add" {
        zero = Some(p.number(p.other(o, at)?)?.f());
        at = o.result();
        o = p.only(at)?;
    }
    let bounds = (o.attrs.float("lo"), o.attrs.float("hi"));
    if o.def.name != "arith.clip" {
        return None;
    }
    let o = p.only(o.result())?;
    let elem = o.attrs.elem("to").filter(|e| matches!(e, Elem::U8 | Elem::I8))?;
    let (lo, hi) = elem.range();
    let whole = |z: f64| z.fract() == 0.0 && (lo..=hi).contains(&z);
    if o.def.name != "arith.cast" || bounds != (lo, hi) || !zero.is_none_or(whole) {
        return None;
    }
    let zero = zero.map(|z| Part::Number(elem, Num::I(z as i128)));
    Some(Quantised { elem, scale, zero, end: o.result() })
}

/// Bytes that are floats again at once.
struct Through {
    elem: Elem,
    scale: f32,
    zero: i64,
    end: ValueId,
}

/// Matches a quantisation to bytes and the dequantisation of these, by numbers.
fn through(p: &Place, x: ValueId, types: &[silure_ir::TensorType]) -> Option<Through> {
    let q = quantised(p, x, types)?;
    let Part::Number(_, scale) = q.scale else { return None };
    let zero = match q.zero {
        None => 0,
        Some(Part::Number(_, z)) => z.f() as i64,
        Some(_) => return None,
    };
    let f = p.f;
    // The bytes have no other use.
    p.only(q.end)?;
    let cast = |o: &Op| o.def.name == "arith.cast" && o.attrs.elem("to") == Some(Elem::F32);
    let mut o = p.only(q.end).filter(|o| cast(o))?;
    let mut at = o.result();
    o = p.only(at)?;
    if zero != 0 {
        let less = o.def.name == "arith.add" && p.number(p.other(o, at)?)?.f() == -(zero as f64);
        if !less {
            return None;
        }
        (at, o) = (o.result(), p.only(o.result())?);
    }
    let by = p.number(p.other(o, at)?)?.f();
    (o.def.name == "arith.mul" && by == scale.f() && f.ty(o.result()).elem() == Some(Elem::F32))
        .then_some(Through { elem: q.elem, scale: by as f32, zero, end: o.result() })
}

/// A sum with an operand of the result's layout.
struct Residual {
    code: usize,
    extra: usize,
    scale: f32,
    zero: i64,
    end: ValueId,
}

/// Matches a sum with floats, or with bytes that are dequantised by numbers.
fn residual(
    p: &Place,
    x: ValueId,
    types: &[silure_ir::TensorType],
    dims: &[Dim],
) -> Option<Residual> {
    let o = p.only(x).filter(|o| o.def.name == "arith.add")?;
    let (other, end) = (p.other(o, x)?, o.result());
    let whole = |v: ValueId| {
        let i = p.f.region(p.region).args[1..].iter().position(|a| *a == v)?;
        let straight = p.maps[i].iter().copied().eq(0..dims.len() as i64);
        (straight && types[i].dims == dims).then_some((i, types[i].elem))
    };
    if let Some((extra, Elem::F32)) = whole(other) {
        return Some(Residual { code: out::F32, extra, scale: 1.0, zero: 0, end });
    }
    let made = |v: ValueId, name: &str| Some(p.f.op(p.f.def_op(v)?)).filter(|o| o.def.name == name);
    // `op(v, number)`, the number on either side.
    let by = |o: &Op| {
        let v: Vec<ValueId> = o.operands().collect();
        let &[a, b] = v.as_slice() else { return None };
        p.number(b).map(|n| (a, n.f())).or_else(|| p.number(a).map(|n| (b, n.f())))
    };
    let (v, scale) = by(made(other, "arith.mul")?)?;
    let (v, zero) = match made(v, "arith.add") {
        Some(o) => by(o)?,
        None => (v, 0.0),
    };
    let cast = made(v, "arith.cast").filter(|o| o.attrs.elem("to") == Some(Elem::F32))?;
    let (extra, elem) = whole(cast.operand(0)?)?;
    let code = match elem {
        Elem::U8 => out::U8,
        Elem::I8 => out::I8,
        _ => return None,
    };
    let (lo, hi) = elem.range();
    let fits = zero.fract() == 0.0 && (lo..=hi).contains(&-zero);
    fits.then_some(Residual { code, extra, scale: scale as f32, zero: -zero as i64, end })
}

/// What the stage leaves of an epilogue, as a loop over what it gives.
fn rest(
    l: &mut Lower,
    y: ValueId,
    end: ValueId,
    region: RegionId,
    extras: &[ValueId],
    maps: Vec<Vec<i64>>,
) -> Result<ValueId> {
    let f = &*l.b.func;
    let (args, ops) = (f.region(region).args.clone(), f.region(region).ops.clone());
    let Some(&last) = ops.last() else { bail!(Internal, "an epilogue without a result") };
    if f.op(last).operand(0) == Some(end) {
        return Ok(y);
    }
    // The ops that the result still needs, and the operands that they read.
    let mut needed = vec![last];
    let mut read = vec![false; extras.len()];
    let mut at = 0;
    while at < needed.len() {
        for v in f.op(needed[at]).operands().filter(|v| *v != end) {
            if let Some(i) = args[1..].iter().position(|a| *a == v) {
                read[i] = true;
            }
            if let Some(d) = f.def_op(v).filter(|d| !needed.contains(d)) {
                needed.push(d);
            }
        }
        at += 1;
    }
    let whole = l.t(y)?;
    let kept: Vec<usize> = (0..extras.len()).filter(|i| read[*i]).collect();
    let mut all = vec![(0..whole.rank() as i64).collect::<Vec<_>>()];
    all.extend(kept.iter().map(|i| maps[*i].clone()));
    let operands: Vec<Option<ValueId>> =
        std::iter::once(y).chain(kept.iter().map(|i| extras[*i])).map(Some).collect();
    let mut types = vec![Type::Scalar(whole.elem)];
    types.extend(kept.iter().map(|i| l.b.func.ty(args[i + 1]).clone()));
    let body = l.b.nested(&types, |b, new| {
        let mut known: HashMap<ValueId, ValueId> = HashMap::from([(end, new[0])]);
        known.extend(kept.iter().zip(&new[1..]).map(|(i, v)| (args[i + 1], *v)));
        for op in ops.into_iter().filter(|o| needed.contains(o)) {
            let c = b.func.clone_op(None, op, &mut known);
            let r = b.region();
            b.func.append(c, r);
        }
        Ok(())
    })?;
    let attrs = Attrs::new().with("shape", whole.dims).with("maps", Attr::Maps(all));
    let op = l.b.build(&kernel::MAP, &operands, attrs, &[body], &[])?;
    Ok(l.b.func.op(op).result())
}
