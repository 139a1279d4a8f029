//! The parsers against input that nobody thought of, and against the system's own tools.
