//! Iteration spaces: which axes of a map can be walked as one.
//!
//! Two neighbouring axes merge if every operand steps through them as through one, either contiguous
//! over both or repeated over both; axes of size 1 vanish. Typical maps become one axis, or rows of
//! one inner axis. All of it is symbolic: strides are [`Dim`]s.
//!
//! ```
//! use silure_cpu::codegen::Space;
//! use silure_ir::Dim;
//! let (b, s) = (Dim::sym("b"), Dim::sym("s"));
//! // y[b, s, 64] = f(x[b, s, 64], bias[64])
//! let shape = [b, s, Dim::Const(64)];
//! let x = Space::strides_of(&shape, &[0, 1, 2], 3);
//! let bias = Space::strides_of(&shape[2..], &[2], 3);
//! let space = Space::collapse(&shape, &[x, bias], 3);
//! assert_eq!(space.sizes.len(), 2);
//! assert_eq!(space.sizes[0].to_string(), "b*s");
//! ```

use silure_ir::Dim;

/// A collapsed iteration space: its axes, outermost first, and how operands follow them.
#[derive(Clone, PartialEq, Debug)]
pub struct Space {
    /// Extents.
    pub sizes: Vec<Dim>,
    /// Number of leading axes that come from before the barrier (see [`Space::collapse`]).
    pub leading: usize,
    /// Elements that operand `i` moves for one step along each axis; 0 repeats it.
    pub strides: Vec<Vec<Dim>>,
}

impl Space {
    /// Strides along the `rank` axes of a space of a dense operand with those sizes, whose axis `d`
    /// follows axis `map[d]` of the space (−1: none).
    pub fn strides_of(dims: &[Dim], map: &[i64], rank: usize) -> Vec<Dim> {
        let mut out = vec![Dim::Const(0); rank];
        let mut step = Dim::Const(1);
        for (d, &axis) in dims.iter().zip(map).rev() {
            if let Some(o) = usize::try_from(axis).ok().and_then(|a| out.get_mut(a)) {
                *o = o.clone() + step.clone();
            }
            step = step * d.clone();
        }
        out
    }

    /// Merges what can be. Axes before `barrier` are never merged with those from it on.
    pub fn collapse(shape: &[Dim], strides: &[Vec<Dim>], barrier: usize) -> Space {
        let mut out = Space { sizes: vec![], leading: 0, strides: vec![Vec::new(); strides.len()] };
        for (a, size) in shape.iter().enumerate() {
            if a == barrier {
                out.leading = out.sizes.len();
            }
            if *size == Dim::Const(1) {
                continue;
            }
            let own = out.sizes.len() - if a >= barrier { out.leading } else { 0 };
            let merges = own > 0
                && strides.iter().zip(&out.strides).all(|(s, o)| {
                    o.last().is_some_and(|outer| *outer == s[a].clone() * size.clone())
                });
            match out.sizes.last_mut() {
                Some(last) if merges => {
                    *last = last.clone() * size.clone();
                    for (s, o) in strides.iter().zip(&mut out.strides) {
                        if let Some(o) = o.last_mut() {
                            *o = s[a].clone();
                        }
                    }
                }
                _ => {
                    out.sizes.push(size.clone());
                    for (s, o) in strides.iter().zip(&mut out.strides) {
                        o.push(s[a].clone());
                    }
                }
            }
        }
        if barrier >= shape.len() {
            out.leading = out.sizes.len();
        }
        out
    }

    /// The axis that the innermost loop walks: along which most operands are contiguous (operands
    /// from `results` on count twice: scattered stores cost more than gathered loads), the last of
    /// equals.
    pub fn inner(&self, results: usize) -> usize {
        let score = |a: usize| -> usize {
            self.strides
                .iter()
                .enumerate()
                .filter(|(_, s)| s[a] == Dim::Const(1))
                .map(|(i, _)| if i >= results { 2 } else { 1 })
                .sum()
        };
        (0..self.sizes.len()).max_by_key(|&a| (score(a), a)).unwrap_or(0)
    }
}
