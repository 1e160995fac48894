//! Tokens that engines draw themselves are those of the host's sampler, on every target: of random logits and settings, and of a
//! model that goes on with what it drew.

use super::*;
use silure_cuda_device::{Cuda, Which};
use silure_generate::{Decoder, Event, Model, Request, Sampler, Scheduler, Settings};
use silure_runtime::{LoadOptions, SessionOptions};

/// A linear congruential generator.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }

    /// Between two bounds; now and then the first.
    fn number(&mut self, from: f64, to: f64) -> f64 {
        if self.below(4) == 0 {
            from
        } else {
            from + (to - from) * self.below(1000) as f64 / 1000.0
        }
    }

    /// Any of the settings on or off.
    fn settings(&mut self, vocab: usize) -> Settings {
        Settings {
            temperature: self.number(0.0, 2.5),
            top_k: (self.below(2) == 0).then(|| 1 + self.below(2 * vocab)),
            top_p: self.number(1.0, 0.3),
            min_p: self.number(0.0, 0.4),
            repetition_penalty: self.number(1.0, 1.9),
            seed: self.below(1 << 20) as u64,
            ..Settings::default()
        }
    }
}

/// The inputs of `graph.sample` for some rows, and what the sampler of each draws.
fn rows(r: &mut Random, count: usize, vocab: usize) -> ([Tensor; 3], Vec<i64>) {
    let words = vocab.div_ceil(32);
    let (mut logits, mut settings, mut seen, mut want) = (vec![], vec![], vec![], vec![]);
    for _ in 0..count {
        // Sums of three are most often near the middle; steps of an eighth are often equal.
        let (step, wide) = ([8.0, 1000.0][r.below(2)], [1.0, 6.0, 30.0][r.below(3)]);
        let one = |r: &mut Random| (r.below(1001) as f64 / 500.0 - 1.0) * wide;
        let mut row: Vec<f64> = vec![];
        row.extend((0..vocab).map(|_| ((one(r) + one(r) + one(r)) * step).round() / step));
        if r.below(8) == 0 {
            row[r.below(vocab)] = [f64::NEG_INFINITY, f64::NAN, f64::INFINITY][r.below(3)];
        }
        let history: Vec<u32> = (0..r.below(20)).map(|_| r.below(vocab) as u32).collect();
        let mut sampler = Sampler::new(&r.settings(vocab)).unwrap();
        let floats: Vec<f32> = row.iter().map(|x| *x as f32).collect();
        want.push(sampler.clone().next(&floats, &history).map_or(-1, i64::from));
        let bits = sampler.seen(&history);
        seen.extend((0..words).map(|i| bits.get(i).copied().unwrap_or(0) as f64));
        settings.extend(sampler.row().numbers());
        logits.extend(row);
    }
    let tensor = |e, n, all: &[f64]| Tensor::from_f64s(e, &[count, n], all).unwrap();
    let all = [
        tensor(Elem::F32, vocab, &logits),
        tensor(Elem::F64, 6, &settings),
        tensor(Elem::I32, words, &seen),
    ];
    (all, want)
}

fn on_device(bytes: &[u8]) -> Arc<Engine> {
    let device = Cuda::open(Which::Emulated).unwrap();
    let load = LoadOptions { devices: vec![device], ..LoadOptions::default() };
    Engine::from_bytes_with(bytes, &load).unwrap()
}

#[test]
fn tokens_are_those_of_the_sampler() {
    let c = Compiler::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.sir");
    let (mut r, mut draws, mut none) = (Random(7), 0, 0);
    for (vocab, runs, emulated) in [(1, 2, 1), (31, 16, 3), (200, 24, 1), (2500, 8, 1)] {
        let source = format!(
            "module @m {{
  entry @main<b: 1..64, w: 0..4096>(%x: f32[b, {vocab}], %s: f64[b, 6], %seen: i32[b, w]) -> (y: i64[b]) {{
    %y = graph.sample %x, %s, %seen : i64[b]
    return %y
  }}
}}"
        );
        std::fs::write(&file, source).unwrap();
        let load = || c.load(&file, &Default::default()).unwrap_or_else(|e| panic!("{e}"));
        let host = silure_tests::engine(&c, load()).unwrap();
        let target = Options { targets: vec!["cuda:sm_80".into()], ..Options::default() };
        let device = c.compile(load(), &target).unwrap_or_else(|e| panic!("{e}"));
        let device = on_device(&device.to_bytes().unwrap());
        let module = load().module;
        for run in 0..runs {
            let (inputs, want) = rows(&mut r, 64, vocab);
            draws += want.len();
            none += want.iter().filter(|t| **t < 0).count();
            let got = silure_tests::run(&host, "main", &inputs)[0].to_i64s();
            assert_eq!(got, want, "{vocab} tokens on the host, run {run}");
            let files = silure_ir::weight::NoFiles;
            let got = silure_tests::oracle(&module, &files, "main", &inputs)[0].to_i64s();
            assert_eq!(got, want, "{vocab} tokens by the interpreter, run {run}");
            if run < emulated {
                let (inputs, want) = rows(&mut r, 12, vocab);
                let got = silure_tests::run(&device, "main", &inputs)[0].to_i64s();
                assert_eq!(got, want, "{vocab} tokens on the device, run {run}");
            }
        }
    }
    println!("{draws} draws, {none} of logits that have no token");
    assert!(draws > 3000 && none > 50);
}

/// Two sequences side by side; the tokens of each.
fn generated(engine: &Arc<Engine>, case: &Case, draws: bool) -> [Vec<u32>; 2] {
    let model = Model::new(engine, SessionOptions::default()).unwrap();
    assert_eq!(model.draws(), draws);
    let mut scheduler = Scheduler::new(model, 64);
    let prompt: Vec<u32> = case.prompt.iter().map(|t| *t as u32).collect();
    let all = Settings {
        temperature: 0.8,
        top_k: Some(40),
        top_p: 0.95,
        min_p: 0.02,
        seed: 5,
        ..Settings::default()
    };
    let other =
        Settings { temperature: 1.3, repetition_penalty: 1.4, seed: 6, ..Settings::default() };
    for (settings, n, most) in [(all, prompt.len(), 32), (other, prompt.len() / 2, 12)] {
        let prompt = prompt[..n].to_vec();
        let request = Request {
            prompt,
            settings,
            max_new_tokens: most,
            ignore_stop: true,
            ..Request::default()
        };
        scheduler.add(request).unwrap();
    }
    let mut out = [vec![], vec![]];
    while !scheduler.idle() {
        for e in scheduler.step().unwrap_or_else(|e| panic!("{e}")) {
            if let Event::Token(i, token) = e {
                out[i as usize].push(token);
            }
        }
    }
    out
}

#[test]
fn a_model_goes_on_with_what_it_drew() {
    let c = Compiler::new().unwrap();
    let case = Case::read("llama");
    let want = generated(&engine(&c, &case, 1, &options()), &case, false);
    assert_eq!([want[0].len(), want[1].len()], [32, 12]);
    let o = ImportOptions { sample: true, ..options() };
    assert_eq!(generated(&engine(&c, &case, 1, &o), &case, true), want, "on the host");
    let folder = tempfile::tempdir().unwrap();
    case.write(folder.path(), 1);
    let target = Options { targets: vec!["cuda:sm_80".into()], ..Options::default() };
    let device = c.compile(load(&c, folder.path(), &o), &target).unwrap_or_else(|e| panic!("{e}"));
    let device = on_device(&device.to_bytes().unwrap());
    assert_eq!(generated(&device, &case, true), want, "on the device");
    // Greedy tokens are not what was drawn.
    assert_ne!(want[0][..9].iter().map(|t| *t as i64).collect::<Vec<_>>(), case.tokens[..9]);
}
