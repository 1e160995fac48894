//! From `tile` to `simt`: one program becomes one block of threads.
//!
//! Every tile of registers has a [`Layout`]; an op on tiles becomes that op on each register. Uniform
//! tiles are one scalar. Matrices that only products read go from global to shared memory, by
//! asynchronous copies where element type and alignment allow. Where two ops want different layouts the
//! tile goes through shared memory, unless every thread already has what it needs.
//!
//! Alignment that the symbols' multiples do not prove is tested at run time, once per access for the whole
//! block: the vector form runs if it holds, an element-by-element form if not.

mod angle;
mod barriers;
mod classes;
mod convert;
mod dot;
mod emit;
mod gather;
mod memory;
mod pipeline;

use std::collections::HashMap;
use std::rc::Rc;

use silure_ir::dialects::{arith, tile};
use silure_ir::{
    Attrs, Builder, Code, Diagnostic, Elem, Func, Num, OpId, RegionId, Result, Traits, Type,
    ValueId, attrs, bail,
};
use silure_target::{Target, Unit};

use crate::dialect;
use crate::layout::{Bits, Layout};
use classes::{Plan, permutation, rounds, tile_of};
use emit::{Emit, Fact};
use memory::Stage;

/// What the lowering asks of a target.
#[derive(Clone, Debug)]
pub struct Caps {
    /// The target's name.
    pub name: String,
    /// Lanes of a warp.
    pub warp: u32,
    /// Bytes of shared memory that a block may have.
    pub shared: u64,
    /// Whether copies from global to shared memory run in the background.
    pub async_copy: bool,
    /// Element types with fragment products.
    pub matrix: Vec<Elem>,
}

impl Caps {
    /// Of a described target.
    pub fn of(t: &Target) -> Result<Caps> {
        let Some(shared) = t.memory("shared") else {
            bail!(Unsupported, "`{}` has no shared memory: simt is not its form", t.full_name());
        };
        let caps = t.arch.caps.iter().filter(|c| c.unit == Unit::Matrix);
        let matrix = if t.has("mma") && t.has("ldmatrix") && t.arch.lanes.warp == 32 {
            caps.flat_map(|c| c.elems.iter().copied()).collect()
        } else {
            vec![]
        };
        Ok(Caps {
            name: t.name.clone(),
            warp: t.arch.lanes.warp,
            shared: shared.bytes,
            async_copy: t.has("cp.async"),
            matrix,
        })
    }
}

/// Choices left to the caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Warps of a block; by default what the kernel's attribute `warps` asks for, without it one for each 1024 elements of
    /// the largest tile, 8 at most.
    pub warps: Option<u32>,
}

/// A value of the tile kernel in the simt kernel.
#[derive(Clone)]
enum Val {
    /// A scalar, index or pointer.
    One(ValueId),
    /// A tile with this value everywhere.
    Uniform(ValueId),
    /// 0, 1, 2, …
    Iota,
    /// One value per register of the planned layout.
    Regs(Rc<[ValueId]>),
    /// In shared memory; transposed or not.
    Staged(Rc<Stage>, bool),
}

struct Lower<'a> {
    src: &'a Func,
    caps: &'a Caps,
    plan: Plan,
    e: Emit,
    map: HashMap<ValueId, Val>,
    /// Copies to shared memory are under way, behind a barrier.
    open: bool,
    /// Loads that are done already in the loop at hand, and loads that have a place in shared memory.
    fed: HashMap<ValueId, Rc<Stage>>,
    slots: HashMap<ValueId, Rc<Stage>>,
    /// Most slots of a ring.
    stages: i64,
    /// Bytes of shared memory given out, and the most that were: what a loop had is free behind it, and whoever takes it
    /// passes a barrier first.
    used: i64,
    peak: i64,
    /// Memory for exchanges, whose size is known at the end.
    scratch: HashMap<Elem, ValueId>,
    scratch_bytes: i64,
    /// Copies have begun since the last wait for all.
    copying: bool,
    /// Bytes that are used once the rest is no longer needed.
    least: i64,
}

/// Lowers a verified tile kernel for a target.
///
/// Errors with [`Code::Unsupported`] name the op that has no form on threads, with [`Code::Limit`] the shared
/// memory that would be needed.
pub fn lower_tile(f: &Func, caps: &Caps, options: &Options) -> Result<Func> {
    tile::check_kernel(f)?;
    let mut src = f.clone();
    expand_math(&mut src)?;
    let asked = u32::try_from(f.attrs.int("warps")).ok().filter(|n| *n > 0);
    let warps = options.warps.or(asked);
    // Fewer slots where the rest of the kernel leaves no memory for more; with less than two there is no ring.
    let mut stages = pipeline::MOST_STAGES;
    loop {
        let mut lower = Lower {
            src: &src,
            caps,
            plan: classes::plan(&src, caps, warps)?,
            e: Emit::new(&f.name)?,
            map: HashMap::new(),
            open: false,
            fed: HashMap::new(),
            slots: HashMap::new(),
            stages,
            used: 0,
            peak: 0,
            scratch: HashMap::new(),
            scratch_bytes: 0,
            copying: false,
            least: 0,
        };
        lower.signature();
        lower.region(src.body)?;
        match lower.finish() {
            Err(e) if e.code == Code::Limit && stages > 1 => stages -= 1,
            done => return done,
        }
    }
}

/// The type that values of an element type are computed in: f32 for smaller floats, i32 for bytes.
fn carrier(e: Elem) -> Elem {
    match e {
        Elem::I8 | Elem::U8 => Elem::I32,
        e if e.is_float() && e.bits() < 32 => Elem::F32,
        e => e,
    }
}

/// Elementary functions become arithmetic, except `exp`, for which the machine has most of an
/// instruction. What is on small types is computed in their carrier and rounded (or wraps) once.
fn expand_math(f: &mut Func) -> Result<()> {
    // These keep bits as they are, or depend on the width.
    const BITS: &[&str] = &["select", "cast", "bitcast", "shl", "shr"];
    for op in f.walk() {
        let o = f.op(op);
        let word = o.def.name.strip_prefix("arith.").unwrap_or("");
        let first = o.operands().next().and_then(|v| f.ty(v).elem());
        let Some(to) = first.map(carrier).filter(|c| first != Some(*c)) else { continue };
        if word.is_empty() || BITS.contains(&word) {
            continue;
        }
        let (args, elem): (Vec<ValueId>, _) = (o.operands().collect(), f.ty(o.result()).elem());
        let (def, a, old) = (o.def, o.attrs.clone(), o.result());
        let mut b = Builder::before(f, op);
        let wide: Vec<ValueId> = args
            .iter()
            .map(|v| b.one(&arith::CAST, [*v], attrs! { to: to }))
            .collect::<Result<_>>()?;
        let mut y = b.one(def, wide, a)?;
        if let Some(elem) = elem.filter(|e| *e != Elem::Bool) {
            y = b.one(&arith::CAST, [y], attrs! { to: elem })?;
        }
        f.replace_uses(old, y);
        f.erase(op);
    }
    for op in f.walk() {
        if f.op(op).def == &arith::EXP || f.op(op).def == &arith::EXP2 {
            continue;
        }
        let mut b = Builder::before(f, op);
        let made = angle::expand(&mut b, op)
            .or_else(|| silure_ir::math::expand(&mut b, op, &Default::default()));
        if let Some(y) = made {
            let y = y?;
            let old = f.op(op).result();
            f.replace_uses(old, y);
            f.erase(op);
        }
    }
    Ok(())
}

impl Lower<'_> {
    fn signature(&mut self) {
        let src = self.src;
        self.e.f.symbols = src.symbols.clone();
        let symbols = tile::symbol_args(src);
        for (i, (&a, name)) in src.args().iter().zip(&src.arg_names).enumerate() {
            let v = self.e.f.add_arg(name, src.ty(a).clone());
            self.map.insert(a, Val::One(v));
            if let Some((s, _)) = symbols.iter().find(|(_, at)| *at == Some(i)) {
                let fact = Fact { multiple: s.multiple, positive: s.min >= 0, constant: None };
                self.e.know(v, fact);
            }
        }
    }

    fn finish(mut self) -> Result<Func> {
        let at = self.used.max(self.peak);
        let total = (at + self.scratch_bytes).max(self.least);
        if total as u64 > self.caps.shared {
            let m = format!("@{} needs more shared memory than a block has", self.src.name);
            return Err(Diagnostic::new(Code::Limit, m)
                .need(
                    format!("{total} bytes"),
                    format!("{} on {}", self.caps.shared, self.caps.name),
                )
                .note("smaller tiles, or fewer of them alive in products, need less"));
        }
        for v in self.scratch.values() {
            if let Some(op) = self.e.f.def_op(*v) {
                self.e.f.op_mut(op).attrs.set("at", at);
                self.e.f.op_mut(op).attrs.set("bytes", self.scratch_bytes);
            }
        }
        let threads = (self.caps.warp as i64) << self.plan.warps;
        let mut f = self.e.f;
        if let Some(grid) = self.src.attrs.get("grid") {
            f.attrs.set("grid", grid.clone());
        }
        f.attrs.set("threads", threads);
        f.attrs.set("warp", self.caps.warp as i64);
        f.attrs.set("shared", total);
        f.attrs.set("target", self.caps.name.as_str());
        crate::kernel::remove_dead(&mut f);
        // Of global memory barriers order what a fence says.
        if !self.src.walk().iter().any(|op| self.src.op(*op).def == &tile::FENCE) {
            barriers::reduce(&mut f);
        }
        Ok(f)
    }

    fn val(&self, v: ValueId) -> Result<Val> {
        match self.map.get(&v) {
            Some(v) => Ok(v.clone()),
            None => bail!(Internal, "a value is used before it is lowered"),
        }
    }

    /// A scalar, index or pointer; of a uniform tile its value.
    fn scalar(&self, v: ValueId) -> Result<ValueId> {
        match self.val(v)? {
            Val::One(v) | Val::Uniform(v) => Ok(v),
            _ => bail!(Internal, "a scalar was needed, a tile is present"),
        }
    }

    fn layout(&self, v: ValueId) -> Result<Layout> {
        match self.plan.layouts.get(&v) {
            Some(l) => Ok(l.clone()),
            None => bail!(Internal, "a tile without a layout"),
        }
    }

    fn operand(&self, op: OpId, i: usize) -> Result<ValueId> {
        match self.src.op(op).operand(i) {
            Some(v) => Ok(v),
            None => bail!(Internal, "operand {i} of `{}` is missing", self.src.op(op).def.name),
        }
    }

    /// Lowers a region; gives what its terminator yields in the source.
    fn region(&mut self, r: RegionId) -> Result<Vec<ValueId>> {
        for &op in &self.src.region(r).ops {
            let o = self.src.op(op);
            self.e.loc = o.loc.clone();
            if o.def.is(Traits::TERMINATOR) {
                self.close()?;
                if o.def.name == "core.return" {
                    self.e.op(&silure_ir::dialects::core::RETURN, &[], attrs! {})?;
                }
                return Ok(o.operands().collect());
            }
            self.op(op).map_err(|e| {
                let text = silure_ir::text::print_op(self.src, op);
                e.at(&o.loc).note(format!("in `{}`", text.lines().next().unwrap_or("").trim()))
            })?;
        }
        bail!(Internal, "a region has no terminator")
    }

    fn op(&mut self, op: OpId) -> Result<()> {
        let o = self.src.op(op);
        if o.def.is(Traits::ELEMENTWISE) {
            let y = self.elementwise(op)?;
            self.map.insert(o.result(), y);
            return Ok(());
        }
        let axis = attrs! { axis: o.attrs.int("axis") };
        let y = match o.def.name {
            "core.scalar" => match (o.attrs.tensor("value"), self.src.ty(o.result())) {
                (Some(t), Type::Index) => Val::One(self.e.index(t.get(0).i() as i64)?),
                (Some(t), _) => Val::One(self.e.scalar(t.elem(), t.get(0))?),
                _ => bail!(Internal, "a constant without value"),
            },
            "tile.program_id" => Val::One(self.e.one(&dialect::BLOCK_ID, &[], axis)?),
            "tile.num_programs" => Val::One(self.e.one(&dialect::NUM_BLOCKS, &[], axis)?),
            "tile.view" => return Ok(()),
            "tile.load" => self.load(op)?,
            "tile.store" => return self.store(op),
            "tile.gather" => self.load_anywhere(op)?,
            "tile.report" => return self.report(op),
            "tile.fence" => {
                self.close()?;
                self.e.op(&dialect::BARRIER, &[], attrs! {})?;
                return Ok(());
            }
            "tile.scatter" => return self.store_anywhere(op),
            "tile.index" => {
                let x = self.scalar(self.operand(op, 0)?)?;
                Val::One(self.e.widen(x)?)
            }
            "tile.full" => Val::Uniform(self.scalar(self.operand(op, 0)?)?),
            "tile.iota" => Val::Iota,
            "tile.broadcast" | "tile.reshape" | "tile.transpose" => self.moved(op)?,
            "tile.reduce" => self.reduce(op)?,
            "tile.scan" => self.scan(op)?,
            "tile.dot" => self.dot(op)?,
            "tile.for" => return self.run_for(op),
            "tile.if" => return self.run_if(op),
            name => bail!(Unsupported, "`{name}` has no form on threads"),
        };
        self.map.insert(o.result(), y);
        Ok(())
    }

    fn elementwise(&mut self, op: OpId) -> Result<Val> {
        let o = self.src.op(op);
        let args: Vec<ValueId> = o.operands().collect();
        let scalar = !matches!(self.src.ty(o.result()), Type::Tile(_));
        if scalar || self.plan.uniform.contains(&o.result()) {
            let x: Vec<ValueId> = args.iter().map(|v| self.scalar(*v)).collect::<Result<_>>()?;
            let y = self.pointwise(op, &x)?;
            return Ok(if scalar { Val::One(y) } else { Val::Uniform(y) });
        }
        if rounds(self.src, op) && self.plan.staged.contains(&o.result()) {
            // The products round what they read.
            return self.val(args[0]);
        }
        let l = self.layout(o.result())?;
        let args: Vec<Rc<[ValueId]>> =
            args.iter().map(|v| self.regs(*v, &l)).collect::<Result<_>>()?;
        let y: Vec<ValueId> = (0..l.registers())
            .map(|r| {
                let x: Vec<ValueId> = args.iter().map(|a| a[r]).collect();
                self.pointwise(op, &x)
            })
            .collect::<Result<_>>()?;
        Ok(Val::Regs(y.into()))
    }

    /// One `arith` op on scalars.
    fn pointwise(&mut self, op: OpId, x: &[ValueId]) -> Result<ValueId> {
        let o = self.src.op(op);
        if o.def == &arith::EXP2 && *self.e.f.ty(x[0]) == Type::Scalar(Elem::F32) {
            return self.e.one(&dialect::EX2, x, attrs! { flush: true });
        }
        if o.def != &arith::EXP || *self.e.f.ty(x[0]) != Type::Scalar(Elem::F32) {
            return self.e.one(o.def, x, o.attrs.clone());
        }
        // eˣ = 2ⁿ · 2ʳ with n = round(x / ln 2) and r small, where the instruction is exact enough.
        // Bounds: below, the result is 0; above, infinity. Both come out of 2ⁿ; NaN passes through.
        let c = |e: &mut Emit, v: f64| e.scalar(Elem::F32, Num::F(v));
        let (lo, hi, log2e) = (
            c(&mut self.e, -160.0)?,
            c(&mut self.e, 160.0)?,
            c(&mut self.e, std::f64::consts::LOG2_E)?,
        );
        let (ln2_hi, ln2_lo) = (c(&mut self.e, -0.693_359_4)?, c(&mut self.e, 2.121_944_4e-4)?);
        let e = &mut self.e;
        let t = e.one(&arith::MAX, &[x[0], lo], attrs! {})?;
        let t = e.one(&arith::MIN, &[t, hi], attrs! {})?;
        let n = e.mul(t, log2e)?;
        let n = e.one(&arith::ROUND, &[n], attrs! {})?;
        let r = e.one(&arith::FMA, &[n, ln2_hi, t], attrs! {})?;
        let r = e.one(&arith::FMA, &[n, ln2_lo, r], attrs! {})?;
        let r = e.mul(r, log2e)?;
        let r = e.one(&dialect::EX2, &[r], attrs! {})?;
        let s = e.one(&dialect::EX2, &[n], attrs! {})?;
        e.mul(r, s)
    }

    /// Ops that only say which element is where.
    fn moved(&mut self, op: OpId) -> Result<Val> {
        let (o, x) = (self.src.op(op), self.operand(op, 0)?);
        let y = o.result();
        match self.val(x)? {
            Val::Uniform(v) => return Ok(Val::Uniform(v)),
            Val::Staged(s, turned) if o.def == &tile::TRANSPOSE => {
                return Ok(Val::Staged(s, !turned));
            }
            _ => {}
        }
        let l = self.layout(y)?;
        let (Some((_, sx)), Some((_, sy))) = (tile_of(self.src, x), tile_of(self.src, y)) else {
            bail!(Type, "`{}` is of tiles", o.def.name);
        };
        let (bx, by) = (Bits::of(sx)?, Bits::of(sy)?);
        match o.def.name {
            "tile.reshape" => Ok(Val::Regs(self.regs(x, &l)?)),
            "tile.transpose" => {
                let perm = permutation(o.attrs.ints("perm"));
                let mut back = vec![0; perm.len()];
                perm.iter().enumerate().for_each(|(i, p)| back[*p] = i);
                Ok(Val::Regs(self.regs(x, &l.transposed(&by, &bx, &back))?))
            }
            _ => {
                let axis = silure_ir::infer::norm_axis(o.attrs.int("axis"), sy.len())?;
                let from = l.without(&by, axis);
                let x = self.regs(x, &from)?;
                let (lo, n) = by.axes[axis];
                let y = (0..l.registers()).map(|r| {
                    let e = l.of_register(r);
                    let below = e & ((1 << lo) - 1);
                    x[from.register_of(below | (e >> (lo + n) << lo))]
                });
                Ok(Val::Regs(y.collect()))
            }
        }
    }

    fn run_for(&mut self, op: OpId) -> Result<()> {
        let before = self.used;
        self.rounds_of(op)?;
        self.peak = self.peak.max(self.used);
        self.used = before;
        Ok(())
    }

    fn rounds_of(&mut self, op: OpId) -> Result<()> {
        let o = self.src.op(op);
        self.close()?;
        let bounds = [0, 1, 2].map(|i| self.operand(op, i).and_then(|v| self.scalar(v)));
        let [lo, hi, step] = bounds;
        let (lo, hi, step) = (lo?, hi?, step?);
        let body = o.regions[0];
        let inner = &self.src.region(body).args;
        let (mut init, mut types, mut layouts) = (vec![], vec![Type::Index], vec![]);
        for (&v, &arg) in o.tail().iter().zip(&inner[1..]) {
            let l = self.carried(v, arg, &mut init)?;
            types.extend(init[types.len() - 1..].iter().map(|v| self.e.f.ty(*v).clone()));
            layouts.push(l);
        }
        let mut lo = lo;
        if let Some(begun) = self.pipelined(op, [lo, hi, step], &init, &layouts)? {
            let Some(rest) = begun.rest else {
                self.unpack(&o.results, &layouts, &begun.values);
                return Ok(());
            };
            (lo, init) = (rest, begun.values);
        }
        let r = self.e.f.new_region();
        let args: Vec<ValueId> =
            types.iter().map(|t| self.e.f.add_region_arg(r, t.clone())).collect();
        let outer = std::mem::replace(&mut self.e.region, r);
        self.e.know_counter(args[0], lo, step);
        self.map.insert(inner[0], Val::One(args[0]));
        self.unpack(&inner[1..], &layouts, &args[1..]);
        let yields = self.region(body)?;
        self.yields(&yields, &layouts, &[])?;
        self.e.region = outer;
        self.e.loc = o.loc.clone();
        let all: Vec<ValueId> = [lo, hi, step].into_iter().chain(init).collect();
        let out = self.e.nested(&dialect::FOR, &all, &[r])?;
        self.unpack(&o.results, &layouts, &out);
        Ok(())
    }

    /// Puts the values of `v`, in the layout of `like`, in a list.
    fn carried(
        &mut self,
        v: ValueId,
        like: ValueId,
        out: &mut Vec<ValueId>,
    ) -> Result<Option<Layout>> {
        if !matches!(self.src.ty(v), Type::Tile(_)) {
            out.push(self.scalar(v)?);
            return Ok(None);
        }
        let l = self.layout(like)?;
        out.extend(self.regs(v, &l)?.iter());
        Ok(Some(l))
    }

    fn unpack(&mut self, to: &[ValueId], layouts: &[Option<Layout>], from: &[ValueId]) {
        let mut at = 0;
        for (v, l) in to.iter().zip(layouts) {
            let n = l.as_ref().map_or(1, |l| l.registers());
            let part = &from[at..at + n];
            let val = if l.is_some() { Val::Regs(part.into()) } else { Val::One(part[0]) };
            self.map.insert(*v, val);
            at += n;
        }
    }

    fn yields(
        &mut self,
        values: &[ValueId],
        layouts: &[Option<Layout>],
        more: &[ValueId],
    ) -> Result<()> {
        let mut out = Vec::new();
        for (v, l) in values.iter().zip(layouts) {
            match l {
                Some(l) => out.extend(self.regs(*v, l)?.iter()),
                None => out.push(self.scalar(*v)?),
            }
        }
        let out: Vec<_> = out.iter().chain(more).copied().map(Some).collect();
        self.e.op(&silure_ir::dialects::core::YIELD, &out, Attrs::new())?;
        Ok(())
    }

    fn run_if(&mut self, op: OpId) -> Result<()> {
        let o = self.src.op(op);
        self.close()?;
        let condition = self.scalar(self.operand(op, 0)?)?;
        let layouts: Vec<Option<Layout>> = o
            .results
            .iter()
            .map(|v| match self.src.ty(*v) {
                Type::Tile(_) => self.layout(*v).map(Some),
                _ => Ok(None),
            })
            .collect::<Result<_>>()?;
        let mut regions = Vec::new();
        for &region in &o.regions {
            let r = self.e.f.new_region();
            let outer = std::mem::replace(&mut self.e.region, r);
            let yields = self.region(region)?;
            self.yields(&yields, &layouts, &[])?;
            self.e.region = outer;
            regions.push(r);
        }
        self.e.loc = o.loc.clone();
        let out = self.e.nested(&dialect::IF, &[condition], &regions)?;
        self.unpack(&o.results, &layouts, &out);
        Ok(())
    }
}
