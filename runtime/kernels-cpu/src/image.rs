//! `image.size` and `image.pixels`: encoded images, by the crate `silure-images`. Size first, then a
//! buffer of that size is filled.

use crate::abi::{BAD_IMAGE, BAD_SIZES, IMAGE_FORM, IMAGE_LIMIT, OK};
use crate::isa::{Call, Isa, kernel};
pub use silure_images::Layout;
use silure_images::{Error, decode, size};

sizes! {
    /// Sizes of the image kernels.
    pub struct Image {
        /// Bytes of the file.
        pub n: usize,
        /// Place of the layout in `Layout::ALL`.
        pub layout: usize,
        /// Pixels: the image's height.
        pub height: usize,
        /// Pixels: the image's width.
        pub width: usize,
    }
}

#[inline(always)]
unsafe fn body<I: Isa, const PIXELS: bool>(s: &Image, call: &Call) -> i32 {
    if call.begin == call.end {
        return OK;
    }
    let file = match s.n {
        0 => &[],
        // SAFETY: the first buffer holds `n` bytes.
        n => unsafe { std::slice::from_raw_parts(call.bufs.get::<u8>(0), n) },
    };
    let run = || -> Result<i32, Error> {
        let (height, width) = size(file)?;
        if !PIXELS {
            // SAFETY: the second buffer holds two i64.
            unsafe {
                let out = call.bufs.get::<i64>(1);
                (*out, *out.add(1)) = (height as i64, width as i64);
            }
            return Ok(OK);
        }
        if (height, width) != (s.height, s.width) {
            return Ok(BAD_SIZES);
        }
        let layout = Layout::ALL[s.layout];
        // SAFETY: the second buffer holds height × width × channels bytes.
        let out = unsafe {
            let n = height * width * layout.channels();
            std::slice::from_raw_parts_mut(call.bufs.get::<u8>(1), n)
        };
        decode(file, layout, out).map(|()| OK)
    };
    run().unwrap_or_else(|e| match e {
        Error::Invalid(_) => BAD_IMAGE,
        Error::Unsupported(_) => IMAGE_FORM,
        Error::Limit(..) => IMAGE_LIMIT,
    })
}

kernel!(IMAGE_SIZE = "image.size", Image, bufs 2,
    "Height and width of an encoded image. Buffers data (u8), size (two i64); sizes `Image`.",
    check |s| s.layout < 3, tasks |_| 1, scratch |_| 0, flops |_| 0, body body::<false>);
kernel!(IMAGE_PIXELS = "image.pixels", Image, bufs 2,
    "The pixels of an encoded image, rows from above. Buffers data (u8), pixels (u8); sizes `Image`.",
    check |s| s.layout < 3, tasks |_| 1, scratch |_| 0, flops |_| 0, body body::<true>);
