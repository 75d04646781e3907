//! The vocabulary of measuring, and the wire formats as pure encoders. No I/O, no async.
