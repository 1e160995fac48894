//! Products with matrices of small integers scaled by blocks, against f64 references.

mod common;
use common::*;
use silure_kernels_cpu::gemm::blocks::Blocks;
use silure_kernels_cpu::gemm::epilogue::{Epilogue, activation, bias};
use silure_kernels_cpu::gemm::pack::*;

/// `[rows, n]` in panels of 16 columns.
fn panels(v: &[f32], rows: usize, n: usize) -> Vec<f32> {
    let mut out = vec![0.0; packed_b_f32_len(rows, n)];
    pack_b_f32(v, rows, n, n, 1, &mut out);
    out
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
        for bits in [4, 8] {
            for (offsets, close_to) in [(false, false), (true, false), (false, true)] {
                let blocks = k.div_ceil(block);
                let a = rng.floats(m * k);
                let q: Vec<u8> =
                    rng.bytes(k * n).iter().map(|v| if bits == 4 { v & 15 } else { *v }).collect();
                let scale: Vec<f32> = rng.floats(blocks * n).iter().map(|v| v * 0.1).collect();
                let offset: Vec<f32> = if offsets { rng.floats(blocks * n) } else { vec![] };
                let (b, r) = (rng.floats(n), rng.floats(m * n));
                let center = if bits == 4 { 8.0f32 } else { -3.0 };
                let mut want = vec![(0f64, 0f64); m * n];
                for (at, w) in want.iter_mut().enumerate() {
                    let (row, col) = (at / n, at % n);
                    for i in 0..k {
                        let g = i / block * n + col;
                        let v = match bits {
                            4 => q[i * n + col] as f64,
                            _ => q[i * n + col] as i8 as f64,
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
                let s =
                    Blocks { m, n, k, a_row: k as i64, c_row: n, block, center, offsets, epilogue };
                let (packed, name) = if bits == 4 {
                    let mut p = vec![0; packed_b_u4_len(k, n)];
                    pack_b_u4(&q, k, n, &mut p);
                    (p, "matmul.f32.u4")
                } else {
                    let mut p = vec![0; packed_b_f32_len(k, n)];
                    pack_b_bytes(&q, k, n, &mut p);
                    (p, "matmul.f32.i8")
                };
                let o = if offsets { buf(&panels(&offset, blocks, n)) } else { None };
                let scales = buf(&panels(&scale, blocks, n));
                let bufs =
                    [buf(&a), buf(&packed), buf(&b), buf(&r), None, scales, o, out::<f32>(m * n)];
                run(name, &s.to_vec(), &bufs, |got| close(&read(&got[7]), &want, 8.0, name));
            }
        }
    }
}
