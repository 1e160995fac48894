//! Parts that the families share.

pub(crate) mod attention;
pub(crate) mod decoder;
pub(crate) mod encoder;
pub(crate) mod experts;
pub(crate) mod latent;
pub(crate) mod mlp;
pub(crate) mod step;
