//! What is kept of nodes that died unasked.

/// How much is kept of nodes that died unasked, and how it is looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashRules {
    /// How many dossiers are kept of each node; 0: none are made.
    pub keep: u32,
    /// How many bytes all dossiers of an agent may take.
    pub keep_bytes: u64,
    /// Whether a debugger is asked where it died, if there is one and a core file.
    pub backtrace: bool,
}

impl Default for CrashRules {
    fn default() -> Self {
        Self { keep: 20, keep_bytes: 16 << 20, backtrace: true }
    }
}
