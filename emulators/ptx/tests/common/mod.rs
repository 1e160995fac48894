//! Inputs, and kernels of tests/corpus with what they must compute.
//!
//! Inputs are split-mix numbers (Steele, Lea and Flood 2014), uniform in ±scale, rounded to the element type; expected
//! values are plain loops in `f64` over the rounded inputs.

#![allow(dead_code, reason = "each test that includes this file uses a part of it")]

use silure_ptx_emulator::{Device, Error, Kind, Launch, Module, Options, Param, Report};

/// Random numbers.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn reals(&mut self, e: Elem, n: usize, scale: f64) -> Vec<f64> {
        let one = |r: &mut Self| ((r.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0) * scale;
        (0..n).map(|_| e.decode(&e.encode(one(self)))).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Elem {
    F32,
    F16,
    Bf16,
}

impl Elem {
    pub fn bytes(self) -> usize {
        if self == Elem::F32 { 4 } else { 2 }
    }

    pub fn encode(self, x: f64) -> Vec<u8> {
        match self {
            Elem::F32 => (x as f32).to_le_bytes().to_vec(),
            Elem::F16 => half::f16::from_f32(x as f32).to_le_bytes().to_vec(),
            Elem::Bf16 => half::bf16::from_f32(x as f32).to_le_bytes().to_vec(),
        }
    }

    pub fn decode(self, b: &[u8]) -> f64 {
        match self {
            Elem::F32 => f32::from_le_bytes(b.try_into().unwrap()) as f64,
            Elem::F16 => half::f16::from_le_bytes(b.try_into().unwrap()).to_f64(),
            Elem::Bf16 => half::bf16::from_le_bytes(b.try_into().unwrap()).to_f64(),
        }
    }

    /// Half a unit in the last place, relative.
    pub fn unit(self) -> f64 {
        match self {
            Elem::F32 => (-24f64).exp2(),
            Elem::F16 => (-11f64).exp2(),
            Elem::Bf16 => (-8f64).exp2(),
        }
    }
}

/// A kernel with inputs, and the answer.
pub struct Case {
    pub kernel: &'static str,
    pub file: &'static str,
    pub launch: Launch,
    pub device: Device,
    pub output: u64,
    pub elem: Elem,
    pub want: Vec<f64>,
    /// Allowed distance of each element.
    pub bound: Vec<f64>,
}

pub fn text(file: &str) -> String {
    let path = format!("{}/tests/corpus/{file}.ptx", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The dynamic shared memory that a text of Triton says it needs.
fn dynamic(file: &str) -> usize {
    let t = text(file);
    let n = t.strip_prefix("// Dynamic shared memory: ").and_then(|t| t.split(' ').next());
    n.map_or(0, |n| n.parse().unwrap())
}

impl Case {
    /// Runs a text; the greatest distance relative to the bound.
    pub fn run(&mut self, text: &str, options: &Options) -> Result<(f64, Report), Error> {
        let module = Module::parse(text)?;
        let report = self.device.launch(&module, self.kernel, &self.launch, options)?;
        let n = self.elem.bytes();
        let mut out = vec![0; self.want.len() * n];
        if !self.device.read(self.output, &mut out)? {
            let e = Error {
                kind: Kind::Uninitialised,
                message: "an output is not written".into(),
                kernel: None,
                line: None,
                at: None,
                address: None,
            };
            return Err(e);
        }
        let mut worst = 0f64;
        for ((o, w), b) in out.chunks(n).zip(&self.want).zip(&self.bound) {
            let d = (self.elem.decode(o) - w).abs();
            worst = worst.max(if d.is_nan() { f64::INFINITY } else { d / b });
        }
        Ok((worst, report))
    }
}

fn upload(d: &mut Device, e: Elem, v: &[f64]) -> u64 {
    let bytes: Vec<u8> = v.iter().flat_map(|x| e.encode(*x)).collect();
    let at = d.alloc(bytes.len()).unwrap();
    d.write(at, &bytes).unwrap();
    at
}

fn p(v: impl Into<Param>) -> Param {
    v.into()
}

/// A memref descriptor: both pointers, offset, sizes, strides of a dense tensor.
fn memref(at: u64, sizes: &[usize]) -> Vec<Param> {
    let mut out = vec![p(at), p(at), p(0u64)];
    out.extend(sizes.iter().map(|s| p(*s as u64)));
    out.extend((0..sizes.len()).map(|i| p(sizes[i + 1..].iter().product::<usize>() as u64)));
    out
}

pub const NAMES: [&str; 8] = [
    "triton_softmax",
    "triton_matmul_f16",
    "triton_matmul_bf16",
    "triton_attention_f16",
    "triton_attention_bf16",
    "mlir_elementwise",
    "mlir_softmax",
    "mlir_matmul",
];

/// A case of the corpus; sizes differ with the seed and leave tails.
pub fn case(name: &str, seed: u64) -> Case {
    let mut r = Rng(seed);
    match name {
        "triton_softmax" | "mlir_softmax" => softmax(name == "mlir_softmax", &mut r),
        "triton_matmul_f16" => matmul(Elem::F16, "triton_matmul_f16", &mut r),
        "triton_matmul_bf16" => matmul(Elem::Bf16, "triton_matmul_bf16", &mut r),
        "triton_attention_f16" => attention(Elem::F16, "triton_attention_f16", &mut r),
        "triton_attention_bf16" => attention(Elem::Bf16, "triton_attention_bf16", &mut r),
        "mlir_elementwise" => elementwise(&mut r),
        "mlir_matmul" => mlir_matmul(&mut r),
        _ => panic!("no case {name}"),
    }
}

fn softmax(mlir: bool, r: &mut Rng) -> Case {
    let (rows, n) = (1 + r.next() as usize % 7, 1 + r.next() as usize % 512);
    let mut d = Device::new(1 << 24);
    let x = r.reals(Elem::F32, rows * n, 10.0);
    let at = upload(&mut d, Elem::F32, &x);
    let y = d.alloc(rows * n * 4).unwrap();
    let mut want = Vec::new();
    for row in x.chunks(n) {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|v| (v - max).exp()).sum();
        want.extend(row.iter().map(|v| (v - max).exp() / sum));
    }
    let bound = want.iter().map(|w| w * (100.0 + n as f64) * Elem::F32.unit() + 1e-40).collect();
    let (params, block, file, kernel) = if mlir {
        let mut params = memref(at, &[rows, n]);
        params.extend(memref(y, &[rows, n]));
        params.push(p(n as u64));
        (params, [32, 1, 1], "mlir_softmax", "mlir_softmax")
    } else {
        let params = vec![p(y), p(at), p(n as u32), p(n as u32), p(0u64), p(0u64)];
        (params, [128, 1, 1], "triton_softmax", "triton_softmax")
    };
    let launch = Launch { grid: [rows as u32, 1, 1], block, shared: dynamic(file), params };
    Case { kernel, file, launch, device: d, output: y, elem: Elem::F32, want, bound }
}

/// A·B, and for each element the sum of its terms' magnitudes.
fn product(a: &[f64], b: &[f64], m: usize, n: usize, k: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut want, mut size) = (Vec::new(), Vec::new());
    for (i, j) in (0..m * n).map(|x| (x / n, x % n)) {
        let terms = (0..k).map(|x| a[i * k + x] * b[x * n + j]);
        want.push(terms.clone().sum());
        size.push(terms.map(f64::abs).sum());
    }
    (want, size)
}

fn matmul(e: Elem, file: &'static str, r: &mut Rng) -> Case {
    // All sizes are multiples of 16, as the kernel was told.
    let mut size = |of: &[usize]| of[r.next() as usize % of.len()];
    let (m, n, k) =
        (size(&[16, 48, 64, 144]), size(&[16, 64, 80, 144]), size(&[16, 32, 48, 96, 160]));
    let (a, b) = (r.reals(e, m * k, 1.0), r.reals(e, k * n, 1.0));
    let mut d = Device::new(1 << 24);
    let (pa, pb) = (upload(&mut d, e, &a), upload(&mut d, e, &b));
    let c = d.alloc(m * n * 4).unwrap();
    let (want, size) = product(&a, &b, m, n, k);
    let bound = size.iter().map(|s| s * (k as f64 + 4.0) * Elem::F32.unit()).collect();
    let ints = [m, n, k, k, n, n].map(|v| p(v as u32));
    let params = [vec![p(pa), p(pb), p(c)], ints.to_vec(), vec![p(0u64), p(0u64)]].concat();
    let grid = [(m.div_ceil(64) * n.div_ceil(64)) as u32, 1, 1];
    let launch = Launch { grid, block: [128, 1, 1], shared: dynamic(file), params };
    Case {
        kernel: "triton_matmul",
        file,
        launch,
        device: d,
        output: c,
        elem: Elem::F32,
        want,
        bound,
    }
}

fn attention(e: Elem, file: &'static str, r: &mut Rng) -> Case {
    let (heads, s) = (1 + r.next() as usize % 2, [1, 33, 64, 100, 150][r.next() as usize % 5]);
    let (n, scale) = (heads * s * 64, 0.125);
    let (q, k, v) = (r.reals(e, n, 2.0), r.reals(e, n, 2.0), r.reals(e, n, 1.0));
    let (mut want, mut bound) = (Vec::new(), Vec::new());
    for (h, i) in (0..heads * s).map(|x| (x / s, x % s)) {
        let row = |t: &[f64], j: usize| t[(h * s + j) * 64..][..64].to_vec();
        let dot =
            |j: usize| row(&q, i).iter().zip(row(&k, j)).map(|(a, b)| a * b).sum::<f64>() * scale;
        let scores: Vec<f64> = (0..=i).map(dot).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let p: Vec<f64> = scores.iter().map(|x| (x - max).exp()).collect();
        let sum: f64 = p.iter().sum();
        for c in 0..64 {
            let term = |j: usize| p[j] / sum * v[(h * s + j) * 64 + c];
            let y: f64 = (0..=i).map(term).sum();
            let size: f64 = (0..=i).map(|j| term(j).abs()).sum();
            want.push(y);
            // Probabilities are rounded to the element type, and so is the result.
            bound.push(size * (1.1 * e.unit() + 1e-4) + y.abs() * e.unit() + 1e-7);
        }
    }
    let mut d = Device::new(1 << 24);
    let [pq, pk, pv] = [&q, &k, &v].map(|t| upload(&mut d, e, t));
    let o = d.alloc(n * e.bytes()).unwrap();
    let params = vec![p(pq), p(pk), p(pv), p(o), p(scale as f32), p(s as u32), p(0u64), p(0u64)];
    let grid = [s.div_ceil(64) as u32, heads as u32, 1];
    let launch = Launch { grid, block: [128, 1, 1], shared: dynamic(file), params };
    Case { kernel: "triton_attention", file, launch, device: d, output: o, elem: e, want, bound }
}

fn elementwise(r: &mut Rng) -> Case {
    let n = 1 + r.next() as usize % 600;
    let (x, b) = (r.reals(Elem::F32, n, 20.0), r.reals(Elem::F32, n, 3.0));
    let mut d = Device::new(1 << 24);
    let (px, pb) = (upload(&mut d, Elem::F32, &x), upload(&mut d, Elem::F32, &b));
    let y = d.alloc(4 * n).unwrap();
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let want: Vec<f64> = x.iter().zip(&b).map(|(x, b)| silu(*x) + b.tanh()).collect();
    let bound = x.iter().map(|x| (silu(*x).abs() * 40.0 + 8.0) * Elem::F32.unit()).collect();
    let mut params = [memref(px, &[n]), memref(pb, &[n]), memref(y, &[n])].concat();
    params.push(p(n as u64));
    let launch =
        Launch { grid: [n.div_ceil(128) as u32, 1, 1], block: [128, 1, 1], shared: 0, params };
    let (kernel, file) = ("mlir_elementwise", "mlir_elementwise");
    Case { kernel, file, launch, device: d, output: y, elem: Elem::F32, want, bound }
}

fn mlir_matmul(r: &mut Rng) -> Case {
    let k = 32 * (1 + r.next() as usize % 6);
    let (a, b) = (r.reals(Elem::F16, 64 * k, 1.0), r.reals(Elem::F16, k * 64, 1.0));
    let mut d = Device::new(1 << 24);
    let (pa, pb) = (upload(&mut d, Elem::F16, &a), upload(&mut d, Elem::F16, &b));
    let c = d.alloc(64 * 64 * 4).unwrap();
    let (want, size) = product(&a, &b, 64, 64, k);
    let bound = size.iter().map(|s| s * (k as f64 + 4.0) * Elem::F32.unit()).collect();
    let mut params = [memref(pa, &[64, k]), memref(pb, &[k, 64]), memref(c, &[64, 64])].concat();
    params.push(p(k as u64));
    let launch = Launch { grid: [1; 3], block: [128, 1, 1], shared: 0, params };
    let (kernel, file) = ("mlir_matmul", "mlir_matmul");
    Case { kernel, file, launch, device: d, output: c, elem: Elem::F32, want, bound }
}
