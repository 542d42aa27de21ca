//! Staging under every order of appends, promises and flushes.
