//! Element types: one table of formats, and exact conversions between them and `f64`.
//!
//! Every other crate asks this one what an element type is called, how many bits it has and what
//! its bits mean. The numeric rules are those of the whole project: round to nearest even, integers
//! wrap, float to integer saturates with NaN → 0, formats without an infinity saturate to NaN or to
//! their largest finite value as their specification says.
//!
//! ```
//! use silure_types::Elem;
//! let e = Elem::parse("bf16").unwrap();
//! assert_eq!((e.bits(), e.name()), (16, "bf16"));
//! assert_eq!(e.decode(e.encode(1.0 / 3.0)), 0.333984375);
//! ```

mod float;
pub mod strings;
pub mod text;

pub use float::FloatFormat;
pub use strings::Strings;

/// What kind of number an element type holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// True or false, one byte in memory (0 or 1).
    Bool,
    /// Two's complement.
    Signed,
    /// Unsigned.
    Unsigned,
    /// Any floating-point format, the 8- and 4-bit ones included.
    Float,
    /// A handle of an interned string (see [`strings`]); no number.
    Str,
}

macro_rules! elems {
    ($($variant:ident $name:literal $code:literal $bits:literal $class:ident $doc:literal;)*) => {
        /// The type of one tensor element.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Elem { $(#[doc = $doc] $variant = $code,)* }

        impl Elem {
            /// Every element type, in the order of its code.
            pub const ALL: &'static [Elem] = &[$(Elem::$variant),*];

            /// The name in text IR, for example `f32` or `e4m3fn`.
            pub const fn name(self) -> &'static str {
                match self { $(Elem::$variant => $name,)* }
            }

            /// The number of bits of one element, sub-byte types unpadded.
            pub const fn bits(self) -> usize {
                match self { $(Elem::$variant => $bits,)* }
            }

            /// The kind of number.
            pub const fn class(self) -> Class {
                match self { $(Elem::$variant => Class::$class,)* }
            }
        }
    };
}

elems! {
    Bool     "bool"     0  8  Bool     "Boolean, one byte.";
    I2       "i2"       1  2  Signed   "Two-bit signed integer, four to a byte, lowest bits first.";
    I4       "i4"       2  4  Signed   "Four-bit signed integer, two to a byte, low nibble first.";
    I8       "i8"       3  8  Signed   "Signed byte.";
    I16      "i16"      4  16 Signed   "16-bit signed integer.";
    I32      "i32"      5  32 Signed   "32-bit signed integer.";
    I64      "i64"      6  64 Signed   "64-bit signed integer.";
    U2       "u2"       7  2  Unsigned "Two-bit unsigned integer.";
    U4       "u4"       8  4  Unsigned "Four-bit unsigned integer.";
    U8       "u8"       9  8  Unsigned "Unsigned byte.";
    U16      "u16"      10 16 Unsigned "16-bit unsigned integer.";
    U32      "u32"      11 32 Unsigned "32-bit unsigned integer.";
    U64      "u64"      12 64 Unsigned "64-bit unsigned integer.";
    F64      "f64"      13 64 Float    "IEEE 754 binary64.";
    F32      "f32"      14 32 Float    "IEEE 754 binary32.";
    Tf32     "tf32"     15 32 Float    "binary32 storage with a 10-bit mantissa (NVIDIA TF32); rounded to nearest, ties away from zero.";
    F16      "f16"      16 16 Float    "IEEE 754 binary16.";
    Bf16     "bf16"     17 16 Float    "bfloat16.";
    E4m3fn   "e4m3fn"   18 8  Float    "OCP 8-bit float, no infinity, largest 448.";
    E5m2     "e5m2"     19 8  Float    "OCP 8-bit float with infinities.";
    E4m3fnuz "e4m3fnuz" 20 8  Float    "8-bit float, bias 8, one NaN (0x80), no negative zero.";
    E5m2fnuz "e5m2fnuz" 21 8  Float    "8-bit float, bias 16, one NaN (0x80), no negative zero.";
    E8m0     "e8m0"     22 8  Float    "Power-of-two scale (OCP microscaling), 0xFF is NaN.";
    F4e2m1   "f4e2m1"   23 4  Float    "OCP 4-bit float, no NaN or infinity, largest 6.";
    Str      "string"   24 64 Str      "Interned string: a handle, 0 is the empty one.";
}

impl Elem {
    /// The element type of that name, if there is one.
    pub fn parse(name: &str) -> Option<Elem> {
        Elem::ALL.iter().copied().find(|e| e.name() == name)
    }

    /// The element type of that code (the enum's discriminant, stable across engine files).
    pub fn from_code(code: u8) -> Option<Elem> {
        Elem::ALL.get(code as usize).copied()
    }

    /// Bytes of one element where elements are byte-addressed; `None` for sub-byte types.
    pub const fn bytes(self) -> Option<usize> {
        if self.bits() >= 8 { Some(self.bits() / 8) } else { None }
    }

    /// Bytes of `n` packed elements, rounded up; `None` on overflow.
    pub fn packed_bytes(self, n: u64) -> Option<u64> {
        n.checked_mul(self.bits() as u64).map(|bits| bits.div_ceil(8))
    }

    /// Whether elements are strings.
    pub const fn is_str(self) -> bool {
        matches!(self.class(), Class::Str)
    }

    /// Whether it is a floating-point format.
    pub const fn is_float(self) -> bool {
        matches!(self.class(), Class::Float)
    }

    /// Whether it is an integer, `bool` excluded.
    pub const fn is_int(self) -> bool {
        matches!(self.class(), Class::Signed | Class::Unsigned)
    }

    /// The layout of a floating-point format.
    pub const fn float_format(self) -> Option<FloatFormat> {
        float::format_of(self)
    }

    /// Distance from 1.0 to the next larger value; 0 for integers and bool.
    pub fn epsilon(self) -> f64 {
        self.float_format().map_or(0.0, |f| (-(f.mantissa as f64)).exp2())
    }

    /// Least and greatest finite value, as `f64` (64-bit integers round).
    pub fn range(self) -> (f64, f64) {
        match self.class() {
            Class::Bool => (0.0, 1.0),
            Class::Unsigned | Class::Str => (0.0, ((1u128 << self.bits()) - 1) as f64),
            Class::Signed => {
                let half = (1u128 << (self.bits() - 1)) as f64;
                (-half, ((1u128 << (self.bits() - 1)) - 1) as f64)
            }
            Class::Float => {
                let max = float::max_finite(self);
                if self == Elem::E8m0 { ((-127f64).exp2(), max) } else { (-max, max) }
            }
        }
    }

    /// The value of one element's bits (low bits of `bits`), as `f64`.
    /// 64-bit integers above 2⁵³ round; use [`Elem::decode_int`] for those.
    pub fn decode(self, bits: u64) -> f64 {
        match self.class() {
            Class::Float => float::decode(self, bits),
            Class::Bool => ((bits & 0xFF) != 0) as u8 as f64,
            Class::Signed => self.decode_int(bits) as i64 as f64,
            Class::Unsigned | Class::Str => self.decode_int(bits) as u64 as f64,
        }
    }

    /// The bits of the element nearest to `value`, by the project's rounding rules.
    pub fn encode(self, value: f64) -> u64 {
        match self.class() {
            Class::Float => float::encode(self, value),
            Class::Bool => (value != 0.0) as u64,
            Class::Signed => {
                let (lo, hi) = self.range();
                let v = if value.is_nan() { 0 } else { value.trunc().clamp(lo, hi) as i64 };
                v as u64 & self.mask()
            }
            Class::Unsigned | Class::Str => {
                let (lo, hi) = self.range();
                if value.is_nan() { 0 } else { value.trunc().clamp(lo, hi) as u64 & self.mask() }
            }
        }
    }

    /// The exact integer value of an integer or bool element's bits.
    pub fn decode_int(self, bits: u64) -> i128 {
        let bits = bits & self.mask();
        match self.class() {
            Class::Signed => {
                let shift = 64 - self.bits() as u32;
                (((bits << shift) as i64) >> shift) as i128
            }
            Class::Bool => (bits != 0) as i128,
            _ => bits as i128,
        }
    }

    /// The bits of an integer, wrapped to the type's width (bool: 0 or 1).
    pub fn encode_int(self, value: i128) -> u64 {
        match self.class() {
            Class::Bool => (value != 0) as u64,
            _ => value as u64 & self.mask(),
        }
    }

    /// All bits of one element set.
    pub const fn mask(self) -> u64 {
        if self.bits() == 64 { u64::MAX } else { (1 << self.bits()) - 1 }
    }

    /// Bytes of one element where it is computed on and at the runtime's interface: a type smaller than
    /// a byte takes one, sign- or zero-extended.
    pub const fn cell_bytes(self) -> usize {
        self.bits().div_ceil(8)
    }

    /// Bytes of `n` cells; `None` on overflow.
    pub fn cells_bytes(self, n: u64) -> Option<u64> {
        n.checked_mul(self.cell_bytes() as u64)
    }

    /// The bits of element `index` of a buffer of cells; `None` past its end.
    pub fn load_cell(self, bytes: &[u8], index: usize) -> Option<u64> {
        let n = self.cell_bytes();
        let b = bytes.get(index.checked_mul(n)?..)?.get(..n)?;
        let mut w = [0u8; 8];
        w[..n].copy_from_slice(b);
        Some(u64::from_le_bytes(w) & self.mask())
    }

    /// Stores element `index` of a buffer of cells.
    ///
    /// # Panics
    /// If the buffer is too short.
    pub fn store_cell(self, bytes: &mut [u8], index: usize, bits: u64) {
        let (n, signed) = (self.cell_bytes(), self.class() == Class::Signed);
        let bits = if signed { self.decode_int(bits) as u64 } else { bits & self.mask() };
        bytes[index * n..index * n + n].copy_from_slice(&bits.to_le_bytes()[..n]);
    }

    /// The cells of `n` packed elements; missing ones are 0.
    pub fn to_cells(self, packed: &[u8], n: usize) -> Vec<u8> {
        if self.bits() >= 8 {
            return packed.to_vec();
        }
        let (bits, signed) = (self.bits(), self.class() == Class::Signed);
        let (each, spare) = (8 / bits, 8 - bits);
        let cell = |v: u8| match signed {
            true => ((v << spare) as i8 >> spare) as u8,
            false => v << spare >> spare,
        };
        let mut out = Vec::with_capacity(n);
        for byte in packed.iter().take(n.div_ceil(each)) {
            out.extend((0..each).map(|i| cell(byte >> (i * bits))));
        }
        out.resize(n, 0);
        out
    }

    /// Packed elements of a buffer of cells.
    pub fn from_cells(self, cells: &[u8]) -> Vec<u8> {
        if self.bits() >= 8 {
            return cells.to_vec();
        }
        let (bits, mask) = (self.bits(), self.mask() as u8);
        let byte = |v: &[u8]| v.iter().rev().fold(0u16, |b, v| b << bits | (v & mask) as u16) as u8;
        cells.chunks(8 / bits).map(byte).collect()
    }

    /// The bits of element `index` of a packed little-endian buffer; `None` past its end.
    pub fn load(self, bytes: &[u8], index: usize) -> Option<u64> {
        match self.bytes() {
            Some(n) => {
                let b = bytes.get(index.checked_mul(n)?..)?.get(..n)?;
                let mut w = [0u8; 8];
                w[..n].copy_from_slice(b);
                Some(u64::from_le_bytes(w))
            }
            None => {
                let bit = index.checked_mul(self.bits())?;
                Some((*bytes.get(bit / 8)? as u64 >> (bit % 8)) & self.mask())
            }
        }
    }

    /// Stores element `index` of a packed little-endian buffer.
    ///
    /// # Panics
    /// If the buffer is too short.
    pub fn store(self, bytes: &mut [u8], index: usize, bits: u64) {
        match self.bytes() {
            Some(n) => bytes[index * n..index * n + n].copy_from_slice(&bits.to_le_bytes()[..n]),
            None => {
                let bit = index * self.bits();
                let (mask, shift) = (self.mask() as u8, bit % 8);
                let byte = &mut bytes[bit / 8];
                *byte = (*byte & !(mask << shift)) | ((bits as u8 & mask) << shift);
            }
        }
    }
}

impl std::fmt::Display for Elem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
