//! Prints PTX from simt.
