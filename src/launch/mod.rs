//! How a node becomes a command line.
