//! Generated elementwise code against the oracle: executed from a mapping, as the runtime does.
#![cfg(target_arch = "x86_64")]

use silure_cpu::codegen::{Codegen, IsaLevel, MapCode, Object, ScalarLowering};
use silure_ir::dialects::{arith, kernel, plan};
use silure_ir::eval::Interp;
use silure_ir::*;
use silure_kernels_cpu::abi::{Ctx, KernelFn};
use silure_kernels_cpu::gemm::epilogue::TileFn;
use silure_kernels_cpu::helpers::helper_table;

/// xorshift64*: the same sequence everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn pick<T: Copy>(&mut self, xs: &[T]) -> T {
        xs[self.below(xs.len())]
    }
}

/// A function with one `kernel.map`: operands with (elem, shape, map).
fn map_module(
    shape: &[usize],
    operands: &[(Elem, Vec<usize>, Vec<i64>)],
    body: impl FnOnce(&mut Builder, &[ValueId]) -> Result<Vec<ValueId>>,
) -> (Module, OpId) {
    let mut f = Func::new("main", FuncKind::Entry);
    let args: Vec<ValueId> = operands
        .iter()
        .enumerate()
        .map(|(i, (e, s, _))| f.add_arg(&format!("x{i}"), Type::Tensor(TensorType::fixed(*e, s))))
        .collect();
    let mut b = Builder::at_end(&mut f);
    let types: Vec<Type> = operands.iter().map(|o| Type::Scalar(o.0)).collect();
    let r = b
        .nested(&types, |b, args| {
            let y = body(b, args)?;
            b.yields(&y)?;
            Ok(())
        })
        .unwrap();
    let attrs = Attrs::new()
        .with("shape", Attr::Dims(shape.iter().map(|&d| Dim::from(d)).collect()))
        .with("maps", Attr::Maps(operands.iter().map(|o| o.2.clone()).collect()));
    let args: Vec<_> = args.into_iter().map(Some).collect();
    let op = b.build(&kernel::MAP, &args, attrs, &[r], &[]).unwrap();
    let results: Vec<ValueId> = b.func.op(op).results.to_vec();
    b.ret(&results).unwrap();
    let mut m = Module::new("m");
    m.funcs.push(f);
    (m, op)
}

struct Loaded(memmap2::Mmap);

fn load(o: &Object) -> Loaded {
    let mut m = memmap2::MmapMut::map_anon(o.bytes.len().max(1)).unwrap();
    m[..o.bytes.len()].copy_from_slice(&o.bytes);
    Loaded(m.make_exec().unwrap())
}

fn ctx() -> Ctx {
    Ctx { helpers: std::ptr::null(), isa: 0, threads: 1, strings: std::ptr::null() }
}

fn sizes(code: &MapCode) -> (Vec<i64>, u64) {
    let v = |d: &Dim| d.as_const().unwrap();
    (code.sizes.iter().map(v).collect(), v(&code.tasks) as u64)
}

/// Runs a map's code with the helpers of a level, tasks in the pieces given by `split`.
fn execute(
    isa: u32,
    o: &Object,
    code: &MapCode,
    inputs: &[Tensor],
    outputs: &[TensorType],
    split: u64,
) -> Vec<Tensor> {
    let mapped = load(o);
    let table = helper_table(isa);
    let cx = Ctx { helpers: table.as_ptr(), ..ctx() };
    let (sizes, tasks) = sizes(code);
    let mut bytes: Vec<Vec<u8>> =
        inputs.iter().map(|t| t.elem().to_cells(t.bytes(), t.len())).collect();
    for t in outputs {
        let n: usize = t.shape().unwrap().iter().product();
        // Guard bytes after the end show writes outside.
        bytes.push(vec![0xA5; n * t.elem.cell_bytes() + 64]);
    }
    let bufs: Vec<*mut u8> = bytes.iter_mut().map(|b| b.as_mut_ptr()).collect();
    // SAFETY: offset 0 is a function of this signature; buffers and sizes are those it was made for.
    unsafe {
        let f: KernelFn = std::mem::transmute(mapped.0.as_ptr().add(o.offsets[0] as usize));
        let mut at = 0;
        while at < tasks {
            let to = (at + split).min(tasks);
            let s = f(&cx, bufs.as_ptr(), sizes.as_ptr(), at, to, std::ptr::null_mut());
            assert_eq!(s, 0);
            at = to;
        }
    }
    outputs
        .iter()
        .zip(bytes.drain(inputs.len()..))
        .map(|(t, mut b)| {
            let end = b.split_off(b.len() - 64);
            assert!(end.iter().all(|&x| x == 0xA5), "written past the end");
            Tensor::new(t.elem, &t.shape().unwrap(), t.elem.from_cells(&b)).unwrap()
        })
        .collect()
}

fn compile(level: IsaLevel, m: &Module, op: OpId) -> Result<(Object, MapCode)> {
    let mut cg = Codegen::new(level)?;
    let (index, code) = cg.map(&m.funcs[0], op, "map")?;
    assert_eq!(index, 0);
    Ok((cg.finish()?, code))
}

fn oracle(m: &Module, inputs: &[Tensor]) -> Vec<Tensor> {
    let i = Interp::new(m, &weight::NoFiles, Default::default());
    let args = inputs.iter().map(|t| t.clone().into()).collect();
    i.run("main", args).unwrap().iter().map(|d| Tensor::clone(d.tensor().unwrap())).collect()
}

/// Levels that this machine can run: of the code, and of the helpers it calls.
fn levels() -> Vec<(IsaLevel, u32)> {
    let mut v = vec![(IsaLevel::X86_64, 0)];
    let above = silure_kernels_cpu::levels().iter().filter(|l| **l > 0);
    v.extend(above.map(|&isa| (IsaLevel::X86_64V3, isa)));
    v
}

fn random_tensor(rng: &mut Rng, e: Elem, shape: &[usize]) -> Tensor {
    let n = shape.iter().product::<usize>();
    let nums: Vec<Num> = (0..n)
        .map(|_| match e.class() {
            Class::Float if rng.below(20) == 0 => {
                Num::F(rng.pick(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1e-40]))
            }
            Class::Float => Num::F((rng.below(8001) as f64 - 4000.0) / 61.0),
            Class::Bool => Num::I(rng.below(2) as i128),
            _ if rng.below(6) == 0 => {
                Num::I(rng.pick(&[0, -1, 1, i64::MIN as i128, i32::MIN as i128, 127, 128, 255, 7]))
            }
            _ => Num::I(rng.below(2001) as i128 - 1000),
        })
        .collect();
    Tensor::from_nums(e, shape, nums.into_iter()).unwrap()
}

fn same(a: &Tensor, b: &Tensor, ulps: f64) -> Result<(), String> {
    for i in 0..a.len() {
        let (x, y) = (a.get(i), b.get(i));
        let ok = match (x, y) {
            (Num::F(x), Num::F(y)) => {
                x == y || (x.is_nan() && y.is_nan()) || {
                    let unit = a.elem().epsilon() * y.abs().max(f32::MIN_POSITIVE as f64);
                    (x - y).abs() <= ulps * unit
                }
            }
            _ => x == y,
        };
        if !ok {
            return Err(format!("element {i}: {x:?}, oracle {y:?}"));
        }
    }
    Ok(())
}

fn check(m: &Module, op: OpId, inputs: &[Tensor], ulps: f64) {
    let want = oracle(m, inputs);
    let types: Vec<TensorType> = want.iter().map(Tensor::ty).collect();
    for (level, isa) in levels() {
        let (o, code) = compile(level, m, op).unwrap_or_else(|e| panic!("{e}\n{}", text::print(m)));
        let got = execute(isa, &o, &code, inputs, &types, u64::MAX);
        for (g, w) in got.iter().zip(&want) {
            same(g, w, ulps)
                .unwrap_or_else(|e| panic!("{} {isa}: {e}\n{}", level.name(), text::print(m)));
        }
        let split = execute(isa, &o, &code, inputs, &types, 1);
        assert!(got.iter().zip(&split).all(|(a, b)| a.bytes() == b.bytes()), "split tasks differ");
    }
}

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

fn cast(b: &mut Builder, x: ValueId, to: Elem) -> Result<ValueId> {
    if b.func.ty(x).elem() == Some(to) {
        return Ok(x);
    }
    b.one(&arith::CAST, [x], Attrs::new().with("to", to))
}

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
        &arith::SIGMOID,
        &arith::SOFTPLUS,
        &arith::GELU,
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
            let (m, op) = map_module(&[517], &[(e, vec![517], vec![0])], |b, a| {
                Ok(vec![b.one(def, [a[0]], Attrs::new())?])
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

/// Functions amid arithmetic: several steps, values that cross them, narrow and wide types, repeated
/// operands, results that are functions, constants and operands; every tail.
#[test]
fn chains_of_functions_are_within_tolerance() {
    let mut rng = Rng(21);
    type Chain = fn(&mut Builder, &[ValueId]) -> Result<Vec<ValueId>>;
    let chains: &[Chain] = &[
        // silu, and its gate beside it
        |b, a| {
            let s = b.one(&arith::SIGMOID, [a[0]], Attrs::new())?;
            let y = b.one(&arith::MUL, [a[0], s], Attrs::new())?;
            Ok(vec![y, s, s, a[1]])
        },
        |b, a| {
            let s = b.one(&arith::ADD, [a[0], a[1]], Attrs::new())?;
            let e = b.one(&arith::EXP, [s], Attrs::new())?;
            let t = b.one(&arith::TANH, [a[1]], Attrs::new())?;
            let l = b.one(&arith::LOG1P, [e], Attrs::new())?;
            let y = b.one(&arith::MUL, [l, t], Attrs::new())?;
            Ok(vec![b.one(&arith::ADD, [y, s], Attrs::new())?])
        },
        |b, a| {
            let two = b.scalar(Elem::F32, Num::F(2.0))?;
            let p = b.one(&arith::POW, [two, a[0]], Attrs::new())?;
            let is = b.one(&arith::LT, [p, a[1]], Attrs::new())?;
            let c = b.one(&arith::COS, [a[1]], Attrs::new())?;
            let y = b.one(&arith::SELECT, [is, c, p], Attrs::new())?;
            Ok(vec![is, y])
        },
        |b, a| {
            let h = cast(b, a[0], Elem::F16)?;
            let d = cast(b, a[1], Elem::F64)?;
            let g = b.one(&arith::GELU, [a[0]], Attrs::new().with("tanh", true))?;
            let e = b.one(&arith::ELU, [a[1]], Attrs::new())?;
            let s = b.one(&arith::ADD, [g, e], Attrs::new())?;
            Ok(vec![h, s, b.one(&arith::NEG, [d], Attrs::new())?])
        },
    ];
    let lengths = (0..=70).chain([511, 512, 513, 1100, 4096, 5000]);
    for n in lengths {
        for (i, chain) in chains.iter().enumerate() {
            let shapes: [(Vec<usize>, Vec<i64>); 3] =
                [(vec![3, n], vec![0, 1]), (vec![n], vec![1]), (vec![3], vec![0])];
            let second = &shapes[(n + i) % 3];
            let operands = [
                (Elem::F32, vec![3, n], vec![0, 1]),
                (Elem::F32, second.0.clone(), second.1.clone()),
            ];
            let v = |rng: &mut Rng, s: &[usize]| {
                let x = random_tensor(rng, Elem::F32, s).to_f64s();
                Tensor::from_f64s(Elem::F32, s, &x.iter().map(|v| v / 9.0).collect::<Vec<_>>())
                    .unwrap()
            };
            let x = [v(&mut rng, &operands[0].1), v(&mut rng, &operands[1].1)];
            let (m, op) = map_module(&[3, n], &operands, |b, a| chain(b, a));
            check(&m, op, &x, 32.0);
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
