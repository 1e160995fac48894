//! The CUDA backend: kernels become PTX text, printed directly from `simt`.
//!
//! The text is a function of kernel and target alone. It asks for the lowest `.version` that has what it uses
//! and carries the user's locations as comments; the driver (or `ptxas`) allocates registers and schedules.
//!
//! ```
//! use silure_ir::{Context, text};
//! let source = r#"module @m {
//!   kernel @twice<n: 1..>(%x: ptr<f32, global>, %n: index) {grid = dims[floordiv(n + 255, 256)]} {
//!     %one = scalar {value = dense<i64[]: 1>} : index
//!     %c256 = scalar {value = dense<i64[]: 256>} : index
//!     %v = tile.view %x, %n, %one : view<f32, 1>
//!     %p = tile.program_id : index
//!     %at = arith.mul %p, %c256 : index
//!     %t = tile.load %v, %at {tile = [256]} : tile<256xf32>
//!     %u = arith.add %t, %t : tile<256xf32>
//!     tile.store %v, %u, %at
//!     return
//!   }
//! }"#;
//! let m = text::parse_verified(&Context::new(), "m.sir", source).unwrap();
//! let ptx = silure_cuda::ptx(&m.funcs[0], "cuda:sm_80").unwrap();
//! assert!(ptx.text.contains(".version 7.0\n.target sm_80"));
//! assert_eq!(ptx.entries[0].name, "twice");
//! ```

mod lower;
mod ptx;

pub use lower::{DEVICE, Lowerings, NoHostCode, OnCores, device_code};

use silure_ir::dialects::tile::grid_of;
use silure_ir::{Attr, Code, Diagnostic, Func, Result, bail};
use silure_simt::kernel::{self, Launch};
use silure_simt::{Caps, Options, lower_tile};
use silure_target::Target;

/// PTX text and what the host needs to launch it.
#[derive(Clone, PartialEq, Debug)]
pub struct PtxModule {
    /// The text.
    pub text: String,
    /// Kernels in it.
    pub entries: Vec<Entry>,
    /// The `.version` it asks for.
    pub version: (u32, u32),
    /// The `.target` it asks for.
    pub target: String,
    /// What the user is to be told, for example that an unknown target was taken for its family's nearest.
    pub notes: Vec<String>,
}

/// One kernel. Parameters are the function's arguments in order: pointers and sizes 8 bytes each, scalars
/// as their type.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// Name in the text.
    pub name: String,
    /// Grid (dims over the symbols of the signature), threads, bytes of shared memory.
    pub launch: Launch,
    /// Whether the shared memory is given at launch; more than 48 KiB also needs the function attribute
    /// for it set. Otherwise it is declared in the text.
    pub dynamic_shared: bool,
}

/// Shared memory that a kernel may declare in its text; more is given at launch.
const STATIC_SHARED: u64 = 48 * 1024;

/// The PTX of a tile or simt kernel for a target: `cuda:sm_80`, or `sm_80`.
pub fn ptx(f: &Func, target: &str) -> Result<PtxModule> {
    match print(f, target) {
        Ok(m) => Ok(m),
        Err(mut e) => Err(e.swap_remove(0)),
    }
}

/// Everything that keeps a kernel from a target; empty if [`ptx`] succeeds.
pub fn can(f: &Func, target: &str) -> Vec<Diagnostic> {
    print(f, target).err().unwrap_or_default()
}

fn print(f: &Func, target: &str) -> Result<PtxModule, Vec<Diagnostic>> {
    let full = if target.contains(':') { target.into() } else { format!("cuda:{target}") };
    let bad =
        |e: silure_target::TargetError| vec![Diagnostic::new(Code::Unsupported, e.to_string())];
    let t = Target::parse(&full).map_err(bad)?;
    if &*t.family != "cuda" {
        let e = Diagnostic::new(Code::Unsupported, format!("`{full}` is no CUDA target"));
        return Err(vec![e.need("cuda:sm_80 or a later one", full)]);
    }
    if let Some(Attr::Str(text)) = f.attrs.get("ptx") {
        return written(f, text, &t.arch.name).map_err(|e| vec![e]);
    }
    let caps = Caps::of(&t).map_err(|e| vec![e])?;
    let lowered;
    let simt = if f.walk().iter().any(|op| f.op(*op).def.dialect() == "tile") {
        lowered = lower_tile(f, &caps, &Options::default()).map_err(|e| vec![e])?;
        &lowered
    } else {
        f
    };
    kernel::verify(simt, Some(caps.shared))?;
    let launch = Launch::of(simt).map_err(|e| vec![e])?;
    if launch.warp != 32 {
        let e = Diagnostic::new(Code::Unsupported, format!("@{}: another warp size", f.name));
        return Err(vec![e.need(32, launch.warp)]);
    }
    let dynamic_shared = launch.shared > STATIC_SHARED;
    // Code is for the described architecture: an unknown newer one runs it.
    let name = t.arch.name.clone();
    let (text, version) = ptx::print(simt, &name, &launch, dynamic_shared)?;
    let entry = Entry { name: f.name.to_string(), launch, dynamic_shared };
    let notes = t.note.into_iter().collect();
    Ok(PtxModule { text, entries: vec![entry], version, target: name, notes })
}

/// A kernel whose body is PTX of the user's (attribute `ptx`, with `threads` and, for what is given at launch, `shared`
/// bytes): the text with the function's name for its only entry.
fn written(f: &Func, text: &str, target: &str) -> Result<PtxModule> {
    let number = |name: &str, most: i64| match f.attrs.get(name) {
        Some(Attr::Int(n)) if (0..=most).contains(n) => Ok(*n as u64),
        None => Ok(0),
        Some(_) => bail!(Invalid, "@{}: `{name}` is a number up to {most}", f.name),
    };
    let (threads, shared) = (number("threads", 1024)?, number("shared", 1 << 20)?);
    if threads == 0 {
        bail!(Invalid, "@{}: a kernel of PTX says its `threads`", f.name);
    }
    let mut entries = text.match_indices(".entry");
    let (Some((at, word)), None) = (entries.next(), entries.next()) else {
        bail!(Invalid, "@{}: its PTX has one .entry", f.name);
    };
    let begin = at + word.len();
    let begin = begin + text[begin..].len() - text[begin..].trim_start().len();
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%');
    let end = text[begin..].find(|c: char| !is_name(c)).map_or(text.len(), |n| begin + n);
    let head = |name: &str| {
        let lines = text.lines().map(|l| l.split("//").next().unwrap_or(l).trim());
        lines.filter_map(|l| l.strip_prefix(name)).map(|r| r.trim().to_string()).next()
    };
    let version = head(".version").and_then(|v| {
        let (major, minor) = v.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    let Some(version) = version else { bail!(Invalid, "@{}: its PTX has no .version", f.name) };
    let Some(for_target) = head(".target") else {
        bail!(Invalid, "@{}: its PTX has no .target", f.name)
    };
    // Text for a plain architecture is for all later ones too, `sm_90a` for that one alone.
    let capability = |t: &str| t.strip_prefix("sm_").and_then(|n| n.parse::<u32>().ok());
    let runs = match (capability(&for_target), capability(target.trim_end_matches(['a', 'f']))) {
        (Some(text), Some(here)) => text <= here,
        _ => for_target == target,
    };
    if !runs {
        let e = Diagnostic::new(Code::Unsupported, format!("@{}: its PTX", f.name));
        return Err(e.need(target, for_target));
    }
    let (grid, threads) = (grid_of(f)?.to_vec(), threads as u32);
    let launch = Launch { grid, threads, warp: 32, shared, target: for_target.clone() };
    let entry = Entry { name: f.name.to_string(), launch, dynamic_shared: shared > 0 };
    let text = format!("{}{}{}", &text[..begin], f.name, &text[end..]);
    Ok(PtxModule { text, entries: vec![entry], version, target: for_target, notes: vec![] })
}
