//! Movement kernels against coordinate-wise references, bad indices included.

mod common;
use common::*;
use silure_kernels_cpu::abi::INDEX_OUT_OF_RANGE;
use silure_kernels_cpu::movement::copy::Copy;
use silure_kernels_cpu::movement::fill::{Diagonal, OneHot, Range};
use silure_kernels_cpu::movement::gather::{Gather, GatherElements, GatherNd, ReverseSequence};
use silure_kernels_cpu::movement::pad::Pad;
use silure_kernels_cpu::movement::resize::{Resize, coordinate, mode, nearest};
use silure_kernels_cpu::movement::scatter::{ScatterElements, ScatterNd, kind, op};
use silure_kernels_cpu::movement::select::{NonZero, TopK};
use silure_kernels_cpu::movement::unique::Unique;

fn dims8(d: &[usize]) -> [usize; 8] {
    let mut out = [1; 8];
    out[8 - d.len()..].copy_from_slice(d);
    out
}

fn strides8(d: &[usize]) -> [i64; 8] {
    let d = dims8(d);
    std::array::from_fn(|i| d[i + 1..].iter().product::<usize>() as i64)
}

#[test]
fn copies_transpose_reverse_repeat_and_place() {
    let mut rng = Rng(51);
    for (dims, perm) in [
        (vec![3, 5], vec![1, 0]),
        (vec![2, 3, 4, 5], vec![0, 2, 1, 3]),
        (vec![70, 90], vec![1, 0]),
        (vec![4, 33, 2, 65], vec![3, 1, 0, 2]),
        (vec![40000], vec![0]),
        (vec![3, 0, 2], vec![2, 1, 0]),
    ] {
        let n: usize = dims.iter().product();
        let x: Vec<u32> = (0..n).map(|_| rng.next() as u32).collect();
        let out_dims: Vec<usize> = perm.iter().map(|p| dims[*p]).collect();
        let from = strides8(&dims);
        let pad = 8 - dims.len();
        let mut src = [0; 8];
        perm.iter().enumerate().for_each(|(i, p)| src[pad + i] = from[pad + p]);
        let s = Copy {
            dims: dims8(&out_dims),
            src,
            dst: strides8(&out_dims),
            src_offset: 0,
            dst_offset: 0,
        };
        let want: Vec<u32> = (0..n)
            .map(|i| {
                let (mut rest, mut at) = (i, 0);
                for d in (0..8).rev() {
                    at += (rest % s.dims[d]) as i64 * src[d];
                    rest /= s.dims[d];
                }
                x[at as usize]
            })
            .collect();
        run("copy.4", &s.to_vec(), &[buf(&x), out::<u32>(n)], |r| {
            assert_eq!(read::<u32>(&r[1]), want, "{dims:?} {perm:?}")
        });
    }
    let x: Vec<u8> = (0..10).collect();
    let s = Copy {
        dims: dims8(&[2, 3]),
        src: [0, 0, 0, 0, 0, 0, 0, -3],
        dst: [0, 0, 0, 0, 0, 0, 5, 1],
        src_offset: 9,
        dst_offset: 1,
    };
    run("copy.1", &s.to_vec(), &[buf(&x), buf(&[99u8; 10])], |r| {
        assert_eq!(r[1], [99, 9, 6, 3, 99, 99, 9, 6, 3, 99]);
    });
    let s = Copy {
        dims: dims8(&[2, 3]),
        src: [0; 8],
        dst: strides8(&[2, 3]),
        src_offset: 4,
        dst_offset: 0,
    };
    let wide: Vec<u64> = (0..12).collect();
    run("copy.16", &s.to_vec(), &[buf(&wide), out::<u64>(12)], |r| {
        assert_eq!(read::<u64>(&r[1]), [8, 9, 8, 9, 8, 9, 8, 9, 8, 9, 8, 9]);
    });
}

#[test]
fn gathers_match_and_refuse_bad_indices() {
    let mut rng = Rng(53);
    for (inner, axis, outer) in [(1, 7, 3), (5, 4, 2), (100, 3, 1)] {
        let x: Vec<u16> = (0..outer * axis * inner).map(|_| rng.next() as u16).collect();
        let ix: Vec<i64> = (0..9).map(|_| rng.below(2 * axis) as i64 - axis as i64).collect();
        let s = Gather { outer, axis, indices: 9, inner_bytes: inner * 2, wide: true };
        let wrap = |v: i64| (if v < 0 { v + axis as i64 } else { v }) as usize;
        let want: Vec<u16> = (0..outer * 9 * inner)
            .map(|i| x[(i / (9 * inner) * axis + wrap(ix[i / inner % 9])) * inner + i % inner])
            .collect();
        run("gather", &s.to_vec(), &[buf(&x), buf(&ix), out::<u16>(want.len())], |r| {
            assert_eq!(read::<u16>(&r[2]), want)
        });
        for bad in [axis as i64, -(axis as i64) - 1, i64::MAX, i64::MIN] {
            let mut ix = ix.clone();
            ix[4] = bad;
            let bufs = [buf(&x), buf(&ix), out::<u16>(want.len())];
            assert_eq!(status("gather", &s.to_vec(), &bufs), INDEX_OUT_OF_RANGE);
        }
    }
    let x: Vec<f32> = (0..12).map(|v| v as f32).collect();
    let ix = [2i32, 0, -1, 1, 0, 0];
    let mut s = GatherElements {
        dims: dims8(&[2, 3]),
        strides: strides8(&[4, 3]),
        axis: 6,
        len: 4,
        bytes: 4,
        wide: false,
    };
    run("gather_elements", &s.to_vec(), &[buf(&x), buf(&ix), out::<f32>(6)], |r| {
        assert_eq!(read::<f32>(&r[2]), [6.0, 1.0, 11.0, 3.0, 1.0, 2.0]);
    });
    s.len = 2;
    let bufs = [buf(&x), buf(&ix), out::<f32>(6)];
    assert_eq!(status("gather_elements", &s.to_vec(), &bufs), INDEX_OUT_OF_RANGE);
    let s = GatherNd {
        batch: 2,
        tuples: 2,
        depth: 1,
        dims: [3, 1, 1, 1, 1, 1, 1, 1],
        slice_bytes: 8,
        wide: true,
    };
    let ix = [2i64, 0, -2, 1];
    run("gather_nd", &s.to_vec(), &[buf(&x), buf(&ix), out::<f32>(8)], |r| {
        assert_eq!(read::<f32>(&r[2]), [4.0, 5.0, 0.0, 1.0, 8.0, 9.0, 8.0, 9.0]);
    });
    let s = ReverseSequence { first: 3, second: 2, inner_bytes: 4, time_first: true };
    run("reverse_sequence", &s.to_vec(), &[buf(&x[..6]), buf(&[3i64, 2]), out::<f32>(6)], |r| {
        assert_eq!(read::<f32>(&r[2]), [4.0, 3.0, 2.0, 1.0, 0.0, 5.0]);
    });
    let bufs = [buf(&x[..6]), buf(&[4i64, 2]), out::<f32>(6)];
    assert_eq!(status("reverse_sequence", &s.to_vec(), &bufs), INDEX_OUT_OF_RANGE);
}

#[test]
fn scatters_reduce_in_order() {
    let data: Vec<f32> = (0..6).map(|v| v as f32).collect();
    for (code, want) in [
        (op::NONE, [0.0, 1.0, 2.0, -9.0, 4.0, 7.0]),
        (op::ADD, [0.0, 1.0, 2.0, -4.0, 4.0, 12.0]),
        (op::MUL, [0.0, 1.0, 2.0, -54.0, 4.0, 35.0]),
        (op::MIN, [0.0, 1.0, 2.0, -9.0, 4.0, 5.0]),
        (op::MAX, [0.0, 1.0, 2.0, 3.0, 4.0, 7.0]),
    ] {
        let s = ScatterNd {
            tuples: 3,
            depth: 2,
            dims: [2, 3, 1, 1, 1, 1, 1, 1],
            slice: 1,
            bytes: 4,
            wide: true,
            op: code,
            kind: kind::F32,
        };
        let (ix, u) = ([1i64, 0, 1, 2, 1, 0], [2f32, 7.0, -9.0]);
        run("scatter_nd", &s.to_vec(), &[buf(&ix), buf(&u), buf(&data)], |r| {
            assert_eq!(read::<f32>(&r[2]), want)
        });
        let s = ScatterElements {
            dims: dims8(&[3]),
            strides: strides8(&[6]),
            axis: 7,
            len: 6,
            bytes: 4,
            wide: false,
            op: code,
            kind: kind::F32,
        };
        run("scatter_elements", &s.to_vec(), &[buf(&[3i32, -1, 3]), buf(&u), buf(&data)], |r| {
            assert_eq!(read::<f32>(&r[2]), want)
        });
        let bufs = [buf(&[3i32, 6, 3]), buf(&u), buf(&data)];
        assert_eq!(status("scatter_elements", &s.to_vec(), &bufs), INDEX_OUT_OF_RANGE);
    }
}

#[test]
fn pads_match() {
    let x: Vec<i16> = (0..12).collect();
    // One row of each mode, by hand, from [0, 1, 2, 3] with 5 before and 4 after.
    for (m, want) in [
        (0, [7, 7, 7, 7, 7, 0, 1, 2, 3, 7, 7, 7, 7]),
        (1, [1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]),
        (2, [0, 0, 0, 0, 0, 0, 1, 2, 3, 3, 3, 3, 3]),
        (3, [3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]),
    ] {
        let s = Pad {
            x: dims8(&[4]),
            before: [0, 0, 0, 0, 0, 0, 0, 5],
            y: dims8(&[13]),
            mode: m,
            bytes: 2,
        };
        run("pad", &s.to_vec(), &[buf(&x[..4]), buf(&[7i16]), out::<i16>(13)], |r| {
            assert_eq!(read::<i16>(&r[2]), want)
        });
    }
    // Two dims, cropping one.
    let s = Pad {
        x: dims8(&[3, 4]),
        before: [0, 0, 0, 0, 0, 0, 1, -1],
        y: dims8(&[5, 2]),
        mode: 0,
        bytes: 2,
    };
    run("pad", &s.to_vec(), &[buf(&x), None, out::<i16>(10)], |r| {
        assert_eq!(read::<i16>(&r[2]), [0, 0, 1, 2, 5, 6, 9, 10, 0, 0])
    });
}

#[test]
fn fills_match() {
    run(
        "range.f32",
        &Range { n: 3 }.to_vec(),
        &[buf(&[1f32]), buf(&[0.5f32]), out::<f32>(3)],
        |r| assert_eq!(read::<f32>(&r[2]), [1.0, 1.5, 2.0]),
    );
    let n = 10_000;
    run("range.i64", &Range { n }.to_vec(), &[buf(&[5i64]), buf(&[-3i64]), out::<i64>(n)], |r| {
        assert!(read::<i64>(&r[2]).iter().enumerate().all(|(i, v)| *v == 5 - 3 * i as i64))
    });
    let s = OneHot { outer: 2, depth: 3, inner: 2, bytes: 1, wide: true };
    run("one_hot", &s.to_vec(), &[buf(&[0i64, -1, 3, 1]), buf(&[8u8, 9]), out::<u8>(12)], |r| {
        assert_eq!(r[2], [9, 8, 8, 8, 8, 9, 8, 8, 8, 9, 8, 8])
    });
    let x: Vec<i32> = (1..=12).collect();
    for k in -4..5i64 {
        for upper in [false, true] {
            let s = Diagonal { batch: 1, rows: 3, cols: 4, k, upper, bytes: 4 };
            run("trilu", &s.to_vec(), &[buf(&x), out::<i32>(12)], |r| {
                for (i, v) in read::<i32>(&r[1]).iter().enumerate() {
                    let d = (i % 4) as i64 - (i / 4) as i64;
                    let keep = if upper { d >= k } else { d <= k };
                    assert_eq!(*v, if keep { x[i] } else { 0 }, "{s:?}");
                }
            });
            run("eye", &s.to_vec(), &[buf(&[5i32]), out::<i32>(12)], |r| {
                for (i, v) in read::<i32>(&r[1]).iter().enumerate() {
                    let d = (i % 4) as i64 - (i / 4) as i64;
                    assert_eq!(*v, if d == k { 5 } else { 0 }, "{s:?}");
                }
            });
        }
    }
}

#[test]
fn selections_match() {
    let mut rng = Rng(57);
    let (outer, len, inner) = (2, 50, 3);
    let mut x: Vec<f32> = (0..outer * len * inner).map(|_| rng.below(20) as f32).collect();
    x[4] = f32::NAN;
    for (k, largest) in [(0, true), (1, true), (7, true), (7, false), (50, true), (50, false)] {
        let s = TopK { outer, len, inner, k, largest };
        let n = outer * k * inner;
        run("top_k.f32", &s.to_vec(), &[buf(&x), out::<f32>(n), out::<i64>(n)], |r| {
            let (v, at) = (read::<f32>(&r[1]), read::<i64>(&r[2]));
            for o in 0..outer {
                for c in 0..inner {
                    let get = |i: usize| x[(o * len + i) * inner + c];
                    let key = |i: usize| if get(i).is_nan() { 1e9 } else { get(i) };
                    let mut order: Vec<usize> = (0..len).collect();
                    order.sort_by(|a, b| {
                        let by = key(*a).total_cmp(&key(*b));
                        if largest { by.reverse() } else { by }
                    });
                    for (j, want) in order.iter().enumerate().take(k) {
                        let to = (o * k + j) * inner + c;
                        assert_eq!(at[to], *want as i64);
                        assert_eq!(v[to].to_bits(), get(*want).to_bits());
                    }
                }
            }
        });
    }
    let x = [0f32, 1.0, -0.0, f32::NAN, 0.0, 1e-45];
    let mut s = NonZero { dims: dims8(&[2, 3]), rank: 2, bytes: 4, float: true, count: 0 };
    run("nonzero.count", &s.to_vec(), &[buf(&x), out::<i64>(1)], |r| {
        assert_eq!(read::<i64>(&r[1]), [3])
    });
    s.count = 3;
    run("nonzero.fill", &s.to_vec(), &[buf(&x), out::<i64>(6)], |r| {
        assert_eq!(read::<i64>(&r[1]), [0, 1, 1, 1, 0, 2])
    });
    let x = [3i64, 1, 3, 2, 1];
    let mut s = Unique { outer: 1, len: 5, inner: 1, sorted: true, count: 0 };
    run("unique.count.i64", &s.to_vec(), &[buf(&x), out::<i64>(1)], |r| {
        assert_eq!(read::<i64>(&r[1]), [3])
    });
    s.count = 3;
    for (sorted, y, first, inverse, counts) in [
        (true, [1, 2, 3], [1, 3, 0], [2, 0, 2, 1, 0], [2, 1, 2]),
        (false, [3, 1, 2], [0, 1, 3], [0, 1, 0, 2, 1], [2, 2, 1]),
    ] {
        s.sorted = sorted;
        let bufs = [buf(&x), out::<i64>(3), out::<i64>(3), out::<i64>(5), out::<i64>(3)];
        run("unique.fill.i64", &s.to_vec(), &bufs, |r| {
            assert_eq!(read::<i64>(&r[1]), y);
            assert_eq!(read::<i64>(&r[2]), first);
            assert_eq!(read::<i64>(&r[3]), inverse);
            assert_eq!(read::<i64>(&r[4]), counts);
        });
    }
}

fn resize(x: [usize; 5], y: [usize; 5]) -> Resize {
    Resize {
        x,
        y,
        scale: std::array::from_fn(|d| y[d] as f64 / x[d] as f64),
        start: [0.0; 5],
        end: [1.0; 5],
        mode: mode::LINEAR,
        coordinate: coordinate::HALF_PIXEL,
        nearest: nearest::ROUND_PREFER_FLOOR,
        cubic_a: -0.75,
        exclude_outside: false,
        extrapolation: 0.0,
        antialias: false,
    }
}

/// The examples of the ONNX operator's own tests.
#[test]
fn resizes_match_the_published_examples() {
    let check = |s: Resize, x: &[f32], want: &[f32]| {
        let bufs = [buf(x), out::<f32>(s.y.iter().product())];
        run("resize.f32", &s.to_vec(), &bufs, |r| {
            let want: Vec<_> = want.iter().map(|v| (*v as f64, 16.0)).collect();
            close(&read(&r[1]), &want, 16.0, &format!("{s:?}"));
        });
    };
    let two = [1.0, 2.0, 3.0, 4.0];
    let linear = resize([1, 1, 1, 2, 2], [1, 1, 1, 4, 4]);
    check(
        linear,
        &two,
        &[1.0, 1.25, 1.75, 2.0, 1.5, 1.75, 2.25, 2.5, 2.5, 2.75, 3.25, 3.5, 3.0, 3.25, 3.75, 4.0],
    );
    check(
        Resize { coordinate: coordinate::ALIGN_CORNERS, ..linear },
        &two,
        &[
            1.0, 1.3333333, 1.6666667, 2.0, 1.6666667, 2.0, 2.3333333, 2.6666667, 2.3333333,
            2.6666667, 3.0, 3.3333333, 3.0, 3.3333333, 3.6666667, 4.0,
        ],
    );
    let mut up = resize([1, 1, 1, 2, 2], [1, 1, 1, 4, 6]);
    up.mode = mode::NEAREST;
    check(
        up,
        &two,
        &[
            1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 4.0, 4.0,
            4.0, 3.0, 3.0, 3.0, 4.0, 4.0, 4.0,
        ],
    );
    let sixteen: Vec<f32> = (1..=16).map(|v| v as f32).collect();
    let mut cubic = resize([1, 1, 1, 4, 4], [1, 1, 1, 8, 8]);
    cubic.mode = mode::CUBIC;
    let bufs = [buf(&sixteen), out::<f32>(64)];
    run("resize.f32", &cubic.to_vec(), &bufs, |r| {
        let row = [
            0.47265625, 0.76953125, 1.24609375, 1.875, 2.28125, 2.91015625, 3.38671875, 3.68359375,
        ];
        let want: Vec<_> = row.iter().map(|v| (*v, 16.0)).collect();
        close(&read::<f32>(&r[1])[..8], &want, 16.0, "cubic");
    });
    let mut crop = resize([1, 1, 1, 4, 4], [1, 1, 1, 3, 3]);
    crop.coordinate = coordinate::TF_CROP_AND_RESIZE;
    (crop.start, crop.end) = ([0.0, 0.0, 0.0, 0.4, 0.6], [1.0, 1.0, 1.0, 1.2, 1.7]);
    crop.x = [1, 1, 1, 4, 4];
    crop.extrapolation = 10.0;
    check(crop, &sixteen, &[7.6, 10.0, 10.0, 12.4, 10.0, 10.0, 10.0, 10.0, 10.0]);
    let down = Resize {
        scale: [1.0, 1.0, 1.0, 0.6, 0.6],
        mode: mode::NEAREST,
        ..resize([1, 1, 1, 2, 4], [1, 1, 1, 1, 2])
    };
    check(down, &sixteen[..8], &[1.0, 3.0]);
    // In f32 the second position is 10, in f64 a little less.
    let tenth = Resize {
        scale: [1.0, 1.0, 1.0, 1.0, 0.1f32 as f64],
        mode: mode::NEAREST,
        coordinate: coordinate::ASYMMETRIC,
        nearest: nearest::FLOOR,
        ..resize([1, 1, 1, 1, 20], [1, 1, 1, 1, 2])
    };
    let twenty: Vec<f32> = (0..20).map(|v| v as f32).collect();
    check(tenth, &twenty, &[0.0, 10.0]);
}
