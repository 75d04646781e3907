//! The located YAML/JSON tree, kinds and errors of a configuration file. Knows no plug-in.
