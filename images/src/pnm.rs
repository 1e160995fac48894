//! Binary PGM and PPM with values up to 255.

use super::{Pixels, Result, allowed, invalid, unsupported};

/// Channels, width, height, and where the pixels begin.
fn head(data: &[u8]) -> Result<(usize, u64, u64, usize)> {
    let mut at = 2;
    let mut number = || -> Result<u64> {
        loop {
            match data.get(at) {
                Some(b'#') => {
                    at += data[at..].iter().position(|c| *c == b'\n').unwrap_or(data.len() - at);
                }
                Some(c) if c.is_ascii_whitespace() => at += 1,
                _ => break,
            }
        }
        let digits = data[at..].iter().take_while(|c| c.is_ascii_digit()).count();
        let text = std::str::from_utf8(&data[at..at + digits]).unwrap_or_default();
        at += digits;
        text.parse().map_err(|_| invalid("a number of the head is missing"))
    };
    let (width, height, most) = (number()?, number()?, number()?);
    if most != 255 {
        return unsupported(format!("a PNM image with values up to {most}"));
    }
    if !data.get(at).is_some_and(u8::is_ascii_whitespace) {
        return Err(invalid("the head does not end"));
    }
    Ok((if data[1] == b'5' { 1 } else { 3 }, width, height, at + 1))
}

pub(super) fn size(data: &[u8]) -> Result<(usize, usize)> {
    let (_, width, height, _) = head(data)?;
    allowed(width, height)
}

pub(super) fn pixels(data: &[u8]) -> Result<Pixels> {
    let (channels, width, height, at) = head(data)?;
    let (height, width) = allowed(width, height)?;
    let n = width * height * channels;
    let bytes = data.get(at..at + n).ok_or_else(|| invalid("pixels are missing"))?.to_vec();
    Ok(Pixels { width, height, channels, bytes })
}
