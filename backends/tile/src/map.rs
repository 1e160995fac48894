//! Elementwise loop nests: `kernel.map`.

use std::collections::HashMap;

use silure_ir::dialects::{arith, core, kernel, tile};
use silure_ir::op::Traits;
use silure_ir::{
    Attr, Attrs, Builder, Dim, Elem, Func, FuncKind, Num, OpId, Result, SymDecl, Tensor, Type,
    ValueId, attrs, bail,
};

use crate::space::Space;
use crate::{Arg, Kernel};

/// Elements that a program computes.
const TILE: usize = 1024;
/// Most of them along the last axis, if there is another.
const ROW: usize = 256;

/// The tile kernel `name` of a `kernel.map`.
///
/// The grid has one axis, whose position stands for the tiles of the last two axes of the space and for single
/// positions of the others. What lies outside of a tensor reads as 1, which divides.
///
/// # Errors
/// An op that is no `kernel.map`, or one whose region has ops or types that tiles do not have.
pub fn map(f: &Func, op: OpId, name: &str) -> Result<Kernel> {
    let o = f.op(op);
    if o.def.name != kernel::MAP.name {
        bail!(Unsupported, "`{}` has no tile kernel", o.def.name);
    }
    let region = o.regions[0];
    let shape = o.attrs.dims("shape");
    let mut maps = o.attrs.maps("maps").to_vec();
    let operands: Vec<ValueId> = o.operands().collect();
    let identity: Vec<i64> = (0..shape.len() as i64).collect();
    maps.extend(o.results.iter().map(|_| identity.clone()));
    let space = Space::new(shape, &maps);

    let mut k = Func::new(name, FuncKind::Kernel);
    let mut args = vec![];
    let mut pointers = vec![];
    for (i, v) in operands.iter().chain(o.results.iter()).enumerate() {
        let elem = f.ty(*v).as_tensor().map(|t| t.elem).filter(|e| !e.is_str() && e.bits() >= 8);
        let Some(elem) = elem else {
            bail!(Unsupported, "elements of {} in a tile kernel", f.ty(*v))
        };
        let (name, arg) = match i.checked_sub(operands.len()) {
            None => (format!("x{i}"), Arg::Operand(i)),
            Some(r) => (format!("y{r}"), Arg::Result(r)),
        };
        pointers.push((k.add_arg(&name, Type::Ptr(elem, silure_ir::Space::Global)), elem));
        args.push(arg);
    }
    let mut sizes = vec![];
    for (i, d) in space.axes.iter().enumerate() {
        sizes.push(match d {
            Dim::Const(n) => Size { dim: d.clone(), value: None, fixed: Some(*n) },
            _ => {
                let name = format!("d{i}");
                let (min, max) = d.bounds(&|s| f.symbol_range(s));
                k.declare(SymDecl { min: min.max(0), max, ..SymDecl::new(&name) });
                let value = Some(k.add_arg(&name, Type::Index));
                args.push(Arg::Size(d.clone()));
                Size { dim: Dim::sym(&name), value, fixed: None }
            }
        });
    }
    let tiles = tiles(&space.axes);
    let count = |(s, t): (&Size, &usize)| match t {
        1 => s.dim.clone(),
        t => s.dim.ceildiv(&Dim::from(*t)),
    };
    let grid = sizes.iter().zip(&tiles).map(count).fold(Dim::Const(1), |n, d| n * d);
    k.attrs.set("grid", Attr::Dims(vec![grid]));

    let mut b = Builder::at_end(&mut k);
    b.loc = o.loc.clone();
    let mut w = Writer { b, sizes, tiles, offsets: vec![], numbers: HashMap::new() };
    w.place()?;
    let mut known: HashMap<ValueId, ValueId> = HashMap::new();
    for (i, a) in f.region(region).args.iter().enumerate() {
        known.insert(*a, w.load(pointers[i], &space.operands[i])?);
    }
    for &inner in &f.region(region).ops {
        let op = f.op(inner);
        w.b.loc = op.loc.clone();
        if op.def.name == core::YIELD.name {
            for (i, v) in op.operands().enumerate() {
                let at = operands.len() + i;
                w.store(pointers[at].0, known[&v], &space.operands[at])?;
            }
            continue;
        }
        if op.def.is(Traits::CONSTANT) {
            let Some(t) = op.attrs.tensor("value") else { bail!(Internal, "a constant's value") };
            let v = w.number(t.elem(), t.get(0))?;
            known.insert(op.result(), w.full(v)?);
            continue;
        }
        if !op.def.is(Traits::ELEMENTWISE) {
            bail!(Unsupported, "`{}` in a tile kernel", op.def.name);
        }
        let of: Vec<Option<ValueId>> = op.slots().map(|v| v.map(|v| known[&v])).collect();
        let made = w.b.build(op.def, &of, op.attrs.clone(), &[], &[])?;
        let made = w.b.func.op(made).results.to_vec();
        known.extend(op.results.iter().copied().zip(made));
    }
    w.b.ret(&[])?;
    Ok(Kernel { func: k, args })
}

/// A size of the space: over the kernel's symbols, its argument, its value if it is fixed.
struct Size {
    dim: Dim,
    value: Option<ValueId>,
    fixed: Option<i64>,
}

/// Elements of a program's tile along each axis: powers of two along the last two, elsewhere 1.
fn tiles(axes: &[Dim]) -> Vec<usize> {
    let up_to = |d: &Dim, most: usize| match d {
        Dim::Const(n) => usize::try_from(*n).unwrap_or(1).clamp(1, most).next_power_of_two(),
        _ => most,
    };
    let mut tiles = vec![1; axes.len()];
    match axes {
        [only] => tiles[0] = up_to(only, TILE),
        [.., down, across] => {
            let n = axes.len();
            tiles[n - 1] = up_to(across, ROW);
            tiles[n - 2] = up_to(down, TILE / tiles[n - 1]);
        }
        [] => {}
    }
    tiles
}

/// A kernel that is being written.
struct Writer<'a> {
    b: Builder<'a>,
    sizes: Vec<Size>,
    tiles: Vec<usize>,
    /// Where the program's tile begins along each axis.
    offsets: Vec<ValueId>,
    /// Scalars that are there.
    numbers: HashMap<(Elem, u64), ValueId>,
}

impl Writer<'_> {
    fn number(&mut self, elem: Elem, n: Num) -> Result<ValueId> {
        let value = Attrs::new().with("value", Attr::Tensor(Tensor::scalar(elem, n).into()));
        self.b.typed(&core::SCALAR, [], value, Type::Scalar(elem))
    }

    fn index(&mut self, n: i64) -> Result<ValueId> {
        let key = (Elem::I64, n as u64);
        if let Some(v) = self.numbers.get(&key) {
            return Ok(*v);
        }
        let t = Tensor::scalar(Elem::I64, Num::I(n as i128));
        let value = Attrs::new().with("value", Attr::Tensor(t.into()));
        let v = self.b.typed(&core::SCALAR, [], value, Type::Index)?;
        self.numbers.insert(key, v);
        Ok(v)
    }

    fn size(&mut self, axis: usize) -> Result<ValueId> {
        match (self.sizes[axis].value, self.sizes[axis].fixed) {
            (Some(v), _) => Ok(v),
            (None, n) => self.index(n.unwrap_or(1)),
        }
    }

    /// Where the program's tile is: its position in the grid, split into those of the axes.
    fn place(&mut self) -> Result<()> {
        let mut left = self.b.one(&tile::PROGRAM_ID, [], attrs! {})?;
        let mut offsets = vec![];
        for axis in (0..self.sizes.len()).rev() {
            let (size, t) = (self.size(axis)?, self.tiles[axis] as i64);
            let tile = self.index(t)?;
            let mut at = left;
            if axis > 0 {
                let count = match t {
                    1 => size,
                    _ => {
                        let more = self.index(t - 1)?;
                        let sum = self.b.one(&arith::ADD, [size, more], attrs! {})?;
                        self.b.one(&arith::FLOORDIV, [sum, tile], attrs! {})?
                    }
                };
                at = self.b.one(&arith::MOD, [left, count], attrs! {})?;
                left = self.b.one(&arith::FLOORDIV, [left, count], attrs! {})?;
            }
            offsets.push(match t {
                1 => at,
                _ => self.b.one(&arith::MUL, [at, tile], attrs! {})?,
            });
        }
        offsets.reverse();
        self.offsets = offsets;
        Ok(())
    }

    /// The axes that a tile spans: the last two of more than one element.
    fn spanned(&self) -> Vec<usize> {
        (0..self.tiles.len()).filter(|a| a + 2 >= self.tiles.len()).collect()
    }

    fn shape(&self) -> Vec<usize> {
        self.spanned().iter().map(|a| self.tiles[*a]).collect()
    }

    /// The view of a tensor whose axes are these of the space.
    fn view(&mut self, base: ValueId, axes: &[usize]) -> Result<ValueId> {
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
                    _ => self.b.one(&arith::MUL, [stride, *s], attrs! {})?,
                };
            }
        }
        strides.reverse();
        self.b.one(&tile::VIEW, [base].into_iter().chain(sizes).chain(strides), attrs! {})
    }

    /// Offsets of an operand's axes, and the positions among them of those that a tile spans.
    fn access(&self, axes: &[usize]) -> (Vec<ValueId>, Vec<i64>) {
        let spanned = self.spanned();
        let at = axes.iter().map(|a| self.offsets[*a]).collect();
        let within = (0..axes.len()).filter(|i| spanned.contains(&axes[*i]));
        (at, within.map(|i| i as i64).collect())
    }

    /// A tile of the program's shape out of an operand.
    fn load(&mut self, (base, _): (ValueId, Elem), axes: &[usize]) -> Result<ValueId> {
        if axes.is_empty() {
            let (zero, one) = (self.index(0)?, self.index(1)?);
            let view = self.b.one(&tile::VIEW, [base, one, one], attrs! {})?;
            let none = attrs! { tile: Vec::<i64>::new(), pad: 1.0 };
            let x = self.b.one(&tile::LOAD, [view, zero], none)?;
            return self.full(x);
        }
        let view = self.view(base, axes)?;
        let (at, within) = self.access(axes);
        let own: Vec<usize> = within.iter().map(|i| axes[*i as usize]).collect();
        let shape: Vec<i64> = own.iter().map(|a| self.tiles[*a] as i64).collect();
        let form = attrs! { tile: shape, axes: within, pad: 1.0 };
        let mut x = self.b.one(&tile::LOAD, [view].into_iter().chain(at), form)?;
        if own.is_empty() {
            return self.full(x);
        }
        if !own.is_sorted() {
            x = self.b.one(&tile::TRANSPOSE, [x], attrs! { perm: vec![1i64, 0] })?;
        }
        for (i, a) in self.spanned().into_iter().enumerate() {
            if !own.contains(&a) {
                let form = attrs! { axis: i as i64, size: self.tiles[a] as i64 };
                x = self.b.one(&tile::BROADCAST, [x], form)?;
            }
        }
        Ok(x)
    }

    fn full(&mut self, x: ValueId) -> Result<ValueId> {
        let shape: Vec<i64> = self.shape().iter().map(|n| *n as i64).collect();
        self.b.one(&tile::FULL, [x], attrs! { shape: shape })
    }

    fn store(&mut self, base: ValueId, value: ValueId, axes: &[usize]) -> Result<()> {
        // A result has every axis of more than one element; a space of one element has a view of it.
        let all: Vec<usize> = if axes.is_empty() { vec![0] } else { axes.to_vec() };
        let view = self.view(base, &all)?;
        let (at, within) = self.access(&all);
        let operands: Vec<ValueId> = [view, value].into_iter().chain(at).collect();
        self.b.op(&tile::STORE, operands, attrs! { axes: within })?;
        Ok(())
    }
}
