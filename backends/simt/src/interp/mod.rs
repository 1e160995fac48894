//! Runs simt kernels: the oracle of the lowering from `tile`, and of what a backend prints.
//!
//! Blocks run one after another. In a block the warps run in a seeded random order, each until the next
//! barrier; lanes of a warp run in lockstep. Reported, with the op's location:
//!
//! * accesses outside a buffer or shared memory, or not aligned to their size;
//! * a byte of shared memory that one warp writes and another reads or writes without a barrier between;
//! * shared memory read before it is written, and bytes of an asynchronous copy before its wait (they are
//!   delivered only then);
//! * an output element written by two blocks, or read before it is written;
//! * barriers that some threads of a block do not reach, and warp-wide ops that some lanes do not.
//!
//! Fragment products add all terms exactly and round once; hardware may round in between.

mod code;
mod exec;
mod memory;

use silure_ir::dialects::tile::{KernelArg, Options, Report, grid_of, symbol_args};
use silure_ir::{Diagnostic, Func, Num, Result, Type, bail};

use crate::kernel::Launch;
use exec::Block;
use memory::{Global, Memory};

/// The most bytes of shared memory that a block is given.
const MOST_SHARED: u64 = 1 << 20;

/// Runs a verified simt kernel on its whole grid, as [`silure_ir::dialects::tile::run_kernel`] does for tile
/// kernels; the arguments are the same.
pub fn run_kernel(f: &Func, args: &mut [KernelArg], options: &Options) -> Result<Report> {
    let launch = Launch::of(f)?;
    if launch.shared > MOST_SHARED {
        return Err(Diagnostic::new(
            silure_ir::Code::Limit,
            "no target has that much shared memory",
        )
        .need(format!("at most {MOST_SHARED} bytes"), launch.shared));
    }
    if args.len() != f.args().len() {
        return Err(Diagnostic::new(
            silure_ir::Code::Eval,
            format!("wrong number of arguments for @{}", f.name),
        )
        .need(f.args().len(), args.len()));
    }
    let symbols = symbol_args(f);
    let value = |name: &str| {
        let (_, arg) = symbols.iter().find(|(s, _)| *s.name == *name)?;
        match args.get((*arg)?)? {
            KernelArg::Index(v) => Some(*v),
            _ => None,
        }
    };
    let mut grid = [1u64; 3];
    for (g, d) in grid.iter_mut().zip(grid_of(f)?) {
        match d.eval(&value) {
            Some(v) if v >= 0 => *g = v as u64,
            _ => bail!(Eval, "the grid size `{d}` is negative or overflows"),
        }
    }
    let total = grid.iter().try_fold(1u64, |a, &d| a.checked_mul(d));
    let Some(total) = total.filter(|n| *n <= options.programs) else {
        bail!(Limit, "the grid {grid:?} has more than {} blocks", options.programs);
    };
    let code = code::compile(f)?;
    let mut buffers = Vec::new();
    let mut bits = Vec::new();
    for (v, a) in f.args().iter().zip(args.iter_mut()) {
        bits.push(match (f.ty(*v), a) {
            (Type::Ptr(e, _), KernelArg::Buffer(b)) => {
                buffers.push(Global::new(*e, std::mem::take(b), true)?);
                memory::address(buffers.len() - 1)
            }
            (Type::Ptr(e, _), KernelArg::Output(b)) => {
                b.fill(0xFF);
                buffers.push(Global::new(*e, std::mem::take(b), false)?);
                memory::address(buffers.len() - 1)
            }
            (Type::Index, KernelArg::Index(i)) => *i as u64,
            (Type::Scalar(e), KernelArg::Scalar(n)) => n.encode(*e),
            (t, _) => bail!(Eval, "an argument of the wrong kind; {t} is needed"),
        });
    }
    let mut memory = Memory::new(buffers, launch.shared as usize);
    let mut order: Vec<u64> = (0..total).collect();
    let mut state = options.seed;
    for i in (1..order.len()).rev() {
        order.swap(i, (split_mix(&mut state) % (i as u64 + 1)) as usize);
    }
    let mut ops = 0;
    let mut outcome = Ok(());
    for n in order {
        let at = [n % grid[0], n / grid[0] % grid[1], n / grid[0] / grid[1]];
        memory.start_block(n as u32);
        let mut block = Block::new(f, &code, &launch, at, grid, &bits);
        outcome = block
            .run(&mut memory, &mut state, options.ops.saturating_sub(ops))
            .map_err(|e| e.note(format!("in block {at:?} of @{}", f.name)));
        ops += block.ops;
        if outcome.is_err() {
            break;
        }
    }
    let mut buffers = memory.buffers.into_iter();
    let mut unwritten = 0;
    for a in args.iter_mut() {
        if let KernelArg::Buffer(b) | KernelArg::Output(b) = a
            && let Some(done) = buffers.next()
        {
            unwritten += done.unwritten();
            *b = done.bytes;
        }
    }
    outcome?;
    Ok(Report { programs: total, ops, unwritten })
}

/// The number that an element's bits mean.
fn num(e: silure_ir::Elem, bits: u64) -> Num {
    Num::decode(e, bits)
}

/// Steele, Lea and Flood 2014.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
