//! The compiler's language: ops, types, dims, text, verifier, dialects and the oracle interpreter.
