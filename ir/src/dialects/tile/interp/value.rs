//! Values of a running program, and the tile ops that are not elementwise.

use std::rc::Rc;

use silure_types::Elem;

use super::memory::ViewValue;
use crate::attr::Attrs;
use crate::bail;
use crate::diag::Result;
use crate::dialects::tile::{Kind, kind};
use crate::infer::norm_axis;
use crate::tensor::{Num, for_each_index, strides};

/// One value.
#[derive(Clone)]
pub(super) enum Value {
    /// A tile or scalar.
    Data(Data),
    /// An index.
    Index(i64),
    /// A pointer: the number of its buffer.
    Ptr(usize),
    /// A view.
    View(Rc<ViewValue>),
}

impl Value {
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Data(_) => "a tile or scalar",
            Value::Index(_) => "an index",
            Value::Ptr(_) => "a pointer",
            Value::View(_) => "a view",
        }
    }

    /// Element type; an index counts as i64.
    pub fn elem(&self) -> Elem {
        match self {
            Value::Data(d) => d.elem,
            _ => Elem::I64,
        }
    }

    /// Element `i`; an index is its own only element.
    pub fn num(&self, i: usize) -> Num {
        match self {
            Value::Data(d) => d.nums[i],
            Value::Index(v) => Num::I(*v as i128),
            Value::Ptr(_) | Value::View(_) => Num::I(0),
        }
    }
}

/// A tile, or a scalar as a tile of rank 0. Every number is one that the element type holds.
#[derive(Clone)]
pub(super) struct Data {
    elem: Elem,
    shape: Rc<[usize]>,
    nums: Rc<[Num]>,
}

impl Data {
    pub fn new(elem: Elem, shape: &[usize], nums: Vec<Num>) -> Data {
        Data { elem, shape: shape.into(), nums: nums.into() }
    }

    pub fn scalar(elem: Elem, n: Num) -> Data {
        Data::new(elem, &[], vec![round(elem, n)])
    }

    pub fn num(&self, i: usize) -> Num {
        self.nums[i]
    }

    pub fn len(&self) -> usize {
        self.nums.len()
    }

    fn floats(&self) -> Vec<f64> {
        self.nums.iter().map(|n| n.f()).collect()
    }
}

/// The number that `elem` holds nearest to `n`.
pub(super) fn round(elem: Elem, n: Num) -> Num {
    match (elem, n) {
        (Elem::F32, Num::F(v)) => Num::F(v as f32 as f64),
        (Elem::F64, Num::F(v)) => Num::F(v),
        _ => Num::decode(elem, n.encode(elem)),
    }
}

/// `acc + a · b`, rounded once.
pub(super) fn dot(a: &Data, b: &Data, acc: &Data) -> Data {
    let (m, k, n) = (a.shape[0], a.shape[1], b.shape[1]);
    let mut nums = Vec::with_capacity(m * n);
    if a.elem.is_float() {
        let (fa, fb) = (a.floats(), b.floats());
        let mut row = vec![0.0; n];
        for i in 0..m {
            row.fill(0.0);
            for (x, line) in fa[i * k..][..k].iter().zip(fb.chunks_exact(n)) {
                row.iter_mut().zip(line).for_each(|(s, y)| *s += x * y);
            }
            nums.extend((0..n).map(|j| round(acc.elem, Num::F(acc.nums[i * n + j].f() + row[j]))));
        }
    } else {
        for i in 0..m * n {
            let (r, c) = (i / n, i % n);
            let sum: i128 = (0..k).map(|x| a.nums[r * k + x].i() * b.nums[x * n + c].i()).sum();
            nums.push(round(acc.elem, Num::I(acc.nums[i].i() + sum)));
        }
    }
    Data::new(acc.elem, &acc.shape, nums)
}

/// Ops with one operand that move or combine elements; `shape` is that of the result.
pub(super) fn reshaping(name: &str, attrs: &Attrs, x: &Data, shape: &[usize]) -> Result<Data> {
    let take = |f: &dyn Fn(&[usize]) -> usize| {
        let mut nums = Vec::new();
        for_each_index(shape, |_, ix| nums.push(x.nums[f(ix)]));
        Data::new(x.elem, shape, nums)
    };
    let st = strides(&x.shape);
    Ok(match name {
        "tile.full" => take(&|_| 0),
        "tile.reshape" => Data { shape: shape.into(), ..x.clone() },
        "tile.transpose" => {
            let by: Vec<usize> = attrs.ints("perm").iter().map(|&p| st[p as usize]).collect();
            take(&|ix| ix.iter().zip(&by).map(|(i, s)| i * s).sum())
        }
        "tile.broadcast" => {
            let axis = norm_axis(attrs.int("axis"), shape.len())?;
            take(&|ix| {
                let kept = ix.iter().enumerate().filter(|(d, _)| *d != axis);
                kept.zip(&st).map(|((_, i), s)| i * s).sum()
            })
        }
        "tile.reduce" | "tile.scan" => {
            let axis = norm_axis(attrs.int("axis"), x.shape.len())?;
            let how = kind(attrs.str("kind"))?;
            let (n, inner) = (x.shape[axis], st[axis]);
            let scan = name == "tile.scan";
            let mut nums = x.nums.to_vec();
            let mut out = Vec::new();
            // A line of the axis starts at each element whose position along it is 0.
            for start in (0..nums.len()).filter(|i| i / inner % n == 0) {
                let mut sum = None;
                for p in 0..n {
                    let p = if attrs.bool("reverse") { n - 1 - p } else { p };
                    let v = x.nums[start + p * inner];
                    let total = sum.map_or(v, |s| combine(how, s, v));
                    sum = Some(total);
                    nums[start + p * inner] = round(x.elem, total);
                }
                out.extend(sum.map(|s| round(x.elem, s)));
            }
            Data::new(x.elem, shape, if scan { nums } else { out })
        }
        _ => bail!(Unsupported, "`{name}` is not known to the interpreter"),
    })
}

fn combine(how: Kind, a: Num, b: Num) -> Num {
    match (how, a, b) {
        (Kind::Sum, Num::I(a), Num::I(b)) => Num::I(a.wrapping_add(b)),
        (Kind::Product, Num::I(a), Num::I(b)) => Num::I(a.wrapping_mul(b)),
        (Kind::Max, Num::I(a), Num::I(b)) => Num::I(a.max(b)),
        (Kind::Min, Num::I(a), Num::I(b)) => Num::I(a.min(b)),
        (Kind::Sum, a, b) => Num::F(a.f() + b.f()),
        (Kind::Product, a, b) => Num::F(a.f() * b.f()),
        (_, a, b) if a.f().is_nan() || b.f().is_nan() => Num::F(f64::NAN),
        (Kind::Max, a, b) => Num::F(a.f().max(b.f())),
        (Kind::Min, a, b) => Num::F(a.f().min(b.f())),
    }
}
