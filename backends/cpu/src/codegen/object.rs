//! [`Codegen`]: from ops to functions, from functions to one object.

use std::collections::HashMap;
use std::sync::Arc;

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{
    AbiParam, Function, InstBuilder, Signature, Type, UserFuncName, types,
};
use cranelift_codegen::isa::TargetIsa;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use silure_ir::dialects::{kernel, plan};
use silure_ir::{Attrs, Dim, Elem, Func, OpId, Result, math};
use silure_launch::encode::{Callback, Functions, MapCode};

use super::emit::{Current, Emit, internal, memory};
use super::level::IsaLevel;
use super::nest::{CHUNK, Nest, Port, Scalar, Sizes, Work};
use super::ops::ScalarLowering;
use super::prepare::{Body, prepare};
use super::space::Space;
use super::{Registry, callback_space, check_body, defect, legal, map_strides, stage};

/// Position-independent machine code without relocations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// Code and the constants it reads.
    pub bytes: Vec<u8>,
    /// Where each function begins, by index. Functions of equal code share their bytes.
    pub offsets: Vec<u64>,
    /// Alignment of the whole.
    pub align: u64,
}

/// Generates code for one instruction-set level.
pub struct Codegen {
    pub(crate) level: IsaLevel,
    pub(crate) isa: Arc<dyn TargetIsa>,
    pub(crate) registry: Registry,
    object: Object,
    compiled: HashMap<String, u64>,
}

const ALIGN: usize = 64;

impl Functions for Codegen {
    fn map(&mut self, f: &Func, op: OpId, name: &str) -> Result<(u32, MapCode)> {
        let generate = || -> Result<(Function, MapCode)> {
            if f.op(op).def.name != kernel::MAP.name {
                return Err(internal(format!("`{}` is no map", f.op(op).def.name)));
            }
            legal(f, op, &self.registry)?;
            let body = self.prepare(f, op, |_| false)?;
            self.map_function(f, op, &body)
        };
        let (func, code) = generate().map_err(|e| e.at(&f.op(op).loc))?;
        Ok((self.compile(func, name)?, code))
    }

    fn callback(&mut self, f: &Func, op: OpId, name: &str) -> Result<Callback> {
        let generate = || -> Result<(Function, Vec<Dim>)> {
            if f.op(op).def.name != plan::LAUNCH.name {
                return Err(internal(format!("`{}` is no launch", f.op(op).def.name)));
            }
            let body = self.prepare(f, op, |_| false)?;
            let space = callback_space(f, op, &body)?;
            self.callback_function(f, op, &body, &space)
        };
        let (func, sizes) = generate().map_err(|e| e.at(&f.op(op).loc))?;
        Ok(Callback { function: self.compile(func, name)?, sizes })
    }
}

impl Codegen {
    /// An empty object for a level.
    pub fn new(level: IsaLevel) -> Result<Codegen> {
        Ok(Codegen {
            level,
            isa: level.isa()?,
            registry: Registry::default(),
            object: Object { bytes: vec![], offsets: vec![], align: ALIGN as u64 },
            compiled: HashMap::new(),
        })
    }

    /// Adds lowerings of other crates' ops, or replaces ours.
    pub fn register(&mut self, lowerings: &[ScalarLowering]) {
        lowerings.iter().for_each(|l| self.registry.add(l));
    }

    /// Whether code can be generated for a `kernel.map`, or a `plan.launch` with a callback.
    pub fn can(&self, f: &Func, op: OpId) -> Result<()> {
        legal(f, op, &self.registry)
    }

    /// The level.
    pub fn level(&self) -> IsaLevel {
        self.level
    }

    /// The object so far.
    pub fn finish(self) -> Result<Object> {
        Ok(self.object)
    }

    /// The region of an op as it is emitted. `args` and `results` say which operands and results are
    /// contiguous along the inner axis.
    fn work(&self, f: &Func, op: OpId, args: &[bool], results: &[bool]) -> Result<Work> {
        let kept = self.prepare(f, op, stage::keeps)?;
        Ok(match stage::plan(&kept, args, results)? {
            Some(plan) => Work::Strips(plan),
            None => Work::Elements(Box::new(self.prepare(f, op, |_| false)?)),
        })
    }

    fn prepare(&self, f: &Func, op: OpId, keep: fn(&str) -> bool) -> Result<Body> {
        let options = math::Options { fma: self.level.features().fma, keep };
        let o = f.op(op);
        let Some(&r) = o.regions.first() else {
            return Err(internal(format!("`{}` has no region", o.def.name)));
        };
        let body = prepare(f, r, &self.registry, &options)?;
        check_body(&body, &self.registry)?;
        Ok(body)
    }

    pub(crate) fn signature(&self, params: &[Type], returns: &[Type]) -> Signature {
        let mut s = Signature::new(self.isa.default_call_conv());
        s.params.extend(params.iter().map(|t| AbiParam::new(*t)));
        s.returns.extend(returns.iter().map(|t| AbiParam::new(*t)));
        s
    }

    /// Starts a function: the emitter in its entry block, and its parameters.
    pub(crate) fn start<'a>(
        &self,
        func: &'a mut Function,
        cx: &'a mut FunctionBuilderContext,
    ) -> (Emit<'a>, Vec<cranelift_codegen::ir::Value>) {
        let mut b = FunctionBuilder::new(func, cx);
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let params = b.block_params(entry).to_vec();
        let helpers = b.ins().load(types::I64, memory().with_readonly(), params[0], 0);
        let e = Emit {
            b,
            features: self.level.features(),
            conv: self.isa.default_call_conv(),
            helpers,
            wide: false,
            current: Current { attrs: Attrs::new(), elems: vec![], out: Elem::F32, known: vec![] },
        };
        (e, params)
    }

    fn map_function(&self, f: &Func, op: OpId, body: &Body) -> Result<(Function, MapCode)> {
        const I: Type = types::I64;
        let (shape, strides) = map_strides(f, op);
        let mut space = Space::collapse(&shape, &strides, shape.len());
        if space.sizes.is_empty() {
            // One element: an axis of size 1 along which everything is contiguous.
            space.sizes.push(Dim::Const(1));
            space.strides.iter_mut().for_each(|s| s.push(Dim::Const(1)));
        }
        let inputs = body.args.len();
        let inner = space.inner(inputs);
        let outer: Vec<usize> = (0..space.sizes.len()).filter(|&a| a != inner).collect();
        let one = Dim::Const(1);
        let n = space.sizes[inner].clone();
        let rows = outer.iter().fold(one.clone(), |p, &a| p * space.sizes[a].clone());
        let block = Dim::Const(CHUNK).floordiv(&n.maximum(&one)).maximum(&one);
        let chunks = n.ceildiv(&Dim::Const(CHUNK));
        let tasks = chunks.clone() * rows.ceildiv(&block);
        let work = n.clone() * rows.clone() * Dim::Const(body.ops().len().max(1) as i64);

        let mut func = Function::with_name_signature(
            UserFuncName::default(),
            self.signature(&[I, I, I, I, I, I], &[types::I32]),
        );
        let mut cx = FunctionBuilderContext::new();
        let (mut e, params) = self.start(&mut func, &mut cx);
        let (bufs, sizes_ptr) = (params[1], params[2]);
        let mut nest = Nest { e: &mut e, sizes: Sizes::default(), sizes_ptr };
        let mut ports = Vec::new();
        let mut bases = Vec::new();
        for (i, &elem) in body.args.iter().chain(&body.results).enumerate() {
            let base = nest.e.b.ins().load(I, memory().with_readonly(), bufs, i as i32 * 8);
            ports.push(nest.port(&space, i, elem, base, inner));
            bases.push(base);
        }
        let axes: Vec<_> = outer
            .iter()
            .map(|&a| {
                let s = nest.dim(&space.sizes[a]);
                (a, nest.value(s))
            })
            .collect();
        let [n, rows, block, chunks] = [&n, &rows, &block, &chunks].map(|d| {
            let s = nest.dim(d);
            nest.value(s)
        });
        let straight: Vec<bool> = ports.iter().map(Port::is_contiguous).collect();
        let inner_work = self.work(f, op, &straight[..inputs], &straight[inputs..])?;
        nest.count(params[3], params[4], 1, &mut |nest, task| {
            let (part, from_row, to_row) = if outer.is_empty() {
                let b = &mut nest.e.b;
                (task, b.ins().iconst(I, 0), b.ins().iconst(I, 1))
            } else {
                let b = &mut nest.e.b;
                let at = b.ins().udiv(task, chunks);
                let part = b.ins().urem(task, chunks);
                let from = b.ins().imul(at, block);
                let to = b.ins().iadd(from, block);
                (part, from, b.ins().smin(to, rows))
            };
            let b = &mut nest.e.b;
            let from = b.ins().imul_imm_s(part, CHUNK);
            let to = b.ins().iadd_imm_s(from, CHUNK);
            let to = b.ins().smin(to, n);
            for (p, &base) in ports.iter().zip(&bases) {
                b.def_var(p.row, base);
            }
            let (ins, outs) = ports.split_at(inputs);
            nest.rows(&axes, &ports, from_row, to_row, &mut |nest| {
                nest.inner(&inner_work, &self.registry, ins, outs, from, to)
            })
        })?;
        let sizes = nest.sizes.0;
        let ok = e.b.ins().iconst(types::I32, silure_kernels_cpu::abi::OK as i64);
        e.b.ins().return_(&[ok]);
        e.b.seal_all_blocks();
        e.b.finalize(self.isa.frontend_config());
        Ok((func, MapCode { sizes, tasks, work, scratch: Dim::Const(0) }))
    }

    fn callback_function(
        &self,
        f: &Func,
        op: OpId,
        body: &Body,
        space: &Space,
    ) -> Result<(Function, Vec<Dim>)> {
        const I: Type = types::I64;
        let mut func =
            Function::with_name_signature(UserFuncName::default(), self.signature(&[I; 9], &[]));
        let mut cx = FunctionBuilderContext::new();
        let (mut e, params) = self.start(&mut func, &mut cx);
        let &[_, tile, ld, row0, col0, rows, cols, bufs, sizes_ptr] = params.as_slice() else {
            return Err(internal("a callback has nine parameters"));
        };
        let slots = f.op(op).attrs.ints("args").len();
        let inner = space.leading;
        let mut nest = Nest { e: &mut e, sizes: Sizes::default(), sizes_ptr };
        let acc = Port {
            elem: Elem::F32,
            row: nest.variable(I, tile),
            strides: vec![Scalar::Const(0); space.sizes.len()],
            inner: Scalar::Const(1),
        };
        let mut ports = vec![acc];
        for (i, &elem) in body.args.iter().skip(1).enumerate() {
            let at = (slots + i) as i32 * 8;
            let base = nest.e.b.ins().load(I, memory().with_readonly(), bufs, at);
            let base = match space.strides[i].get(inner) {
                Some(d) => {
                    let s = nest.dim(d);
                    let s = nest.times(s, elem.cell_bytes() as i64);
                    let s = nest.value(s);
                    let skip = nest.e.b.ins().imul(s, col0);
                    nest.e.b.ins().iadd(base, skip)
                }
                None => base,
            };
            ports.push(nest.port(space, i, elem, base, inner));
        }
        let axes: Vec<_> = (0..space.leading)
            .map(|a| {
                let s = nest.dim(&space.sizes[a]);
                (a, nest.value(s))
            })
            .collect();
        let straight: Vec<bool> = ports.iter().map(Port::is_contiguous).collect();
        let inner_work = self.work(f, op, &straight, &[true])?;
        let zero = nest.e.b.ins().iconst(I, 0);
        let end = nest.e.b.ins().iadd(row0, rows);
        nest.rows(&axes, &ports, row0, end, &mut |nest| {
            nest.inner(&inner_work, &self.registry, &ports, &ports[..1], zero, cols)?;
            let b = &mut nest.e.b;
            let step = b.ins().ishl_imm_s(ld, 2);
            let at = b.use_var(ports[0].row);
            let next = b.ins().iadd(at, step);
            b.def_var(ports[0].row, next);
            Ok(())
        })?;
        let sizes = nest.sizes.0;
        e.b.ins().return_(&[]);
        e.b.seal_all_blocks();
        e.b.finalize(self.isa.frontend_config());
        Ok((func, sizes))
    }

    /// Compiles a function into the object; its index.
    pub(crate) fn compile(&mut self, func: Function, name: &str) -> Result<u32> {
        let index = self.object.offsets.len() as u32;
        let key = func.display().to_string();
        if let Some(&at) = self.compiled.get(&key) {
            self.object.offsets.push(at);
            return Ok(index);
        }
        let mut cx = Context::for_function(func);
        let code = cx
            .compile(&*self.isa, &mut ControlPlane::default())
            .map_err(|e| defect(name, format!("{:?}", e.inner)))?;
        if let Some(r) = code.buffer.relocs().first() {
            return Err(defect(name, format!("code with a relocation: {r:?}")));
        }
        let bytes = &mut self.object.bytes;
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        let at = bytes.len() as u64;
        bytes.extend_from_slice(code.code_buffer());
        self.object.offsets.push(at);
        self.compiled.insert(key, at);
        Ok(index)
    }
}
