//! Convolutions and pools of channels last against direct f64 references and their channels-first forms.

mod common;
use common::*;
use silure_kernels_cpu::conv::Window;
use silure_kernels_cpu::conv::float::Conv;
use silure_kernels_cpu::conv::pool::Pool;
use silure_kernels_cpu::gemm::epilogue::{Epilogue, activation, bias};
use silure_kernels_cpu::gemm::pack::{pack_b_f32, packed_b_f32_len};

/// `[n, a, b]` to `[n, b, a]`.
fn swapped<T: Copy>(v: &[T], n: usize, a: usize, b: usize) -> Vec<T> {
    (0..n * a * b).map(|i| v[(i / (a * b) * a + i % a) * b + i / a % b]).collect()
}

/// Random extents, odd ones included; `depthwise` has one channel per group.
fn window(rng: &mut Rng, depthwise: bool) -> Window {
    let spatial = 1 + rng.below(3);
    let mut w = Window {
        batch: 1 + rng.below(2),
        groups: if depthwise { [2, 16, 19, 150][rng.below(4)] } else { [1, 1, 1, 3][rng.below(4)] },
        in_channels: if depthwise { 1 } else { [1, 3, 7, 16, 40, 300, 600][rng.below(7)] },
        out_channels: if depthwise { 1 } else { [1, 5, 16, 33, 70][rng.below(5)] },
        x: [1; 3],
        y: [1; 3],
        kernel: [1; 3],
        stride: [1; 3],
        dilation: [1; 3],
        pad: [0; 3],
    };
    let pointwise = rng.below(4) == 0;
    for d in 3 - spatial..3 {
        w.x[d] = 1 + rng.below(if d == 2 { 23 } else { 6 });
        if !pointwise {
            w.kernel[d] = 1 + rng.below(4);
            w.stride[d] = 1 + rng.below(3);
            w.dilation[d] = 1 + rng.below(3);
            w.pad[d] = rng.below(4) as i64;
        }
        let reach = w.dilation[d] * (w.kernel[d] - 1) + 1;
        let end = if pointwise { 0 } else { rng.below(5) };
        let room = (w.x[d] + w.pad[d] as usize + end) as i64 - reach as i64;
        w.y[d] = if room < 0 { 0 } else { room as usize / w.stride[d] + 1 };
    }
    w
}

/// Sums of products and of their magnitudes, in the order of y with channels last.
fn reference(w: &Window, x: &[f32], k: &[f32]) -> Vec<(f64, f64)> {
    let (ins, outs) = (w.groups * w.in_channels, w.groups * w.out_channels);
    let mut y = Vec::new();
    for i in 0..w.batch * w.y_plane() * outs {
        let (o, pixel) = (i % outs, i / outs);
        let (n, p) = (pixel / w.y_plane(), pixel % w.y_plane());
        let at = [p / (w.y[1] * w.y[2]), p / w.y[2] % w.y[1], p % w.y[2]];
        let mut sum = (0.0, 0.0);
        for t in 0..w.taps() {
            let tap =
                [t / (w.kernel[1] * w.kernel[2]), t / w.kernel[2] % w.kernel[1], t % w.kernel[2]];
            let i: [i64; 3] = std::array::from_fn(|d| {
                (at[d] * w.stride[d] + tap[d] * w.dilation[d]) as i64 - w.pad[d]
            });
            if (0..3).any(|d| i[d] < 0 || i[d] >= w.x[d] as i64) {
                continue;
            }
            let i = i.map(|i| i as usize);
            let from = ((n * w.x[0] + i[0]) * w.x[1] + i[1]) * w.x[2] + i[2];
            for c in 0..w.in_channels {
                let channel = o / w.out_channels * w.in_channels + c;
                let v = x[from * ins + channel] as f64
                    * k[(o * w.in_channels + c) * w.taps() + t] as f64;
                sum = (sum.0 + v, sum.1 + v.abs());
            }
        }
        y.push(sum);
    }
    y
}

/// The kernel as the macro-kernel reads it.
fn packed(w: &Window, k: &[f32], depthwise: bool) -> Vec<f32> {
    if depthwise {
        return swapped(k, 1, w.groups, w.taps());
    }
    let (depth, outs) = (w.depth(), w.out_channels);
    let len = packed_b_f32_len(depth, outs);
    let mut out = vec![0.0; len * w.groups];
    for g in 0..w.groups {
        let own = &k[g * outs * depth..][..outs * depth];
        // [o, c, t] to [t · c, o].
        let rows = swapped(own, outs, w.in_channels, w.taps());
        pack_b_f32(&rows, depth, outs, 1, depth, &mut out[g * len..][..len]);
    }
    out
}

fn epilogues() -> Vec<Epilogue> {
    let mut all = vec![Epilogue::NONE];
    for code in 0..activation::COUNT {
        all.push(Epilogue {
            alpha: if code % 2 == 0 { 1.0 } else { -0.75 },
            bias: if code % 3 == 0 { bias::NONE } else { bias::COLUMN },
            residual: code % 4 == 1,
            activation: code,
            p0: if code == activation::CLIP { -0.3 } else { 0.2 },
            p1: 0.5,
            callback: false,
        });
    }
    all
}

fn activated(e: &Epilogue, x: f64) -> f64 {
    let (p0, p1) = (e.p0 as f64, e.p1 as f64);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match e.activation {
        activation::RELU => x.max(0.0),
        activation::SILU => x * sigmoid(x),
        activation::SIGMOID => sigmoid(x),
        activation::TANH => x.tanh(),
        activation::CLIP => x.clamp(p0, p1),
        activation::HARD_SWISH => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        activation::LEAKY_RELU => x.max(p0 * x),
        activation::HARD_SIGMOID => (p0 * x + p1).clamp(0.0, 1.0),
        activation::GELU_TANH => {
            0.5 * x
                * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
        }
        _ => x,
    }
}

fn convolutions(name: &str, depthwise: bool, cases: usize, seed: u64) {
    let mut rng = Rng(seed);
    let all = epilogues();
    for case in 0..cases {
        let w = window(&mut rng, depthwise);
        let e = all[case % all.len()];
        if e.activation == activation::GELU_ERF {
            continue;
        }
        let outs = w.groups * w.out_channels;
        let ny = w.batch * w.y_plane() * outs;
        let x = rng.floats(w.batch * w.x_plane() * w.groups * w.in_channels);
        let k = rng.floats(outs * w.depth());
        let (b, residual) = (rng.floats(outs), rng.floats(ny));
        let mut want = reference(&w, &x, &k);
        for (i, v) in want.iter_mut().enumerate() {
            let mut y = v.0 * e.alpha as f64;
            y += if e.bias == bias::COLUMN { b[i % outs] as f64 } else { 0.0 };
            y += if e.residual { residual[i] as f64 } else { 0.0 };
            *v = (activated(&e, y), v.1 + 3.0);
        }
        let bufs = [
            buf(&x),
            buf(&packed(&w, &k, depthwise)),
            buf(&b),
            buf(&residual),
            None,
            out::<f32>(ny),
        ];
        let sizes = Conv::whole(w, e).to_vec();
        run(name, &sizes, &bufs, |r| close(&read(&r[5]), &want, 30.0, &format!("{w:?} {e:?}")));
    }
}

#[test]
fn convolutions_match() {
    convolutions("conv.f32.last", false, 300, 31);
}

/// A slice of the channels of a larger tensor gets what a tensor of its own would; the rest stays.
#[test]
fn slices_of_channels_are_written_alone() {
    let mut rng = Rng(37);
    for _ in 0..60 {
        let w = window(&mut rng, false);
        let outs = w.groups * w.out_channels;
        let pixels = w.batch * w.y_plane();
        let (y_at, behind) = (rng.below(20), rng.below(20));
        let y_row = y_at + outs + behind;
        let x = rng.floats(w.batch * w.x_plane() * w.groups * w.in_channels);
        let k = packed(&w, &rng.floats(outs * w.depth()), false);
        let b = rng.floats(outs);
        let e = Epilogue { bias: bias::COLUMN, activation: activation::SILU, ..Epilogue::NONE };
        let own = [buf(&x), buf(&k), buf(&b), None, None, out::<f32>(pixels * outs)];
        let part = [buf(&x), buf(&k), buf(&b), None, None, buf(&vec![7f32; pixels * y_row])];
        let mut whole = vec![];
        run("conv.f32.last", &Conv::whole(w, e).to_vec(), &own, |r| whole.push(read::<f32>(&r[5])));
        let mut level = whole.iter();
        let slice = Conv { y_row, y_at, ..Conv::whole(w, e) };
        run("conv.f32.last", &slice.to_vec(), &part, |r| {
            let want = level.next().unwrap();
            for (i, v) in read::<f32>(&r[5]).iter().enumerate() {
                let at = (i % y_row).checked_sub(y_at).filter(|c| *c < outs);
                let want = at.map_or(7.0, |c| want[i / y_row * outs + c]);
                assert_eq!(v.to_bits(), want.to_bits(), "{w:?} {i}");
            }
        });
    }
}

#[test]
fn depthwise_convolutions_match() {
    convolutions("conv.f32.last.depthwise", true, 200, 33);
}

/// Where a product of infinity and a padding's zero would be NaN, no such product is made; NaN stays NaN.
#[test]
fn what_is_not_finite_stays_where_it_is() {
    for (name, groups, c) in [("conv.f32.last", 1, 2), ("conv.f32.last.depthwise", 2, 1)] {
        let w = Window {
            batch: 1,
            groups,
            in_channels: c,
            out_channels: c,
            x: [1, 1, 9],
            y: [1, 1, 9],
            kernel: [1, 1, 3],
            stride: [1; 3],
            dilation: [1; 3],
            pad: [0, 0, 1],
        };
        let mut x = vec![1f32; 18];
        x[6..8].fill(f32::NAN);
        let k = packed(&w, &vec![1.0; 6 * c], groups > 1);
        let epilogue = Epilogue { activation: activation::RELU, ..Epilogue::NONE };
        let bufs = [buf(&x), buf(&k), None, None, None, out::<f32>(18)];
        run(name, &Conv::whole(w, epilogue).to_vec(), &bufs, |r| {
            for (i, v) in read::<f32>(&r[5]).iter().enumerate() {
                assert_eq!(v.is_nan(), (2..5).contains(&(i / 2)), "{name}: {i} is {v}");
            }
        });
    }
}

#[test]
fn pools_are_those_of_channels_first() {
    let mut rng = Rng(35);
    for case in 0..150 {
        let w = window(&mut rng, true);
        let mut s = Pool {
            planes: w.batch * w.groups,
            channels: 1,
            x: w.x,
            y: w.y,
            kernel: w.kernel,
            stride: w.stride,
            dilation: w.dilation,
            pad: w.pad,
            pad_end: [0, 1, 2],
            count_pads: case % 2 == 0,
            p: 1 + case % 3,
            column_major: false,
        };
        let mut x = rng.floats(s.planes * w.x_plane());
        if case % 5 == 0 && !x.is_empty() {
            let i = rng.below(x.len());
            x[i] = f32::NAN;
        }
        let bytes: Vec<i8> = x.iter().map(|v| (v * 100.0) as i8).collect();
        let (ny, c) = (s.planes * w.y_plane(), w.groups);
        let first = s.to_vec();
        (s.planes, s.channels) = (w.batch, c);
        let last = s.to_vec();
        let moved = swapped(&x, w.batch, c, w.x_plane());
        let moved_bytes = swapped(&bytes, w.batch, c, w.x_plane());
        for name in ["max_pool.f32", "average_pool.f32", "lp_pool.f32"] {
            let mut want = vec![];
            run(name, &first, &[buf(&x), out::<f32>(ny), None], |r| want = read::<f32>(&r[1]));
            let want = swapped(&want, w.batch, c, w.y_plane());
            run(name, &last, &[buf(&moved), out::<f32>(ny), None], |r| {
                let got = read::<f32>(&r[1]);
                let same = got.iter().zip(&want).all(|(a, b)| a == b || a.is_nan() && b.is_nan());
                assert!(same, "{name} {s:?}");
            });
        }
        let mut want = vec![];
        run("max_pool.i8", &first, &[buf(&bytes), out::<i8>(ny), None], |r| want = read(&r[1]));
        let want: Vec<i8> = swapped(&want, w.batch, c, w.y_plane());
        run("max_pool.i8", &last, &[buf(&moved_bytes), out::<i8>(ny), None], |r| {
            assert_eq!(read::<i8>(&r[1]), want, "{s:?}")
        });
    }
}
