//! Prints the PTX of the first kernel of a text file: `ptx FILE.sir [TARGET]` (by default cuda:sm_80).

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(file), target) = (args.next(), args.next().unwrap_or("cuda:sm_80".into())) else {
        eprintln!("usage: ptx FILE.sir [TARGET]");
        return ExitCode::from(2);
    };
    let fail = |m: String| {
        eprintln!("error: {m}");
        ExitCode::FAILURE
    };
    let source = match std::fs::read_to_string(&file) {
        Ok(s) => s,
        Err(e) => return fail(format!("{file}: {e}")),
    };
    let mut cx = silure_ir::Context::new();
    if let Err(e) = silure_simt::register(&mut cx) {
        return fail(e.to_string());
    }
    let module = match silure_ir::text::parse_verified(&cx, &file, &source) {
        Ok(m) => m,
        Err(e) => return fail(e.iter().map(|e| format!("{e}\n")).collect()),
    };
    let Some(f) = module.funcs.first() else { return fail(format!("{file} has no kernel")) };
    match silure_cuda::ptx(f, &target) {
        Ok(m) => {
            m.notes.iter().for_each(|n| eprintln!("note: {n}"));
            print!("{}", m.text);
            ExitCode::SUCCESS
        }
        Err(e) => fail(e.to_string()),
    }
}
