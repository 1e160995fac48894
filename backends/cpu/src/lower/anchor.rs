//! Heavy ops with an epilogue. A chain of scale, bias, residual and activation is one of the kernels'
//! own epilogues; anything else is generated code that the kernel calls on each finished tile.

use silure_ir::dialects::{core, graph, kernel};
use silure_ir::func::Op;
use silure_ir::{Attr, Attrs, Dim, Elem, Func, OpId, RegionId, Result, TensorType, ValueId, bail};
use silure_kernels_cpu::gemm::epilogue::{Epilogue, activation, bias};

use super::matmul::{Tail, matmul};
use super::nn::{UNPACKABLE, conv_of, depthwise, unpackable};
use super::{Lower, Lowering, blocks, integer};

/// Lowerings of this file.
pub(super) static TABLE: &[&Lowering] = &[&ANCHOR];

static ANCHOR: Lowering = Lowering {
    op: "kernel.anchor",
    can: |cx| match cx.results().first().and_then(|t| t.elem()) {
        _ if cx.region(0).is_some_and(|r| {
            let inner = cx.func.op(cx.func.region(r).ops[0]);
            cx.operand(1).is_some_and(|w| unpackable(cx.func, inner, w))
        }) =>
        {
            Err(UNPACKABLE.into())
        }
        Some(Elem::F32) => by_blocks(cx.func, cx.op),
        Some(Elem::I32 | Elem::U8 | Elem::I8) if integer::is(cx.func, cx.op) => Ok(()),
        e => Err(format!("an epilogue on {e:?}; f32 is supported")),
    },
    lower: |l, op| {
        Ok(vec![if integer::is(l.b.func, op) { integer::anchor(l, op)? } else { anchor(l, op)? }])
    },
};

/// Whether a product with a matrix quantised by blocks, if it is one, has a kernel.
fn by_blocks(f: &Func, op: OpId) -> Result<(), String> {
    let o = f.op(op);
    let Some(inner) = o.regions.first().map(|r| f.op(f.region(*r).ops[0])) else { return Ok(()) };
    if inner.def.name != graph::MATMUL_BLOCKS.name {
        return Ok(());
    }
    let inputs: Vec<ValueId> = o.operands().take(o.attrs.int("inputs") as usize).collect();
    blocks::can(f, inner, &inputs)
}

fn anchor(l: &mut Lower, op: OpId) -> Result<ValueId> {
    let o = l.b.func.op(op).clone();
    let inner = l.b.func.op(l.b.func.region(o.regions[0]).ops[0]).clone();
    let n = o.attrs.int("inputs") as usize;
    let operands: Vec<ValueId> = o.operands().collect();
    let (inputs, extras) = operands.split_at(n);
    let maps = o.attrs.maps("maps").to_vec();
    let is_matmul = blocks::is_product(&inner);
    let own_bias = !is_matmul && n > 2;
    let rank = l.out(op, 0)?.rank();
    // The columns of a tile are the features of a product and of channels last.
    let columns = is_matmul || inner.attrs.bool("channels_last");
    let feature = if columns { rank - 1 } else { 1 };
    let mut tail = Tail::none(l.out(op, 0)?);
    let out = tail.out.clone();
    let closed = closed(l.b.func, o.regions[1], &maps, rank, feature, own_bias);
    if let Some(c) = &closed {
        tail.epilogue = c.epilogue;
        if c.bias.is_some() {
            tail.epilogue.bias = if columns { bias::COLUMN } else { bias::ROW };
        }
        tail.bias = c.bias.map(|i| extras[i]);
        tail.residual = c.residual.map(|i| extras[i]);
    }
    let apart_by_group = columns && !is_matmul && grouped(l, &inner.attrs, inputs[1])?;
    let called = closed.is_none() && !apart_by_group && callable(l, &out, columns, extras, &maps)?;
    tail.epilogue.callback = called;
    let y = match inner.def.name {
        n if n == graph::MATMUL.name => matmul(l, inputs[0], inputs[1], &tail)?,
        n if n == graph::MATMUL_BLOCKS.name => blocks::matmul_blocks(l, &inner, inputs, &tail)?,
        n if n == graph::CONV.name => {
            let own = inputs.get(2).copied();
            conv_of(l, &inner.attrs, inputs[0], inputs[1], own, &tail)?
        }
        n => bail!(Unsupported, "`{n}` with an epilogue"),
    };
    if called {
        return callback(l, y, o.regions[1], extras, maps);
    }
    if closed.is_none() {
        return apart(l, y, &out, o.regions[1], extras, maps);
    }
    Ok(y)
}

/// Whether a convolution of channels last is several products, whose columns count from 0 each.
fn grouped(l: &Lower, a: &Attrs, w: ValueId) -> Result<bool> {
    let groups = a.int("groups") as usize;
    let whole = l.t(w)?.shape().is_some_and(|s| depthwise(&s, groups));
    Ok(groups > 1 && !whole)
}

/// Whether a kernel can call the epilogue on its tiles: an operand follows the columns of a tile by
/// one stride. The columns are the last axis of a product and of channels last, else all spatial axes of
/// a convolution.
fn callable(
    l: &Lower,
    out: &TensorType,
    last_axis: bool,
    extras: &[ValueId],
    maps: &[Vec<i64>],
) -> Result<bool> {
    if last_axis {
        return Ok(true);
    }
    for (&v, map) in extras.iter().zip(maps) {
        let t = l.t(v)?;
        let wide: Vec<usize> = (2..out.rank()).filter(|&d| out.dims[d] != Dim::Const(1)).collect();
        let tail: Vec<i64> = (0..t.rank())
            .filter(|&d| map[d] >= 2 && t.dims[d] != Dim::Const(1))
            .map(|d| map[d])
            .collect();
        if !tail.is_empty() && !tail.iter().copied().eq(wide.iter().map(|&d| d as i64)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The epilogue as elementwise code of its own behind the kernel.
fn apart(
    l: &mut Lower,
    y: ValueId,
    out: &TensorType,
    region: RegionId,
    extras: &[ValueId],
    maps: Vec<Vec<i64>>,
) -> Result<ValueId> {
    let copy = copied(l, region)?;
    let mut all = vec![(0..out.rank() as i64).collect::<Vec<_>>()];
    all.extend(maps);
    let attrs = Attrs::new().with("shape", out.dims.clone()).with("maps", Attr::Maps(all));
    let operands: Vec<Option<ValueId>> =
        std::iter::once(y).chain(extras.iter().copied()).map(Some).collect();
    let op = l.b.build(&kernel::MAP, &operands, attrs, &[copy], &[])?;
    Ok(l.b.func.op(op).result())
}

/// A copy of an epilogue region: the original is erased with its anchor.
fn copied(l: &mut Lower, region: RegionId) -> Result<RegionId> {
    let args: Vec<_> =
        l.b.func.region(region).args.iter().map(|a| l.b.func.ty(*a).clone()).collect();
    let (old, body) = (l.b.func.region(region).args.clone(), l.b.func.region(region).ops.clone());
    l.b.nested(&args, |b, args| {
        let mut map = old.iter().copied().zip(args.iter().copied()).collect();
        for op in body {
            let c = b.func.clone_op(None, op, &mut map);
            let r = b.region();
            b.func.append(c, r);
        }
        Ok(())
    })
}

/// Gives a launch the epilogue region as its callback; the callback is buffer slot 4 of both kernels.
fn callback(
    l: &mut Lower,
    y: ValueId,
    region: RegionId,
    extras: &[ValueId],
    maps: Vec<Vec<i64>>,
) -> Result<ValueId> {
    let Some(launch) = l.b.func.def_op(y) else { bail!(Internal, "not a launch") };
    let o = l.b.func.op(launch).clone();
    let mut attrs: Attrs = o.attrs.clone();
    attrs.set("callback", 4i64);
    attrs.set("maps", Attr::Maps(maps));
    let operands: Vec<Option<ValueId>> =
        o.operands().chain(extras.iter().copied()).map(Some).collect();
    let copy = copied(l, region)?;
    let ty = l.b.func.ty(y).clone();
    let new = l.b.build(o.def, &operands, attrs, &[copy], &[ty])?;
    l.b.func.erase(launch);
    Ok(l.b.func.op(new).result())
}

/// An epilogue that the kernels have themselves: which extra operand is the bias, which the residual.
struct Closed {
    epilogue: Epilogue,
    bias: Option<usize>,
    residual: Option<usize>,
}

/// An activation of the kernels' own.
pub(super) struct Activation {
    /// A code of [`activation`].
    pub code: usize,
    /// Its parameters.
    pub p0: f32,
    pub p1: f32,
    /// What it gives.
    pub end: ValueId,
}

/// The activation that is all that uses a value: one op, or x · sigmoid(x) or x · hard_sigmoid(x), two
/// uses that meet in a product.
pub(super) fn activation_at(f: &Func, x: ValueId) -> Option<Activation> {
    match *f.uses(x) {
        [user] => {
            let o = f.op(user);
            let (code, p0, p1) = activation_of(o)?;
            Some(Activation { code, p0, p1, end: o.result() })
        }
        [a, b] => {
            let (gate, product) = if f.op(a).def.name == "arith.mul" { (b, a) } else { (a, b) };
            let (g, m) = (f.op(gate), f.op(product));
            let meet = m.def.name == "arith.mul" && f.uses(*g.results.first()?) == [product];
            if !meet || !m.operands().any(|v| v == g.result()) {
                return None;
            }
            let code = match g.def.name {
                "arith.sigmoid" => activation::SILU,
                "arith.hard_sigmoid"
                    if (g.attrs.float("alpha") - 1.0 / 6.0).abs() < 1e-6
                        && g.attrs.float("beta") == 0.5 =>
                {
                    activation::HARD_SWISH
                }
                _ => return None,
            };
            Some(Activation { code, p0: 0.0, p1: 0.0, end: m.result() })
        }
        _ => None,
    }
}

fn activation_of(o: &Op) -> Option<(usize, f32, f32)> {
    let p = |n: &str| o.attrs.float(n) as f32;
    Some(match o.def.name {
        "arith.relu" => (activation::RELU, 0.0, 0.0),
        "arith.sigmoid" => (activation::SIGMOID, 0.0, 0.0),
        "arith.tanh" => (activation::TANH, 0.0, 0.0),
        "arith.gelu" if o.attrs.bool("tanh") => (activation::GELU_TANH, 0.0, 0.0),
        "arith.gelu" => (activation::GELU_ERF, 0.0, 0.0),
        "arith.clip" => (activation::CLIP, p("lo"), p("hi")),
        "arith.leaky_relu" => (activation::LEAKY_RELU, p("alpha"), 0.0),
        "arith.hard_sigmoid" => (activation::HARD_SIGMOID, p("alpha"), p("beta")),
        _ => return None,
    })
}

/// Matches `activation(alpha · acc + bias + residual)`, each part optional, on an epilogue region.
fn closed(
    f: &Func,
    r: RegionId,
    maps: &[Vec<i64>],
    rank: usize,
    feature: usize,
    own_bias: bool,
) -> Option<Closed> {
    let args = &f.region(r).args;
    if args.iter().any(|a| f.ty(*a).elem() != Some(Elem::F32)) {
        return None;
    }
    let mut c = Closed { epilogue: Epilogue::NONE, bias: None, residual: None };
    let mut at = args[0];
    let mut fresh = true;
    loop {
        if let Some(a) = activation_at(f, at).filter(|_| c.epilogue.activation == activation::NONE)
        {
            (c.epilogue.activation, c.epilogue.p0, c.epilogue.p1) = (a.code, a.p0, a.p1);
            (at, fresh) = (a.end, false);
            continue;
        }
        match *f.uses(at) {
            [user] => {
                let o = f.op(user);
                let other = o.operands().find(|v| *v != at);
                let extra = other.and_then(|v| args[1..].iter().position(|a| *a == v));
                if o.def.name == "core.yield" {
                    return Some(c);
                }
                if c.epilogue.activation != activation::NONE {
                    return None;
                }
                match (o.def.name, extra) {
                    ("arith.mul", None) if fresh => {
                        c.epilogue.alpha = core::constant_of(f, other?)?.get(0).f() as f32;
                    }
                    ("arith.add", Some(i)) => {
                        let map = &maps[i];
                        let used: Vec<i64> = map.iter().copied().filter(|&a| a >= 0).collect();
                        let whole = map.iter().enumerate().all(|(d, &a)| a == d as i64);
                        if whole && map.len() == rank && c.residual.is_none() {
                            c.residual = Some(i);
                            c.epilogue.residual = true;
                        } else if used == [feature as i64] && c.bias.is_none() && !own_bias {
                            c.bias = Some(i);
                        } else {
                            return None;
                        }
                    }
                    _ => return None,
                }
                fresh = false;
                at = o.result();
            }
            _ => return None,
        }
    }
}
