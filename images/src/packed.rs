//! PNG, TIFF and WebP, by their crates.

use std::io::Cursor;

use image_webp::WebPDecoder;
use png::{BitDepth, ColorType, Transformations};
use tiff::decoder::{Decoder as Tiff, DecodingResult, Limits};
use tiff::tags::{PlanarConfiguration, Tag};

use super::{MOST_PIXELS, Pixels, Result, allowed, invalid, unsupported};

/// The most bytes that a decoder may take, for four channels.
const MOST_BYTES: usize = 4 * MOST_PIXELS as usize;

type Png<'a> = png::Reader<Cursor<&'a [u8]>>;

fn png(data: &[u8]) -> Result<(Png<'_>, usize, usize)> {
    let limits = png::Limits { bytes: MOST_BYTES };
    let mut d = png::Decoder::new_with_limits(Cursor::new(data), limits);
    d.set_transformations(Transformations::EXPAND);
    d.set_ignore_text_chunk(true);
    d.set_ignore_iccp_chunk(true);
    let info = d.read_header_info().map_err(invalid)?;
    let (width, height) = (info.width as u64, info.height as u64);
    let (height, width) = allowed(width, height)?;
    let reader = d.read_info().map_err(invalid)?;
    if reader.info().bit_depth == BitDepth::Sixteen {
        return unsupported("a PNG image of 16 bits per channel");
    }
    Ok((reader, height, width))
}

pub(super) fn png_size(data: &[u8]) -> Result<(usize, usize)> {
    let (_, height, width) = png(data)?;
    Ok((height, width))
}

pub(super) fn png_pixels(data: &[u8]) -> Result<Pixels> {
    let (mut reader, height, width) = png(data)?;
    let channels = match reader.output_color_type().0 {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb => 3,
        ColorType::Rgba => 4,
        ColorType::Indexed => return Err(invalid("the palette is missing")),
    };
    let mut bytes = vec![0; reader.output_buffer_size().ok_or_else(|| invalid("too large"))?];
    let frame = reader.next_frame(&mut bytes).map_err(invalid)?;
    if (frame.width as usize, frame.height as usize) != (width, height) {
        return unsupported("a PNG image whose first frame is a part of it");
    }
    Ok(Pixels { width, height, channels, bytes })
}

fn tiff(data: &[u8]) -> Result<(Tiff<Cursor<&[u8]>>, usize, usize)> {
    let mut limits = Limits::default();
    limits.decoding_buffer_size = MOST_BYTES;
    limits.intermediate_buffer_size = MOST_BYTES;
    let mut d = Tiff::new(Cursor::new(data)).map_err(invalid)?.with_limits(limits);
    let (width, height) = d.dimensions().map_err(invalid)?;
    let (height, width) = allowed(width as u64, height as u64)?;
    Ok((d, height, width))
}

pub(super) fn tiff_size(data: &[u8]) -> Result<(usize, usize)> {
    let (_, height, width) = tiff(data)?;
    Ok((height, width))
}

pub(super) fn tiff_pixels(data: &[u8]) -> Result<Pixels> {
    let (mut d, height, width) = tiff(data)?;
    let colour = d.colortype().map_err(invalid)?;
    let channels = match colour {
        tiff::ColorType::Gray(8) => 1,
        tiff::ColorType::RGB(8) => 3,
        tiff::ColorType::RGBA(8) => 4,
        c => return unsupported(format!("a TIFF image of {c:?}")),
    };
    let planes = d.find_tag_unsigned::<u16>(Tag::PlanarConfiguration).map_err(invalid)?;
    if planes.is_some_and(|p| p != PlanarConfiguration::Chunky.to_u16()) {
        return unsupported("a TIFF image with a plane for each channel");
    }
    match d.read_image() {
        Ok(DecodingResult::U8(bytes)) => Ok(Pixels { width, height, channels, bytes }),
        Ok(_) => unsupported(format!("a TIFF image of {colour:?}")),
        Err(tiff::TiffError::UnsupportedError(e)) => unsupported(format!("a TIFF image ({e})")),
        Err(e) => Err(invalid(e)),
    }
}

fn webp(data: &[u8]) -> Result<(WebPDecoder<Cursor<&[u8]>>, usize, usize)> {
    let mut d = WebPDecoder::new(Cursor::new(data)).map_err(invalid)?;
    d.set_memory_limit(MOST_BYTES);
    let (width, height) = d.dimensions();
    let (height, width) = allowed(width as u64, height as u64)?;
    if d.is_animated() {
        return unsupported("an animated WebP image");
    }
    Ok((d, height, width))
}

pub(super) fn webp_size(data: &[u8]) -> Result<(usize, usize)> {
    let (_, height, width) = webp(data)?;
    Ok((height, width))
}

pub(super) fn webp_pixels(data: &[u8]) -> Result<Pixels> {
    let (mut d, height, width) = webp(data)?;
    let mut bytes = vec![0; d.output_buffer_size().ok_or_else(|| invalid("too large"))?];
    d.read_image(&mut bytes).map_err(invalid)?;
    let channels = if d.has_alpha() { 4 } else { 3 };
    Ok(Pixels { width, height, channels, bytes })
}
