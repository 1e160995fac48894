//! What a session keeps between runs.

use super::{Session, check_bytes};
use crate::error::{Error, Result};

impl Session {
    /// Sets all states to zero.
    pub fn reset(&mut self) {
        self.states.iter_mut().for_each(|s| s.bytes_mut().fill(0));
        self.states_known = true;
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

    /// The bytes of a state.
    pub fn state(&self, name: &str) -> Result<&[u8]> {
        let i = self.state_index(name)?;
        if self.states_known { Ok(self.states[i].bytes()) } else { Err(Error::StatesUnknown) }
    }

    /// Replaces the bytes of a state.
    pub fn set_state(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let i = self.state_index(name)?;
        check_bytes("state", name, self.states[i].len() as u64, bytes.len())?;
        if !self.states_known {
            return Err(Error::StatesUnknown);
        }
        self.states[i].bytes_mut().copy_from_slice(bytes);
        Ok(())
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
        let block = self.states[i].bytes_mut();
        // An element takes whole bytes in a state, so a row does.
        let row = block.len().checked_div(rows).unwrap_or(0);
        block.copy_within(from * row..(from + count) * row, to * row);
        Ok(())
    }

    /// All states one after the other, for [`Session::import_states`].
    pub fn export_states(&self) -> Result<Vec<u8>> {
        if !self.states_known {
            return Err(Error::StatesUnknown);
        }
        Ok(self.states.iter().flat_map(|s| s.bytes()).copied().collect())
    }

    /// Sets all states from an export of the same engine.
    pub fn import_states(&mut self, mut bytes: &[u8]) -> Result<()> {
        let total: u64 = self.states.iter().map(|s| s.len() as u64).sum();
        check_bytes("state", "all", total, bytes.len())?;
        for s in &mut self.states {
            let (head, rest) = bytes.split_at(s.len());
            s.bytes_mut().copy_from_slice(head);
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
        assert_eq!(s.state("cache").unwrap(), [0, 1, 2, 3, 0, 1, 6, 7]);
        s.copy_rows("cache", 0, 1, 3).unwrap();
        assert_eq!(s.state("cache").unwrap(), [0, 1, 0, 1, 2, 3, 0, 1]);
        assert_eq!(s.state("other").unwrap(), [0; 4]);
        for (from, to, count) in [(0, 3, 2), (4, 0, 1), (usize::MAX, 0, 2), (0, 1, usize::MAX)] {
            let e = s.copy_rows("cache", from, to, count).unwrap_err().to_string();
            assert!(e.contains("state 'cache'") && e.contains("it has 4"), "{e}");
        }
        s.copy_rows("cache", 4, 4, 0).unwrap();
    }
}
