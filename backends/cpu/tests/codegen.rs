//! Generated elementwise code against the oracle: executed from a mapping, as the runtime does.
#![cfg(target_arch = "x86_64")]

mod common;
use common::*;
use silure_cpu::codegen::{Codegen, Functions, IsaLevel, ScalarLowering};
use silure_ir::dialects::{arith, plan};
use silure_ir::*;
use silure_kernels_cpu::abi::{Ctx, KernelFn};
use silure_kernels_cpu::gemm::epilogue::TileFn;
use silure_kernels_cpu::helpers::helper_table;

const MEMORY: &[Elem] = &[
    Elem::Bool,
    Elem::I8,
    Elem::I16,
    Elem::I32,
    Elem::I64,
    Elem::U8,
    Elem::U16,
    Elem::U32,
    Elem::U64,
    Elem::F64,
    Elem::F32,
    Elem::F16,
    Elem::Bf16,
    Elem::E4m3fn,
    Elem::E5m2,
    Elem::E4m3fnuz,
    Elem::E5m2fnuz,
    Elem::E8m0,
    Elem::F4e2m1,
    Elem::I2,
    Elem::I4,
    Elem::U2,
    Elem::U4,
];

/// Random exact ops on values of a type; the result equals the oracle's bit for bit.
fn random_body(rng: &mut Rng, b: &mut Builder, args: &[ValueId]) -> Result<Vec<ValueId>> {
    let work = rng.pick(&[
        Elem::F32,
        Elem::F32,
        Elem::F64,
        Elem::I32,
        Elem::I8,
        Elem::U8,
        Elem::I16,
        Elem::U16,
        Elem::U32,
        Elem::I64,
        Elem::U64,
    ]);
    let mut vals = Vec::new();
    for &a in args {
        vals.push(cast(b, a, work)?);
    }
    let c = Num::I(rng.below(5) as i128);
    vals.push(b.scalar(work, if work.is_float() { Num::F(c.f() - 1.5) } else { c })?);
    for _ in 0..1 + rng.below(7) {
        let (x, y) = (rng.pick(&vals), rng.pick(&vals));
        let two = if work.is_float() {
            rng.pick(&[
                &arith::ADD,
                &arith::SUB,
                &arith::MUL,
                &arith::DIV,
                &arith::MIN,
                &arith::MAX,
            ])
        } else {
            rng.pick(&[
                &arith::ADD,
                &arith::SUB,
                &arith::MUL,
                &arith::DIV,
                &arith::MIN,
                &arith::MAX,
                &arith::FLOORDIV,
                &arith::REM,
                &arith::MOD,
                &arith::BITAND,
                &arith::BITOR,
                &arith::BITXOR,
                &arith::SHL,
                &arith::SHR,
            ])
        };
        let one = if work.is_float() {
            rng.pick(&[
                &arith::NEG,
                &arith::ABS,
                &arith::SIGN,
                &arith::RELU,
                &arith::FLOOR,
                &arith::CEIL,
                &arith::ROUND,
                &arith::TRUNC,
                &arith::SQRT,
            ])
        } else {
            rng.pick(&[&arith::NEG, &arith::ABS, &arith::SIGN, &arith::RELU, &arith::BITNOT])
        };
        let v = match rng.below(5) {
            0 | 1 => b.one(two, [x, y], Attrs::new())?,
            2 => b.one(one, [x], Attrs::new())?,
            3 => {
                let (lo, hi) = (rng.below(9) as f64 - 6.0, rng.below(99) as f64);
                b.one(&arith::CLIP, [x], Attrs::new().with("lo", lo).with("hi", hi))?
            }
            _ => {
                let cmp = rng.pick(&[
                    &arith::EQ,
                    &arith::NE,
                    &arith::LT,
                    &arith::LE,
                    &arith::GT,
                    &arith::GE,
                ]);
                let c = b.one(cmp, [x, y], Attrs::new())?;
                let n = b.one(&arith::NOT, [c], Attrs::new())?;
                b.one(&arith::SELECT, [n, x, y], Attrs::new())?
            }
        };
        vals.push(v);
    }
    let last = vals[vals.len() - 1];
    let mut out = vec![last];
    let to = rng.pick(MEMORY);
    // i64 to narrower floats rounds twice in the oracle (through f64).
    if work.bits() < 64 || !to.is_float() {
        out.push(cast(b, last, to)?);
    }
    Ok(out)
}

/// An operand of a space: axes kept in some order or repeated.
fn random_operand(rng: &mut Rng, shape: &[usize]) -> (Elem, Vec<usize>, Vec<i64>) {
    let mut axes: Vec<i64> = (0..shape.len() as i64).collect();
    match rng.below(5) {
        0 => axes.reverse(),
        1 => axes.retain(|_| rng.below(2) == 0),
        2 => axes.iter_mut().for_each(|a| {
            if rng.below(2) == 0 {
                *a = -1;
            }
        }),
        _ => {}
    }
    let dims = axes.iter().map(|&a| if a < 0 { 1 } else { shape[a as usize] }).collect();
    (rng.pick(MEMORY), dims, axes)
}

#[test]
fn random_maps_equal_the_oracle() {
    let mut rng = Rng(0x9E37_79B9_7F4A_7C15);
    for _ in 0..400 {
        let shape: Vec<usize> = match rng.below(8) {
            0 => vec![],
            1 => vec![rng.below(5000)],
            2 => vec![3, 0, 4],
            3 => vec![2, 4099],
            n => (0..n - 3).map(|_| rng.pick(&[1, 2, 3, 5, 7, 9, 16])).collect(),
        };
        let operands: Vec<_> =
            (0..1 + rng.below(3)).map(|_| random_operand(&mut rng, &shape)).collect();
        let inputs: Vec<Tensor> =
            operands.iter().map(|(e, s, _)| random_tensor(&mut rng, *e, s)).collect();
        let mut r = Rng(rng.next() | 1);
        let (m, op) = map_module(&shape, &operands, |b, a| random_body(&mut r, b, a));
        check(&m, op, &inputs, 0.0);
    }
}

#[test]
fn every_conversion_equals_the_oracle() {
    let mut rng = Rng(77);
    for &from in MEMORY {
        for &to in MEMORY {
            if from.bits() == 64 && from.is_int() && to == Elem::F32 {
                continue; // the oracle rounds twice
            }
            let x = random_tensor(&mut rng, from, &[1003]);
            let operand = (from, vec![1003], vec![0]);
            let (m, op) = map_module(&[1003], &[operand], |b, a| {
                Ok(vec![b.one(&arith::CAST, [a[0]], Attrs::new().with("to", to))?])
            });
            check(&m, op, &[x], 0.0);
        }
    }
}

#[test]
fn functions_are_within_tolerance() {
    let mut rng = Rng(5);
    let defs: &[&'static OpDef] = &[
        &arith::EXP,
        &arith::LOG,
        &arith::LOG1P,
        &arith::EXPM1,
        &arith::SQRT,
        &arith::RSQRT,
        &arith::RECIP,
        &arith::SIN,
        &arith::COS,
        &arith::TAN,
        &arith::ASIN,
        &arith::ACOS,
        &arith::ATAN,
        &arith::SINH,
        &arith::COSH,
        &arith::TANH,
        &arith::ASINH,
        &arith::ACOSH,
        &arith::ATANH,
        &arith::ERF,
        &arith::GELU,
        &arith::SIGMOID,
        &arith::SOFTPLUS,
        &arith::LEAKY_RELU,
        &arith::ELU,
        &arith::HARD_SIGMOID,
        &arith::IS_NAN,
        &arith::IS_INF,
    ];
    for &def in defs {
        for e in [Elem::F32, Elem::F64, Elem::F16, Elem::Bf16] {
            // docs/tolerance.md: f64 has no `gelu` in the lower tail.
            if (def.name, e) == (arith::GELU.name, Elem::F64) {
                continue;
            }
            let x = random_tensor(&mut rng, e, &[517]);
            let x = Tensor::from_f64s(
                e,
                &[517],
                &x.to_f64s()
                    .iter()
                    .enumerate()
                    .map(|(i, v)| if i % 2 == 0 { v / 40.0 } else { *v })
                    .collect::<Vec<_>>(),
            )
            .unwrap();
            // As a model gives it: a slope that f32 holds (its rounding would show where the sum cancels).
            let hard = def.name == arith::HARD_SIGMOID.name;
            let attrs = if hard { Attrs::new().with("alpha", 0.1875) } else { Attrs::new() };
            let (m, op) = map_module(&[517], &[(e, vec![517], vec![0])], |b, a| {
                Ok(vec![b.one(def, [a[0]], attrs)?])
            });
            // The f64 helper of erf states 1e-15.
            let helper = def.name == arith::ERF.name && e == Elem::F64;
            check(&m, op, &[x], if helper { 1e-15 / f64::EPSILON } else { 4.0 });
        }
    }
    for e in [Elem::F32, Elem::F64] {
        for def in [&arith::POW, &arith::REM, &arith::MOD] {
            let x = [random_tensor(&mut rng, e, &[99]), random_tensor(&mut rng, e, &[99])];
            let operands = [(e, vec![99], vec![0]), (e, vec![99], vec![0])];
            let (m, op) = map_module(&[99], &operands, |b, a| {
                Ok(vec![b.one(def, [a[0], a[1]], Attrs::new())?])
            });
            check(&m, op, &x, 4.0);
        }
    }
}

#[test]
fn object_is_deterministic_and_shares_equal_functions() {
    let build = || {
        let mut cg = Codegen::new(IsaLevel::X86_64V3).unwrap();
        for n in [64, 100] {
            let operand = (Elem::F32, vec![n], vec![0]);
            let (m, op) = map_module(&[n], &[operand], |b, a| {
                Ok(vec![b.one(&arith::GELU, [a[0]], Attrs::new())?])
            });
            cg.map(&m.funcs[0], op, "gelu").unwrap();
        }
        cg.finish().unwrap()
    };
    let o = build();
    assert_eq!(o, build());
    assert_eq!(o.offsets, [0, 0]);
    // Code for another architecture comes from here too.
    let operand = (Elem::F16, vec![64], vec![0]);
    let (m, op) = map_module(&[64], &[operand], |b, a| {
        Ok(vec![b.one(&arith::GELU, [a[0]], Attrs::new())?])
    });
    assert!(!compile(IsaLevel::Aarch64, &m, op).unwrap().0.bytes.is_empty());
}

static SQUARE: OpDef = OpDef {
    name: "test.square",
    doc: "x².",
    operands: &[op::one("x", op::Of::Float)],
    results: &["y"],
    traits: Traits::ELEMENTWISE,
    scalar: Some(|_, x| Num::F(x[0].f() * x[0].f())),
    ..OpDef::NEW
};

#[test]
fn other_crates_ops() {
    use cranelift_codegen::ir::InstBuilder;
    let (m, op) = map_module(&[9], &[(Elem::F32, vec![9], vec![0])], |b, a| {
        b.loc = Loc::name("encoder/square");
        Ok(vec![b.one(&SQUARE, [a[0]], Attrs::new())?])
    });
    let e = silure_cpu::codegen::can(&m.funcs[0], op).unwrap_err();
    assert_eq!((e.code, e.loc), (Code::Unsupported, Loc::name("encoder/square")));
    assert!(e.message.contains("test.square"));
    let mut cg = Codegen::new(IsaLevel::X86_64).unwrap();
    cg.register(&[ScalarLowering::lanes("test.square", |e, x| Ok(e.b.ins().fmul(x[0], x[0])))]);
    let (_, code) = cg.map(&m.funcs[0], op, "square").unwrap();
    let x = random_tensor(&mut Rng(3), Elem::F32, &[9]);
    let want = oracle(&m, std::slice::from_ref(&x));
    let got = execute(0, &cg.finish().unwrap(), &code, &[x], &[want[0].ty()], 1);
    same(&got[0], &want[0], 0.0).unwrap();
}

/// out[b, m, n] = relu(acc + bias[n]) · residual[b, m, n] on a tile in the middle.
#[test]
fn callback_on_a_tile() {
    let (b_, m_, n_) = (3usize, 5usize, 11usize);
    let mut f = Func::new("main", FuncKind::Entry);
    let bias = f.add_arg("bias", Type::Tensor(TensorType::fixed(Elem::F32, &[n_])));
    let res = f.add_arg("res", Type::Tensor(TensorType::fixed(Elem::I8, &[b_, m_, n_])));
    let mut b = Builder::at_end(&mut f);
    let s = |e| Type::Scalar(e);
    let r = b
        .nested(&[s(Elem::F32), s(Elem::F32), s(Elem::I8)], |b, a| {
            let v = b.one(&arith::ADD, [a[0], a[1]], Attrs::new())?;
            let v = b.one(&arith::RELU, [v], Attrs::new())?;
            let r = cast(b, a[2], Elem::F32)?;
            let v = b.one(&arith::MUL, [v, r], Attrs::new())?;
            b.yields(&[v])?;
            Ok(())
        })
        .unwrap();
    let attrs = Attrs::new()
        .with("kernel", "matmul.f32")
        .with("args", Attr::Ints(vec![-1, -2]))
        .with("sizes", Attr::Dims(vec![]))
        .with("maps", Attr::Maps(vec![vec![2], vec![0, 1, 2]]));
    let ty = Type::Tensor(TensorType::fixed(Elem::F32, &[b_, m_, n_]));
    let op = b.build(&plan::LAUNCH, &[Some(bias), Some(res)], attrs, &[r], &[ty]).unwrap();
    for (level, isa) in levels() {
        let mut cg = Codegen::new(level).unwrap();
        cg.can(&f, op).unwrap();
        let c = cg.callback(&f, op, "callback").unwrap();
        let sizes: Vec<i64> = c.sizes.iter().map(|d| d.as_const().unwrap()).collect();
        let o = cg.finish().unwrap();
        let mapped = load(&o);
        let (table, mut rng) = (helper_table(isa), Rng(11));
        let cx = Ctx { helpers: table.as_ptr(), ..ctx() };
        let mut bias: Vec<f32> = (0..n_).map(|i| i as f32 - 4.0).collect();
        let mut res: Vec<i8> = (0..b_ * m_ * n_).map(|_| rng.below(200) as u8 as i8).collect();
        let (row0, col0, rows, cols, ld) = (4usize, 2usize, 7usize, 6usize, 8usize);
        let acc: Vec<f32> = (0..rows * ld).map(|i| (i % 13) as f32 - 5.0).collect();
        let mut tile = acc.clone();
        let null = std::ptr::null_mut();
        let bufs = [null, null, bias.as_mut_ptr().cast(), res.as_mut_ptr().cast()];
        // SAFETY: the function has this signature, the buffers the sizes it was made for.
        unsafe {
            let g: TileFn = std::mem::transmute(mapped.0.as_ptr().add(o.offsets[0] as usize));
            let [ld, r, c, nr, nc] = [ld, row0, col0, rows, cols].map(|v| v as u64);
            g(&cx, tile.as_mut_ptr(), ld, r, c, nr, nc, bufs.as_ptr(), sizes.as_ptr());
        }
        for i in 0..rows {
            for j in 0..ld {
                let a = acc[i * ld + j];
                let want = if j < cols {
                    (a + bias[col0 + j]).max(0.0) * res[(row0 + i) * n_ + col0 + j] as f32
                } else {
                    a
                };
                assert_eq!(tile[i * ld + j], want, "{} ({i}, {j})", level.name());
            }
        }
    }
}

/// `cargo test -p silure-cpu --test codegen -- --ignored --nocapture`: nanoseconds per element.
#[test]
#[ignore = "a measurement"]
fn speed_of_gelu() {
    let n = 16384;
    // No denormals: the processor's own slow path for them is not what is measured.
    let mut rng = Rng(1);
    let v: Vec<f64> = (0..n).map(|_| (rng.below(8001) as f64 - 4000.5) / 1200.0).collect();
    let inputs = [
        Tensor::from_f64s(Elem::F32, &[n], &v).unwrap(),
        Tensor::from_f64s(Elem::F32, &[n], &v).unwrap(),
    ];
    let both = [(Elem::F32, vec![n], vec![0]), (Elem::F32, vec![n], vec![0])];
    let cases: &[(&str, fn(&mut Builder, ValueId) -> Result<ValueId>)] = &[
        ("x + b", |_, s| Ok(s)),
        ("gelu_tanh(x + b)", |b, s| b.one(&arith::GELU, [s], Attrs::new().with("tanh", true))),
        ("gelu(x + b)", |b, s| b.one(&arith::GELU, [s], Attrs::new())),
        ("exp(x + b)", |b, s| b.one(&arith::EXP, [s], Attrs::new())),
        ("tanh(x + b)", |b, s| b.one(&arith::TANH, [s], Attrs::new())),
        ("erf(x + b)", |b, s| b.one(&arith::ERF, [s], Attrs::new())),
        ("log(x + b)", |b, s| b.one(&arith::LOG, [s], Attrs::new())),
    ];
    for (name, f) in cases {
        let (m, op) = map_module(&[n], &both, |b, a| {
            let s = b.one(&arith::ADD, [a[0], a[1]], Attrs::new())?;
            Ok(vec![f(b, s)?])
        });
        for (level, isa) in levels() {
            let (o, code) = compile(level, &m, op).unwrap();
            let (mapped, table, (sizes, tasks)) = (load(&o), helper_table(isa), sizes(&code));
            let cx = Ctx { helpers: table.as_ptr(), ..ctx() };
            let mut bytes: Vec<Vec<u8>> = inputs.iter().map(|t| t.bytes().to_vec()).collect();
            bytes.push(vec![0; n * 4]);
            let bufs: Vec<*mut u8> = bytes.iter_mut().map(|b| b.as_mut_ptr()).collect();
            let mut times: Vec<f64> = (0..200)
                .map(|_| {
                    let t = std::time::Instant::now();
                    // SAFETY: as in `execute`.
                    unsafe {
                        let f: KernelFn = std::mem::transmute(mapped.0.as_ptr());
                        f(&cx, bufs.as_ptr(), sizes.as_ptr(), 0, tasks, std::ptr::null_mut());
                    }
                    t.elapsed().as_secs_f64() * 1e9 / n as f64
                })
                .collect();
            times.sort_by(f64::total_cmp);
            println!(
                "{name:18} {:10} {isa} min {:.2} median {:.2} ns",
                level.name(),
                times[0],
                times[100]
            );
        }
    }
}
