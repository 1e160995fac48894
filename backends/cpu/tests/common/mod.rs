//! Maps as modules, their code executed from a mapping as the runtime does, and the oracle beside it.

#![allow(dead_code, reason = "each test file uses a part")]

use silure_cpu::codegen::{Codegen, Functions, IsaLevel, MapCode, Object};
use silure_ir::dialects::{arith, kernel};
use silure_ir::eval::Interp;
use silure_ir::*;
use silure_kernels_cpu::abi::{Ctx, KernelFn};
use silure_kernels_cpu::helpers::helper_table;

/// xorshift64*: the same sequence everywhere.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    pub fn pick<T: Copy>(&mut self, xs: &[T]) -> T {
        xs[self.below(xs.len())]
    }
}

/// A function with one `kernel.map`: operands with (elem, shape, map).
pub fn map_module(
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

pub struct Loaded(pub memmap2::Mmap);

pub fn load(o: &Object) -> Loaded {
    let mut m = memmap2::MmapMut::map_anon(o.bytes.len().max(1)).unwrap();
    m[..o.bytes.len()].copy_from_slice(&o.bytes);
    Loaded(m.make_exec().unwrap())
}

pub fn ctx() -> Ctx {
    Ctx { helpers: std::ptr::null(), isa: 0, threads: 1, strings: std::ptr::null() }
}

pub fn sizes(code: &MapCode) -> (Vec<i64>, u64) {
    let v = |d: &Dim| d.as_const().unwrap();
    (code.sizes.iter().map(v).collect(), v(&code.tasks) as u64)
}

/// Runs a map's code with the helpers of a level, tasks in the pieces given by `split`.
pub fn execute(
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

pub fn compile(level: IsaLevel, m: &Module, op: OpId) -> Result<(Object, MapCode)> {
    let mut cg = Codegen::new(level)?;
    let (index, code) = cg.map(&m.funcs[0], op, "map")?;
    assert_eq!(index, 0);
    Ok((cg.finish()?, code))
}

pub fn oracle(m: &Module, inputs: &[Tensor]) -> Vec<Tensor> {
    let i = Interp::new(m, &weight::NoFiles, Default::default());
    let args = inputs.iter().map(|t| t.clone().into()).collect();
    i.run("main", args).unwrap().iter().map(|d| Tensor::clone(d.tensor().unwrap())).collect()
}

/// Levels that this machine can run: of the code, and of the helpers it calls.
pub fn levels() -> Vec<(IsaLevel, u32)> {
    let mut v = vec![(IsaLevel::X86_64, 0)];
    let above = silure_kernels_cpu::levels().iter().filter(|l| **l > 0);
    v.extend(above.map(|&isa| (IsaLevel::X86_64V3, isa)));
    v
}

pub fn random_tensor(rng: &mut Rng, e: Elem, shape: &[usize]) -> Tensor {
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

pub fn same(a: &Tensor, b: &Tensor, ulps: f64) -> Result<(), String> {
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

pub fn check(m: &Module, op: OpId, inputs: &[Tensor], ulps: f64) {
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

pub fn cast(b: &mut Builder, x: ValueId, to: Elem) -> Result<ValueId> {
    if b.func.ty(x).elem() == Some(to) {
        return Ok(x);
    }
    b.one(&arith::CAST, [x], Attrs::new().with("to", to))
}
