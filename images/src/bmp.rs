//! Uncompressed BMP: 24 or 32 bits, or 8 bits with a palette; rows from below or from above.

use super::{Pixels, Result, allowed, invalid, unsupported};

struct Head {
    width: u64,
    height: u64,
    /// The first row is the highest.
    down: bool,
    /// Bytes of a pixel.
    bytes: usize,
    pixels: usize,
    palette: usize,
    colours: usize,
}

fn word(data: &[u8], at: usize) -> Result<u32> {
    let b = data.get(at..at + 4).ok_or_else(|| invalid("the head is cut off"))?;
    Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn head(data: &[u8]) -> Result<Head> {
    let (pixels, info) = (word(data, 10)? as usize, word(data, 14)? as usize);
    if info < 40 {
        return unsupported("a BMP image of OS/2");
    }
    let (width, height) = (word(data, 18)? as i32, word(data, 22)? as i32);
    let (bits, method) = (word(data, 26)? >> 16, word(data, 30)?);
    if width <= 0 {
        return Err(invalid("the width is not positive"));
    }
    if method != 0 || !matches!(bits, 8 | 24 | 32) {
        return unsupported(format!("a BMP image of {bits} bits with compression {method}"));
    }
    let colours = match word(data, 46)? {
        0 => 256,
        n => n.min(256) as usize,
    };
    let palette = info.checked_add(14).ok_or_else(|| invalid("the head is too long"))?;
    let (down, bytes) = (height < 0, bits as usize / 8);
    let (width, height) = (width as u64, height.unsigned_abs() as u64);
    Ok(Head { width, height, down, bytes, pixels, palette, colours })
}

pub(super) fn size(data: &[u8]) -> Result<(usize, usize)> {
    let h = head(data)?;
    allowed(h.width, h.height)
}

pub(super) fn pixels(data: &[u8]) -> Result<Pixels> {
    let h = head(data)?;
    let (height, width) = allowed(h.width, h.height)?;
    let missing = || invalid("pixels are missing");
    let row = (width * h.bytes).next_multiple_of(4);
    let end = h.pixels.checked_add(row * height).ok_or_else(missing)?;
    let rows = data.get(h.pixels..end).ok_or_else(missing)?;
    let palette = match h.bytes {
        1 => data.get(h.palette..).unwrap_or_default(),
        _ => &[],
    };
    let colour = |i: u8| -> Result<&[u8]> {
        let at = i as usize * 4;
        let known = ((i as usize) < h.colours).then(|| palette.get(at..at + 3)).flatten();
        known.ok_or_else(|| invalid("a pixel's colour is not in the palette"))
    };
    let mut bytes = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        let at = if h.down { y } else { height - 1 - y };
        for p in rows[at * row..][..width * h.bytes].chunks_exact(h.bytes) {
            let bgr = if h.bytes == 1 { colour(p[0])? } else { p };
            bytes.extend([bgr[2], bgr[1], bgr[0]]);
        }
    }
    Ok(Pixels { width, height, channels: 3, bytes })
}
