//! Reads ONNX models into the graph dialect.
