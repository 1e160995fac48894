//! Row kernels, and recurrent layers against f64 references.

mod common;
use common::*;
use silure_kernels_cpu::gemm::pack::*;
use silure_kernels_cpu::rnn::{Rnn, function};
use silure_kernels_cpu::rows::arg::Arg;
use silure_kernels_cpu::rows::norm::{GroupNorm, Norm};
use silure_kernels_cpu::rows::reduce::{Reduce, op};
use silure_kernels_cpu::rows::rotary::Rotary;
use silure_kernels_cpu::rows::scan::Scan;
use silure_kernels_cpu::rows::softmax::Softmax;
use silure_kernels_cpu::{detect_isa, levels};

#[test]
fn softmaxes_match() {
    let mut rng = Rng(31);
    for (rows, len) in [(1, 1), (3, 7), (5, 100), (2, 5000), (40, 384), (0, 5), (5, 0)] {
        let x: Vec<f32> = rng.floats(rows * len).iter().map(|v| v * 30.0).collect();
        let s = Softmax { rows, len }.to_vec();
        let each = |f: &dyn Fn(f64, f64, f64) -> (f64, f64)| -> Vec<(f64, f64)> {
            x.chunks(len.max(1))
                .flat_map(|r| {
                    let max = r.iter().fold(f64::NEG_INFINITY, |a, v| a.max(*v as f64));
                    let sum: f64 = r.iter().map(|v| (*v as f64 - max).exp()).sum();
                    r.iter().map(|v| f(*v as f64, max, sum)).collect::<Vec<_>>()
                })
                .collect()
        };
        // The rounding of v − max is magnified by its size in the exponential.
        run("softmax.f32", &s, &[buf(&x), out::<f32>(rows * len)], |r| {
            let want = each(&|v, max, sum| {
                let y = (v - max).exp() / sum;
                (y, y * (1.0 + (v - max).abs() / 4.0))
            });
            close(&read(&r[1]), &want, 6.0, "softmax");
        });
        run("log_softmax.f32", &s, &[buf(&x), out::<f32>(rows * len)], |r| {
            let want = each(&|v, max, sum| (v - max - sum.ln(), 60.0));
            close(&read(&r[1]), &want, 2.0, "log_softmax");
        });
    }
    let x =
        [f32::NAN, 1.0, 2.0, f32::INFINITY, 0.0, f32::NEG_INFINITY, 3.0, 3.0, f32::NEG_INFINITY];
    run("softmax.f32", &Softmax { rows: 3, len: 3 }.to_vec(), &[buf(&x), out::<f32>(9)], |r| {
        let y = read::<f32>(&r[1]);
        assert!(y[..3].iter().all(|v| v.is_nan()) && y[3].is_nan(), "{y:?}");
        assert_eq!(y[6..], [0.5, 0.5, 0.0]);
    });
}

/// Outputs that no cache holds take another way to memory, rows of every length another tail.
#[test]
fn rows_are_the_same_in_any_tensor() {
    let mut rng = Rng(32);
    let kernels =
        |rows: usize, len: usize, x: &[f32], w: &[f32]| -> Vec<(&str, Vec<i64>, Vec<_>)> {
            let norm = Norm { rows, len, epsilon: 1e-5 }.to_vec();
            let soft = Softmax { rows, len }.to_vec();
            let y = || out::<f32>(rows * len);
            let mut v = vec![
                ("softmax.f32", soft.clone(), vec![buf(x), y()]),
                ("log_softmax.f32", soft, vec![buf(x), y()]),
                ("rms_norm.f32", norm.clone(), vec![buf(x), buf(w), y()]),
            ];
            for (scale, bias) in [(true, true), (true, false), (false, true), (false, false)] {
                let given = |is: bool| if is { buf(w) } else { None };
                let bufs = vec![buf(x), given(scale), given(bias), y(), None, None];
                v.push(("layer_norm.f32", norm.clone(), bufs));
            }
            v
        };
    let written = |name: &str| match name {
        "layer_norm.f32" => 3,
        "rms_norm.f32" => 2,
        _ => 1,
    };
    // Rows in a streamed tensor: in the middle, the first, the last.
    let (rows, len) = (2057, 4099);
    let (x, w) = (rng.floats(rows * len), rng.floats(len));
    for (name, sizes, bufs) in kernels(rows, len, &x, &w) {
        let (_, got) = once(name, detect_isa(), &sizes, &bufs, &[], false);
        for r in [0, 1029, rows - 1] {
            let part = r * len..(r + 1) * len;
            let alone = kernels(1, len, &x[part.clone()], &w);
            let same = |b: &&(&str, Vec<i64>, Vec<Option<Vec<u8>>>)| {
                b.0 == name && b.2.iter().zip(&bufs).all(|(a, b)| a.is_some() == b.is_some())
            };
            let (_, sizes, bufs) = alone.iter().find(same).unwrap();
            let (_, want) = once(name, detect_isa(), sizes, bufs, &[], false);
            let i = written(name);
            assert!(got[i][part.start * 4..part.end * 4] == want[i], "{name}: row {r}");
        }
    }
    for len in 0..=70 {
        let (x, w) = (rng.floats(3 * len), rng.floats(len));
        for (name, sizes, bufs) in kernels(3, len, &x, &w) {
            run(name, &sizes, &bufs, |_| {});
        }
        // In place.
        let mut y = x.clone();
        let at = y.as_mut_ptr().cast::<u8>();
        let s = Softmax { rows: 3, len }.to_vec();
        for &isa in levels() {
            y.copy_from_slice(&x);
            once("softmax.f32", isa, &s, &[None, None], &[(0, at), (1, at)], false);
            let (_, apart) =
                once("softmax.f32", isa, &s, &[buf(&x), out::<f32>(3 * len)], &[], false);
            assert_eq!(buf(&y).unwrap(), apart[1], "{len} elements in place");
        }
    }
}

#[test]
fn norms_match() {
    let mut rng = Rng(33);
    let eps = 1e-5f32;
    for (rows, len) in [(1, 3), (7, 384), (3, 9000), (0, 4), (33, 5)] {
        let x: Vec<f32> = rng.floats(rows * len).iter().map(|v| v + 100.0).collect();
        let (w, b) = (rng.floats(len), rng.floats(len));
        let s = Norm { rows, len, epsilon: eps }.to_vec();
        let bufs =
            [buf(&x), buf(&w), buf(&b), out::<f32>(rows * len), out::<f32>(rows), out::<f32>(rows)];
        let moments = |r: &[f32]| {
            let mean = r.iter().map(|v| *v as f64).sum::<f64>() / len as f64;
            let var = r.iter().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / len as f64;
            (mean, 1.0 / (var + eps as f64).sqrt())
        };
        run("layer_norm.f32", &s, &bufs, |r| {
            let mut want = Vec::new();
            for row in x.chunks(len) {
                let (mean, inv) = moments(row);
                for (i, v) in row.iter().enumerate() {
                    // The mean rounds to f32: half an ulp of 100, magnified by 1/σ.
                    let scale = 8.0 + 100.0 * inv;
                    want.push(((*v as f64 - mean) * inv * w[i] as f64 + b[i] as f64, scale));
                }
            }
            close(&read(&r[3]), &want, 2.0, "layer_norm");
            let stats: Vec<_> = x.chunks(len).map(|row| (moments(row).0, 0.0)).collect();
            close(&read(&r[4]), &stats, 1.0, "mean");
            let invs: Vec<_> = x.chunks(len).map(|row| (moments(row).1, 0.0)).collect();
            close(&read(&r[5]), &invs, 20.0, "inv_std");
        });
        run("rms_norm.f32", &s, &[buf(&x), buf(&w), out::<f32>(rows * len)], |r| {
            let mut want = Vec::new();
            for row in x.chunks(len) {
                let ms = row.iter().map(|v| (*v as f64).powi(2)).sum::<f64>() / len as f64;
                for (i, v) in row.iter().enumerate() {
                    want.push((*v as f64 / (ms + eps as f64).sqrt() * w[i] as f64, 0.0));
                }
            }
            close(&read(&r[2]), &want, 4.0, "rms_norm");
        });
    }
    let s = GroupNorm { batch: 2, groups: 3, channels: 2, spatial: 35, epsilon: eps };
    let x = rng.floats(2 * 6 * 35);
    let (w, b) = (rng.floats(6), rng.floats(6));
    run("group_norm.f32", &s.to_vec(), &[buf(&x), buf(&w), buf(&b), out::<f32>(420)], |r| {
        let mut want = Vec::new();
        for (g, part) in x.chunks(70).enumerate() {
            let mean = part.iter().map(|v| *v as f64).sum::<f64>() / 70.0;
            let var = part.iter().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / 70.0;
            for (i, v) in part.iter().enumerate() {
                let c = g % 3 * 2 + i / 35;
                let y = (*v as f64 - mean) / (var + eps as f64).sqrt();
                want.push((y * w[c] as f64 + b[c] as f64, 4.0));
            }
        }
        close(&read(&r[3]), &want, 3.0, "group_norm");
    });
}

#[test]
fn extremes_see_every_kind_of_number() {
    let negative_nan = f32::from_bits(0xFFC0_0001);
    let inf = f32::INFINITY;
    for (row, least, greatest) in [
        (vec![-3.0, -1.0, -2.0], -3.0, -1.0),
        (vec![inf, -inf, 0.0], -inf, inf),
        (vec![-1e-40, 1e-40, 0.0], -1e-40, 1e-40),
        (vec![1.0, f32::NAN, 2.0], f32::NAN, f32::NAN),
        (vec![1.0, negative_nan, inf], f32::NAN, f32::NAN),
    ] {
        for n in [3, 31, 40, 70] {
            // The row's elements last, after others between them.
            let mut x = vec![if row[0].is_nan() { 1.0 } else { row[2] }; n - 3];
            x.extend(&row);
            for (code, want) in [(op::MIN, least), (op::MAX, greatest)] {
                let s = Reduce { op: code, outer: 1, reduce: n, inner: 1 };
                run("reduce.f32", &s.to_vec(), &[buf(&x), out::<f32>(1)], |r| {
                    let got = read::<f32>(&r[1])[0];
                    assert!(got == want || (got.is_nan() && want.is_nan()), "{x:?}: {got}");
                });
            }
        }
    }
}

#[test]
fn reductions_match() {
    let mut rng = Rng(35);
    for (outer, reduce, inner) in [
        (3, 7, 1),
        (2, 10000, 1),
        (4, 5, 6),
        (2, 33, 300),
        (0, 3, 2),
        (2, 0, 3),
        (2, 0, 1),
        (200, 9, 1),
    ] {
        let n = outer * reduce * inner;
        let x: Vec<f32> = rng.floats(n).iter().map(|v| v + 1.25).collect();
        let ints: Vec<i64> = (0..n).map(|_| rng.next() as i64).collect();
        for code in 0..10 {
            let s = Reduce { op: code, outer, reduce, inner };
            let col =
                |o: usize| (0..reduce).map(move |r| (o / inner * reduce + r) * inner + o % inner);
            let want: Vec<(f64, f64)> = (0..outer * inner)
                .map(|o| {
                    let v: Vec<f64> = col(o).map(|i| x[i] as f64).collect();
                    let max = v.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let sum: f64 = v.iter().sum();
                    let y = match code {
                        op::SUM | op::L1 => sum,
                        op::MEAN => sum / reduce as f64,
                        op::MAX => max,
                        op::MIN => v.iter().copied().fold(f64::INFINITY, f64::min),
                        op::PROD => v.iter().product(),
                        op::L2 => v.iter().map(|v| v * v).sum::<f64>().sqrt(),
                        op::SUM_SQUARE => v.iter().map(|v| v * v).sum(),
                        op::LOG_SUM => sum.ln(),
                        _ => v.iter().map(|v| v.exp()).sum::<f64>().ln(),
                    };
                    (y, 0.0)
                })
                .collect();
            run("reduce.f32", &s.to_vec(), &[buf(&x), out::<f32>(outer * inner)], |r| {
                let got = read::<f32>(&r[1]);
                // A product may leave the range of f32.
                let want: Vec<_> = want.iter().map(|(w, s)| ((*w as f32) as f64, *s)).collect();
                close(&got, &want, 1.5, &format!("{s:?}"))
            });
            if code <= op::PROD && code != op::MEAN {
                run("reduce.i64", &s.to_vec(), &[buf(&ints), out::<i64>(outer * inner)], |r| {
                    let want: Vec<i64> = (0..outer * inner)
                        .map(|o| {
                            let v = col(o).map(|i| ints[i]);
                            match code {
                                op::SUM => v.fold(0, i64::wrapping_add),
                                op::MAX => v.max().unwrap_or(i64::MIN),
                                op::MIN => v.min().unwrap_or(i64::MAX),
                                _ => v.fold(1, i64::wrapping_mul),
                            }
                        })
                        .collect();
                    assert_eq!(read::<i64>(&r[1]), want, "{s:?}");
                });
            }
        }
    }
    let x = [f32::NEG_INFINITY, f32::NEG_INFINITY, f32::INFINITY, 0.0, f32::NAN, 1.0];
    let s = Reduce { op: op::LOG_SUM_EXP, outer: 3, reduce: 2, inner: 1 };
    run("reduce.f32", &s.to_vec(), &[buf(&x), out::<f32>(3)], |r| {
        let y = read::<f32>(&r[1]);
        assert!(y[0] == f32::NEG_INFINITY && y[1] == f32::INFINITY && y[2].is_nan(), "{y:?}");
    });
}

#[test]
fn argmax_and_scans_match() {
    let mut rng = Rng(37);
    let (outer, len, inner) = (3, 11, 4);
    let n = outer * len * inner;
    let x: Vec<i32> = (0..n).map(|_| rng.below(4) as i32).collect();
    let f: Vec<f32> = x.iter().map(|v| *v as f32).collect();
    for (min, last) in [(false, false), (false, true), (true, false), (true, true)] {
        let s = Arg { outer, reduce: len, inner, min, last };
        let want: Vec<i64> = (0..outer * inner)
            .map(|o| {
                let at = |r: usize| x[(o / inner * len + r) * inner + o % inner];
                let best = if min { (0..len).map(at).min() } else { (0..len).map(at).max() };
                let hit = |r: &usize| Some(at(*r)) == best;
                let mut range = 0..len;
                (if last { range.rfind(hit) } else { range.find(hit) }).unwrap() as i64
            })
            .collect();
        for (name, b) in [("argmax.i32", buf(&x)), ("argmax.f32", buf(&f))] {
            run(name, &s.to_vec(), &[b, out::<i64>(outer * inner)], |r| {
                assert_eq!(read::<i64>(&r[1]), want)
            });
        }
    }
    for case in 0..8 {
        let (exclusive, reverse, product) = (case & 1 == 1, case & 2 == 2, case & 4 == 4);
        let s = Scan { outer, len, inner, exclusive, reverse, product };
        run("scan.i32", &s.to_vec(), &[buf(&x), out::<i32>(n)], |r| {
            for (i, got) in read::<i32>(&r[1]).iter().enumerate() {
                let (o, t, c) = (i / (len * inner), i / inner % len, i % inner);
                let taken = (0..len).filter(|j| match (reverse, exclusive) {
                    (false, false) => *j <= t,
                    (false, true) => *j < t,
                    (true, false) => *j >= t,
                    (true, true) => *j > t,
                });
                let v = taken.map(|j| x[(o * len + j) * inner + c]);
                assert_eq!(*got, if product { v.product::<i32>() } else { v.sum() });
            }
        });
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `m[rows, cols] · v`, row `r`.
fn dot(m: &[f32], r: usize, cols: usize, v: impl Fn(usize) -> f64) -> f64 {
    (0..cols).map(|c| m[r * cols + c] as f64 * v(c)).sum()
}

fn pack_transposed(m: &[f32], dirs: usize, rows: usize, cols: usize) -> Vec<f32> {
    let len = packed_b_f32_len(cols, rows);
    let mut packed = vec![0f32; dirs * len];
    for d in 0..dirs {
        let part = &m[d * rows * cols..][..rows * cols];
        pack_b_f32(part, cols, rows, 1, cols, &mut packed[d * len..][..len]);
    }
    packed
}

#[test]
fn recurrent_layers_match() {
    let mut rng = Rng(39);
    for (seq, batch, input, hidden, dirs, reverse, special) in [
        (5, 3, 7, 9, 2, false, true),
        (4, 1, 16, 16, 1, false, false),
        (3, 8, 5, 20, 1, true, true),
        // Wide enough that rows are copied and the depth is blocked.
        (13, 8, 300, 270, 1, false, false),
    ] {
        for gates in [4, 3, 1] {
            let (n, h) = (gates * hidden, hidden);
            let x = rng.floats(seq * batch * input);
            // Weights of a trained layer's size: larger ones make the recurrence itself unstable.
            let unit = (1.0 / (input + hidden) as f32).sqrt();
            let mut scaled =
                |n: usize| -> Vec<f32> { rng.floats(n).iter().map(|v| v * unit).collect() };
            let (w, r) = (scaled(dirs * n * input), scaled(dirs * n * h));
            let b = rng.floats(dirs * 2 * n);
            let (h0, c0) = (rng.floats(dirs * batch * h), rng.floats(dirs * batch * h));
            let peep = rng.floats(dirs * 3 * h);
            let lens: Vec<i32> = (0..batch).map(|i| (seq - i.min(seq)) as i32).collect();
            let f = if gates == 1 { function::TANH } else { function::SIGMOID };
            let t = function::TANH;
            let lbr = special && gates == 3;
            let s = Rnn {
                seq,
                batch,
                input,
                hidden,
                dirs,
                reverse,
                clip: if special { 0.8 } else { 0.0 },
                input_forget: special && gates == 4,
                linear_before_reset: lbr,
                functions: [f, t, t, f, t, t],
                alpha: [0.0; 6],
                beta: [0.0; 6],
            };
            let clip = |v: f64| if special { v.clamp(-0.8f32 as f64, 0.8f32 as f64) } else { v };
            let mut y = vec![(0f64, 1f64); seq * dirs * batch * h];
            let mut last = vec![(0f64, 1f64); dirs * batch * h];
            for d in 0..dirs {
                let (w, r) = (&w[d * n * input..], &r[d * n * h..]);
                let (b, p) = (&b[d * 2 * n..], &peep[d * 3 * h..]);
                for e in 0..batch {
                    let at = (d * batch + e) * h;
                    let mut hs: Vec<f64> = h0[at..at + h].iter().map(|v| *v as f64).collect();
                    let mut cs: Vec<f64> = c0[at..at + h].iter().map(|v| *v as f64).collect();
                    let len = lens[e] as usize;
                    for step in 0..len {
                        let tt = if reverse || d == 1 { len - 1 - step } else { step };
                        let xs = &x[(tt * batch + e) * input..];
                        let wx = |g: usize| dot(w, g, input, |c| xs[c] as f64) + b[g] as f64;
                        let rh = |g: usize| dot(r, g, h, |c| hs[c]) + b[n + g] as f64;
                        let (mut nh, mut nc) = (vec![0.0; h], vec![0.0; h]);
                        let reset: Vec<f64> = (0..h)
                            .map(|i| {
                                if gates == 3 { sigmoid(clip(wx(h + i) + rh(h + i))) } else { 0.0 }
                            })
                            .collect();
                        for i in 0..h {
                            let gate = |k: usize| wx(k * h + i) + rh(k * h + i);
                            match gates {
                                4 => {
                                    let gi = sigmoid(clip(gate(0) + p[i] as f64 * cs[i]));
                                    let gf = sigmoid(clip(gate(2) + p[2 * h + i] as f64 * cs[i]));
                                    let gf = if special { 1.0 - gi } else { gf };
                                    nc[i] = gf * cs[i] + gi * clip(gate(3)).tanh();
                                    let go = sigmoid(clip(gate(1) + p[h + i] as f64 * nc[i]));
                                    nh[i] = go * nc[i].tanh();
                                }
                                3 => {
                                    let z = sigmoid(clip(gate(0)));
                                    let g = 2 * h + i;
                                    let c = if lbr {
                                        wx(g) + reset[i] * rh(g)
                                    } else {
                                        wx(g) + dot(r, g, h, |c| reset[c] * hs[c]) + b[n + g] as f64
                                    };
                                    nh[i] = (1.0 - z) * clip(c).tanh() + z * hs[i];
                                }
                                _ => nh[i] = clip(gate(0)).tanh(),
                            }
                        }
                        (hs, cs) = (nh, nc);
                        for i in 0..h {
                            y[((tt * dirs + d) * batch + e) * h + i].0 = hs[i];
                        }
                    }
                    for i in 0..h {
                        last[at + i].0 = hs[i];
                    }
                }
            }
            let (yo, ho) = (out::<f32>(y.len()), out::<f32>(last.len()));
            let (x, b, h0, lens) = (buf(&x), buf(&b), buf(&h0), buf(&lens));
            let wp = buf(&pack_transposed(&w, dirs, n, input));
            let rp = buf(&pack_transposed(&r, dirs, n, h));
            let (name, bufs, at) = match gates {
                4 => {
                    let (p, c) = (buf(&peep), ho.clone());
                    ("lstm.f32", vec![x, wp, rp, b, lens, h0, buf(&c0), p, yo, ho, c], 8)
                }
                3 => {
                    let part = |lo: usize, hi: usize| -> Vec<f32> {
                        (0..dirs)
                            .flat_map(|d| r[(d * n + lo) * h..(d * n + hi) * h].to_vec())
                            .collect()
                    };
                    let zr = buf(&pack_transposed(&part(0, 2 * h), dirs, 2 * h, h));
                    let rh = buf(&pack_transposed(&part(2 * h, 3 * h), dirs, h, h));
                    ("gru.f32", vec![x, wp, zr, rh, b, lens, h0, yo, ho], 7)
                }
                _ => ("rnn.f32", vec![x, wp, rp, b, lens, h0, yo, ho], 6),
            };
            run(name, &s.to_vec(), &bufs, |o| {
                close(&read(&o[at]), &y, 60.0, name);
                close(&read(&o[at + 1]), &last, 60.0, name);
            });
        }
    }
}

#[test]
fn rotary_turns_pairs() {
    let mut rng = Rng(36);
    for (tokens, heads, d, h) in [(1, 1, 2, 1), (5, 3, 7, 3), (130, 4, 64, 24), (2, 2, 3, 0)] {
        let x = rng.floats(tokens * heads * d);
        let angles = rng.floats(tokens * h);
        let cos: Vec<f32> = angles.iter().map(|a| (3.0 * a).cos()).collect();
        let sin: Vec<f32> = angles.iter().map(|a| (3.0 * a).sin()).collect();
        for interleaved in [false, true] {
            let s = Rotary { tokens, heads, features: d, pairs: h, interleaved }.to_vec();
            let bufs = [buf(&x), buf(&cos), buf(&sin), out::<f32>(x.len())];
            run("rotary.f32", &s, &bufs, |r| {
                let want: Vec<_> = (0..x.len())
                    .map(|at| {
                        let (row, f) = (at / d, at % d);
                        let (i, second, other) = match (f < 2 * h, interleaved) {
                            (false, _) => return (x[at] as f64, 0.0),
                            (_, true) => (f / 2, f % 2 == 1, row * d + (f ^ 1)),
                            (_, false) => (f % h, f >= h, if f >= h { at - h } else { at + h }),
                        };
                        let k = row / heads * h + i;
                        let (c, s) = (cos[k] as f64, sin[k] as f64);
                        let s = if second { s } else { -s };
                        (x[at] as f64 * c + x[other] as f64 * s, 1.0)
                    })
                    .collect();
                close(&read(&r[3]), &want, 2.0, "rotary");
            });
        }
    }
}
