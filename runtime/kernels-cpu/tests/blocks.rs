//! Products with matrices of small integers scaled by blocks, against f64 references.

mod common;
use common::*;
use silure_kernels_cpu::gemm::blocks::Blocks;
use silure_kernels_cpu::gemm::blocks8::Blocks8;
use silure_kernels_cpu::gemm::dot;
use silure_kernels_cpu::gemm::epilogue::{Epilogue, activation, bias};
use silure_kernels_cpu::gemm::lookup::Lookup;
use silure_kernels_cpu::gemm::pack::*;
use silure_kernels_cpu::schedule::Schedule;

/// `[rows, n]` in panels of 16 columns.
fn panels(v: &[f32], rows: usize, n: usize) -> Vec<f32> {
    let mut out = vec![0.0; packed_b_f32_len(rows, n)];
    pack_b_f32(v, rows, n, n, 1, &mut out);
    out
}

/// The nearest f16, for numbers of usual size.
fn half_of(v: f32) -> u16 {
    silure_types::Elem::F16.encode(v as f64) as u16
}

fn rounded(v: f32) -> f32 {
    silure_types::Elem::F16.decode(half_of(v) as u64) as f32
}

#[test]
fn every_half_is_read() {
    for bits in 0..=u16::MAX {
        // SAFETY: one f16 lies there.
        let got = unsafe { dot::factor::<true>(bits.to_le_bytes().as_ptr(), 0) };
        let want = silure_types::Elem::F16.decode(bits as u64) as f32;
        assert!(
            got == want && got.is_sign_negative() == want.is_sign_negative()
                || want.is_nan() && got.is_nan()
        );
    }
}

#[test]
fn rows_of_packed_tables_are_found() {
    let mut rng = Rng(72);
    for (n, k, block) in
        [(33usize, 70usize, 16usize), (16, 64, 32), (5, 24, 100), (100, 1000, 40), (1, 0, 8)]
    {
        for (store, half) in [
            (dot::U4, false),
            (dot::U4, true),
            (dot::I8, false),
            (dot::I8, true),
            (dot::E4M3, false),
        ] {
            for offsets in [false, true] {
                let blocks = k.div_ceil(block);
                let mask = [15, 255, 0, 0x77][store];
                let q: Vec<u8> = rng.bytes(k * n).iter().map(|v| v & mask).collect();
                let mut lines = || -> Vec<f32> {
                    rng.floats(blocks * n)
                        .into_iter()
                        .map(if half { rounded } else { |v| v })
                        .collect()
                };
                let (scale, offset) = (lines(), lines());
                let at: Vec<i64> = (0..40)
                    .map(|i| i * 7 % n as i64 - if i % 3 == 0 { n as i64 } else { 0 })
                    .collect();
                let center = [8.0f32, -3.0, 0.0, 0.0][store];
                let mut want = vec![];
                for i in &at {
                    let row = i.rem_euclid(n as i64) as usize;
                    for j in 0..k {
                        let (code, g) = (q[j * n + row], j / block * n + row);
                        let v = match store {
                            dot::U4 => code as f64,
                            dot::I8 => code as i8 as f64,
                            _ => silure_types::Elem::E4m3fn.decode(code as u64),
                        };
                        let (v, o) =
                            (v - center as f64, if offsets { offset[g] as f64 } else { 0.0 });
                        want.push((v * scale[g] as f64 - o, (v * scale[g] as f64).abs() + o.abs()));
                    }
                }
                let mut packed = vec![0u8; packed_b_f32_len(k, n)];
                let name = match store {
                    dot::U4 => {
                        packed.resize(packed_b_u4_len(k, n), 0);
                        pack_b_u4(&q, k, n, &mut packed);
                        if half { "gather.u4.f16" } else { "gather.u4" }
                    }
                    _ => {
                        pack_b_bytes(&q, k, n, &mut packed);
                        match store {
                            dot::I8 if half => "gather.i8.f16",
                            dot::I8 => "gather.i8",
                            _ => "gather.e4m3",
                        }
                    }
                };
                let lines = |v: &[f32]| match half {
                    true => {
                        buf(&panels(v, blocks, n).into_iter().map(half_of).collect::<Vec<u16>>())
                    }
                    false => buf(&panels(v, blocks, n)),
                };
                let s = Lookup { n, k, indices: at.len(), wide: true, block, center, offsets };
                let rest = if offsets { lines(&offset) } else { None };
                let bufs = [buf(&packed), buf(&at), lines(&scale), rest, out::<f32>(at.len() * k)];
                run(name, &s.to_vec(), &bufs, |got| close(&read(&got[4]), &want, 2.0, name));
            }
        }
    }
}

#[test]
fn products_by_blocks_match() {
    let mut rng = Rng(71);
    let cases: [(usize, usize, usize, usize); 13] = [
        (1, 16, 32, 32),
        (1, 5, 7, 16),
        (2, 33, 100, 16),
        (3, 48, 96, 32),
        (4, 17, 130, 64),
        (5, 20, 64, 64),
        (8, 70, 200, 128),
        (9, 70, 200, 32),
        (50, 100, 300, 40),
        (1, 4096, 64, 32),
        (3, 8, 0, 16),
        (0, 8, 16, 16),
        (7, 0, 16, 16),
    ];
    for (m, n, k, block) in cases {
        for store in [dot::U4, dot::I8, dot::BF16, dot::E4M3] {
            for (offsets, close_to, half) in [
                (false, false, false),
                (true, false, false),
                (false, true, false),
                (true, false, true),
                (false, true, true),
            ] {
                // bf16 has neither scales nor offsets here, e4m3fn no offsets.
                if (offsets || half) && store >= dot::BF16 {
                    continue;
                }
                let (plain, blocks) = (store == dot::BF16, k.div_ceil(block));
                let a = rng.floats(m * k);
                let words: Vec<u16> =
                    rng.floats(k * n).iter().map(|v| (v.to_bits() >> 16) as u16).collect();
                let mask = if store == dot::U4 { 15 } else { 255 };
                let q: Vec<u8> = rng.bytes(k * n).iter().map(|v| v & mask).collect();
                // Every code of e4m3fn but NaN, which would hide the others.
                let q: Vec<u8> = match store {
                    dot::E4M3 => {
                        q.iter().map(|v| if v & 127 == 127 { v ^ 1 } else { *v }).collect()
                    }
                    _ => q,
                };
                let scale: Vec<f32> = match plain {
                    true => vec![1.0; blocks * n],
                    false => rng.floats(blocks * n).iter().map(|v| v * 0.1).collect(),
                };
                let offset: Vec<f32> = if offsets { rng.floats(blocks * n) } else { vec![] };
                // What f16 can hold, if the kernel reads that.
                let held =
                    |v: Vec<f32>| if half { v.into_iter().map(rounded).collect() } else { v };
                let (scale, offset) = (held(scale), held(offset));
                let (b, r) = (rng.floats(n), rng.floats(m * n));
                let center = match store {
                    dot::U4 => 8.0f32,
                    dot::I8 => -3.0,
                    _ => 0.0,
                };
                let mut want = vec![(0f64, 0f64); m * n];
                for (at, w) in want.iter_mut().enumerate() {
                    let (row, col) = (at / n, at % n);
                    for i in 0..k {
                        let g = i / block * n + col;
                        let code = q[i * n + col];
                        let v = match store {
                            dot::U4 => code as f64,
                            dot::I8 => code as i8 as f64,
                            dot::BF16 => f32::from_bits((words[i * n + col] as u32) << 16) as f64,
                            _ => silure_types::Elem::E4m3fn.decode(code as u64),
                        };
                        let s = scale[g] as f64;
                        let o = if offsets { offset[g] as f64 } else { 0.0 };
                        let x = a[row * k + i] as f64;
                        w.0 += x * ((v - center as f64) * s - o);
                        w.1 += x.abs() * ((v.abs() + center.abs() as f64) * s.abs() + o.abs());
                    }
                    if close_to {
                        w.0 = (w.0 + b[col] as f64 + r[at] as f64).max(0.0);
                        w.1 += 2.0;
                    }
                }
                let epilogue = match close_to {
                    true => Epilogue {
                        bias: bias::COLUMN,
                        residual: true,
                        activation: activation::RELU,
                        ..Epilogue::NONE
                    },
                    false => Epilogue::NONE,
                };
                let s = Blocks {
                    m,
                    n,
                    k,
                    a_row: k as i64,
                    b_first: 0,
                    c_row: n,
                    block,
                    center,
                    offsets,
                    epilogue,
                    schedule: Schedule::DEFAULT,
                };
                let mut packed = vec![0u8; packed_b_f32_len(k, n)];
                let name = match store {
                    dot::U4 => {
                        packed.resize(packed_b_u4_len(k, n), 0);
                        pack_b_u4(&q, k, n, &mut packed);
                        if half { "matmul.f32.u4.f16" } else { "matmul.f32.u4" }
                    }
                    dot::BF16 => {
                        packed.resize(2 * packed_b_f32_len(k, n), 0);
                        let from: Vec<[u8; 2]> = words.iter().map(|w| w.to_le_bytes()).collect();
                        pack_b_halves(&from, k, n, packed.as_chunks_mut().0);
                        "matmul.f32.bf16"
                    }
                    _ => {
                        pack_b_bytes(&q, k, n, &mut packed);
                        match store {
                            dot::I8 if half => "matmul.f32.i8.f16",
                            dot::I8 => "matmul.f32.i8",
                            _ => "matmul.f32.e4m3",
                        }
                    }
                };
                let lines = |v: &[f32]| match half {
                    true => {
                        buf(&panels(v, blocks, n).into_iter().map(half_of).collect::<Vec<u16>>())
                    }
                    false => buf(&panels(v, blocks, n)),
                };
                let o = if offsets { lines(&offset) } else { None };
                let scales = if plain { None } else { lines(&scale) };
                let bufs =
                    [buf(&a), buf(&packed), buf(&b), buf(&r), None, scales, o, out::<f32>(m * n)];
                run(name, &s.to_vec(), &bufs, |got| close(&read(&got[7]), &want, 8.0, name));
            }
        }
    }
}

/// Rows of bytes: sums of a block are exact, what is left is one rounding a block.
#[test]
fn products_of_bytes_by_blocks_match() {
    let mut rng = Rng(73);
    let cases: [(usize, usize, usize, usize); 11] = [
        (1, 16, 32, 32),
        (1, 71, 256, 64),
        (1, 5, 96, 128),
        (2, 33, 128, 64),
        (3, 48, 96, 32),
        (7, 20, 64, 200),
        (9, 70, 256, 128),
        (140, 100, 160, 32),
        (1, 4100, 64, 32),
        (3, 8, 0, 32),
        (0, 8, 32, 32),
    ];
    for (m, n, k, block) in cases {
        for (store, half, offsets) in [
            (dot::U4, false, false),
            (dot::U4, true, true),
            (dot::I8, false, true),
            (dot::I8, true, false),
        ] {
            let (blocks, groups) = (k.div_ceil(block), k / 32);
            // Both extremes stand side by side, in q too.
            let ends = |i: usize, v: &u8| if i % 5 < 2 { [128, 127][i / 5 % 2] } else { *v };
            let x: Vec<i8> =
                rng.bytes(m * k).iter().enumerate().map(|(i, v)| ends(i, v) as i8).collect();
            let t = rng.floats(m * groups);
            let q: Vec<u8> = match store {
                dot::U4 => rng.bytes(k * n).iter().map(|v| v & 15).collect(),
                _ => rng.bytes(k * n).iter().enumerate().map(|(i, v)| ends(i / n, v)).collect(),
            };
            let mut factors =
                || rng.floats(blocks * n).into_iter().map(if half { rounded } else { |v| v });
            let (scale, offset) = (factors().collect::<Vec<_>>(), factors().collect::<Vec<_>>());
            let (b, r) = (rng.floats(n), rng.floats(m * n));
            let center = if store == dot::U4 { 8.0f32 } else { -128.0 };
            let mut want = vec![(0f64, 0f64); m * n];
            for (at, w) in want.iter_mut().enumerate() {
                let (row, col) = (at / n, at % n);
                for i in 0..k {
                    let (g, code) = (i / block * n + col, q[i * n + col]);
                    let v = if store == dot::U4 { code as f64 } else { code as i8 as f64 };
                    let v = (v - center as f64) * scale[g] as f64;
                    let o = if offsets { offset[g] as f64 } else { 0.0 };
                    let x = x[row * k + i] as f64 * t[row * groups + i / 32] as f64;
                    w.0 += x * (v - o);
                    w.1 += x.abs() * (v.abs() + o.abs());
                }
                w.0 = (w.0 + b[col] as f64 + r[at] as f64).max(0.0);
                w.1 += 2.0;
            }
            let epilogue = Epilogue {
                bias: bias::COLUMN,
                residual: true,
                activation: activation::RELU,
                ..Epilogue::NONE
            };
            let mut packed = vec![0u8; packed_b_f32_len(k, n)];
            let name = match store {
                dot::U4 => {
                    packed.resize(packed_b_u4_len(k, n), 0);
                    pack_b_u4(&q, k, n, &mut packed);
                    if half { "matmul.i8.u4.f16" } else { "matmul.i8.u4" }
                }
                _ => {
                    pack_b_bytes(&q, k, n, &mut packed);
                    if half { "matmul.i8.i8.f16" } else { "matmul.i8.i8" }
                }
            };
            let lines = |v: &[f32]| match half {
                true => buf(&panels(v, blocks, n).into_iter().map(half_of).collect::<Vec<u16>>()),
                false => buf(&panels(v, blocks, n)),
            };
            let o = if offsets { lines(&offset) } else { None };
            let whole = Blocks8 { m, n, k, b_first: 0, c_row: n, block, center, offsets, epilogue };
            let mut bufs = vec![buf(&x), buf(&packed), buf(&b), buf(&r), None, lines(&scale), o];
            bufs.extend([buf(&t), out::<f32>(m * n)]);
            run(name, &whole.to_vec(), &bufs, |got| close(&read(&got[8]), &want, 8.0, name));
            if n > 32 {
                // Columns from the third panel on, without the residual, whose rows are the whole's.
                let epilogue = Epilogue { residual: false, ..epilogue };
                let width = n - 32;
                let s = Blocks8 { n: width, b_first: 32, c_row: width, epilogue, ..whole };
                let want: Vec<_> = (0..m * width)
                    .map(|i| (i / width, i % width + 32))
                    .map(|(row, col)| {
                        let terms = (0..k).map(|i| {
                            let (g, code) = (i / block * n + col, q[i * n + col]);
                            let v = if store == dot::U4 { code as f64 } else { code as i8 as f64 };
                            let o = if offsets { offset[g] as f64 } else { 0.0 };
                            let x = x[row * k + i] as f64 * t[row * groups + i / 32] as f64;
                            x * ((v - center as f64) * scale[g] as f64 - o)
                        });
                        (terms.sum::<f64>() + b[col] as f64).max(0.0)
                    })
                    .zip((0..m * width).map(|i| want[i / width * n + i % width + 32].1))
                    .collect();
                let last = bufs.len() - 1;
                bufs[3] = None;
                bufs[last] = out::<f32>(m * width);
                run(name, &s.to_vec(), &bufs, |got| close(&read(&got[8]), &want, 8.0, name));
            }
        }
    }
}
