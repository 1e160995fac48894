//! Output stages of integer products, against the formula in scalars: bit for bit, at every level.

mod common;

use common::{Rng, buf, out, read, run};
use silure_kernels_cpu::conv::Window;
use silure_kernels_cpu::conv::int8::ConvI8;
use silure_kernels_cpu::gemm::epilogue::activation;
use silure_kernels_cpu::gemm::int8::MatmulI8;
use silure_kernels_cpu::gemm::pack::{pack_b_i8, packed_b_i8_len};
use silure_kernels_cpu::gemm::stage::{self, Stage, bias, per};
use silure_kernels_cpu::schedule::Schedule;

fn widen(b: u8, signed: bool) -> i32 {
    if signed { b as i8 as i32 } else { b as i32 }
}

fn bounds(code: usize) -> (f32, f32) {
    if code == stage::out::I8 { (-128.0, 127.0) } else { (0.0, 255.0) }
}

/// The whole number that stands for `y`.
fn quantised(y: f32, scale: f32, zp: f32, (lo, hi): (f32, f32)) -> f32 {
    let q = (y / scale).round_ties_even();
    (if q.is_nan() { 0.0 } else { q } + zp).clamp(lo, hi)
}

fn activated(code: usize, p0: f32, p1: f32, y: f32) -> f32 {
    match code {
        activation::RELU => {
            if y < 0.0 {
                0.0
            } else {
                y
            }
        }
        activation::CLIP => {
            let y = if y < p0 { p0 } else { y };
            if y > p1 { p1 } else { y }
        }
        activation::LEAKY_RELU => {
            if y < 0.0 {
                p0 * y
            } else {
                y
            }
        }
        _ => y,
    }
}

/// The operands of a stage for `rows × cols` sums whose features are columns.
struct Operands {
    a_scale: Vec<f32>,
    b_scale: Vec<f32>,
    floats: Vec<f32>,
    ints: Vec<i32>,
    y_scale: f32,
    y_zp: u8,
    bytes: Vec<u8>,
    residual: Vec<f32>,
}

impl Operands {
    fn random(rng: &mut Rng, rows: usize, cols: usize, wild: bool) -> Operands {
        let mut o = Operands {
            a_scale: (0..rows.max(1)).map(|_| 0.01 + rng.float().abs()).collect(),
            b_scale: (0..cols.max(1)).map(|_| 1e-3 + 1e-2 * rng.float().abs()).collect(),
            floats: (0..cols).map(|_| 20.0 * rng.float()).collect(),
            ints: (0..cols).map(|_| rng.below(4000) as i32 - 2000).collect(),
            y_scale: [0.25, 0.3, 1.7][rng.below(3)],
            y_zp: rng.bytes(1)[0],
            bytes: rng.bytes(rows * cols),
            residual: (0..rows * cols).map(|_| 30.0 * rng.float()).collect(),
        };
        if wild {
            let odd = [f32::NAN, f32::INFINITY, -f32::INFINITY, 3e38, 1e-39, -0.0, 0.0];
            o.b_scale.iter_mut().for_each(|v| *v = odd[rng.below(odd.len())]);
            o.residual.iter_mut().for_each(|v| *v = odd[rng.below(odd.len())]);
            o.y_scale = [1e-38, 1e38, 0.5][rng.below(3)];
        }
        o
    }

    /// What a stage gives for a sum: a number of the output's type.
    fn expect(&self, s: &Stage, sum: i32, row: usize, col: usize, at: usize) -> f32 {
        let acc = if s.bias == bias::I32 { sum.wrapping_add(self.ints[col]) } else { sum };
        let scale = |v: &[f32], mode: usize, i: usize| match mode {
            per::NONE => 1.0,
            per::TENSOR => v[0],
            _ => v[i],
        };
        let by = scale(&self.a_scale, s.a_scale, row) * scale(&self.b_scale, s.b_scale, col);
        let mut y = acc as f32 * by;
        if s.bias == bias::F32 {
            y += self.floats[col];
        }
        y = activated(s.activation, s.p0, s.p1, y);
        if s.inner != 0 {
            let q = quantised(y, s.inner_scale, s.inner_zp as f32, bounds(s.inner));
            y = (q - s.inner_zp as f32) * s.inner_scale;
        }
        match s.residual {
            0 => {}
            stage::out::F32 => y += self.residual[at],
            code => {
                let q = widen(self.bytes[at], code == stage::out::I8) - s.residual_zp as i32;
                y += q as f32 * s.residual_scale;
            }
        }
        y = activated(s.last, s.q0, s.q1, y);
        if s.out == stage::out::F32 {
            return y;
        }
        let zp = widen(self.y_zp, s.out == stage::out::I8) as f32;
        quantised(y, self.y_scale, zp, bounds(s.out))
    }

    /// Buffers 4 to 10 of a product.
    fn bufs(&self, s: &Stage, len: usize) -> Vec<Option<Vec<u8>>> {
        let ints = match s.bias {
            bias::F32 => buf(&self.floats),
            bias::I32 => buf(&self.ints),
            _ => None,
        };
        let residual = match s.residual {
            0 => None,
            stage::out::F32 => buf(&self.residual),
            _ => buf(&self.bytes),
        };
        let c = if s.out_bytes() == 4 { out::<f32>(len) } else { out::<u8>(len) };
        let scale = [buf(&self.a_scale), buf(&self.b_scale), ints, buf(&[self.y_scale])];
        [scale.as_slice(), &[buf(&[self.y_zp]), residual, c]].concat()
    }
}

fn random_stage(rng: &mut Rng) -> Stage {
    use stage::out::{F32, I8, U8};
    let acts = [activation::NONE, activation::RELU, activation::CLIP, activation::LEAKY_RELU];
    let zp = |rng: &mut Rng, code: usize| match code {
        U8 => [0, 255, rng.below(256) as i64][rng.below(3)],
        I8 => [-128, 127, rng.below(256) as i64 - 128][rng.below(3)],
        _ => 0,
    };
    let (inner, residual) = ([0, U8, I8][rng.below(3)], [0, F32, U8, I8][rng.below(4)]);
    Stage {
        out: [F32, U8, I8, U8, I8][rng.below(5)],
        a_scale: rng.below(3),
        b_scale: rng.below(3),
        bias: rng.below(3),
        activation: if rng.below(2) == 0 { 0 } else { acts[rng.below(4)] },
        p0: [-0.5, -0.5, 3e38][rng.below(3)],
        p1: 6.0,
        inner,
        inner_scale: [0.25, 0.017][rng.below(2)],
        inner_zp: zp(rng, inner),
        residual,
        residual_scale: 0.031,
        residual_zp: zp(rng, residual),
        last: if rng.below(2) == 0 { 0 } else { acts[rng.below(3)] },
        q0: 0.5,
        q1: 20.0,
    }
}

/// Compares an output with the numbers it should hold; NaN of either kind are one.
fn same(s: &Stage, got: &[u8], want: &[f32], what: &dyn Fn() -> String) {
    let got: Vec<f32> = match s.out {
        stage::out::F32 => read(got),
        code => got.iter().map(|b| widen(*b, code == stage::out::I8) as f32).collect(),
    };
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let equal = g == w || g.is_nan() && w.is_nan();
        assert!(equal, "{}: element {i} is {g}, should be {w}", what());
    }
}

#[test]
fn stages_of_products_follow_the_formula() {
    let mut rng = Rng(101);
    for case in 0..300 {
        let (m, n, k) = (1 + rng.below(30), 1 + rng.below(70), 1 + rng.below(90));
        let (a, b) = (rng.bytes(m * k), rng.bytes(k * n));
        let mut s = MatmulI8::dense(m, n, k);
        (s.a_zp, s.b_zp) = (rng.below(3), rng.below(3));
        s.stage = random_stage(&mut rng);
        let o = Operands::random(&mut rng, m, n, case % 5 == 4);
        let (az, bz) = (rng.bytes(m), rng.bytes(n));
        let z = |v: &[u8], mode: usize, i: usize, signed| match mode {
            per::NONE => 0,
            per::TENSOR => widen(v[0], signed),
            _ => widen(v[i], signed),
        };
        let mut want = vec![];
        for at in 0..m * n {
            let (i, j) = (at / n, at % n);
            let (za, zb) = (z(&az, s.a_zp, i, false), z(&bz, s.b_zp, j, true));
            let one = |p: usize| (a[i * k + p] as i32 - za) * (widen(b[p * n + j], true) - zb);
            want.push(o.expect(&s.stage, (0..k).map(one).sum(), i, j, at));
        }
        let mut packed = vec![0u8; packed_b_i8_len(k, n)];
        pack_b_i8(&b, true, (k, n), (n, 1), &mut packed);
        for (name, b) in [("matmul.i8", &b), ("matmul.i8.packed", &packed)] {
            let bufs = [vec![buf(&a), buf(b), buf(&az), buf(&bz)], o.bufs(&s.stage, m * n)];
            run(name, &s.to_vec(), &bufs.concat(), |r| {
                same(&s.stage, &r[10], &want, &|| format!("{name} {m}x{n}x{k} {:?}", s.stage));
            });
        }
    }
}

#[test]
fn stages_of_convolutions_follow_the_formula() {
    let mut rng = Rng(103);
    for case in 0..120 {
        let (groups, ic, oc) = match case % 3 {
            0 => (1 + rng.below(50), 1, 1),
            _ => (1 + rng.below(2), 1 + rng.below(24), 1 + rng.below(40)),
        };
        let side: [usize; 2] = std::array::from_fn(|_| 3 + rng.below(9));
        let kernel = 1 + rng.below(3);
        let (stride, pad) = (1 + rng.below(2), rng.below(kernel));
        let size = |x: usize| (x + 2 * pad - kernel) / stride + 1;
        let w = Window {
            batch: 1 + rng.below(2),
            groups,
            in_channels: ic,
            out_channels: oc,
            x: [1, side[0], side[1]],
            y: [1, size(side[0]), size(side[1])],
            kernel: [1, kernel, kernel],
            stride: [1, stride, stride],
            dilation: [1; 3],
            pad: [0, pad as i64, pad as i64],
        };
        let signed = rng.below(2) == 1;
        let mut s = ConvI8 {
            window: w,
            x_signed: signed,
            w_signed: true,
            x_zp: true,
            w_zp: per::NONE,
            stage: random_stage(&mut rng),
            schedule: Schedule::DEFAULT,
        };
        s.stage.a_scale = rng.below(2);
        let (channels, outs, depth) = (groups * ic, groups * oc, ic * kernel * kernel);
        let x = rng.bytes(w.batch * side[0] * side[1] * channels);
        let f = rng.bytes(outs * depth);
        let zp = rng.bytes(1)[0];
        let pixels = w.batch * w.y[1] * w.y[2];
        let o = Operands::random(&mut rng, 1, outs, case % 5 == 4);
        let o = Operands { bytes: rng.bytes(pixels * outs), ..o };
        let o = Operands { residual: (0..pixels * outs).map(|_| rng.float()).collect(), ..o };
        let mut want = vec![];
        for at in 0..pixels * outs {
            let (pixel, c) = (at / outs, at % outs);
            let (image, p) = (pixel / (w.y[1] * w.y[2]), pixel % (w.y[1] * w.y[2]));
            let (py, px) = (p / w.y[2], p % w.y[2]);
            let mut sum = 0;
            for i in 0..depth {
                let (ch, ky, kx) = (i / (kernel * kernel), i / kernel % kernel, i % kernel);
                let y = (py * stride + ky).wrapping_sub(pad);
                let x_at = (px * stride + kx).wrapping_sub(pad);
                if y < side[0] && x_at < side[1] {
                    let from = ((image * side[0] + y) * side[1] + x_at) * channels;
                    let v = widen(x[from + c / oc * ic + ch], signed) - widen(zp, signed);
                    sum += v * widen(f[c * depth + i], true);
                }
            }
            want.push(o.expect(&s.stage, sum, 0, c, at));
        }
        let mut packed = vec![];
        for g in f.chunks(oc * depth) {
            // Taps outside, channels inside, as the layout has them.
            let place = |r: usize| r % ic * kernel * kernel + r / ic;
            let matrix: Vec<u8> =
                (0..depth * oc).map(|i| g[i % oc * depth + place(i / oc)]).collect();
            let mut one = vec![0; packed_b_i8_len(depth, oc)];
            pack_b_i8(&matrix, true, (depth, oc), (oc, 1), &mut one);
            packed.extend(one);
        }
        let own = [vec![buf(&x), buf(&packed), buf(&[zp]), None], o.bufs(&s.stage, want.len())];
        run("conv.i8.last", &s.to_vec(), &own.concat(), |r| {
            same(&s.stage, &r[10], &want, &|| format!("last {s:?}"));
        });
        if ic == 1 && oc == 1 {
            // The same weights as `[kernel, C]`.
            let turned = |i: usize| f[i % outs * depth + i / outs];
            let f: Vec<u8> = (0..depth * outs).map(turned).collect();
            let own = [vec![buf(&x), buf(&f), buf(&[zp]), None], o.bufs(&s.stage, want.len())];
            run("conv.i8.last.depthwise", &s.to_vec(), &own.concat(), |r| {
                same(&s.stage, &r[10], &want, &|| format!("depthwise {s:?}"));
            });
        }
        // Channels first: all that has the layout of an image is turned.
        let turned = |plane: usize, c: usize| -> Vec<usize> {
            (0..w.batch * c * plane)
                .map(|i| (i / (c * plane) * plane + i % plane) * c + i / plane % c)
                .collect()
        };
        let (into, from) = (turned(side[0] * side[1], channels), turned(pixels / w.batch, outs));
        let first: Vec<u8> = into.iter().map(|i| x[*i]).collect();
        let want: Vec<f32> = from.iter().map(|i| want[*i]).collect();
        let o = Operands {
            bytes: from.iter().map(|i| o.bytes[*i]).collect(),
            residual: from.iter().map(|i| o.residual[*i]).collect(),
            ..o
        };
        let own = [vec![buf(&first), buf(&f), buf(&[zp]), None], o.bufs(&s.stage, want.len())];
        run("conv.i8", &s.to_vec(), &own.concat(), |r| {
            same(&s.stage, &r[10], &want, &|| format!("first {s:?}"));
        });
    }
}
