//! Dims that have to agree, and broadcasting.
//!
//! Two dims that are written differently may still be equal, because exporters name one size twice.
//! [`Cx::unify`] then replaces one symbol by the other throughout the function (and says so), or asks
//! for a check at run time, which [`Cx::refine`] emits: a reshape that changes one dim's spelling and
//! that fails unless the two are equal.

use silure_ir::entity::Entity;
use silure_ir::{Attr, Attrs, Dim, OpId, ValueId};

use super::cx::Cx;
use crate::error::Result;

/// What became of two dims that have to agree.
pub(super) enum Agreed {
    /// They are one dim now; types have to be read anew.
    Same,
    /// They are equal only if the run says so: values get this dim by [`Cx::refine`].
    Check(Dim),
}

impl Cx<'_, '_> {
    /// Makes two dims agree. `what` names them in errors and notes.
    pub fn unify(&mut self, a: &Dim, b: &Dim, what: &str) -> Result<Agreed> {
        if a == b {
            return Ok(Agreed::Same);
        }
        let differ = |cx: &Self| {
            Err(cx.wrong(format!("{what} differ")).needed(a.to_string()).present(b.to_string()))
        };
        if let (Some(_), Some(_)) = (a.as_const(), b.as_const()) {
            return differ(self);
        }
        let range = |d: &Dim| d.bounds(&|s| self.f.symbol_range(s));
        let ((a0, a1), (b0, b1)) = (range(a), range(b));
        if a1 < b0 || b1 < a0 {
            return differ(self);
        }
        for (x, y) in [(a, b), (b, a)] {
            if self.replaceable(x, y) {
                let (x, y) = (x.clone(), y.clone());
                self.substitute(&x, &y, what);
                return Ok(Agreed::Same);
            }
        }
        let constant = [a, b].into_iter().find(|d| d.as_const().is_some());
        // The signature's own symbols are what a reader expects to see.
        let bare = [a, b].into_iter().find(|d| d.as_sym().is_some_and(|s| !self.runtime(s)));
        Ok(Agreed::Check(constant.or(bare).unwrap_or(a).clone()))
    }

    fn runtime(&self, sym: &str) -> bool {
        self.f.symbols.iter().any(|s| *s.name == *sym && s.runtime)
    }

    /// Whether the symbol `x` may be replaced by `y` everywhere.
    fn replaceable(&self, x: &Dim, y: &Dim) -> bool {
        let Some(sym) = x.as_sym() else { return false };
        if self.frozen.contains(sym) {
            return false;
        }
        if self.runtime(sym) {
            // Its op's result is checked against `y` at run time.
            return y.symbols().iter().all(|s| !self.runtime(s));
        }
        match y.as_sym() {
            Some(other) => {
                !self.runtime(other)
                    && (self.anonymous.contains(sym) || !self.anonymous.contains(other))
            }
            None => y.as_const().is_some(),
        }
    }

    fn substitute(&mut self, x: &Dim, y: &Dim, what: &str) {
        let Some(sym) = x.as_sym().map(str::to_string) else { return };
        let declared = self.f.symbols.iter().position(|s| *s.name == *sym);
        if let Some(i) = declared {
            let old = self.f.symbols.remove(i);
            if !old.runtime {
                let at = self.at.clone();
                self.note(format!("dim `{x}` has to equal `{y}`: {what} at {at}"));
                if let Some(other) = y.as_sym()
                    && let Some(s) = self.f.symbols.iter_mut().find(|s| *s.name == *other)
                {
                    (s.min, s.max) = (s.min.max(old.min), s.max.min(old.max));
                    if s.multiple % old.multiple != 0 {
                        // Both divide it; their product over the common part does too.
                        let common = gcd(s.multiple, old.multiple);
                        s.multiple = (s.multiple / common).saturating_mul(old.multiple);
                    }
                }
            }
        }
        let f = |s: &str| (s == sym).then(|| y.clone());
        for i in 0..self.f.value_slots() {
            self.f.subst(ValueId::new(i), &f);
        }
        for i in 0..self.f.op_slots() {
            self.f.op_mut(OpId::new(i)).attrs.subst(&f);
        }
    }

    /// `v` with dim `axis` spelled as `to`; a run in which the sizes differ ends with an error.
    pub fn refine(&mut self, v: ValueId, axis: usize, to: &Dim) -> Result<ValueId> {
        let mut dims = self.dims(v)?;
        if dims[axis] == *to {
            return Ok(v);
        }
        dims[axis] = to.clone();
        self.reshape(v, dims)
    }

    /// The size of one axis, which must be there.
    fn size_at(&self, v: ValueId, axis: usize, what: &str) -> Result<Dim> {
        let dims = self.dims(v)?;
        dims.get(axis).cloned().ok_or_else(|| {
            self.wrong(format!("{what}: an axis is missing"))
                .needed(format!("at least {} axes", axis + 1))
                .present(dims.len().to_string())
        })
    }

    /// Makes axis `i` of `a` and axis `j` of `b` one dim.
    pub fn same_size(
        &mut self,
        a: &mut ValueId,
        i: usize,
        b: &mut ValueId,
        j: usize,
        what: &str,
    ) -> Result<()> {
        let (x, y) = (self.size_at(*a, i, what)?, self.size_at(*b, j, what)?);
        if let Agreed::Check(d) = self.unify(&x, &y, what)? {
            *a = self.refine(*a, i, &d)?;
            *b = self.refine(*b, j, &d)?;
        }
        Ok(())
    }

    /// Makes dim `axis` of `v` equal to `to` where it is not so already.
    pub fn expect_size(
        &mut self,
        v: &mut ValueId,
        axis: usize,
        to: &Dim,
        what: &str,
    ) -> Result<()> {
        let x = self.size_at(*v, axis, what)?;
        if let Agreed::Check(_) = self.unify(&x, to, what)? {
            *v = self.refine(*v, axis, to)?;
        }
        Ok(())
    }

    /// A reshape to known dims; nothing if the shape is the same.
    pub fn reshape(&mut self, v: ValueId, dims: Vec<Dim>) -> Result<ValueId> {
        if self.dims(v)? == dims {
            return Ok(v);
        }
        self.op("graph.reshape", &[v], Attrs::new().with("shape", Attr::Dims(dims)))
    }

    /// A transpose; nothing if the permutation is the identity.
    pub fn transpose(&mut self, v: ValueId, perm: &[usize]) -> Result<ValueId> {
        if perm.iter().enumerate().all(|(i, p)| i == *p) {
            return Ok(v);
        }
        let perm: Vec<i64> = perm.iter().map(|p| *p as i64).collect();
        self.op("graph.transpose", &[v], Attrs::new().with("perm", perm))
    }

    /// A broadcast to known dims; nothing if the shape is the same.
    pub fn broadcast(&mut self, v: ValueId, dims: &[Dim]) -> Result<ValueId> {
        if self.dims(v)? == dims {
            return Ok(v);
        }
        self.op("graph.broadcast", &[v], Attrs::new().with("shape", Attr::Dims(dims.to_vec())))
    }

    /// The values with one common shape, by numpy's rules for axes `0..rank - keep`; the last `keep`
    /// axes of each stay. A dim is repeated only if it is 1 in the model; two others have to be equal.
    pub fn broadcast_all(&mut self, values: &[ValueId], keep: usize) -> Result<Vec<ValueId>> {
        let mut values = values.to_vec();
        let lead = |cx: &Self, v: ValueId| Ok(cx.rank(v)?.saturating_sub(keep));
        let mut rank = 0;
        for v in &values {
            rank = rank.max(lead(self, *v)?);
        }
        // Axes from the last to the first, so that those of lower ranks align.
        for back in 1..=rank {
            let mut target: Option<usize> = None;
            for i in 0..values.len() {
                let n = lead(self, values[i])?;
                if back > n || self.dims(values[i])?[n - back] == Dim::Const(1) {
                    continue;
                }
                let Some(t) = target else {
                    target = Some(i);
                    continue;
                };
                let m = lead(self, values[t])?;
                let (mut a, mut b) = (values[t], values[i]);
                self.same_size(&mut a, m - back, &mut b, n - back, "sizes of broadcast operands")?;
                (values[t], values[i]) = (a, b);
            }
            // A later check may have changed the spelling that earlier operands have.
            if let Some(t) = target {
                let m = lead(self, values[t])?;
                let d = self.dims(values[t])?[m - back].clone();
                for v in &mut values {
                    let n = lead(self, *v)?;
                    if back <= n && self.dims(*v)?[n - back] != Dim::Const(1) {
                        *v = self.refine(*v, n - back, &d)?;
                    }
                }
            }
        }
        let mut shape = vec![Dim::Const(1); rank];
        for v in &values {
            let n = lead(self, *v)?;
            for (i, d) in self.dims(*v)?[..n].iter().enumerate() {
                if *d != Dim::Const(1) {
                    shape[rank - n + i] = d.clone();
                }
            }
        }
        let mut out = Vec::new();
        for v in values {
            let n = lead(self, v)?;
            let mut dims = shape.clone();
            dims.extend_from_slice(&self.dims(v)?[n..]);
            out.push(self.broadcast(v, &dims)?);
        }
        Ok(out)
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
