//! The compiler as a library: a model in, an engine out.
