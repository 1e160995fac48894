//! Products that compute a range of the columns of their packed matrix: the same numbers as those of the whole.

mod common;
use common::*;
use silure_kernels_cpu::gemm::blocks::Blocks;
use silure_kernels_cpu::gemm::epilogue::{Epilogue, bias};
use silure_kernels_cpu::gemm::int8::MatmulI8;
use silure_kernels_cpu::gemm::matmul::Matmul;
use silure_kernels_cpu::gemm::pack::*;
use silure_kernels_cpu::gemm::stage::{self, Stage, per};
use silure_kernels_cpu::quant::QuantizeRows;
use silure_kernels_cpu::schedule::Schedule;

/// Rows, columns and depth of the wholes.
const SHAPES: [(usize, usize, usize); 3] = [(1, 100, 40), (7, 100, 33), (70, 150, 24)];

/// First columns and widths.
fn ranges(n: usize) -> [(usize, usize); 4] {
    [(0, 16), (16, 40), (48, n - 48), (0, n)]
}

/// Small whole numbers: their sums are exact, however they are cut.
fn whole(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.below(9) as f32 - 4.0).collect()
}

/// Runs `name` for a range and compares what slot `y` gets with the columns of the whole.
fn same(name: &str, sizes: &[i64], bufs: &[Option<Vec<u8>>], y: usize, want: &[f32], what: &str) {
    run(name, sizes, bufs, |r| assert_eq!(read::<f32>(&r[y]), want, "{name} {what}"));
}

fn columns(all: &[f32], n: usize, (first, width): (usize, usize)) -> Vec<f32> {
    all.chunks(n).flat_map(|row| row[first..first + width].to_vec()).collect()
}

#[test]
fn of_floats() {
    let mut rng = Rng(3);
    for (m, n, k) in SHAPES {
        let (a, b, added) = (whole(&mut rng, m * k), whole(&mut rng, k * n), whole(&mut rng, n));
        let all: Vec<f32> = (0..m * n)
            .map(|i| {
                (0..k).map(|p| a[i / n * k + p] * b[p * n + i % n]).sum::<f32>() + added[i % n]
            })
            .collect();
        let mut packed = vec![0f32; packed_b_f32_len(k, n)];
        pack_b_f32(&b, k, n, n, 1, &mut packed);
        let bytes: Vec<u8> = b.iter().map(|v| *v as i8 as u8).collect();
        let mut panels = vec![0u8; packed_b_f32_len(k, n)];
        pack_b_bytes(&bytes, k, n, &mut panels);
        let ones = vec![1f32; n.next_multiple_of(16) * 2];
        for r in ranges(n) {
            let (want, what) = (columns(&all, n, r), format!("{m}x{n}x{k} {r:?}"));
            let epilogue = Epilogue { bias: bias::COLUMN, ..Epilogue::NONE };
            let s = Matmul { b_first: r.0, epilogue, ..Matmul::dense(m, r.1, k) }.to_vec();
            let c = out::<f32>(m * r.1);
            let bufs = [buf(&a), buf(&packed), buf(&added), None, None, c.clone()];
            same("matmul.f32.packed", &s, &bufs, 5, &want, &what);
            let bufs = [buf(&a), buf(&panels), buf(&added), None, None, buf(&ones), c.clone()];
            same("matmul.f32.scaled", &s, &bufs, 6, &want, &what);
            let s = Blocks {
                m,
                n: r.1,
                k,
                a_row: k as i64,
                b_first: r.0,
                c_row: r.1,
                block: k,
                center: 0.0,
                offsets: false,
                epilogue,
                schedule: Schedule::DEFAULT,
            };
            let bufs =
                [buf(&a), buf(&panels), buf(&added), None, None, buf(&ones), None, c.clone()];
            same("matmul.f32.i8", &s.to_vec(), &bufs, 7, &want, &what);
        }
    }
}

/// Bytes with zero points and scales for each column, rows quantised on the way.
#[test]
fn of_bytes() {
    let mut rng = Rng(4);
    for (m, n, k) in SHAPES {
        let (x, b, zp) = (rng.floats(m * k), rng.bytes(k * n), rng.bytes(n));
        let (scale, added) = (rng.floats(n), rng.floats(n));
        let quantised = |moved: bool| {
            let sizes = QuantizeRows { rows: m, k, moved }.to_vec();
            let mut got = (vec![], vec![]);
            run("quantize_rows.i8", &sizes, &[buf(&x), out::<i8>(m * k), out::<f32>(m)], |r| {
                got = (r[1].to_vec(), r[2].to_vec());
            });
            got
        };
        let (a, a_scale) = quantised(false);
        let (moved, _) = quantised(true);
        assert!(a.iter().zip(&moved).all(|(a, v)| a ^ 0x80 == *v));
        let mut packed = vec![0u8; packed_b_i8_len(k, n)];
        pack_b_i8(&b, true, (k, n), (n, 1), &mut packed);
        let stage = Stage {
            out: stage::out::F32,
            a_scale: per::AXIS,
            b_scale: per::AXIS,
            bias: stage::bias::F32,
            ..Stage::SUMS
        };
        let product = |a: &[u8], moved: bool, (first, width): (usize, usize)| {
            let s = MatmulI8 {
                a_signed: true,
                a_moved: moved,
                b_zp: per::AXIS,
                b_first: first,
                stage,
                ..MatmulI8::dense(m, width, k)
            };
            let mut bufs = vec![buf(a), buf(&packed), None, buf(&zp), Some(a_scale.clone())];
            bufs.extend([buf(&scale), buf(&added), None, None, None, out::<f32>(m * width)]);
            let mut got = vec![];
            run("matmul.i8.packed", &s.to_vec(), &bufs, |r| got.push(read::<f32>(&r[10])));
            got
        };
        let all = product(&a, false, (0, n));
        for r in ranges(n) {
            for (a, moved) in [(&a, false), (&moved, true)] {
                for (got, all) in product(a, moved, r).iter().zip(&all) {
                    assert_eq!(*got, columns(all, n, r), "{m}x{n}x{k} {r:?} moved {moved}");
                }
            }
        }
    }
}
