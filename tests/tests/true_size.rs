//! Models of true size from their configurations alone: through every pass and code generation, in little memory.

use std::path::Path;

use silure::hf::ImportOptions;
use silure::ir::Elem;
use silure::{Compiler, Options, Precision};

/// The most memory that this process has had, in bytes.
#[cfg(target_os = "linux")]
fn peak() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// DeepSeek V3, its context too: parameters as published, a cache of latents, compiled in less than 4 GiB, also
/// where 671 billion weights are quantised.
#[test]
fn deepseek_v3() {
    let compiler = Compiler::new().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("language/configs/deepseek-v3.json");
    for precision in [None, Some(Precision::Int4 { group: 32, pure: false })] {
        let o = ImportOptions {
            meta: true,
            context: Some(163_840),
            cache: Some(Elem::Bf16),
            ..Default::default()
        };
        let model = compiler.load_directory(&path, &o).unwrap_or_else(|e| panic!("{e}"));
        let p = model.parameters.unwrap();
        assert_eq!((p.total, p.routed), (671_026_419_200, 653_908_770_816));
        assert_eq!(p.active, p.total - p.routed + p.routed * 8 / 256);
        let options = Options { precision, ..Options::default() };
        let compiled = compiler.compile(model, &options).unwrap_or_else(|e| panic!("{e}"));
        let plan = &compiled.encoded.plan;
        assert_eq!(plan.entries.len(), 2);
        let (rows, bytes) = plan.states.iter().fold((0, 0), |(_, sum), s| {
            assert_eq!(s.elem, Elem::Bf16);
            (s.dims[0], sum + s.bytes().unwrap())
        });
        assert_eq!((rows, bytes), (163_840, 163_840 * 70_272));
    }
    #[cfg(target_os = "linux")]
    assert!(peak() < 4 << 30, "{} bytes", peak());
}
