//! The steps a random graph is made of. Each is free to propose nonsense: what does not infer or
//! evaluate is refused by the grower. The test sees to it that every op of [`ALL`] occurs.

use silure_ir::{Code, Diagnostic, Dim, Elem, Num, Result, Tensor, Type, attrs, bail};

use crate::heavy::{conv, matmul, norm, pool, rows};
use crate::moves::{indexing, movement, scatter};
use crate::random_graph::{Grow, Seen};
use crate::recipe::{Block, Step, Val};

/// Element types of inputs, the usual one more often.
pub const INPUTS: [Elem; 16] = [
    Elem::F32,
    Elem::F32,
    Elem::F32,
    Elem::F32,
    Elem::F32,
    Elem::F32,
    Elem::F32,
    Elem::F32,
    Elem::F64,
    Elem::F16,
    Elem::Bf16,
    Elem::I32,
    Elem::I64,
    Elem::I8,
    Elem::U8,
    Elem::Bool,
];

/// Smooth functions of one float.
pub const SMOOTH: [&str; 30] = [
    "arith.exp",
    "arith.exp",
    "arith.tanh",
    "arith.sigmoid",
    "arith.erf",
    "arith.gelu",
    "arith.relu",
    "arith.relu",
    "arith.abs",
    "arith.neg",
    "arith.sqrt",
    "arith.rsqrt",
    "arith.recip",
    "arith.log",
    "arith.log1p",
    "arith.expm1",
    "arith.sin",
    "arith.cos",
    "arith.softplus",
    "arith.elu",
    "arith.leaky_relu",
    "arith.hard_sigmoid",
    "arith.atan",
    "arith.sinh",
    "arith.cosh",
    "arith.asinh",
    "arith.clip",
    "arith.tan",
    "arith.asin",
    "arith.atanh",
];
/// Functions of one float that jump.
const JUMPS: [&str; 5] = ["arith.floor", "arith.ceil", "arith.round", "arith.trunc", "arith.sign"];
/// Functions of two floats.
const FLOATS: [&str; 8] = [
    "arith.add",
    "arith.add",
    "arith.sub",
    "arith.mul",
    "arith.mul",
    "arith.div",
    "arith.min",
    "arith.max",
];
/// Functions of two integers.
const INTS: [&str; 11] = [
    "arith.add",
    "arith.sub",
    "arith.mul",
    "arith.div",
    "arith.floordiv",
    "arith.mod",
    "arith.rem",
    "arith.min",
    "arith.max",
    "arith.bitand",
    "arith.bitxor",
];
/// Comparisons.
const COMPARE: [&str; 6] = ["arith.eq", "arith.ne", "arith.lt", "arith.le", "arith.gt", "arith.ge"];
/// Functions of two bools.
const LOGIC: [&str; 3] = ["arith.and", "arith.or", "arith.xor"];
/// Kinds of reductions.
pub const KINDS: [&str; 10] =
    ["sum", "sum", "mean", "max", "min", "prod", "l1", "l2", "sum_square", "log_sum_exp"];

/// Ops that must occur.
pub const ALL: [&str; 52] = [
    "arith.exp",
    "arith.tanh",
    "arith.relu",
    "arith.clip",
    "arith.floor",
    "arith.add",
    "arith.mul",
    "arith.div",
    "arith.mod",
    "arith.bitand",
    "arith.lt",
    "arith.eq",
    "arith.and",
    "arith.not",
    "arith.select",
    "arith.cast",
    "arith.pow",
    "core.constant",
    "core.weight",
    "graph.argmax",
    "graph.average_pool",
    "graph.broadcast",
    "graph.compress",
    "graph.concat",
    "graph.conv",
    "graph.cumsum",
    "graph.full",
    "graph.gather",
    "graph.gather_elements",
    "graph.gather_nd",
    "graph.group_norm",
    "graph.if",
    "graph.instance_norm",
    "graph.layer_norm",
    "graph.log_softmax",
    "graph.loop",
    "graph.matmul",
    "graph.max_pool",
    "graph.nonzero",
    "graph.one_hot",
    "graph.pad",
    "graph.range",
    "graph.reduce",
    "graph.reshape",
    "graph.rms_norm",
    "graph.scatter_elements",
    "graph.scatter_nd",
    "graph.slice",
    "graph.softmax",
    "graph.tile",
    "graph.top_k",
    "graph.transpose",
];

/// A refusal.
pub fn no(what: &str) -> Diagnostic {
    Diagnostic::new(Code::Unsupported, what)
}

/// Adds one or a few ops, or refuses.
pub fn step(g: &mut Grow) -> Result<()> {
    match g.rng.below(41) {
        0..=4 => unary(g),
        5..=8 => binary(g),
        9 => integers(g),
        10 => compare(g),
        11 => select(g),
        12..=13 => cast(g),
        14..=19 => movement(g),
        20..=21 => indexing(g),
        22 => scatter(g),
        23..=26 => matmul(g),
        27..=28 => conv(g),
        29 => pool(g),
        30..=32 => rows(g),
        33 => norm(g),
        34 => order(g),
        35 => create(g),
        36 => sizes_at_run_time(g),
        37 => shape_as_data(g),
        38 => branch(g),
        39 => integers(g),
        _ => rounds(g),
    }
}

fn float(s: &Seen) -> bool {
    s.ty.elem.is_float()
}

fn unary(g: &mut Grow) -> Result<()> {
    let x = g.any(float)?;
    if x.known.exact && g.rng.chance(15) {
        let op = *g.rng.pick(&JUMPS);
        g.op(op, &[x.val], attrs! {})?;
        return Ok(());
    }
    let op = *g.rng.pick(&SMOOTH);
    // The oracle's own erfc is no better than 1e-15, which f64 would need.
    if op == "arith.gelu" && x.ty.elem == Elem::F64 {
        bail!(Unsupported, "no reference");
    }
    let a = match op {
        "arith.clip" => attrs! { lo: -0.5, hi: 1.5 },
        "arith.gelu" if g.rng.chance(50) => attrs! { tanh: true },
        "arith.leaky_relu" => attrs! { alpha: 0.25 },
        // Parameters are those that a model has: f32.
        "arith.hard_sigmoid" => attrs! { alpha: f64::from(0.2f32), beta: 0.5 },
        _ => attrs! {},
    };
    let y = g.op(op, &[x.val], a)?;
    if g.rng.chance(30) {
        g.op("arith.mul", &[y.val, x.val], attrs! {})?;
    }
    Ok(())
}

/// A second operand for elementwise ops: the same shape, or something that broadcasts to it.
pub fn partner(g: &mut Grow, x: &Seen) -> Result<Val> {
    let (elem, dims) = (x.ty.elem, x.ty.dims.clone());
    if g.rng.chance(50)
        && let Ok(y) = g.any(|s| s.ty.elem == elem && s.ty.dims == dims && s.val != x.val)
    {
        return Ok(y.val);
    }
    let fits = |s: &Seen| {
        s.ty.elem == elem
            && s.rank() <= dims.len()
            && s.ty
                .dims
                .iter()
                .rev()
                .zip(dims.iter().rev())
                .all(|(a, b)| a == b || *a == Dim::Const(1))
    };
    let small = match g.any(|s| fits(s) && s.val != x.val) {
        Ok(y) if g.rng.chance(50) => y,
        _ => {
            let keep = g.rng.below(dims.len() + 1);
            let shape: Vec<usize> = dims[keep..]
                .iter()
                .map(|d| match d.as_size() {
                    Some(n) if g.rng.chance(75) => n,
                    _ => 1,
                })
                .collect();
            if g.rng.chance(30) {
                let c = *g.rng.pick(&[0.0, 1.0, -1.0, 2.0, 0.5, 3.0]);
                let c = if elem == Elem::Bool { 1.0 } else { c };
                g.data(Tensor::scalar(
                    elem,
                    if elem.is_float() { Num::F(c) } else { Num::I(c as i128) },
                ))?
            } else {
                g.noise(elem, &shape)?
            }
        }
    };
    if small.ty.dims == dims {
        return Ok(small.val);
    }
    Ok(g.op("graph.broadcast", &[small.val], attrs! { shape: dims })?.val)
}

/// What is no change, or a constant, for ordinary numbers: x · 0, x − x, x + 0, x / x, …
fn identity(g: &mut Grow, x: &Seen) -> Result<()> {
    let c = *g.rng.pick(&[0.0, 0.0, 1.0, -1.0]);
    let y = if g.rng.chance(30) {
        x.val
    } else {
        let t = Tensor::scalar(x.ty.elem, Num::F(c));
        let c = g.op("core.constant", &[], attrs! { value: t })?;
        g.op("graph.broadcast", &[c.val], attrs! { shape: x.ty.dims.clone() })?.val
    };
    let op = *g.rng.pick(&["arith.mul", "arith.mul", "arith.add", "arith.sub", "arith.div"]);
    let operands = if g.rng.chance(70) { [x.val, y] } else { [y, x.val] };
    g.op(op, &operands, attrs! {})?;
    Ok(())
}

fn binary(g: &mut Grow) -> Result<()> {
    let x = g.any(float)?;
    if g.rng.chance(if g.special { 50 } else { 5 }) {
        return identity(g, &x);
    }
    let y = partner(g, &x)?;
    let op = if g.rng.chance(6) { "arith.pow" } else { *g.rng.pick(&FLOATS) };
    let operands = if g.rng.chance(50) { [x.val, y] } else { [y, x.val] };
    g.op(op, &operands, attrs! {})?;
    Ok(())
}

fn integers(g: &mut Grow) -> Result<()> {
    let x = g.any(|s| s.ty.elem.is_int())?;
    match g.rng.below(5) {
        0 => {
            let op = *g.rng.pick(&["arith.neg", "arith.abs", "arith.sign", "arith.bitnot"]);
            g.op(op, &[x.val], attrs! {})?;
        }
        _ => {
            let y = partner(g, &x)?;
            let op = *g.rng.pick(&INTS);
            g.op(op, &[x.val, y], attrs! {})?;
        }
    }
    Ok(())
}

fn compare(g: &mut Grow) -> Result<()> {
    if g.rng.chance(60)
        && let Ok(x) = g.any(|s| s.ty.elem == Elem::Bool)
    {
        let y = partner(g, &x)?;
        let op = *g.rng.pick(&LOGIC);
        let z = g.op(op, &[x.val, y], attrs! {})?;
        g.op("arith.not", &[z.val], attrs! {})?;
        return Ok(());
    }
    let x = g.any(|s| s.known.exact)?;
    let (elem, dims) = (x.ty.elem, x.ty.dims.clone());
    let y = match g.any(|s| s.known.exact && s.ty.elem == elem && s.ty.dims == dims) {
        Ok(y) if y.val != x.val => y.val,
        _ => {
            let c = g.noise(elem, &[])?;
            g.op("graph.broadcast", &[c.val], attrs! { shape: dims })?.val
        }
    };
    let op = if elem == Elem::Bool { "arith.eq" } else { *g.rng.pick(&COMPARE) };
    g.op(op, &[x.val, y], attrs! {})?;
    Ok(())
}

fn select(g: &mut Grow) -> Result<()> {
    let c = g.any(|s| s.ty.elem == Elem::Bool)?;
    let dims = c.ty.dims.clone();
    let x = match g.any(|s| s.ty.dims == dims && s.val != c.val) {
        Ok(x) => x,
        _ => {
            let k = g.noise(Elem::F32, &[])?;
            g.op("graph.broadcast", &[k.val], attrs! { shape: dims })?
        }
    };
    let y = partner(g, &x)?;
    g.op("arith.select", &[c.val, x.val, y], attrs! {})?;
    Ok(())
}

fn cast(g: &mut Grow) -> Result<()> {
    const TO: [Elem; 11] = [
        Elem::F32,
        Elem::F32,
        Elem::F32,
        Elem::F64,
        Elem::F16,
        Elem::Bf16,
        Elem::I32,
        Elem::I64,
        Elem::I8,
        Elem::U8,
        Elem::Bool,
    ];
    let to = *g.rng.pick(&TO);
    let x = g.any(|s| s.ty.elem != to && (to.is_float() || s.known.exact))?;
    g.op("arith.cast", &[x.val], attrs! { to: to })?;
    Ok(())
}

fn order(g: &mut Grow) -> Result<()> {
    let x = g.any(|s| {
        s.rank() > 0 && s.known.exact && matches!(s.ty.elem, Elem::F32 | Elem::I64 | Elem::I32)
    })?;
    let axis = g.rng.below(x.rank());
    if g.rng.chance(50) {
        let op = *g.rng.pick(&["graph.argmax", "graph.argmax", "graph.argmin"]);
        let (keep, last) = (g.rng.chance(50), g.rng.chance(30));
        g.op(op, &[x.val], attrs! { axis: axis as i64, keep: keep, last: last })?;
    } else {
        let n = x.ty.dims[axis].as_const().ok_or(no("a known size"))?;
        let k = vec![Dim::Const(g.rng.range(0, n))];
        let a = attrs! { axis: axis as i64, k: k, largest: g.rng.chance(60) };
        g.step("graph.top_k", vec![Some(x.val), None], a, vec![], vec![], 2)?;
    }
    Ok(())
}

fn create(g: &mut Grow) -> Result<()> {
    match g.rng.below(3) {
        0 => {
            let elem = *g.rng.pick(&[Elem::F32, Elem::I64]);
            let dims = vec![g.symbol()?, Dim::Const(g.rng.range(0, 3))];
            let v = Tensor::from_f64s(elem, &[], &[2.0])
                .or_else(|_| Tensor::from_ints(elem, &[], &[2]))?;
            g.step("graph.full", vec![None], attrs! { value: v, shape: dims }, vec![], vec![], 1)?;
        }
        1 => {
            let (a, n, d) = (g.rng.range(-3, 3), g.rng.range(0, 6), *g.rng.pick(&[1i64, 2, -1]));
            let int = |v: i64| Tensor::from_ints(Elem::I64, &[], &[v]);
            let (x, y, z) = (int(a)?, int(a + n * d)?, int(d)?);
            let c = [g.data(x)?.val, g.data(y)?.val, g.data(z)?.val];
            g.op("graph.range", &c, attrs! {})?;
        }
        _ => {
            let x = g.any(|s| matches!(s.ty.elem, Elem::I64 | Elem::I32) && s.rank() < 4)?;
            let v = g.data(Tensor::from_f64s(Elem::F32, &[2], &[0.5, 2.0])?)?;
            let a = attrs! { axis: -1i64, depth: vec![Dim::Const(4)] };
            g.step("graph.one_hot", vec![Some(x.val), Some(v.val), None], a, vec![], vec![], 1)?;
        }
    }
    Ok(())
}

/// Results whose sizes depend on data.
fn sizes_at_run_time(g: &mut Grow) -> Result<()> {
    if g.rng.chance(50) {
        let x = g.any(|s| s.known.exact && s.rank() > 0)?;
        g.op("graph.nonzero", &[x.val], attrs! {})?;
        return Ok(());
    }
    let x = g.any(|s| s.rank() > 0)?;
    let axis = g.rng.below(x.rank());
    let n = x.shape()[axis];
    let c = g.noise(Elem::Bool, &[n])?;
    g.op("graph.compress", &[x.val, c.val], attrs! { axis: axis as i64 })?;
    Ok(())
}

/// A shape that is computed with as data, then used.
fn shape_as_data(g: &mut Grow) -> Result<()> {
    let x = g.any(|s| s.rank() > 0 && s.rank() < 4)?;
    let shape = g.op("graph.shape_of", &[x.val], attrs! {})?;
    let n = g.rng.range(1, 3);
    let two = g.data(Tensor::from_ints(Elem::I64, &[1], &[n])?)?;
    let all = g.op("graph.concat", &[two.val, shape.val], attrs! { axis: 0i64 })?;
    let y = g.op("graph.broadcast", &[x.val, all.val], attrs! {})?;
    let flat = g.data(Tensor::from_ints(Elem::I64, &[1], &[-1])?)?;
    g.op("graph.reshape", &[y.val, flat.val], attrs! {})?;
    Ok(())
}

/// A few elementwise ops on a value inside a region.
fn chain(g: &mut Grow, x: Val, elem: Elem) -> (Vec<Step>, Val) {
    let mut steps = Vec::new();
    let mut at = x;
    for _ in 0..g.rng.range(1, 3) {
        let to = g.fresh();
        let (op, operands) = match (elem.is_float(), g.rng.below(4)) {
            (true, 0) => ("arith.tanh", vec![at]),
            (true, 1) => ("arith.mul", vec![at, x]),
            (true, 2) => ("arith.sigmoid", vec![at]),
            (_, 3) => ("arith.neg", vec![at]),
            _ => ("arith.add", vec![at, x]),
        };
        let operands = operands.into_iter().map(Some).collect();
        steps.push(Step {
            op,
            operands,
            attrs: attrs! {},
            types: vec![],
            blocks: vec![],
            results: vec![to],
        });
        at = to;
    }
    (steps, at)
}

/// One truth value from the data.
fn truth(g: &mut Grow) -> Result<Val> {
    if let Ok(x) = g.any(|s| s.ty.elem == Elem::Bool && s.rank() == 0) {
        return Ok(x.val);
    }
    let x = g.any(|s| s.known.exact && matches!(s.ty.elem, Elem::F32 | Elem::I64 | Elem::I32))?;
    let axes: Vec<i64> = (0..x.rank() as i64).collect();
    let y = g.op("graph.reduce", &[x.val], attrs! { kind: "max", axes: axes, keep: false })?;
    if !y.known.exact {
        bail!(Unsupported, "not exact");
    }
    let c = g.noise(x.ty.elem, &[])?;
    Ok(g.op("arith.lt", &[c.val, y.val], attrs! {})?.val)
}

fn branch(g: &mut Grow) -> Result<()> {
    let c = truth(g)?;
    let x = g.any(|s| s.ty.elem != Elem::Bool && s.ty.elem != Elem::U8)?;
    let (a, av) = chain(g, x.val, x.ty.elem);
    let (b, bv) = chain(g, x.val, x.ty.elem);
    let blocks = vec![
        Block { args: vec![], steps: a, yields: vec![av] },
        Block { args: vec![], steps: b, yields: vec![bv] },
    ];
    let ty = Type::Tensor(x.ty.clone());
    g.step("graph.if", vec![Some(c)], attrs! {}, blocks, vec![ty], 1)?;
    Ok(())
}

fn rounds(g: &mut Grow) -> Result<()> {
    let x = g.any(|s| s.ty.elem != Elem::Bool && s.ty.elem != Elem::U8)?;
    let n = g.rng.range(0, 4);
    let trip = g.data(Tensor::from_ints(Elem::I64, &[], &[n])?)?;
    let (i, go, h) = (g.fresh(), g.fresh(), g.fresh());
    let (steps, y) = chain(g, h, x.ty.elem);
    let ty = Type::Tensor(x.ty.clone());
    let args =
        vec![(i, Type::tensor(Elem::I64, [])), (go, Type::tensor(Elem::Bool, [])), (h, ty.clone())];
    let block = Block { args, steps, yields: vec![go, y] };
    g.step(
        "graph.loop",
        vec![Some(trip.val), None, Some(x.val)],
        attrs! {},
        vec![block],
        vec![ty],
        1,
    )?;
    Ok(())
}
