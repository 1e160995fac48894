//! Elementary functions, helpers, conversions and quantisation.

mod common;
use common::*;
use silure_kernels_cpu::cast::Cast;
use silure_kernels_cpu::helpers::helper_index;
use silure_kernels_cpu::isa::Portable;
use silure_kernels_cpu::math::{self, erf64};
use silure_kernels_cpu::quant::{DynamicQuant, Quant, QuantizeRows};
use silure_kernels_cpu::{HELPERS, KERNELS, half, levels};
use silure_types::{Class, Elem};

/// Distance in ulps of f32 at the true value.
fn ulps(got: f32, want: f64) -> f64 {
    if got as f64 == want || (got.is_nan() && want.is_nan()) {
        return 0.0;
    }
    if got.is_infinite() || got.is_nan() {
        return if (want as f32).to_bits() == got.to_bits() { 0.0 } else { f64::INFINITY };
    }
    let e = want.abs().max(f32::MIN_POSITIVE as f64).log2().floor();
    (got as f64 - want).abs() / (e - 23.0).exp2()
}

/// f32 values of every exponent, specials included.
fn samples() -> Vec<f32> {
    let mut v: Vec<f32> = (0..1 << 20).map(|i: u32| f32::from_bits(i.wrapping_mul(4099))).collect();
    v.extend((0..200_000).map(|i| (i as f32 - 100_000.0) * 1e-3));
    v.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN_POSITIVE]);
    v
}

/// A strip function at a level of this machine.
fn strip(name: &str, isa: u32, x: &[f32], in_place: bool) -> Vec<f32> {
    let f = HELPERS[helper_index(name).unwrap()].1.at(isa);
    let mut y = if in_place { x.to_vec() } else { vec![0f32; x.len()] };
    let from = if in_place { y.as_ptr() } else { x.as_ptr() };
    // SAFETY: strips have this signature.
    unsafe {
        let f: unsafe extern "C" fn(*mut f32, *const f32, u64) = std::mem::transmute(f);
        f(y.as_mut_ptr(), from, x.len() as u64);
    }
    y
}

type Exact = fn(f64) -> f64;

fn sigmoid(x: f64) -> f64 {
    if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
}

/// x·Φ(x), in the lower tail by the continued fraction of erfc.
fn gelu(x: f64) -> f64 {
    if x.is_nan() || x > -3.0 {
        return 0.5 * x * (1.0 + erf64(x * std::f64::consts::FRAC_1_SQRT_2));
    }
    let a = -x.max(-40.0) * std::f64::consts::FRAC_1_SQRT_2;
    let f = (1..=200).rev().fold(a, |f, k| a + (k as f64 / 2.0) / f);
    0.5 * x.max(-40.0) * (-a * a).exp() / (f * std::f64::consts::PI.sqrt())
}

fn gelu_tanh(x: f64) -> f64 {
    let u = 2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
    if x < -30.0 { -0.0 } else { x / (1.0 + (-u).exp()) }
}

/// Strip functions, their exact values, and bounds in ulp.
const FUNCTIONS: &[(&str, Exact, f64)] = &[
    ("exp_strip", f64::exp, 2.0),
    ("log_strip", f64::ln, 2.0),
    ("tanh_strip", f64::tanh, 4.0),
    ("erf_strip", erf64, 4.0),
    ("sigmoid_strip", sigmoid, 4.0),
    ("sin_strip", f64::sin, 1.0),
    ("cos_strip", f64::cos, 1.0),
    ("tan_strip", f64::tan, 1.0),
    ("log1p_strip", f64::ln_1p, 4.0),
    ("expm1_strip", f64::exp_m1, 4.0),
    ("softplus_strip", |x| (-x.abs()).exp().ln_1p() + if x < 0.0 { 0.0 } else { x }, 4.0),
    ("gelu_strip", gelu, 4.0),
    ("gelu_tanh_strip", gelu_tanh, 4.0),
    ("sinh_strip", f64::sinh, 4.0),
    ("cosh_strip", f64::cosh, 4.0),
    ("asinh_strip", f64::asinh, 4.0),
    ("acosh_strip", f64::acosh, 4.0),
    ("atanh_strip", f64::atanh, 4.0),
    ("asin_strip", f64::asin, 4.0),
    ("acos_strip", f64::acos, 4.0),
    ("atan_strip", f64::atan, 4.0),
];

#[test]
fn elementary_functions_keep_their_bounds() {
    let x = samples();
    for &(name, exact, bound) in FUNCTIONS {
        for &isa in levels() {
            let mut worst = (0.0, 0.0);
            for (x, got) in x.iter().zip(&strip(name, isa, &x, false)) {
                let e = ulps(*got, exact(*x as f64));
                if e > worst.0 {
                    worst = (e, *x);
                }
            }
            println!("{name} at level {isa}: {:.3} ulp at {:e}", worst.0, worst.1);
            assert!(worst.0 <= bound, "{name}, {isa}: {} ulp at {:e}", worst.0, worst.1);
        }
    }
}

#[test]
fn scalar_functions_keep_their_bounds() {
    type Case = (fn(f32) -> f32, Exact, f64);
    let cases: &[Case] = &[
        (math::exp::<Portable>, f64::exp, 2.0),
        (math::log::<Portable>, f64::ln, 2.0),
        (math::sin::<Portable>, f64::sin, 1.0),
        (math::tan::<Portable>, f64::tan, 1.0),
    ];
    for x in samples() {
        for (f, exact, bound) in cases {
            let e = ulps(f(x), exact(x as f64));
            assert!(e <= *bound, "{e} ulp at {x:e}");
        }
    }
}

#[test]
fn gelu_is_close_in_absolute_terms() {
    let x: Vec<f32> = (-160_000..160_000).map(|i| i as f32 * 1e-4).collect();
    for &isa in levels() {
        for (x, y) in x.iter().zip(strip("gelu_strip", isa, &x, false)) {
            assert!((y as f64 - gelu(*x as f64)).abs() <= 1e-6, "gelu({x}) = {y} at level {isa}");
        }
    }
}

#[test]
fn strips_do_not_depend_on_place_or_length() {
    let x: Vec<f32> = samples().into_iter().step_by(9973).chain([3e5, f32::NAN, -0.0]).collect();
    for &(name, ..) in FUNCTIONS {
        for &isa in levels() {
            let whole = strip(name, isa, &x, false);
            let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&whole), bits(&strip(name, isa, &x, true)), "{name} in place");
            for n in 0..=70 {
                for from in [0, 1, 37] {
                    let part = strip(name, isa, &x[from..from + n], from == 1);
                    assert_eq!(bits(&part), bits(&whole[from..from + n]), "{name}, {n} elements");
                }
            }
        }
    }
}

#[test]
fn powers_follow_the_standard() {
    let f = HELPERS[helper_index("pow_strip").unwrap()].1;
    let special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        2.0,
        -2.0,
        3.0,
        0.5,
        -0.5,
        1e-40,
        -1e-40,
        1e30,
        -1e30,
        16_777_217.0,
        1.000_000_1,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MAX,
        33.0,
        -33.0,
        1e9,
        -3.0,
    ];
    let mut pairs: Vec<(f32, f32)> =
        special.iter().flat_map(|&x| special.iter().map(move |&y| (x, y))).collect();
    let mut rng = Rng(7);
    pairs.extend((0..200_000).map(|_| (rng.float().abs() * 30.0, rng.float() * 30.0)));
    let (x, y): (Vec<f32>, Vec<f32>) = pairs.iter().copied().unzip();
    for &isa in levels() {
        let mut z = vec![0f32; x.len()];
        // SAFETY: the helper has this signature.
        unsafe {
            let f: unsafe extern "C" fn(*mut f32, *const f32, *const f32, u64) =
                std::mem::transmute(f.at(isa));
            f(z.as_mut_ptr(), x.as_ptr(), y.as_ptr(), z.len() as u64);
        }
        for ((x, y), z) in pairs.iter().zip(z) {
            let want = (*x as f64).powf(*y as f64);
            assert!(ulps(z, want) <= 1.0, "{x:e} to the {y:e} is {z:e}, should be {want:e}");
            assert!(z.is_nan() || z.is_sign_negative() == want.is_sign_negative(), "{x:e} {y:e}");
        }
    }
}

#[test]
fn the_error_function_reference_has_known_values() {
    for (x, want) in [
        (0.5, 0.520_499_877_813_046_5),
        (1.0, 0.842_700_792_949_714_9),
        (2.0, 0.995_322_265_018_952_7),
        (3.0, 0.999_977_909_503_001_4),
    ] {
        assert!((erf64(x) - want).abs() < 1e-15 && erf64(-x) == -erf64(x), "{x}");
    }
}

#[test]
fn names_are_unique_and_kernels_documented() {
    for (i, k) in KERNELS.iter().enumerate() {
        assert!(KERNELS[..i].iter().all(|o| o.name != k.name), "{}", k.name);
        assert!(k.doc.contains("Buffers") && k.doc.contains("sizes"), "{}", k.name);
        // Sizes that mean nothing are one task, which says so.
        assert_eq!((k.tasks)(&vec![-1; k.arity.1]), 1, "{}", k.name);
        let bufs = vec![None; k.arity.0];
        let s = status(k.name, &vec![-1; k.arity.1], &bufs);
        assert_eq!(s, silure_kernels_cpu::abi::BAD_SIZES, "{}", k.name);
    }
    for (i, (name, _)) in HELPERS.iter().enumerate() {
        assert_eq!(helper_index(name), Some(i));
    }
}

#[test]
fn half_conversions_agree_with_the_type_table() {
    for bits in 0..=u16::MAX {
        let (a, b) = (half::f16_to_f32(bits) as f64, Elem::F16.decode(bits as u64));
        assert!(a == b || (a.is_nan() && b.is_nan()), "{bits:#x}");
    }
    let mut rng = Rng(61);
    for i in 0..2_000_000u64 {
        let x = if i % 2 == 0 {
            f32::from_bits(rng.next() as u32)
        } else {
            // Around the ties of f16 and bf16.
            let mid = f32::from_bits(((rng.next() as u32) & 0xFFFF_F000) | 0x1000);
            f32::from_bits(mid.to_bits().wrapping_add(rng.below(3) as u32).wrapping_sub(1))
        };
        for (e, got) in [(Elem::F16, half::f32_to_f16(x)), (Elem::Bf16, half::f32_to_bf16(x))] {
            let want = e.encode(x as f64) as u16;
            let nan = e.decode(got as u64).is_nan() && x.is_nan();
            assert!(got == want || nan, "{e} {x:e}: {got:#x} {want:#x}");
        }
    }
}

#[test]
fn casts_follow_the_type_table() {
    let mut rng = Rng(63);
    for &from in Elem::ALL {
        for &to in Elem::ALL {
            let n = 301;
            let bytes = from.packed_bytes(n as u64).unwrap() as usize;
            let mut x = rng.bytes(bytes);
            if from == Elem::Bool {
                x.iter_mut().for_each(|b| *b &= 1);
            }
            if from == Elem::Tf32 {
                x.chunks_mut(4).for_each(|c| (c[0], c[1]) = (0, c[1] & 0xE0));
            }
            if from == Elem::F32 {
                let special = [f32::NAN, f32::INFINITY, -0.5, 2.5, -1e10, 3e38, 254.5, 0.0];
                special.iter().enumerate().for_each(|(i, v)| {
                    x[i * 4..i * 4 + 4].copy_from_slice(&v.to_le_bytes());
                });
            }
            let ob = to.packed_bytes(n as u64).unwrap() as usize;
            let s = Cast { n, from: from as usize, to: to as usize };
            run("cast", &s.to_vec(), &[buf(&x), buf(&vec![0u8; ob])], |r| {
                for i in 0..n {
                    let bits = from.load(&x, i).unwrap();
                    let got = to.load(&r[1], i).unwrap();
                    let want = match (from.class(), to.class()) {
                        (Class::Float, Class::Signed) if to == Elem::I64 => {
                            (from.decode(bits) as i64) as u64
                        }
                        (Class::Float, _) => to.encode(from.decode(bits)),
                        (_, Class::Float) => match (to, from) {
                            (Elem::F32, Elem::I64) => (bits as i64 as f32).to_bits() as u64,
                            (Elem::F32, Elem::U64) => (bits as f32).to_bits() as u64,
                            _ => to.encode(from.decode_int(bits) as f64),
                        },
                        _ => to.encode_int(from.decode_int(bits)),
                    };
                    let nan = to.is_float() && to.decode(got).is_nan() && to.decode(want).is_nan();
                    assert!(
                        got == want || nan,
                        "{from} to {to}: {bits:#x} gave {got:#x}, not {want:#x}"
                    );
                }
            });
        }
    }
}

#[test]
fn quantisation_rounds_to_even_and_saturates() {
    let x = [0.5f32, 1.5, 2.5, -0.5, 300.0, -300.0, f32::NAN, 127.4, 0.0];
    let s = Quant { outer: 1, axis: 1, inner: 9 }.to_vec();
    run("quantize.u8", &s, &[buf(&x), buf(&[1f32]), buf(&[10u8]), out::<u8>(9)], |r| {
        assert_eq!(r[3][..6], [10, 12, 12, 10, 255, 0]);
        assert_eq!(r[3][7..], [137, 10]);
    });
    run("quantize.i8", &s, &[buf(&x), buf(&[1f32]), None, out::<i8>(9)], |r| {
        assert_eq!(read::<i8>(&r[3])[..6], [0, 2, 2, 0, 127, -128]);
    });
    let mut rng = Rng(65);
    for (outer, axis, inner) in [(1, 1, 40_000), (3, 5, 7), (2, 4, 0), (300, 3, 1)] {
        let n = outer * axis * inner;
        let q: Vec<i8> = rng.bytes(n).iter().map(|v| *v as i8).collect();
        let scale: Vec<f32> = (0..axis).map(|_| rng.float()).collect();
        let zp: Vec<i8> = rng.bytes(axis).iter().map(|v| *v as i8).collect();
        let s = Quant { outer, axis, inner }.to_vec();
        run("dequantize.i8", &s, &[buf(&q), buf(&scale), buf(&zp), out::<f32>(n)], |r| {
            for (i, y) in read::<f32>(&r[3]).iter().enumerate() {
                let a = i / inner % axis;
                assert_eq!(*y, (q[i] as i32 - zp[a] as i32) as f32 * scale[a]);
            }
        });
        let x = rng.floats(n);
        run("quantize.i8", &s, &[buf(&x), buf(&scale), buf(&zp), out::<i8>(n)], |r| {
            for (i, y) in read::<i8>(&r[3]).iter().enumerate() {
                let a = i / inner % axis;
                let v = (x[i] / scale[a]).round_ties_even() + zp[a] as f32;
                assert_eq!(*y, v.clamp(-128.0, 127.0) as i8);
            }
        });
    }
    // The example of the ONNX operator.
    let x = [0f32, 2.0, -3.0, -2.5, 1.34, 0.5];
    let (bytes, scale, zero) = dynamic(&x);
    assert_eq!(bytes, [153, 255, 0, 26, 221, 179]);
    assert_eq!((scale, zero), (5.0f32 / 255.0, 153));
    // Halves are rounded to even; 0 is in the range.
    let halves = [255f32, 0.5, 1.5, 2.5, 253.5, 254.5, 10.0];
    assert_eq!(dynamic(&halves), (vec![255, 0, 2, 2, 254, 254, 10], 1.0, 0));
    assert_eq!(dynamic(&[-255.0, -253.5, -0.5]), (vec![0, 1, 255], 1.0, 255));
    // Nothing, zeros alone, a range that rounds to 0, NaN.
    assert_eq!(dynamic(&[]), (vec![], 1.0, 0));
    assert_eq!(dynamic(&[0.0, -0.0]), (vec![0, 0], 1.0, 0));
    assert_eq!(dynamic(&[1e-45]), (vec![0], 1.0, 0));
    assert_eq!(dynamic(&[f32::NAN, -100.0, 155.0]), (vec![100, 0, 255], 1.0, 100));
    // Extremes in several parts, each far from the others.
    let mut long = vec![1f32; 3 * DynamicQuant::PART + 77];
    (long[5], long[2 * DynamicQuant::PART + 3]) = (-100.0, 155.0);
    let (bytes, scale, zero) = dynamic(&long);
    assert_eq!((scale, zero), (1.0, 100));
    assert!(bytes.iter().enumerate().all(|(i, b)| *b == (100.0 + long[i]) as u8));
}

#[test]
fn rows_are_quantised_by_their_own_magnitude() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let x = [
        [1.0, -63.5, 0.25, 0.75],
        [0.0, -0.0, 0.0, 0.0],
        [-3.0, 2.5, 0.5, nan],
        [inf, 1.0, -1.0, 0.0],
        [127.0, 0.5, 1.5, -2.5],
        [1e-45, 0.0, 0.0, 0.0],
    ]
    .concat();
    let sizes = QuantizeRows { rows: 6, k: 4, moved: false }.to_vec();
    let (mut codes, mut scales) = (vec![], vec![]);
    run("quantize_rows.i8", &sizes, &[buf(&x), out::<i8>(24), out::<f32>(6)], |r| {
        (codes, scales) = (read::<i8>(&r[1]), read::<f32>(&r[2]));
    });
    assert_eq!(scales, [0.5, 1.0, 3.0f32 / 127.0, inf, 1.0, 1.0]);
    let want: [[i8; 4]; 6] =
        [[2, -127, 0, 2], [0; 4], [-127, 106, 21, 0], [0; 4], [127, 0, 2, -2], [0; 4]];
    assert_eq!(codes, want.concat());
    // Long rows, several to a task and one over several pieces.
    for (rows, k) in [(70, 1001), (2, 40_000)] {
        let x: Vec<f32> =
            (0..rows * k).map(|i| (i * 7919 % 2003) as f32 - 1001.0 - (i / k) as f32).collect();
        let bufs = [buf(&x), out::<i8>(rows * k), out::<f32>(rows)];
        run("quantize_rows.i8", &QuantizeRows { rows, k, moved: false }.to_vec(), &bufs, |r| {
            let (codes, scales) = (read::<i8>(&r[1]), read::<f32>(&r[2]));
            for (r, row) in x.chunks(k).enumerate() {
                let scale = row.iter().fold(0f32, |m, v| m.max(v.abs())) / 127.0;
                assert_eq!(scales[r], scale);
                let same =
                    |(i, v): (usize, &f32)| (v / scale).round_ties_even() as i8 == codes[r * k + i];
                assert!(row.iter().enumerate().all(same), "row {r} of {rows} × {k}");
            }
        });
    }
}

/// Both kernels of dynamic quantisation: bytes, scale, zero point.
fn dynamic(x: &[f32]) -> (Vec<u8>, f32, u8) {
    let sizes = DynamicQuant { n: x.len() }.to_vec();
    let parts = x.len().div_ceil(DynamicQuant::PART);
    let (mut ranges, mut got) = (vec![], (vec![], 0.0, 0));
    run("extent.f32", &sizes, &[buf(x), out::<f32>(2 * parts)], |r| ranges = read::<f32>(&r[1]));
    let bufs = [buf(x), buf(&ranges), out::<u8>(x.len()), out::<f32>(1), out::<u8>(1)];
    run("dynamic_quantize.u8", &sizes, &bufs, |r| {
        got = (r[2].to_vec(), read::<f32>(&r[3])[0], r[4][0]);
    });
    got
}
