//! Processes: spawn, signal, wait.
