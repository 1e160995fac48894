//! Prints the Ascend text of a tile kernel: `emit FILE.sir [TARGET] [each|loop]`.

use silure_ascend::{Blocks, emit_with};
use silure_ir::{Context, FuncKind, text};
use silure_target::Target;

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<(), String> {
    let file = args.first().ok_or("usage: emit FILE.sir [TARGET] [each|loop]")?;
    let target = Target::parse(args.get(1).map_or("ascend", |t| t)).map_err(|e| e.to_string())?;
    let blocks = match args.get(2).map(String::as_str) {
        Some("each") => Blocks::Each,
        Some("loop") => Blocks::Loop,
        None => Blocks::Auto,
        Some(other) => return Err(format!("`{other}` is neither each nor loop")),
    };
    let list =
        |e: Vec<silure_ir::Diagnostic>| e.iter().map(|e| format!("{e}\n")).collect::<String>();
    let source = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
    let m = text::parse_verified(&Context::new(), file, &source).map_err(list)?;
    for f in m.funcs.iter().filter(|f| f.kind == FuncKind::Kernel) {
        print!("{}", emit_with(f, &target, blocks).map_err(list)?.mlir);
    }
    Ok(())
}
