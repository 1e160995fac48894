//! Matrix products against exact or f64 references, with odd shapes, strides, batches, epilogues.

mod common;
use common::*;
use silure_kernels_cpu::abi::Ctx;
use silure_kernels_cpu::gemm::epilogue::{Epilogue, activation, bias};
use silure_kernels_cpu::gemm::int8::MatmulI8;
use silure_kernels_cpu::gemm::matmul::Matmul;
use silure_kernels_cpu::gemm::pack::*;
use silure_kernels_cpu::gemm::stage::{self, Stage, per};
use silure_kernels_cpu::math::erf64;

const SHAPES: &[(usize, usize, usize)] = &[
    (1, 1, 1),
    (1, 17, 300),
    (2, 33, 5),
    (3, 16, 64),
    (5, 40, 7),
    (6, 15, 513),
    (7, 48, 256),
    (13, 31, 257),
    (100, 130, 20),
    (97, 18, 600),
    (20, 100, 600),
    (9, 3600, 400),
    (0, 4, 4),
    (4, 0, 4),
    (4, 19, 0),
];

fn reference(a: &[f32], b: &[f32], m: usize, n: usize, k: usize) -> Vec<(f64, f64)> {
    let mut out = Vec::new();
    for i in 0..m {
        for j in 0..n {
            let (mut sum, mut scale) = (0f64, 0f64);
            for p in 0..k {
                let v = a[i * k + p] as f64 * b[p * n + j] as f64;
                sum += v;
                scale += v.abs();
            }
            out.push((sum, scale));
        }
    }
    out
}

#[test]
fn f32_products_of_every_layout_match() {
    let mut rng = Rng(7);
    for &(m, n, k) in SHAPES {
        let (a, b) = (rng.floats(m * k), rng.floats(k * n));
        let want = reference(&a, &b, m, n, k);
        let c = out::<f32>(m * n);
        let mut packed = vec![0f32; packed_b_f32_len(k, n)];
        pack_b_f32(&b, k, n, n, 1, &mut packed);
        let s = Matmul::dense(m, n, k);
        let bound = 4.0 + (k as f64).sqrt();
        let what = format!("{m}x{n}x{k}");
        run(
            "matmul.f32.packed",
            &s.to_vec(),
            &[buf(&a), buf(&packed), None, None, None, c.clone()],
            |r| close(&read(&r[5]), &want, bound, &what),
        );
        run("matmul.f32", &s.to_vec(), &[buf(&a), buf(&b), None, None, None, c.clone()], |r| {
            close(&read(&r[5]), &want, bound, &what)
        });
        // Both operands transposed.
        let at: Vec<f32> = (0..k * m).map(|i| a[i % m.max(1) * k + i / m.max(1)]).collect();
        let bt: Vec<f32> = (0..k * n).map(|i| b[i % k.max(1) * n + i / k.max(1)]).collect();
        let t = Matmul { a_row: 1, a_col: m as i64, b_row: 1, b_col: k as i64, ..s };
        run("matmul.f32", &t.to_vec(), &[buf(&at), buf(&bt), None, None, None, c.clone()], |r| {
            close(&read(&r[5]), &want, bound, &what)
        });
        let mut repacked = vec![0f32; packed_b_f32_len(k, n)];
        pack_b_f32(&bt, k, n, 1, k, &mut repacked);
        assert_eq!(packed, repacked);
    }
}

/// Bytes with a scale for each column give the bits that their product in f32 gives.
#[test]
fn scaled_bytes_are_the_weight_they_stand_for() {
    let mut rng = Rng(8);
    for &(m, n, k) in SHAPES {
        let (a, q, scale) = (rng.floats(m * k), rng.bytes(k * n), rng.floats(n));
        let b: Vec<f32> =
            q.iter().enumerate().map(|(i, v)| *v as i8 as f32 * scale[i % n]).collect();
        let mut dense = vec![0f32; packed_b_f32_len(k, n)];
        pack_b_f32(&b, k, n, n, 1, &mut dense);
        let mut bytes = vec![0u8; packed_b_f32_len(k, n)];
        pack_b_bytes(&q, k, n, &mut bytes);
        let (s, c) = (Matmul::dense(m, n, k).to_vec(), out::<f32>(m * n));
        let mut want = Vec::new();
        let ins = [buf(&a), buf(&dense), None, None, None, c.clone()];
        run("matmul.f32.packed", &s, &ins, |r| want.push(read::<f32>(&r[5])));
        let ins = [buf(&a), buf(&bytes), None, None, None, buf(&scale), c];
        let mut level = 0;
        run("matmul.f32.scaled", &s, &ins, |r| {
            assert_eq!(read::<f32>(&r[6]), want[level], "{m}x{n}x{k}");
            level += 1;
        });
    }
}

#[test]
fn batches_broadcast_by_stride() {
    let mut rng = Rng(9);
    let (m, n, k) = (5, 20, 9);
    let (a, b) = (rng.floats(3 * m * k), rng.floats(2 * k * n));
    let mut s = Matmul::dense(m, n, k);
    s.batch = [1, 1, 1, 1, 3, 2];
    s.a_batch = [0, 0, 0, 0, (m * k) as i64, 0];
    s.b_batch = [0, 0, 0, 0, 0, (k * n) as i64];
    let want: Vec<_> = (0..6)
        .flat_map(|i| {
            let (x, y) = (i / 2, i % 2);
            reference(&a[x * m * k..][..m * k], &b[y * k * n..][..k * n], m, n, k)
        })
        .collect();
    let bufs = [buf(&a), buf(&b), None, None, None, out::<f32>(6 * m * n)];
    run("matmul.f32", &s.to_vec(), &bufs, |r| close(&read(&r[5]), &want, 8.0, "batched"));
}

fn activate(code: usize, p0: f64, p1: f64, x: f64) -> f64 {
    let sigmoid = 1.0 / (1.0 + (-x).exp());
    match code {
        activation::RELU => x.max(0.0),
        activation::GELU_ERF => 0.5 * x * (1.0 + erf64(x / 2f64.sqrt())),
        activation::GELU_TANH => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + u.tanh())
        }
        activation::SILU => x * sigmoid,
        activation::SIGMOID => sigmoid,
        activation::TANH => x.tanh(),
        activation::CLIP => x.clamp(p0, p1),
        activation::HARD_SWISH => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        activation::LEAKY_RELU => {
            if x < 0.0 {
                p0 * x
            } else {
                x
            }
        }
        activation::HARD_SIGMOID => (p0 * x + p1).clamp(0.0, 1.0),
        _ => x,
    }
}

#[test]
fn every_epilogue_matches() {
    let mut rng = Rng(11);
    let (m, n, k) = (8, 37, 300);
    let (a, b) = (rng.floats(m * k), rng.floats(k * n));
    let (bc, br, res) = (rng.floats(n), rng.floats(m), rng.floats(m * n));
    let plain = reference(&a, &b, m, n, k);
    for code in 0..activation::COUNT {
        for mode in [bias::NONE, bias::COLUMN, bias::ROW] {
            let (p0, p1) = (0.25f32, 0.75f32);
            let residual = code % 2 == 0;
            let mut s = Matmul::dense(m, n, k);
            let alpha = 0.5;
            s.epilogue =
                Epilogue { alpha, bias: mode, residual, activation: code, p0, p1, callback: false };
            let want: Vec<_> = plain
                .iter()
                .enumerate()
                .map(|(i, (v, scale))| {
                    let bias = match mode {
                        bias::COLUMN => bc[i % n],
                        bias::ROW => br[i / n],
                        _ => 0.0,
                    } as f64;
                    let x = v * 0.5 + bias + if residual { res[i] as f64 } else { 0.0 };
                    (activate(code, p0 as f64, p1 as f64, x), scale + 2.0)
                })
                .collect();
            let values = if mode == bias::ROW { &br } else { &bc };
            let bufs = [buf(&a), buf(&b), buf(values), buf(&res), None, out::<f32>(m * n)];
            run("matmul.f32", &s.to_vec(), &bufs, |r| {
                close(&read(&r[5]), &want, 20.0, &format!("activation {code}, bias {mode}"))
            });
        }
    }
}

unsafe extern "C" fn stamp(
    _: *const Ctx,
    tile: *mut f32,
    ld: u64,
    row0: u64,
    col0: u64,
    rows: u64,
    cols: u64,
    bufs: *const *mut u8,
    sizes: *const i64,
) {
    for r in 0..rows {
        for c in 0..cols {
            // SAFETY: the kernel states the tile; the test passes one operand and one size more.
            unsafe {
                let add = *(*bufs.add(6) as *const f32).add((col0 + c) as usize);
                let v = &mut *tile.add((r * ld + c) as usize);
                *v = *v * *sizes as f32 + add + 1000.0 * (row0 + r) as f32;
            }
        }
    }
}

#[test]
fn the_callback_sees_each_tile_once_with_its_place() {
    let (m, n, k) = (100, 150, 4);
    let mut s = Matmul::dense(m, n, k);
    s.batch[5] = 2;
    s.a_batch[5] = (m * k) as i64;
    s.epilogue.callback = true;
    let mut sizes = s.to_vec();
    sizes.push(3);
    let extra: Vec<f32> = (0..n).map(|j| j as f32).collect();
    let bufs = [
        buf(&vec![1f32; 2 * m * k]),
        buf(&vec![2f32; k * n]),
        None,
        None,
        None,
        out::<f32>(2 * m * n),
        buf(&extra),
    ];
    run_with("matmul.f32", &sizes, &bufs, &[(4, stamp as *mut u8)], &mut |r| {
        for (i, v) in read::<f32>(&r[5]).iter().enumerate() {
            assert_eq!(*v, 24.0 + (i % n) as f32 + 1000.0 * (i / n) as f32);
        }
    });
}

fn as_int(b: u8, signed: bool) -> i64 {
    if signed { b as i8 as i64 } else { b as i64 }
}

#[test]
fn integer_products_are_exact_for_every_signedness_and_zero_point() {
    let mut rng = Rng(13);
    for &(m, n, k) in SHAPES {
        for case in 0..4 {
            let (a_signed, b_signed) = (case & 1 == 1, case & 2 == 2);
            let mut a = rng.bytes(m * k);
            let mut b = rng.bytes(k * n);
            // The extremes, where a saturating multiply would fail.
            if case == 0 {
                a.fill(255);
                b.fill(255);
            }
            let (az, bz) = (rng.bytes(m.max(1)), rng.bytes(n.max(1)));
            for zp in 0..3 {
                let mut s = MatmulI8::dense(m, n, k);
                (s.a_signed, s.b_signed, s.a_zp, s.b_zp) = (a_signed, b_signed, zp, zp);
                let z = |v: &[u8], i: usize, signed| match zp {
                    per::NONE => 0,
                    per::TENSOR => as_int(v[0], signed),
                    _ => as_int(v[i], signed),
                };
                let mut want = vec![0i32; m * n];
                for i in 0..m {
                    for j in 0..n {
                        let sum: i64 = (0..k)
                            .map(|p| {
                                (as_int(a[i * k + p], a_signed) - z(&az, i, a_signed))
                                    * (as_int(b[p * n + j], b_signed) - z(&bz, j, b_signed))
                            })
                            .sum();
                        want[i * n + j] = sum as i32;
                    }
                }
                let mut packed = vec![0u8; packed_b_i8_len(k, n)];
                pack_b_i8(&b, b_signed, (k, n), (n, 1), &mut packed);
                for (name, b) in [("matmul.i8", &b), ("matmul.i8.packed", &packed)] {
                    let bufs = [
                        buf(&a),
                        buf(b),
                        buf(&az),
                        buf(&bz),
                        None,
                        None,
                        None,
                        None,
                        None,
                        None,
                        out::<i32>(m * n),
                    ];
                    run(name, &s.to_vec(), &bufs, |r| {
                        assert_eq!(read::<i32>(&r[10]), want, "{name}")
                    });
                }
            }
        }
    }
}

#[test]
fn the_integer_output_stage_scales_adds_and_requantises() {
    let mut rng = Rng(15);
    let (m, n, k) = (7, 21, 33);
    let (a, b) = (rng.bytes(m * k), rng.bytes(k * n));
    let bs: Vec<f32> = (0..n).map(|_| 0.001 + rng.float().abs() * 0.01).collect();
    let bias: Vec<i32> = (0..n).map(|_| rng.below(2000) as i32 - 1000).collect();
    let (a_scale, y_scale, y_zp) = (0.02f32, 0.3f32, 131u8);
    let mut s = MatmulI8::dense(m, n, k);
    s.stage = Stage {
        out: stage::out::U8,
        a_scale: per::TENSOR,
        b_scale: per::AXIS,
        bias: stage::bias::I32,
        ..Stage::SUMS
    };
    let bufs = [
        buf(&a),
        buf(&b),
        None,
        None,
        buf(&[a_scale]),
        buf(&bs),
        buf(&bias),
        buf(&[y_scale]),
        buf(&[y_zp]),
        None,
        out::<u8>(m * n),
    ];
    let sum = |i: usize, j: usize| -> i64 {
        (0..k).map(|p| a[i * k + p] as i64 * b[p * n + j] as i8 as i64).sum()
    };
    run("matmul.i8", &s.to_vec(), &bufs, |r| {
        for (i, got) in r[10].iter().enumerate() {
            let acc = (sum(i / n, i % n) + bias[i % n] as i64) as f32;
            let y = acc * (a_scale * bs[i % n]);
            let want = ((y / y_scale).round_ties_even() + y_zp as f32).clamp(0.0, 255.0) as u8;
            assert_eq!(*got, want, "element {i}");
        }
    });
    s.stage = Stage { out: stage::out::F32, bias: stage::bias::F32, ..s.stage };
    let fb = rng.floats(n);
    let mut bufs = bufs.to_vec();
    bufs[6] = buf(&fb);
    bufs[10] = out::<f32>(m * n);
    run("matmul.i8", &s.to_vec(), &bufs, |r| {
        for (i, got) in read::<f32>(&r[10]).iter().enumerate() {
            let want = sum(i / n, i % n) as f32 * (a_scale * bs[i % n]) + fb[i % n];
            assert_eq!(*got, want, "element {i}");
        }
    });
}

#[test]
fn wide_products_match() {
    let mut rng = Rng(17);
    for &(m, n, k) in SHAPES {
        let a: Vec<i64> = (0..m * k).map(|_| rng.next() as i64).collect();
        let b: Vec<i64> = (0..k * n).map(|_| rng.next() as i64).collect();
        let (a32, b32): (Vec<i32>, Vec<i32>) =
            (a.iter().map(|v| *v as i32).collect(), b.iter().map(|v| *v as i32).collect());
        let float =
            |v: &[i64]| -> Vec<f64> { v.iter().map(|v| *v as f64 / 2f64.powi(63)).collect() };
        let (fa, fb) = (float(&a), float(&b));
        let s = Matmul::dense(m, n, k).to_vec();
        let at = |i: usize| (0..k).map(move |p| (i / n * k + p, p * n + i % n));
        run("matmul.i64", &s, &[buf(&a), buf(&b), out::<i64>(m * n)], |r| {
            for (i, v) in read::<i64>(&r[2]).iter().enumerate() {
                let want = at(i).fold(0i64, |s, (x, y)| s.wrapping_add(a[x].wrapping_mul(b[y])));
                assert_eq!(*v, want);
            }
        });
        run("matmul.i32", &s, &[buf(&a32), buf(&b32), out::<i32>(m * n)], |r| {
            for (i, v) in read::<i32>(&r[2]).iter().enumerate() {
                let want =
                    at(i).fold(0i32, |s, (x, y)| s.wrapping_add(a32[x].wrapping_mul(b32[y])));
                assert_eq!(*v, want);
            }
        });
        run("matmul.f64", &s, &[buf(&fa), buf(&fb), out::<f64>(m * n)], |r| {
            for (i, v) in read::<f64>(&r[2]).iter().enumerate() {
                let want: f64 = at(i).map(|(x, y)| fa[x] * fb[y]).sum();
                assert!((v - want).abs() <= 1e-13 * k as f64, "{v} {want}");
            }
        });
    }
}

#[test]
fn bad_sizes_are_refused_before_anything_is_touched() {
    let mut s = Matmul::dense(2, 2, 2).to_vec();
    s[18] = -1;
    assert_eq!(Matmul::parse(&s), None);
    let bufs = [None, None, None, None, None, None];
    assert_eq!(status("matmul.f32", &s, &bufs), silure_kernels_cpu::abi::BAD_SIZES);
    let mut s = Matmul::dense(2, 2, 2);
    s.epilogue.activation = 99;
    assert_eq!(status("matmul.f32", &s.to_vec(), &bufs), silure_kernels_cpu::abi::BAD_SIZES);
    // Ranges of columns begin at panels, and only packed matrices have those.
    let s = Matmul { b_first: 8, ..Matmul::dense(2, 2, 2) }.to_vec();
    assert_eq!(status("matmul.f32.packed", &s, &bufs), silure_kernels_cpu::abi::BAD_SIZES);
    let s = Matmul { b_first: 16, ..Matmul::dense(2, 2, 2) }.to_vec();
    assert_eq!(status("matmul.f32", &s, &bufs), silure_kernels_cpu::abi::BAD_SIZES);
}
