//! The engine file and the plan: what the compiler writes and the runtime reads.
