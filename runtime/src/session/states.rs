//! What a session keeps between runs.

use super::{Session, check_bytes};
use crate::device::Command;
use crate::error::{Error, Result};
use crate::lane::{Lane, Memory};
use crate::mem::{Block, Budget, Storage};
use silure_engine::Plan;
use silure_engine::plan::BufKind;
use std::borrow::Cow;

/// A state's bytes.
pub(crate) enum State {
    /// On the host.
    Host(Block),
    /// On the device of a lane.
    On(usize, Memory),
}

impl State {
    /// All states of a plan, zero, each on its device.
    pub fn all(plan: &Plan, lanes: &mut [Lane], budget: &mut Budget) -> Result<Vec<State>> {
        let buffers = || plan.entries.iter().flat_map(|e| &e.buffers);
        let mut all = Vec::with_capacity(plan.states.len());
        for (i, s) in plan.states.iter().enumerate() {
            // Checked when the plan was validated.
            let bytes = s.bytes().unwrap_or(u64::MAX);
            budget.take(bytes, "the states")?;
            let home =
                buffers().find(|b| b.kind == BufKind::State(i as u32)).map_or(0, |b| b.device);
            let state = match (home as usize).checked_sub(1) {
                None => State::Host(Block::zeroed(bytes as usize, "the states")?),
                Some(lane) => State::On(lane, Memory::new(&lanes[lane].device, bytes)?),
            };
            state.clear(lanes)?;
            all.push(state);
        }
        Ok(all)
    }

    pub fn len(&self) -> u64 {
        match self {
            State::Host(b) => b.len() as u64,
            State::On(_, m) => m.size(),
        }
    }

    /// Where it begins: on its device.
    pub fn ptr(&self) -> *mut u8 {
        match self {
            State::Host(b) => b.ptr(),
            State::On(_, m) => std::ptr::without_provenance_mut(m.at() as usize),
        }
    }

    fn fill(&mut self, lanes: &mut [Lane]) -> Result<()> {
        if let State::Host(b) = self {
            b.bytes_mut().fill(0);
        }
        self.clear(lanes)
    }

    /// Zero, if it is on a device.
    fn clear(&self, lanes: &mut [Lane]) -> Result<()> {
        match self {
            State::On(lane, m) if m.size() > 0 => {
                let fill = Command::Fill { to: m.at(), pattern: 0, width: 1, bytes: m.size() };
                // SAFETY: all of the state, which stays.
                unsafe { lanes[*lane].give(fill, false) }?;
                lanes[*lane].settle()
            }
            _ => Ok(()),
        }
    }

    fn read(&self, lanes: &[Lane]) -> Result<Cow<'_, [u8]>> {
        match self {
            State::Host(b) => Ok(Cow::Borrowed(b.bytes())),
            State::On(lane, m) => {
                let mut bytes = vec![0; m.size() as usize];
                if !bytes.is_empty() {
                    lanes[*lane].read(m.at(), &mut bytes)?;
                }
                Ok(Cow::Owned(bytes))
            }
        }
    }

    fn write(&mut self, lanes: &[Lane], bytes: &[u8]) -> Result<()> {
        match self {
            State::Host(b) => b.bytes_mut().copy_from_slice(bytes),
            State::On(lane, m) if !bytes.is_empty() => lanes[*lane].write(m.at(), bytes)?,
            State::On(..) => {}
        }
        Ok(())
    }
}

impl Session {
    /// Sets all states to zero.
    pub fn reset(&mut self) -> Result<()> {
        self.states.iter_mut().try_for_each(|s| s.fill(&mut self.work.lanes))?;
        self.states_known = true;
        Ok(())
    }

    fn state_index(&self, name: &str) -> Result<usize> {
        let plan = &self.engine.plan;
        plan.states.iter().position(|s| plan.str(s.name) == name).ok_or_else(|| {
            let names: Vec<_> = plan.states.iter().map(|s| plan.str(s.name)).collect();
            Error::UnknownState {
                needed: name.into(),
                present: if names.is_empty() { "none".into() } else { names.join(", ") },
            }
        })
    }

    /// The bytes of a state; a copy of them if they are on a device.
    pub fn state(&self, name: &str) -> Result<Cow<'_, [u8]>> {
        let i = self.state_index(name)?;
        match self.states_known {
            true => self.states[i].read(&self.work.lanes),
            false => Err(Error::StatesUnknown),
        }
    }

    /// Replaces the bytes of a state.
    pub fn set_state(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let i = self.state_index(name)?;
        check_bytes("state", name, self.states[i].len(), bytes.len())?;
        if !self.states_known {
            return Err(Error::StatesUnknown);
        }
        self.states[i].write(&self.work.lanes, bytes)
    }

    /// Copies `count` rows of a state, a row being what one index of its first axis holds; the places may
    /// overlap.
    pub fn copy_rows(&mut self, name: &str, from: usize, to: usize, count: usize) -> Result<()> {
        let i = self.state_index(name)?;
        if !self.states_known {
            return Err(Error::StatesUnknown);
        }
        let rows = self.engine.plan.states[i].dims.first().map_or(1, |d| *d as usize);
        let inside = |at: usize| at.checked_add(count).is_some_and(|end| end <= rows);
        if !inside(from) || !inside(to) {
            return Err(Error::Usage(format!(
                "{count} rows of state '{name}' from {from} to {to}: it has {rows}"
            )));
        }
        // An element takes whole bytes in a state, so a row does.
        let row = self.states[i].len().checked_div(rows as u64).unwrap_or(0);
        let (from, to, bytes) = (from as u64 * row, to as u64 * row, count as u64 * row);
        let w = &mut self.work;
        match &mut self.states[i] {
            State::Host(b) => {
                let from = from as usize;
                b.bytes_mut().copy_within(from..from + bytes as usize, to as usize);
                Ok(())
            }
            State::On(..) if bytes == 0 => Ok(()),
            State::On(lane, m) => {
                let (lane, at) = (&mut w.lanes[*lane], m.at());
                // SAFETY: both ranges are inside the state, which stays.
                unsafe { lane.copy(at + to, at + from, bytes, &mut w.budget, false) }?;
                lane.settle()
            }
        }
    }

    /// All states one after the other, for [`Session::import_states`].
    pub fn export_states(&self) -> Result<Vec<u8>> {
        if !self.states_known {
            return Err(Error::StatesUnknown);
        }
        let mut all = Vec::new();
        for s in &self.states {
            all.extend_from_slice(&s.read(&self.work.lanes)?);
        }
        Ok(all)
    }

    /// Sets all states from an export of the same engine.
    pub fn import_states(&mut self, mut bytes: &[u8]) -> Result<()> {
        let total: u64 = self.states.iter().map(State::len).sum();
        check_bytes("state", "all", total, bytes.len())?;
        for s in &mut self.states {
            let (head, rest) = bytes.split_at(s.len() as usize);
            s.write(&self.work.lanes, head)?;
            bytes = rest;
        }
        self.states_known = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Engine;
    use silure_engine::{EngineWriter, PlanBuilder};
    use silure_types::Elem;

    #[test]
    fn rows_are_copied_inside_a_state_and_nowhere_else() {
        let mut p = PlanBuilder::new();
        p.state("cache", Elem::U8, &[4, 2]);
        p.state("other", Elem::U8, &[4]);
        p.entry("main").finish();
        let file = EngineWriter::new(p.finish().unwrap(), "0").to_bytes(|_, _| Ok(())).unwrap();
        let mut s = Session::new(&Engine::from_bytes(&file).unwrap()).unwrap();
        s.set_state("cache", &[0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
        s.copy_rows("cache", 0, 2, 1).unwrap();
        assert_eq!(*s.state("cache").unwrap(), [0, 1, 2, 3, 0, 1, 6, 7]);
        s.copy_rows("cache", 0, 1, 3).unwrap();
        assert_eq!(*s.state("cache").unwrap(), [0, 1, 0, 1, 2, 3, 0, 1]);
        assert_eq!(*s.state("other").unwrap(), [0; 4]);
        for (from, to, count) in [(0, 3, 2), (4, 0, 1), (usize::MAX, 0, 2), (0, 1, usize::MAX)] {
            let e = s.copy_rows("cache", from, to, count).unwrap_err().to_string();
            assert!(e.contains("state 'cache'") && e.contains("it has 4"), "{e}");
        }
        s.copy_rows("cache", 4, 4, 0).unwrap();
    }
}
