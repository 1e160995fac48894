//! What kernels of a device found wrong with contents that only the run knows: a word for each launch that looks, 0 at
//! the start of a run, copied to the host with the outputs and checked there.

use silure_engine::plan::{Arg, BinOp, Buf, LoadMode};
use silure_ir::Elem;
use silure_ir::dialects::plan;

use super::Encoder;

/// The words of a function, and the nodes of the launches that have one.
#[derive(Default)]
pub(super) struct Words {
    buffer: Option<Buf>,
    nodes: Vec<String>,
}

/// Bytes of a word.
const WORD: i64 = Elem::U32.cell_bytes() as i64;

impl Encoder<'_, '_, '_> {
    /// Makes the words that the function's launches need.
    pub(super) fn begin_status(&mut self) {
        let looks = |o: &silure_ir::func::Op| {
            o.def.name == plan::LAUNCH.name && o.attrs.get("status").is_some()
        };
        let n = self.f.walk().into_iter().filter(|op| looks(self.f.op(*op))).count() as i64;
        if n > 0 {
            let b = self.e.loc("status").temp("status", n * WORD);
            self.e.fill(b, 0, 4, n * WORD);
            self.scope.status.buffer = Some(b);
        }
    }

    /// The next word, for the launch of a node.
    pub(super) fn status_word(&mut self, node: &str) -> Arg {
        let Some(b) = self.scope.status.buffer else { return Arg::None };
        let at = self.scope.status.nodes.len() as i64 * WORD;
        self.scope.status.nodes.push(node.into());
        Arg::Out(self.e.view(b, at, WORD))
    }

    /// Ends the run with an error if a word says so.
    pub(super) fn check_status(&mut self) {
        let words = std::mem::take(&mut self.scope.status);
        let Some(from) = words.buffer else { return };
        let bytes = words.nodes.len() as i64 * WORD;
        let to = self.e.loc("status").on(0).temp("status", bytes);
        self.e.on(self.device);
        self.e.copy(to, 0, from, 0, bytes);
        for (i, node) in words.nodes.iter().enumerate() {
            let code = self.e.loc(node).load(to, i as i64, Elem::U32, LoadMode::Value);
            let fine = self.e.bin(BinOp::Eq, code, 0);
            let message = "contents are outside of their tensor (1 an index, 2 a position, 3 a page, \
                           4 lengths or ends of sequences, 5 an expert)";
            self.e.check(fine, message, 0, code);
        }
    }
}
