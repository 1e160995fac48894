//! Sparse tensors of a model file, as dense ones.
//!
//! The file lists values and their places, in ascending order: numbers in row-major order (`[n]`), or an index for each axis
//! (`[n, rank]`). Everything else is zero, or the empty string. A few bytes may stand for a tensor of any size, so the dense
//! one is charged twice its bytes (it is copied once) to [`crate::Limits::tensor_bytes`] before it is made.

use crate::error::{Code, Error, Result};
use crate::load::Model;
use crate::proto::SparseTensorProto;
use crate::tensor::{Data, Tensor, elements};
use silure_types::Elem;

impl Model {
    /// The dense tensor that `proto` describes. `at` names it in errors.
    pub fn sparse(&self, proto: SparseTensorProto<'_>, at: &str) -> Result<Tensor> {
        let bad = |what: &str| Error::new(Code::Malformed, at, format!("a sparse tensor {what}"));
        let Some(values) = proto.values() else { return Err(bad("has no values")) };
        let values = self.tensor(values, &format!("values of {at}"))?;
        let [count] = values.dims[..] else {
            return Err(bad("has values that are no list").present(format!("{:?}", values.dims)));
        };
        let listed = proto.dims();
        let rank = listed.len();
        if rank == 0 {
            return Err(bad("has no dims"));
        }
        if rank > self.limits.rank {
            return Err(Error::new(Code::Limit, at, "the tensor has too many dims")
                .needed(format!("at most {}", self.limits.rank))
                .present(rank.to_string()));
        }
        let size = |d: i64| match u64::try_from(d) {
            Ok(d) if d > 0 => Ok(d),
            _ => Err(Error::new(Code::Range, at, "a dim of a sparse tensor is not positive")
                .present(d.to_string())),
        };
        let dims: Vec<u64> = listed.iter().map(size).collect::<Result<_>>()?;
        let elem = values.elem;
        // What a string takes at least; of other types the packed bytes.
        let bytes = |n: u64| if elem.is_str() { n.checked_mul(64) } else { elem.packed_bytes(n) };
        let sized = elements(&dims).and_then(|n| Some((n, bytes(n)?, usize::try_from(n).ok()?)));
        let Some((total, need, len)) = sized.filter(|s| s.1 <= i64::MAX as u64 / 2) else {
            return Err(Error::new(Code::Range, at, "the tensor's size overflows")
                .present(format!("dims {dims:?} of {}", elem.name())));
        };
        if elem == Elem::E8m0 && count < total {
            let what = format!("a sparse tensor of {}, which has no zero", elem.name());
            return Err(Error::new(Code::Unsupported, at, what));
        }
        let places = self.places(proto, count, &dims, at)?;
        self.charge(2 * need, at)?;
        if let Data::Strings(s) = &values.data {
            let mut all = vec![String::new(); len];
            places.iter().zip(s.iter()).for_each(|(p, s)| all[*p].clone_from(s));
            return Ok(Tensor { elem, dims, data: Data::Strings(all.into()) });
        }
        let mut dense = Vec::new();
        dense.try_reserve_exact(need as usize).map_err(|_| {
            Error::new(Code::Limit, at, "not enough memory for a sparse tensor")
                .needed(format!("{need} bytes"))
        })?;
        dense.resize(need as usize, 0);
        let listed = values.bytes()?;
        for (i, p) in places.iter().enumerate() {
            let Some(bits) = elem.load(&listed, i) else {
                return Err(Error::new(Code::Internal, at, "a value is not there"));
            };
            elem.store(&mut dense, *p, bits);
        }
        Ok(Tensor { elem, dims, data: Data::Memory(dense.into()) })
    }

    /// Where the values stand in row-major order: each inside, in ascending order.
    fn places(
        &self,
        proto: SparseTensorProto<'_>,
        count: u64,
        dims: &[u64],
        at: &str,
    ) -> Result<Vec<usize>> {
        let bad = |what: &str| Error::new(Code::Malformed, at, format!("a sparse tensor {what}"));
        let Some(indices) = proto.indices() else {
            return if count == 0 { Ok(vec![]) } else { Err(bad("has no indices")) };
        };
        let indices = self.tensor(indices, &format!("indices of {at}"))?;
        if indices.elem != Elem::I64 {
            return Err(bad("has indices of another type")
                .needed("i64")
                .present(indices.elem.name()));
        }
        let axes = match indices.dims[..] {
            [n] if n == count => &[elements(dims).unwrap_or(0)][..],
            [n, rank] if n == count && rank == dims.len() as u64 => dims,
            _ => {
                return Err(bad("has indices of another shape")
                    .needed(format!("[{count}] or [{count}, {}]", dims.len()))
                    .present(format!("{:?}", indices.dims)));
            }
        };
        // Both the indices, if they are in another file, and what is made of them.
        self.charge(count.saturating_mul(8 * (axes.len() as u64 + 1)), at)?;
        let bytes = indices.bytes()?;
        let mut next = 0;
        let mut out = Vec::with_capacity(count as usize);
        for one in bytes.chunks_exact(8 * axes.len()) {
            let mut place = 0;
            for (i, size) in one.as_chunks().0.iter().zip(axes) {
                let i = i64::from_le_bytes(*i);
                match u64::try_from(i) {
                    Ok(i) if i < *size => place = place * size + i,
                    _ => {
                        return Err(Error::new(
                            Code::Range,
                            at,
                            "an index of a sparse tensor is outside",
                        )
                        .needed(format!("0 to {}", size - 1))
                        .present(i.to_string()));
                    }
                }
            }
            if place < next {
                return Err(Error::new(
                    Code::Range,
                    at,
                    "indices of a sparse tensor do not ascend",
                )
                .present(format!("element {place} behind {}", next - 1)));
            }
            next = place + 1;
            out.push(place as usize);
        }
        Ok(out)
    }
}
