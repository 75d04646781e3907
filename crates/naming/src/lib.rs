//! The vocabulary of names: paths, dtabs, name trees, and how a path is delegated. No I/O.
