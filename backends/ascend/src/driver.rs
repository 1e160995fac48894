//! The vendor's compiler as a subprocess, with a time limit and a folder of its own.
//!
//! The package lacks the last stage (`hivmc`), so the compiler always ends with an error; it succeeded
//! exactly if it left `module.hivm.opt.mlir`: the kernel after tiling, splitting into cube and vector
//! code, memory planning and synchronisation. A crash, a time-out and an overflow of on-chip memory come
//! back as diagnostics; nothing outside the temporary folder is written.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use silure_ir::{Code, Diagnostic, Result};
use silure_target::Target;

use crate::legal::has_vector_registers;
use crate::tools::Tools;

/// Which cores of an AI core run a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskType {
    /// Vector cores alone.
    Vector,
    /// The cube core alone.
    Cube,
    /// One cube core with two vector cores.
    Mix,
    /// Another number, as the compiler gives it.
    Other(i64),
}

/// What the compiler made of a kernel.
#[derive(Clone, PartialEq, Debug)]
pub struct Compiled {
    /// The final device code as text (`module.hivm.opt.mlir`), the input of the vendor's last stage.
    pub hivm: String,
    /// Which cores run it; `None` if the compiler does not say.
    pub task: Option<TaskType>,
    /// Bytes of workspace in device memory for each block.
    pub workspace: u64,
    /// Warnings that the compiler printed.
    pub warnings: Vec<String>,
}

/// How long a compilation may take if the caller has no wish.
pub const TIME_LIMIT: Duration = Duration::from_secs(120);

/// Compiles a module that [`crate::emit()`] made. `kernel` is its kernel's name.
pub fn compile(
    mlir: &str,
    kernel: &str,
    target: &Target,
    tools: &Tools,
    limit: Duration,
) -> Result<Compiled> {
    let tool = tools.compiler(target)?;
    let dir = Scratch::new()?;
    let input = dir.0.join("in.mlir");
    let io = |e: std::io::Error| Diagnostic::new(Code::Io, format!("{}: {e}", dir.0.display()));
    std::fs::write(&input, mlir).map_err(io)?;
    let mut command = Command::new(&tool);
    command
        .arg(format!("--target={}", target.name))
        .args(flags(target))
        .arg(format!("--save-temps={}", dir.0.display()))
        .arg(&input)
        .arg("-o")
        .arg(dir.0.join("kernel.o"))
        .current_dir(&dir.0)
        .stdin(Stdio::null());
    let (status, log) = run(command, &tool, limit)?;
    let out = dir.0.join("module.hivm.opt.mlir");
    if !out.is_file() {
        return Err(failure(kernel, target, status, &log));
    }
    let hivm = std::fs::read_to_string(&out).map_err(io)?;
    let task = task_type(&hivm, kernel);
    let workspace =
        constant_result(&hivm, &format!("{kernel}_infer_workspace_shape_function")).unwrap_or(0);
    let mut warnings: Vec<String> = log
        .lines()
        .filter(|l| l.contains("warning:") || l.contains("] revert "))
        .map(str::to_string)
        .collect();
    warnings.dedup();
    Ok(Compiled { hivm, task, workspace: workspace.max(0) as u64, warnings })
}

/// Which cores run a kernel: by the helper function that says so, else (950) by the functions it became.
fn task_type(hivm: &str, kernel: &str) -> Option<TaskType> {
    if let Some(n) = constant_result(hivm, &format!("{kernel}_infer_task_type_function")) {
        return Some(match n {
            10 => TaskType::Vector,
            20 => TaskType::Cube,
            32 => TaskType::Mix,
            n => TaskType::Other(n),
        });
    }
    let has = |name: String| hivm.lines().find(|l| l.contains(&format!("func.func @{name}(")));
    if has(format!("{kernel}_mix_aic")).is_some() && has(format!("{kernel}_mix_aiv")).is_some() {
        return Some(TaskType::Mix);
    }
    let core = has(kernel.to_string())?.split("#hivm.func_core_type<").nth(1)?;
    match core.split('>').next()? {
        "AIV" => Some(TaskType::Vector),
        "AIC" => Some(TaskType::Cube),
        _ => None,
    }
}

fn flags(target: &Target) -> Vec<&'static str> {
    let mut v = vec![
        "--enable-hfusion-compile=true",
        "--enable-hivm-compile=true",
        "--enable-triton-kernel-compile=true",
        "--enable-auto-multi-buffer=true",
        "--enable-auto-bind-sub-block=true",
    ];
    if has_vector_registers(target) {
        v.push("--disable-ffts");
    }
    v
}

/// A folder that goes away with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let base = std::env::temp_dir();
        for _ in 0..64 {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let dir = base.join(format!("silure-ascend-{}-{n}", std::process::id()));
            match std::fs::create_dir(&dir) {
                Ok(()) => return Ok(Scratch(dir)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Diagnostic::new(Code::Io, format!("{}: {e}", dir.display()))),
            }
        }
        Err(Diagnostic::new(Code::Io, format!("{}: no free name for a folder", base.display())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about a folder that stays; it is in the system's temporary place.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a command to its end or its time limit; its status and what it printed to stderr.
fn run(mut command: Command, tool: &Path, limit: Duration) -> Result<(ExitStatus, String)> {
    let io = |e: std::io::Error| Diagnostic::new(Code::Io, format!("{}: {e}", tool.display()));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(io)?;
    let stderr = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(s) = stderr {
            // A message of the compiler is short; a runaway one must not fill the memory.
            let _ = s.take(1 << 22).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    let status = loop {
        match child.try_wait().map_err(io)? {
            Some(s) => break s,
            None if start.elapsed() >= limit => {
                let _ = child.kill();
                child.wait().map_err(io)?;
                return Err(Diagnostic::new(Code::Limit, "the Ascend compiler did not finish")
                    .need(format!("an end within {} s", limit.as_secs_f64()), "still running")
                    .note(format!("{} was stopped", tool.display())));
            }
            None => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
        }
    };
    let log = reader.join().unwrap_or_default();
    Ok((status, log))
}

/// The diagnostic of a failed compilation.
fn failure(kernel: &str, target: &Target, status: ExitStatus, log: &str) -> Diagnostic {
    let t = target.full_name();
    // The compiler retries with fewer buffers; the last attempt needed the least.
    if let Some((level, needed, available)) = log.lines().rev().find_map(overflow) {
        return Diagnostic::new(
            Code::Limit,
            format!("`{kernel}`: the tiles do not fit into {level} of {t}"),
        )
        .need(format!("{needed} bytes"), format!("{available} bytes"))
        .note("choose smaller tiles");
    }
    let errors: Vec<&str> = log
        .lines()
        .filter(|l| {
            (l.contains("error:") || l.contains("UNREACHABLE") || l.contains("Assertion"))
                && !l.contains("Failed to run BiShengHIR pipeline")
                && !l.contains("hivmc")
        })
        .map(|l| l.split_once("error:").map_or(l, |(_, e)| e).trim())
        .take(4)
        .collect();
    let what = match signal(status) {
        Some(s) => format!("`{kernel}`: the Ascend compiler crashed with signal {s} for {t}"),
        None => format!("`{kernel}`: the Ascend compiler refuses the kernel for {t}"),
    };
    let mut d = Diagnostic::new(Code::Unsupported, what);
    for e in &errors {
        d = d.note(*e);
    }
    if errors.is_empty() {
        let tail: Vec<&str> =
            log.lines().filter(|l| !l.contains("hivmc") && !l.trim().is_empty()).take(3).collect();
        d = d.note(if tail.is_empty() { "it gave no reason".into() } else { tail.join("; ") });
    }
    d
}

/// `error: ub overflow, requires 2097152 bits while 1572864 bits available!` in bytes.
fn overflow(line: &str) -> Option<(String, u64, u64)> {
    let (head, tail) = line.split_once(" overflow, requires ")?;
    let level = head.rsplit([' ', ':']).next()?.to_uppercase();
    let (needed, rest) = tail.split_once(" bits while ")?;
    let (available, _) = rest.split_once(" bits")?;
    let bits = |s: &str| s.trim().parse::<u64>().ok();
    Some((level, bits(needed)?.div_ceil(8), bits(available)? / 8))
}

#[cfg(unix)]
fn signal(s: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&s)
}

#[cfg(not(unix))]
fn signal(_: ExitStatus) -> Option<i32> {
    None
}

/// The constant that a helper function without arguments returns:
/// `func.func @NAME() … { %c = arith.constant 10 : i8  return %c : i8 }`.
fn constant_result(text: &str, name: &str) -> Option<i64> {
    let body = &text[text.find(&format!("@{name}("))?..];
    let body = &body[..body.find("\n  }").unwrap_or(body.len())];
    let value = body.split("return ").nth(1)?.split([' ', ':']).next()?;
    let def = body.split(&format!("{value} = ")).nth(1)?;
    def.strip_prefix("arith.constant ")?.split([' ', '\n']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overflow_is_read_in_bytes() {
        let line =
            "loc(x): error: ub overflow, requires 2097152 bits while 1572864 bits available! (y)";
        assert_eq!(overflow(line), Some(("UB".into(), 262_144, 196_608)));
        assert_eq!(overflow("error: something else"), None);
    }

    #[test]
    fn helper_functions_are_read() {
        let text = "  func.func @k_infer_task_type_function() -> i8 attributes {a} {\n    \
                    %c10_i8 = arith.constant 10 : i8\n    return %c10_i8 : i8\n  }\n";
        assert_eq!(constant_result(text, "k_infer_task_type_function"), Some(10));
        assert_eq!(constant_result(text, "other"), None);
    }
}
