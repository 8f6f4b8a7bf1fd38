//! config/*.toml and the environment become settings; nobody else reads either.
