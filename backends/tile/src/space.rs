//! Iteration spaces with as few axes as their operands allow.

use silure_ir::Dim;

/// An iteration space whose axes are merged, and how operands lie in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Space {
    /// Sizes of the axes; at least one.
    pub axes: Vec<Dim>,
    /// For each operand the axes that it follows, in the order of its memory.
    pub operands: Vec<Vec<usize>>,
}

impl Space {
    /// The space `shape` with operands whose axis d follows axis `maps[i][d]`, −1 for one of size 1.
    ///
    /// Axes of size 1 go, but those of `keep`. Neighbours become one axis where every operand follows both, one right behind the
    /// other, or neither.
    pub fn new(shape: &[Dim], maps: &[Vec<i64>], keep: &[usize]) -> Space {
        let stays = |a: &usize| shape[*a] != Dim::Const(1) || keep.contains(a);
        let kept: Vec<usize> = (0..shape.len()).filter(stays).collect();
        // An operand's axes of size 1 are not among those kept, or it repeats them.
        let follows: Vec<Vec<usize>> = maps
            .iter()
            .map(|m| m.iter().filter_map(|a| kept.iter().position(|k| *k as i64 == *a)).collect())
            .collect();
        let joined = |a: usize| {
            follows.iter().all(|f| {
                let at = |a| f.iter().position(|x| *x == a);
                match (at(a), at(a + 1)) {
                    (None, None) => true,
                    (Some(i), Some(j)) => j == i + 1,
                    _ => false,
                }
            })
        };
        let (mut axes, mut group): (Vec<Dim>, Vec<usize>) = (vec![], vec![]);
        for (i, a) in kept.iter().enumerate() {
            match axes.last_mut().filter(|_| i > 0 && joined(i - 1)) {
                Some(last) => *last = last.clone() * shape[*a].clone(),
                None => axes.push(shape[*a].clone()),
            }
            group.push(axes.len() - 1);
        }
        if axes.is_empty() {
            axes.push(Dim::Const(1));
        }
        let operands = follows
            .into_iter()
            .map(|f| {
                let mut f: Vec<usize> = f.into_iter().map(|a| group[a]).collect();
                f.dedup();
                f
            })
            .collect();
        Space { axes, operands }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_go_together_are_one_axis() {
        let n = || Dim::sym("n");
        let c = Dim::Const;
        let space = |shape: &[Dim], maps: &[&[i64]]| {
            let maps: Vec<Vec<i64>> = maps.iter().map(|m| m.to_vec()).collect();
            let s = Space::new(shape, &maps, &[]);
            (s.axes, s.operands)
        };
        let dense = space(&[n(), c(3), c(4)], &[&[0, 1, 2], &[0, 1, 2]]);
        assert_eq!(dense, (vec![n() * c(12)], vec![vec![0], vec![0]]));
        // A row, a column, and one element.
        let repeated = space(&[n(), c(3), c(4)], &[&[1, 2], &[0, -1, -1], &[]]);
        assert_eq!(repeated, (vec![n(), c(12)], vec![vec![1], vec![0], vec![]]));
        let crossed = space(&[n(), c(3), c(4)], &[&[0, 1, 2], &[2, 0, 1]]);
        assert_eq!(crossed, (vec![n() * c(3), c(4)], vec![vec![0, 1], vec![1, 0]]));
        assert_eq!(space(&[], &[&[]]), (vec![c(1)], vec![vec![]]));
        assert_eq!(space(&[c(1), n(), c(1)], &[&[0, 1, 2]]), (vec![n()], vec![vec![0]]));
    }
}
