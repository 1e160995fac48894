//! The entry's signature: the model's inputs, with dynamic dims as symbols.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use silure_ir::{Dim, Elem, SymDecl, Tensor, Type, ValueId};

use super::cx::Cx;
use super::ml::Map;
use crate::error::{Code, Error, Result, quote};
use crate::proto::{DimValue, TypeMap, TypeProto, TypeTensor, TypeValue};

/// What the user says about a dynamic dim.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Size {
    /// Always this size.
    Fixed(i64),
    /// Any multiple of `multiple` from `min` to `max`, both included.
    Range {
        /// Least size.
        min: i64,
        /// Greatest size; `i64::MAX` if there is no bound.
        max: i64,
        /// The size is a multiple of this.
        multiple: i64,
    },
    /// The size that another dim of this name has.
    Named(String),
}

/// What the user may decide about an import.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Name of the entry function.
    pub entry: String,
    /// Sizes by the name of a dim, as the model spells it or as the module does.
    pub dims: BTreeMap<String, Size>,
    /// Sizes of all dims of an input, by the input's name; they replace the model's.
    pub shapes: BTreeMap<String, Vec<Size>>,
    /// Inputs that always have this value, by name: they are compiled in.
    pub constants: BTreeMap<String, Tensor>,
    /// Seed of the random nodes that state none (0 if absent, with a note).
    pub seed: Option<u64>,
}

impl Default for ImportOptions {
    fn default() -> ImportOptions {
        ImportOptions {
            entry: "main".into(),
            dims: BTreeMap::new(),
            shapes: BTreeMap::new(),
            constants: BTreeMap::new(),
            seed: None,
        }
    }
}

/// A name of the file as an identifier of text IR.
pub(super) fn identifier(name: &str) -> String {
    let mut out: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if !out.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        out.insert(0, 'd');
    }
    out
}

/// The name of a dim of an input that the model does not name.
fn own_dim(input: &str, axis: usize) -> String {
    format!("{}_d{axis}", identifier(input))
}

/// A type of the file for messages: `f32[batch, 3, ?]`.
pub(super) fn describe(ty: Option<TypeProto<'_>>) -> String {
    match ty.and_then(|t| t.value()) {
        Some(TypeValue::Tensor(t)) => {
            let elem =
                crate::tensor::elem(t.elem_type().unwrap_or(0)).map_or_else(|e| e, Elem::name);
            let Some(shape) = t.shape() else { return format!("{elem}[…]") };
            let dims: Vec<String> = shape
                .dim()
                .map(|d| match d.value() {
                    Some(DimValue::Number(v)) => v.to_string(),
                    Some(DimValue::Name(p)) if !p.is_empty() => p.into(),
                    _ => "?".into(),
                })
                .collect();
            format!("{elem}[{}]", dims.join(", "))
        }
        Some(TypeValue::Sequence(s)) => {
            format!("seq<{}>", describe(s.elem_type()))
        }
        Some(TypeValue::Optional(s)) => {
            format!("opt<{}>", describe(s.elem_type()))
        }
        Some(TypeValue::Map(m)) => {
            let key = crate::tensor::elem(m.key_type().unwrap_or(0)).map_or_else(|e| e, Elem::name);
            format!("map({key}, {})", describe(m.value_type()))
        }
        Some(TypeValue::Sparse(_)) => "sparse tensor".into(),
        _ => "?".into(),
    }
}

/// Symbols given out so far.
struct Symbols<'o> {
    options: &'o ImportOptions,
    /// The model's dim name to the symbol.
    given: HashMap<String, Dim>,
    /// Keys of the options that were used.
    used: Vec<String>,
}

impl Cx<'_, '_> {
    /// Declares the entry's arguments.
    pub fn arguments(&mut self, options: &ImportOptions) -> Result<Vec<ValueId>> {
        let program = self.program;
        let mut symbols = Symbols { options, given: HashMap::new(), used: vec![] };
        for (name, size) in options
            .dims
            .iter()
            .chain(options.shapes.iter().flat_map(|(n, s)| s.iter().map(move |s| (n, s))))
        {
            check_size(name, size)?;
        }
        let mut out = Vec::new();
        for v in &program.graph.inputs {
            let value = program.value(*v);
            self.at = format!("input {}", quote(value.name));
            let ty = match (value.ty, value.ty.and_then(|t| t.value())) {
                (_, Some(TypeValue::Map(t))) => {
                    let map = self.input_map(t, value.name, &mut symbols)?;
                    self.maps.insert(*v, map);
                    // Nothing reads it: `Cx::value` refuses maps.
                    out.push(map.keys);
                    continue;
                }
                (Some(t), _) => self.input_type(t, value.name, &mut symbols)?,
                (None, _) => return Err(self.wrong("the input has no type")),
            };
            out.push(match options.constants.get(value.name) {
                None => self.f.add_arg(value.name, ty),
                Some(t) => self.fixed(t, ty, value.name)?,
            });
        }
        for name in options.shapes.keys().chain(options.constants.keys()) {
            if !program.graph.inputs.iter().any(|v| program.value(*v).name == name) {
                let e = Error::new(Code::Type, "the options", "the model has no such input");
                return Err(e.present(quote(name)));
            }
        }
        for name in options.dims.keys() {
            if !symbols.used.contains(name) {
                let mut names: Vec<&String> = symbols.given.keys().collect();
                names.sort();
                return Err(Error::new(Code::Type, "the given dims", "the model has no such dim")
                    .needed(format!("one of {names:?}"))
                    .present(quote(name)));
            }
        }
        Ok(out)
    }

    /// Two arguments for an input that is a map: vectors of one size, which may be 0.
    fn input_map(&mut self, ty: TypeMap<'_>, name: &str, s: &mut Symbols<'_>) -> Result<Map> {
        let elems = self.map_elems(ty)?;
        let names = ["keys", "values"].map(|part| format!("{name}.{part}"));
        let program = self.program;
        for part in &names {
            if program.graph.inputs.iter().any(|v| program.value(*v).name == *part) {
                let e = self.wrong("a map's part has the name of another input");
                return Err(e.present(quote(part)));
            }
        }
        if s.options.shapes.contains_key(name) || s.options.constants.contains_key(name) {
            return Err(self
                .unsupported("a map has neither a shape nor a given value")
                .needed(format!("a size for the dim `{}`", own_dim(name, 0))));
        }
        self.note(format!(
            "input {} is a map, given as two inputs: {} and {}, in any order, no key twice",
            quote(name),
            quote(&names[0]),
            quote(&names[1])
        ));
        let n = self.any_size(&own_dim(name, 0), s);
        let [keys, values] = names;
        let keys = self.f.add_arg(&keys, Type::tensor(elems.0, [n.clone()]));
        let values = self.f.add_arg(&values, Type::tensor(elems.1, [n]));
        Ok(Map { keys, values })
    }

    /// An input with a stated value.
    fn fixed(&mut self, t: &Tensor, ty: Type, name: &str) -> Result<ValueId> {
        let fits = ty.as_tensor().is_some_and(|ty| {
            ty.elem == t.elem()
                && ty.rank() == t.shape().len()
                && ty.dims.iter().zip(t.shape()).all(|(d, n)| d.as_size().is_none_or(|d| d == *n))
        });
        if !fits {
            return Err(self
                .wrong("the given value does not fit the input")
                .needed(ty.to_string())
                .present(t.ty().to_string()));
        }
        self.note(format!("input {} has a given value, which is compiled in", quote(name)));
        self.stored(t.clone(), name)
    }

    /// A tensor as a constant, or as a weight if it is large.
    pub fn stored(&mut self, t: Tensor, name: &str) -> Result<ValueId> {
        if t.bytes().len() <= silure_ir::weight::INLINE_LIMIT || t.elem().is_str() {
            return self.constant(t);
        }
        let ty = t.ty();
        let expr = silure_ir::WeightExpr::Data(Arc::new(t));
        let name = identifier(name).into();
        let name = self.module.add_weight(silure_ir::Weight { name, ty: ty.clone(), expr });
        let attrs = silure_ir::Attrs::new().with("name", silure_ir::Attr::Symbol(name));
        let def = &silure_ir::dialects::core::WEIGHT;
        let op = self.build(def, &[], attrs, &[], &[Type::Tensor(ty)])?;
        Ok(self.f.op(op).result())
    }

    fn input_type(&mut self, ty: TypeProto<'_>, name: &str, s: &mut Symbols<'_>) -> Result<Type> {
        match ty.value() {
            Some(TypeValue::Tensor(t)) => self.input_tensor(t, name, s),
            Some(TypeValue::Sequence(t)) => match t.elem_type() {
                Some(t) => Ok(Type::Seq(Box::new(self.element_type(t, name, s)?))),
                None => Err(self.wrong("the sequence has no element type")),
            },
            Some(TypeValue::Optional(t)) => match t.elem_type() {
                Some(t) => Ok(Type::Opt(Box::new(self.element_type(t, name, s)?))),
                None => Err(self.wrong("the optional has no element type")),
            },
            _ => Err(self
                .unsupported("the input's type is not read")
                .needed("a tensor, a map, or a sequence or optional of tensors")
                .present(describe(Some(ty)))),
        }
    }

    /// The type of what a list holds. Without a stated shape it is a tensor of any shape; sizes that
    /// are not numbers differ from element to element.
    fn element_type(&mut self, ty: TypeProto<'_>, name: &str, s: &mut Symbols<'_>) -> Result<Type> {
        match ty.value() {
            Some(TypeValue::Tensor(t))
                if t.shape().is_none() && !s.options.shapes.contains_key(name) =>
            {
                self.any_shape(t)
            }
            Some(TypeValue::Tensor(t)) => {
                let Type::Tensor(mut t) = self.input_tensor(t, name, s)? else {
                    return Err(self.wrong("a tensor is needed"));
                };
                for d in t.dims.iter_mut().filter(|d| d.as_const().is_none()) {
                    *d = self.f.fresh_symbol(d.as_sym().unwrap_or("element"), i64::MAX);
                }
                Ok(Type::Tensor(t))
            }
            _ => self.input_type(ty, name, s),
        }
    }

    fn any_shape(&mut self, t: TypeTensor<'_>) -> Result<Type> {
        crate::tensor::elem(t.elem_type().unwrap_or(0))
            .map(Type::Scalar)
            .map_err(|e| self.unsupported("the element type is not read").present(e))
    }

    /// The type that an attribute states for what a list holds.
    pub fn list_type(&mut self, ty: TypeProto<'_>) -> Result<Type> {
        let options = ImportOptions::default();
        let mut none = Symbols { options: &options, given: HashMap::new(), used: vec![] };
        self.element_type(ty, "", &mut none)
    }

    fn input_tensor(&mut self, t: TypeTensor<'_>, name: &str, s: &mut Symbols<'_>) -> Result<Type> {
        let elem = crate::tensor::elem(t.elem_type().unwrap_or(0))
            .map_err(|e| self.unsupported("the input's element type is not read").present(e))?;
        let options = s.options;
        if let Some(sizes) = options.shapes.get(name) {
            if let Some(shape) = t.shape()
                && shape.dim().count() != sizes.len()
            {
                return Err(self
                    .wrong("the given shape has the wrong rank")
                    .needed(shape.dim().count().to_string())
                    .present(sizes.len().to_string()));
            }
            let mut dims = Vec::new();
            for (i, size) in sizes.iter().enumerate() {
                let declared = t.shape().and_then(|sh| sh.dim().nth(i)?.value());
                if let (Some(DimValue::Number(want)), Size::Fixed(have)) = (declared, size)
                    && want > 0
                    && want != *have
                {
                    return Err(self
                        .wrong(format!("the given shape contradicts the model at dim {i}"))
                        .needed(want.to_string())
                        .present(have.to_string()));
                }
                dims.push(self.sized(size, &own_dim(name, i), s));
            }
            return Ok(Type::tensor(elem, dims));
        }
        let Some(shape) = t.shape() else {
            return Err(self
                .unsupported("the input has no shape, not even a rank")
                .needed(format!("a shape given for {}", quote(name))));
        };
        if shape.dim().count() > self.model.limits.rank {
            return Err(self.wrong("the input has too many dims"));
        }
        let mut dims = Vec::new();
        for (i, d) in shape.dim().enumerate() {
            dims.push(match d.value() {
                Some(DimValue::Number(v)) if v > 0 => Dim::Const(v),
                // Some exporters write `?` for every dim they do not know.
                Some(DimValue::Name(p)) if p.contains(|c: char| c.is_alphanumeric()) => {
                    self.symbol(p, false, s)
                }
                v => {
                    let own = own_dim(name, i);
                    if let Some(DimValue::Number(v)) = v {
                        self.note(format!(
                            "input {} has size {v} at dim {i}, which is read as dynamic: `{own}`",
                            quote(name)
                        ));
                    }
                    match v {
                        // A model that says 0 means that there may be nothing.
                        Some(DimValue::Number(0)) => self.any_size(&own, s),
                        _ => self.symbol(&own, true, s),
                    }
                }
            });
        }
        Ok(Type::tensor(elem, dims))
    }

    /// The dim for a name of ours: of any size, 0 too, unless the user says what it is.
    fn any_size(&mut self, own: &str, s: &mut Symbols<'_>) -> Dim {
        let dim = self.symbol(own, true, s);
        if !s.options.dims.contains_key(own)
            && let Some(sym) = dim.as_sym()
            && let Some(d) = self.f.symbols.iter_mut().find(|d| *d.name == *sym)
        {
            d.min = 0;
        }
        dim
    }

    /// The dim for a name of the model.
    fn symbol(&mut self, name: &str, anonymous: bool, s: &mut Symbols<'_>) -> Dim {
        if let Some(d) = s.given.get(name) {
            return d.clone();
        }
        let id = identifier(name);
        let key = [name, &id].into_iter().find(|k| s.options.dims.contains_key(*k));
        let dim = match key {
            Some(k) => {
                s.used.push(k.to_string());
                let size = s.options.dims[k].clone();
                self.sized(&size, &id, s)
            }
            None => self.declare(&id, 0, i64::MAX, 1),
        };
        if anonymous && let Some(sym) = dim.as_sym() {
            self.anonymous.insert(sym.into());
        }
        s.given.insert(name.to_string(), dim.clone());
        dim
    }

    fn sized(&mut self, size: &Size, own: &str, s: &mut Symbols<'_>) -> Dim {
        match size {
            Size::Fixed(v) => Dim::Const(*v),
            Size::Range { min, max, multiple } => self.declare(own, *min, *max, *multiple),
            // A name for itself would be looked up without end.
            Size::Named(n)
                if s.options.dims.get(n).is_some_and(|d| matches!(d, Size::Named(_))) =>
            {
                s.used.push(n.clone());
                match s.given.get(n) {
                    Some(d) => d.clone(),
                    None => {
                        let d = self.declare(&identifier(n), 0, i64::MAX, 1);
                        s.given.insert(n.clone(), d.clone());
                        d
                    }
                }
            }
            Size::Named(n) => self.symbol(n, false, s),
        }
    }

    /// A symbol of the signature under a name nothing else has.
    fn declare(&mut self, id: &str, min: i64, max: i64, multiple: i64) -> Dim {
        let mut name = id.to_string();
        let mut n = 0;
        while self.f.symbols.iter().any(|s| *s.name == *name) {
            n += 1;
            name = format!("{id}_{n}");
        }
        let arc: Arc<str> = name.as_str().into();
        self.f.symbols.push(SymDecl { name: arc, min, max, multiple, runtime: false });
        Dim::sym(&name)
    }
}

fn check_size(name: &str, size: &Size) -> Result<()> {
    let bad = |what: &str| {
        Err(Error::new(Code::Type, format!("the size given for {}", quote(name)), what)
            .present(format!("{size:?}")))
    };
    match size {
        Size::Fixed(v) if *v < 0 => bad("a size is negative"),
        Size::Range { min, max, multiple } if *min < 0 || max < min || *multiple < 1 => {
            bad("the range is empty")
        }
        _ => Ok(()),
    }
}
