//! The vendor's compiler on what is emitted: it must accept it, and every library function that the
//! result calls must exist.

mod common;

use common::{kernel, line_kernel, target, tools};
use silure_ascend::{Blocks, TaskType, compile, driver, emit_with, link};
use silure_ir::{Code, Func};
use silure_target::Target;

/// Emits and compiles; the library functions that nothing defines.
fn accept(
    f: &Func,
    t: &Target,
    blocks: Blocks,
    tools: &silure_ascend::Tools,
) -> (driver::Compiled, Vec<String>) {
    let m = emit_with(f, t, blocks)
        .unwrap_or_else(|e| panic!("{}", e.iter().map(|e| format!("{e}\n")).collect::<String>()));
    let out = compile(&m.mlir, &m.kernel, t, tools, driver::TIME_LIMIT).unwrap_or_else(|e| {
        panic!("{} for {} ({blocks:?}): {e}\n{}", m.kernel, t.full_name(), m.mlir)
    });
    let library = tools.library(t);
    if library.is_empty() {
        eprintln!("SKIPPED link check of {}: the package has no device library", m.kernel);
        return (out, vec![]);
    }
    let missing = link::unresolved(&out.hivm, &library).unwrap_or_else(|e| panic!("{e}"));
    (out, missing)
}

/// Accepted, with nothing unresolved but `known`.
fn check(name: &str, on: &str, task: TaskType, known: &[&str]) {
    let Some(tools) = tools(name) else { return };
    let (m, t) = (kernel(name), target(on));
    let f = m.func(name).expect("the kernel");
    for blocks in [Blocks::Loop, Blocks::Each] {
        let (out, missing) = accept(f, &t, blocks, &tools);
        eprintln!(
            "{name} {on} {blocks:?}: {:?}, workspace {} bytes a block, unresolved {missing:?}, {:?}",
            out.task, out.workspace, out.warnings
        );
        assert_eq!(out.task, Some(task), "{name} on {on}, {blocks:?}");
        assert_eq!(missing, known, "{name} on {on}, {blocks:?}");
        assert!(out.hivm.contains(&format!("@{name}")));
    }
}

#[test]
fn softmax_910b() {
    check("softmax", "Ascend910B2", TaskType::Vector, &[]);
}

#[test]
fn matmul_bias_gelu_910b() {
    check("matmul_bias_gelu", "Ascend910B2", TaskType::Mix, &[]);
}

#[test]
fn flash_attention_910b() {
    check("flash_attention", "Ascend910B2", TaskType::Mix, &[]);
}

#[test]
fn paged_mla_decode_910b() {
    check("paged_mla_decode", "Ascend910B2", TaskType::Mix, &[]);
}

#[test]
fn conv3x3_910b() {
    check("conv3x3", "Ascend910B2", TaskType::Cube, &[]);
}

#[test]
fn grouped_fp8_matmul_950() {
    check("grouped_fp8_matmul", "Ascend950PR_9589", TaskType::Mix, &[]);
}

#[test]
fn softmax_950() {
    check("softmax", "Ascend950PR_9589", TaskType::Vector, &[]);
}

#[test]
fn matmul_bias_gelu_950() {
    check("matmul_bias_gelu", "Ascend950PR_9589", TaskType::Mix, &[]);
}

#[test]
fn conv3x3_950() {
    check("conv3x3", "Ascend950PR_9589", TaskType::Mix, &[]);
}

// The public package's library for the 950 lacks the change of layout by which vector results (the
// probabilities) become an operand of the cube unit.
#[test]
fn flash_attention_950() {
    // Two products of one shape in one loop share their zeros, so the compiler adds those too.
    let known = ["transpose_3d_without_last_axis_half", "vadd_1d_float"];
    check("flash_attention", "Ascend950PR_9589", TaskType::Mix, &known);
}

#[test]
fn paged_mla_decode_950() {
    check(
        "paged_mla_decode",
        "Ascend950PR_9589",
        TaskType::Mix,
        &["transpose_3d_without_last_axis_bfloat16_t"],
    );
}

/// Elementwise ops, each with the element types it is tried on.
const OPS: &[(&str, &str)] = &[
    ("f32 f16 bf16", "arith.add %a, %b"),
    ("f32", "arith.sub %a, %b"),
    ("f32 f16", "arith.mul %a, %b"),
    ("f32", "arith.div %a, %b"),
    ("f32", "arith.min %a, %b"),
    ("f32 bf16", "arith.max %a, %b"),
    ("f32", "arith.floordiv %a, %b"),
    ("f32", "arith.neg %a"),
    ("f32 f16", "arith.abs %a"),
    ("f32", "arith.sign %a"),
    ("f32", "arith.relu %a"),
    ("f32 f16 bf16", "arith.exp %a"),
    ("f32", "arith.log %a"),
    ("f32", "arith.log1p %a"),
    ("f32 f16", "arith.expm1 %a"),
    ("f32", "arith.sqrt %a"),
    ("f32", "arith.rsqrt %a"),
    ("f32", "arith.recip %a"),
    ("f32", "arith.sin %a"),
    ("f32", "arith.cos %a"),
    ("f32", "arith.tanh %a"),
    ("f32", "arith.erf %a"),
    ("f32 bf16", "arith.sigmoid %a"),
    ("f32", "arith.floor %a"),
    ("f32", "arith.ceil %a"),
    ("f32 bf16", "arith.round %a"),
    ("f32", "arith.trunc %a"),
    ("f32", "arith.softplus %a"),
    ("f32", "arith.gelu %a {tanh = true}"),
    ("f32", "arith.leaky_relu %a"),
    ("f32", "arith.elu %a"),
    ("f32", "arith.hard_sigmoid %a"),
    ("f32", "arith.clip %a {hi = 6.0, lo = 0.0}"),
    ("i32 i16 i64", "arith.add %a, %b"),
    ("i32", "arith.max %a, %b"),
    ("i32", "arith.bitxor %a, %b"),
    ("i32", "arith.shr %a, %b"),
    ("i32", "arith.sign %a"),
    ("f32", "tile.scan %a {axis = 0, kind = \"sum\"}"),
];

#[test]
fn elementwise_ops_are_accepted_and_resolved() {
    let Some(tools) = tools("elementwise ops") else { return };
    let mut bad = Vec::new();
    for (elems, op) in OPS {
        for elem in elems.split(' ') {
            let m = line_kernel(elem, &format!("%out = {op} : tile<256x{elem}>"));
            for on in ["Ascend910B2", "Ascend950PR_9589"] {
                let f = m.func("k").expect("the kernel");
                let t = target(on);
                let Ok(e) = emit_with(f, &t, Blocks::Each) else {
                    bad.push(format!("{op} on {elem}, {on}: refused"));
                    continue;
                };
                match compile(&e.mlir, &e.kernel, &t, &tools, driver::TIME_LIMIT) {
                    Err(d) => bad.push(format!("{op} on {elem}, {on}: {d}")),
                    Ok(out) => {
                        let missing = link::unresolved(&out.hivm, &tools.library(&t));
                        if missing.as_ref().is_ok_and(|m| !m.is_empty()) || missing.is_err() {
                            bad.push(format!("{op} on {elem}, {on}: unresolved {missing:?}"));
                        }
                    }
                }
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn failures_are_diagnostics() {
    let Some(tools) = tools("failures of the compiler") else { return };
    let t = target("Ascend910B2");
    let e = compile("func.func @k(", "k", &t, &tools, driver::TIME_LIMIT).expect_err("no MLIR");
    assert_eq!(e.code, Code::Unsupported, "{e}");
    let late = compile("", "k", &t, &tools, std::time::Duration::ZERO).expect_err("no time");
    assert_eq!(late.code, Code::Limit, "{late}");
    // 40 Ki of f32 twice is more than the unified buffer; the legality check is passed by.
    let m = line_kernel("f32", "%out = arith.add %a, %b : tile<256xf32>");
    let text = silure_ascend::emit(m.func("k").expect("the kernel"), &t).expect("legal").mlir;
    let e = compile(&text.replace("256", "40960"), "k", &t, &tools, driver::TIME_LIMIT)
        .expect_err("too large");
    assert_eq!(e.code, Code::Limit, "{e}");
    assert!(e.to_string().contains("UB") && e.to_string().contains("196608 bytes"), "{e}");
}
