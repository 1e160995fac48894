//! Weights quantised in blocks of a few bits: products with them, and lookups in them.
//!
//! A tensor of the model whose bytes hold two or four small integers each becomes a tensor of these
//! integers with the same bytes: they stay packed in the engine. What only the run knows is unpacked
//! by shifts.

use silure_ir::dialects::arith;
use silure_ir::dialects::core::{WEIGHT, constant_of};
use silure_ir::{
    Attr, Attrs, Dim, Elem, Num, Tensor, TensorType, Type, ValueId, Weight, WeightExpr, attrs,
};

use super::super::Record;
use super::super::cx::Cx;
use super::contrib;
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    contrib("GatherBlockQuantized", gather_block_quantized),
    contrib("MatMulBnb4", matmul_bnb4),
    contrib("MatMulNBits", matmul_nbits),
];

const FLOATS: &[Elem] = &[Elem::F32, Elem::F16, Elem::Bf16];

impl Cx<'_, '_> {
    /// A size in an attribute that has to be there.
    fn extent(&mut self, n: &Node<'_>, name: &'static str) -> Result<i64> {
        match self.int(n, name)? {
            Some(v) if (1..1 << 31).contains(&v) => Ok(v),
            v => Err(self
                .wrong(format!("attribute `{name}` has to be a positive number"))
                .present(format!("{v:?}"))),
        }
    }

    /// A block size: a power of two and 16 or more.
    fn block_size(&mut self, v: Option<i64>) -> Result<i64> {
        match v {
            Some(v) if (16..1 << 31).contains(&v) && v & (v - 1) == 0 => Ok(v),
            v => Err(self
                .wrong("attribute `block_size` has to be a power of two and 16 or more")
                .present(format!("{v:?}"))),
        }
    }

    /// Bytes as unsigned integers of `bits` bits, the lowest bits first; the last axis grows.
    fn unpacked(&mut self, v: ValueId, bits: i64) -> Result<ValueId> {
        self.typed(v, &[Elem::U8], "packed integers")?;
        let each = 8 / bits;
        if each == 1 {
            return Ok(v);
        }
        let mut dims = self.dims(v)?;
        let Some(last) = dims.last_mut() else {
            return Err(self.wrong("packed integers need an axis"));
        };
        *last = last.clone() * Dim::Const(each);
        let to = if bits == 2 { Elem::U2 } else { Elem::U4 };
        if let Some(v) = self.reread(v, &TensorType::new(to, dims.clone()))? {
            return Ok(v);
        }
        let mask = f64::from((1u32 << bits) - 1);
        let mut parts = Vec::new();
        for i in 0..each {
            let by = self.number(Elem::U8, (i * bits) as f64)?;
            let part = self.two(&arith::SHR, v, by)?;
            let part = self.with(&arith::BITAND, part, mask)?;
            parts.push(self.unsqueeze(part, &[dims.len()])?);
        }
        let all = self.concat(&parts, dims.len())?;
        let all = self.reshape(all, dims)?;
        self.cast(all, to)
    }

    /// A constant or weight of the model with its bytes read as another type; nothing for other values.
    fn reread(&mut self, v: ValueId, ty: &TensorType) -> Result<Option<ValueId>> {
        let Some(shape) = ty.shape() else { return Ok(None) };
        if let Some(t) = constant_of(&self.f, v).cloned() {
            let t = Tensor::new(ty.elem, &shape, (*t).clone().into_bytes());
            return Ok(Some(self.constant(t.map_err(|d| self.diag(d))?)?));
        }
        let Some(op) = self.f.def_op(v) else { return Ok(None) };
        if self.f.op(op).def.name != WEIGHT.name {
            return Ok(None);
        }
        let name = self.f.op(op).attrs.str("name").to_string();
        let Some(w) = self.module.weight(&name) else { return Ok(None) };
        let expr = match &w.expr {
            WeightExpr::File { source, offset, bytes, .. } => WeightExpr::File {
                source: source.clone(),
                offset: *offset,
                bytes: *bytes,
                ty: ty.clone(),
            },
            WeightExpr::Data(t) => {
                let t = Tensor::new(ty.elem, &shape, (**t).clone().into_bytes());
                WeightExpr::Data(t.map_err(|d| self.diag(d))?.into())
            }
            _ => return Ok(None),
        };
        let name = format!("{name}_{}", ty.elem);
        let known = self.module.weight(&name).is_some_and(|w| w.ty == *ty && w.expr == expr);
        let name = match known {
            true => name.into(),
            false => self.module.add_weight(Weight { name: name.into(), ty: ty.clone(), expr }),
        };
        let attrs = Attrs::new().with("name", Attr::Symbol(name));
        let op = self.build(&WEIGHT, &[], attrs, &[], &[Type::Tensor(ty.clone())])?;
        Ok(Some(self.f.op(op).result()))
    }

    /// The first `size` of an axis.
    fn first(&mut self, v: ValueId, axis: usize, size: Dim) -> Result<ValueId> {
        if self.dims(v)?[axis] == size {
            return Ok(v);
        }
        self.cut(v, axis, Dim::Const(0), size)
    }

    /// `v` as a matrix of these sizes, which it may have as a list too.
    fn block_matrix(&mut self, v: ValueId, rows: i64, columns: i64, what: &str) -> Result<ValueId> {
        let mut v = v;
        let (rows, columns) = (Dim::Const(rows), Dim::Const(columns));
        match self.rank(v)? {
            1 => {
                self.expect_size(&mut v, 0, &(rows.clone() * columns.clone()), what)?;
                self.reshape(v, vec![rows, columns])
            }
            2 => {
                self.expect_size(&mut v, 0, &rows, what)?;
                self.expect_size(&mut v, 1, &columns, what)?;
                Ok(v)
            }
            _ => Err(self.wrong(format!("{what} do not fit")).present(self.ty(v)?.to_string())),
        }
    }

    /// (q − zero) · scale in f32 with one scale and zero point for each block of an axis. Zero points
    /// are of the type of q or floats; without any they are `middle`.
    fn dequantised_blocks(
        &mut self,
        q: ValueId,
        scale: ValueId,
        zero: Option<ValueId>,
        middle: i64,
        (axis, block): (usize, i64),
    ) -> Result<ValueId> {
        let (elem, scale) = (self.elem(q)?, self.cast(scale, Elem::F32)?);
        let places = attrs! { axis: axis as i64, block: block };
        let zero = match zero {
            Some(z) if self.elem(z)? != elem => {
                // q · scale − zero · scale.
                let z = self.cast(z, Elem::F32)?;
                let below = self.two(&arith::MUL, z, scale)?;
                let operands = [Some(q), Some(scale), None];
                let y = self.ops("graph.dequantize", &operands, places)?[0];
                let below = self.spread(below, axis, block, &self.dims(q)?.clone())?;
                return self.two(&arith::SUB, y, below);
            }
            Some(z) => Some(z),
            None if middle == 0 => None,
            None => {
                let z = self.constant(Tensor::scalar(elem, Num::I(middle.into())))?;
                let dims = self.dims(scale)?;
                Some(self.broadcast(z, &dims)?)
            }
        };
        Ok(self.ops("graph.dequantize", &[Some(q), Some(scale), zero], places)?[0])
    }

    /// One number for each block of an axis as one for each element.
    fn spread(&mut self, v: ValueId, axis: usize, block: i64, dims: &[Dim]) -> Result<ValueId> {
        let mut wide = self.dims(v)?;
        let blocks = wide[axis].clone();
        let v = self.unsqueeze(v, &[axis + 1])?;
        wide.insert(axis + 1, Dim::Const(block));
        let v = self.broadcast(v, &wide)?;
        wide.splice(axis..=axis + 1, [blocks * Dim::Const(block)]);
        let v = self.reshape(v, wide)?;
        self.first(v, axis, dims[axis].clone())
    }
}

/// Rows of the weight are columns of the product; each row is made of blocks along what is summed.
fn matmul_nbits(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (k, rows) = (cx.extent(n, "K")?, cx.extent(n, "N")?);
    let block = cx.int(n, "block_size")?;
    let block = cx.block_size(block)?;
    let bits = cx.int_or(n, "bits", 4)?;
    cx.only(n, "weight_prepacked", 0)?;
    // A hint about speed.
    cx.ignore("accuracy_level");
    if !matches!(bits, 2 | 4 | 8) {
        return Err(cx
            .unsupported("weights of this many bits")
            .needed("2, 4 or 8")
            .present(bits.to_string()));
    }
    let (a, mut b, scale) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.input(n, 2)?);
    cx.typed(a, FLOATS, "an operand")?;
    let elem = cx.elem(a)?;
    cx.typed(scale, &[elem], "a scale")?;
    cx.typed(b, &[Elem::U8], "packed integers")?;
    let blocks = k.div_euclid(block) + i64::from(k % block != 0);
    if cx.rank(b)? != 3 {
        return Err(cx
            .wrong("the packed weight does not fit")
            .needed("[N, blocks, bytes of a block]")
            .present(cx.ty(b)?.to_string()));
    }
    for (i, d) in [rows, blocks, block * bits / 8].into_iter().enumerate() {
        cx.expect_size(&mut b, i, &Dim::Const(d), "sizes of the packed weight")?;
    }
    let q = cx.unpacked(b, bits)?;
    let q = cx.merge(q, 1, 3)?;
    let scale = cx.block_matrix(scale, rows, blocks, "the scales and the blocks")?;
    let zero = match cx.maybe(n, 3)? {
        Some(z) if cx.elem(z)? == Elem::U8 => {
            let bytes = (blocks * bits + 7) / 8;
            let z = cx.block_matrix(z, rows, bytes, "the zero points and the blocks")?;
            let z = cx.unpacked(z, bits)?;
            Some(cx.first(z, 1, Dim::Const(blocks))?)
        }
        Some(z) => {
            cx.typed(z, &[elem], "a zero point")?;
            Some(cx.block_matrix(z, rows, blocks, "the zero points and the blocks")?)
        }
        None => None,
    };
    let middle = 1 << (bits - 1);
    let w = match cx.maybe(n, 4)? {
        None => cx.dequantised_blocks(q, scale, zero, middle, (1, block))?,
        // The runtime's own answers to the rest of the combinations leave out the zero points.
        Some(group) if bits == 4 && zero.is_none_or(|z| cx.elem(z).is_ok_and(Elem::is_float)) => {
            regrouped(cx, q, (scale, zero, middle), group, blocks * block)?
        }
        Some(_) => {
            return Err(cx
                .unsupported("groups of elements with these weights")
                .needed("4 bits, and zero points that are floats or absent")
                .present(format!("{bits} bits")));
        }
    };
    let w = cx.first(w, 1, Dim::Const(k))?;
    let w = cx.transpose(w, &[1, 0])?;
    let a = cx.cast(a, Elem::F32)?;
    let y = cx.matmul(a, w)?;
    let y = match cx.maybe(n, 5)? {
        Some(bias) => {
            cx.typed(bias, &[elem], "a bias")?;
            let bias = cx.cast(bias, Elem::F32)?;
            cx.two(&arith::ADD, y, bias)?
        }
        None => y,
    };
    Ok(vec![cx.cast(y, elem)?])
}

/// (q − zero) · scale where an operand says to which block each element belongs.
fn regrouped(
    cx: &mut Cx<'_, '_>,
    q: ValueId,
    (scale, zero, middle): (ValueId, Option<ValueId>, i64),
    group: ValueId,
    padded: i64,
) -> Result<ValueId> {
    cx.typed(group, &[Elem::I32], "the group of an element")?;
    if cx.rank(group)? != 1 {
        return Err(cx.wrong("the groups have more than one axis"));
    }
    let size = cx.dims(group)?[0].clone();
    if size.as_const().is_none_or(|s| s > padded) {
        return Err(cx.wrong("the number of groups is not that of elements"));
    }
    let q = cx.first(q, 1, size)?;
    let mut q = cx.cast(q, Elem::F32)?;
    let of = |cx: &mut Cx<'_, '_>, v: ValueId| -> Result<ValueId> {
        let v = cx.cast(v, Elem::F32)?;
        cx.op("graph.gather", &[v, group], attrs! { axis: 1 })
    };
    q = match zero {
        Some(z) => {
            let z = of(cx, z)?;
            cx.two(&arith::SUB, q, z)?
        }
        None => cx.with(&arith::SUB, q, middle as f64)?,
    };
    let scale = of(cx, scale)?;
    cx.two(&arith::MUL, q, scale)
}

/// Values of the four bits: a float of two exponent bits, and quantiles of the normal distribution.
const FP4: [f32; 16] = [
    0.0,
    5.208_333_3e-3,
    0.666_666_7,
    1.0,
    0.333_333_34,
    0.5,
    0.166_666_67,
    0.25,
    -0.0,
    -5.208_333_3e-3,
    -0.666_666_7,
    -1.0,
    -0.333_333_34,
    -0.5,
    -0.166_666_67,
    -0.25,
];
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The weight is a list of its rows; blocks go across their ends. The high half of a byte is first.
fn matmul_bnb4(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (k, rows) = (cx.extent(n, "K")?, cx.extent(n, "N")?);
    let block = cx.int(n, "block_size")?;
    let block = cx.block_size(block)?;
    let table = match cx.int(n, "quant_type")? {
        Some(0) => FP4,
        Some(1) => NF4,
        t => {
            let e = cx.wrong("attribute `quant_type` is neither 0 nor 1");
            return Err(e.present(format!("{t:?}")));
        }
    };
    cx.ignore("training_mode");
    cx.only(n, "transB", 1)?;
    let (a, mut b, mut most) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.input(n, 2)?);
    cx.typed(a, FLOATS, "an operand")?;
    let elem = cx.elem(a)?;
    cx.typed(b, &[Elem::U8], "packed numbers")?;
    cx.typed(most, &[elem], "the greatest numbers of the blocks")?;
    if cx.rank(b)? != 1 || cx.rank(most)? != 1 {
        return Err(cx.wrong("the weight and the greatest numbers of its blocks are lists"));
    }
    // Both are below 2³¹.
    let count = k * rows;
    let blocks = count / block + i64::from(count % block != 0);
    cx.expect_size(&mut b, 0, &Dim::Const(count / 2 + count % 2), "bytes of the weight")?;
    cx.expect_size(&mut most, 0, &Dim::Const(blocks), "blocks of the weight")?;
    let by = cx.number(Elem::U8, 4.0)?;
    let high = cx.two(&arith::SHR, b, by)?;
    let low = cx.with(&arith::BITAND, b, 15.0)?;
    let (high, low) = (cx.unsqueeze(high, &[1])?, cx.unsqueeze(low, &[1])?);
    let code = cx.concat(&[high, low], 1)?;
    let code = cx.merge(code, 0, 2)?;
    let code = cx.first(code, 0, Dim::Const(count))?;
    let code = cx.cast(code, Elem::I32)?;
    let table = table.iter().map(|v| Num::F(f64::from(*v)));
    let table = Tensor::from_nums(Elem::F32, &[16], table).map_err(|d| cx.diag(d))?;
    let table = cx.constant(table)?;
    let w = cx.op("graph.gather", &[table, code], attrs! { axis: 0 })?;
    let most = cx.cast(most, Elem::F32)?;
    let most = cx.spread(most, 0, block, &[Dim::Const(count)])?;
    let w = cx.two(&arith::MUL, w, most)?;
    let w = cx.reshape(w, vec![Dim::Const(rows), Dim::Const(k)])?;
    let w = cx.transpose(w, &[1, 0])?;
    let a = cx.cast(a, Elem::F32)?;
    let y = cx.matmul(a, w)?;
    Ok(vec![cx.cast(y, elem)?])
}

/// The lookup comes first, then the dequantisation of what it found; a row that is not there is 0.
fn gather_block_quantized(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (gather, quantise) = (cx.int_or(n, "gather_axis", 0)?, cx.int_or(n, "quantize_axis", 1)?);
    let block = cx.int_or(n, "block_size", 128)?;
    let block = cx.block_size(Some(block))?;
    let bits = cx.int_or(n, "bits", 4)?;
    let (data, at, mut scale) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.input(n, 2)?);
    let zero = cx.maybe(n, 3)?;
    cx.typed(data, &[Elem::U8, Elem::U4, Elem::I4], "a quantised table")?;
    cx.typed(at, &[Elem::I32, Elem::I64], "an index")?;
    cx.typed(scale, FLOATS, "a scale")?;
    let (elem, to) = (cx.elem(data)?, cx.elem(scale)?);
    let packed = elem == Elem::U8;
    if !(bits == 4 || packed && matches!(bits, 2 | 8)) {
        return Err(cx.unsupported("a table of this many bits").present(bits.to_string()));
    }
    let rank = cx.rank(data)?;
    let (gather, quantise) = (cx.axis(gather, rank)?, cx.axis(quantise, rank)?);
    if packed && (gather != 0 || quantise != rank - 1 || gather == quantise) {
        return Err(cx
            .unsupported("the axes of a table of bytes")
            .needed("a lookup along the first and blocks along the last")
            .present(format!("{gather} and {quantise} of {rank} axes")));
    }
    let each = if packed { 8 / bits } else { 1 };
    if cx.rank(scale)? != rank {
        return Err(cx.wrong("the scales need the rank of the table"));
    }
    let dims = cx.dims(data)?;
    let length = dims[quantise].clone() * Dim::Const(each);
    let blocks = length.ceildiv(&Dim::Const(block));
    for (d, size) in dims.iter().enumerate() {
        let size = if d == quantise { &blocks } else { size };
        cx.expect_size(&mut scale, d, size, "sizes of the table and its scales")?;
    }
    let zero = match zero {
        Some(z) => {
            cx.typed(z, &[elem], "a zero point")?;
            let mut z = z;
            if cx.rank(z)? != rank {
                return Err(cx.wrong("the zero points need the rank of the scales"));
            }
            for (d, size) in cx.dims(scale)?.iter().enumerate() {
                let bytes = size.ceildiv(&Dim::Const(each));
                let size = if d == quantise { &bytes } else { size };
                cx.expect_size(&mut z, d, size, "sizes of the scales and the zero points")?;
            }
            Some(z)
        }
        None => None,
    };
    let (at, found) = inside(cx, at, &dims[gather])?;
    let look = |cx: &mut Cx<'_, '_>, v: ValueId, at: ValueId| -> Result<ValueId> {
        cx.op("graph.gather", &[v, at], attrs! { axis: gather as i64 })
    };
    let q = look(cx, data, at)?;
    let middle = if packed { 1 << (bits - 1) } else { 0 };
    let new = cx.rank(at)?;
    let y = if gather == quantise {
        // Each element has the scale of its own block.
        let size = cx.number(cx.elem(at)?, block as f64)?;
        let at = cx.two(&arith::DIV, at, size)?;
        let mut q = cx.cast(q, Elem::F32)?;
        if let Some(z) = zero {
            let z = look(cx, z, at)?;
            let z = cx.cast(z, Elem::F32)?;
            q = cx.two(&arith::SUB, q, z)?;
        }
        let scale = look(cx, scale, at)?;
        let scale = cx.cast(scale, Elem::F32)?;
        cx.two(&arith::MUL, q, scale)?
    } else {
        let axis = if quantise < gather { quantise } else { quantise + new - 1 };
        let (mut q, scale) = (q, look(cx, scale, at)?);
        let mut zero = zero.map(|z| look(cx, z, at)).transpose()?;
        if packed {
            q = cx.unpacked(q, bits)?;
            if let Some(z) = zero {
                let z = cx.unpacked(z, bits)?;
                zero = Some(cx.first(z, axis, blocks)?);
            }
        }
        cx.dequantised_blocks(q, scale, zero, middle, (axis, block))?
    };
    let mut along = vec![Dim::Const(1); cx.rank(y)?];
    for (i, d) in cx.dims(found)?.into_iter().enumerate() {
        along[gather + i] = d;
    }
    let found = cx.reshape(found, along)?;
    let none = cx.number(Elem::F32, 0.0)?;
    let y = cx.elementwise(&arith::SELECT, &[found, y, none], attrs! {})?;
    Ok(vec![cx.cast(y, to)?])
}

/// Indices from the front, 0 where there is no such place, and whether there is one.
fn inside(cx: &mut Cx<'_, '_>, at: ValueId, size: &Dim) -> Result<(ValueId, ValueId)> {
    let at = cx.cast(at, Elem::I64)?;
    let size = cx.op("graph.dim", &[], attrs! { value: vec![size.clone()] })?;
    let size = cx.reshape(size, vec![])?;
    let negative = cx.with(&arith::LT, at, 0.0)?;
    let back = cx.two(&arith::ADD, at, size)?;
    let at = cx.elementwise(&arith::SELECT, &[negative, back, at], attrs! {})?;
    let (low, high) = (cx.with(&arith::GE, at, 0.0)?, cx.two(&arith::LT, at, size)?);
    let found = cx.two(&arith::AND, low, high)?;
    let zero = cx.number(Elem::I64, 0.0)?;
    Ok((cx.elementwise(&arith::SELECT, &[found, at, zero], attrs! {})?, found))
}
