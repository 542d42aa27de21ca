//! Tests of the paths that this machine's filesystem may not take by itself.
