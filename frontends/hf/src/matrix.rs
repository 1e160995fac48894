//! Matrices of the checkpoint in products and lookups: dense ones, 8-bit floats that are scaled by blocks, and
//! blocks of integers of GGUF files, which both stay as they are stored.

use silure_ir::dialects::graph;
use silure_ir::ggml::{Form, Part};
use silure_ir::{ValueId, WeightExpr, attrs};
use silure_types::Elem;

use crate::error::Result;
use crate::net::Net;
use crate::quantised;

/// Names and rows of matrices that stand one above the other.
type Parts = [(String, usize)];

/// How a matrix is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dense,
    Floats8,
    Blocks(Form),
}

/// A matrix as integers or 8-bit floats: q · scale − offset by blocks of a row.
struct Narrow {
    q: ValueId,
    scale: ValueId,
    offset: Option<ValueId>,
    block: usize,
}

impl Net<'_> {
    /// x [n, input] · Wᵀ, W named `name` and made of the parts.
    pub fn product(
        &mut self,
        x: ValueId,
        parts: &Parts,
        input: usize,
        name: &str,
    ) -> Result<ValueId> {
        let first = parts.first().map(|p| self.kind(p, input));
        if parts.iter().any(|p| Some(self.kind(p, input)) != first) {
            // Each in its own form, side by side.
            let all = parts.iter().map(|p| self.product(x, std::slice::from_ref(p), input, &p.0));
            let all = all.collect::<Result<Vec<_>>>()?;
            return self.concat(&all, 1);
        }
        if let Some(w) = self.narrow(parts, input, name)? {
            let of = [Some(x), Some(w.q), Some(w.scale), None, w.offset];
            return self.slots(&graph::MATMUL_BLOCKS, &of, attrs! { block: w.block as i64 });
        }
        let w = self.weight(name, |net| {
            let all = parts.iter().map(|(part, rows)| net.tensor(part, &[*rows, input]));
            Ok(above(all.collect::<Result<Vec<_>>>()?))
        })?;
        self.times(x, w)
    }

    /// The rows of a table at `ids`, in f32.
    pub fn lookup(
        &mut self,
        table: &str,
        [rows, columns]: [usize; 2],
        ids: ValueId,
    ) -> Result<ValueId> {
        match self.narrow(&[(table.into(), rows)], columns, table)? {
            Some(w) => {
                let of = [Some(w.q), Some(w.scale), Some(ids), None, w.offset];
                self.slots(&graph::GATHER_BLOCKS, &of, attrs! { block: w.block as i64 })
            }
            None => {
                let table = self.stored(table, &[rows, columns])?;
                self.op(&graph::GATHER, &[table, ids], attrs! { axis: 0i64 })
            }
        }
    }

    fn kind(&self, (name, rows): &(String, usize), columns: usize) -> Kind {
        let Some(t) = self.raw(name, &[*rows, columns]) else { return Kind::Dense };
        match &t.made {
            _ if t.elem == Elem::E4m3fn => Kind::Floats8,
            Some(WeightExpr::Unpack(_, form, Part::Values)) => Kind::Blocks(*form),
            _ => Kind::Dense,
        }
    }

    /// The weights of a matrix whose parts are all stored in the first one's form, if it is a narrow one.
    fn narrow(&mut self, parts: &Parts, columns: usize, name: &str) -> Result<Option<Narrow>> {
        match parts.first().map_or(Kind::Dense, |p| self.kind(p, columns)) {
            Kind::Dense => Ok(None),
            Kind::Floats8 => {
                let Some([q, s]) = self.floats8(parts, columns)? else { return Ok(None) };
                let q = self.weight(name, |_| Ok(q))?;
                let scale = self.weight(&quantised::scales_name(name), |_| Ok(s))?;
                Ok(Some(Narrow { q, scale, offset: None, block: quantised::BLOCK }))
            }
            Kind::Blocks(form) => {
                let mut raw = vec![];
                for (part, rows) in parts {
                    // Checks the shape and marks the tensor as used.
                    if let WeightExpr::Unpack(e, ..) = self.tensor(part, &[*rows, columns])? {
                        raw.push(*e);
                    }
                }
                let raw = above(raw);
                let mut of = |part: Part, name: String| {
                    let raw = Box::new(raw.clone());
                    self.weight(&name, |_| Ok(WeightExpr::Unpack(raw, form, part)))
                };
                let q = of(Part::Codes, name.into())?;
                let scale = of(Part::Scales, format!("{name}.scales"))?;
                let offset = form.has_offsets();
                let offset = offset.then(|| of(Part::Offsets, format!("{name}.offsets")));
                Ok(Some(Narrow { q, scale, offset: offset.transpose()?, block: form.group() }))
            }
        }
    }
}

/// Matrices one above the other.
pub(crate) fn above(mut all: Vec<WeightExpr>) -> WeightExpr {
    match all.len() {
        1 => all.remove(0),
        _ => WeightExpr::Concat(all.into(), 0),
    }
}
