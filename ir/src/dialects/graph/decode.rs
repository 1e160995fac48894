//! Encoded images. The oracle and the runtime decode with the same crate, `silure-images`: what its
//! formats mean is not ours to state twice.
//!
//! * `decode_image(data) {layout}`

use silure_images::{Error, Layout, MOST_PIXELS};
use silure_types::Elem;

use crate::bail;
use crate::diag::Result;
use crate::dim::Dim;
use crate::eval::EvalCx;
use crate::op::*;
use crate::tensor::{Datum, Tensor};
use crate::types::Type;

fn layout(name: &str) -> Result<Layout> {
    match Layout::of(name) {
        Some(l) => Ok(l),
        None => bail!(Type, "`layout` is `{name}`: RGB, BGR or Grayscale is needed"),
    }
}

/// The pixels of an encoded image.
pub static DECODE_IMAGE: OpDef = OpDef {
    name: "graph.decode_image",
    doc: "The pixels [height, width, channels] of a BMP, PNG, PNM, TIFF or WebP image of 8 bits per channel; \
          `layout` is RGB, BGR or Grayscale. Alpha is dropped, grey repeated, colour made grey by the weights of \
          ITU-R 601. What is no such image ends the run with an error.",
    operands: &[one("data", Of::Elem)],
    results: &["pixels"],
    attrs: &[word("layout", "RGB")],
    infer: Some(|cx| {
        let (data, layout) = (cx.tensor(0)?, layout(cx.attrs().str("layout"))?);
        if data.elem != Elem::U8 || data.rank() != 1 {
            return Err(cx.wrong(0, "u8[n]", cx.ty(0)?));
        }
        let most = Dim::Const(MOST_PIXELS as i64);
        let (height, width) = (cx.fresh("height", &most), cx.fresh("width", &most));
        let channels = Dim::Const(layout.channels() as i64);
        Ok(vec![Type::tensor(Elem::U8, vec![height, width, channels])])
    }),
    eval: Some(decode),
    ..OpDef::NEW
};

fn decode(cx: &EvalCx) -> Result<Vec<Datum>> {
    let (data, layout) = (cx.tensor(0)?, layout(cx.attrs().str("layout"))?);
    let pixels = || -> std::result::Result<_, Error> {
        let (height, width) = silure_images::size(data.bytes())?;
        let mut bytes = vec![0; height * width * layout.channels()];
        silure_images::decode(data.bytes(), layout, &mut bytes)?;
        Ok(([height, width, layout.channels()], bytes))
    };
    match pixels() {
        Ok((shape, bytes)) => Ok(vec![Tensor::new(Elem::U8, &shape, bytes)?.into()]),
        Err(e @ Error::Unsupported(_)) => bail!(Unsupported, "{e}"),
        Err(e @ Error::Limit(..)) => bail!(Limit, "{e}"),
        Err(e) => bail!(Eval, "the image is not read: {e}"),
    }
}
