//! The block types of GGUF files beside ggml (goldens/ggml.py).

use silure_ir::ggml::{Form, Part, unpack};
use silure_ir::{Elem, Tensor};

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

#[test]
fn blocks_are_what_ggml_makes_of_them_bit_for_bit() {
    let mut seen = 0;
    for line in include_str!("goldens/ggml.txt").lines() {
        let [name, raw, want] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let form = Form::ALL.into_iter().find(|f| f.name() == name).unwrap();
        let raw = bytes(raw);
        let t = Tensor::new(Elem::U8, &[2, raw.len() / 2], raw).unwrap();
        assert_eq!(unpack(form, Part::Values, &t).unwrap().into_bytes(), bytes(want), "{name}");
        seen += 1;
    }
    assert_eq!(seen, Form::ALL.len());
}

#[test]
fn the_expression_reads_back_from_its_text() {
    let ctx = silure_ir::Context::new();
    let text = "unpack(file(\"x.gguf\", 64, 240, u8[2, 120]), q4_1, values)";
    let all = ["values", "codes", "scales", "offsets"].map(|p| text.replace("values", p));
    for (text, ty) in all.iter().zip(["f32[2, 192]", "u4[2, 192]", "f16[2, 6]", "f16[2, 6]"]) {
        let module = format!("module @m {{\n  weight @w : {ty} = {text}\n}}\n");
        let m = silure_ir::text::parse(&ctx, "t", &module, Default::default()).unwrap();
        assert_eq!(m.weights[0].expr.to_string(), *text);
        assert_eq!(m.weights[0].expr.ty().unwrap(), m.weights[0].ty);
    }
    let bad = "module @m {\n  weight @w : f32[1] = unpack(file(\"x\", 0, 20, u8[1, 20]), q5_9, values)\n}\n";
    assert!(silure_ir::text::parse(&ctx, "t", bad, Default::default()).is_err());
}
