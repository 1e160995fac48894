//! The oracle of tile kernels: runs a whole grid on byte buffers.
//!
//! Programs run one after another in a seeded random order, so a kernel that depends on the order gives
//! different results for different seeds. Checked at every access, and reported with the op's location:
//!
//! * the element lies in its buffer;
//! * no element is written by two programs, or written by one and read by another (a race);
//! * an [`KernelArg::Output`] is not read where nothing was written yet. It starts as bytes 0xFF: NaN in
//!   every floating-point format.
//!
//! Numbers: elementwise ops, sums and scans round once, at the op's result; `tile.dot` adds the exact
//! products to the accumulator and rounds once. A target that adds in another order is held to the
//! tolerance class of the op, not to these bits.
//!
//! ```
//! use silure_ir::{Context, text, dialects::tile::*};
//! let source = r#"module @m {
//!   kernel @twice<n: 1..>(%x: ptr<f32, global>, %y: ptr<f32, global>, %n: index) {grid = dims[floordiv(n + 3, 4)]} {
//!     %one = scalar {value = dense<i64[]: 1>} : index
//!     %four = scalar {value = dense<i64[]: 4>} : index
//!     %xv = tile.view %x, %n, %one : view<f32, 1>
//!     %yv = tile.view %y, %n, %one : view<f32, 1>
//!     %p = tile.program_id : index
//!     %at = arith.mul %p, %four : index
//!     %t = tile.load %xv, %at {tile = [4]} : tile<4xf32>
//!     %u = arith.add %t, %t : tile<4xf32>
//!     tile.store %yv, %u, %at
//!     return
//!   }
//! }"#;
//! let m = text::parse_verified(&Context::new(), "m.sir", source).unwrap();
//! let x: Vec<u8> = (0..5).flat_map(|i| (i as f32).to_le_bytes()).collect();
//! let mut args = [KernelArg::Buffer(x), KernelArg::Output(vec![0; 20]), KernelArg::Index(5)];
//! let report = run_kernel(&m.funcs[0], &mut args, &Options::default()).unwrap();
//! assert_eq!((report.programs, report.unwritten), (2, 0));
//! assert_eq!(args[1].bytes()[16..20], 8f32.to_le_bytes());
//! ```

mod memory;
mod value;

use memory::{Buffer, ViewValue};
use value::{Data, Value};

use silure_types::Elem;

use super::facts::{Facts, accesses};
use super::kernel::{check_kernel, grid_of, symbol_args};
use crate::bail;
use crate::diag::{Code, Diagnostic, Result};
use crate::func::{Func, OpId, RegionId, ValueId, slot};
use crate::op::{ScalarCx, Traits};
use crate::tensor::Num;
use crate::types::Type;

/// One argument of a kernel.
#[derive(Clone, PartialEq, Debug)]
pub enum KernelArg {
    /// Memory with contents, read and written in place. Buffers of different arguments do not overlap.
    Buffer(Vec<u8>),
    /// Memory without contents: poisoned at the start, an error to read before it is written.
    Output(Vec<u8>),
    /// A size or position.
    Index(i64),
    /// A scalar; rounded to the argument's element type.
    Scalar(Num),
}

impl KernelArg {
    /// The bytes of a buffer; empty for sizes and scalars.
    pub fn bytes(&self) -> &[u8] {
        match self {
            KernelArg::Buffer(b) | KernelArg::Output(b) => b,
            KernelArg::Index(_) | KernelArg::Scalar(_) => &[],
        }
    }
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides the order of programs.
    pub seed: u64,
    /// The most programs of a grid.
    pub programs: u64,
    /// The most ops executed, over all programs.
    pub ops: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { seed: 0, programs: 1 << 20, ops: 1 << 32 }
    }
}

/// What a run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// Programs run.
    pub programs: u64,
    /// Ops executed, over all programs.
    pub ops: u64,
    /// Elements of [`KernelArg::Output`] buffers that nothing wrote.
    pub unwritten: u64,
}

/// Runs a verified kernel on its whole grid. The buffers in `args` are changed in place; after an error
/// they hold what was written until then.
pub fn run_kernel(f: &Func, args: &mut [KernelArg], options: &Options) -> Result<Report> {
    check_kernel(f)?;
    if args.len() != f.args().len() {
        return Err(Diagnostic::new(
            Code::Eval,
            format!("wrong number of arguments for @{}", f.name),
        )
        .need(f.args().len(), args.len()));
    }
    let grid = bind_grid(f, args)?;
    let total = grid.iter().try_fold(1u64, |a, &d| a.checked_mul(d as u64));
    let most = options.programs.min(1 << 31);
    let Some(total) = total.filter(|&n| n <= most) else {
        bail!(Limit, "the grid {grid:?} has more than {most} programs");
    };
    let mut machine = Machine {
        f,
        buffers: Vec::new(),
        values: vec![None; f.value_slots()],
        inside: vec![Vec::new(); f.op_slots()],
        grid,
        at: [0; 3],
        program: 0,
        ops: 0,
        most_ops: options.ops,
    };
    for (i, (v, a)) in f.args().iter().zip(args.iter_mut()).enumerate() {
        machine.bind(*v, a).map_err(|e| e.note(format!("argument `{}`", f.arg_names[i])))?;
    }
    for (op, _, inside) in accesses(f, &Facts::new(f)?)? {
        machine.inside[slot(op)] = inside;
    }
    let outcome = machine.run_all(total, options.seed);
    let (ops, mut buffers) = (machine.ops, machine.buffers.into_iter());
    let mut unwritten = 0;
    for a in args.iter_mut() {
        if let KernelArg::Buffer(b) | KernelArg::Output(b) = a
            && let Some(done) = buffers.next()
        {
            unwritten += done.unwritten();
            *b = done.into_bytes();
        }
    }
    outcome?;
    Ok(Report { programs: total, ops, unwritten })
}

/// The grid under the arguments, which are checked against the symbols' ranges.
fn bind_grid(f: &Func, args: &[KernelArg]) -> Result<[i64; 3]> {
    let symbols = symbol_args(f);
    let value = |name: &str| {
        let (_, arg) = symbols.iter().find(|(s, _)| *s.name == *name)?;
        match args.get((*arg)?)? {
            KernelArg::Index(v) => Some(*v),
            _ => None,
        }
    };
    for (s, _) in &symbols {
        let Some(v) = value(&s.name) else { bail!(Eval, "argument `{}` is not a size", s.name) };
        if v < s.min || v > s.max || v % s.multiple != 0 {
            let m = format!("argument `{}` is out of range", s.name);
            return Err(Diagnostic::new(Code::Eval, m).need(s, v));
        }
    }
    let mut grid = [1; 3];
    for (g, d) in grid.iter_mut().zip(grid_of(f)?) {
        match d.eval(&value) {
            Some(v) if v >= 0 => *g = v,
            _ => bail!(Eval, "the grid size `{d}` is negative or overflows"),
        }
    }
    Ok(grid)
}

/// The state of a run: shared buffers, and the values of the program that runs.
struct Machine<'a> {
    f: &'a Func,
    buffers: Vec<Buffer>,
    values: Vec<Option<Value>>,
    /// Per access, the axes that analysis shows to be inside.
    inside: Vec<Vec<bool>>,
    grid: [i64; 3],
    at: [i64; 3],
    program: u32,
    ops: u64,
    most_ops: u64,
}

impl Machine<'_> {
    fn bind(&mut self, v: ValueId, a: &mut KernelArg) -> Result<()> {
        let value = match (self.f.ty(v), a) {
            (Type::Ptr(e, _), KernelArg::Buffer(b)) => {
                self.buffers.push(Buffer::new(*e, std::mem::take(b), true)?);
                Value::Ptr(self.buffers.len() - 1)
            }
            (Type::Ptr(e, _), KernelArg::Output(b)) => {
                b.fill(0xFF);
                self.buffers.push(Buffer::new(*e, std::mem::take(b), false)?);
                Value::Ptr(self.buffers.len() - 1)
            }
            (Type::Index, KernelArg::Index(i)) => Value::Index(*i),
            (Type::Scalar(e), KernelArg::Scalar(n)) => Value::Data(Data::scalar(*e, *n)),
            (t, a) => {
                let present = match a {
                    KernelArg::Buffer(_) | KernelArg::Output(_) => "a buffer",
                    KernelArg::Index(_) => "an index",
                    KernelArg::Scalar(_) => "a scalar",
                };
                let m = "an argument of the wrong kind";
                return Err(Diagnostic::new(Code::Eval, m).need(t, present));
            }
        };
        self.set(v, value);
        Ok(())
    }

    fn run_all(&mut self, total: u64, seed: u64) -> Result<()> {
        // Fisher–Yates over the linear program numbers.
        let mut order: Vec<u32> = (0..total as u32).collect();
        let mut state = seed;
        for i in (1..order.len()).rev() {
            let j = (split_mix(&mut state) % (i as u64 + 1)) as usize;
            order.swap(i, j);
        }
        for n in order {
            let (gx, gy) = (self.grid[0] as u32, self.grid[1] as u32);
            self.program = n;
            self.at = [n % gx, n / gx % gy, n / gx / gy].map(i64::from);
            let at = self.at;
            self.region(self.f.body, vec![])
                .map_err(|e| e.note(format!("in program {at:?} of @{}", self.f.name)))?;
        }
        Ok(())
    }

    fn set(&mut self, v: ValueId, value: Value) {
        self.values[slot(v)] = Some(value);
    }

    fn get(&self, v: ValueId) -> Result<&Value> {
        match &self.values[slot(v)] {
            Some(v) => Ok(v),
            None => bail!(Internal, "a value is used before it is computed"),
        }
    }

    fn data(&self, v: ValueId) -> Result<&Data> {
        match self.get(v)? {
            Value::Data(d) => Ok(d),
            other => bail!(Internal, "a tile or scalar was needed, {} is present", other.kind()),
        }
    }

    fn index(&self, v: ValueId) -> Result<i64> {
        match self.get(v)? {
            Value::Index(i) => Ok(*i),
            other => bail!(Internal, "an index was needed, {} is present", other.kind()),
        }
    }

    fn indices(&self, vs: &[ValueId]) -> Result<Vec<i64>> {
        vs.iter().map(|v| self.index(*v)).collect()
    }

    /// Runs a region and gives what it yields. The body's arguments are bound already.
    fn region(&mut self, r: RegionId, args: Vec<Value>) -> Result<Vec<Value>> {
        let f = self.f;
        for (v, a) in f.region(r).args.iter().zip(args) {
            self.set(*v, a);
        }
        for &op in &f.region(r).ops {
            let o = f.op(op);
            if o.def.is(Traits::TERMINATOR) {
                return o.operands().map(|v| self.get(v).cloned()).collect();
            }
            self.ops += 1;
            if self.ops > self.most_ops {
                bail!(Limit, "the run executes more than {} ops", self.most_ops);
            }
            let out = self.op(op).map_err(|e| {
                let text = crate::text::print_op(f, op);
                e.at(&o.loc).note(format!("in `{}`", text.lines().next().unwrap_or("").trim()))
            })?;
            for (v, d) in o.results.iter().zip(out) {
                self.set(*v, d);
            }
        }
        bail!(Internal, "a region has no terminator")
    }

    fn op(&mut self, op: OpId) -> Result<Vec<Value>> {
        let (f, o) = (self.f, self.f.op(op));
        if o.def.is(Traits::ELEMENTWISE) {
            return Ok(vec![self.pointwise(op)?]);
        }
        let arg = |i: usize| match o.operand(i) {
            Some(v) => Ok(v),
            None => bail!(Internal, "operand {i} is missing"),
        };
        let out = match o.def.name {
            "core.scalar" => match (o.attrs.tensor("value"), f.ty(o.result())) {
                (Some(t), Type::Index) => Value::Index(t.get(0).i() as i64),
                (Some(t), _) => Value::Data(Data::scalar(t.elem(), t.get(0))),
                _ => bail!(Internal, "a constant without value"),
            },
            "tile.program_id" => Value::Index(self.at[o.attrs.int("axis") as usize]),
            "tile.num_programs" => Value::Index(self.grid[o.attrs.int("axis") as usize]),
            "tile.view" => {
                let parts = super::view_of(f, o.result())?;
                let Value::Ptr(buffer) = *self.get(parts.base)? else {
                    bail!(Internal, "the base of a view is not a pointer");
                };
                let (sizes, strides) = (self.indices(parts.sizes)?, self.indices(parts.strides)?);
                Value::View(ViewValue { buffer, sizes, strides }.into())
            }
            "tile.load" => return Ok(vec![self.load(op)?]),
            "tile.store" => {
                self.store(op)?;
                return Ok(vec![]);
            }
            "tile.gather" => return Ok(vec![self.gather(op)?]),
            "tile.scatter" => {
                self.scatter(op)?;
                return Ok(vec![]);
            }
            "tile.fence" => return Ok(vec![]),
            "tile.report" => {
                self.report(op)?;
                return Ok(vec![]);
            }
            "tile.index" => match self.data(arg(0)?)?.num(0).i().try_into() {
                Ok(i) => Value::Index(i),
                Err(_) => bail!(Eval, "the value does not fit an index"),
            },
            "tile.for" => return self.run_for(op),
            "tile.if" => {
                let taken = if self.data(arg(0)?)?.num(0).truth() { 0 } else { 1 };
                return self.region(o.regions[taken], vec![]);
            }
            "tile.iota" => {
                let n = o.attrs.int("size");
                let nums = (0..n).map(|i| Num::I(i as i128)).collect();
                Value::Data(Data::new(Elem::I32, &[n as usize], nums))
            }
            "tile.dot" => {
                let (a, b, acc) = (self.data(arg(0)?)?, self.data(arg(1)?)?, self.data(arg(2)?)?);
                Value::Data(value::dot(a, b, acc))
            }
            name if name.starts_with("tile.") => {
                let Type::Tile(t) = f.ty(o.result()) else {
                    let x = self.data(arg(0)?)?;
                    return Ok(vec![Value::Data(value::reshaping(name, &o.attrs, x, &[])?)]);
                };
                Value::Data(value::reshaping(name, &o.attrs, self.data(arg(0)?)?, &t.shape)?)
            }
            name => bail!(Unsupported, "`{name}` is not an op of tile kernels"),
        };
        Ok(vec![out])
    }

    fn run_for(&mut self, op: OpId) -> Result<Vec<Value>> {
        let o = self.f.op(op);
        let bounds: Vec<ValueId> = o.slots().take(3).flatten().collect();
        let [lo, hi, step] = self.indices(&bounds)?[..] else { bail!(Internal, "no bounds") };
        if step < 1 {
            return Err(Diagnostic::new(Code::Eval, "the step of a loop is not positive")
                .need("at least 1", step));
        }
        let mut carried: Vec<Value> =
            o.tail().iter().map(|v| self.get(*v).cloned()).collect::<Result<_>>()?;
        let mut i = lo;
        while i < hi {
            carried.insert(0, Value::Index(i));
            carried = self.region(o.regions[0], carried)?;
            i = i.saturating_add(step);
        }
        Ok(carried)
    }

    /// An `arith` op on tiles, scalars or indices, by its scalar meaning.
    fn pointwise(&self, op: OpId) -> Result<Value> {
        let o = self.f.op(op);
        let Some(meaning) = o.def.scalar else {
            bail!(Internal, "`{}` has no meaning", o.def.name)
        };
        let args: Vec<&Value> = o.operands().map(|v| self.get(v)).collect::<Result<_>>()?;
        let elems: Vec<Elem> = args.iter().map(|a| a.elem()).collect();
        let (out, shape): (Elem, &[usize]) = match self.f.ty(o.result()) {
            Type::Tile(t) => (t.elem, &t.shape),
            Type::Scalar(e) => (*e, &[]),
            _ => (Elem::I64, &[]),
        };
        let cx = ScalarCx { attrs: &o.attrs, elems: &elems, out };
        let mut x = vec![Num::I(0); args.len()];
        let count: usize = shape.iter().product();
        let mut nums = Vec::with_capacity(count);
        for i in 0..count {
            for (x, a) in x.iter_mut().zip(&args) {
                *x = a.num(i);
            }
            nums.push(value::round(out, meaning(&cx, &x)));
        }
        Ok(match self.f.ty(o.result()) {
            Type::Index => Value::Index(nums[0].i() as i64),
            _ => Value::Data(Data::new(out, shape, nums)),
        })
    }
}

/// Steele, Lea and Flood 2014.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
