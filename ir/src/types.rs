//! The types of values.
//!
//! | text | what |
//! |---|---|
//! | `f32[b, s, 768]` | logical tensor, dense row-major |
//! | `f32[768, 3072]{nr16}` | the same tensor in a physical layout (an *encoding*) |
//! | `f32[4]@cuda` | placed on a device |
//! | `state<f32[1, 64]>` | handle to a state, linear |
//! | `f32`, `index` | scalar, in regions of kernel ops and in tile and simt code |
//! | `tile<128x64xf16>` | tile of a tile program, static |
//! | `vec<4xf32>` | short vector of one lane |
//! | `ptr<f32, global>` | address of elements in a memory space |
//! | `view<f16, 2>` | a tensor of rank 2 in memory: base, sizes and strides, for tile code |
//! | `seq<T>`, `opt<T>` | sequence and optional |
//! | `seq<f32>`, `opt<f32>` | sequence of tensors of any shape, optional tensor of any shape |
//! | `!dialect.name<...>` | a type of another dialect, opaque here |

use std::fmt;
use std::sync::Arc;

use silure_types::Elem;

use crate::dim::Dim;

/// The type of a value; see the module documentation.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Type {
    /// A tensor.
    Tensor(TensorType),
    /// A linear handle to a state of that tensor type.
    State(TensorType),
    /// One element.
    Scalar(Elem),
    /// A 64-bit size or position.
    Index,
    /// A tile: static shape, part of a tile program.
    Tile(TileType),
    /// A short vector in one lane's registers.
    Vec(u32, Elem),
    /// An address.
    Ptr(Elem, Space),
    /// A tensor in memory as tile code sees it: element type and rank.
    View(Elem, usize),
    /// A sequence.
    Seq(Box<Type>),
    /// An optional.
    Opt(Box<Type>),
    /// A type that another dialect defines: its name and the text between the brackets.
    Ext(Arc<str>, Arc<str>),
}

/// Element type, logical shape, layout and place of a tensor.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TensorType {
    /// Element type.
    pub elem: Elem,
    /// Shape; rank 0 is a scalar tensor.
    pub dims: Vec<Dim>,
    /// What few tensors have.
    placed: Option<Box<Placed>>,
}

/// How a tensor is laid in memory and where; never empty.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Placed {
    encoding: Option<Arc<str>>,
    device: Option<Arc<str>>,
}

impl TensorType {
    /// A dense tensor.
    pub fn new(elem: Elem, dims: impl Into<Vec<Dim>>) -> TensorType {
        TensorType { elem, dims: dims.into(), placed: None }
    }

    /// The same in another physical layout, on another device.
    pub fn placed(mut self, encoding: Option<Arc<str>>, device: Option<Arc<str>>) -> TensorType {
        let placed = Placed { encoding, device };
        self.placed = (placed != Placed::default()).then(|| Box::new(placed));
        self
    }

    /// Physical layout if not dense row-major; the name of a layout that the target's kernels read.
    pub fn encoding(&self) -> Option<&Arc<str>> {
        self.placed.as_ref()?.encoding.as_ref()
    }

    /// Device, once placed.
    pub fn device(&self) -> Option<&Arc<str>> {
        self.placed.as_ref()?.device.as_ref()
    }

    /// A dense tensor of known sizes.
    pub fn fixed(elem: Elem, dims: &[usize]) -> TensorType {
        TensorType::new(elem, dims.iter().map(|&d| Dim::from(d)).collect::<Vec<_>>())
    }

    /// Number of dims.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Number of elements, as a dim.
    pub fn count(&self) -> Dim {
        self.dims.iter().cloned().fold(Dim::Const(1), |a, d| a * d)
    }

    /// All dims, if all are known.
    pub fn shape(&self) -> Option<Vec<usize>> {
        self.dims.iter().map(Dim::as_size).collect()
    }

    /// The same tensor type with other elements.
    pub fn with_elem(&self, elem: Elem) -> TensorType {
        TensorType { elem, ..self.clone() }
    }
}

/// Element type and static shape of a tile.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TileType {
    /// Element type.
    pub elem: Elem,
    /// Shape.
    pub shape: Vec<usize>,
}

/// Memory spaces of [`Type::Ptr`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Space {
    /// Device memory.
    Global,
    /// Memory shared by the lanes of one program.
    Shared,
    /// Private to a lane.
    Local,
}

impl Space {
    /// The word in text.
    pub fn name(self) -> &'static str {
        match self {
            Space::Global => "global",
            Space::Shared => "shared",
            Space::Local => "local",
        }
    }

    /// The space of that name.
    pub fn parse(s: &str) -> Option<Space> {
        [Space::Global, Space::Shared, Space::Local].into_iter().find(|x| x.name() == s)
    }
}

impl Type {
    /// A dense tensor type.
    pub fn tensor(elem: Elem, dims: impl Into<Vec<Dim>>) -> Type {
        Type::Tensor(TensorType::new(elem, dims))
    }

    /// A tile type.
    pub fn tile(elem: Elem, shape: impl Into<Vec<usize>>) -> Type {
        Type::Tile(TileType { elem, shape: shape.into() })
    }

    /// The tensor type, if it is a tensor.
    pub fn as_tensor(&self) -> Option<&TensorType> {
        match self {
            Type::Tensor(t) => Some(t),
            _ => None,
        }
    }

    /// The element type of tensors, tiles, vectors, scalars, pointers, views and states.
    pub fn elem(&self) -> Option<Elem> {
        match self {
            Type::Tensor(t) | Type::State(t) => Some(t.elem),
            Type::Tile(t) => Some(t.elem),
            Type::Scalar(e) | Type::Vec(_, e) | Type::Ptr(e, _) | Type::View(e, _) => Some(*e),
            _ => None,
        }
    }

    /// The same shape with other elements (scalar, vector, tile, tensor); `None` for other types.
    pub fn with_elem(&self, elem: Elem) -> Option<Type> {
        Some(match self {
            Type::Tensor(t) => Type::Tensor(t.with_elem(elem)),
            Type::Tile(t) => Type::Tile(TileType { elem, shape: t.shape.clone() }),
            Type::Vec(n, _) => Type::Vec(*n, elem),
            Type::Scalar(_) => Type::Scalar(elem),
            _ => return None,
        })
    }

    /// Calls `f` on every dim.
    pub(crate) fn each_dim(&mut self, f: &mut dyn FnMut(&mut Dim)) {
        match self {
            Type::Tensor(t) | Type::State(t) => t.dims.iter_mut().for_each(f),
            Type::Seq(t) | Type::Opt(t) => t.each_dim(f),
            _ => {}
        }
    }

    /// Replaces symbols in every dim.
    pub fn subst(&self, f: &dyn Fn(&str) -> Option<Dim>) -> Type {
        let sub = |t: &TensorType| TensorType {
            dims: t.dims.iter().map(|d| d.subst(f)).collect(),
            ..t.clone()
        };
        match self {
            Type::Tensor(t) => Type::Tensor(sub(t)),
            Type::State(t) => Type::State(sub(t)),
            Type::Seq(t) => Type::Seq(Box::new(t.subst(f))),
            Type::Opt(t) => Type::Opt(Box::new(t.subst(f))),
            t => t.clone(),
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.elem)?;
        for (i, d) in self.dims.iter().enumerate() {
            write!(f, "{}{d}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("]")?;
        if let Some(e) = self.encoding() {
            write!(f, "{{{e}}}")?;
        }
        if let Some(d) = self.device() {
            write!(f, "@{d}")?;
        }
        Ok(())
    }
}

impl fmt::Display for TileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for s in &self.shape {
            write!(f, "{s}x")?;
        }
        write!(f, "{}", self.elem)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Tensor(t) => write!(f, "{t}"),
            Type::State(t) => write!(f, "state<{t}>"),
            Type::Scalar(e) => write!(f, "{e}"),
            Type::Index => f.write_str("index"),
            Type::Tile(t) => write!(f, "tile<{t}>"),
            Type::Vec(n, e) => write!(f, "vec<{n}x{e}>"),
            Type::Ptr(e, s) => write!(f, "ptr<{e}, {}>", s.name()),
            Type::View(e, r) => write!(f, "view<{e}, {r}>"),
            Type::Seq(t) => write!(f, "seq<{t}>"),
            Type::Opt(t) => write!(f, "opt<{t}>"),
            Type::Ext(n, b) => write!(f, "!{n}<{}>", crate::diag::quote(b)),
        }
    }
}
