//! What blocks build with: a function under construction, the checkpoint's tensors as weights, and
//! ops with locations of the user's module names.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use silure_ir::dialects::{arith, core, graph};
use silure_ir::{
    Attr, Attrs, Builder, Dim, Elem, Func, FuncKind, Loc, Module, Num, OpDef, RegionId, SymDecl,
    Tensor, TensorType, Type, ValueId, Weight, WeightExpr, attrs,
};

use crate::blocks::step::Step;
use crate::checkpoint::{Checkpoint, Stored};
use crate::error::{Code, Error, Result, quoted};
use crate::import::Parameters;
use crate::matrix::above;
use crate::promised::Promised;
use crate::quantised;

/// The most tensors of a model, scales included: a configuration alone may state any number of layers and experts.
const MOST_TENSORS: usize = 1 << 18;

/// The module under construction and the function that is built.
pub(crate) struct Net<'a> {
    pub module: Module,
    checkpoint: &'a Checkpoint,
    f: Func,
    at: String,
    /// The branch that is being built.
    region: Option<RegionId>,
    weights: HashMap<String, TensorType>,
    used: HashMap<String, Used>,
}

/// What was asked of a tensor of the checkpoint.
struct Used {
    elements: u64,
    /// Of an expert's: how many of how many a token has.
    share: Option<(usize, usize)>,
}

/// One product with the weights of one or several layers of the model.
pub(crate) struct Linear<'a> {
    /// Names of the layers, and how many features each gives.
    pub parts: &'a [(String, usize)],
    /// Features that go in.
    pub input: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

impl<'a> Net<'a> {
    /// A module without functions.
    pub fn new(name: &str, checkpoint: &'a Checkpoint) -> Net<'a> {
        Net {
            module: Module::new(name),
            checkpoint,
            f: Func::new("", FuncKind::Entry),
            at: String::new(),
            region: None,
            weights: HashMap::new(),
            used: HashMap::new(),
        }
    }

    /// Begins an entry of the module.
    pub fn begin(&mut self, name: &str) {
        self.f = Func::new(name, FuncKind::Entry);
    }

    /// Ends the entry with named results.
    pub fn end(&mut self, results: &[(&str, ValueId)]) -> Result<()> {
        self.f.result_names = results.iter().map(|r| r.0.into()).collect();
        let values: Vec<ValueId> = results.iter().map(|r| r.1).collect();
        self.with(|b| b.ret(&values))?;
        let done = std::mem::replace(&mut self.f, Func::new("", FuncKind::Entry));
        self.module.funcs.push(done);
        Ok(())
    }

    /// Says which module of the model the next ops belong to.
    pub fn enter(&mut self, at: &str) {
        self.at = at.into();
    }

    /// A symbol of the signature.
    pub fn symbol(&mut self, name: &str, min: i64, max: usize) -> Dim {
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        self.f.declare(SymDecl { min, max, ..SymDecl::new(name) });
        Dim::sym(name)
    }

    /// An input.
    pub fn input(&mut self, name: &str, elem: Elem, dims: Vec<Dim>) -> ValueId {
        self.f.add_arg(name, Type::tensor(elem, dims))
    }

    /// Builds with a builder at the end of the function.
    pub fn with<T>(&mut self, f: impl FnOnce(&mut Builder) -> silure_ir::Result<T>) -> Result<T> {
        let mut b = match self.region {
            Some(r) => Builder::in_region(&mut self.f, r),
            None => Builder::at_end(&mut self.f),
        };
        b.loc = Loc::name(&self.at);
        f(&mut b).map_err(|d| Error::diag(&self.at, d))
    }

    /// The value of the first branch if the condition holds, else of the second.
    pub fn either(
        &mut self,
        condition: ValueId,
        then: impl FnOnce(&mut Self) -> Result<ValueId>,
        otherwise: impl FnOnce(&mut Self) -> Result<ValueId>,
    ) -> Result<ValueId> {
        let then = self.branch(then)?;
        let otherwise = self.branch(otherwise)?;
        self.with(|b| {
            let op =
                b.build(&graph::IF, &[Some(condition)], Attrs::new(), &[then, otherwise], &[])?;
            b.single(op)
        })
    }

    fn branch(&mut self, f: impl FnOnce(&mut Self) -> Result<ValueId>) -> Result<RegionId> {
        let region = self.f.new_region();
        let around = self.region.replace(region);
        let made = f(self).and_then(|v| self.with(|b| b.op(&core::YIELD, [v], Attrs::new())));
        self.region = around;
        made.map(|_| region)
    }

    /// Sizes of a tensor.
    pub fn dims(&self, v: ValueId) -> Vec<Dim> {
        self.f.ty(v).as_tensor().map(|t| t.dims.clone()).unwrap_or_default()
    }

    /// An op with one result.
    pub fn op(&mut self, def: &'static OpDef, of: &[ValueId], a: Attrs) -> Result<ValueId> {
        self.with(|b| b.one(def, of.iter().copied(), a))
    }

    /// An op with one result and absent operands.
    pub fn slots(
        &mut self,
        def: &'static OpDef,
        of: &[Option<ValueId>],
        a: Attrs,
    ) -> Result<ValueId> {
        self.with(|b| {
            let op = b.build(def, of, a, &[], &[])?;
            b.single(op)
        })
    }

    /// An elementwise op of one operand.
    pub fn one(&mut self, def: &'static OpDef, x: ValueId) -> Result<ValueId> {
        self.op(def, &[x], Attrs::new())
    }

    /// An elementwise op; the operands of fewer elements are repeated to the first's shape.
    pub fn two(&mut self, def: &'static OpDef, x: ValueId, y: ValueId) -> Result<ValueId> {
        let dims = self.dims(x);
        let y = self.broadcast(y, dims)?;
        self.op(def, &[x, y], Attrs::new())
    }

    /// x repeated to a shape.
    pub fn broadcast(&mut self, x: ValueId, dims: Vec<Dim>) -> Result<ValueId> {
        if self.dims(x) == dims {
            return Ok(x);
        }
        self.op(&graph::BROADCAST, &[x], attrs! { shape: dims })
    }

    /// The same elements as another shape.
    pub fn reshape(&mut self, x: ValueId, dims: Vec<Dim>) -> Result<ValueId> {
        if self.dims(x) == dims {
            return Ok(x);
        }
        self.op(&graph::RESHAPE, &[x], attrs! { shape: dims })
    }

    /// A constant of the type's elements, rank 0.
    pub fn number(&mut self, elem: Elem, v: f64) -> Result<ValueId> {
        let v = if elem.is_int() { Num::I(v as i128) } else { Num::F(v) };
        self.with(|b| b.constant(Tensor::scalar(elem, v)))
    }

    /// An elementwise op with a constant.
    pub fn by(&mut self, def: &'static OpDef, x: ValueId, v: f64) -> Result<ValueId> {
        let elem = self.f.ty(x).elem().unwrap_or(Elem::F32);
        let c = self.number(elem, v)?;
        self.two(def, x, c)
    }

    /// x as another element type.
    pub fn cast(&mut self, x: ValueId, elem: Elem) -> Result<ValueId> {
        if self.f.ty(x).elem() == Some(elem) {
            return Ok(x);
        }
        self.op(&arith::CAST, &[x], attrs! { to: elem })
    }

    /// x cut along its last axis.
    pub fn split(&mut self, x: ValueId, sizes: &[usize]) -> Result<Vec<ValueId>> {
        if let [_] = sizes {
            return Ok(vec![x]);
        }
        let axis = self.dims(x).len() as i64 - 1;
        let sizes: Vec<Dim> = sizes.iter().map(|s| Dim::Const(*s as i64)).collect();
        self.with(|b| {
            let op = b.op(&graph::SPLIT, [x], attrs! { axis: axis, sizes: sizes })?;
            Ok(b.func.op(op).results.to_vec())
        })
    }

    /// Tensors joined along an axis.
    pub fn concat(&mut self, parts: &[ValueId], axis: i64) -> Result<ValueId> {
        self.op(&graph::CONCAT, parts, attrs! { axis: axis })
    }

    // ---- Weights ------------------------------------------------------------------------------

    /// Whether the checkpoint has a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.checkpoint.has(name)
    }

    /// A tensor of the checkpoint in f32, its shape checked; of a quantised one what it stands for.
    pub fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<WeightExpr> {
        let elements = shape.iter().fold(1u64, |a, &d| a.saturating_mul(d as u64));
        self.used.entry(name.into()).or_insert(Used { elements, share: None });
        if self.used.len() > MOST_TENSORS {
            let e = Error::new(Code::Limit, "config.json", "the model has too many tensors");
            return Err(e.needed(format!("at most {MOST_TENSORS}")));
        }
        let Some(t) = self.checkpoint.get(name, shape) else {
            let at = format!("tensor {}", quoted(name));
            let e = Error::new(Code::Missing, at, "the checkpoint does not have it");
            return Err(e.needed(format!("a tensor of shape {shape:?}")));
        };
        let at = || format!("{}, tensor {}", quoted(&t.file), quoted(name));
        if t.shape != shape {
            return Err(Error::new(Code::Type, at(), "the shape is not what config.json states")
                .needed(format!("{shape:?}"))
                .present(format!("{:?}", t.shape)));
        }
        match t.elem {
            Elem::F32 => Ok(t.expr()),
            Elem::F16 | Elem::Bf16 | Elem::F64 => {
                Ok(WeightExpr::Cast(Box::new(t.expr()), Elem::F32))
            }
            Elem::E4m3fn => {
                let scales = self.scales(name, shape);
                quantised::blocks(&t, name, scales.as_deref())
            }
            e => Err(Error::new(Code::Unsupported, at(), "weights of this type are not supported")
                .needed("f32, f16, bf16, f64 or e4m3fn with scales")
                .present(e.name())),
        }
    }

    /// The scales of a matrix; they count as used, and not as parameters.
    fn scales(&mut self, name: &str, shape: &[usize]) -> Option<Cow<'a, Stored>> {
        let scales = quantised::scales_name(name);
        let found = self.checkpoint.get(&scales, &Promised::scales(shape));
        self.used.insert(scales, Used { elements: 0, share: None });
        found
    }

    /// Says that of the experts whose matrices these are each token has some.
    pub fn share(&mut self, names: &[(String, usize)], chosen: usize, count: usize) {
        for (name, _) in names {
            if let Some(used) = self.used.get_mut(name) {
                used.share = Some((chosen, count));
            }
        }
    }

    /// How many parameters there are.
    pub fn parameters(&self) -> Parameters {
        let mut p = Parameters::default();
        let mut shares: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        for u in self.used.values() {
            p.total = p.total.saturating_add(u.elements);
            match u.share {
                Some(s) => {
                    p.routed = p.routed.saturating_add(u.elements);
                    *shares.entry(s).or_default() += u.elements;
                }
                None => p.active = p.active.saturating_add(u.elements),
            }
        }
        for ((chosen, count), elements) in shares {
            let part = elements as u128 * chosen as u128 / count.max(1) as u128;
            p.active = p.active.saturating_add(part as u64);
        }
        p
    }

    /// The tensor of a name as the checkpoint has it.
    pub fn raw(&self, name: &str, shape: &[usize]) -> Option<Cow<'a, Stored>> {
        self.checkpoint.get(name, shape)
    }

    /// Matrices of 8-bit floats (names, rows) one above the other as they are stored, and their scales by
    /// blocks of a row; `None` unless all are such.
    pub fn floats8(
        &mut self,
        parts: &[(String, usize)],
        columns: usize,
    ) -> Result<Option<[WeightExpr; 2]>> {
        let small = |(n, rows): &(String, usize)| {
            self.checkpoint.get(n, &[*rows, columns]).is_some_and(|t| t.elem == Elem::E4m3fn)
        };
        if !parts.iter().all(small) {
            return Ok(None);
        }
        let (mut codes, mut scales) = (vec![], vec![]);
        for (name, rows) in parts {
            // Checks the shapes and marks both tensors as used.
            self.tensor(name, &[*rows, columns])?;
            let shape = [*rows, columns];
            let Some(t) = self.checkpoint.get(name, &shape) else { return Ok(None) };
            let (q, s) = quantised::by_rows(&t, name, self.scales(name, &shape).as_deref())?;
            codes.push(q);
            scales.push(s);
        }
        Ok(Some([codes, scales].map(above)))
    }

    /// The weight of a name, made of an expression the first time.
    pub fn weight(
        &mut self,
        name: &str,
        make: impl FnOnce(&mut Self) -> Result<WeightExpr>,
    ) -> Result<ValueId> {
        let ty = match self.weights.get(name) {
            Some(ty) => ty.clone(),
            None => {
                let expr = make(self)?;
                let ty = expr.ty().map_err(|d| Error::diag(name, d))?;
                let weight = Weight { name: name.into(), ty: ty.clone(), expr };
                self.module.weights.push(weight);
                self.weights.insert(name.into(), ty.clone());
                ty
            }
        };
        let named = Attrs::new().with("name", Attr::Symbol(name.into()));
        self.with(|b| b.typed(&core::WEIGHT, [], named, Type::Tensor(ty)))
    }

    /// A tensor of the checkpoint as a weight.
    pub fn stored(&mut self, name: &str, shape: &[usize]) -> Result<ValueId> {
        self.weight(name, |net| net.tensor(name, shape))
    }

    /// x [n, input] · Wᵀ (+ bias), with the matrices of the parts one above the other.
    pub fn linear(&mut self, x: ValueId, l: &Linear) -> Result<ValueId> {
        let joined = |what: &str| match l.parts {
            [(one, _)] => format!("{one}.{what}"),
            parts => {
                let names: Vec<&str> =
                    parts.iter().map(|p| p.0.rsplit('.').next().unwrap_or(&p.0)).collect();
                let folder = parts[0].0.rsplit_once('.').map_or("", |p| p.0);
                format!("{folder}.{}.{what}", names.join("+"))
            }
        };
        let named: Vec<(String, usize)> =
            l.parts.iter().map(|(name, out)| (format!("{name}.weight"), *out)).collect();
        let y = self.product(x, &named, l.input, &joined("weight"))?;
        if !l.bias {
            return Ok(y);
        }
        let bias = self.weight(&joined("bias"), |net| {
            let all =
                l.parts.iter().map(|(name, out)| net.tensor(&format!("{name}.bias"), &[*out]));
            Ok(above(all.collect::<Result<Vec<_>>>()?))
        })?;
        self.two(&arith::ADD, y, bias)
    }

    /// x · wᵀ.
    pub fn times(&mut self, x: ValueId, w: ValueId) -> Result<ValueId> {
        let w = self.op(&graph::TRANSPOSE, &[w], attrs! { perm: vec![1i64, 0] })?;
        self.op(&graph::MATMUL, &[x, w], Attrs::new())
    }

    /// x / √(mean of x² + epsilon) · the scale of that name, along the last axis.
    pub fn rms_norm(
        &mut self,
        x: ValueId,
        name: &str,
        size: usize,
        epsilon: f64,
    ) -> Result<ValueId> {
        let scale = self.stored(&format!("{name}.weight"), &[size])?;
        self.op(&graph::RMS_NORM, &[x, scale], attrs! { axis: -1i64, epsilon: epsilon })
    }

    /// An activation by its name in config.json.
    pub fn activation(&mut self, kind: Activation, x: ValueId) -> Result<ValueId> {
        match kind {
            Activation::Silu => {
                let s = self.one(&arith::SIGMOID, x)?;
                self.two(&arith::MUL, x, s)
            }
            Activation::Gelu => self.one(&arith::GELU, x),
            Activation::GeluTanh => self.op(&arith::GELU, &[x], attrs! { tanh: true }),
            Activation::Relu => self.one(&arith::RELU, x),
            Activation::Tanh => self.one(&arith::TANH, x),
        }
    }

    /// Names of tensors that nothing asked for, in order.
    pub fn unused(&self) -> Vec<&'a str> {
        self.checkpoint.stored().map(|t| t.0).filter(|n| !self.used.contains_key(*n)).collect()
    }

    /// A state of the module, and the handle to it in this entry.
    pub fn state(&mut self, name: &str, ty: TensorType) -> Result<ValueId> {
        if self.module.state(name).is_none() {
            let name: Arc<str> = name.into();
            self.module.states.push(silure_ir::State { name, ty: ty.clone() });
        }
        let named = Attrs::new().with("name", Attr::Symbol(name.into()));
        self.with(|b| b.typed(&core::STATE, [], named, Type::State(ty)))
    }

    /// New rows of a layer's cache, rounded to its type, where the step says; gives all of it.
    pub fn cached(&mut self, name: &str, step: &Step, x: ValueId) -> Result<ValueId> {
        let mut dims = self.dims(x);
        dims[0] = Dim::Const(step.capacity as i64);
        let x = self.cast(x, step.cache)?;
        let before = self.state(name, TensorType::new(step.cache, dims))?;
        let after = self.op(&core::STATE_WRITE, &[before, x, step.slots], attrs! { axis: 0i64 })?;
        let all = self.op(&core::STATE_READ, &[after], Attrs::new())?;
        let named = Attrs::new().with("name", Attr::Symbol(name.into()));
        self.with(|b| b.op(&core::STATE_STORE, [after], named))?;
        Ok(all)
    }
}

/// What stands between the products of a feed-forward network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Activation {
    Silu,
    Gelu,
    GeluTanh,
    Relu,
    Tanh,
}

impl Activation {
    /// The activation that a field of config.json names.
    pub fn read(config: &crate::config::Config, field: &str, otherwise: &str) -> Result<Self> {
        Ok(match config.word(field)?.unwrap_or(otherwise) {
            "silu" | "swish" => Activation::Silu,
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            "tanh" => Activation::Tanh,
            other => {
                let e = config.unsupported(field, "this activation");
                let known = "silu, gelu, gelu_new, gelu_pytorch_tanh, relu, tanh";
                return Err(e.needed(known).present(quoted(other)));
            }
        })
    }
}
