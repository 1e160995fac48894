//! Loads and stores: a window of global memory against a whole tile on the chip.
//!
//! Along each axis of a view, an access of extent T at offset o of size S touches the elements of the
//! tile from `lo = clamp(−o, 0, T)` to `hi = clamp(S − o, lo, T)`. Where [`Facts`] prove that this is the
//! whole tile, the plain form without tails is emitted. An axis that the tile does not span is a
//! condition instead; if it fails, the first length is 0.
//!
//! [`Facts`]: crate::facts::Facts

use silure_ir::dialects::tile::{Access, access};
use silure_ir::{Elem, Num, OpId, Result, Type, ValueId};

use super::Emitter;
use super::text::stored;
use crate::mlir;

/// One number of a window: known now, or the name of an index.
#[derive(Clone, PartialEq)]
enum At {
    Known(i64),
    Value(String),
}

impl At {
    /// As an operand in brackets.
    fn text(&self) -> String {
        match self {
            At::Known(v) => v.to_string(),
            At::Value(v) => v.clone(),
        }
    }

    /// As a part of a type.
    fn in_type(&self) -> String {
        match self {
            At::Known(v) => v.to_string(),
            At::Value(_) => "?".into(),
        }
    }
}

/// The part of the tile that lies in the view.
struct Window {
    /// First element of the tile, per axis of the tile.
    lo: Vec<At>,
    /// Number of elements, per axis of the tile.
    len: Vec<At>,
    /// Whether the position along the axes that the tile does not span is inside; `None` if proved.
    inside: Option<String>,
    /// Position in memory of the tile's element `lo`, in elements.
    base: String,
    /// Strides of the tile's axes.
    strides: Vec<At>,
}

impl Window {
    /// Whether the whole tile is inside, always.
    fn whole(&self, shape: &[usize]) -> bool {
        self.len.iter().zip(shape).all(|(l, s)| *l == At::Known(*s as i64))
    }
}

fn list(v: &[At]) -> String {
    v.iter().map(At::text).collect::<Vec<_>>().join(", ")
}

fn ones(n: usize) -> String {
    vec!["1"; n].join(", ")
}

/// `strided<[?, 1], offset: ?>`.
fn strided(strides: &[At], offset: bool) -> String {
    let s: Vec<String> = strides.iter().map(At::in_type).collect();
    let offset = if offset { ", offset: ?" } else { "" };
    format!("strided<[{}]{offset}>", s.join(", "))
}

fn sized(len: &[At], elem: &str) -> String {
    let mut s = String::new();
    for l in len {
        s.push_str(&l.in_type());
        s.push('x');
    }
    s + elem
}

impl Emitter<'_> {
    fn at(&mut self, v: ValueId) -> Result<At> {
        match self.facts.constant(v) {
            Some(c) => Ok(At::Known(c)),
            None => Ok(At::Value(self.t.get(v)?)),
        }
    }

    fn index_of(&mut self, a: &At) -> String {
        match a {
            At::Known(c) => self.t.index(*c),
            At::Value(v) => v.clone(),
        }
    }

    fn index_op(&mut self, hint: &str, op: &str, a: &str, b: &str) -> String {
        self.t.let_(hint, format!("arith.{op} {a}, {b} : index"))
    }

    /// The window of an access, its arithmetic emitted.
    fn window(&mut self, a: &Access) -> Result<Window> {
        let (mut lo, mut len) = (Vec::new(), Vec::new());
        let mut inside: Option<String> = None;
        let mut base: Option<String> = None;
        for (d, (&o, &s)) in a.offsets.iter().zip(a.view.sizes).enumerate() {
            let (extent, spanned) = (a.extent[d] as i64, a.axes.contains(&d));
            let not_negative = self.facts.at_least(o, 0);
            let fits = self.facts.fits(o, a.extent[d], s);
            let (offset, size) = (self.t.get(o)?, self.t.get(s)?);
            let mut first = At::Known(0);
            if spanned {
                if !not_negative {
                    let (zero, full) = (self.t.index(0), self.t.index(extent));
                    let minus = self.index_op("before", "subi", &zero, &offset);
                    let low = self.index_op("before", "maxsi", &minus, &zero);
                    first = At::Value(self.index_op("before", "minsi", &low, &full));
                }
                let count = if fits && not_negative {
                    At::Known(extent)
                } else {
                    let full = self.t.index(extent);
                    let rest = self.index_op("rest", "subi", &size, &offset);
                    let end = self.index_op("rest", "minsi", &rest, &full);
                    let from = self.index_of(&first);
                    let n = self.index_op("rest", "subi", &end, &from);
                    let zero = self.t.index(0);
                    At::Value(self.index_op("rest", "maxsi", &n, &zero))
                };
                lo.push(first.clone());
                len.push(count);
            } else {
                let mut checks = Vec::new();
                if !not_negative {
                    let zero = self.t.index(0);
                    checks.push(
                        self.t.let_("ok", format!("arith.cmpi sge, {offset}, {zero} : index")),
                    );
                }
                if !fits {
                    checks.push(
                        self.t.let_("ok", format!("arith.cmpi slt, {offset}, {size} : index")),
                    );
                }
                for c in checks {
                    inside = Some(match inside {
                        None => c,
                        Some(i) => self.t.let_("ok", format!("arith.andi {i}, {c} : i1")),
                    });
                }
            }
            if self.facts.constant(o) == Some(0) && first == At::Known(0) {
                continue;
            }
            let from = match &first {
                At::Known(_) => offset,
                At::Value(l) => self.index_op("from", "addi", &offset, l),
            };
            let stride = self.at(a.view.strides[d])?;
            let part = match stride {
                At::Known(1) => from,
                s => {
                    let s = self.index_of(&s);
                    self.index_op("at", "muli", &from, &s)
                }
            };
            base = Some(match base {
                None => part,
                Some(b) => self.index_op("at", "addi", &b, &part),
            });
        }
        if let (Some(i), Some(first)) = (&inside, len.first_mut()) {
            let (n, zero) = (self.index_of(first), self.t.index(0));
            *first =
                At::Value(self.t.let_("rest", format!("arith.select {i}, {n}, {zero} : index")));
        }
        let base = base.unwrap_or_else(|| self.t.index(0));
        let mut strides = Vec::new();
        for &d in &a.axes {
            strides.push(self.at(a.view.strides[d])?);
        }
        Ok(Window { lo, len, inside, base, strides })
    }

    /// The window of memory as a memref of the whole tile's shape; its name and type.
    fn cast(&mut self, a: &Access, w: &Window, shape: &[usize]) -> Result<(String, String)> {
        let e = stored(a.view.elem)?;
        let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
        let to = format!("memref<{}, {}>", mlir::shaped(shape, e), strided(&w.strides, true));
        let ptr = self.t.get(a.view.base)?;
        let name = self.t.let_(
            "gm",
            format!(
                "memref.reinterpret_cast {ptr} to offset: [{}], sizes: [{}], strides: [{}] : memref<?x{e}> to {to}",
                w.base, sizes.join(", "), list(&w.strides)
            ),
        );
        Ok((name, to))
    }

    /// `tile.load`.
    pub(super) fn load(&mut self, op: OpId) -> Result<()> {
        let a = access(self.t.f, op)?;
        let w = self.window(&a)?;
        let Type::Tile(tile) = self.t.f.ty(a.value).clone() else {
            return self.load_scalar(&a, &w);
        };
        let (shape, e) = (&tile.shape, stored(tile.elem)?);
        let (gm, gm_ty) = self.cast(&a, &w, shape)?;
        let local_ty = format!("memref<{}>", mlir::shaped(shape, e));
        let local = self.t.let_("local", format!("memref.alloc() : {local_ty}"));
        if w.whole(shape) {
            self.t.line(format!("memref.copy {gm}, {local} : {gm_ty} to {local_ty}"));
        } else {
            self.fill_outside(&a, &w, shape, &local, &local_ty)?;
            let zeros = vec![At::Known(0); shape.len()];
            let part_ty = format!("memref<{}, {}>", sized(&w.len, e), strided(&w.strides, true));
            let src = self.t.let_(
                "part",
                format!(
                    "memref.subview {gm}[{}] [{}] [{}] : {gm_ty} to {part_ty}",
                    list(&zeros),
                    list(&w.len),
                    ones(shape.len())
                ),
            );
            let row: Vec<At> = silure_ir::tensor::strides(shape)
                .into_iter()
                .map(|s| At::Known(s as i64))
                .collect();
            let moved = w.lo.iter().any(|l| *l != At::Known(0));
            let into_ty = format!("memref<{}, {}>", sized(&w.len, e), strided(&row, moved));
            let dst = self.t.let_(
                "into",
                format!(
                    "memref.subview {local}[{}] [{}] [{}] : {local_ty} to {into_ty}",
                    list(&w.lo),
                    list(&w.len),
                    ones(shape.len())
                ),
            );
            self.t.line(format!("memref.copy {src}, {dst} : {part_ty} to {into_ty}"));
        }
        let tensor = format!("bufferization.to_tensor {local} restrict writable : {local_ty}");
        if tile.elem == Elem::Bool {
            let bytes = self.t.let_("bytes", tensor);
            let as_bytes = Type::tile(Elem::U8, shape.clone());
            let zero = self.t.number(&as_bytes, Num::I(0))?;
            let ty = super::text::type_name(&as_bytes)?;
            self.t.def(a.value, format!("arith.cmpi ne, {bytes}, {zero} : {ty}"));
        } else {
            self.t.def(a.value, tensor);
        }
        Ok(())
    }

    /// Writes `pad` over the tile if part of it lies outside.
    fn fill_outside(
        &mut self,
        a: &Access,
        w: &Window,
        shape: &[usize],
        local: &str,
        ty: &str,
    ) -> Result<()> {
        let mut any: Option<String> = None;
        for (l, s) in w.len.iter().zip(shape) {
            if let At::Value(l) = l {
                let full = self.t.index(*s as i64);
                let short = self.t.let_("short", format!("arith.cmpi slt, {l}, {full} : index"));
                any = Some(match any {
                    None => short,
                    Some(x) => self.t.let_("short", format!("arith.ori {x}, {short} : i1")),
                });
            }
        }
        let Some(any) = any else { return Ok(()) };
        let e = if a.view.elem == Elem::Bool { Elem::U8 } else { a.view.elem };
        let pad = self.t.number(&Type::Scalar(e), Num::F(a.pad))?;
        self.t.open(format!("scf.if {any} {{"));
        self.t.line(format!("linalg.fill ins({pad} : {}) outs({local} : {ty})", stored(e)?));
        self.t.close("}");
        Ok(())
    }

    fn load_scalar(&mut self, a: &Access, w: &Window) -> Result<()> {
        let e = stored(a.view.elem)?;
        let ptr = self.t.get(a.view.base)?;
        let bool_ = a.view.elem == Elem::Bool;
        let elem = if bool_ { Elem::U8 } else { a.view.elem };
        let load = format!("memref.load {ptr}[{}] : memref<?x{e}>", w.base);
        let got = match &w.inside {
            None if !bool_ => {
                self.t.def(a.value, load);
                return Ok(());
            }
            None => self.t.let_("byte", load),
            Some(inside) => {
                let pad = self.t.number(&Type::Scalar(elem), Num::F(a.pad))?;
                let name = if bool_ { self.t.fresh("byte") } else { self.t.name(a.value) };
                self.t.open(format!("{name} = scf.if {inside} -> ({e}) {{"));
                let got = self.t.let_("word", load);
                self.t.line(format!("scf.yield {got} : {e}"));
                self.t.between("} else {");
                self.t.line(format!("scf.yield {pad} : {e}"));
                self.t.close("}");
                name
            }
        };
        if bool_ {
            let zero = self.t.number(&Type::Scalar(Elem::U8), Num::I(0))?;
            self.t.def(a.value, format!("arith.cmpi ne, {got}, {zero} : i8"));
        }
        Ok(())
    }

    /// `tile.store`. A scalar is stored as a tile of one element.
    pub(super) fn store(&mut self, op: OpId) -> Result<()> {
        let a = access(self.t.f, op)?;
        let mut w = self.window(&a)?;
        let elem = a.view.elem;
        let e = stored(elem)?;
        let given = self.t.f.ty(a.value).clone();
        let mut value = self.t.get(a.value)?;
        let shape = match &given {
            Type::Tile(t) => t.shape.clone(),
            _ => vec![1],
        };
        let tensor_ty = format!("tensor<{}>", mlir::shaped(&shape, e));
        if elem == Elem::Bool {
            let (from, to) = match &given {
                Type::Tile(_) => {
                    (format!("tensor<{}>", mlir::shaped(&shape, "i1")), tensor_ty.clone())
                }
                _ => ("i1".into(), "i8".into()),
            };
            value = self.t.let_("byte", format!("arith.extui {value} : {from} to {to}"));
        }
        if !matches!(given, Type::Tile(_)) {
            let empty = self.t.let_("one", format!("tensor.empty() : {tensor_ty}"));
            value = self.t.let_(
                "one",
                format!(
                    "linalg.fill ins({value} : {e}) outs({empty} : {tensor_ty}) -> {tensor_ty}"
                ),
            );
            let len = match &w.inside {
                None => At::Known(1),
                Some(i) => {
                    let (one, zero) = (self.t.index(1), self.t.index(0));
                    At::Value(self.t.let_("n", format!("arith.select {i}, {one}, {zero} : index")))
                }
            };
            (w.lo, w.len, w.strides) = (vec![At::Known(0)], vec![len], vec![At::Known(1)]);
        }
        let (mut gm, mut gm_ty) = self.cast(&a, &w, &shape)?;
        let mut from_ty = tensor_ty.clone();
        if !w.whole(&shape) {
            from_ty = format!("tensor<{}>", sized(&w.len, e));
            let one = ones(shape.len());
            value = self.t.let_(
                "kept",
                format!(
                    "tensor.extract_slice {value}[{}] [{}] [{one}] : {tensor_ty} to {from_ty}",
                    list(&w.lo),
                    list(&w.len)
                ),
            );
            let part_ty = format!("memref<{}, {}>", sized(&w.len, e), strided(&w.strides, true));
            let zeros = vec![At::Known(0); shape.len()];
            gm = self.t.let_(
                "part",
                format!(
                    "memref.subview {gm}[{}] [{}] [{one}] : {gm_ty} to {part_ty}",
                    list(&zeros),
                    list(&w.len)
                ),
            );
            gm_ty = part_ty;
        }
        self.t.line(format!(
            "bufferization.materialize_in_destination {value} in writable {gm} : ({from_ty}, {gm_ty}) -> ()"
        ));
        Ok(())
    }
}
