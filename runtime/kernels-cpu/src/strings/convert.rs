//! Element by element: `string.format`, `string.parse`, `string.case`, `string.concat`,
//! `string.regex`.

use super::{intern, status, table, text};
use crate::abi::{BAD_SIZES, STRING_LIMIT, UNREADABLE};
use crate::isa::{Call, Isa, kernel};
use silure_types::{Elem, Strings, text as meaning};

sizes! {
    /// Sizes of `string.format` and `string.parse`.
    pub struct Convert {
        /// Elements.
        pub n: usize,
        /// Code of the number's element type.
        pub elem: usize,
    }
}

fn elem(s: &Convert) -> Result<Elem, i32> {
    u8::try_from(s.elem).ok().and_then(Elem::from_code).ok_or(BAD_SIZES)
}

/// Elements `0..n` of a buffer, of packed ones the bytes that hold them.
unsafe fn bytes<'a>(p: *const u8, elem: Elem, n: usize) -> Result<&'a [u8], i32> {
    let len = elem.packed_bytes(n as u64).ok_or(BAD_SIZES)? as usize;
    // SAFETY: by the caller's contract the buffer holds `n` elements.
    Ok(unsafe { std::slice::from_raw_parts(p, len) })
}

#[inline(always)]
unsafe fn format<I: Isa>(s: &Convert, call: &Call) -> i32 {
    let run = || {
        let e = elem(s)?;
        // SAFETY: x holds `n` elements, y `n` handles.
        unsafe {
            let mut t = table(call)?;
            let x = bytes(call.bufs.get(0), e, s.n)?;
            let y = call.bufs.get::<u64>(1);
            for i in 0..s.n {
                let number = e.load(x, i).and_then(|b| meaning::format(e, b)).ok_or(BAD_SIZES)?;
                *y.add(i) = intern(&mut t, &number)?;
            }
        }
        Ok(())
    };
    if call.begin < call.end { status(run()) } else { crate::abi::OK }
}

kernel!(STRING_FORMAT = "string.format", Convert, bufs 2,
    "Numbers as text. Buffers x, y (strings); sizes `Convert`.",
    check |_| true, tasks |s| s.n.min(1), scratch |_| 0, flops |_| 0, body format);

#[inline(always)]
unsafe fn parse<I: Isa>(s: &Convert, call: &Call) -> i32 {
    let run = || {
        let e = elem(s)?;
        // SAFETY: x holds `n` handles, y `n` elements.
        unsafe {
            let t = table(call)?;
            let x = call.bufs.get::<u64>(0);
            let len = e.packed_bytes(s.n as u64).ok_or(BAD_SIZES)? as usize;
            let y = std::slice::from_raw_parts_mut(call.bufs.get::<u8>(1), len);
            for i in 0..s.n {
                let bits = meaning::parse(e, text(&t, *x.add(i))?).ok_or(UNREADABLE)?;
                e.store(y, i, bits);
            }
        }
        Ok(())
    };
    if call.begin < call.end { status(run()) } else { crate::abi::OK }
}

kernel!(STRING_PARSE = "string.parse", Convert, bufs 2,
    "Text as numbers. Buffers x (strings), y; sizes `Convert`.",
    check |_| true, tasks |s| s.n.min(1), scratch |_| 0, flops |_| 0, body parse);

sizes! {
    /// Sizes of `string.case`, `string.concat` and `string.regex`.
    pub struct Each {
        /// Elements.
        pub n: usize,
        /// `string.case`: to upper case rather than to lower case.
        pub upper: bool,
    }
}

#[inline(always)]
unsafe fn case<I: Isa>(s: &Each, call: &Call) -> i32 {
    let run = || {
        // SAFETY: x and y hold `n` handles.
        unsafe {
            let mut t = table(call)?;
            let (x, y) = (call.bufs.get::<u64>(0), call.bufs.get::<u64>(1));
            for i in 0..s.n {
                let changed = meaning::case(text(&t, *x.add(i))?, s.upper);
                *y.add(i) = intern(&mut t, &changed)?;
            }
        }
        Ok(())
    };
    if call.begin < call.end { status(run()) } else { crate::abi::OK }
}

kernel!(STRING_CASE = "string.case", Each, bufs 2,
    "Lower or upper case. Buffers x, y (strings); sizes `Each`.",
    check |_| true, tasks |s| s.n.min(1), scratch |_| 0, flops |_| 0, body case);

#[inline(always)]
unsafe fn concat<I: Isa>(s: &Each, call: &Call) -> i32 {
    let run = || {
        // SAFETY: a, b and y hold `n` handles.
        unsafe {
            let mut t = table(call)?;
            let (a, b, y) =
                (call.bufs.get::<u64>(0), call.bufs.get::<u64>(1), call.bufs.get::<u64>(2));
            let mut both = String::new();
            for i in 0..s.n {
                let (a, b) = (text(&t, *a.add(i))?, text(&t, *b.add(i))?);
                if a.len() + b.len() > Strings::MAX_LEN {
                    return Err(STRING_LIMIT);
                }
                both.clear();
                both.push_str(a);
                both.push_str(b);
                *y.add(i) = intern(&mut t, &both)?;
            }
        }
        Ok(())
    };
    if call.begin < call.end { status(run()) } else { crate::abi::OK }
}

kernel!(STRING_CONCAT = "string.concat", Each, bufs 3,
    "Two strings behind each other. Buffers a, b, y (strings); sizes `Each`.",
    check |_| true, tasks |s| s.n.min(1), scratch |_| 0, flops |_| 0, body concat);

#[inline(always)]
unsafe fn regex<I: Isa>(s: &Each, call: &Call) -> i32 {
    let run = || {
        // SAFETY: x holds `n` handles, pattern one, y `n` bools.
        unsafe {
            let t = table(call)?;
            let (x, y) = (call.bufs.get::<u64>(0), call.bufs.get::<u8>(2));
            let pattern = text(&t, *call.bufs.get::<u64>(1))?;
            let whole = format!(r"\A(?:{pattern})\z");
            let regex = regex_lite::Regex::new(&whole).map_err(|_| UNREADABLE)?;
            for i in 0..s.n {
                *y.add(i) = regex.is_match(text(&t, *x.add(i))?) as u8;
            }
        }
        Ok(())
    };
    if call.begin < call.end { status(run()) } else { crate::abi::OK }
}

kernel!(STRING_REGEX = "string.regex", Each, bufs 3,
    "Whether a pattern matches the whole string. Buffers x, pattern (one string), y (bool); sizes `Each`.",
    check |_| true, tasks |s| s.n.min(1), scratch |_| 0, flops |_| 0, body regex);
