//! `plan` beside the runtime and beside what is public of models.

mod memory;
mod public;
