//! End-to-end tests: real models, bad files, property tests, peers' answers.
