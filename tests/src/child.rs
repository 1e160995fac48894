//! Running the project's programs as children with bounds on memory and time.
//!
//! A child may have 2 GiB of address space and each case 20 s. [`probe`] gives many files to one child
//! after the other; a child that dies or hangs is noted against the file it was at, and the rest goes to
//! a new child.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Seconds that one case may take.
pub const SECONDS: u64 = 20;
/// Address space that a child may have, in KiB.
pub const MEMORY_KIB: u64 = 2 << 20;

/// A program of this workspace, of the profile this test was built with. It is built if it is not fresh;
/// with `SILURE_BUILT=1` it is taken as `cargo test --workspace` has just built it.
pub fn program(package: &str, bin: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("this process has a file");
    let profile = exe.ancestors().nth(2).expect("tests are in PROFILE/deps");
    if std::env::var_os("SILURE_BUILT").is_some_and(|v| v == "1") {
        let file = profile.join(bin);
        assert!(file.is_file(), "{} is not built, and SILURE_BUILT says so", file.display());
        return file;
    }
    let target = profile.parent().expect("a profile is in the target folder");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "-p", package, "--bin", bin]).env("CARGO_TARGET_DIR", target);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs");
    assert!(built.status.success(), "{package}: {}", String::from_utf8_lossy(&built.stderr));
    profile.join(bin)
}

/// The command `silure`.
pub fn silure() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| program("silure-cli", "silure"))
}

/// The runtime-only program `silure-run`.
pub fn silure_run() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| program("silure-runtime", "silure-run"))
}

/// How a child ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; `None` if it was stopped because it took too long.
    pub status: Option<ExitStatus>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
    /// Wall time.
    pub time: Duration,
}

impl Ended {
    /// The exit code, if it ended by itself and not by a signal.
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(|s| s.code())
    }

    /// Whether it ended in order: an answer, or an exit code with a message. 101 is a panic.
    pub fn orderly(&self) -> bool {
        let said = self.code() == Some(0) || !self.stderr.trim().is_empty();
        self.code().is_some_and(|c| c < 6) && said && !self.stderr.contains("panicked at")
    }
}

/// A command with bounded address space.
pub fn bounded(program: &Path) -> Command {
    let mut c = Command::new("sh");
    c.arg("-c").arg(format!("ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\"")).arg(program);
    c
}

/// Runs a command to its end, or for at most `limit`.
pub fn run(command: &mut Command, limit: Duration) -> Ended {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    let file = |p: &Path| Stdio::from(std::fs::File::create(p).expect("a temporary file"));
    let start = Instant::now();
    command.stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err));
    let mut child = command.spawn().expect("the program starts");
    let status = loop {
        if let Some(s) = child.try_wait().expect("a child can be waited for") {
            break Some(s);
        }
        if start.elapsed() > limit {
            stop(&mut child);
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = |p: &Path| String::from_utf8_lossy(&std::fs::read(p).unwrap_or_default()).into();
    Ended { status, stdout: text(&out), stderr: text(&err), time: start.elapsed() }
}

/// Bytes of memory that a command held at most, pages of the program's own file among them, as Linux counts
/// them (`VmHWM`): what it allocates in its last fraction of a millisecond may be missing. It must succeed.
pub fn peak_memory(command: &mut Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).spawn().expect("the program starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let end = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        if let Some(kib) = line.and_then(|l| l.trim().strip_suffix(" kB")) {
            peak = peak.max(1024 * kib.parse::<u64>().expect("a number of kB"));
        }
        if let Some(end) = child.try_wait().expect("a child can be waited for") {
            break end;
        }
        std::thread::sleep(Duration::from_micros(300));
    };
    assert!(end.success(), "{end}");
    assert!(peak > 0, "{status} does not say how much memory a process holds");
    peak
}

fn stop(child: &mut Child) {
    // It may have ended in the meantime.
    let _ = child.kill();
    let _ = child.wait();
}

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A diagnostic.
    Refused(String),
    /// Compiled and ran; the answer is that of the oracle.
    Right,
    /// Compiled; not compared because the oracle's limits or the sizes do not allow it: why.
    Unchecked(String),
    /// The answer is not that of the oracle.
    Wrong(String),
    /// A panic, caught.
    Panicked(String),
    /// The child ended while it was at this file: aborted, out of memory, killed by a signal.
    Died(String),
    /// It took too long.
    Slow(Duration),
}

impl Outcome {
    /// Whether this is an end that a bad file may have.
    pub fn is_fine(&self) -> bool {
        matches!(self, Outcome::Refused(_) | Outcome::Right | Outcome::Unchecked(_))
    }
}

/// Gives files to `probe` and collects what became of each, in order.
pub fn probe(verb: &str, files: &[PathBuf]) -> Vec<Outcome> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    let exe = PROBE.get_or_init(|| program("silure-tests", "probe"));
    let mut outcomes: Vec<Outcome> = vec![];
    while outcomes.len() < files.len() {
        let list = folder.path().join("list");
        let rest: Vec<String> =
            files[outcomes.len()..].iter().map(|f| f.display().to_string()).collect();
        std::fs::write(&list, rest.join("\n")).expect("a temporary file");
        batch(exe, verb, &list, folder.path(), &mut outcomes);
    }
    outcomes
}

/// Runs one child until it ends or hangs.
fn batch(exe: &Path, verb: &str, list: &Path, folder: &Path, outcomes: &mut Vec<Outcome>) {
    let (out, err) = (folder.join("out"), folder.join("err"));
    let file = |p: &Path| Stdio::from(std::fs::File::create(p).expect("a temporary file"));
    let mut command = bounded(exe);
    command.arg(verb).arg(list).stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err));
    let mut child = command.spawn().expect("the probe starts");
    let (mut seen, mut since) = (0, Instant::now());
    let status = loop {
        let ended = child.try_wait().expect("a child can be waited for");
        let text = std::fs::read_to_string(&out).unwrap_or_default();
        let lines = text.lines().count();
        if lines != seen {
            (seen, since) = (lines, Instant::now());
        }
        if let Some(s) = ended {
            break Some(s);
        }
        if since.elapsed() > Duration::from_secs(SECONDS) {
            stop(&mut child);
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let text = std::fs::read_to_string(&out).unwrap_or_default();
    let mut open = false;
    for line in text.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        open = word == "case";
        match word {
            "refused" => outcomes.push(Outcome::Refused(rest.into())),
            "right" => outcomes.push(Outcome::Right),
            "unchecked" => outcomes.push(Outcome::Unchecked(rest.into())),
            "wrong" => outcomes.push(Outcome::Wrong(rest.into())),
            "panic" => outcomes.push(Outcome::Panicked(rest.into())),
            _ => {}
        }
    }
    match status {
        None => outcomes.push(Outcome::Slow(since.elapsed())),
        Some(s) if open || !s.success() => {
            let said = std::fs::read_to_string(&err).unwrap_or_default();
            let tail: Vec<&str> = said.lines().rev().take(3).collect();
            outcomes.push(Outcome::Died(format!("{s}: {}", tail.join(" | "))));
        }
        Some(_) => {}
    }
}

/// `SILURE_SHOW=1` prints what became of each file. Fails with the list of cases that did not end as bad files may; gives the counts of refused, right
/// and unchecked ones.
pub fn all_fine(what: &str, files: &[PathBuf], outcomes: &[Outcome]) -> (usize, usize, usize) {
    let bad: Vec<String> = files
        .iter()
        .zip(outcomes)
        .filter(|(_, o)| !o.is_fine())
        .map(|(f, o)| format!("{}: {o:?}", f.display()))
        .collect();
    let count = |f: fn(&Outcome) -> bool| outcomes.iter().filter(|o| f(o)).count();
    let counts = (
        count(|o| matches!(o, Outcome::Refused(_))),
        count(|o| *o == Outcome::Right),
        count(|o| matches!(o, Outcome::Unchecked(_))),
    );
    let (refused, right, unchecked) = counts;
    if std::env::var_os("SILURE_SHOW").is_some() {
        for (f, o) in files.iter().zip(outcomes) {
            println!("  {}: {o:?}", f.file_name().unwrap_or_default().display());
        }
    }
    println!("{what}: {refused} refused, {right} right, {unchecked} unchecked of {}", files.len());
    assert!(bad.is_empty(), "{what}: {} of {}:\n{}", bad.len(), files.len(), bad.join("\n"));
    counts
}
