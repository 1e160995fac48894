//! Loads an engine and runs it: executor, memory, threads, devices, C interface.
