//! Emits tile kernels as MLIR text in the Ascend tile ABI and drives the vendor's compiler.
