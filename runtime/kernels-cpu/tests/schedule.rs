//! Schedules: whatever a kernel is told about cutting its problem, the results stay what they are.

mod common;
use common::*;
use silure_kernels_cpu::abi::BAD_SIZES;
use silure_kernels_cpu::attention::Attention;
use silure_kernels_cpu::conv::Window;
use silure_kernels_cpu::conv::float::Conv;
use silure_kernels_cpu::find;
use silure_kernels_cpu::gemm::epilogue::{Epilogue, activation, bias};
use silure_kernels_cpu::gemm::int8::MatmulI8;
use silure_kernels_cpu::gemm::matmul::Matmul;
use silure_kernels_cpu::gemm::pack::{pack_b_f32, pack_b_i8, packed_b_f32_len, packed_b_i8_len};
use silure_kernels_cpu::schedule::{Knob, Schedule, kernels, knobs, slot};

/// A number that the knob allows: often the least or the greatest.
fn number(rng: &mut Rng, k: Knob) -> usize {
    if k.most == 0 {
        return 0;
    }
    let (lo, hi) = (k.least.div_ceil(k.step), k.most / k.step);
    match rng.below(6) {
        0 => 0,
        1 => hi * k.step,
        2 => lo * k.step,
        // Small ones cut small problems.
        _ => (lo + rng.below((hi - lo + 1).min(8))) * k.step,
    }
}

fn schedule(rng: &mut Rng, kernel: &str) -> Schedule {
    let s = Schedule::of(knobs(kernel).unwrap().all().map(|k| number(rng, k)));
    assert!(knobs(kernel).unwrap().allows(&s), "{kernel} {s:?}");
    s
}

/// The sizes with this schedule in their slots.
fn with(kernel: &str, sizes: &[i64], s: &Schedule) -> Vec<i64> {
    let (mut out, at) = (sizes.to_vec(), slot(kernel).unwrap());
    out[at..at + Schedule::LEN].copy_from_slice(&s.to_vec());
    out
}

/// Runs a problem as the kernel decides and under `count` schedules: all results pass `check`, and those that keep the
/// bits keep them.
fn same(
    rng: &mut Rng,
    (kernel, sizes): (&str, &[i64]),
    problem: &str,
    (bufs, out): (&[Option<Vec<u8>>], usize),
    check: &dyn Fn(&[u8], &str),
    count: usize,
) {
    let mut own = vec![];
    run(kernel, sizes, bufs, |r| {
        check(&r[out], kernel);
        own.push(r[out].clone());
    });
    for _ in 0..count {
        let s = schedule(rng, kernel);
        let sizes = with(kernel, sizes, &s);
        let mut level = own.iter();
        run(kernel, &sizes, bufs, |r| {
            let own = level.next().unwrap();
            check(&r[out], &format!("{kernel} {s:?}"));
            let same = !knobs(kernel).unwrap().same_bits(&s) || r[out] == *own;
            assert!(same, "{kernel} {problem}: {s:?} changes bits");
        });
    }
}

fn product(a: &[f32], b: &[f32], (m, n, k): (usize, usize, usize)) -> Vec<(f64, f64)> {
    let one = |i: usize, j: usize| {
        (0..k).fold((0.0, 0.0), |s: (f64, f64), p| {
            let v = a[i * k + p] as f64 * b[p * n + j] as f64;
            (s.0 + v, s.1 + v.abs())
        })
    };
    (0..m * n).map(|at| one(at / n, at % n)).collect()
}

#[test]
fn products_under_every_schedule() {
    let mut rng = Rng(71);
    for case in 0..24 {
        let m = [1, 6, 7, 49, 97, 130][rng.below(6)];
        let n = [1, 16, 47, 49, 100, 161][rng.below(6)];
        let k = [1, 15, 64, 385, 800, 1500][rng.below(6)];
        let (a, b) = (rng.floats(m * k), rng.floats(k * n));
        let mut packed = vec![0f32; packed_b_f32_len(k, n)];
        pack_b_f32(&b, k, n, n, 1, &mut packed);
        let mut s = Matmul::dense(m, n, k);
        s.epilogue = Epilogue { bias: bias::COLUMN, activation: activation::RELU, ..s.epilogue };
        let bias = rng.floats(n);
        let mut want = product(&a, &b, (m, n, k));
        for (i, w) in want.iter_mut().enumerate() {
            *w = ((w.0 + bias[i % n] as f64).max(0.0), w.1 + 1.0);
        }
        let (kernel, b) = [("matmul.f32.packed", &packed), ("matmul.f32", &b)][case % 2];
        let bufs = [buf(&a), buf(b), buf(&bias), None, None, out::<f32>(m * n)];
        let check = |r: &[u8], what: &str| close(&read(r), &want, 20.0, what);
        same(&mut rng, (kernel, &s.to_vec()), &format!("{m}x{n}x{k}"), (&bufs, 5), &check, 8);
    }
}

/// Panels that are built are as deep as the schedule says, and so is their scratch.
#[test]
fn deep_panels_fit_their_scratch() {
    let mut rng = Rng(74);
    let (m, n, k) = (20, 100, 1600);
    let (a, b) = (rng.floats(m * k), rng.floats(k * n));
    let want = product(&a, &b, (m, n, k));
    for depth in [400, 800, 1600, 2048] {
        let schedule = Schedule { depth, ..Schedule::DEFAULT };
        let s = Matmul { schedule, ..Matmul::dense(m, n, k) }.to_vec();
        let bufs = [buf(&a), buf(&b), None, None, None, out::<f32>(m * n)];
        run("matmul.f32", &s, &bufs, |r| close(&read(&r[5]), &want, 20.0, &format!("{depth}")));
    }
}

#[test]
fn products_of_bytes_under_every_schedule() {
    let mut rng = Rng(72);
    for _ in 0..12 {
        let (m, n, k) = (1 + rng.below(150), 1 + rng.below(150), 1 + rng.below(90));
        let (a, b) = (rng.bytes(m * k), rng.bytes(k * n));
        let mut packed = vec![0u8; packed_b_i8_len(k, n)];
        pack_b_i8(&b, true, (k, n), (n, 1), &mut packed);
        let one = |i: usize, j: usize| -> i32 {
            (0..k).map(|p| a[i * k + p] as i32 * b[p * n + j] as i8 as i32).sum()
        };
        let want: Vec<i32> = (0..m * n).map(|at| one(at / n, at % n)).collect();
        let mut bufs = vec![buf(&a), buf(&packed)];
        bufs.resize(10, None);
        bufs.push(out::<i32>(m * n));
        let check = |r: &[u8], what: &str| assert!(read::<i32>(r) == want, "{what} {m}x{n}x{k}");
        let sizes = MatmulI8::dense(m, n, k).to_vec();
        same(
            &mut rng,
            ("matmul.i8.packed", &sizes),
            &format!("{m}x{n}x{k}"),
            (&bufs, 10),
            &check,
            8,
        );
    }
}

/// Convolutions of channels last, whose reference is the product of what lies under the kernel.
#[test]
fn convolutions_under_every_schedule() {
    let mut rng = Rng(73);
    for case in 0..24 {
        let depthwise = case % 3 == 2;
        let side = 1 + rng.below(3);
        let (h, wide) = (3 + rng.below(9), 3 + rng.below(13));
        let channels = [3, 16, 130, 390][rng.below(4)];
        let w = Window {
            batch: 1 + rng.below(2),
            groups: if depthwise { channels } else { 1 },
            in_channels: if depthwise { 1 } else { channels },
            out_channels: if depthwise { 1 } else { [5, 64, 100][rng.below(3)] },
            x: [1, h, wide],
            y: [1, h, wide],
            kernel: [1, side, side],
            stride: [1; 3],
            dilation: [1; 3],
            pad: [0, side as i64 / 2, side as i64 / 2],
        };
        let outs = w.groups * w.out_channels;
        let x = rng.floats(w.batch * h * wide * w.groups * w.in_channels);
        let k = rng.floats(w.depth() * outs);
        // Rows of the kernel: taps, then channels.
        let mut want = vec![(0f64, 1f64); w.batch * h * wide * outs];
        for (at, v) in want.iter_mut().enumerate() {
            let (o, pixel) = (at % outs, at / outs);
            let (ox, oy, image) = (pixel % wide, pixel / wide % h, pixel / wide / h);
            for tap in 0..side * side {
                let iy = (oy + tap / side) as i64 - w.pad[1];
                let ix = (ox + tap % side) as i64 - w.pad[2];
                if iy < 0 || ix < 0 || iy >= h as i64 || ix >= wide as i64 {
                    continue;
                }
                let from = (image * h + iy as usize) * wide + ix as usize;
                for c in 0..w.in_channels {
                    let (xc, kr) = if depthwise { (o, tap) } else { (c, tap * channels + c) };
                    let p = x[from * channels + xc] as f64 * k[kr * outs + o] as f64;
                    *v = (v.0 + p, v.1 + p.abs());
                }
            }
        }
        let mut packed = vec![0f32; packed_b_f32_len(w.depth(), outs)];
        let name = if depthwise { "conv.f32.last.depthwise" } else { "conv.f32.last" };
        if !depthwise {
            pack_b_f32(&k, w.depth(), outs, outs, 1, &mut packed);
        }
        let weights = if depthwise { buf(&k) } else { buf(&packed) };
        let bufs = [buf(&x), weights, None, None, None, out::<f32>(want.len())];
        let sizes = Conv::whole(w, Epilogue::NONE).to_vec();
        let check = |r: &[u8], what: &str| close(&read(r), &want, 30.0, &format!("{what} {w:?}"));
        same(&mut rng, (name, &sizes), &format!("{w:?}"), (&bufs, 5), &check, 6);
    }
}

#[test]
fn attention_under_every_schedule() {
    let mut rng = Rng(74);
    for case in 0..12 {
        let (heads, queries, keys) = (2, 1 + rng.below(180), 1 + rng.below(500));
        let (depth, vd) = ([8, 64, 400][rng.below(3)], [1, 16, 33][rng.below(3)]);
        let causal = case % 2 == 0;
        let offset = keys as i64 - queries as i64;
        let q = rng.floats(heads * queries * depth);
        let k = rng.floats(heads * keys * depth);
        let v = rng.floats(heads * keys * vd);
        let i = |n: usize| n as i64;
        let s = Attention {
            batch: 1,
            heads,
            kv_heads: heads,
            queries,
            keys,
            depth,
            value_depth: vd,
            q: [0, i(queries * depth), i(depth)],
            k: [0, i(keys * depth), i(depth)],
            v: [0, i(keys * vd), i(vd)],
            y: [0, i(queries * vd), i(vd)],
            mask: [0; 4],
            scale: 0.1,
            causal,
            causal_offset: offset,
            mask_bytes: false,
            softcap: 0.0,
            zero_nan: true,
            schedule: Schedule::DEFAULT,
        };
        let mut want = vec![];
        for (h, r) in (0..heads).flat_map(|h| (0..queries).map(move |r| (h, r))) {
            let seen =
                if causal { (r as i64 + offset + 1).clamp(0, i(keys)) as usize } else { keys };
            let scores: Vec<f64> = (0..seen)
                .map(|j| {
                    let (a, b) = ((h * queries + r) * depth, (h * keys + j) * depth);
                    (0..depth).map(|e| q[a + e] as f64 * k[b + e] as f64).sum::<f64>()
                        * 0.1f32 as f64
                })
                .collect();
            let top = scores.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
            let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
            for e in 0..vd {
                let one = |j: usize| (scores[j] - top).exp() * v[(h * keys + j) * vd + e] as f64;
                let sum: f64 = (0..seen).map(one).sum();
                want.push((if seen == 0 { 0.0 } else { sum / total }, 1.0));
            }
        }
        let bufs = [buf(&q), buf(&k), buf(&v), None, out::<f32>(want.len())];
        let check = |r: &[u8], what: &str| close(&read(r), &want, 64.0, what);
        same(
            &mut rng,
            ("attention.f32", &s.to_vec()),
            &format!("{queries}x{keys}"),
            (&bufs, 4),
            &check,
            5,
        );
    }
}

/// Numbers that a kernel does not have, or cannot have, are refused before anything is read; scratch of what it
/// can have is bounded.
#[test]
fn other_numbers_are_refused() {
    for name in kernels() {
        let (k, knobs, at) = (find(name).unwrap(), knobs(name).unwrap(), slot(name).unwrap());
        assert!(at + Schedule::LEN <= k.arity.1, "{name}");
        for (i, knob) in knobs.all().into_iter().enumerate() {
            for bad in [knob.most + knob.step, knob.least.wrapping_sub(1), usize::MAX >> 1, 1 << 40]
            {
                let mut numbers = [0; 4];
                numbers[i] = bad;
                if bad == 0 {
                    continue;
                }
                assert!(!knobs.allows(&Schedule::of(numbers)), "{name} {i} {bad}");
            }
        }
    }
    let (a, b) = (vec![0f32; 64 * 64], vec![0f32; 64 * 64]);
    let mut sizes = Matmul::dense(64, 64, 64).to_vec();
    let bufs = [buf(&a), buf(&b), None, None, None, out::<f32>(64 * 64)];
    assert_eq!(status("matmul.f32.packed", &sizes, &bufs), 0);
    let at = slot("matmul.f32.packed").unwrap();
    for (i, v) in [(0, 1), (0, -48), (1, i64::MAX), (2, 24), (2, 1 << 30), (3, 3)] {
        let before = std::mem::replace(&mut sizes[at + i], v);
        assert_eq!(status("matmul.f32.packed", &sizes, &bufs), BAD_SIZES, "{i} {v}");
        sizes[at + i] = before;
    }
    let most = Schedule::of(knobs("matmul.f32.packed").unwrap().all().map(|k| k.most));
    let s = Matmul { schedule: most, ..Matmul::dense(1 << 20, 1 << 20, 1 << 20) };
    let k = find("matmul.f32.packed").unwrap();
    assert!((k.scratch)(&s.to_vec()) < 64 << 20);
}
