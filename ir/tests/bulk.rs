//! Moves and conversions of whole tensors against their element-wise definitions.

use silure_ir::tensor::strides;
use silure_ir::{Elem, Num, Tensor, bulk};

const ELEMS: [Elem; 8] =
    [Elem::U4, Elem::I4, Elem::U8, Elem::Bf16, Elem::F16, Elem::F32, Elem::I64, Elem::E4m3fn];

/// Bit patterns that differ from element to element, most of them NaN nowhere.
fn tensor(elem: Elem, shape: &[usize]) -> Tensor {
    let n = shape.iter().product::<usize>();
    let mut t = Tensor::zeros(elem, shape).unwrap();
    for i in 0..n {
        t.set_bits(i, (i as u64).wrapping_mul(0x9E37_79B9) & (u64::MAX >> (64 - elem.bits())));
    }
    t
}

fn same(a: &Tensor, b: &Tensor) {
    assert_eq!((a.elem(), a.shape()), (b.elem(), b.shape()));
    assert!(a.bytes() == b.bytes(), "{}{:?}", a.elem(), a.shape());
}

#[test]
fn strided_reads_where_it_says() {
    for elem in ELEMS {
        for shape in [[3, 5, 7], [1, 70, 45], [2, 0, 3], [4, 1, 1]] {
            let (t, st) = (tensor(elem, &shape), strides(&shape));
            for perm in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [0, 2, 1], [1, 2, 0]] {
                let (to, steps) = (perm.map(|p| shape[p]), perm.map(|p| st[p]));
                let got = bulk::strided(&t, &to, 0, &steps).unwrap();
                let index = |at: &[usize]| at.iter().zip(&steps).map(|(a, s)| a * s).sum();
                same(&got, &t.gathered(&to, |at| Ok(Some(index(at)))).unwrap());
            }
        }
        let t = tensor(elem, &[9]);
        let want = t.gathered(&[4], |at| Ok(Some(3 + at[0]))).unwrap();
        same(&bulk::strided(&t, &[4], 3, &[1]).unwrap(), &want);
        same(&bulk::strided(&tensor(elem, &[]), &[], 0, &[]).unwrap(), &tensor(elem, &[]));
    }
}

#[test]
fn joined_parts_stand_side_by_side() {
    for elem in ELEMS {
        let (a, b) = (tensor(elem, &[3, 5, 2]), tensor(elem, &[3, 1, 2]));
        let got = bulk::joined(&[a.clone(), b.clone()], elem, &[3, 6, 2], 1).unwrap();
        for (i, j, k) in
            (0..3).flat_map(|i| (0..6).flat_map(move |j| (0..2).map(move |k| (i, j, k))))
        {
            let from = if j < 5 { a.bits((i * 5 + j) * 2 + k) } else { b.bits(i * 2 + k) };
            assert_eq!(got.bits((i * 6 + j) * 2 + k), from, "{elem} {i} {j} {k}");
        }
        let none = bulk::joined(&[], elem, &[0, 2], 0).unwrap();
        assert!(none.is_empty());
    }
}

#[test]
fn conversions_are_those_of_each_element() {
    for elem in ELEMS {
        for n in [5, 70_000] {
            let t = tensor(elem, &[n]);
            for to in [Elem::F32, Elem::F16, Elem::I8, Elem::I4] {
                same(&bulk::converted(&t, to).unwrap(), &t.map(to, |v| v).unwrap());
            }
        }
    }
}

#[test]
fn products_repeat_the_second() {
    let numbers = |elem, shape: &[usize]| {
        let n = shape.iter().product::<usize>();
        Tensor::from_nums(elem, shape, (0..n).map(|i| Num::F(i as f64 * 0.37 - 2.0))).unwrap()
    };
    for elem in [Elem::F32, Elem::F64, Elem::I32] {
        for other in [vec![3, 4], vec![3, 1], vec![1, 4], vec![4], vec![1], vec![]] {
            let (a, b) = (numbers(elem, &[2, 3, 4]), numbers(elem, &other));
            let got = bulk::multiplied(a.clone(), &b).unwrap();
            for at in 0..24 {
                let (r, c) = (at / 4 % 3, at % 4);
                let j = match other.as_slice() {
                    [3, 4] => r * 4 + c,
                    [3, 1] => r,
                    [1, 4] | [4] => c,
                    _ => 0,
                };
                let want = Tensor::scalar(
                    elem,
                    match (a.get(at), b.get(j)) {
                        (Num::I(x), Num::I(y)) => Num::I(x * y),
                        (x, y) => Num::F(x.f() * y.f()),
                    },
                );
                assert_eq!(got.bits(at), want.bits(0), "{elem} {other:?} {at}");
            }
        }
    }
}

#[test]
fn lent_bytes_are_those_of_everybody_until_one_changes_them() {
    let file = bytes::Bytes::from(vec![9, 1, 2, 3]);
    let mut lent = Tensor::lent(Elem::U8, &[3], file.slice(1..)).unwrap();
    let own = Tensor::new(Elem::U8, &[3], vec![1, 2, 3]).unwrap();
    assert_eq!(lent, own);
    assert_eq!(lent.bytes().as_ptr(), file[1..].as_ptr(), "nothing is copied");
    let other = lent.clone();
    lent.set(0, Num::I(7));
    assert_eq!(
        (lent.bytes(), other.bytes(), &file[..]),
        (&[7, 2, 3][..], &[1, 2, 3][..], &[9, 1, 2, 3][..])
    );
    assert_eq!(other.into_bytes(), [1, 2, 3]);
    assert!(Tensor::lent(Elem::U8, &[5], file).is_err());
}
