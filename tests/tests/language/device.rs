//! Language models on the CUDA device, which here is the emulator behind an unmodified driver binding: the same
//! tolerance, first choices and greedy tokens as on the CPU. Steps of equal shape are replayed from a recording, with
//! lengths, pages and tokens that have changed.

use super::*;
use silure_cuda_device::{Cuda, Which};
use silure_runtime::LoadOptions;

fn on_device(c: &Compiler, case: &Case, options: &ImportOptions) -> Arc<Engine> {
    let folder = tempfile::tempdir().unwrap();
    case.write(folder.path(), 1);
    let target = Options { targets: vec!["cuda:sm_80".into()], ..Options::default() };
    let compiled = c.compile(load(c, folder.path(), options), &target);
    let compiled = compiled.unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let device = Cuda::open(Which::Emulated).unwrap();
    let load = LoadOptions { devices: vec![device], ..LoadOptions::default() };
    Engine::from_bytes_with(&compiled.to_bytes().unwrap(), &load).unwrap()
}

/// The prompt, then some greedy tokens.
fn steps(case: &Case, engine: &Arc<Engine>, tokens: usize) {
    let mut steps = Steps::new(engine, PAGE, PAGES);
    let mut s = steps.sequence(case.prompt.len() + tokens);
    let logits = steps.step("prefill", &mut [(&mut s, &case.prompt)]);
    println!("{}: off by {:.2e}, reference {:.2e}", case.name, off(case, 0, &logits), case.error);
    check(case, "prompt on the device", 0, &logits);
    let mut said = vec![best(logits.last().unwrap()).0];
    while said.len() < tokens {
        let logits = steps.step("decode", &mut [(&mut s, &said[said.len() - 1..])]);
        said.push(best(&logits[0]).0);
    }
    assert_eq!(said, case.tokens[..tokens], "{}: greedy tokens on the device", case.name);
}

#[test]
fn models_on_the_device() {
    let compiler = Compiler::new().unwrap();
    for name in ["llama", "qwen2-bf16", "deepseek-v3", "deepseek-v3-fp8"] {
        let case = Case::read(name);
        steps(&case, &on_device(&compiler, &case, &options()), 9);
    }
}
