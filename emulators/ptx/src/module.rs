//! A parsed and decoded text.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::code::{Code, Variable};
use crate::error::{Error, Kind, Result};
use crate::text::{Body, Source};

/// A text, decoded: its kernels are ready to be launched.
#[derive(Debug)]
pub struct Module {
    pub(crate) id: u64,
    pub(crate) kernels: Vec<Code>,
    pub(crate) variables: Vec<Variable>,
    pub(crate) spellings: Vec<String>,
}

/// What a kernel asks of a launch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// Bytes of each parameter.
    pub params: Vec<usize>,
    /// Bytes of shared memory that the text declares.
    pub shared: usize,
    /// `.reqntid`: the block must be this.
    pub block: Option<[u32; 3]>,
    /// Instructions, those of called functions included.
    pub instructions: usize,
}

impl Module {
    /// Parses and decodes a text. Every kernel in it must be one that can run.
    pub fn parse(text: &str) -> Result<Module> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let source = Source::parse(text)?;
        let (mut kernels, mut spellings, mut by_spelling) =
            (Vec::<Code>::new(), Vec::new(), HashMap::new());
        let mut used = 0;
        for (i, f) in source.functions.iter().enumerate() {
            if f.entry && f.body.is_some() {
                let code = Body::decode(&source, i, &mut spellings, &mut by_spelling, used)
                    .map_err(|e| e.kernel(f.name))?;
                used += code.insts.len();
                kernels.push(code);
            }
        }
        Ok(Module {
            id: NEXT.fetch_add(1, Relaxed),
            kernels,
            variables: source.variables,
            spellings,
        })
    }

    /// The kernels, in the order of the text.
    pub fn kernels(&self) -> Vec<Kernel> {
        let kernel = |c: &Code| Kernel {
            name: c.name.clone(),
            params: c.params.iter().map(|p| p.bytes).collect(),
            shared: c.shared,
            block: c.reqntid,
            instructions: c.insts.len(),
        };
        self.kernels.iter().map(kernel).collect()
    }

    pub(crate) fn kernel(&self, name: &str) -> Result<&Code> {
        self.kernels.iter().find(|c| c.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.kernels.iter().map(|c| &*c.name).collect();
            Error::new(Kind::Launch, format!("no kernel `{name}`; there are: {}", names.join(", ")))
        })
    }
}
