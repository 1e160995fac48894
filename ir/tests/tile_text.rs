//! The kernels in tests/kernels, and their problems as graphs: they verify, and their text round-trips in
//! both forms.

use silure_ir::{Context, text};

const KERNELS: [&str; 6] = [
    "softmax",
    "matmul_bias_gelu",
    "flash_attention",
    "paged_mla_decode",
    "conv3x3",
    "grouped_fp8_matmul",
];

fn source(name: &str) -> String {
    let path = format!("{}/../tests/kernels/{name}.sir", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn kernels_verify_and_round_trip_in_both_forms() {
    let cx = Context::new();
    for name in KERNELS.iter().flat_map(|n| [n.to_string(), format!("{n}.graph")]) {
        let (name, text) = (name.as_str(), source(&name));
        let m = text::parse_verified(&cx, name, &text).unwrap_or_else(|e| {
            panic!("{}", e.iter().map(|e| format!("{e}\n")).collect::<String>())
        });
        assert_eq!(m.funcs.len(), 1);
        let plain = text::parse(&cx, name, &text, Default::default()).unwrap();
        // Comments are dropped; all else is written as it prints.
        let bare: String = text
            .lines()
            .filter(|l| !l.trim().starts_with("//"))
            .map(|l| format!("{l}\n"))
            .collect();
        assert_eq!(text::print(&plain), bare, "{name}");
        let generic = text::print_generic(&plain);
        let back = text::parse(&cx, name, &generic, Default::default())
            .unwrap_or_else(|e| panic!("{e}\n{generic}"));
        assert_eq!(text::print_generic(&back), generic, "{name}");
        silure_ir::verify::verify(&back).unwrap_or_else(|e| panic!("{name}: {}", e[0]));
        assert_eq!(back.funcs[0].walk().len(), plain.funcs[0].walk().len(), "{name}");
    }
}
