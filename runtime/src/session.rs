//! A session: the states, memory and caches of one thread of runs.
//!
//! For dims seen before, a run into the caller's buffers allocates nothing: registers and arena
//! offsets are cached per binding, the arena and freed heap blocks are kept.

mod profile;
mod states;

pub(crate) use states::State;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::exec::{Exec, List, Sink, Slot};
use crate::lane::{Given, Lane};
use crate::mem::{Block, Budget, HeapPool};
use crate::options::RunOptions;
use crate::pool::Pool;
use crate::tensor::{Tensor, TensorMut, TensorRef, tensor_bytes};
use crate::texts;
use crate::value::{self, Value, ValueRef};
use silure_engine::plan::{BufKind, Entry, Inst, Port, PortKind, Val};
use silure_kernels_cpu::abi::StringTable;
use silure_types::{Elem, Strings};
use std::collections::HashMap;
use std::sync::Arc;

/// Bindings of dims remembered per entry.
const BINDINGS: usize = 8;

/// How to make a session.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// Threads to run on; sessions may share a pool. `None`: the calling thread alone.
    pub pool: Option<Arc<Pool>>,
    /// Most bytes the session may hold (states, arena, heap, scratch, strings), on all devices. `None`: no limit.
    pub memory_limit: Option<u64>,
}

/// Registers and arena offsets for one binding of an entry's dims.
pub(crate) struct Binding {
    dims: Vec<i64>,
    pub regs: Vec<i64>,
    /// Offset and size of each buffer that is in an arena.
    pub arena: Vec<(u64, u64)>,
    /// Bytes of each device's arena, the host's first.
    pub arena_bytes: Vec<u64>,
}

/// The buffers of a session that a run works in.
pub(crate) struct Work {
    pub regs: Vec<i64>,
    pub slots: Vec<Slot>,
    /// Sequences and optionals, by buffer.
    pub lists: HashMap<u32, List>,
    pub ptrs: Vec<*mut u8>,
    pub sizes: Vec<i64>,
    /// The devices besides the host, in the plan's order, and the parameters of a launch there.
    pub lanes: Vec<Lane>,
    pub params: Vec<u64>,
    pub arena: Block,
    pub scratch: Block,
    pub heap: HeapPool,
    pub budget: Budget,
    /// The strings of the run; the engine's constants between runs.
    pub strings: StringTable,
    /// Per op of the profiled entry: calls, nanoseconds, operations, bytes.
    pub profile: Vec<[u64; 4]>,
    /// Per launch of the last traced run: its op, when it began and how long it took, in nanoseconds.
    pub spans: Vec<[u64; 3]>,
}

/// Runs an engine's entries, one at a time; owns the states.
pub struct Session {
    engine: Arc<Engine>,
    pool: Arc<Pool>,
    states: Vec<State>,
    states_known: bool,
    bindings: Vec<Vec<Binding>>,
    key: Vec<i64>,
    profiles: Vec<Vec<[u64; 4]>>,
    work: Work,
}

// SAFETY: the raw pointers in `work` are used only during a run, which borrows the session alone;
// between runs they are not read.
unsafe impl Send for Session {}

impl Session {
    /// A session on the calling thread alone, without a memory limit.
    pub fn new(engine: &Arc<Engine>) -> Result<Session> {
        Session::with(engine, SessionOptions::default())
    }

    /// A session with options. States are zero.
    pub fn with(engine: &Arc<Engine>, options: SessionOptions) -> Result<Session> {
        let mut budget =
            Budget { limit: options.memory_limit.unwrap_or(u64::MAX), used: 0, peak: 0 };
        let lanes: Result<Vec<Lane>> =
            engine.devices.iter().map(|d| Lane::new(&d.device, &d.program)).collect();
        let mut lanes = lanes?;
        let states = State::all(&engine.plan, &mut lanes, &mut budget)?;
        let entries = engine.plan.entries.len();
        Ok(Session {
            engine: engine.clone(),
            pool: options.pool.unwrap_or_else(|| Arc::new(Pool::new(1))),
            states,
            states_known: true,
            bindings: (0..entries).map(|_| Vec::with_capacity(BINDINGS)).collect(),
            key: vec![],
            profiles: vec![vec![]; entries],
            work: Work {
                regs: vec![],
                slots: vec![],
                lists: HashMap::new(),
                ptrs: vec![],
                sizes: vec![],
                lanes,
                params: vec![],
                arena: Block::zeroed(0, "the arena")?,
                scratch: Block::zeroed(0, "scratch")?,
                heap: HeapPool::default(),
                budget,
                strings: StringTable::new(Strings::over(engine.texts.clone())),
                profile: vec![],
                spans: vec![],
            },
        })
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Most bytes held so far: states, arena, heap, scratch and strings, on all devices.
    pub fn peak_memory(&self) -> u64 {
        self.work.budget.peak
    }

    /// What it gave to devices besides the host.
    pub fn given(&self) -> Given {
        let add = |a: Given, l: &Lane| Given {
            commands: a.commands + l.given.commands,
            recorded: a.recorded + l.given.recorded,
            replayed: a.replayed + l.given.replayed,
        };
        self.work.lanes.iter().fold(Given::default(), add)
    }

    /// Runs an entry and gives its outputs.
    pub fn run(&mut self, entry: usize, inputs: &[TensorRef<'_>]) -> Result<Vec<Tensor>> {
        self.run_with(entry, inputs, &RunOptions::default())
    }

    /// The same, with options.
    pub fn run_with(
        &mut self,
        entry: usize,
        inputs: &[TensorRef<'_>],
        options: &RunOptions,
    ) -> Result<Vec<Tensor>> {
        let n = self.only_tensors(entry)?;
        let mut owned: Vec<Option<Tensor>> = vec![None; n];
        self.run_sink(entry, inputs, &[], Sink::Owned(&mut owned), options)?;
        // The executor returns only when every output has its shape.
        Ok(owned.into_iter().flatten().collect())
    }

    /// Runs an entry whose inputs and outputs may be sequences and optionals.
    pub fn run_values(
        &mut self,
        entry: usize,
        inputs: &[ValueRef<'_>],
        options: &RunOptions,
    ) -> Result<Vec<Value>> {
        let engine = self.engine.clone();
        let e = entry_of(&engine, entry)?;
        let mut tensors = Vec::with_capacity(inputs.len());
        for (i, v) in inputs.iter().enumerate() {
            if let Some(p) = e.inputs.get(i) {
                v.check(engine.plan.str(p.name), p)?;
            }
            // A list has no extents of its own: a scalar without bytes stands in its place.
            let none = TensorRef { elem: Elem::U8, shape: &[], bytes: &[], strings: None };
            tensors.push(match (v, e.inputs.get(i).map(|p| p.kind)) {
                (ValueRef::Tensor(t), Some(PortKind::Tensor) | None) => *t,
                _ => none,
            });
        }
        let mut owned: Vec<Option<Tensor>> = vec![None; e.outputs.len()];
        let lists = self.run_sink(entry, &tensors, inputs, Sink::Owned(&mut owned), options)?;
        let mut out: Vec<Option<Value>> = owned.into_iter().map(|t| t.map(Value::Tensor)).collect();
        for (i, v) in lists {
            out[i] = Some(v);
        }
        Ok(out.into_iter().flatten().collect())
    }

    /// The number of outputs of an entry whose inputs and outputs are tensors.
    fn only_tensors(&self, entry: usize) -> Result<usize> {
        let plan = &self.engine.plan;
        let e = entry_of(&self.engine, entry)?;
        match e.inputs.iter().chain(&e.outputs).find(|p| p.kind != PortKind::Tensor) {
            None => Ok(e.outputs.len()),
            Some(p) => Err(Error::Kind {
                name: plan.str(p.name).into(),
                needed: value::kind(p.kind).into(),
                present: "a tensor".into(),
            }),
        }
    }

    /// Runs an entry into the caller's buffers; each output's extents are written to its shape.
    pub fn run_into(
        &mut self,
        entry: usize,
        inputs: &[TensorRef<'_>],
        outputs: &mut [TensorMut<'_>],
        options: &RunOptions,
    ) -> Result<()> {
        self.only_tensors(entry)?;
        self.run_sink(entry, inputs, &[], Sink::Caller(outputs), options).map(drop)
    }

    fn run_sink(
        &mut self,
        index: usize,
        inputs: &[TensorRef<'_>],
        values: &[ValueRef<'_>],
        mut sink: Sink<'_, '_>,
        options: &RunOptions,
    ) -> Result<Vec<(usize, Value)>> {
        let strings = |p: &Port| p.elem.is_str();
        let result = match self.engine.plan.entries.get(index) {
            Some(e) if e.inputs.iter().any(strings) => {
                self.run_texts(index, inputs, values, &mut sink, options)
            }
            _ => self.run_bytes(index, inputs, values, &mut sink, options),
        };
        let table = texts::table(&mut self.work.strings);
        let result = result.and_then(|lists| sink.hand_out(&self.engine, index, table, lists));
        self.work.budget.give(table.bytes());
        table.clear();
        result
    }

    /// A run whose inputs hold strings: they become elements of the session's table.
    fn run_texts(
        &mut self,
        index: usize,
        inputs: &[TensorRef<'_>],
        values: &[ValueRef<'_>],
        sink: &mut Sink<'_, '_>,
        options: &RunOptions,
    ) -> Result<Vec<(usize, Value)>> {
        let engine = self.engine.clone();
        let entry = entry_of(&engine, index)?;
        check_inputs(&engine, entry, inputs, &mut self.key, true)?;
        // The tensors of each input: one, or those of a list.
        let given: Vec<&[TensorRef<'_>]> = (0..inputs.len())
            .map(|i| match values.get(i) {
                Some(v) if entry.inputs[i].kind != PortKind::Tensor => {
                    v.items().unwrap_or_default()
                }
                _ => std::slice::from_ref(&inputs[i]),
            })
            .collect();
        let strings = given.iter().copied().flatten().filter(|t| t.elem.is_str());
        let own: u64 = strings.map(|t| t.bytes.len() as u64).sum();
        let Work { strings, budget, .. } = &mut self.work;
        budget.take(own, "inputs of strings")?;
        let table = texts::table(strings);
        let mut read = |name: &str, t: &TensorRef<'_>| match t.elem.is_str() {
            true => texts::take_in(table, budget, name, t).map(Some),
            false => Ok(None),
        };
        let blocks: Result<Vec<Vec<Option<Block>>>> = given
            .iter()
            .zip(&entry.inputs)
            .map(|(list, p)| list.iter().map(|t| read(engine.plan.str(p.name), t)).collect())
            .collect();
        let result = blocks.and_then(|blocks| {
            let lists: Vec<Vec<TensorRef<'_>>> = given
                .iter()
                .zip(&blocks)
                .map(|(list, blocks)| list.iter().zip(blocks).map(texts::replaced).collect())
                .collect();
            let tensors: Vec<TensorRef<'_>> = (0..inputs.len())
                .map(|i| match entry.inputs[i].kind {
                    PortKind::Tensor => lists[i][0],
                    _ => inputs[i],
                })
                .collect();
            let values: Vec<ValueRef<'_>> = values
                .iter()
                .zip(&lists)
                .map(|(v, list)| match v {
                    ValueRef::Sequence(_) => ValueRef::Sequence(list),
                    ValueRef::Tensor(_) => ValueRef::Tensor(list[0]),
                    ValueRef::Absent => ValueRef::Absent,
                })
                .collect();
            self.run_bytes(index, &tensors, &values, sink, options)
        });
        self.work.budget.give(own);
        result
    }

    fn run_bytes(
        &mut self,
        index: usize,
        inputs: &[TensorRef<'_>],
        values: &[ValueRef<'_>],
        sink: &mut Sink<'_, '_>,
        options: &RunOptions,
    ) -> Result<Vec<(usize, Value)>> {
        let engine = self.engine.clone();
        let entry = entry_of(&engine, index)?;
        check_inputs(&engine, entry, inputs, &mut self.key, true)?;
        sink.check(&engine, entry)?;
        if !entry.states.is_empty() && !self.states_known {
            return Err(Error::StatesUnknown);
        }
        let mut exec = Exec::new(&engine, entry, &self.pool, &mut self.work, options);
        exec.interrupted()?;
        let binding = bind(&mut exec, &mut self.bindings[index], inputs, &self.key)?;
        exec.prepare(binding, inputs, values, &mut self.states)?;
        if options.profile {
            std::mem::swap(&mut exec.work.profile, &mut self.profiles[index]);
            exec.work.profile.resize(entry.code.len(), [0; 4]);
        }
        if options.trace {
            exec.work.spans.clear();
        }
        let result = exec.run(inputs, sink);
        let result = exec.end(result).and_then(|()| exec.list_outputs());
        if options.profile {
            std::mem::swap(&mut exec.work.profile, &mut self.profiles[index]);
        }
        exec.release();
        if result.is_err() && !entry.states.is_empty() {
            self.states_known = false;
        }
        result
    }

    /// The extents each output will have for inputs of these shapes, as far as the inputs' dims
    /// alone decide them; `None` where they depend on data. Nothing runs but size arithmetic.
    pub fn output_shapes(
        &mut self,
        index: usize,
        shapes: &[&[usize]],
    ) -> Result<Vec<Option<Vec<usize>>>> {
        let engine = self.engine.clone();
        let entry = entry_of(&engine, index)?;
        let ports = entry.inputs.iter().map(|p| p.elem).chain(std::iter::repeat(Elem::U8));
        let inputs: Vec<TensorRef<'_>> = ports
            .zip(shapes)
            .map(|(elem, shape)| TensorRef { elem, shape, bytes: &[], strings: None })
            .collect();
        check_inputs(&engine, entry, &inputs, &mut self.key, false)?;
        let options = RunOptions::default();
        let mut exec = Exec::new(&engine, entry, &self.pool, &mut self.work, &options);
        let binding = bind(&mut exec, &mut self.bindings[index], &inputs, &self.key)?;
        let mut late = vec![false; binding.regs.len()];
        for op in &entry.code[entry.size_end as usize..] {
            if let Some(r) = op.inst.dst() {
                late[r.0 as usize] = true;
            }
        }
        let known = |v: &Val| match *v {
            Val::Imm(v) => usize::try_from(v).ok(),
            Val::Reg(r) if late[r.0 as usize] => None,
            Val::Reg(r) => usize::try_from(binding.regs[r.0 as usize]).ok(),
        };
        let shape = |output: usize| {
            let mut all = entry.code.iter().filter_map(|op| match &op.inst {
                Inst::SetShape { output: o, dims } if *o as usize == output => {
                    Some(dims.iter().map(known).collect::<Option<Vec<usize>>>())
                }
                _ => None,
            });
            // Variants may each state the shape: it is known where they agree.
            let first = all.next()??;
            all.all(|s| s.as_ref() == Some(&first)).then_some(first)
        };
        Ok((0..entry.outputs.len()).map(shape).collect())
    }
}

fn entry_of(engine: &Engine, index: usize) -> Result<&Entry> {
    let n = engine.plan.entries.len();
    let none = || Error::Usage(format!("entry {index}: the engine has {n}"));
    engine.plan.entries.get(index).ok_or_else(none)
}

/// The binding for these dims, made if it is new; the most recent is first.
fn bind<'b>(
    exec: &mut Exec<'_, '_>,
    bindings: &'b mut Vec<Binding>,
    inputs: &[TensorRef<'_>],
    dims: &[i64],
) -> Result<&'b Binding> {
    match bindings.iter().position(|b| b.dims == dims) {
        Some(at) => bindings[..=at].rotate_right(1),
        None => {
            let binding = exec.bind(inputs, dims)?;
            if bindings.len() == BINDINGS {
                bindings.pop();
            }
            bindings.insert(0, binding);
        }
    }
    Ok(&bindings[0])
}

pub(crate) fn check_bytes(
    what: &'static str,
    name: &str,
    needed: u64,
    present: usize,
) -> Result<()> {
    if needed == present as u64 {
        return Ok(());
    }
    Err(Error::Bytes { what, name: name.into(), needed, present: present as u64 })
}

/// Checks an address against its element type.
pub(crate) fn check_align(what: &'static str, name: &str, elem: Elem, bytes: &[u8]) -> Result<()> {
    let needed = elem.cell_bytes();
    let present = bytes.as_ptr() as usize;
    if bytes.is_empty() || present.is_multiple_of(needed) {
        return Ok(());
    }
    Err(Error::Align { what, name: name.into(), needed, present })
}

/// Checks the inputs against the entry, their bytes only if asked; leaves their dims in `key`.
fn check_inputs(
    engine: &Engine,
    entry: &Entry,
    inputs: &[TensorRef<'_>],
    key: &mut Vec<i64>,
    with_bytes: bool,
) -> Result<()> {
    let plan = &engine.plan;
    if inputs.len() != entry.inputs.len() {
        let (needed, present) = (entry.inputs.len(), inputs.len());
        return Err(Error::Count { what: "inputs", needed, present });
    }
    key.clear();
    for (p, t) in entry.inputs.iter().zip(inputs) {
        let name = plan.str(p.name);
        if p.kind != PortKind::Tensor {
            continue;
        }
        if t.elem != p.elem {
            return Err(Error::Elem {
                what: "input",
                name: name.into(),
                needed: p.elem.name().into(),
                present: t.elem.name().into(),
            });
        }
        check_dims("input", name, p, t.shape)?;
        let bytes = tensor_bytes(t.elem, t.shape)
            .ok_or_else(|| Error::Overflow { what: format!("bytes of input '{name}'") })?;
        if with_bytes {
            check_bytes("input", name, bytes, t.bytes.len())?;
            check_align("input", name, t.elem, t.bytes)?;
        }
        key.extend(t.shape.iter().map(|&d| d as i64));
    }
    // One symbol, one extent: the first axis of it decides.
    for (s, &symbol) in entry.symbols.iter().enumerate() {
        let mut first: Option<(usize, usize, usize)> = None;
        for (i, p) in entry.inputs.iter().enumerate() {
            for (axis, d) in p.dims.iter().enumerate() {
                if d.symbol != Some(s as u32) {
                    continue;
                }
                let present = inputs[i].shape[axis];
                match first {
                    None => first = Some((i, axis, present)),
                    Some((j, other, needed)) if needed != present => {
                        return Err(Error::Dim {
                            what: "input",
                            name: plan.str(p.name).into(),
                            axis,
                            needed: format!(
                                "{needed} ('{}' as in '{}' axis {other})",
                                plan.str(symbol),
                                plan.str(entry.inputs[j].name)
                            ),
                            present: present as i64,
                        });
                    }
                    Some(_) => {}
                }
            }
        }
    }
    Ok(())
}

/// Checks extents against what a port takes.
pub(crate) fn check_dims(
    what: &'static str,
    name: &str,
    port: &Port,
    shape: &[usize],
) -> Result<()> {
    if shape.len() != port.dims.len() {
        let (needed, present) = (port.dims.len(), shape.len());
        return Err(Error::Rank { what, name: name.into(), needed, present });
    }
    for (axis, (d, &n)) in port.dims.iter().zip(shape).enumerate() {
        let n64 = n as u64;
        if n64 < d.min || n64 > d.max || !n64.is_multiple_of(d.multiple) {
            let needed = match (d.min == d.max, d.multiple) {
                (true, _) => d.min.to_string(),
                (false, 1) => format!("{} to {}", d.min, d.max),
                (false, m) => format!("{} to {}, a multiple of {m}", d.min, d.max),
            };
            return Err(Error::Dim { what, name: name.into(), axis, needed, present: n as i64 });
        }
    }
    Ok(())
}

impl Binding {
    /// Places the arena for these registers.
    pub(crate) fn new(
        entry: &Entry,
        devices: usize,
        dims: &[i64],
        regs: &[i64],
    ) -> Result<Binding> {
        let mut blocks = vec![Vec::new(); devices];
        let mut sizes = vec![0u64; entry.buffers.len()];
        for (i, b) in entry.buffers.iter().enumerate() {
            if let BufKind::Arena { bytes, first, last } = b.kind {
                let n = match bytes {
                    Val::Imm(v) => v,
                    // In range: checked when the plan was validated.
                    Val::Reg(r) => regs[r.0 as usize],
                };
                sizes[i] = u64::try_from(n).map_err(|_| Error::Overflow {
                    what: format!("arena buffer {i} of {n} bytes"),
                })?;
                let block = silure_engine::arena::Block { bytes: sizes[i], first, last };
                blocks[b.device as usize].push(block);
            }
        }
        let (mut offsets, mut arena_bytes) = (Vec::new(), Vec::new());
        for blocks in &blocks {
            let (o, bytes) = silure_engine::arena::assign(blocks)
                .ok_or_else(|| Error::Overflow { what: "the arena".into() })?;
            offsets.push(o.into_iter());
            arena_bytes.push(bytes);
        }
        let arena = entry
            .buffers
            .iter()
            .zip(&sizes)
            .map(|(b, &n)| match b.kind {
                BufKind::Arena { .. } => (offsets[b.device as usize].next().unwrap_or(0), n),
                _ => (0, 0),
            })
            .collect();
        Ok(Binding { dims: dims.to_vec(), regs: regs.to_vec(), arena, arena_bytes })
    }
}
