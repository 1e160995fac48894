//! An ONNX model through the whole compiler: a diagnostic or an engine that loads.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use silure::ir::Code;
use silure::{Compiler, Options};

fuzz_target!(|data: &[u8]| {
    static COMPILER: OnceLock<Compiler> = OnceLock::new();
    let compiler = COMPILER.get_or_init(|| Compiler::new().expect("the tables are sound"));
    let bytes = compiler
        .load_bytes("fuzz.onnx", data.to_vec(), &Default::default())
        .and_then(|model| compiler.compile(model, &Options::default())?.to_bytes());
    match bytes {
        Ok(bytes) => {
            drop(silure_runtime::Engine::from_bytes(&bytes).expect("what was written loads"))
        }
        Err(e) => {
            assert!(!e.to_string().trim().is_empty(), "an error without a message");
            let internal = e.diagnostics().iter().any(|d| matches!(d.code, Code::Internal));
            assert!(!internal, "a broken rule behind the importer: {e}");
        }
    }
});
