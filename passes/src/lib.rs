//! The pass driver and the rewrite, fusion, layout and memory passes.
