//! Runs engine files: the runtime alone, without the compiler.

use silure_runtime::app::{Inputs, Request, run};
use silure_runtime::{Engine, Error, Result};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
silure-run ENGINE [--entry NAME] (--input NAME=@F.npy … | --inputs A.npy B.npy …) [options]
silure-run ENGINE --list [--json]
silure-run ENGINE --check

  --input NAME=@F.npy   one input by name (repeat)
  --inputs FILES…       all inputs in order
  --out-dir DIR         write out_0.npy, out_1.npy, … there
  --entry NAME          the entry to run (needed if there are several)
  --threads N           threads (default: one per processor)
  --timeout S           stop after S seconds
  --memory BYTES        refuse to hold more
  --repeat N            run N times and report the times
  --profile             report the time of each kernel
  --json                report as JSON
  --list                print the entries' signatures
  --check               compare all hashes, the weights' included
  --version, --help

Types that NumPy lacks travel as raw bits: bf16 as u2, 8- and 4-bit floats as u1, i4 as i1.
Exit codes: 0 ok, 1 failure, 2 usage, 5 no code or kernel for this machine.
";

#[derive(Default)]
struct Args {
    engine: Option<PathBuf>,
    entry: Option<String>,
    named: Vec<(String, PathBuf)>,
    ordered: Option<Vec<PathBuf>>,
    out_dir: Option<PathBuf>,
    threads: Option<usize>,
    timeout: Option<Duration>,
    memory: Option<u64>,
    repeat: Option<u32>,
    profile: bool,
    json: bool,
    list: bool,
    check: bool,
}

fn usage(message: impl Into<String>) -> Error {
    Error::Usage(message.into())
}

/// Reads the arguments; `None` if help or the version was printed.
fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Args>> {
    let mut a = Args::default();
    let mut in_inputs = false;
    while let Some(arg) = args.next() {
        let Some(flag) = arg.strip_prefix("--") else {
            match (&mut a.ordered, in_inputs) {
                (Some(files), true) => files.push(arg.into()),
                _ if a.engine.is_none() => a.engine = Some(arg.into()),
                _ => return Err(usage(format!("'{arg}' is one argument too many"))),
            }
            continue;
        };
        in_inputs = false;
        let (flag, inline) = match flag.split_once('=') {
            Some((f, v)) => (f, Some(v.to_string())),
            None => (flag, None),
        };
        let switch = match flag {
            "profile" => Some(&mut a.profile),
            "json" => Some(&mut a.json),
            "list" => Some(&mut a.list),
            "check" => Some(&mut a.check),
            _ => None,
        };
        if let Some(switch) = switch {
            if inline.is_some() {
                return Err(usage(format!("--{flag} takes no value")));
            }
            *switch = true;
            continue;
        }
        match flag {
            "help" => {
                print!("{HELP}");
                return Ok(None);
            }
            "version" => {
                println!("silure-run {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            "inputs" => {
                a.ordered.get_or_insert_default().extend(inline.map(PathBuf::from));
                in_inputs = true;
                continue;
            }
            "input" | "entry" | "out-dir" | "threads" | "timeout" | "memory" | "repeat" => {}
            _ => return Err(usage(format!("unknown option '--{flag}' (see --help)"))),
        }
        let value = inline.or_else(|| args.next());
        let value = value.ok_or_else(|| usage(format!("--{flag} needs a value")))?;
        let number = || {
            let n = value.parse::<u64>().ok().filter(|&n| n > 0);
            n.ok_or_else(|| usage(format!("--{flag}: needed a positive number, present '{value}'")))
        };
        match flag {
            "input" => {
                let (name, file) = value.split_once("=@").ok_or_else(|| {
                    usage(format!("--input: needed NAME=@FILE.npy, present '{value}'"))
                })?;
                a.named.push((name.into(), file.into()));
            }
            "entry" => a.entry = Some(value),
            "out-dir" => a.out_dir = Some(value.into()),
            "threads" => a.threads = Some(number()?.min(1024) as usize),
            "memory" => a.memory = Some(number()?),
            "repeat" => a.repeat = Some(number()?.min(u32::MAX as u64) as u32),
            _ => {
                let s = value.parse::<f64>().ok();
                let d = s.and_then(|s| Duration::try_from_secs_f64(s).ok());
                a.timeout = Some(d.ok_or_else(|| {
                    usage(format!("--timeout: needed seconds, present '{value}'"))
                })?);
            }
        }
    }
    if a.ordered.is_some() && !a.named.is_empty() {
        return Err(usage("give --input or --inputs, not both"));
    }
    Ok(Some(a))
}

fn main_inner() -> Result<()> {
    let args = std::env::args_os().skip(1).map(|a| {
        a.into_string().map_err(|a| usage(format!("an argument that is not UTF-8: {a:?}")))
    });
    let args = args.collect::<Result<Vec<_>>>()?;
    let Some(a) = parse(args.into_iter())? else { return Ok(()) };
    let engine = a.engine.ok_or_else(|| usage("needed an engine file (see --help)"))?;
    let engine = Engine::open(engine)?;
    if a.check {
        engine.check()?;
        println!("all hashes agree");
        return Ok(());
    }
    if a.list {
        if a.json {
            let entries = serde_json::to_string(&engine.manifest().entries);
            println!("{}", entries.map_err(|e| usage(e.to_string()))?);
        } else {
            for e in &engine.plan().entries {
                println!("{}", engine.plan().signature_text(e));
            }
        }
        return Ok(());
    }
    let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
    let report = run(
        &engine,
        &Request {
            entry: a.entry,
            inputs: match a.ordered {
                Some(files) => Inputs::Ordered(files),
                None => Inputs::Named(a.named),
            },
            out_dir: a.out_dir,
            threads: a.threads.unwrap_or_else(cores),
            timeout: a.timeout,
            memory_limit: a.memory,
            repeat: a.repeat.unwrap_or(1),
            profile: a.profile,
            cancel: None,
        },
    )?;
    if a.json {
        println!("{}", report.json())
    } else {
        print!("{}", report.text())
    }
    Ok(())
}

fn main() -> ExitCode {
    match main_inner() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(e.exit_code())
        }
    }
}
