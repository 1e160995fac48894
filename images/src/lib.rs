//! Encoded images as pixels: what ONNX's `ImageDecoder` needs, for the oracle and the runtime alike.
//!
//! Read are BMP (uncompressed), PNG, PNM (binary grey and colour), TIFF (uncompressed, LZW, Deflate,
//! PackBits) and WebP (still), of 8 bits per channel; their decoders give the same bits as the reference
//! decoders of these formats. JPEG and JPEG 2000 are refused: no decoder at hand gives the bits that the
//! operator asks for. Alpha is dropped; grey is repeated into three channels, and colour becomes grey by
//! the weights of ITU-R 601.
//!
//! Files may be wrong in every way: sizes are checked against [`MOST_PIXELS`] before anything is
//! allocated, and a decoder that panics gives an error.
//!
//! ```
//! let file = b"P6 2 1 255\n\x01\x02\x03\x04\x05\x06";
//! assert_eq!(silure_images::size(file), Ok((1, 2)));
//! let mut pixels = [0; 6];
//! silure_images::decode(file, silure_images::Layout::Bgr, &mut pixels).unwrap();
//! assert_eq!(pixels, [3, 2, 1, 6, 5, 4]);
//! ```

mod bmp;
mod packed;
mod pnm;

/// The most pixels that an image may have.
pub const MOST_PIXELS: u64 = 1 << 27;

/// What the channels of a pixel are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel.
    Grey,
}

impl Layout {
    /// Every layout; its place is its number in plans.
    pub const ALL: [Layout; 3] = [Layout::Rgb, Layout::Bgr, Layout::Grey];

    /// The layout of that name in ONNX.
    pub fn of(name: &str) -> Option<Layout> {
        Layout::ALL.into_iter().find(|l| l.name() == name)
    }

    /// Its name in ONNX.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Rgb => "RGB",
            Layout::Bgr => "BGR",
            Layout::Grey => "Grayscale",
        }
    }

    /// Channels of a pixel.
    pub fn channels(self) -> usize {
        if self == Layout::Grey { 1 } else { 3 }
    }
}

/// Why a file has no pixels.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// The file contradicts its format, or is of none.
    #[error("{0}")]
    Invalid(String),
    /// The file may be right, but is not read.
    #[error("{0} is not decoded")]
    Unsupported(String),
    /// There are too many pixels.
    #[error("an image of {0} × {1} pixels has more than {MOST_PIXELS}")]
    Limit(u64, u64),
}

type Result<T> = std::result::Result<T, Error>;

/// An image as its file has it: `channels` bytes per pixel, 1 (grey), 2 (with alpha), 3 or 4.
struct Pixels {
    width: usize,
    height: usize,
    channels: usize,
    bytes: Vec<u8>,
}

fn invalid(e: impl std::fmt::Display) -> Error {
    Error::Invalid(e.to_string())
}

fn unsupported<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Unsupported(what.into()))
}

/// Height and width that are allowed.
fn allowed(width: u64, height: u64) -> Result<(usize, usize)> {
    if width == 0 || height == 0 {
        return Err(invalid("the image has no pixels"));
    }
    match width.checked_mul(height) {
        Some(n) if n <= MOST_PIXELS => Ok((height as usize, width as usize)),
        _ => Err(Error::Limit(width, height)),
    }
}

/// The reader of a file's format: its size alone, or its pixels.
struct Format {
    size: fn(&[u8]) -> Result<(usize, usize)>,
    pixels: fn(&[u8]) -> Result<Pixels>,
}

fn format(data: &[u8]) -> Result<Format> {
    let starts = |magic: &[u8]| data.starts_with(magic);
    Ok(match data {
        _ if starts(b"BM") => Format { size: bmp::size, pixels: bmp::pixels },
        _ if starts(b"\x89PNG\r\n\x1a\n") => {
            Format { size: packed::png_size, pixels: packed::png_pixels }
        }
        _ if starts(b"II*\0") || starts(b"MM\0*") => {
            Format { size: packed::tiff_size, pixels: packed::tiff_pixels }
        }
        _ if starts(b"RIFF") && data.get(8..12) == Some(b"WEBP") => {
            Format { size: packed::webp_size, pixels: packed::webp_pixels }
        }
        [b'P', b'5' | b'6', ..] => Format { size: pnm::size, pixels: pnm::pixels },
        [b'P', b'1'..=b'4' | b'7', ..] => {
            return unsupported("a PNM image that is not binary grey or colour");
        }
        _ if starts(b"\xff\xd8\xff") => return unsupported("a JPEG image"),
        _ if starts(b"\0\0\0\x0cjP  ") || starts(b"\xff\x4f\xff\x51") => {
            return unsupported("a JPEG 2000 image");
        }
        _ => return Err(invalid("the bytes are of no image format that is known")),
    })
}

/// Runs a decoder; its panic is an error of the file.
fn guarded<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    done.unwrap_or_else(|_| Err(invalid("the decoder gave up")))
}

/// Height and width that a file states, at most [`MOST_PIXELS`] together. Only its head is read.
pub fn size(data: &[u8]) -> Result<(usize, usize)> {
    guarded(|| (format(data)?.size)(data))
}

/// Decodes into height × width × channels bytes, of the size that [`size`] gives.
///
/// # Panics
/// If `out` is not that long.
pub fn decode(data: &[u8], layout: Layout, out: &mut [u8]) -> Result<()> {
    let p = guarded(|| (format(data)?.pixels)(data))?;
    let n = p.width * p.height;
    assert_eq!(out.len(), n * layout.channels(), "pixels");
    if p.bytes.len() != n * p.channels {
        return Err(invalid("the image has fewer pixels than it states"));
    }
    for (from, to) in p.bytes.chunks_exact(p.channels).zip(out.chunks_exact_mut(layout.channels()))
    {
        let rgb = if p.channels < 3 { [from[0]; 3] } else { [from[0], from[1], from[2]] };
        match layout {
            Layout::Rgb => to.copy_from_slice(&rgb),
            Layout::Bgr => to.copy_from_slice(&[rgb[2], rgb[1], rgb[0]]),
            Layout::Grey => to[0] = grey(rgb),
        }
    }
    Ok(())
}

/// In sixteenths of bits; the weights add up to one, so grey stays what it is.
fn grey([r, g, b]: [u8; 3]) -> u8 {
    ((r as u32 * 19595 + g as u32 * 38470 + b as u32 * 7471 + 0x8000) >> 16) as u8
}
