//! The parts of an engine file that are not code: container, manifest, plan.

#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use silure_engine::{EngineFile, EngineWriter, Manifest, Plan};
use silure_runtime::{Engine, Session, SessionOptions};

fuzz_target!(|data: &[u8]| {
    let Some((&what, data)) = data.split_first() else { return };
    match what % 3 {
        0 => {
            if let Ok(file) = EngineFile::parse(data) {
                file.code_objects();
                file.assets().for_each(drop);
                file.weights();
            }
            drop(Engine::from_bytes(data));
        }
        1 => drop(Manifest::parse(data)),
        _ => {
            let Ok(plan) = Plan::decode(data) else { return };
            // What decodes is valid: it encodes to the same plan, loads from an engine, and a session can
            // be asked for.
            assert_eq!(Plan::decode(&plan.encode()).expect("an encoded plan decodes"), plan);
            if plan.weight_bytes() > 1 << 16 {
                return;
            }
            let sizes: Vec<u64> = plan.weights.iter().map(|w| w.bytes).collect();
            let zeros =
                |i: u32, out: &mut dyn Write| out.write_all(&vec![0; sizes[i as usize] as usize]);
            let Ok(bytes) = EngineWriter::new(plan, "fuzz").to_bytes(zeros) else { return };
            let Ok(engine) = Engine::from_bytes(&bytes) else { return };
            let options = SessionOptions { memory_limit: Some(64 << 20), ..Default::default() };
            drop(Session::with(&engine, options));
        }
    }
});
