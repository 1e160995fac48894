//! Language models on the CUDA device, which here is the emulator behind an unmodified driver binding: the same
//! tolerance, first choices and greedy tokens as on the CPU. Steps of equal shape are replayed from a recording, with
//! lengths, pages and tokens that have changed.

use super::*;
use silure::Precision;
use silure_cuda_device::{Cuda, Which};
use silure_engine::EngineFile;
use silure_runtime::LoadOptions;

fn on_device(c: &Compiler, case: &Case, options: &ImportOptions) -> Arc<Engine> {
    on_device_as(c, case, options, None)
}

fn on_device_as(
    c: &Compiler,
    case: &Case,
    options: &ImportOptions,
    precision: Option<Precision>,
) -> Arc<Engine> {
    opened(&compiled(c, case, options, precision, "cuda:sm_80"))
}

fn compiled(
    c: &Compiler,
    case: &Case,
    options: &ImportOptions,
    precision: Option<Precision>,
    target: &str,
) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    case.write(folder.path(), 1);
    let target = Options { targets: vec![target.into()], precision, ..Options::default() };
    let compiled = c.compile(load(c, folder.path(), options), &target);
    compiled.unwrap_or_else(|e| panic!("{}: {e}", case.name)).to_bytes().unwrap()
}

fn opened(engine: &[u8]) -> Arc<Engine> {
    let device = Cuda::open(Which::Emulated).unwrap();
    let load = LoadOptions { devices: vec![device], ..LoadOptions::default() };
    Engine::from_bytes_with(engine, &load).unwrap()
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

/// The prompt without its last eight tokens at once, then these one by one.
fn in_pieces(engine: &Arc<Engine>, case: &Case, page: usize) -> Vec<Vec<f64>> {
    let mut steps = Steps::new(engine, page, PAGES * PAGE / page);
    let (head, tail) = case.prompt.split_at(case.prompt.len() - 8);
    let mut s = steps.sequence(case.prompt.len());
    let mut logits = steps.step("prefill", &mut [(&mut s, head)]);
    for token in tail {
        logits.extend(steps.step("decode", &mut [(&mut s, std::slice::from_ref(token))]));
    }
    assert_eq!(logits.len(), case.prompt.len());
    logits
}

/// The same engine options on the host, and how far logits of a device are from what it gives.
fn off_the_host(
    case: &Case,
    o: &ImportOptions,
    precision: Option<Precision>,
    got: &[Vec<f64>],
) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    case.write(folder.path(), 1);
    let c = Compiler::new().unwrap();
    let form = Options { precision, ..Options::default() };
    let host = c.compile(load(&c, folder.path(), o), &form).unwrap_or_else(|e| panic!("{e}"));
    let host = Engine::from_bytes(&host.to_bytes().unwrap()).unwrap();
    let want = in_pieces(&host, case, o.page.unwrap());
    furthest(&want, got)
}

fn furthest(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs
        .fold(0f64, |m, (a, b)| if (a - b).is_nan() { f64::INFINITY } else { m.max((a - b).abs()) })
}

/// A cache and weights of bf16: every product of the model reads what is stored in halves.
#[test]
fn deepseek_in_halves_on_the_device() {
    let case = Case::read("deepseek-v3");
    let (o, halves) = (ImportOptions { cache: Some(Elem::Bf16), ..options() }, Precision::Bf16);
    let engine = on_device_as(&Compiler::new().unwrap(), &case, &o, Some(halves));
    let logits = in_pieces(&engine, &case, PAGE);
    let (off, bound) = (off_the_host(&case, &o, Some(halves), &logits), bound(&case));
    println!("deepseek-v3 in halves: off by {off:.2e} from the host, {bound:.2e} are allowed");
    // The halves are there: they are further from the truth than f32 may be.
    assert!(super::off(&case, 0, &logits) > 10.0 * bound, "nothing was rounded to halves");
    assert!(off <= bound, "off by {off:e}, {bound:e} are allowed");
}

/// Pages that are long enough for matrix units: heads that share a cache of latents are multiplied with it together. Beside it are
/// short pages, on the device too: a cache of bf16 has the other neighbour of a number where the host differs in its last bit.
#[test]
fn latent_attention_by_units_on_the_device() {
    let (case, c) = (Case::read("deepseek-v3"), Compiler::new().unwrap());
    let [short, long] = [PAGE, 16].map(|page| {
        let (pages, cache) = (Some(PAGES * PAGE / page), Some(Elem::Bf16));
        let o = ImportOptions { cache, page: Some(page), pages, ..options() };
        let bytes = compiled(&c, &case, &o, None, "cuda:sm_80");
        let file = EngineFile::parse(&bytes).unwrap();
        let kernels = file.device_code().into_iter().flat_map(|c| c.1.kernels);
        let attention = kernels.filter(|k| k.name.starts_with("paged_attention"));
        let units = attention.filter(|k| k.text.contains("mma.sync")).count();
        assert_eq!(units > 0, page > PAGE, "{units} kernels by units, pages of {page}");
        in_pieces(&opened(&bytes), &case, page)
    });
    let (off, bound) = (furthest(&short, &long), bound(&case));
    println!("attention by units: off by {off:.2e} from one by one, {bound:.2e} are allowed");
    assert!(off <= bound, "off by {off:e}, {bound:e} are allowed");
}

#[test]
fn models_on_the_device() {
    let compiler = Compiler::new().unwrap();
    for name in ["llama", "qwen2-bf16", "deepseek-v3", "deepseek-v3-fp8"] {
        let case = Case::read(name);
        steps(&case, &on_device(&compiler, &case, &options()), 9);
    }
}

/// Environment that chooses the emulated device; a process reads it once.
const CAPABILITY: &str = "SILURE_EMULATED_CAPABILITY";

/// Weights of 8-bit floats, multiplied with 8-bit floats by units of their own: each order of warps in a process of its own.
#[test]
fn deepseek_in_eight_bits_on_both_sides() {
    if std::env::var_os(CAPABILITY).is_some() {
        return eights();
    }
    for seed in 0..5 {
        let run = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["device::deepseek_in_eight_bits_on_both_sides", "--exact", "--nocapture"])
            .env(CAPABILITY, "8.9")
            .env("SILURE_EMULATED_SEED", seed.to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        let wrong = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success() && said.contains("1 passed"), "order {seed}: {said}{wrong}");
        said.lines().filter(|l| l.contains("off by")).for_each(|l| println!("order {seed}: {l}"));
    }
}

fn eights() {
    let case = Case::read("deepseek-v3-fp8");
    let c = Compiler::new().unwrap();
    let bytes = compiled(&c, &case, &options(), Some(Precision::Fp8), "cuda:sm_89");
    let file = EngineFile::parse(&bytes).unwrap();
    let kernels = file.device_code().into_iter().flat_map(|c| c.1.kernels);
    let eights = kernels.filter(|k| k.text.contains(".f32.e4m3.e4m3.f32")).count();
    assert!(eights > 1, "{eights} kernels multiply 8-bit floats");
    let got = in_pieces(&opened(&bytes), &case, PAGE);
    let off = off_the_host(&case, &options(), Some(Precision::Fp8), &got);
    let bound = bound(&case);
    println!("in 8 bits on both sides: off by {off:.2e} from the host, {bound:.2e} are allowed");
    println!("off by {:.2e} from the truth", super::off(&case, 0, &got));
    assert!(super::off(&case, 0, &got) > 10.0 * bound, "nothing was rounded to 8 bits");
    assert!(off <= bound, "off by {off:e}, {bound:e} are allowed");
}
