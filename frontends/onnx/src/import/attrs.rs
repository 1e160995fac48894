//! Reading a node's attributes: typed, and all of them. A converter asks for what it knows; what it
//! did not ask for is refused by [`Cx::all_read`].

use silure_ir::Elem;

use super::cx::Cx;
use crate::error::{Result, quote};
use crate::functions::type_name;
use crate::graph::Node;
use crate::proto::{ATTRIBUTE_TYPES, AttributeProto, SparseTensorProto, TensorProto};

/// The types of attributes that are read, by their numbers in the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Type {
    Float = 1,
    Int = 2,
    String = 3,
    Tensor = 4,
    Floats = 6,
    Ints = 7,
    Strings = 8,
    SparseTensor = 11,
}

impl Type {
    fn name(self) -> &'static str {
        type_name(self as i32)
    }
}

/// The fields of an attribute that hold something.
fn values(a: AttributeProto<'_>) -> Vec<&'static str> {
    let fields = [
        ("f", a.f().is_some()),
        ("i", a.i().is_some()),
        ("s", a.s().is_some()),
        ("t", a.t().is_some()),
        ("g", a.g().is_some()),
        ("sparse_tensor", a.sparse_tensor().is_some()),
        ("tp", a.tp().is_some()),
        ("floats", !a.floats().is_empty()),
        ("ints", !a.ints().is_empty()),
        ("strings", a.strings().next().is_some()),
        ("tensors", a.tensors().next().is_some()),
        ("graphs", a.graphs().next().is_some()),
    ];
    fields.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

impl<'m> Cx<'_, 'm> {
    fn attr<'n>(
        &mut self,
        n: &Node<'n>,
        name: &'static str,
        kind: Type,
    ) -> Result<Option<AttributeProto<'n>>> {
        self.used.push(name);
        let wrong = |cx: &Self, present: String| {
            let e = cx.wrong(format!("attribute `{name}` has the wrong type"));
            Err(e.needed(kind.name()).present(present))
        };
        if n.graph(name).is_some() {
            return wrong(self, "GRAPH".into());
        }
        let Some(a) = n.attr(name) else { return Ok(None) };
        // Files of the first IR version do not say the type.
        let raw = a.r#type().unwrap_or(0);
        let unsaid = raw == 0 && self.model.ir_version < 2;
        if raw != kind as i32 && !unsaid {
            let known = usize::try_from(raw).ok().and_then(|n| ATTRIBUTE_TYPES.get(n));
            return wrong(self, known.map_or_else(|| format!("type {raw}"), |n| n.to_string()));
        }
        let values = values(a);
        if values.len() > 1 {
            let e = self.wrong(format!("attribute `{name}` has more than one value"));
            return Err(e.needed(kind.name()).present(values.join(", ")));
        }
        Ok(Some(a))
    }

    /// An integer attribute.
    pub fn int(&mut self, n: &Node<'_>, name: &'static str) -> Result<Option<i64>> {
        Ok(self.attr(n, name, Type::Int)?.map(|a| a.i().unwrap_or(0)))
    }

    /// An integer attribute with a default.
    pub fn int_or(&mut self, n: &Node<'_>, name: &'static str, default: i64) -> Result<i64> {
        Ok(self.int(n, name)?.unwrap_or(default))
    }

    /// A 0 or 1 attribute with a default.
    pub fn flag_or(&mut self, n: &Node<'_>, name: &'static str, default: bool) -> Result<bool> {
        Ok(self.int(n, name)?.map_or(default, |v| v != 0))
    }

    /// A list of integers.
    pub fn ints(&mut self, n: &Node<'_>, name: &'static str) -> Result<Option<Vec<i64>>> {
        Ok(self.attr(n, name, Type::Ints)?.map(|a| a.ints().to_vec()))
    }

    /// A list of integers of a stated length, with a default for each.
    pub fn ints_or(
        &mut self,
        n: &Node<'_>,
        name: &'static str,
        len: usize,
        default: i64,
    ) -> Result<Vec<i64>> {
        let v = self.ints(n, name)?.unwrap_or_else(|| vec![default; len]);
        if v.len() != len {
            return Err(self
                .wrong(format!("attribute `{name}` has the wrong length"))
                .needed(len.to_string())
                .present(v.len().to_string()));
        }
        Ok(v)
    }

    /// A float attribute.
    pub fn float(&mut self, n: &Node<'_>, name: &'static str) -> Result<Option<f64>> {
        Ok(self.attr(n, name, Type::Float)?.map(|a| f64::from(a.f().unwrap_or(0.0))))
    }

    /// A float attribute with a default, which is the single-precision value ONNX states.
    pub fn float_or(&mut self, n: &Node<'_>, name: &'static str, default: f32) -> Result<f64> {
        Ok(self.float(n, name)?.unwrap_or(f64::from(default)))
    }

    /// A list of floats.
    pub fn floats(&mut self, n: &Node<'_>, name: &'static str) -> Result<Option<Vec<f64>>> {
        let a = self.attr(n, name, Type::Floats)?;
        Ok(a.map(|a| a.floats().iter().map(f64::from).collect()))
    }

    /// A string attribute with a default.
    pub fn word(&mut self, n: &Node<'_>, name: &'static str, default: &str) -> Result<String> {
        match self.attr(n, name, Type::String)? {
            None => Ok(default.into()),
            Some(a) => self.utf8(name, a.s().unwrap_or_default()),
        }
    }

    /// A list of strings.
    pub fn words(&mut self, n: &Node<'_>, name: &'static str) -> Result<Option<Vec<String>>> {
        match self.attr(n, name, Type::Strings)? {
            None => Ok(None),
            Some(a) => {
                a.strings().map(|s| self.utf8(name, s)).collect::<Result<Vec<String>>>().map(Some)
            }
        }
    }

    fn utf8(&self, name: &str, s: &[u8]) -> Result<String> {
        std::str::from_utf8(s)
            .map(str::to_string)
            .map_err(|_| self.wrong(format!("attribute `{name}` is not UTF-8")))
    }

    /// A tensor attribute.
    pub fn tensor<'n>(
        &mut self,
        n: &Node<'n>,
        name: &'static str,
    ) -> Result<Option<TensorProto<'n>>> {
        Ok(self.attr(n, name, Type::Tensor)?.and_then(|a| a.t()))
    }

    /// A sparse tensor attribute.
    pub fn sparse<'n>(
        &mut self,
        n: &Node<'n>,
        name: &'static str,
    ) -> Result<Option<SparseTensorProto<'n>>> {
        let a = self.attr(n, name, Type::SparseTensor)?;
        Ok(a.and_then(|a| a.sparse_tensor()))
    }

    /// An element type attribute (`TensorProto.DataType`).
    pub fn elem_attr(&mut self, n: &Node<'_>, name: &'static str) -> Result<Option<Elem>> {
        let Some(code) = self.int(n, name)? else { return Ok(None) };
        let code = i32::try_from(code).unwrap_or(-1);
        crate::tensor::elem(code).map(Some).map_err(|what| {
            self.unsupported(format!("attribute `{name}` is an element type that is not read"))
                .present(what)
        })
    }

    /// Marks an attribute as read that changes nothing here.
    pub fn ignore(&mut self, name: &'static str) {
        self.used.push(name);
    }

    /// Refuses an attribute or operand that nothing asked for.
    pub fn all_read(&self, n: &Node<'_>) -> Result<()> {
        let graphs = n.graphs.iter().map(|(name, _)| *name);
        for name in n.attrs.iter().map(|a| a.name).chain(graphs) {
            if !self.used.contains(&name) {
                let what = format!("attribute {} is not one of {}", quote(name), n.op);
                return Err(self.wrong(what));
            }
        }
        for (i, v) in n.inputs.iter().enumerate().take(64) {
            if v.is_some() && self.read.get() >> i & 1 == 0 {
                return Err(self.wrong(format!("operand {i} is not one of {}", n.op)));
            }
        }
        Ok(())
    }
}
