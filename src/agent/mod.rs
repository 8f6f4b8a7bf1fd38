//! The agent: runs the nodes of its instance.
