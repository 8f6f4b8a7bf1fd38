//! The node's output files: last lines, rotation.
