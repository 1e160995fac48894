//! A loaded engine: immutable, shared by all sessions.
//!
//! The file is mapped read-only; weights are read from the mapping when kernels touch them. Code is
//! copied into a mapping of its own, which then becomes executable and is never writable again.
//! The file must not be changed while it is mapped (replacing it by a rename is safe).

mod placed;

use crate::device::{Accelerator, Device, Host};
use crate::error::{Error, Result};
use crate::kernels::{Builtin, Kernels};
use crate::mem::Block;
use memmap2::{Mmap, MmapMut};
pub(crate) use placed::Placed;
use silure_engine::plan::{Inst, KernelRef};
use silure_engine::{EngineFile, FormatError, Manifest, Plan, SectionKind};
use silure_kernels_cpu::abi::{Kernel, KernelFn};
use silure_types::Strings;
use std::path::Path;
use std::sync::Arc;

/// How to load.
pub struct LoadOptions<'a> {
    /// Where macro-kernels come from.
    pub kernels: &'a dyn Kernels,
    /// The host; a lower instruction-set level than the machine's may be chosen.
    pub host: Host,
    /// Devices other than the host, by the names that plans give them.
    pub devices: Vec<Arc<dyn Accelerator>>,
}

impl Default for LoadOptions<'_> {
    fn default() -> Self {
        LoadOptions { kernels: &Builtin, host: Host::detect(), devices: vec![] }
    }
}

/// Bytes that stay where they are while the engine lives.
#[derive(Debug)]
enum Backing {
    Map(Mmap),
    Memory(Block),
}

impl Backing {
    fn open(path: &Path) -> Result<Backing> {
        let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        let meta = file.metadata().map_err(|e| Error::io(path, e))?;
        if !meta.is_file() {
            let kind = std::io::Error::other("needed a regular file");
            return Err(Error::io(path, kind));
        }
        if meta.len() == 0 {
            return Ok(Backing::Memory(Block::zeroed(0, "an empty file")?));
        }
        // SAFETY: the module's contract: nobody changes the file while it is mapped.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        Ok(Backing::Map(map))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Backing::Map(m) => m,
            Backing::Memory(b) => b.bytes(),
        }
    }
}

/// A macro-kernel of the plan, ready to call.
pub(crate) struct Resolved {
    pub kernel: &'static Kernel,
    pub entry: KernelFn,
}

/// A loaded engine.
pub struct Engine {
    pub(crate) plan: Plan,
    pub(crate) kernels: Vec<Resolved>,
    /// Addresses of the generated functions, in `_code`.
    pub(crate) functions: Vec<*const u8>,
    pub(crate) consts: Block,
    /// First byte of the weights, in `file` or `beside`.
    pub(crate) weights: *const u8,
    pub(crate) helpers: Vec<*const u8>,
    pub(crate) isa: u32,
    /// The string constants.
    pub(crate) texts: Arc<Strings>,
    manifest: Manifest,
    code_target: Option<String>,
    /// The devices besides the host, in the plan's order from 1 on.
    pub(crate) devices: Vec<Placed>,
    _code: Option<Mmap>,
    file: Backing,
    beside: Option<Backing>,
}

// SAFETY: the pointers are to immutable memory that the engine owns, and to functions.
unsafe impl Send for Engine {}
// SAFETY: as above; nothing is changed after loading.
unsafe impl Sync for Engine {}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.plan.entries.iter().map(|e| self.plan.str(e.name)).collect();
        write!(f, "Engine(entries {names:?}, code {:?})", self.code_target)
    }
}

impl Engine {
    /// Loads an engine file, its weights beside it if it says so.
    pub fn open(path: impl AsRef<Path>) -> Result<Arc<Engine>> {
        Engine::open_with(path.as_ref(), &LoadOptions::default())
    }

    /// The same, with options.
    pub fn open_with(path: &Path, options: &LoadOptions<'_>) -> Result<Arc<Engine>> {
        Engine::load(Backing::open(path)?, Some(path), options)
    }

    /// What a file says of itself and its program, whatever it runs on: nothing is loaded.
    pub fn describe(path: impl AsRef<Path>) -> Result<(Manifest, Plan)> {
        let file = Backing::open(path.as_ref())?;
        let EngineFile { manifest, plan, .. } = EngineFile::parse(file.bytes())?;
        Ok((manifest, plan))
    }

    /// Loads an engine from its bytes; weights must be inside.
    pub fn from_bytes(bytes: &[u8]) -> Result<Arc<Engine>> {
        Engine::from_bytes_with(bytes, &LoadOptions::default())
    }

    /// The same, with options.
    pub fn from_bytes_with(bytes: &[u8], options: &LoadOptions<'_>) -> Result<Arc<Engine>> {
        let block = Block::copy_of(bytes, "the engine")?;
        Engine::load(Backing::Memory(block), None, options)
    }

    fn load(file: Backing, path: Option<&Path>, options: &LoadOptions<'_>) -> Result<Arc<Engine>> {
        let parsed = EngineFile::parse(file.bytes())?;
        let host = &options.host;
        let mut kernels = Vec::with_capacity(parsed.plan.kernels.len());
        for &name in &parsed.plan.kernels {
            let name = parsed.plan.str(name);
            let missing = || Error::UnknownKernel { name: name.into() };
            let kernel = options.kernels.find(name).ok_or_else(missing)?;
            kernels.push(Resolved { kernel, entry: kernel.entry(host.isa) });
        }
        check_layouts(&parsed)?;
        check_arity(&parsed.plan, &kernels)?;
        let (code, functions, code_target) = load_code(&parsed, host)?;
        let (beside, offset) = match parsed.weights() {
            None => (None, 0),
            Some(w) => match w.file {
                None => (None, w.offset as usize),
                Some(name) => {
                    let field = "weights file";
                    let path = path
                        .ok_or_else(|| FormatError::field(field, "weights in the engine", name))?
                        .with_file_name(name);
                    let map = Backing::open(&path)?;
                    if map.bytes().len() as u64 != w.bytes {
                        let present = format!("{} bytes in {name}", map.bytes().len());
                        let needed = format!("{} bytes", w.bytes);
                        return Err(FormatError::field(field, needed, present).into());
                    }
                    (Some(map), w.offset as usize)
                }
            },
        };
        // In range: the file's checks hold the weights section inside it.
        let all = &beside.as_ref().unwrap_or(&file).bytes()[offset..];
        let weights = all.as_ptr();
        let consts = Block::copy_of(&parsed.plan.const_bytes, "constants")?;
        let mut texts = Strings::new();
        for (i, t) in parsed.plan.texts.iter().enumerate() {
            // They differ: checked by the plan's validation.
            if texts.intern(t) != Some(i as u64 + 1) {
                let needed = "different strings";
                return Err(FormatError::field("string constants", needed, t).into());
            }
        }
        let devices = placed::load(&parsed, options, all)?;
        let helpers = silure_kernels_cpu::helpers::helper_table(host.isa);
        let EngineFile { plan, manifest, .. } = parsed;
        Ok(Arc::new(Engine {
            plan,
            kernels,
            functions,
            consts,
            weights,
            helpers,
            isa: host.isa,
            texts: Arc::new(texts),
            manifest,
            code_target,
            devices,
            _code: code,
            file,
            beside,
        }))
    }

    /// What the file says of itself: signatures, targets, options.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The program.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The code object in use, if the plan has generated functions.
    pub fn code_target(&self) -> Option<&str> {
        self.code_target.as_deref()
    }

    /// The devices besides the host that it uses: the plan's name, what it is, and the target of the code it runs.
    pub fn devices(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.devices.iter().map(|d| (d.device.id(), d.device.name(), &*d.target))
    }

    /// The index of an entry; `None` asks for the only one.
    pub fn entry(&self, name: Option<&str>) -> Result<usize> {
        let names = || {
            let all: Vec<_> =
                self.plan.entries.iter().map(|e| format!("'{}'", self.plan.str(e.name))).collect();
            all.join(", ")
        };
        match name {
            Some(name) => self
                .plan
                .entry(name)
                .ok_or_else(|| Error::UnknownEntry { needed: name.into(), present: names() }),
            None if self.plan.entries.len() == 1 => Ok(0),
            None => {
                Err(Error::Usage(format!("name an entry: the engine has several ({})", names())))
            }
        }
    }

    /// Compares every section with its hash, the weights included (this reads all of them).
    pub fn check(&self) -> Result<()> {
        for s in &self.manifest.sections {
            let bytes = match (&self.beside, s.kind) {
                (Some(beside), SectionKind::Weights) => beside.bytes(),
                // In range: checked when the file was read.
                _ => &self.file.bytes()[s.offset as usize..(s.offset + s.bytes) as usize],
            };
            EngineFile::check_section(s, bytes)?;
        }
        Ok(())
    }

    /// A file that the engine carries for its host, for example `tokenizer.json`.
    pub fn asset(&self, name: &str) -> Option<&[u8]> {
        let mut sections = self.manifest.sections.iter();
        let s = sections.find(|s| s.kind == SectionKind::Asset && s.name == name)?;
        // In range and in this file: checked when the file was read.
        Some(&self.file.bytes()[s.offset as usize..(s.offset + s.bytes) as usize])
    }

    /// Bytes of the weights.
    pub fn weight_bytes(&self) -> u64 {
        self.plan.weight_bytes()
    }
}

/// Kernels of another version may take other sizes in the same places.
fn check_layouts(file: &EngineFile<'_>) -> Result<()> {
    let (plan, stated) = (&file.plan, &file.manifest.layouts);
    let own = silure_kernels_cpu::layouts(plan.kernels.iter().map(|k| plan.str(*k)));
    if stated.is_empty() || *stated == own {
        return Ok(());
    }
    let field =
        format!("manifest: layouts (written by {}; compile the model again)", file.manifest.tool);
    Err(FormatError::field(field, own, stated).into())
}

/// A launch must fill every slot and size its kernel reads (more belong to a callback).
fn check_arity(plan: &Plan, kernels: &[Resolved]) -> Result<()> {
    for e in &plan.entries {
        for (i, op) in e.code.iter().enumerate() {
            if let Inst::Launch(l) = &op.inst
                && let KernelRef::Builtin(k) = l.kernel
                && let Some(r) = kernels.get(k as usize)
            {
                let (bufs, sizes) = r.kernel.arity;
                if l.args.len() < bufs || l.sizes.len() < sizes {
                    let field =
                        format!("plan: entry '{}': op {i}: {}", plan.str(e.name), r.kernel.name);
                    let present = format!("{} and {}", l.args.len(), l.sizes.len());
                    let needed = format!("{bufs} buffers and {sizes} sizes");
                    return Err(FormatError::field(field, needed, present).into());
                }
            }
        }
    }
    Ok(())
}

fn load_code(
    file: &EngineFile<'_>,
    host: &Host,
) -> Result<(Option<Mmap>, Vec<*const u8>, Option<String>)> {
    if file.plan.functions.is_empty() {
        return Ok((None, vec![], None));
    }
    let objects = file.code_objects();
    let targets = host.code_targets();
    let Some(object) = targets.iter().find_map(|t| objects.iter().find(|o| o.target == *t)) else {
        let list = |names: Vec<&str>| {
            if names.is_empty() { "none".to_string() } else { names.join(", ") }
        };
        return Err(Error::NoCode {
            needed: list(targets),
            present: list(objects.iter().map(|o| o.target).collect()),
        });
    };
    let io = |source| Error::Io { path: "mapping of generated code".into(), source };
    let mut map = MmapMut::map_anon(object.code.len()).map_err(io)?;
    map.copy_from_slice(object.code);
    let map = map.make_exec().map_err(io)?;
    sync_instructions(&map);
    let functions = object.offsets.iter().map(|&o| map[o as usize..].as_ptr()).collect();
    Ok((Some(map), functions, Some(object.target.to_string())))
}

/// Makes freshly written code visible to instruction fetch.
#[cfg(not(target_arch = "aarch64"))]
fn sync_instructions(_code: &[u8]) {}

/// Makes freshly written code visible to instruction fetch.
#[cfg(target_arch = "aarch64")]
fn sync_instructions(code: &[u8]) {
    let start = code.as_ptr() as usize & !15;
    let end = code.as_ptr() as usize + code.len();
    // SAFETY: cache maintenance by address over bytes that are mapped; 16 bytes is the smallest
    // line the architecture allows, so no line is left out.
    unsafe {
        for at in (start..end).step_by(16) {
            std::arch::asm!("dc cvau, {}", in(reg) at, options(nostack, preserves_flags));
        }
        std::arch::asm!("dsb ish", options(nostack, preserves_flags));
        for at in (start..end).step_by(16) {
            std::arch::asm!("ic ivau, {}", in(reg) at, options(nostack, preserves_flags));
        }
        std::arch::asm!("dsb ish", "isb", options(nostack, preserves_flags));
    }
}
