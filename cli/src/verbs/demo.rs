//! `demo`: the built-in digit classifier, compiled in memory and run on samples it was not trained on.
//!
//! cli/demo/train_digits.py trained it and documents both files.

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use silure::{Compiler, Exit};
use silure_runtime::{Engine, Pool, Session, SessionOptions, Tensor};

use crate::failure::{Failure, Result};
use crate::model::{self, CompileArgs};
use crate::report::{Report, bytes, seconds};

pub const MODEL: &[u8] = include_bytes!("../../demo/digits.onnx");
const SAMPLES: &[u8] = include_bytes!("../../demo/digits.bin");
/// Greatest pixel value.
const WHITE: u8 = 16;

/// Options.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Digits to draw
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(0..=20))]
    pub draw: u8,
    /// Threads
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Held-out images with their labels.
struct Samples {
    height: usize,
    width: usize,
    labels: Vec<u8>,
    pixels: Vec<u8>,
}

/// See the module documentation.
pub fn run(a: &Args, report: &mut Report) -> Result<()> {
    let samples =
        samples().ok_or_else(|| Failure::new(Exit::Failure, "the samples are damaged"))?;
    let compiler = Compiler::new()?;
    let begin = Instant::now();
    let loaded = compiler.load_bytes("digits.onnx", MODEL.to_vec(), &Default::default())?;
    let options = CompileArgs::default().options_here(report)?;
    let compiled = model::compile(&compiler, loaded, &options, report, &mut |_, _| Ok(()))?;
    let file = compiled.to_bytes()?;
    let compile = begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    let engine = Engine::from_bytes(&file)?;
    let load = begin.elapsed().as_secs_f64();
    let pool = Some(Arc::new(Pool::new(a.threads.into())));
    let mut session = Session::with(&engine, SessionOptions { pool, memory_limit: None })?;
    let (mut right, mut times, mut drawn) = (0, vec![], vec![]);
    let size = samples.height * samples.width;
    for (i, &label) in samples.labels.iter().enumerate() {
        let pixels = &samples.pixels[i * size..][..size];
        let values: Vec<f32> = pixels.iter().map(|p| *p as f32 / WHITE as f32).collect();
        let x = Tensor::f32(&[1, 1, samples.height, samples.width], &values)?;
        let begin = Instant::now();
        let out = session.run(0, &[x.view()])?;
        times.push(begin.elapsed().as_secs_f64());
        let scores = out.first().map(Tensor::to_f64).unwrap_or_default();
        let (guess, score) = scores
            .iter()
            .enumerate()
            .fold((0, 0.0), |best, (k, s)| if *s > best.1 { (k, *s) } else { best });
        right += (guess == label as usize) as usize;
        if drawn.len() < a.draw as usize {
            drawn.push((picture(pixels, samples.width), label, guess, score));
        }
    }
    let n = samples.labels.len();
    let accuracy = right as f64 / n as f64;
    times.sort_by(f64::total_cmp);
    let median = times.get(n / 2).copied().unwrap_or(0.0);
    if a.json {
        return report.value(&json!({
            "samples": n, "right": right, "accuracy": accuracy, "compile_seconds": compile,
            "load_seconds": load, "engine_bytes": file.len(), "median_seconds": median,
        }));
    }
    report.out(&gallery(&drawn))?;
    report.out(&format!(
        "{right} of {n} held-out digits right: {:.1} %\n\
         compiled in {} for {}, engine {}, loaded in {}\n\
         one digit in {} (median, {} thread{})\n",
        accuracy * 100.0,
        seconds(compile),
        options.targets.join(", "),
        bytes(file.len() as u64),
        seconds(load),
        seconds(median),
        a.threads,
        if a.threads == 1 { "" } else { "s" },
    ))
}

fn samples() -> Option<Samples> {
    let word = |at: usize| {
        let b = SAMPLES.get(at..at + 4)?;
        Some(u32::from_le_bytes(b.try_into().ok()?) as usize)
    };
    let rest = SAMPLES.get(16..).filter(|_| SAMPLES.starts_with(b"SILD"))?;
    let (count, height, width) = (word(4)?, word(8)?, word(12)?);
    let record = height.checked_mul(width)? + 1;
    if count == 0 || rest.len() != count.checked_mul(record)? {
        return None;
    }
    let labels = rest.chunks(record).map(|r| r[0]).collect();
    let pixels = rest.chunks(record).flat_map(|r| &r[1..]).copied().collect();
    Some(Samples { height, width, labels, pixels })
}

/// An image as lines of half blocks, two rows of pixels each.
fn picture(pixels: &[u8], width: usize) -> Vec<String> {
    let rows: Vec<&[u8]> = pixels.chunks(width).collect();
    let dark = |p: u8| p > WHITE * 3 / 8;
    rows.chunks(2)
        .map(|pair| {
            let below = pair.get(1);
            (0..width)
                .map(|x| match (dark(pair[0][x]), below.is_some_and(|r| dark(r[x]))) {
                    (true, true) => '█',
                    (true, false) => '▀',
                    (false, true) => '▄',
                    (false, false) => ' ',
                })
                .collect()
        })
        .collect()
}

/// The pictures side by side, with what was read.
fn gallery(drawn: &[(Vec<String>, u8, usize, f64)]) -> String {
    let mut out = String::new();
    let lines = drawn.first().map_or(0, |d| d.0.len());
    for l in 0..lines {
        let row: Vec<&str> = drawn.iter().map(|d| d.0[l].as_str()).collect();
        out += row.join("    ").trim_end();
        out.push('\n');
    }
    let captions: Vec<String> = drawn
        .iter()
        .map(|(_, label, guess, score)| {
            let wrong =
                if *label as usize == *guess { String::new() } else { format!("≠{label}") };
            format!("{:<12}", format!("{guess}{wrong} {:.0} %", score * 100.0))
        })
        .collect();
    out += captions.concat().trim_end();
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_are_whole() {
        let s = samples().unwrap();
        assert_eq!((s.labels.len(), s.height, s.width), (450, 8, 8));
        assert!(s.labels.iter().all(|l| *l < 10) && s.pixels.iter().all(|p| *p <= WHITE));
    }

    #[test]
    fn half_blocks() {
        assert_eq!(picture(&[16, 0, 0, 16, 16, 16], 2), ["▀▄", "▀▀"]);
        assert!(MODEL.len() + SAMPLES.len() < 200_000);
    }
}
