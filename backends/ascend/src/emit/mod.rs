//! Tile kernels as MLIR text in the tile ABI of the vendor's compiler.
//!
//! One `func.func` per kernel: lock and workspace pointers, the kernel's arguments (pointers as
//! `memref<?xT>`, sizes as `i64`, scalars as they are), the grid, the program's position. Tiles are
//! tensors; elementwise ops are `arith` and `math` on tensors (never `linalg.generic`), products are
//! `linalg.matmul` into an accumulator that starts as `linalg.fill` of zero.
//!
//! The hardware numbers blocks with z fastest, the tile dialect with axis 0 fastest, so axis 0 is z,
//! axis 1 is y and axis 2 is x. A device takes at most 65535 blocks: a kernel whose grid may be larger
//! becomes a loop over programs inside each block ([`Launch::Loop`]).

mod compute;
mod elementwise;
mod memory;
mod text;

use std::sync::Arc;

use silure_ir::dialects::tile::{self, check_kernel, grid_of};
use silure_ir::{
    Code, Diagnostic, Dim, DimOp, Elem, Func, Num, OpId, RegionId, Result, Type, ValueId,
};
use silure_target::Target;

pub(crate) use self::compute::accumulates;
use self::text::{Text, stored, type_name};
use crate::facts::Facts;
use crate::legal::{self, MOST_BLOCKS};

/// How a kernel is started.
#[derive(Clone, PartialEq, Debug)]
pub enum Launch {
    /// One block for each program: blocks along x, y, z.
    Grid([Dim; 3]),
    /// Any number of blocks from 1 to 65535 along z (x and y are 1); each takes programs until all
    /// `programs` are done. The number of cores is the best number.
    Loop {
        /// Number of programs.
        programs: Dim,
    },
}

/// How a grid becomes blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Blocks {
    /// One block for each program if that is proved to be within the device's limit, else a loop.
    #[default]
    Auto,
    /// One block for each program; whoever launches checks the limit.
    Each,
    /// A loop over programs.
    Loop,
}

/// One argument of the kernel, in order, behind the lock and workspace pointers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arg {
    /// The name in the kernel's signature.
    pub name: Arc<str>,
    /// What is passed.
    pub pass: Pass,
}

/// What is passed for an argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    /// The address of elements in device memory.
    Pointer(Elem),
    /// A size, as a signed 64-bit integer.
    Size,
    /// A scalar of that type.
    Scalar(Elem),
}

/// A kernel as text, and what a launch must know.
#[derive(Clone, PartialEq, Debug)]
pub struct AscendModule {
    /// The module.
    pub mlir: String,
    /// Name of the function in it, at most 50 characters.
    pub kernel: String,
    /// How to start it.
    pub launch: Launch,
    /// Its arguments.
    pub args: Vec<Arg>,
}

/// Emits a kernel with the default treatment of its grid. All that the target cannot do is refused first.
pub fn emit(f: &Func, target: &Target) -> Result<AscendModule, Vec<Diagnostic>> {
    emit_with(f, target, Blocks::Auto)
}

/// As [`emit`], with a say in how the grid becomes blocks.
pub fn emit_with(
    f: &Func,
    target: &Target,
    blocks: Blocks,
) -> Result<AscendModule, Vec<Diagnostic>> {
    let refused = legal::can_with(f, target, blocks);
    if !refused.is_empty() {
        return Err(refused);
    }
    emit_legal(f, target, blocks).map_err(|e| vec![e])
}

fn emit_legal(f: &Func, target: &Target, blocks: Blocks) -> Result<AscendModule> {
    check_kernel(f)?;
    let grid = grid_of(f)?.to_vec();
    let looped = match blocks {
        Blocks::Each => false,
        Blocks::Loop => true,
        Blocks::Auto => programs(&grid).bounds(&|s| f.symbol_range(s)).1 > MOST_BLOCKS,
    };
    let mut e = Emitter {
        t: Text::new(f),
        facts: Facts::new(f)?,
        ids: vec![],
        sizes: vec![],
        accumulate_in_cube: !legal::has_vector_registers(target),
    };
    let (signature, args) = e.signature()?;
    if looped {
        e.loop_over_programs(&grid)?;
    } else {
        for (axis, (p, g)) in
            [("pz", "gz"), ("py", "gy"), ("px", "gx")].iter().enumerate().take(grid.len())
        {
            let id = e
                .t
                .let_(&format!("program{axis}"), format!("arith.index_cast %{p} : i32 to index"));
            let n = e
                .t
                .let_(&format!("programs{axis}"), format!("arith.index_cast %{g} : i32 to index"));
            e.ids.push(id);
            e.sizes.push(n);
        }
    }
    e.region(f.body)?;
    if looped {
        e.t.close("}");
    }
    let kernel = legal::kernel_name(f);
    let body = e.t.finish();
    let mlir = format!(
        "func.func @{kernel}({signature}) attributes {{SyncBlockLockArgIdx = 0 : i64, \
         WorkspaceArgIdx = 1 : i64, global_kernel = \"local\", parallel_mode = \"simd\"}} {{\n{body}  return\n}}\n"
    );
    let at = |i: usize| grid.get(i).cloned().unwrap_or(Dim::Const(1));
    let launch = if looped {
        Launch::Loop { programs: programs(&grid) }
    } else {
        Launch::Grid([at(2), at(1), at(0)])
    };
    Ok(AscendModule { mlir, kernel, launch, args })
}

/// The number of programs of a grid.
pub(crate) fn programs(grid: &[Dim]) -> Dim {
    grid.iter().cloned().fold(Dim::Const(1), |a, d| a * d)
}

pub(super) struct Emitter<'a> {
    t: Text<'a>,
    facts: Facts<'a>,
    /// Names of the program's position along each axis of the grid.
    ids: Vec<String>,
    /// Names of the grid's sizes.
    sizes: Vec<String>,
    /// Whether sums over products stay in the cube unit. The 950's library lacks the function by which
    /// the compiler clears an accumulator whose loop may not run at all, so there the vector unit adds.
    accumulate_in_cube: bool,
}

impl Emitter<'_> {
    fn signature(&mut self) -> Result<(String, Vec<Arg>)> {
        let f = self.t.f;
        let mut parts = vec!["%lk: memref<?xi8>".to_string(), "%ws: memref<?xi8>".to_string()];
        let mut args = Vec::new();
        let mut sizes = Vec::new();
        for (&v, name) in f.args().iter().zip(&f.arg_names) {
            let n = self.t.fresh(name);
            let (ty, pass) = match f.ty(v) {
                Type::Ptr(e, _) => (format!("memref<?x{}>", stored(*e)?), Pass::Pointer(*e)),
                Type::Index => ("i64".to_string(), Pass::Size),
                Type::Scalar(e) => (stored(*e)?.to_string(), Pass::Scalar(*e)),
                t => {
                    return Err(Diagnostic::new(
                        Code::Verify,
                        format!("argument `{name}` of a kernel is {t}"),
                    ));
                }
            };
            parts.push(format!("{n}: {ty}"));
            match pass {
                Pass::Size => sizes.push((v, n)),
                _ => self.t.alias(v, n),
            }
            args.push(Arg { name: name.clone(), pass });
        }
        for g in ["gx", "gy", "gz", "px", "py", "pz"] {
            parts.push(format!("%{g}: i32"));
        }
        for (v, n) in sizes {
            let i = self
                .t
                .let_(n.trim_start_matches('%'), format!("arith.index_cast {n} : i64 to index"));
            self.t.alias(v, i);
        }
        Ok((parts.join(", "), args))
    }

    /// Opens the loop over programs: block z takes programs z, z + blocks, …
    fn loop_over_programs(&mut self, grid: &[Dim]) -> Result<()> {
        let mut total: Option<String> = None;
        for (axis, d) in grid.iter().enumerate() {
            let n = self.dim(d, &format!("programs{axis}"))?;
            total = Some(match total {
                None => n.clone(),
                Some(t) => self.t.let_("programs", format!("arith.muli {t}, {n} : index")),
            });
            self.sizes.push(n);
        }
        let total = total.unwrap_or_else(|| self.t.index(1));
        let first = self.t.let_("block", "arith.index_cast %pz : i32 to index");
        let step = self.t.let_("blocks", "arith.index_cast %gz : i32 to index");
        let p = self.t.fresh("program");
        self.t.open(format!("scf.for {p} = {first} to {total} step {step} {{"));
        let mut rest = p;
        for axis in 0..grid.len() {
            if axis + 1 == grid.len() {
                self.ids.push(rest.clone());
                break;
            }
            let n = self.sizes[axis].clone();
            let id =
                self.t.let_(&format!("program{axis}"), format!("arith.remsi {rest}, {n} : index"));
            rest = self.t.let_("rest", format!("arith.divsi {rest}, {n} : index"));
            self.ids.push(id);
        }
        Ok(())
    }

    /// Emits a dim as index arithmetic over the kernel's size arguments.
    fn dim(&mut self, d: &Dim, hint: &str) -> Result<String> {
        let f = self.t.f;
        let bases: Vec<(String, String)> = tile::symbol_args(f)
            .into_iter()
            .filter_map(|(s, arg)| Some((s.name.to_string(), f.args()[arg?])))
            .map(|(s, v)| Ok((s, self.t.get(v)?)))
            .collect::<Result<_>>()?;
        let t = std::cell::RefCell::new(&mut self.t);
        let name = d.fold(
            &|c| Some(t.borrow_mut().index(c)),
            &|s| bases.iter().find(|(n, _)| n == s).map(|(_, v)| v.clone()),
            &|op, a, b| {
                let (a, b) = (a?, b?);
                let word = match op {
                    DimOp::Add => "addi",
                    DimOp::Mul => "muli",
                    DimOp::FloorDiv => "floordivsi",
                    DimOp::Mod => "remsi",
                    DimOp::Min => "minsi",
                    DimOp::Max => "maxsi",
                };
                Some(t.borrow_mut().let_(hint, format!("arith.{word} {a}, {b} : index")))
            },
        );
        name.ok_or_else(|| Diagnostic::new(Code::Internal, format!("{d} uses an unknown symbol")))
    }

    /// Emits the ops of a region, without its terminator.
    fn region(&mut self, r: RegionId) -> Result<()> {
        for op in self.t.f.region(r).ops.clone() {
            self.op(op).map_err(|e| e.at(&self.t.f.op(op).loc))?;
        }
        Ok(())
    }

    fn op(&mut self, id: OpId) -> Result<()> {
        let f = self.t.f;
        let op = f.op(id);
        match op.def.name {
            "core.return" | "core.yield" | "tile.view" => Ok(()),
            "core.scalar" => self.scalar(id),
            "tile.program_id" | "tile.num_programs" => {
                let axis = op.attrs.int("axis") as usize;
                let of = if op.def == &tile::PROGRAM_ID { &self.ids } else { &self.sizes };
                let Some(name) = of.get(axis).cloned() else {
                    return Err(Diagnostic::new(
                        Code::Verify,
                        format!("the grid has no axis {axis}"),
                    ));
                };
                self.t.alias(op.result(), name);
                Ok(())
            }
            "tile.load" => self.load(id),
            "tile.store" => self.store(id),
            "tile.for" => self.for_(id),
            "tile.if" => self.if_(id),
            _ if op.def.dialect() == "tile" => self.compute(id),
            _ => self.elementwise(id),
        }
    }

    fn scalar(&mut self, id: OpId) -> Result<()> {
        let op = self.t.f.op(id);
        let Some(x) = op.attrs.tensor("value").map(|t| t.get(0)) else {
            return Err(Diagnostic::new(Code::Verify, "a constant without value"));
        };
        let ty = self.t.f.ty(op.result()).clone();
        let name = self.t.number(&ty, x)?;
        self.t.alias(op.result(), name);
        Ok(())
    }

    fn yield_(&mut self, r: RegionId) -> Result<()> {
        let values = self.t.f.yields(r);
        if values.is_empty() {
            return Ok(());
        }
        let (mut names, mut types) = (Vec::new(), Vec::new());
        for v in values {
            names.push(self.t.get(v)?);
            types.push(type_name(self.t.f.ty(v))?);
        }
        self.t.line(format!("scf.yield {} : {}", names.join(", "), types.join(", ")));
        Ok(())
    }

    /// Names several results of one op: `%r:2 = …` gives `%r#0`, `%r#1`.
    fn results(&mut self, id: OpId) -> String {
        let results = self.t.f.op(id).results.clone();
        match results.as_slice() {
            [] => String::new(),
            [one] => format!("{} = ", self.t.name(*one)),
            many => {
                let n = self.t.fresh("out");
                for (i, v) in many.iter().enumerate() {
                    self.t.alias(*v, format!("{n}#{i}"));
                }
                format!("{n}:{} = ", many.len())
            }
        }
    }

    fn for_(&mut self, id: OpId) -> Result<()> {
        let f = self.t.f;
        let op = f.op(id);
        let (Some(lo), Some(hi), Some(step)) = (op.operand(0), op.operand(1), op.operand(2)) else {
            return Err(Diagnostic::new(Code::Verify, "a loop without bounds"));
        };
        let (lo, hi, step) = (self.t.get(lo)?, self.t.get(hi)?, self.t.get(step)?);
        let region = op.regions[0];
        let args = f.region(region).args.clone();
        let mut carried = Vec::new();
        let mut types = Vec::new();
        for (a, init) in args.iter().skip(1).zip(op.tail()) {
            let init = self.carried_from(*a, *init)?;
            carried.push((*a, init));
            types.push(type_name(f.ty(*a))?);
        }
        let out = self.results(id);
        let counter = self.t.name(args[0]);
        let pairs: Vec<String> =
            carried.iter().map(|(a, init)| format!("{} = {init}", self.t.name(*a))).collect();
        let iter = if pairs.is_empty() {
            String::new()
        } else {
            format!(" iter_args({}) -> ({})", pairs.join(", "), types.join(", "))
        };
        self.t.open(format!("{out}scf.for {counter} = {lo} to {hi} step {step}{iter} {{"));
        self.region(region)?;
        self.yield_(region)?;
        self.t.close("}");
        Ok(())
    }

    /// What a carried value starts from. A vector sum that starts from the same zeros as a product keeps
    /// the compiler from seeing the product's zeros (it then adds them on the vector unit), so it starts
    /// from −0 instead: the neutral element of addition, equal to 0 where the loop does not run.
    fn carried_from(&mut self, arg: ValueId, init: ValueId) -> Result<String> {
        let f = self.t.f;
        let ty = f.ty(arg).clone();
        let in_cube = self.accumulate_in_cube && accumulates(f, arg);
        let float = ty.elem().is_some_and(Elem::is_float);
        let multiplied = || {
            f.walk().iter().any(|op| f.op(*op).def == &tile::DOT && *f.ty(f.op(*op).result()) == ty)
        };
        if in_cube || !float || !compute::is_zero(f, init) || !multiplied() {
            return self.t.get(init);
        }
        let scalar = Type::Scalar(ty.elem().unwrap_or(Elem::F32));
        let zero = self.t.number(&scalar, Num::F(-0.0))?;
        self.fill(&ty, &zero, &type_name(&scalar)?)
    }

    fn if_(&mut self, id: OpId) -> Result<()> {
        let f = self.t.f;
        let op = f.op(id);
        let Some(c) = op.operand(0) else {
            return Err(Diagnostic::new(Code::Verify, "a choice without condition"));
        };
        let c = self.t.get(c)?;
        let types: Vec<String> =
            op.results.iter().map(|r| type_name(f.ty(*r))).collect::<Result<_>>()?;
        let to =
            if types.is_empty() { String::new() } else { format!(" -> ({})", types.join(", ")) };
        let out = self.results(id);
        self.t.open(format!("{out}scf.if {c}{to} {{"));
        self.region(op.regions[0])?;
        self.yield_(op.regions[0])?;
        if !types.is_empty() || f.region(op.regions[1]).ops.len() > 1 {
            self.t.between("} else {");
            self.region(op.regions[1])?;
            self.yield_(op.regions[1])?;
        }
        self.t.close("}");
        Ok(())
    }
}
