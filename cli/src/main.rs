//! The `silure` command: compile a model, run it, measure it, look inside.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 it worked, 1 it failed, 2 wrong usage,
//! 3 an accuracy bound was missed, 4 it does not fit into memory, 5 an op, type or target is not
//! supported. A verb is one file of [`verbs`]; [`report`] owns the output, [`failure`] the exit codes.
//!
//! ```text
//! silure compile model.onnx -o model.silure
//! silure run model.silure --input x=@x.npy --out-dir out
//! ```

mod args;
mod calibrate;
mod custom;
mod device;
mod emulator;
mod evaluate;
mod failure;
mod model;
mod oracle;
mod random;
mod report;
mod sizes;
mod spec;
mod tolerance;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::failure::Failure;
use crate::report::Report;

/// Text IR and models nest deeply; the work gets a stack that their limits fit into.
const STACK: usize = 256 << 20;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // A closed pipe is no reason to fail: the text was help or the usage error itself.
            let _ = e.print();
            return ExitCode::from(e.exit_code().clamp(0, 2) as u8);
        }
    };
    let mut report = Report::new(&cli.global);
    let worker = std::thread::Builder::new().name("silure".into()).stack_size(STACK);
    let outcome = match worker.spawn(move || {
        let outcome = cli.verb.run(&mut report);
        (report, outcome)
    }) {
        Ok(thread) => thread.join(),
        Err(e) => {
            eprintln!("error: no thread could be started: {e}");
            return ExitCode::FAILURE;
        }
    };
    match outcome {
        Ok((_, Ok(()))) => ExitCode::SUCCESS,
        Ok((report, Err(failure))) => {
            report.fail(&failure);
            ExitCode::from(failure.exit as u8)
        }
        // The panic's own message is on stderr already.
        Err(_) => {
            eprintln!("error: this is a defect of silure; please report it with the message above");
            ExitCode::from(Failure::DEFECT)
        }
    }
}
