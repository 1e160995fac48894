//! Graphs and their instances.

use super::give;
use crate::codes::{Code, Result};
use crate::driver::{Driver, inside};

fn instantiate(d: &mut Driver, graph: usize) -> Result<usize> {
    let works = d.graphs.get(&graph).ok_or(Code::INVALID_HANDLE)?.clone();
    let handle = d.handle();
    d.instances.insert(handle, works);
    Ok(handle)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(
    instance: *mut usize,
    graph: usize,
    _flags: u64,
) -> Code {
    inside(|d| {
        let handle = instantiate(d, graph)?;
        // SAFETY: as the manual says.
        unsafe { give(instance, handle) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphUpload(instance: usize, stream: usize) -> Code {
    inside(|d| {
        d.capture(stream)?;
        d.instances.get(&instance).map(drop).ok_or(Code::INVALID_HANDLE)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphLaunch(instance: usize, stream: usize) -> Code {
    inside(|d| {
        let works = d.instances.get(&instance).ok_or(Code::INVALID_HANDLE)?.clone();
        match d.capture(stream)? {
            // A graph within a graph.
            Some(_) => Err(Code::NOT_SUPPORTED),
            None => d.enqueue(works.iter().cloned()),
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphExecDestroy(instance: usize) -> Code {
    inside(|d| d.instances.remove(&instance).map(drop).ok_or(Code::INVALID_HANDLE))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphDestroy(graph: usize) -> Code {
    inside(|d| d.graphs.remove(&graph).map(drop).ok_or(Code::INVALID_HANDLE))
}
