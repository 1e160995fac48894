//! Typed views of a kernel's `sizes`: one declaration gives the struct, its order and its checks.
//!
//! Invariant: `X::parse(&x.to_vec()) == Some(x)`, and `to_vec().len() == X::LEN`. A `usize` field
//! refuses negative numbers, a `bool` refuses all but 0 and 1, `i64` takes anything (strides),
//! `f32` and `f64` travel as their bits.
//!
//! ```
//! use silure_kernels_cpu::rows::softmax::Softmax;
//! let s = Softmax { rows: 2, len: 3 };
//! assert_eq!(s.to_vec(), [2, 3]);
//! assert_eq!(Softmax::parse(&[2, -3]), None);
//! ```

/// One field of a sizes struct: how many slots it takes and how it is stored in them.
pub trait SizeField: Sized {
    /// Slots taken.
    const LEN: usize;
    /// Appends the slots.
    fn put(&self, out: &mut Vec<i64>);
    /// Reads the slots from the front of `s`, which has at least [`Self::LEN`] of them.
    fn get(s: &[i64]) -> Option<Self>;
}

impl SizeField for i64 {
    const LEN: usize = 1;
    fn put(&self, out: &mut Vec<i64>) {
        out.push(*self);
    }
    #[inline(always)]
    fn get(s: &[i64]) -> Option<Self> {
        s.first().copied()
    }
}

impl SizeField for usize {
    const LEN: usize = 1;
    fn put(&self, out: &mut Vec<i64>) {
        out.push(*self as i64);
    }
    #[inline(always)]
    fn get(s: &[i64]) -> Option<Self> {
        s.first().and_then(|&v| usize::try_from(v).ok())
    }
}

impl SizeField for bool {
    const LEN: usize = 1;
    fn put(&self, out: &mut Vec<i64>) {
        out.push(*self as i64);
    }
    #[inline(always)]
    fn get(s: &[i64]) -> Option<Self> {
        match s.first() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        }
    }
}

impl SizeField for f32 {
    const LEN: usize = 1;
    fn put(&self, out: &mut Vec<i64>) {
        out.push(self.to_bits() as i64);
    }
    #[inline(always)]
    fn get(s: &[i64]) -> Option<Self> {
        s.first().and_then(|&v| u32::try_from(v).ok()).map(f32::from_bits)
    }
}

impl SizeField for f64 {
    const LEN: usize = 1;
    fn put(&self, out: &mut Vec<i64>) {
        out.push(self.to_bits() as i64);
    }
    #[inline(always)]
    fn get(s: &[i64]) -> Option<Self> {
        s.first().map(|&v| f64::from_bits(v as u64))
    }
}

impl<T: SizeField + Copy + Default, const N: usize> SizeField for [T; N] {
    const LEN: usize = N * T::LEN;
    fn put(&self, out: &mut Vec<i64>) {
        self.iter().for_each(|v| v.put(out));
    }
    #[inline(always)]
    fn get(s: &[i64]) -> Option<Self> {
        let mut out = [T::default(); N];
        for (i, v) in out.iter_mut().enumerate() {
            *v = T::get(s.get(i * T::LEN..)?)?;
        }
        Some(out)
    }
}

/// Declares a sizes struct: fields in the order in which they stand in `sizes`.
macro_rules! sizes {
    ($(#[$m:meta])* pub struct $name:ident { $($(#[$fm:meta])* pub $f:ident: $t:ty,)* }) => {
        $(#[$m])*
        #[derive(Clone, Copy, PartialEq, Debug)]
        pub struct $name { $($(#[$fm])* pub $f: $t,)* }

        impl $name {
            /// Number of slots in `sizes`.
            pub const LEN: usize = 0 $(+ <$t as $crate::sizes::SizeField>::LEN)*;

            /// Field names with the slots each takes, in order: for a compiler that fills them with
            /// expressions instead of numbers.
            pub const FIELDS: &'static [(&'static str, usize)] =
                &[$((stringify!($f), <$t as $crate::sizes::SizeField>::LEN)),*];

            /// The slots, in order.
            pub fn to_vec(&self) -> Vec<i64> {
                let mut out = Vec::with_capacity(Self::LEN);
                $($crate::sizes::SizeField::put(&self.$f, &mut out);)*
                out
            }

            /// Reads the slots back; `None` if there are too few or one has no meaning.
            #[inline]
            pub fn parse(s: &[i64]) -> Option<Self> {
                if s.len() < Self::LEN {
                    return None;
                }
                let mut at = 0usize;
                $(
                    let $f = <$t as $crate::sizes::SizeField>::get(&s[at..])?;
                    at += <$t as $crate::sizes::SizeField>::LEN;
                )*
                let _ = at;
                Some($name { $($f,)* })
            }
        }

        impl $crate::sizes::SizeField for $name {
            const LEN: usize = <$name>::LEN;
            fn put(&self, out: &mut Vec<i64>) {
                out.extend(self.to_vec());
            }
            fn get(s: &[i64]) -> Option<Self> {
                Self::parse(s)
            }
        }
    };
}
