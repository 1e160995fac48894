//! The device: memory and launches.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::code::Code;
use crate::error::{Error, Kind, Result};
use crate::exec::{Machine, vectors};
use crate::memory::global::Arena;
use crate::memory::races::Races as GlobalRaces;
use crate::module::Module;
use crate::report::Report;
use crate::text::MOST_SHARED;

/// A kernel's argument: as many bytes as its parameter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Param(pub Vec<u8>);

macro_rules! param {
    ($($t:ty),*) => {$(
        impl From<$t> for Param {
            fn from(v: $t) -> Param {
                Param(v.to_le_bytes().to_vec())
            }
        }
    )*};
}
param!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

/// How a kernel is launched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Launch {
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Bytes of shared memory beside what the text declares.
    pub shared: usize,
    /// Arguments in order.
    pub params: Vec<Param>,
}

impl Default for Launch {
    fn default() -> Launch {
        Launch { grid: [1; 3], block: [1; 3], shared: 0, params: Vec::new() }
    }
}

/// Which races are looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Races {
    /// Between warps and between blocks.
    All,
    /// Between the warps of a block, in shared memory.
    Shared,
    /// None.
    Off,
}

/// How a kernel is run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The order of blocks and warps, and what registers begin with.
    pub seed: u64,
    /// The most instructions of warps.
    pub budget: u64,
    /// Threads of the CPU; 0: as many as there are.
    pub threads: usize,
    /// Races looked for.
    pub races: Races,
}

impl Default for Options {
    fn default() -> Options {
        Options { seed: 0, budget: 1 << 30, threads: 0, races: Races::All }
    }
}

/// A device: memory, and the variables of modules whose kernels were launched.
pub struct Device {
    arena: Arena,
    capacity: u64,
    modules: HashMap<u64, Vec<u64>>,
}

impl Device {
    /// A device with so many bytes of memory.
    pub fn new(capacity: u64) -> Device {
        Device { arena: Arena::default(), capacity: capacity.min(1 << 40), modules: HashMap::new() }
    }

    /// Allocates; the bytes count as never written. Every 256-byte boundary of an address is one of the allocation.
    pub fn alloc(&mut self, bytes: usize) -> Result<u64> {
        self.arena.alloc(bytes as u64, 256, self.capacity)
    }

    /// Frees an allocation, by its first address. The address is not used again.
    pub fn free(&mut self, address: u64) -> Result<()> {
        self.arena.free(address)
    }

    /// Copies to the device.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.arena.host_write(address, bytes)
    }

    /// Copies from the device; `false` if some byte was never written (it is then 0).
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<bool> {
        self.arena.host_read(address, out)
    }

    /// Copies from the device to the device; what nothing has written stays so. The ranges may overlap.
    pub fn copy(&mut self, to: u64, from: u64, bytes: usize) -> Result<()> {
        self.arena.copy(to, from, bytes)
    }

    /// Runs a kernel to its end. After an error, memory holds what was written up to there.
    pub fn launch(
        &mut self,
        module: &Module,
        kernel: &str,
        l: &Launch,
        options: &Options,
    ) -> Result<Report> {
        let code = module.kernel(kernel)?;
        let params = params(code, l).map_err(|e| e.kernel(kernel))?;
        let (threads, warps) = block(code, l).map_err(|e| e.kernel(kernel))?;
        let workers = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => n,
        }
        .min(256);
        let dynamic = if l.shared > 0 { code.dynamic } else { code.shared };
        let shared =
            dynamic.checked_add(l.shared).filter(|s| *s <= MOST_SHARED).ok_or_else(|| {
                let what = format!(
                    "{} bytes of shared memory; a block has at most {MOST_SHARED}",
                    l.shared
                );
                Error::new(Kind::Limit, what).kernel(kernel)
            })?;
        // What one block needs on the host; as many are there as threads run.
        let one =
            warps as u64 * (code.regs as u64 * 256 + code.local as u64 * 64) + shared as u64 * 16;
        let most = self.capacity.max(1 << 28);
        if one > most {
            let what = format!(
                "a block needs {one} bytes for registers and memory of its own; {most} may be used"
            );
            return Err(Error::new(Kind::Limit, what).kernel(kernel));
        }
        let workers = workers.min((most / one.max(1)).clamp(1, 256) as usize);
        let variables = self.variables(module)?;
        let machine = Machine {
            code,
            grid: l.grid,
            block: l.block,
            threads,
            warps,
            dynamic: l.shared,
            params,
            variables,
            races: GlobalRaces::new(&self.arena, options.races == Races::All),
            arena: &self.arena,
            shared_races: options.races != Races::Off,
            seed: options.seed,
            budget: options.budget,
            spent: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            vectors: vectors(),
        };
        let stats = machine.run(workers)?;
        let blocks = l.grid.iter().map(|n| *n as u64).product();
        Ok(stats.report(&module.spellings, &code.insts, blocks))
    }

    fn variables(&mut self, module: &Module) -> Result<Vec<u64>> {
        if let Some(v) = self.modules.get(&module.id) {
            return Ok(v.clone());
        }
        let mut all = Vec::new();
        for v in &module.variables {
            let at = self.arena.alloc(v.bytes as u64, v.align as u64, self.capacity)?;
            let mut bytes = v.init.clone();
            bytes.resize(v.bytes, 0);
            self.arena.host_write(at, &bytes)?;
            if v.constant {
                self.arena.constant(at);
            }
            all.push(at);
        }
        self.modules.insert(module.id, all.clone());
        Ok(all)
    }

    /// The address and size of a variable of a module.
    pub fn variable(&mut self, module: &Module, name: &str) -> Result<(u64, usize)> {
        let all = self.variables(module)?;
        let found = module.variables.iter().zip(all).find(|(v, _)| v.name == name);
        found
            .map(|(v, at)| (at, v.bytes))
            .ok_or_else(|| Error::new(Kind::Launch, format!("no variable `{name}`")))
    }
}

fn params(code: &Code, l: &Launch) -> Result<Vec<u8>> {
    if l.params.len() != code.params.len() {
        let what =
            format!("{} arguments are needed, {} are given", code.params.len(), l.params.len());
        return Err(Error::new(Kind::Launch, what));
    }
    let mut out = vec![0; code.param_bytes];
    for (i, (p, d)) in l.params.iter().zip(&code.params).enumerate() {
        if p.0.len() != d.bytes {
            let what = format!("argument {i} has {} bytes, {} are needed", p.0.len(), d.bytes);
            return Err(Error::new(Kind::Launch, what));
        }
        out[d.offset..d.offset + d.bytes].copy_from_slice(&p.0);
    }
    Ok(out)
}

/// Threads and warps of a block.
fn block(code: &Code, l: &Launch) -> Result<(u32, usize)> {
    let product = |n: [u32; 3]| n.iter().map(|x| *x as u128).product::<u128>();
    let threads = product(l.block);
    if !(1..=1024).contains(&threads) {
        return Err(Error::new(
            Kind::Launch,
            format!("a block of {threads} threads; 1 to 1024 are possible"),
        ));
    }
    if product(l.grid) == 0 || product(l.grid) > 1 << 40 {
        let what =
            format!("a grid of {} blocks; 1 to {} are possible", product(l.grid), 1u64 << 40);
        return Err(Error::new(Kind::Launch, what));
    }
    match (code.reqntid, code.maxntid) {
        (Some(b), _) if b != l.block => Err(Error::new(
            Kind::Launch,
            format!("the block is {:?}, the kernel requires {b:?}", l.block),
        )),
        (_, Some(b)) if threads > product(b) => Err(Error::new(
            Kind::Launch,
            format!("the block is {:?}, the kernel has at most {b:?}", l.block),
        )),
        _ => Ok((threads as u32, (threads as usize).div_ceil(32))),
    }
}
