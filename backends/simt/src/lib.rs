//! The thread level that CUDA and ROCm share: the simt dialect and the lowering from tile.
