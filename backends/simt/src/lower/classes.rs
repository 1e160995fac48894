//! Which layout every tile of a kernel gets.
//!
//! Values that must agree (operands and results of elementwise ops, carried values of a loop, accumulators)
//! are one class. Classes with a product take the accumulator's layout, others follow through broadcasts,
//! reductions and transposes, the rest is laid out for memory access, largest first.

use std::collections::{HashMap, HashSet};

use silure_ir::dialects::{arith, tile};
use silure_ir::{Code, Diagnostic, Elem, Func, OpId, Result, Traits, Type, ValueId};

use super::Caps;
use crate::layout::{Bits, Layout};

/// The most elements of one tile that a thread may hold.
const MOST_REGISTERS: usize = 256;

/// The decisions for one kernel.
pub struct Plan {
    /// 2 to the power of this: warps of a block.
    pub warps: u8,
    /// Layout of every tile that is in registers.
    pub layouts: HashMap<ValueId, Layout>,
    /// Tiles with one value in all elements: computed as scalars.
    pub uniform: HashSet<ValueId>,
    /// Loaded tiles, and their transposes, that only products read: they stay in shared memory.
    pub staged: HashSet<ValueId>,
    /// Warps lie on both axes of products ([`Layout::accumulator`]).
    pub square: bool,
}

/// How a product is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Product {
    /// By fragments of this element type.
    Fragments(Elem),
    /// One multiplication at a time.
    Scalars,
}

/// How `a · b` of that size is computed on a target; 8-bit floats it cannot multiply become f16.
pub fn product(caps: &Caps, a: Elem, b: Elem, m: usize, n: usize, k: usize) -> Product {
    let fits = |e: Elem| {
        m >= 16 && n >= 8 && k >= 32 / e.bytes().unwrap_or(4).max(1) && caps.matrix.contains(&e)
    };
    let fp8 = |e| matches!(e, Elem::E4m3fn | Elem::E5m2);
    match (a, b) {
        (Elem::F16, Elem::F16) | (Elem::Bf16, Elem::Bf16) | (Elem::Tf32, Elem::Tf32) if fits(a) => {
            Product::Fragments(a)
        }
        (Elem::I8, Elem::I8) | (Elem::U8, Elem::U8) if fits(a) => Product::Fragments(a),
        _ if fp8(a) && a == b && fits(a) => Product::Fragments(a),
        // Every e4m3 and e5m2 value, and so every product of them in f32, is exact in f16.
        _ if fp8(a) && fp8(b) && fits(Elem::F16) => Product::Fragments(Elem::F16),
        _ => Product::Scalars,
    }
}

/// The element type and shape of a tile.
pub fn tile_of(f: &Func, v: ValueId) -> Option<(Elem, &[usize])> {
    match f.ty(v) {
        Type::Tile(t) => Some((t.elem, &t.shape)),
        _ => None,
    }
}

struct Classes(HashMap<ValueId, ValueId>);

impl Classes {
    fn root(&self, mut v: ValueId) -> ValueId {
        while let Some(&p) = self.0.get(&v) {
            v = p;
        }
        v
    }

    fn join(&mut self, a: ValueId, b: ValueId) {
        let (a, b) = (self.root(a), self.root(b));
        if a != b {
            self.0.insert(b, a);
        }
    }
}

/// Chooses layouts.
pub fn plan(f: &Func, caps: &Caps, warps: Option<u32>) -> Result<Plan> {
    let ops = f.walk();
    let is_tile = |v: ValueId| tile_of(f, v).is_some();
    let mut uniform = HashSet::new();
    let mut staged = HashSet::new();
    for &op in &ops {
        let o = f.op(op);
        let from = |v: ValueId| !is_tile(v) || uniform.contains(&v);
        let same = match o.def.name {
            "tile.full" => true,
            "tile.broadcast" | "tile.reshape" | "tile.transpose" => o.operands().all(from),
            _ => o.def.is(Traits::ELEMENTWISE) && o.operands().all(from),
        };
        if same && o.results.len() == 1 && is_tile(o.results[0]) {
            uniform.insert(o.results[0]);
        }
        if o.def == &tile::LOAD && only_multiplied(f, o.result(), true) {
            staged.insert(o.result());
        }
        // Other forms of what lies there: turned, or rounded when it is read.
        if (o.def == &tile::TRANSPOSE || rounds(f, op))
            && o.operand(0).is_some_and(|v| staged.contains(&v))
        {
            staged.insert(o.result());
        }
    }
    let in_registers = |v: ValueId| {
        is_tile(v)
            && !uniform.contains(&v)
            && !staged.contains(&v)
            && f.def_op(v).is_none_or(|o| f.op(o).def != &tile::IOTA)
    };
    let mut classes = Classes(HashMap::new());
    let mut values = Vec::new();
    for &op in &ops {
        let o = f.op(op);
        let mut group: Vec<Vec<ValueId>> = Vec::new();
        match o.def.name {
            "tile.reshape" | "tile.scan" => {
                group.push(vec![o.result(), o.operands().next().unwrap_or(o.result())])
            }
            "tile.gather" => group.push(vec![o.result(), o.operand(1).unwrap_or(o.result())]),
            "tile.scatter" => group.push(o.operands().skip(1).collect()),
            "tile.dot" => group.push(o.operand(2).into_iter().chain([o.result()]).collect()),
            "tile.for" | "tile.if" => {
                for (i, &r) in o.results.iter().enumerate() {
                    let mut g = vec![r];
                    for &region in &o.regions {
                        g.extend(f.yields(region).get(i));
                        g.extend(f.region(region).args.get(i + 1));
                    }
                    g.extend(o.tail().get(i));
                    group.push(g);
                }
            }
            _ if o.def.is(Traits::ELEMENTWISE) => {
                group.push(o.operands().chain(o.results.iter().copied()).collect());
            }
            _ => {}
        }
        for g in group {
            let g: Vec<ValueId> = g.into_iter().filter(|v| in_registers(*v)).collect();
            for w in g.windows(2) {
                classes.join(w[0], w[1]);
            }
        }
        let args = o.regions.iter().flat_map(|r| f.region(*r).args.iter());
        values.extend(o.results.iter().chain(args).copied().filter(|v| in_registers(*v)));
    }
    let most = values
        .iter()
        .chain(&staged)
        .filter_map(|v| tile_of(f, *v))
        .map(|(_, s)| s.iter().product::<usize>())
        .max()
        .unwrap_or(1);
    let warps = warps.unwrap_or((most / 1024).clamp(1, 8) as u32).max(1);
    if !warps.is_power_of_two() || warps.saturating_mul(caps.warp) > 1024 {
        let m = "the number of warps of a block is a power of two, 1024 threads at most";
        return Err(Diagnostic::new(Code::Unsupported, m).need("1, 2, 4, …", warps));
    }
    let warps = warps.trailing_zeros() as u8;
    // Rows that are reduced, or become an operand themselves, stay in one warp.
    let square = !ops.iter().any(|&op| {
        let o = f.op(op);
        let own = o.operand(0).is_some_and(&in_registers);
        o.def == &tile::REDUCE || o.def == &tile::DOT && own
    });
    let mut found: HashMap<ValueId, Layout> = HashMap::new();
    for &op in &ops {
        let o = f.op(op);
        if o.def != &tile::DOT {
            continue;
        }
        let (Some(a), Some(b)) = (o.operand(0), o.operand(1)) else { continue };
        let (Some((ea, sa)), Some((eb, sb))) = (tile_of(f, a), tile_of(f, b)) else { continue };
        if let Product::Fragments(_) = product(caps, ea, eb, sa[0], sb[1], sa[1]) {
            Bits::of(&[sa[0], sb[1], sa[1]]).map_err(|e| e.at(&o.loc))?;
            let (m, n) = (sa[0].trailing_zeros() as u8, sb[1].trailing_zeros() as u8);
            found
                .entry(classes.root(o.result()))
                .or_insert_with(|| Layout::accumulator(m, n, warps, square));
        }
    }
    follow(f, &ops, &classes, &mut found, &in_registers)?;
    let mut roots: Vec<ValueId> = Vec::new();
    for v in &values {
        let r = classes.root(*v);
        if !roots.contains(&r) {
            roots.push(r);
        }
    }
    let size = |v: ValueId| tile_of(f, v).map_or(0, |t| t.1.iter().product::<usize>());
    roots.sort_by_key(|v| std::cmp::Reverse(size(*v)));
    for r in roots {
        if found.contains_key(&r) {
            continue;
        }
        let members = values.iter().filter(|v| classes.root(**v) == r);
        let bytes = members.filter_map(|v| f.ty(*v).elem()?.bytes()).max().unwrap_or(4);
        let (_, shape) = tile_of(f, r).unwrap_or((Elem::F32, &[]));
        let bits = Bits::of(shape)?;
        let lanes = caps.warp.trailing_zeros() as u8;
        let spread = bits.total.saturating_sub(lanes + warps);
        let inner = bits.axes.last().map_or(0, |a| a.1);
        let vector = ((16 / bytes).trailing_zeros() as u8).min(spread).min(inner);
        found.insert(r, Layout::blocked(bits.total, lanes, warps, vector));
        follow(f, &ops, &classes, &mut found, &in_registers)?;
    }
    let of = |v: &ValueId| found.get(&classes.root(*v)).map(|l| (*v, l.clone()));
    let layouts = values.iter().filter_map(of).collect();
    let p = Plan { warps, layouts, uniform, staged, square };
    // In program order, so that the message is the same every time.
    for &op in &ops {
        for v in &f.op(op).results {
            let n = p.layouts.get(v).map_or(0, |l| l.registers());
            if n > MOST_REGISTERS {
                let m = format!("a tile {} is too large for the registers of a block", f.ty(*v));
                return Err(Diagnostic::new(Code::Limit, m)
                    .at(&f.op(op).loc)
                    .need(format!("at most {MOST_REGISTERS} elements of a thread"), n)
                    .note("make the tile smaller, or give the block more warps"));
            }
        }
    }
    Ok(p)
}

/// Whether a matrix is only an operand of products, possibly transposed on the way.
fn only_multiplied(f: &Func, v: ValueId, through: bool) -> bool {
    if tile_of(f, v).is_none_or(|t| t.1.len() != 2) || f.uses(v).is_empty() {
        return false;
    }
    f.uses(v).iter().all(|&u| {
        let o = f.op(u);
        match o.def.name {
            "tile.dot" => o.operand(2) != Some(v),
            "tile.transpose" => through && only_multiplied(f, o.result(), false),
            _ => rounds(f, u) && only_multiplied(f, o.result(), through),
        }
    })
}

/// Whether an op rounds a tile of f32 to tf32: a matrix that is multiplied stays f32 in memory, its fragments are
/// rounded.
pub fn rounds(f: &Func, op: OpId) -> bool {
    let o = f.op(op);
    let of = |v: Option<ValueId>| v.and_then(|v| tile_of(f, v)).map(|t| t.0);
    o.def == &arith::CAST
        && (of(o.operand(0)), of(o.results.first().copied())) == (Some(Elem::F32), Some(Elem::Tf32))
}

/// Spreads layouts over broadcasts, reductions and transposes until nothing changes.
fn follow(
    f: &Func,
    ops: &[OpId],
    classes: &Classes,
    found: &mut HashMap<ValueId, Layout>,
    in_registers: &dyn Fn(ValueId) -> bool,
) -> Result<()> {
    loop {
        let before = found.len();
        for &op in ops {
            let o = f.op(op);
            let (Some(x), Some(&y)) = (o.operands().next(), o.results.first()) else { continue };
            if !in_registers(x) || !in_registers(y) {
                continue;
            }
            let (Some((_, sx)), Some((_, sy))) = (tile_of(f, x), tile_of(f, y)) else { continue };
            let (cx, cy) = (classes.root(x), classes.root(y));
            let axis = |rank: usize| silure_ir::infer::norm_axis(o.attrs.int("axis"), rank);
            match o.def.name {
                "tile.broadcast" if !found.contains_key(&cx) => {
                    if let Some(l) = found.get(&cy) {
                        let l = l.without(&Bits::of(sy)?, axis(sy.len())?);
                        found.insert(cx, l);
                    }
                }
                "tile.reduce" if !found.contains_key(&cy) => {
                    if let Some(l) = found.get(&cx) {
                        let l = l.without(&Bits::of(sx)?, axis(sx.len())?);
                        found.insert(cy, l);
                    }
                }
                "tile.transpose" if !found.contains_key(&cy) => {
                    if let Some(l) = found.get(&cx) {
                        let perm = permutation(o.attrs.ints("perm"));
                        let l = l.transposed(&Bits::of(sx)?, &Bits::of(sy)?, &perm);
                        found.insert(cy, l);
                    }
                }
                _ => {}
            }
        }
        if found.len() == before {
            return Ok(());
        }
    }
}

/// A `perm` attribute as positions.
pub fn permutation(perm: &[i64]) -> Vec<usize> {
    perm.iter().map(|&p| p as usize).collect()
}
