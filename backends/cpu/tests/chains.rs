//! Elementary functions in generated code: by strips, amid arithmetic.
#![cfg(target_arch = "x86_64")]

mod common;
use common::*;
use silure_cpu::codegen::{Codegen, Functions};
use silure_ir::dialects::{arith, plan};
use silure_ir::*;
use silure_kernels_cpu::abi::Ctx;
use silure_kernels_cpu::gemm::epilogue::TileFn;
use silure_kernels_cpu::helpers::helper_table;

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
            Ok(vec![b.one(&arith::MUL, [y, s], Attrs::new())?])
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
            let s = b.one(&arith::MUL, [g, e], Attrs::new())?;
            Ok(vec![h, s, b.one(&arith::NEG, [d], Attrs::new())?])
        },
    ];
    let lengths = (0..=70).chain([511, 512, 513, 1100, 4096, 5000]);
    for n in lengths {
        for (i, chain) in chains.iter().enumerate() {
            // Every tail, by one chain or another.
            if (9..=64).contains(&n) && n % chains.len() != i {
                continue;
            }
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
            let (m, op) = map_module(&[3, n], &operands, chain);
            check(&m, op, &x, 32.0);
        }
    }
}

/// acc · sigmoid(acc + bias), and a function alone, on the tile of a product: operand and result are
/// the same memory.
#[test]
fn functions_in_a_callback() {
    type Tail = fn(&mut Builder, &[ValueId]) -> Result<ValueId>;
    type Want = fn(f64, f64) -> f64;
    let tails: [(Tail, Want); 2] = [
        (
            |b, a| {
                let s = b.one(&arith::ADD, [a[0], a[1]], Attrs::new())?;
                let s = b.one(&arith::SIGMOID, [s], Attrs::new())?;
                b.one(&arith::MUL, [a[0], s], Attrs::new())
            },
            |acc, bias| acc / (1.0 + (-acc - bias).exp()),
        ),
        (|b, a| b.one(&arith::TANH, [a[0]], Attrs::new()), |acc, _| acc.tanh()),
    ];
    let n = 90;
    for (tail, want) in tails {
        let mut f = Func::new("main", FuncKind::Entry);
        let bias = f.add_arg("bias", Type::Tensor(TensorType::fixed(Elem::F32, &[n])));
        let mut b = Builder::at_end(&mut f);
        let r = b.nested(&[Type::Scalar(Elem::F32), Type::Scalar(Elem::F32)], |b, a| {
            let y = tail(b, a)?;
            b.yields(&[y]).map(|_| ())
        });
        let attrs = Attrs::new()
            .with("kernel", "matmul.f32")
            .with("args", Attr::Ints(vec![-1, -2]))
            .with("sizes", Attr::Dims(vec![]))
            .with("maps", Attr::Maps(vec![vec![1]]));
        let ty = Type::Tensor(TensorType::fixed(Elem::F32, &[7, n]));
        let op = b.build(&plan::LAUNCH, &[Some(bias)], attrs, &[r.unwrap()], &[ty]).unwrap();
        for (level, isa) in levels() {
            let mut cg = Codegen::new(level).unwrap();
            let c = cg.callback(&f, op, "callback").unwrap();
            let sizes: Vec<i64> = c.sizes.iter().map(|d| d.as_const().unwrap()).collect();
            let o = cg.finish().unwrap();
            let (mapped, table) = (load(&o), helper_table(isa));
            let cx = Ctx { helpers: table.as_ptr(), ..ctx() };
            let mut bias: Vec<f32> = (0..n).map(|i| i as f32 / 9.0 - 4.0).collect();
            let null = std::ptr::null_mut();
            let bufs = [null, null, bias.as_mut_ptr().cast()];
            for cols in [0, 1, 3, 16, 31, 33, 70] {
                let (row0, col0, rows, ld) = (2usize, 5usize, 4usize, 72usize);
                let acc: Vec<f32> = (0..rows * ld).map(|i| (i % 23) as f32 / 3.0 - 3.5).collect();
                let mut tile = acc.clone();
                // SAFETY: the function has this signature, the buffers the sizes it was made for.
                unsafe {
                    let g: TileFn =
                        std::mem::transmute(mapped.0.as_ptr().add(o.offsets[0] as usize));
                    let [ld, r, c, nr, nc] = [ld, row0, col0, rows, cols].map(|v| v as u64);
                    g(&cx, tile.as_mut_ptr(), ld, r, c, nr, nc, bufs.as_ptr(), sizes.as_ptr());
                }
                for (i, (got, acc)) in tile.iter().zip(&acc).enumerate() {
                    let (got, acc) = (*got as f64, *acc as f64);
                    let j = i % ld;
                    let want = if j < cols { want(acc, bias[col0 + j] as f64) } else { acc };
                    let bound = 8.0 * f32::EPSILON as f64 * want.abs();
                    assert!(
                        (got - want).abs() <= bound,
                        "{} {isa}: {i}: {got} {want}",
                        level.name()
                    );
                }
            }
        }
    }
}
