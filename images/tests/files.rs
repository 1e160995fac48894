//! Right files give their pixels; damaged, huge and foreign ones an error, and never a panic.

use std::io::Cursor;

use silure_images::{Error, Layout, decode, size};

const WIDTH: usize = 5;
const HEIGHT: usize = 3;

/// RGB pixels of which no two rows are alike.
fn pixels() -> Vec<u8> {
    (0..WIDTH * HEIGHT * 3).map(|i| (i * 37 % 251) as u8).collect()
}

fn png_of(color: png::ColorType, depth: png::BitDepth, data: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    let mut e = png::Encoder::new(&mut out, WIDTH as u32, HEIGHT as u32);
    e.set_color(color);
    e.set_depth(depth);
    e.write_header().unwrap().write_image_data(data).unwrap();
    out
}

fn bmp_head(width: i32, height: i32) -> Vec<u8> {
    let mut out = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    out.extend(width.to_le_bytes());
    out.extend(height.to_le_bytes());
    out.extend([1, 0, 24, 0]);
    out.extend([0; 24]);
    out
}

fn bmp(down: bool) -> Vec<u8> {
    let mut out = bmp_head(WIDTH as i32, if down { -(HEIGHT as i32) } else { HEIGHT as i32 });
    let p = pixels();
    let mut rows: Vec<&[u8]> = p.chunks(WIDTH * 3).collect();
    if !down {
        rows.reverse();
    }
    for row in rows {
        out.extend(row.chunks(3).flat_map(|c| [c[2], c[1], c[0]]));
        out.push(0);
    }
    out
}

/// A file of each format, of the same pixels.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let p = pixels();
    let pnm = [b"P6\n# a comment\n5 3\n255\n".as_slice(), &p].concat();
    let mut tiff = Cursor::new(vec![]);
    tiff::encoder::TiffEncoder::new(&mut tiff)
        .unwrap()
        .write_image::<tiff::encoder::colortype::RGB8>(WIDTH as u32, HEIGHT as u32, &p)
        .unwrap();
    let mut webp = vec![];
    image_webp::WebPEncoder::new(&mut webp)
        .encode(&p, WIDTH as u32, HEIGHT as u32, image_webp::ColorType::Rgb8)
        .unwrap();
    let alpha: Vec<u8> = p.chunks(3).flat_map(|c| [c[0], c[1], c[2], c[0] / 2]).collect();
    vec![
        ("pnm", pnm),
        ("bmp from below", bmp(false)),
        ("bmp from above", bmp(true)),
        ("png", png_of(png::ColorType::Rgb, png::BitDepth::Eight, &p)),
        ("png with alpha", png_of(png::ColorType::Rgba, png::BitDepth::Eight, &alpha)),
        ("tiff", tiff.into_inner()),
        ("webp", webp),
    ]
}

fn all(file: &[u8], layout: Layout) -> Result<Vec<u8>, Error> {
    let (height, width) = size(file)?;
    let mut out = vec![0; height * width * layout.channels()];
    decode(file, layout, &mut out)?;
    Ok(out)
}

#[test]
fn every_format_gives_the_pixels_in_every_layout() {
    let rgb = pixels();
    let bgr: Vec<u8> = rgb.chunks(3).flat_map(|c| [c[2], c[1], c[0]]).collect();
    let grey: Vec<f64> = rgb
        .chunks(3)
        .map(|c| c[0] as f64 * 0.299 + c[1] as f64 * 0.587 + c[2] as f64 * 0.114)
        .collect();
    for (name, file) in files() {
        assert_eq!(size(&file), Ok((HEIGHT, WIDTH)), "{name}");
        assert_eq!(all(&file, Layout::Rgb).unwrap(), rgb, "{name}");
        assert_eq!(all(&file, Layout::Bgr).unwrap(), bgr, "{name}");
        let got = all(&file, Layout::Grey).unwrap();
        assert!(got.iter().zip(&grey).all(|(a, b)| (*a as f64 - b).abs() < 0.51), "{name}");
    }
    let flat: Vec<u8> = rgb[..WIDTH * HEIGHT].to_vec();
    let grey = png_of(png::ColorType::Grayscale, png::BitDepth::Eight, &flat);
    assert_eq!(all(&grey, Layout::Grey).unwrap(), flat);
    assert_eq!(
        all(&grey, Layout::Rgb).unwrap()[..6],
        [flat[0], flat[0], flat[0], flat[1], flat[1], flat[1]]
    );
}

#[test]
fn files_cut_off_anywhere_are_errors() {
    let want = pixels();
    for (name, file) in files() {
        for n in 0..file.len() {
            // What is behind the pixels may be missing.
            match all(&file[..n], Layout::Rgb) {
                Ok(got) => assert_eq!(got, want, "{name}: {n} of {} bytes", file.len()),
                Err(Error::Limit(..)) => panic!("{name}: {n} bytes are no large image"),
                Err(_) => {}
            }
        }
        assert!(all(&file[..file.len() / 2], Layout::Rgb).is_err(), "{name}");
    }
}

#[test]
fn no_changed_byte_is_a_panic() {
    for (_, file) in files() {
        for i in 0..file.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut f = file.clone();
                f[i] ^= change;
                let _ = all(&f, Layout::Rgb);
            }
        }
    }
}

#[test]
fn sizes_are_checked_before_anything_is_allocated() {
    let mut png = png_of(png::ColorType::Rgb, png::BitDepth::Eight, &pixels());
    png[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    png[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    // The head's own sum, so that its size is what is wrong.
    let sum = crc(&png[12..29]);
    png[29..33].copy_from_slice(&sum.to_be_bytes());
    let pnm = b"P5 60000 60000 255\n".to_vec();
    let wide = b"P6 18446744073709551615 18446744073709551615 255\n".to_vec();
    for f in [png, pnm, wide, bmp_head(60_000, 60_000), bmp_head(i32::MAX, i32::MIN)] {
        assert!(matches!(size(&f), Err(Error::Limit(..))), "{:?}", size(&f));
        assert!(matches!(all(&f, Layout::Rgb), Err(Error::Limit(..))));
    }
    for f in [b"P6 0 7 255\n".to_vec(), bmp_head(0, 3), bmp_head(-4, 3)] {
        assert!(matches!(size(&f), Err(Error::Invalid(_))), "{:?}", size(&f));
    }
}

fn crc(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |c, b| {
        (0..8).fold(c ^ *b as u32, |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}

#[test]
fn other_formats_are_refused_by_name() {
    let deep = png_of(png::ColorType::Grayscale, png::BitDepth::Sixteen, &[0; WIDTH * HEIGHT * 2]);
    for (file, name) in [
        (b"\xff\xd8\xff\xe0\0\x10JFIF".as_slice(), "a JPEG image"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
        (b"P3 1 1 255 1 2 3", "PNM"),
        (b"P6 1 1 65535\n\0\0\0\0\0\0", "65535"),
        (&deep, "16 bits"),
    ] {
        let e = size(file).unwrap_err();
        assert!(matches!(&e, Error::Unsupported(t) if t.contains(name)), "{name}: {e}");
    }
    for file in [b"".as_slice(), b"P", b"GIF89a", b"not an image"] {
        assert!(matches!(size(file), Err(Error::Invalid(_))));
    }
}
