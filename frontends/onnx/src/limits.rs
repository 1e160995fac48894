//! Bounds on what a model file may ask for. Each is checked before the memory is taken, and each
//! refusal names the bound, the number needed and the number allowed.

/// Bounds on reading one model. The defaults admit every model that protobuf can hold in practice.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of the model file itself (external data not counted). Protobuf's own limit is 2 GiB.
    pub file_bytes: u64,
    /// Bytes of memory that decoding may take beyond the file itself: messages, names, typed lists.
    pub decoded_bytes: u64,
    /// Bytes of memory for tensors given in typed fields, after decoding to plain bytes; sparse ones count twice.
    pub tensor_bytes: u64,
    /// Nesting of subgraphs (`If` in `Loop` in `Scan` …).
    pub subgraph_depth: usize,
    /// Nesting of calls of model-local functions.
    pub call_depth: usize,
    /// Nodes after inlining of functions, in all subgraphs, calls counted too.
    pub nodes: usize,
    /// Dims of one tensor.
    pub rank: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            file_bytes: (1 << 31) - 1,
            decoded_bytes: 768 << 20,
            tensor_bytes: 512 << 20,
            subgraph_depth: 24,
            call_depth: 32,
            nodes: 2_000_000,
            rank: 16,
        }
    }
}
