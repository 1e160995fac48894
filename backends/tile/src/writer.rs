//! A tile kernel under construction: arguments, the program's place in the iteration space, loads and stores of
//! operands that follow some of its axes, and regions on scalars as ops on tiles.

use std::collections::HashMap;

use silure_ir::dialects::{arith, core, tile};
use silure_ir::op::Traits;
use silure_ir::{
    Attr, Attrs, Builder, Dim, Elem, Func, FuncKind, Loc, Num, OpDef, RegionId, Result, SymDecl,
    Tensor, Type, ValueId, attrs, bail,
};

use crate::{Arg, Kernel};

/// A size of an axis: over the kernel's symbols and over those of the op's function, and the argument that holds it if
/// it is not fixed.
struct Size {
    dim: Dim,
    of: Dim,
    fixed: i64,
    value: Option<ValueId>,
}

/// How a kernel is called, and whether it reports what is wrong.
#[derive(Clone, Copy)]
pub(crate) struct Title<'a> {
    pub name: &'a str,
    pub reports: bool,
    /// Of the target: how many programs run side by side at least.
    pub cores: i64,
}

impl<'a> Title<'a> {
    /// Of a kernel that has nothing to report.
    pub fn plain(name: &'a str) -> Title<'a> {
        Title { name, reports: false, cores: 1 }
    }
}

/// The writer. A program makes a tile of the last two axes of the space (of the only one), and one position of each
/// other axis.
pub(crate) struct Writer {
    func: Func,
    args: Vec<Arg>,
    grid: Dim,
    region: RegionId,
    loc: Loc,
    sizes: Vec<Size>,
    /// Elements of a tile along each axis of the space.
    tiles: Vec<usize>,
    /// Where the program's tile begins along each axis.
    offsets: Vec<ValueId>,
    /// Indices of the function's body that are there.
    numbers: HashMap<i64, ValueId>,
    reports: bool,
    /// The shape of tiles of positions, and those that are constants.
    pub(crate) lane: Vec<i64>,
    pub(crate) known: HashMap<ValueId, i64>,
    /// Arguments that are no sizes of axes: what they hold.
    others: Vec<(Dim, ValueId)>,
}

impl Writer {
    /// A kernel without arguments.
    pub fn new(title: Title) -> Writer {
        let func = Func::new(title.name, FuncKind::Kernel);
        let region = func.body;
        Writer {
            func,
            args: vec![],
            grid: Dim::Const(1),
            region,
            loc: Loc::Unknown,
            sizes: vec![],
            tiles: vec![],
            offsets: vec![],
            numbers: HashMap::new(),
            reports: title.reports,
            lane: vec![],
            known: HashMap::new(),
            others: vec![],
        }
    }

    /// What follows belongs to this place of the user's model.
    pub fn at(&mut self, loc: &Loc) {
        self.loc = loc.clone();
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut Builder) -> Result<T>) -> Result<T> {
        let mut b = Builder::in_region(&mut self.func, self.region);
        b.loc = self.loc.clone();
        f(&mut b)
    }

    /// An op with one result.
    pub fn one(&mut self, def: &'static OpDef, of: &[ValueId], a: Attrs) -> Result<ValueId> {
        self.with(|b| b.one(def, of.iter().copied(), a))
    }

    /// An op without results.
    pub fn effect(&mut self, def: &'static OpDef, of: &[ValueId]) -> Result<()> {
        self.with(|b| b.op(def, of.iter().copied(), attrs! {})).map(|_| ())
    }

    /// Writes a tile where a view and offsets say.
    pub fn keep(&mut self, of: &[ValueId], a: Attrs) -> Result<()> {
        self.with(|b| b.op(&tile::STORE, of.iter().copied(), a)).map(|_| ())
    }

    /// The word for reports, if there are any.
    pub fn word(&mut self) {
        if self.reports {
            self.args.push(Arg::Status);
            self.func.add_arg("status", Type::Ptr(Elem::U32, silure_ir::Space::Global));
        }
    }

    /// Reports a code where the condition does not hold, of elements that are there.
    pub fn demand(&mut self, holds: ValueId, there: Option<ValueId>, code: i64) -> Result<()> {
        if !self.reports {
            return Ok(());
        }
        let Some(i) = self.args.iter().position(|a| *a == Arg::Status) else {
            bail!(Internal, "a report without a word")
        };
        let word = self.func.args()[i];
        let mut wrong = self.one(&arith::NOT, &[holds], attrs! {})?;
        if let Some(there) = there {
            wrong = self.one(&arith::AND, &[wrong, there], attrs! {})?;
        }
        let a = attrs! { code: code };
        self.with(|b| b.op(&tile::REPORT, [word, wrong], a)).map(|_| ())
    }

    /// Asks for more threads than a tile of that many elements gets by itself: those whose positions are computed.
    pub fn spread_over(&mut self, elements: usize) {
        self.func.attrs.set("warps", (elements / 512).clamp(1, 8) as i64);
    }

    /// Asks for that many warps.
    pub fn warps(&mut self, n: i64) {
        self.func.attrs.set("warps", n);
    }

    /// The elements of a tile or scalar.
    pub fn elem(&self, v: ValueId) -> Option<Elem> {
        self.func.ty(v).elem()
    }

    /// The argument that holds a size already.
    pub fn given(&self, d: &Dim) -> Option<ValueId> {
        let size = self.sizes.iter().find(|s| s.of == *d).and_then(|s| s.value);
        size.or_else(|| self.others.iter().find(|o| o.0 == *d).map(|o| o.1))
    }

    /// An argument for a number over the symbols of the op's function, of any sign.
    pub fn number(&mut self, d: &Dim) -> ValueId {
        let name = format!("i{}", self.others.len());
        self.args.push(Arg::Size(d.clone()));
        let v = self.func.add_arg(&name, Type::Index);
        self.others.push((d.clone(), v));
        v
    }

    /// The pointer to an operand or result of the op.
    pub fn pointer(&mut self, arg: Arg, ty: &Type) -> Result<ValueId> {
        let elem = ty.as_tensor().map(|t| t.elem).filter(|e| !e.is_str() && e.bits() >= 8);
        let Some(elem) = elem else { bail!(Unsupported, "{ty} in a tile kernel") };
        let name = match &arg {
            Arg::Operand(i) => format!("x{i}"),
            Arg::Result(i) => format!("y{i}"),
            // By their order, so that ops of equal kinds have kernels of equal text.
            Arg::Value(_) => {
                let before = self.args.iter().filter(|a| matches!(a, Arg::Value(_)));
                format!("w{}", before.count())
            }
            Arg::Workspace(i, _) => format!("between{i}"),
            Arg::Size(_) | Arg::Status => bail!(Internal, "{arg:?} is no tensor"),
        };
        self.args.push(arg);
        Ok(self.func.add_arg(&name, Type::Ptr(elem, silure_ir::Space::Global)))
    }

    /// One more axis, of a size over the symbols of `from`; gives its number.
    pub fn axis(&mut self, from: &Func, d: &Dim) -> usize {
        let i = self.sizes.len();
        let size = match d {
            Dim::Const(n) => Size { dim: d.clone(), of: d.clone(), fixed: *n, value: None },
            _ => {
                if let Some(s) = self.sizes.iter().find(|s| s.of == *d) {
                    let again = Size { dim: s.dim.clone(), of: d.clone(), ..*s };
                    self.sizes.push(again);
                    return i;
                }
                let name = format!("d{i}");
                let (min, max) = d.bounds(&|s| from.symbol_range(s));
                self.func.declare(SymDecl { min: min.max(0), max, ..SymDecl::new(&name) });
                self.args.push(Arg::Size(d.clone()));
                let value = Some(self.func.add_arg(&name, Type::Index));
                Size { dim: Dim::sym(&name), of: d.clone(), fixed: 0, value }
            }
        };
        self.sizes.push(size);
        i
    }

    /// An axis in front of the others, if there is one: 1 or 0 axes.
    pub fn lead(&mut self, from: &Func, d: Option<&Dim>) -> usize {
        d.map(|d| self.axis(from, d)).is_some() as usize
    }

    /// An index.
    pub fn index(&mut self, n: i64) -> Result<ValueId> {
        if let Some(v) = self.numbers.get(&n) {
            return Ok(*v);
        }
        let t = Tensor::scalar(Elem::I64, Num::I(n as i128));
        let value = Attrs::new().with("value", Attr::Tensor(t.into()));
        let v = self.with(|b| b.typed(&core::SCALAR, [], value, Type::Index))?;
        if self.region == self.func.body {
            self.numbers.insert(n, v);
        }
        Ok(v)
    }

    /// A tile of the program's shape of one number.
    pub fn filled(&mut self, elem: Elem, n: Num) -> Result<ValueId> {
        let v = self.scalar(elem, n)?;
        self.full(v)
    }

    /// A number.
    pub fn scalar(&mut self, elem: Elem, n: Num) -> Result<ValueId> {
        let value = Attrs::new().with("value", Attr::Tensor(Tensor::scalar(elem, n).into()));
        self.with(|b| b.typed(&core::SCALAR, [], value, Type::Scalar(elem)))
    }

    /// The size of the last axis.
    pub fn walked(&mut self) -> Result<ValueId> {
        self.size(self.tiles.len() - 1)
    }

    /// Rows and columns of the program's tile.
    pub fn extents(&self) -> [usize; 2] {
        let n = self.tiles.len();
        [self.tiles[n - 2], self.tiles[n - 1]]
    }

    /// The size of an axis.
    pub fn size(&mut self, axis: usize) -> Result<ValueId> {
        match self.sizes[axis].value {
            Some(v) => Ok(v),
            None => self.index(self.sizes[axis].fixed),
        }
    }

    /// The grid over the axes so far, and where in it the program is: its position split into those of the axes. With
    /// `walked` the program goes along the last axis itself ([`Writer::along`]).
    pub fn place(&mut self, tiles: Vec<usize>, walked: bool) -> Result<()> {
        let count = |d: &Dim, t: usize| if t == 1 { d.clone() } else { d.ceildiv(&Dim::from(t)) };
        let split = tiles.len() - walked as usize;
        let all = |of: &dyn Fn(&Size) -> Dim| {
            let axes = self.sizes.iter().zip(&tiles).take(split);
            axes.map(|(s, t)| count(&of(s), *t)).fold(Dim::Const(1), |n, d| n * d)
        };
        self.grid = all(&|s| s.of.clone());
        let grid = all(&|s| s.dim.clone());
        self.func.attrs.set("grid", Attr::Dims(vec![grid]));
        let mut left = self.one(&tile::PROGRAM_ID, &[], attrs! {})?;
        if walked {
            let none = self.index(0)?;
            self.offsets.push(none);
        }
        for axis in (0..split).rev() {
            let (size, t) = (self.size(axis)?, tiles[axis] as i64);
            let tile = self.index(t)?;
            let mut at = left;
            if axis > 0 {
                let count = match t {
                    1 => size,
                    _ => {
                        let more = self.index(t - 1)?;
                        let sum = self.one(&arith::ADD, &[size, more], attrs! {})?;
                        self.one(&arith::FLOORDIV, &[sum, tile], attrs! {})?
                    }
                };
                at = self.one(&arith::MOD, &[left, count], attrs! {})?;
                left = self.one(&arith::FLOORDIV, &[left, count], attrs! {})?;
            }
            let offset = match t {
                1 => at,
                _ => self.one(&arith::MUL, &[at, tile], attrs! {})?,
            };
            self.offsets.push(offset);
        }
        self.offsets.reverse();
        self.tiles = tiles;
        Ok(())
    }

    /// Where the program's tile begins along an axis of the space.
    pub fn offset(&self, axis: usize) -> ValueId {
        self.offsets[axis]
    }

    /// The axes that a tile spans.
    fn spanned(&self) -> std::ops::Range<usize> {
        self.tiles.len().saturating_sub(2)..self.tiles.len()
    }

    /// The dense tensor at `base` whose axes are these.
    pub fn view(&mut self, base: ValueId, axes: &[usize]) -> Result<ValueId> {
        let mut sizes = vec![];
        for a in axes {
            sizes.push(self.size(*a)?);
        }
        let mut strides = vec![];
        let mut stride = self.index(1)?;
        for (i, s) in sizes.iter().enumerate().rev() {
            strides.push(stride);
            if i > 0 {
                stride = match strides.len() {
                    1 => *s,
                    _ => self.one(&arith::MUL, &[stride, *s], attrs! {})?,
                };
            }
        }
        strides.reverse();
        let operands: Vec<ValueId> = [base].into_iter().chain(sizes).chain(strides).collect();
        self.one(&tile::VIEW, &operands, attrs! {})
    }

    /// Offsets of axes of the space, and the positions of those that a tile spans.
    fn access(&self, axes: &[usize]) -> (Vec<ValueId>, Vec<i64>) {
        let at = axes.iter().map(|a| self.offsets[*a]).collect();
        let within = (0..axes.len()).filter(|i| self.spanned().contains(&axes[*i]));
        (at, within.map(|i| i as i64).collect())
    }

    /// A tile of the program's shape out of an operand that follows these axes. What lies outside reads as `pad`.
    pub fn load(&mut self, base: ValueId, axes: &[usize], pad: f64) -> Result<ValueId> {
        if axes.is_empty() {
            let (zero, one) = (self.index(0)?, self.index(1)?);
            let view = self.one(&tile::VIEW, &[base, one, one], attrs! {})?;
            let none = attrs! { tile: Vec::<i64>::new(), pad: pad };
            let x = self.one(&tile::LOAD, &[view, zero], none)?;
            return self.full(x);
        }
        let view = self.view(base, axes)?;
        let (at, within) = self.access(axes);
        let own: Vec<usize> = within.iter().map(|i| axes[*i as usize]).collect();
        let shape: Vec<i64> = own.iter().map(|a| self.tiles[*a] as i64).collect();
        let operands: Vec<ValueId> = [view].into_iter().chain(at).collect();
        let form = attrs! { tile: shape, axes: within, pad: pad };
        let mut x = self.one(&tile::LOAD, &operands, form)?;
        if own.is_empty() {
            return self.full(x);
        }
        if !own.is_sorted() {
            x = self.one(&tile::TRANSPOSE, &[x], attrs! { perm: vec![1i64, 0] })?;
        }
        for (i, a) in self.spanned().enumerate() {
            if !own.contains(&a) {
                let form = attrs! { axis: i as i64, size: self.tiles[a] as i64 };
                x = self.one(&tile::BROADCAST, &[x], form)?;
            }
        }
        Ok(x)
    }

    fn full(&mut self, x: ValueId) -> Result<ValueId> {
        let shape: Vec<i64> = self.spanned().map(|a| self.tiles[a] as i64).collect();
        self.one(&tile::FULL, &[x], attrs! { shape: shape })
    }

    /// Writes the program's tile of a result that has these axes.
    pub fn store(&mut self, base: ValueId, value: ValueId, axes: &[usize]) -> Result<()> {
        // A space of one element has an axis of it.
        let all = if axes.is_empty() { &[0][..] } else { axes };
        let view = self.view(base, all)?;
        let (at, within) = self.access(all);
        let operands: Vec<ValueId> = [view, value].into_iter().chain(at).collect();
        self.with(|b| b.op(&tile::STORE, operands, attrs! { axes: within })).map(|_| ())
    }

    /// A loop from 0 to `size` by `step` that carries values.
    pub fn fold(
        &mut self,
        size: ValueId,
        step: i64,
        first: &[ValueId],
        round: impl FnOnce(&mut Writer, ValueId, &[ValueId]) -> Result<Vec<ValueId>>,
    ) -> Result<Vec<ValueId>> {
        let zero = self.index(0)?;
        self.range([zero, size], step, first, round)
    }

    /// The same from one index to another.
    pub fn range(
        &mut self,
        [from, to]: [ValueId; 2],
        step: i64,
        first: &[ValueId],
        round: impl FnOnce(&mut Writer, ValueId, &[ValueId]) -> Result<Vec<ValueId>>,
    ) -> Result<Vec<ValueId>> {
        let step = self.index(step)?;
        let region = self.func.new_region();
        let at = self.func.add_region_arg(region, Type::Index);
        let mut carried = vec![];
        for v in first {
            let ty = self.func.ty(*v).clone();
            carried.push(self.func.add_region_arg(region, ty));
        }
        let around = std::mem::replace(&mut self.region, region);
        let next = round(self, at, &carried);
        let done = next.and_then(|v| self.with(|b| b.op(&core::YIELD, v, attrs! {})));
        self.region = around;
        done?;
        let operands: Vec<Option<ValueId>> =
            [from, to, step].iter().chain(first).map(|v| Some(*v)).collect();
        let op = self.with(|b| b.build(&tile::FOR, &operands, attrs! {}, &[region], &[]))?;
        Ok(self.func.op(op).results.to_vec())
    }

    /// A loop over the tiles of the last axis, which the grid leaves out; carries values.
    pub fn along(
        &mut self,
        first: &[ValueId],
        round: impl FnOnce(&mut Writer, ValueId, &[ValueId]) -> Result<Vec<ValueId>>,
    ) -> Result<Vec<ValueId>> {
        let last = self.tiles.len() - 1;
        let (size, step) = (self.size(last)?, self.tiles[last] as i64);
        self.fold(size, step, first, |w, at, carried| {
            w.offsets[last] = at;
            round(w, at, carried)
        })
    }

    /// The ops of a region on scalars, applied to tiles; gives what it yields.
    pub fn apply(
        &mut self,
        from: &Func,
        region: RegionId,
        args: &[ValueId],
    ) -> Result<Vec<ValueId>> {
        let r = from.region(region);
        let mut known: HashMap<ValueId, ValueId> =
            r.args.iter().copied().zip(args.iter().copied()).collect();
        for &inner in &r.ops {
            let op = from.op(inner);
            self.at(&op.loc);
            if op.def.name == core::YIELD.name {
                return Ok(op.operands().map(|v| known[&v]).collect());
            }
            if op.def.is(Traits::CONSTANT) {
                let Some(t) = op.attrs.tensor("value") else {
                    bail!(Internal, "a constant's value")
                };
                let v = self.filled(t.elem(), t.get(0))?;
                known.insert(op.result(), v);
                continue;
            }
            if !op.def.is(Traits::ELEMENTWISE) {
                bail!(Unsupported, "`{}` in a tile kernel", op.def.name);
            }
            let of: Vec<Option<ValueId>> = op.slots().map(|v| v.map(|v| known[&v])).collect();
            let made = self.with(|b| b.build(op.def, &of, op.attrs.clone(), &[], &[]))?;
            let made = self.func.op(made).results.to_vec();
            known.extend(op.results.iter().copied().zip(made));
        }
        bail!(Internal, "a region without a yield")
    }

    /// The finished kernel.
    pub fn done(mut self) -> Result<Kernel> {
        if !self.args.is_sorted_by_key(|a| matches!(a, Arg::Size(_))) {
            bail!(Internal, "a pointer behind a size");
        }
        self.with(|b| b.ret(&[]))?;
        Ok(Kernel { func: self.func, args: self.args, grid: self.grid })
    }
}

/// The power of two that covers a size, at most `most`.
pub(crate) fn cover(d: &Dim, most: usize) -> usize {
    match d {
        Dim::Const(n) => usize::try_from(*n).unwrap_or(1).clamp(1, most).next_power_of_two(),
        _ => most,
    }
}
