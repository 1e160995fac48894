//! Tile kernels as machine code.
//!
//! [`compile`] makes one function of the CPU kernel ABI from a tile kernel (dialect `tile`). A task is a
//! program of the grid, axis 0 fastest; programs are independent, so results do not depend on how tasks are
//! split. Tiles lie in the scratch memory of the call; scalars and indices are in registers; control flow
//! of the text is control flow of the code.
//!
//! * `storage`: where tiles are, and which elementwise ops are one loop;
//! * `lower`: control flow, scalars, elementwise loops; `memory`: loads and stores; `compute`, `dot`: the
//!   rest. Elementwise ops are emitted by [`crate::codegen`].
//!
//! An access outside its view reads the padding or writes nothing, at any offset. That a view lies in its
//! buffer is the kernel's promise, which the interpreter checks.
//!
//! ```
//! use silure_cpu::{codegen::IsaLevel, tile};
//! use silure_ir::{Context, text};
//! let source = r#"module @m {
//!   kernel @twice<n: 1..>(%x: ptr<f32, global>, %n: index) {grid = dims[floordiv(n + 3, 4)]} {
//!     %one = scalar {value = dense<i64[]: 1>} : index
//!     %four = scalar {value = dense<i64[]: 4>} : index
//!     %v = tile.view %x, %n, %one : view<f32, 1>
//!     %p = tile.program_id : index
//!     %at = arith.mul %p, %four : index
//!     %t = tile.load %v, %at {tile = [4]} : tile<4xf32>
//!     %u = arith.add %t, %t : tile<4xf32>
//!     tile.store %v, %u, %at
//!     return
//!   }
//! }"#;
//! let m = text::parse_verified(&Context::new(), "m.sir", source).unwrap();
//! let code = tile::compile(&m.funcs[0], IsaLevel::X86_64V3).unwrap();
//! assert_eq!(code.bind(&[None, Some(10)]).unwrap(), (vec![10, 3], 3));
//! ```

mod compute;
mod dot;
mod lower;
mod memory;
mod storage;

use cranelift_codegen::ir::{Function, InstBuilder, UserFuncName, types};
use cranelift_frontend::FunctionBuilderContext;
use silure_ir::dialects::tile::{Facts, check_kernel, grid_of, symbol_args};
use silure_ir::{Code, Diagnostic, Dim, Elem, Func, Result, SymDecl, Traits, Type, ValueId, math};
use silure_kernels_cpu::abi;

use crate::codegen::emit::memory as plain;
use crate::codegen::prepare::unsupported;
use crate::codegen::{Codegen, IsaLevel, Object};
use lower::Lower;
use storage::{Step, Storage, steps};

/// One entry of the `sizes` of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// Argument of that number: an index, or the bits of a scalar.
    Arg(usize),
    /// Programs along that axis of the grid.
    Grid(usize),
}

/// A compiled tile kernel and how to launch it.
#[derive(Clone, PartialEq, Debug)]
pub struct TileCode {
    /// The code; function 0 is the kernel.
    pub object: Object,
    /// For each entry of `bufs`, the number of the pointer argument.
    pub bufs: Vec<usize>,
    /// What each entry of `sizes` is.
    pub sizes: Vec<Size>,
    /// Programs along each axis, over the kernel's symbols; their product is the number of tasks.
    pub grid: Vec<Dim>,
    /// Scratch bytes of one call, 64-byte aligned.
    pub scratch: u64,
    symbols: Vec<(SymDecl, usize)>,
}

impl TileCode {
    /// The `sizes` and the number of tasks of a launch. `args` holds, per argument of the kernel, the value
    /// of an index or the bits of a scalar; nothing for pointers. Sizes outside their declared range are an
    /// error.
    pub fn bind(&self, args: &[Option<i64>]) -> Result<(Vec<i64>, u64)> {
        let invalid = |m: String| Diagnostic::new(Code::Invalid, m);
        let value = |i: usize| {
            let given = args.get(i).copied().flatten();
            given.ok_or_else(|| invalid(format!("argument {i} of the kernel has no value")))
        };
        for (s, i) in &self.symbols {
            let v = value(*i)?;
            if v < s.min || v > s.max || v % s.multiple != 0 {
                return Err(invalid(format!("argument `{}` is out of range", s.name)).need(s, v));
            }
        }
        let symbol = |name: &str| {
            let (_, i) = self.symbols.iter().find(|(s, _)| *s.name == *name)?;
            value(*i).ok()
        };
        let mut grid = Vec::new();
        for d in &self.grid {
            match d.eval(&symbol) {
                Some(v) if v >= 0 => grid.push(v),
                _ => return Err(invalid(format!("the grid size `{d}` is negative or overflows"))),
            }
        }
        let sizes = self.sizes.iter().map(|s| match *s {
            Size::Arg(i) => value(i),
            Size::Grid(axis) => Ok(grid[axis]),
        });
        let sizes = sizes.collect::<Result<Vec<i64>>>()?;
        let tasks = grid.iter().try_fold(1i64, |a, &d| a.checked_mul(d));
        match tasks {
            Some(n) => Ok((sizes, n as u64)),
            None => Err(invalid(format!("the grid {grid:?} has too many programs"))),
        }
    }
}

/// Everything in a verified kernel that cannot be compiled, with its location.
pub fn can(f: &Func) -> Vec<Diagnostic> {
    let codegen = match Codegen::new(IsaLevel::X86_64) {
        Ok(c) => c,
        Err(e) => return vec![e],
    };
    if let Err(e) = check_kernel(f) {
        return vec![e];
    }
    let mut out = Vec::new();
    for op in f.walk() {
        let o = f.op(op);
        let elems = o.operands().chain(o.results.iter().copied()).filter_map(|v| f.ty(v).elem());
        if let Some(e) = elems.filter_map(|e| whole_bytes(e).err()).next() {
            out.push(e.at(&o.loc).note(format!("in `{}`", o.def.name)));
            continue;
        }
        if o.def.is(Traits::ELEMENTWISE)
            && let Err(e) =
                lower::body(f, &[op], &o.results, &codegen.registry, &math::Options::default())
        {
            out.push(e.at(&o.loc));
        }
    }
    if out.is_empty()
        && let Err(e) = Storage::new(f)
    {
        out.push(e);
    }
    out
}

/// Compiles a verified kernel; the first of what [`can`] finds if it cannot be.
pub fn compile(f: &Func, level: IsaLevel) -> Result<TileCode> {
    if let Some(e) = can(f).into_iter().next() {
        return Err(e);
    }
    let mut codegen = Codegen::new(level)?;
    let (storage, facts) = (Storage::new(f)?, Facts::new(f)?);
    let grid = grid_of(f)?.to_vec();
    let symbols = symbol_args(f).into_iter().filter_map(|(s, i)| Some((s.clone(), i?))).collect();
    let (mut bufs, mut sizes) = (Vec::new(), Vec::new());
    for (i, &v) in f.args().iter().enumerate() {
        match f.ty(v) {
            Type::Ptr(..) => bufs.push(i),
            _ => sizes.push(Size::Arg(i)),
        }
    }
    sizes.extend((0..grid.len()).map(Size::Grid));
    let func = function(f, &codegen, &storage, &facts, (&bufs, &sizes))?;
    codegen.compile(func, &f.name)?;
    let scratch = storage.bytes;
    Ok(TileCode { object: codegen.finish()?, bufs, sizes, grid, scratch, symbols })
}

fn function(
    f: &Func,
    codegen: &Codegen,
    storage: &Storage,
    facts: &Facts,
    (bufs, sizes): (&[usize], &[Size]),
) -> Result<Function> {
    const I: types::Type = types::I64;
    let signature = codegen.signature(&[I; 6], &[types::I32]);
    let mut func = Function::with_name_signature(UserFuncName::default(), signature);
    let mut cx = FunctionBuilderContext::new();
    let (mut e, params) = codegen.start(&mut func, &mut cx);
    let mut values = Vec::<(ValueId, cranelift_codegen::ir::Value)>::new();
    for (k, &i) in bufs.iter().enumerate() {
        let p = e.b.ins().load(I, plain().with_readonly(), params[1], k as i32 * 8);
        values.push((f.args()[i], p));
    }
    let mut grid = Vec::new();
    for (k, s) in sizes.iter().enumerate() {
        let at = k as i32 * 8;
        match *s {
            Size::Arg(i) => {
                let v = f.args()[i];
                let elem = lower::elem(f, v)?;
                let x = e.load(elem, params[2], at, false);
                values.push((v, e.lane(elem, x, 0)));
            }
            Size::Grid(_) => {
                grid.push(e.b.ins().load(I, plain().with_readonly(), params[2], at));
            }
        }
    }
    let options = math::Options { fma: codegen.level.features().fma, ..Default::default() };
    let mut l = Lower::new(e, f, storage, facts, &codegen.registry, options, params[5]);
    l.values.extend(values);
    l.grid = grid.clone();
    l.count(params[3], params[4], 1, &mut |l, task| {
        let mut rest = task;
        l.program.clear();
        for (axis, &n) in grid.iter().enumerate() {
            if axis + 1 == grid.len() {
                l.program.push(rest);
            } else {
                let at = l.e.b.ins().urem(rest, n);
                l.program.push(at);
                rest = l.e.b.ins().udiv(rest, n);
            }
        }
        l.region(f.body)?;
        Ok(())
    })?;
    let ok = l.e.b.ins().iconst(types::I32, abi::OK as i64);
    l.e.b.ins().return_(&[ok]);
    let mut e = l.e;
    e.b.seal_all_blocks();
    e.b.finalize(codegen.isa.frontend_config());
    Ok(func)
}

/// Loops that the code of a kernel has for elementwise ops: what fusion within the kernel leaves.
pub fn elementwise_loops(f: &Func) -> usize {
    let regions = f.walk().into_iter().flat_map(|op| f.op(op).regions.iter().copied());
    let all = std::iter::once(f.body).chain(regions);
    all.map(|r| steps(f, r).iter().filter(|s| matches!(s, Step::Run(_))).count()).sum()
}

/// Whether a tile can hold the type.
fn whole_bytes(e: Elem) -> Result<()> {
    match e.bytes() {
        Some(_) => Ok(()),
        None => Err(unsupported(format!("tiles of {e}: its elements share bytes"))
            .need("a type of whole bytes", e)
            .note("cast it to a wider type first")),
    }
}
