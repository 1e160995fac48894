//! The f32 expansions of elementary functions, executed step by step by the oracle, against its f64.

use silure_ir::dialects::arith;
use silure_ir::eval::Interp;
use silure_ir::*;

/// Points: every decade's worth of bit patterns, both signs, and the special values.
fn points() -> Vec<f32> {
    let mut v: Vec<f32> = (0..0x7F80_0000u32).step_by(80_111).map(f32::from_bits).collect();
    v.extend((0..12_000).map(|i| i as f32 * 0.0087));
    v.extend((0..4_000).map(|i| 0.9 + i as f32 * 5e-5));
    v.extend((0..8_000).map(|i| 0.6 + i as f32 * 1.777e-3));
    v.extend([0.5, 0.625, 0.921875, 88.72283, 88.8, 89.4, 103.9, 104.1, f32::MAX, f32::INFINITY]);
    v.extend(v.clone().iter().map(|x| -x));
    v.extend([f32::NAN, f32::MIN_POSITIVE, 1e-45]);
    v
}

fn module(def: &'static OpDef, attrs: &Attrs, elem: Elem, expand: Option<math::Options>) -> Module {
    let mut f = Func::new("main", FuncKind::Entry);
    let n = Dim::sym("n");
    f.declare(SymDecl::new("n"));
    let x = f.add_arg("x", Type::tensor(elem, [n.clone()]));
    let mut b = Builder::at_end(&mut f);
    let body = b
        .nested(&[Type::Scalar(elem)], |b, args| {
            let mut operands = vec![args[0]];
            if def.operands.len() == 2 {
                operands.push(b.scalar(elem, Num::F(attrs.float("exponent")))?);
            }
            let y = b.one(def, operands, attrs.clone())?;
            b.yields(&[y])?;
            Ok(())
        })
        .unwrap();
    let a = Attrs::new().with("shape", Attr::Dims(vec![n])).with("maps", Attr::Maps(vec![vec![0]]));
    let op = b.build(&dialects::kernel::MAP, &[Some(x)], a, &[body], &[]).unwrap();
    let y = b.single(op).unwrap();
    b.ret(&[y]).unwrap();
    if let Some(o) = expand {
        math::expand_region(&mut f, body, &o).unwrap();
        let left = f.walk_region(body).iter().any(|&op| f.op(op).def.name == def.name);
        assert!(!left, "{} is still there", def.name);
    }
    let mut m = Module::new("m");
    m.funcs.push(f);
    m
}

fn run(m: &Module, x: Tensor) -> Vec<f64> {
    let i = Interp::new(m, &weight::NoFiles, Default::default());
    i.run("main", vec![x.into()]).unwrap()[0].tensor().unwrap().to_f64s()
}

/// Error in units of the last place of the f32 nearest to the exact value.
fn ulps(got: f64, want: f64) -> f64 {
    let w = want as f32;
    if got.is_nan() || want.is_nan() {
        return if got.is_nan() == want.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if got == w as f64 {
        return 0.0;
    }
    if w.is_infinite() || got.is_infinite() {
        // One side rounds to infinity: the other may be the largest finite numbers.
        let edge = f32::MAX as f64 * (1.0 - 4.0 * f32::EPSILON as f64);
        return if got.abs() >= edge && want.abs() >= edge && got * want > 0.0 {
            1.0
        } else {
            f64::INFINITY
        };
    }
    let exp = (w.abs().max(f32::MIN_POSITIVE).to_bits() >> 23) as i32 - 127;
    (got - want).abs() / ((exp - 23) as f64).exp2()
}

fn check(def: &'static OpDef, attrs: Attrs, bound: f64) {
    let pts: Vec<f64> = points().iter().map(|&x| x as f64).collect();
    let exact = run(
        &module(def, &attrs, Elem::F64, None),
        Tensor::from_f64s(Elem::F64, &[pts.len()], &pts).unwrap(),
    );
    for fma in [true, false] {
        let m = module(def, &attrs, Elem::F32, Some(math::Options { fma, ..Default::default() }));
        let got = run(&m, Tensor::from_f64s(Elem::F32, &[pts.len()], &pts).unwrap());
        let worst = (0..pts.len())
            .map(|i| (ulps(got[i], exact[i]), i))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .unwrap();
        let (u, i) = worst;
        println!("{} {attrs:?} fma={fma}: {u:.2} ulp at {:e}", def.name, pts[i]);
        assert!(
            u <= bound,
            "{} fma={fma}: {u} ulp at {:e}: {:e}, exact {:e}",
            def.name,
            pts[i],
            got[i],
            exact[i]
        );
    }
}

macro_rules! tests {
    ($($name:ident $def:ident $bound:literal;)*) => {$(
        #[test]
        fn $name() { check(&arith::$def, Attrs::new(), $bound); }
    )*};
}

tests! {
    exp EXP 2.0;
    exp2 EXP2 4.0;
    log LOG 2.0;
    log1p LOG1P 4.0;
    expm1 EXPM1 4.0;
    tanh TANH 4.0;
    sigmoid SIGMOID 4.0;
    erf ERF 4.0;
    sinh SINH 4.0;
    cosh COSH 4.0;
    asinh ASINH 4.0;
    acosh ACOSH 4.0;
    atanh ATANH 4.0;
    atan ATAN 4.0;
    asin ASIN 4.0;
    acos ACOS 4.0;
    softplus SOFTPLUS 4.0;
    rsqrt RSQRT 4.0;
    recip RECIP 4.0;
    gelu GELU 4.0;
    elu ELU 4.0;
}

#[test]
fn powers() {
    for p in [0.0, 1.0, -1.0, 2.0, -2.0, 3.0, 4.0, 0.5, -0.5] {
        check(&arith::POW, Attrs::new().with("exponent", p), 4.0);
    }
}

#[test]
fn gelu_tanh() {
    check(&arith::GELU, Attrs::new().with("tanh", true), 4.0);
}

/// Limits of both forms of gelu, signs of zeros included.
#[test]
fn gelu_limits() {
    let x = [f64::NEG_INFINITY, -1e30, -20.0, -0.0, 0.0, 20.0, 1e30, f64::INFINITY, f64::NAN];
    for (tanh, fma) in [(false, false), (false, true), (true, false), (true, true)] {
        let attrs = Attrs::new().with("tanh", tanh);
        let m = module(
            &arith::GELU,
            &attrs,
            Elem::F32,
            Some(math::Options { fma, ..Default::default() }),
        );
        let y = run(&m, Tensor::from_f64s(Elem::F32, &[x.len()], &x).unwrap());
        let want = [-0.0, -0.0, -0.0, -0.0, 0.0, 20.0, 1e30f32 as f64, f64::INFINITY];
        for (i, w) in want.iter().enumerate() {
            assert_eq!(y[i].to_bits(), w.to_bits(), "tanh={tanh} fma={fma}: gelu({:e})", x[i]);
        }
        assert!(y[8].is_nan(), "tanh={tanh} fma={fma}: gelu(NaN) = {}", y[8]);
    }
}
