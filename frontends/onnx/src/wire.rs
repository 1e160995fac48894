//! The protobuf encoding: bytes as fields, lent and never copied.
//!
//! [`Reader`] takes one field after the other and says what is wrong and where. The walk over a new file
//! ([`crate::scan`]) goes through all of its bytes with it; what the walk has accepted is later read again, piece by
//! piece as it is asked for, through [`Raw`], for which a fault is the end of the message.

use std::marker::PhantomData;

/// The content of a field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content<'m> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(&'m [u8]),
}

/// What is wrong with bytes, and at which of them.
#[derive(Debug)]
pub(crate) struct Fault {
    pub at: usize,
    pub what: &'static str,
    /// Bytes needed and present.
    pub sizes: Option<(u64, usize)>,
}

/// Reads fields; `pos` is where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'m> {
    bytes: &'m [u8],
    pub pos: usize,
    end: usize,
}

impl<'m> Reader<'m> {
    /// Reads `bytes` from `pos` up to `end`, which is inside.
    pub fn new(bytes: &'m [u8], pos: usize, end: usize) -> Reader<'m> {
        Reader { bytes, pos, end }
    }

    fn take<const N: usize>(&mut self, start: usize) -> Result<[u8; N], Fault> {
        let rest = &self.bytes[self.pos..self.end];
        let Some(first) = rest.first_chunk() else {
            return Err(Fault { at: start, what: "a number is cut off", sizes: None });
        };
        self.pos += N;
        Ok(*first)
    }

    /// A number of at most 64 bits in groups of seven.
    pub fn varint(&mut self) -> Result<u64, Fault> {
        let start = self.pos;
        let mut value = 0u64;
        for shift in 0..10 {
            let [byte] = self.take(start)?;
            if shift == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7F) << (7 * shift);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Fault { at: start, what: "a number is longer than 64 bits", sizes: None })
    }

    /// The next field: its number and what it holds; `None` at the end.
    pub fn field(&mut self) -> Result<Option<(u64, Content<'m>)>, Fault> {
        if self.pos >= self.end {
            return Ok(None);
        }
        let start = self.pos;
        let fault = |what| Fault { at: start, what, sizes: None };
        let key = self.varint()?;
        let field = key >> 3;
        if field == 0 || key > u64::from(u32::MAX) {
            return Err(fault("a field has no valid number"));
        }
        let content = match key & 7 {
            0 => Content::Varint(self.varint()?),
            1 => Content::Fixed64(self.take(start)?),
            5 => Content::Fixed32(self.take(start)?),
            2 => {
                let len = self.varint()?;
                let left = self.end - self.pos;
                let Some(n) = usize::try_from(len).ok().filter(|n| *n <= left) else {
                    let what = "a field is longer than what is left";
                    return Err(Fault { at: start, what, sizes: Some((len, left)) });
                };
                self.pos += n;
                Content::Bytes(&self.bytes[self.pos - n..self.pos])
            }
            _ => return Err(fault("a field has an unknown wire type")),
        };
        Ok(Some((field, content)))
    }
}

/// A number as fields and packed lists hold it.
pub(crate) trait Scalar: Copy {
    /// The number in a field of its own.
    fn of(content: Content<'_>) -> Option<Self>;
    /// The next of a packed list.
    fn next(list: &mut Reader<'_>) -> Result<Self, Fault>;
}

macro_rules! scalars {
    ($($ty:ty, $content:ident, $read:ident, $from:expr;)*) => {
        $(impl Scalar for $ty {
            fn of(content: Content<'_>) -> Option<$ty> {
                let from: fn(_) -> $ty = $from;
                if let Content::$content(v) = content { Some(from(v)) } else { None }
            }
            fn next(list: &mut Reader<'_>) -> Result<$ty, Fault> {
                let from: fn(_) -> $ty = $from;
                let at = list.pos;
                list.$read(at).map(from)
            }
        })*
    };
}

impl Reader<'_> {
    fn number(&mut self, _: usize) -> Result<u64, Fault> {
        self.varint()
    }
}

// Numbers of 32 bits are the low half of what is written, as in every reader of the format.
scalars! {
    u64, Varint, number, |v: u64| v;
    i64, Varint, number, |v: u64| v as i64;
    i32, Varint, number, |v: u64| v as i32;
    f32, Fixed32, take, f32::from_le_bytes;
    f64, Fixed64, take, f64::from_le_bytes;
}

/// The bytes of one message of an accepted file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Raw<'m>(pub &'m [u8]);

impl<'m> Raw<'m> {
    /// The contents of all fields.
    pub fn all(self) -> impl Iterator<Item = (u64, Content<'m>)> + Clone + use<'m> {
        let mut reader = Reader::new(self.0, 0, self.0.len());
        std::iter::from_fn(move || reader.field().ok().flatten())
    }

    /// The contents of field `number`, in order.
    pub fn fields(self, number: u64) -> impl Iterator<Item = Content<'m>> + Clone + use<'m> {
        self.all().filter(move |(n, _)| *n == number).map(|(_, content)| content)
    }

    /// The bytes in each field `number`.
    pub fn blocks(self, number: u64) -> impl Iterator<Item = &'m [u8]> + Clone + use<'m> {
        self.fields(number).filter_map(|c| if let Content::Bytes(b) = c { Some(b) } else { None })
    }

    /// A number: where it is written again the last one counts.
    pub fn scalar<T: Scalar>(self, number: u64) -> Option<T> {
        self.fields(number).filter_map(T::of).last()
    }
}

/// A text of an accepted file, which is UTF-8.
pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// A list of numbers, each in a field of its own, or packed.
#[derive(Clone, Copy, Debug)]
pub struct List<'m, T> {
    message: Raw<'m>,
    field: u64,
    of: PhantomData<T>,
}

#[expect(private_bounds, reason = "a list is of the numbers that the format has")]
impl<'m, T: Scalar> List<'m, T> {
    pub(crate) fn new(message: Raw<'m>, field: u64) -> List<'m, T> {
        List { message, field, of: PhantomData }
    }

    /// The numbers in order.
    pub fn iter(self) -> impl Iterator<Item = T> + use<'m, T> {
        self.message.fields(self.field).flat_map(|content| {
            let packed = if let Content::Bytes(b) = content { b } else { &[] };
            let mut list = Reader::new(packed, 0, packed.len());
            let packed = std::iter::from_fn(move || {
                (list.pos < list.end).then(|| T::next(&mut list).ok()).flatten()
            });
            T::of(content).into_iter().chain(packed)
        })
    }

    /// The bytes of the list if it is one packed block: for numbers of a fixed size those of a tensor.
    pub(crate) fn block(self) -> Option<&'m [u8]> {
        let mut contents = self.message.fields(self.field);
        match (contents.next(), contents.next()) {
            (Some(Content::Bytes(b)), None) => Some(b),
            _ => None,
        }
    }

    /// How many there are.
    pub fn len(self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }

    /// The numbers as a vector that is as long as it needs to be.
    pub fn to_vec(self) -> Vec<T> {
        let mut out = Vec::with_capacity(self.len());
        out.extend(self.iter());
        out
    }
}
