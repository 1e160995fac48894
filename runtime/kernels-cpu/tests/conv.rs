//! Convolutions and pools against direct f64 or integer references.

mod common;
use common::*;
use silure_kernels_cpu::conv::Window;
use silure_kernels_cpu::conv::float::Conv;
use silure_kernels_cpu::conv::int8::ConvI8;
use silure_kernels_cpu::conv::pool::Pool;
use silure_kernels_cpu::gemm::epilogue::{Epilogue, activation, bias};
use silure_kernels_cpu::gemm::pack::{pack_b_i8, packed_b_i8_len};
use silure_kernels_cpu::gemm::stage::{Stage, per};
use silure_kernels_cpu::schedule::Schedule;

/// A window with the output extents that its pads (both sides equal, plus one at the end) give.
fn window(
    (batch, groups, ic, oc): (usize, usize, usize, usize),
    x: [usize; 3],
    kernel: [usize; 3],
    stride: [usize; 3],
    dilation: [usize; 3],
    pad: [i64; 3],
    end: [i64; 3],
) -> Window {
    let y = std::array::from_fn(|d| {
        let room = x[d] as i64 + pad[d] + end[d] - (dilation[d] * (kernel[d] - 1) + 1) as i64;
        if room < 0 { 0 } else { room as usize / stride[d] + 1 }
    });
    let (in_channels, out_channels) = (ic, oc);
    Window { batch, groups, in_channels, out_channels, x, y, kernel, stride, dilation, pad }
}

fn windows() -> Vec<Window> {
    let one = [1, 1, 1];
    vec![
        window((1, 1, 3, 5), [1, 7, 9], [1, 3, 3], one, one, [0, 1, 1], [0, 1, 1]),
        window((2, 1, 17, 20), [1, 6, 5], one, one, one, [0; 3], [0; 3]),
        window((2, 1, 8, 20), [1, 5, 6], one, one, one, [0; 3], [0, 2, 3]),
        window((1, 1, 4, 5), [1, 5, 6], one, [1, 2, 2], one, [0; 3], [0; 3]),
        window((1, 1, 40, 14), [1, 5, 19], one, one, one, [0; 3], [0; 3]),
        window((1, 2, 4, 7), [1, 11, 40], [1, 3, 5], [1, 2, 3], [1, 2, 1], [0, 2, 1], [0, 0, 3]),
        window((2, 6, 1, 1), [1, 9, 37], [1, 3, 3], one, one, [0, 1, 1], [0, 1, 1]),
        window((1, 3, 1, 2), [1, 8, 50], [1, 5, 5], [1, 2, 2], [1, 1, 2], [0, 2, 3], [0, 1, 4]),
        window((1, 1, 2, 3), [4, 5, 6], [2, 3, 2], [1, 2, 1], one, [1, 0, 1], [0, 1, 0]),
        window((1, 1, 5, 200), [1, 1, 150], [1, 1, 7], [1, 1, 2], one, [0, 0, 3], [0, 0, 3]),
        window((1, 1, 70, 9), [1, 12, 12], [1, 3, 3], one, one, [0, 1, 1], [0, 1, 1]),
        window((0, 1, 2, 2), [1, 4, 4], [1, 3, 3], one, one, [0; 3], [0; 3]),
        window((1, 1, 2, 2), [1, 2, 2], [1, 3, 3], one, one, [0; 3], [0; 3]),
    ]
}

/// Calls `f(output index, weight index, input index)` for every product.
fn products(w: &Window, mut f: impl FnMut(usize, usize, usize)) {
    let (xp, yp, taps) = (w.x_plane(), w.y_plane(), w.taps());
    for n in 0..w.batch {
        for g in 0..w.groups {
            for o in 0..w.out_channels {
                for p in 0..yp {
                    let at = [p / (w.y[1] * w.y[2]), p / w.y[2] % w.y[1], p % w.y[2]];
                    for c in 0..w.in_channels {
                        for t in 0..taps {
                            let k = [
                                t / (w.kernel[1] * w.kernel[2]),
                                t / w.kernel[2] % w.kernel[1],
                                t % w.kernel[2],
                            ];
                            let i: [i64; 3] = std::array::from_fn(|d| {
                                (at[d] * w.stride[d] + k[d] * w.dilation[d]) as i64 - w.pad[d]
                            });
                            if (0..3).all(|d| i[d] >= 0 && i[d] < w.x[d] as i64) {
                                let oc = g * w.out_channels + o;
                                let line = (i[0] as usize * w.x[1] + i[1] as usize) * w.x[2];
                                let xi = ((n * w.groups + g) * w.in_channels + c) * xp + line;
                                f(
                                    (n * w.groups * w.out_channels + oc) * yp + p,
                                    (oc * w.in_channels + c) * taps + t,
                                    xi + i[2] as usize,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

fn lens(w: &Window) -> (usize, usize, usize) {
    let channels = w.batch * w.groups;
    (
        channels * w.in_channels * w.x_plane(),
        w.groups * w.out_channels * w.depth(),
        channels * w.out_channels * w.y_plane(),
    )
}

#[test]
fn f32_convolutions_match() {
    let mut rng = Rng(21);
    for w in windows() {
        let (nx, nw, ny) = lens(&w);
        let (x, k) = (rng.floats(nx), rng.floats(nw));
        let b = rng.floats(w.groups * w.out_channels);
        let res = rng.floats(ny);
        let mut want = vec![(0f64, 1f64); ny];
        products(&w, |o, k_at, x_at| {
            let v = k[k_at] as f64 * x[x_at] as f64;
            want[o].0 += v;
            want[o].1 += v.abs();
        });
        let plane = w.y_plane();
        for (i, v) in want.iter_mut().enumerate() {
            let bias = b[i / plane % b.len()] as f64;
            v.0 = (v.0 + bias + res[i] as f64).max(0.0);
            v.1 += 2.0;
        }
        let epilogue = Epilogue {
            bias: bias::ROW,
            residual: true,
            activation: activation::RELU,
            ..Epilogue::NONE
        };
        let bufs = [buf(&x), buf(&k), buf(&b), buf(&res), None, out::<f32>(ny)];
        let s = Conv::whole(w, epilogue);
        run("conv.f32", &s.to_vec(), &bufs, |r| {
            close(&read(&r[5]), &want, 30.0, &format!("{w:?}"))
        });
    }
}

/// Channels moved last.
fn last<T: Copy>(v: &[T], batch: usize, plane: usize) -> Vec<T> {
    let channels = v.len() / (batch * plane).max(1);
    let at = |i: usize| {
        let (pixel, c) = (i / channels, i % channels);
        v[(pixel / plane * channels + c) * plane + pixel % plane]
    };
    (0..v.len()).map(at).collect()
}

/// The weights of each group as a packed matrix `[kernel · C, O]`.
fn packed(w: &Window, k: &[u8], signed: bool) -> Vec<u8> {
    let (depth, outs, taps) = (w.depth(), w.out_channels, w.taps());
    let mut all = vec![];
    for group in k.chunks((outs * depth).max(1)).take(w.groups) {
        let mut matrix = vec![0u8; depth * outs];
        for (i, v) in matrix.iter_mut().enumerate() {
            let (row, o) = (i / outs, i % outs);
            let (tap, c) = (row / w.in_channels, row % w.in_channels);
            *v = group[(o * w.in_channels + c) * taps + tap];
        }
        let mut out = vec![0; packed_b_i8_len(depth, outs)];
        pack_b_i8(&matrix, signed, (depth, outs), (outs, 1), &mut out);
        all.extend(out);
    }
    all
}

#[test]
fn integer_convolutions_are_exact() {
    let mut rng = Rng(23);
    for w in windows() {
        let (nx, nw, ny) = lens(&w);
        let (x, k) = (rng.bytes(nx), rng.bytes(nw));
        let zps = rng.bytes((w.groups * w.out_channels).max(1));
        for signed in [false, true] {
            let int = |b: u8, s: bool| if s { b as i8 as i32 } else { b as i32 };
            let mut want = vec![0i32; ny];
            products(&w, |o, k_at, x_at| {
                let channel = k_at / w.depth();
                want[o] += (int(k[k_at], !signed) - int(zps[channel], !signed))
                    * (int(x[x_at], signed) - int(77, signed));
            });
            let s = ConvI8 {
                window: w,
                x_signed: signed,
                w_signed: !signed,
                x_zp: true,
                w_zp: per::AXIS,
                stage: Stage::SUMS,
                schedule: Schedule::DEFAULT,
            };
            let bufs = [
                buf(&x),
                buf(&k),
                buf(&[77u8]),
                buf(&zps),
                None,
                None,
                None,
                None,
                None,
                None,
                out::<i32>(ny),
            ];
            run("conv.i8", &s.to_vec(), &bufs, |r| assert_eq!(read::<i32>(&r[10]), want, "{w:?}"));
            let [x, k] = [last(&x, w.batch, w.x_plane()), packed(&w, &k, !signed)];
            let want = last(&want, w.batch, w.y_plane());
            let bufs = [[buf(&x), buf(&k)].as_slice(), &bufs[2..]].concat();
            run("conv.i8.last", &s.to_vec(), &bufs, |r| {
                assert_eq!(read::<i32>(&r[10]), want, "{w:?}")
            });
        }
    }
}

#[test]
fn transposed_convolutions_match() {
    let mut rng = Rng(25);
    let cases = [
        ((1, 1, 3, 4), [1, 5, 6], [1, 2, 2], [1, 2, 2], [1, 1, 1], [0, 0, 0], [1, 10, 12]),
        ((2, 2, 3, 2), [1, 4, 5], [1, 3, 3], [1, 2, 1], [1, 1, 2], [0, 1, 1], [1, 8, 7]),
        ((1, 1, 20, 1), [1, 1, 30], [1, 1, 16], [1, 1, 8], [1, 1, 1], [0, 0, 4], [1, 1, 240]),
    ];
    for ((batch, groups, ic, oc), x, kernel, stride, dilation, pad, y) in cases {
        let w = Window {
            batch,
            groups,
            in_channels: ic,
            out_channels: oc,
            x,
            y,
            kernel,
            stride,
            dilation,
            pad,
        };
        let (nx, nw, ny) = lens(&w);
        let (xs, k, b) = (rng.floats(nx), rng.floats(nw), rng.floats(groups * oc));
        let mut want: Vec<(f64, f64)> =
            (0..ny).map(|i| (b[i / w.y_plane() % b.len()] as f64, 1.0)).collect();
        for n in 0..batch {
            for g in 0..groups {
                for c in 0..ic {
                    for i in 0..w.x_plane() {
                        let at = [i / (x[1] * x[2]), i / x[2] % x[1], i % x[2]];
                        for o in 0..oc {
                            for t in 0..w.taps() {
                                let kk = [
                                    t / (kernel[1] * kernel[2]),
                                    t / kernel[2] % kernel[1],
                                    t % kernel[2],
                                ];
                                let p: [i64; 3] = std::array::from_fn(|d| {
                                    (at[d] * stride[d] + kk[d] * dilation[d]) as i64 - pad[d]
                                });
                                if (0..3).all(|d| p[d] >= 0 && p[d] < y[d] as i64) {
                                    let v = xs[((n * groups + g) * ic + c) * w.x_plane() + i]
                                        as f64
                                        * k[((g * ic + c) * oc + o) * w.taps() + t] as f64;
                                    let pos = (p[0] as usize * y[1] + p[1] as usize) * y[2]
                                        + p[2] as usize;
                                    let out =
                                        &mut want[((n * groups + g) * oc + o) * w.y_plane() + pos];
                                    out.0 += v;
                                    out.1 += v.abs();
                                }
                            }
                        }
                    }
                }
            }
        }
        let s = Conv::whole(w, Epilogue { bias: bias::ROW, ..Epilogue::NONE });
        let bufs = [buf(&xs), buf(&k), buf(&b), None, None, out::<f32>(ny)];
        run("conv_transpose.f32", &s.to_vec(), &bufs, |r| {
            close(&read(&r[5]), &want, 20.0, &format!("{w:?}"))
        });
    }
}

#[test]
fn pools_match() {
    let mut rng = Rng(27);
    for (x, kernel, stride, dilation, pad, pad_end, y) in [
        ([1, 7, 9], [1, 3, 3], [1, 2, 2], [1, 1, 1], [0, 1, 1], [0, 1, 1], [1, 4, 5]),
        ([1, 1, 20], [1, 1, 4], [1, 1, 3], [1, 1, 2], [0, 0, 2], [0, 0, 1], [1, 1, 6]),
        // Rounded up: the last window begins inside and ends beyond the pads.
        ([1, 5, 5], [1, 2, 2], [1, 2, 2], [1, 1, 1], [0, 0, 0], [0, 0, 0], [1, 3, 3]),
        ([4, 4, 4], [2, 2, 2], [2, 1, 1], [1, 1, 1], [0, 0, 1], [0, 0, 0], [2, 3, 4]),
    ] {
        let planes = 3;
        let plane: usize = x.iter().product();
        let values = rng.floats(planes * plane);
        let bytes: Vec<i8> = (0..planes * plane).map(|_| rng.next() as i8).collect();
        let ny: usize = planes * y.iter().product::<usize>();
        for count_pads in [false, true] {
            let s = Pool {
                planes,
                channels: 1,
                x,
                y,
                kernel,
                stride,
                dilation,
                pad,
                pad_end,
                count_pads,
                p: 2,
                column_major: false,
            };
            let mut taps: Vec<(Vec<usize>, usize)> = Vec::new();
            for o in 0..ny {
                let (p, q) = (o / (ny / planes), o % (ny / planes));
                let at = [q / (y[1] * y[2]), q / y[2] % y[1], q % y[2]];
                let (mut inside, mut padded) = (Vec::new(), 0);
                for z in 0..kernel[0] {
                    for r in 0..kernel[1] {
                        for c in 0..kernel[2] {
                            let k = [z, r, c];
                            let i: [i64; 3] = std::array::from_fn(|d| {
                                (at[d] * stride[d] + k[d] * dilation[d]) as i64 - pad[d]
                            });
                            if (0..3).all(|d| i[d] < x[d] as i64 + pad_end[d]) {
                                padded += 1;
                            }
                            if (0..3).all(|d| i[d] >= 0 && i[d] < x[d] as i64) {
                                let line = (i[0] as usize * x[1] + i[1] as usize) * x[2];
                                inside.push(p * plane + line + i[2] as usize);
                            }
                        }
                    }
                }
                taps.push((inside, padded));
            }
            let sizes = s.to_vec();
            run("average_pool.f32", &sizes, &[buf(&values), out::<f32>(ny)], |r| {
                let want: Vec<_> = taps
                    .iter()
                    .map(|(i, padded)| {
                        let n = if count_pads { *padded } else { i.len() };
                        (i.iter().map(|i| values[*i] as f64).sum::<f64>() / n as f64, 1.0)
                    })
                    .collect();
                close(&read(&r[1]), &want, 1.0, "average");
            });
            run("lp_pool.f32", &sizes, &[buf(&values), out::<f32>(ny)], |r| {
                let want: Vec<_> = taps
                    .iter()
                    .map(|(i, _)| {
                        (i.iter().map(|i| (values[*i] as f64).powi(2)).sum::<f64>().sqrt(), 1.0)
                    })
                    .collect();
                close(&read(&r[1]), &want, 2.0, "lp");
            });
            run("max_pool.f32", &sizes, &[buf(&values), out::<f32>(ny), out::<i64>(ny)], |r| {
                let (v, at) = (read::<f32>(&r[1]), read::<i64>(&r[2]));
                for (o, (i, _)) in taps.iter().enumerate() {
                    let best =
                        i.iter().copied().reduce(|a, b| if values[b] > values[a] { b } else { a });
                    assert_eq!(at[o], best.unwrap() as i64);
                    assert_eq!(v[o], values[best.unwrap()]);
                }
            });
            run("max_pool.i8", &sizes, &[buf(&bytes), out::<i8>(ny), None], |r| {
                let want: Vec<i8> =
                    taps.iter().map(|(i, _)| i.iter().map(|i| bytes[*i]).max().unwrap()).collect();
                assert_eq!(read::<i8>(&r[1]), want);
            });
        }
    }
}
