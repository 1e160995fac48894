//! The tensors that a published checkpoint of a configuration holds: every one that its family asks for, in
//! the asked shape and in the type that config.json states. No file of weights is opened.

use silure_types::Elem;

use crate::checkpoint::Stored;
use crate::config::Config;
use crate::error::{Result, quoted};
use crate::families::layer_of;
use crate::quantised::{BLOCK, is_scales};

/// See the module documentation.
pub(crate) struct Promised {
    elem: Elem,
    /// Matrices of layers are floats of 8 bits with scales, but for these modules.
    eight: Option<Vec<String>>,
    /// The class is the model alone, without a head: names have no prefix, and there is a pooler.
    bare: bool,
}

impl Promised {
    /// What config.json promises; `notes` says what had to be taken as given.
    pub fn of(config: &Config, notes: &mut Vec<String>) -> Result<Promised> {
        let named = match config.word("dtype")? {
            None => config.word("torch_dtype")?.map(|w| ("torch_dtype", w)),
            some => some.map(|w| ("dtype", w)),
        };
        let elem = match named {
            Some((_, "bfloat16")) => Elem::Bf16,
            Some((_, "float16")) => Elem::F16,
            Some((_, "float32")) => Elem::F32,
            Some((field, other)) => {
                let e = config.unsupported(field, "weights of this type");
                return Err(e.needed("bfloat16, float16 or float32").present(quoted(other)));
            }
            None => {
                notes.push("config.json names no type (`dtype`): weights are taken as f32".into());
                Elem::F32
            }
        };
        let eight = match config.section("quantization_config")? {
            None => None,
            Some(q) => Some(q.words("modules_to_not_convert")?.unwrap_or_default()),
        };
        let classes = config.words("architectures")?.unwrap_or_default();
        let bare = classes.first().is_some_and(|c| c.ends_with("Model"));
        Ok(Promised { elem, eight, bare })
    }

    /// The tensor of that name. Its file is its name, so that whoever reads bytes is told of which tensor.
    pub fn stored(&self, name: &str, shape: &[usize]) -> Stored {
        let elem = match name {
            // Routers are corrected in f32, and scales are f32, whatever the weights are.
            n if is_scales(n) || n.ends_with(".e_score_correction_bias") => Elem::F32,
            n if self.narrow(n, shape) => Elem::E4m3fn,
            _ => self.elem,
        };
        let count = shape.iter().try_fold(1u64, |a, &d| a.checked_mul(d as u64));
        let bytes = count.and_then(|n| n.checked_mul(elem.cell_bytes() as u64));
        // Sizes whose product overflows are refused where the expression's type is asked for.
        let (bytes, shape) = (bytes.unwrap_or(u64::MAX), shape.to_vec());
        Stored { file: name.into(), offset: 0, bytes, elem, shape, made: None }
    }

    /// Whether a tensor is a matrix of a layer other than its router.
    fn narrow(&self, name: &str, shape: &[usize]) -> bool {
        let (Some(kept), Some(module)) = (&self.eight, name.strip_suffix(".weight")) else {
            return false;
        };
        let listed = |k: &String| {
            let rest = module.strip_prefix(&**k);
            module.ends_with(&format!(".{k}"))
                || rest.is_some_and(|r| r.is_empty() || r.starts_with('.'))
        };
        shape.len() == 2
            && layer_of(name).is_some()
            && !module.ends_with(".gate")
            && !kept.iter().any(listed)
    }

    /// Whether there is a tensor that is asked for because a checkpoint may lack it: names without a
    /// prefix and the pooler, which come with the bare class.
    pub fn has(&self, _: &str) -> bool {
        self.bare
    }

    /// The shape of the scales of a matrix.
    pub fn scales(shape: &[usize]) -> Vec<usize> {
        shape.iter().map(|n| n.div_ceil(BLOCK)).collect()
    }
}
