//! The silure command.
fn main() {}
