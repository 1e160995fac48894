//! What targets refuse, and why.

mod common;

use common::{kernel, line_kernel, parse, target};
use silure_ascend::{Blocks, can, can_with, emit};
use silure_ir::{Code, Diagnostic, Module};

const B: &str = "Ascend910B2";
const A5: &str = "Ascend950PR_9589";

fn refusals(m: &Module, on: &str) -> Vec<Diagnostic> {
    let f = m.funcs.first().expect("a kernel");
    let found = can(f, &target(on));
    assert_eq!(
        emit(f, &target(on)).err().unwrap_or_default(),
        found,
        "emit refuses what `can` refuses"
    );
    found
}

/// The refusals name all of these words.
fn says(found: &[Diagnostic], words: &[&str]) {
    let text: String = found.iter().map(|d| format!("{d}\n")).collect();
    assert!(!found.is_empty(), "nothing is refused; wanted {words:?}");
    for w in words {
        assert!(text.contains(w), "`{w}` is not in:\n{text}");
    }
}

#[test]
fn the_kernels_are_legal() {
    for name in ["softmax", "matmul_bias_gelu", "flash_attention", "paged_mla_decode", "conv3x3"] {
        for on in [B, A5, "Ascend910_9382"] {
            assert_eq!(refusals(&kernel(name), on), [], "{name} on {on}");
        }
    }
    assert_eq!(refusals(&kernel("grouped_fp8_matmul"), A5), []);
}

#[test]
fn fp8_is_refused_before_the_950() {
    let found = refusals(&kernel("grouped_fp8_matmul"), B);
    says(&found, &["8-bit floats", "e4m3fn", "dequantise", "bf16", "ascend:Ascend910B2"]);
    assert!(found.iter().all(|d| d.code == Code::Unsupported));
}

fn dot(a: &str, b: &str, acc: &str, size: usize) -> Module {
    parse(
        "dot.sir",
        &format!(
            "module @m {{\n kernel @k(%a: ptr<{a}, global>, %b: ptr<{b}, global>, %y: ptr<{acc}, global>) {{grid = dims[1]}} {{\n\
             %n = scalar {{value = dense<i64[]: {size}>}} : index\n %c0 = scalar {{value = dense<i64[]: 0>}} : index\n\
             %c1 = scalar {{value = dense<i64[]: 1>}} : index\n %z = scalar {{value = dense<{acc}[]: 0>}} : {acc}\n\
             %av = tile.view %a, %n, %n, %n, %c1 : view<{a}, 2>\n %bv = tile.view %b, %n, %n, %n, %c1 : view<{b}, 2>\n\
             %yv = tile.view %y, %n, %n, %n, %c1 : view<{acc}, 2>\n\
             %ta = tile.load %av, %c0, %c0 {{tile = [{size}, {size}]}} : tile<{size}x{size}x{a}>\n\
             %tb = tile.load %bv, %c0, %c0 {{tile = [{size}, {size}]}} : tile<{size}x{size}x{b}>\n\
             %zero = tile.full %z {{shape = [{size}, {size}]}} : tile<{size}x{size}x{acc}>\n\
             %d = tile.dot %ta, %tb, %zero : tile<{size}x{size}x{acc}>\n\
             tile.store %yv, %d, %c0, %c0\n return\n }}\n}}\n"
        ),
    )
}

#[test]
fn products_follow_the_cube_unit() {
    assert_eq!(refusals(&dot("i8", "i8", "i32", 64), B), []);
    says(&refusals(&dot("u8", "u8", "i32", 64), B), &["does not multiply u8", "column sums"]);
    says(&refusals(&dot("u8", "i8", "i32", 64), A5), &["does not multiply u8"]);
    says(&refusals(&dot("f64", "f64", "f64", 16), B), &["no f64", "use f32"]);
}

#[test]
fn memory_is_counted_before_emission() {
    // 512×512 of f32: the accumulator alone is 1 MiB, both operands are 1 MiB.
    let text = dot("f16", "f16", "f32", 512);
    let found = refusals(&text, B);
    says(&found, &["L1", "L0C", "at least 1048576 bytes", "131072 bytes", "524288 bytes"]);
    assert!(found.iter().all(|d| d.code == Code::Limit));
    // Two tiles of 32 Ki f32 and their sum in place: 256 KiB.
    let big = line_kernel("f32", "%out = arith.add %a, %b : tile<256xf32>");
    assert_eq!(refusals(&big, B), []);
    let source = silure_ir::text::print(&big).replace("256", "32768");
    says(
        &refusals(&parse("big.sir", &source), B),
        &["UB", "at least 262144 bytes", "196608 bytes"],
    );
}

#[test]
fn wrong_forms_of_the_compiler_are_refused() {
    let refused = |elem: &str, body: &str, on: &str, words: &[&str]| {
        says(&refusals(&line_kernel(elem, body), on), words);
    };
    refused("i32", "%out = arith.div %a, %b : tile<256xi32>", B, &["2^24"]);
    refused("u16", "%out = arith.max %a, %b : tile<256xu16>", A5, &["as if signed"]);
    refused("f32", "%out = arith.rem %a, %b : tile<256xf32>", B, &["rounded quotient"]);
    refused("f32", "%out = arith.pow %a, %b : tile<256xf32>", B, &["known accuracy"]);
    for on in [B, A5] {
        let i64s = line_kernel("i64", "%out = arith.add %a, %b : tile<256xi64>");
        assert_eq!(refusals(&i64s, on), []);
    }
    assert_eq!(refusals(&line_kernel("i32", "%out = arith.div %a, %b : tile<256xi32>"), A5), []);
}

#[test]
fn names_and_grids_have_limits() {
    let m = line_kernel("f32", "%out = arith.add %a, %b : tile<256xf32>");
    let source = silure_ir::text::print(&m);
    let long = source.replace("@k<", &format!("@{}<", "k".repeat(51)));
    says(&refusals(&parse("long.sir", &long), B), &["too long", "at most 50", "51"]);
    let large = parse("large.sir", &source.replace("n: 1..", "n: 20000000.."));
    let f = large.funcs.first().expect("a kernel");
    says(&can_with(f, &target(B), Blocks::Each), &["65535", "loop over programs"]);
    assert_eq!(can(f, &target(B)), []);
}

#[test]
fn other_families_are_refused() {
    let m = kernel("softmax");
    let t = silure_target::Target::parse("cuda:sm_80").expect("a target");
    says(&can(m.func("softmax").expect("the kernel"), &t), &["not an Ascend target"]);
}
