//! Text IR, either form: an error at a place, or a module that prints and parses back to the same text.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use silure::Compiler;
use silure::ir::text;

fuzz_target!(|data: &[u8]| {
    static COMPILER: OnceLock<Compiler> = OnceLock::new();
    let compiler = COMPILER.get_or_init(|| Compiler::new().expect("the tables are sound"));
    let Ok(source) = std::str::from_utf8(data) else { return };
    let Ok(module) = text::parse_verified(&compiler.context, "fuzz.sir", source) else { return };
    for print in [text::print, text::print_generic] {
        let printed = print(&module);
        let again = text::parse_verified(&compiler.context, "printed.sir", &printed)
            .unwrap_or_else(|e| panic!("what was printed does not parse: {e:?}\n{printed}"));
        assert_eq!(print(&again), printed);
    }
});
