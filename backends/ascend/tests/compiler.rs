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

fn check(name: &str, on: &str, task: TaskType) {
    let Some(tools) = tools(name) else { return };
    let (m, t) = (kernel(name), target(on));
    let f = m.func(name).expect("the kernel");
    for blocks in [Blocks::Loop, Blocks::Each] {
        let (out, missing) = accept(f, &t, blocks, &tools);
        eprintln!(
            "{name} {on} {blocks:?}: {:?}, workspace {} bytes a block, unresolved {missing:?}",
            out.task, out.workspace
        );
        assert_eq!(out.task, Some(task), "{name} on {on}, {blocks:?}");
        assert_eq!(missing, Vec::<String>::new(), "{name} on {on}, {blocks:?}");
        assert!(out.hivm.contains(name));
    }
}

#[test]
fn softmax_910b() {
    check("softmax", "Ascend910B2", TaskType::Vector);
}

#[test]
fn matmul_bias_gelu_910b() {
    check("matmul_bias_gelu", "Ascend910B2", TaskType::Mix);
}

#[test]
fn flash_attention_910b() {
    check("flash_attention", "Ascend910B2", TaskType::Mix);
}

#[test]
fn paged_mla_decode_910b() {
    check("paged_mla_decode", "Ascend910B2", TaskType::Mix);
}

#[test]
fn conv3x3_910b() {
    check("conv3x3", "Ascend910B2", TaskType::Mix);
}

#[test]
fn grouped_fp8_matmul_950() {
    check("grouped_fp8_matmul", "Ascend950PR_9589", TaskType::Mix);
}

#[test]
fn softmax_950() {
    check("softmax", "Ascend950PR_9589", TaskType::Vector);
}

#[test]
fn matmul_bias_gelu_950() {
    check("matmul_bias_gelu", "Ascend950PR_9589", TaskType::Mix);
}

#[test]
fn flash_attention_950() {
    check("flash_attention", "Ascend950PR_9589", TaskType::Mix);
}

#[test]
fn paged_mla_decode_950() {
    check("paged_mla_decode", "Ascend950PR_9589", TaskType::Mix);
}

#[test]
fn conv3x3_950() {
    check("conv3x3", "Ascend950PR_9589", TaskType::Mix);
}
