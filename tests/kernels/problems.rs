//! The six kernels as problems: random inputs, the answer by plain `f64` loops, and how far a correct
//! kernel may be from it. Nothing here uses the compiler but its element types and argument record, so
//! every target checks itself against the same numbers.
//!
//! Bounds are worst cases of the arithmetic that the kernel's text asks for, in any order of summation:
//! with `U` the rounding unit of f32, a sum of K terms is off by at most K·U·Σ|terms|, an elementary
//! function by 4 units in the last place, and each cast by half of one.

#![allow(dead_code, reason = "each test that includes this file uses a part of it")]

use silure_ir::dialects::tile::KernelArg;
use silure_ir::{Elem, Num};

/// Rounding unit of f32.
const U: f64 = 1.0 / (1u64 << 24) as f64;

/// One kernel with arguments, and what they must become.
pub struct Problem {
    /// The kernel: tests/kernels/NAME.sir, function @NAME.
    pub name: &'static str,
    /// Its sizes, for messages.
    pub sizes: String,
    /// Arguments in order.
    pub args: Vec<KernelArg>,
    /// Position of the output among them, and its element type.
    pub output: (usize, Elem),
    /// Per element of the output, the answer and the greatest allowed distance; `None` where nothing may
    /// be written.
    pub expect: Vec<Option<(f64, f64)>>,
}

impl Problem {
    /// Compares the output buffer of a run; the first element that is wrong, and how many are.
    pub fn check(&self, output: &[u8]) -> Result<(), String> {
        let elem = self.output.1;
        let bits = |i| elem.load(output, i).unwrap_or(0);
        if output.len() != self.expect.len() * elem.bytes().unwrap_or(1) {
            return Err(format!("{}: {} bytes of output", self.name, output.len()));
        }
        let wrong = |i: usize| match self.expect[i] {
            None => bits(i) != elem.mask(),
            Some((want, _)) if want.is_nan() => !elem.decode(bits(i)).is_nan(),
            Some((want, bound)) => {
                let d = (elem.decode(bits(i)) - want).abs();
                d.is_nan() || d > bound
            }
        };
        let bad: Vec<usize> = (0..self.expect.len()).filter(|&i| wrong(i)).collect();
        let Some(&i) = bad.first() else { return Ok(()) };
        Err(format!(
            "{} {}: {} of {} elements are wrong; element {i} is {}, expected {:?}",
            self.name,
            self.sizes,
            bad.len(),
            self.expect.len(),
            elem.decode(bits(i)),
            self.expect[i]
        ))
    }

    /// The same problem where every element of the output is computed: what a kernel must leave alone may
    /// hold any number.
    pub fn whole(mut self) -> Problem {
        let any = (0.0, f64::INFINITY);
        self.expect.iter_mut().for_each(|e| *e = Some(e.unwrap_or(any)));
        self
    }

    /// Elements of the output that nothing may write.
    pub fn untouched(&self) -> u64 {
        self.expect.iter().filter(|e| e.is_none()).count() as u64
    }
}

/// The problems of every kernel; the sizes come from the seed and hit tails, single elements and exact
/// multiples of the tiles.
pub fn all(seed: u64) -> Vec<Problem> {
    let mut r = Rng(seed);
    vec![
        softmax(&mut r),
        matmul_bias_gelu(&mut r),
        flash_attention(&mut r),
        paged_mla_decode(&mut r),
        conv3x3(&mut r),
        grouped_fp8_matmul(&mut r),
    ]
}

/// Random numbers (split-mix).
pub struct Rng(pub u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in lo..=hi.
    fn int(&mut self, lo: usize, hi: usize) -> usize {
        lo + (self.next() % (hi - lo + 1) as u64) as usize
    }

    /// One of some sizes.
    fn pick(&mut self, of: &[usize]) -> usize {
        of[self.int(0, of.len() - 1)]
    }

    /// Uniform in ±scale.
    fn real(&mut self, scale: f64) -> f64 {
        ((self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0) * scale
    }

    /// n numbers in ±scale that `elem` holds exactly.
    pub fn reals(&mut self, elem: Elem, n: usize, scale: f64) -> Vec<f64> {
        (0..n).map(|_| elem.decode(elem.encode(self.real(scale)))).collect()
    }
}

/// Memory that holds these numbers.
pub fn buffer(elem: Elem, v: &[f64]) -> KernelArg {
    let mut bytes = vec![0; v.len() * elem.bytes().unwrap_or(1)];
    for (i, x) in v.iter().enumerate() {
        elem.store(&mut bytes, i, elem.encode(*x));
    }
    KernelArg::Buffer(bytes)
}

fn output(elem: Elem, n: usize) -> KernelArg {
    KernelArg::Output(vec![0; n * elem.bytes().unwrap_or(1)])
}

fn index(v: usize) -> KernelArg {
    KernelArg::Index(v as i64)
}

/// Half a unit in the last place of `x` in `elem`, subnormals included.
fn half_ulp(elem: Elem, x: f64) -> f64 {
    let least = match elem {
        Elem::F16 => -24,
        Elem::Bf16 => -133,
        _ => -149,
    };
    (elem.epsilon() * x.abs()).max((least as f64).exp2()) / 2.0
}

/// A bound on the result before it is rounded to `elem`, as a bound after.
fn rounded(elem: Elem, want: f64, bound: f64) -> Option<(f64, f64)> {
    Some((want, bound + half_ulp(elem, want.abs() + bound)))
}

fn softmax(r: &mut Rng) -> Problem {
    let (rows, n) = (r.int(1, 20), r.pick(&[1, 7, 255, 256, 257, 512, 700]));
    let mut x = r.reals(Elem::F32, rows * n, 10.0);
    for v in &mut x {
        if r.int(0, 9) == 0 {
            *v = f64::NEG_INFINITY;
        }
    }
    if rows > 2 && n > 300 {
        // Nothing finite in the first tile of columns; then nothing finite at all.
        x[..256].fill(f64::NEG_INFINITY);
        x[n..2 * n].fill(f64::NEG_INFINITY);
    }
    let mut expect = Vec::new();
    for row in x.chunks(n) {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|v| (v - max).exp()).sum();
        // Differences reach 20; each of the exponentials of the sum carries their rounding too.
        let relative = (4.0 * 20.0 + 16.0 + n as f64) * U;
        expect.extend(row.iter().map(|v| {
            let y = (v - max).exp() / sum;
            Some((y, y * relative + half_ulp(Elem::F32, 0.0)))
        }));
    }
    Problem {
        name: "softmax",
        sizes: format!("{rows}x{n}"),
        args: vec![buffer(Elem::F32, &x), output(Elem::F32, rows * n), index(rows), index(n)],
        output: (1, Elem::F32),
        expect,
    }
}

fn matmul_bias_gelu(r: &mut Rng) -> Problem {
    let size = |r: &mut Rng| r.pick(&[1, 3, 63, 64, 65, 100, 128, 150]);
    // Depths of many rounds, with a tail and without.
    let (m, n, k) = (size(r), size(r), r.pick(&[1, 3, 63, 65, 100, 128, 384, 392]));
    let (a, b) = (r.reals(Elem::F16, m * k, 1.0), r.reals(Elem::F16, k * n, 1.0));
    let bias = r.reals(Elem::F16, n, 2.0);
    let mut expect = Vec::new();
    for i in 0..m {
        for j in 0..n {
            let terms = (0..k).map(|x| a[i * k + x] * b[x * n + j]);
            let (mut sum, mut size) = (bias[j], bias[j].abs());
            terms.for_each(|t| {
                sum += t;
                size += t.abs();
            });
            // x · Φ(x), with a slope of at most 1.13; Φ from a function good to 4 ulp near 1.
            let y = 0.5 * sum * erfc(-sum / 2f64.sqrt());
            let bound = 1.13 * (k as f64 + 4.0) * U * size + 8.0 * U * sum.abs();
            expect.push(rounded(Elem::F16, y, bound));
        }
    }
    Problem {
        name: "matmul_bias_gelu",
        sizes: format!("{m}x{n}x{k}"),
        args: vec![
            buffer(Elem::F16, &a),
            buffer(Elem::F16, &b),
            buffer(Elem::F16, &bias),
            output(Elem::F16, m * n),
            index(m),
            index(n),
            index(k),
        ],
        output: (3, Elem::F16),
        expect,
    }
}

/// erfc by numerical integration of its definition (Simpson); for |x| up to 10, to about 1e-13.
fn erfc(x: f64) -> f64 {
    let (lo, hi) = (x.abs(), x.abs() + 8.0);
    let steps = 2000;
    let h = (hi - lo) / steps as f64;
    let f = |t: f64| (-t * t).exp();
    let inner: f64 =
        (1..steps).map(|i| f(lo + i as f64 * h) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    let tail = (f(lo) + inner + f(hi)) * h / 3.0 * 2.0 / std::f64::consts::PI.sqrt();
    if x >= 0.0 { tail } else { 2.0 - tail }
}

/// softmax(scores) · values for one query, and the bound for probabilities rounded to `elem`:
/// `values[i]` is the row of key i.
fn attend(scores: &[f64], values: &[&[f64]], spread: f64, elem: Elem) -> Vec<Option<(f64, f64)>> {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let p: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f64 = p.iter().sum();
    (0..values.first().map_or(0, |v| v.len()))
        .map(|c| {
            let (mut y, mut size, mut rounding) = (0.0, 0.0, 0.0);
            for (p, v) in p.iter().zip(values) {
                y += p / sum * v[c];
                size += p / sum * v[c].abs();
                // Rounding of p, which is later scaled down with its tile.
                rounding += half_ulp(elem, *p) / sum * v[c].abs();
            }
            // The scores' own error, exponentials in numerator and sum, the sums themselves.
            let relative = 2.0 * spread + (2.0 * p.len() as f64 + 64.0) * U;
            rounded(elem, y, rounding * (1.0 + relative) + size * relative)
        })
        .collect()
}

fn flash_attention(r: &mut Rng) -> Problem {
    let (heads, s) = (r.int(1, 3), r.pick(&[1, 5, 64, 65, 100, 128, 190, 330]));
    let scale = 0.125;
    let n = heads * s * 64;
    let (q, k, v) =
        (r.reals(Elem::F16, n, 3.0), r.reals(Elem::F16, n, 3.0), r.reals(Elem::F16, n, 1.0));
    let row = |t: &[f64], h: usize, i: usize| t[(h * s + i) * 64..][..64].to_vec();
    let mut expect = Vec::new();
    for h in 0..heads {
        for i in 0..s {
            let (q, mut scores, mut spread) = (row(&q, h, i), Vec::new(), 0f64);
            for j in 0..=i {
                let k = row(&k, h, j);
                let size: f64 = q.iter().zip(&k).map(|(a, b)| (a * b).abs()).sum();
                scores.push(scale * q.iter().zip(&k).map(|(a, b)| a * b).sum::<f64>());
                spread = spread.max(size * scale * 68.0 * U);
            }
            let rows: Vec<&[f64]> = (0..=i).map(|j| &v[(h * s + j) * 64..][..64]).collect();
            expect.extend(attend(&scores, &rows, spread, Elem::F16));
        }
    }
    Problem {
        name: "flash_attention",
        sizes: format!("{heads} heads, {s} tokens"),
        args: vec![
            buffer(Elem::F16, &q),
            buffer(Elem::F16, &k),
            buffer(Elem::F16, &v),
            output(Elem::F16, n),
            KernelArg::Scalar(Num::F(scale)),
            index(heads),
            index(s),
        ],
        output: (3, Elem::F16),
        expect,
    }
}

fn paged_mla_decode(r: &mut Rng) -> Problem {
    let (batch, heads, width) = (r.int(1, 2), r.pick(&[1, 4, 16, 20]), r.int(1, 3));
    let pages = batch * width + 1;
    let scale = Elem::F32.decode(Elem::F32.encode(0.135234 / 4.0));
    let q = r.reals(Elem::Bf16, batch * heads * 576, 1.0);
    let lens: Vec<usize> = (0..batch)
        .map(|b| {
            let empty = b == 1 && r.int(0, 2) == 0;
            if empty { 0 } else { r.int(64 * (width - 1) + 1, 64 * width) }
        })
        .collect();
    // Pages are handed out in a shuffled order; what no sequence owns is NaN and no page at all.
    let mut order: Vec<usize> = (0..pages).collect();
    for i in (1..pages).rev() {
        order.swap(i, r.int(0, i));
    }
    let mut cache = vec![f64::NAN; pages * 64 * 576];
    let mut table = vec![-1f64; batch * width];
    let mut expect = Vec::new();
    for b in 0..batch {
        for t in 0..lens[b] {
            let page = order[b * width + t / 64];
            table[b * width + t / 64] = page as f64;
            let token = r.reals(Elem::Bf16, 576, 1.0);
            cache[(page * 64 + t % 64) * 576..][..576].copy_from_slice(&token);
        }
        let tokens: Vec<&[f64]> = (0..lens[b])
            .map(|t| &cache[(order[b * width + t / 64] * 64 + t % 64) * 576..][..576])
            .collect();
        for h in 0..heads {
            if tokens.is_empty() {
                expect.extend(vec![Some((0.0, 0.0)); 512]);
                continue;
            }
            let q = &q[(b * heads + h) * 576..][..576];
            let (mut scores, mut spread) = (Vec::new(), 0f64);
            for t in &tokens {
                let size: f64 = q.iter().zip(*t).map(|(a, b)| (a * b).abs()).sum();
                scores.push(scale * q.iter().zip(*t).map(|(a, b)| a * b).sum::<f64>());
                spread = spread.max(size * scale * 580.0 * U);
            }
            let latents: Vec<&[f64]> = tokens.iter().map(|t| &t[..512]).collect();
            expect.extend(attend(&scores, &latents, spread, Elem::Bf16));
        }
    }
    let lens_f: Vec<f64> = lens.iter().map(|l| *l as f64).collect();
    Problem {
        name: "paged_mla_decode",
        sizes: format!("{batch} sequences of {lens:?}, {heads} heads, {pages} pages"),
        args: vec![
            buffer(Elem::Bf16, &q),
            buffer(Elem::Bf16, &cache),
            buffer(Elem::I32, &table),
            buffer(Elem::I32, &lens_f),
            output(Elem::Bf16, batch * heads * 512),
            KernelArg::Scalar(Num::F(scale)),
            index(batch),
            index(heads),
            index(pages),
            index(width),
        ],
        output: (4, Elem::Bf16),
        expect,
    }
}

fn conv3x3(r: &mut Rng) -> Problem {
    let (batch, h, w) = (r.int(1, 2), r.int(1, 4), r.pick(&[1, 2, 9, 64, 70]));
    let (c, k) = (r.pick(&[1, 3, 64, 65, 128]), r.pick(&[1, 64, 70, 72]));
    let x = r.reals(Elem::F16, batch * h * w * c, 1.0);
    let f = r.reals(Elem::F16, 9 * c * k, 1.0);
    let mut expect = Vec::new();
    for n in 0..batch * h * w * k {
        let (image, i, j, o) = (n / (h * w * k), n / (w * k) % h, n / k % w, n % k);
        let (mut sum, mut size) = (0.0, 0.0);
        for (dy, dx) in (0..9).map(|t| (t / 3, t % 3)) {
            // Position in the image plus one, so that it is never negative.
            let (y, z) = (i + dy, j + dx);
            if y == 0 || y > h || z == 0 || z > w {
                continue;
            }
            for e in 0..c {
                let t = x[((image * h + y - 1) * w + z - 1) * c + e]
                    * f[((dy * 3 + dx) * c + e) * k + o];
                sum += t;
                size += t.abs();
            }
        }
        expect.push(rounded(Elem::F16, sum, (9.0 * c as f64 + 2.0) * U * size));
    }
    Problem {
        name: "conv3x3",
        sizes: format!("{batch}x{h}x{w}x{c} to {k}"),
        args: vec![
            buffer(Elem::F16, &x),
            buffer(Elem::F16, &f),
            output(Elem::F16, batch * h * w * k),
            index(batch),
            index(h),
            index(w),
            index(c),
            index(k),
        ],
        output: (2, Elem::F16),
        expect,
    }
}

fn grouped_fp8_matmul(r: &mut Rng) -> Problem {
    let (groups, m) = (r.int(1, 3), r.pick(&[1, 64, 70, 130]));
    let (n, k) = (r.pick(&[1, 100, 128, 130]), r.pick(&[16, 128, 200, 256]));
    let (nb, kb) = (n.div_ceil(128), k.div_ceil(128));
    let counts: Vec<usize> = (0..groups).map(|_| r.pick(&[0, 1, m / 2, m, m])).collect();
    let mut a = r.reals(Elem::E4m3fn, groups * m * k, 8.0);
    let b = r.reals(Elem::E4m3fn, groups * n * k, 8.0);
    let sa: Vec<f64> = r.reals(Elem::F32, groups * m * kb, 1.0).iter().map(|s| s.abs()).collect();
    let sb: Vec<f64> = r.reals(Elem::F32, groups * nb * kb, 1.0).iter().map(|s| s.abs()).collect();
    let mut expect = Vec::new();
    for (g, i) in (0..groups * m).map(|x| (x / m, x % m)) {
        if i >= counts[g] {
            // What lies behind a group's rows is not to be read into them.
            a[(g * m + i) * k..][..k].fill(f64::NAN);
            expect.extend(vec![None; n]);
            continue;
        }
        for j in 0..n {
            let (mut sum, mut size) = (0.0, 0.0);
            for x in 0..k {
                let scale = sa[(g * m + i) * kb + x / 128] * sb[(g * nb + j / 128) * kb + x / 128];
                let t = a[(g * m + i) * k + x] * b[(g * n + j) * k + x] * scale;
                sum += t;
                size += t.abs();
            }
            expect.push(rounded(Elem::Bf16, sum, (k as f64 + 8.0) * U * size));
        }
    }
    let counts_f: Vec<f64> = counts.iter().map(|c| *c as f64).collect();
    Problem {
        name: "grouped_fp8_matmul",
        sizes: format!("{groups} groups of {counts:?} of {m}, {n}x{k}"),
        args: vec![
            buffer(Elem::E4m3fn, &a),
            buffer(Elem::F32, &sa),
            buffer(Elem::E4m3fn, &b),
            buffer(Elem::F32, &sb),
            buffer(Elem::I32, &counts_f),
            output(Elem::Bf16, groups * m * n),
            index(groups),
            index(m),
            index(n),
            index(k),
        ],
        output: (5, Elem::Bf16),
        expect,
    }
}
