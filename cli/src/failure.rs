//! Why the program ends without success. `main` prints it as `error: …` and exits with 1.
//!
//! 1. A reader of our output that has gone away is no failure of ours: nothing is printed about it.

use std::io;

/// What a command returns.
pub(crate) type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// Everything that ends a command early, or makes its outcome a bad one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] lockstone::Error),
    /// The operating system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// Whoever read our output has gone away.
    #[error("nobody reads the output any more")]
    NobodyReads,
    /// What was looked at is not as it should be.
    #[error("{0}")]
    Found(String),
    /// A command that was run has said what the exit code is, or there is one for what has happened.
    #[error("{}", why.as_deref().unwrap_or_default())]
    Exit {
        /// The exit code.
        code: u8,
        /// What has happened, if it is not the command's own doing.
        why: Option<String>,
    },
}

impl Failure {
    /// Names what was tried, for `map_err`.
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
