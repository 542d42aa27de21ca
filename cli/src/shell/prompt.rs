//! Where lines come from: a terminal with editing and history, or a pipe.
//!
//! Lines of a pipe are echoed behind the prompt, so that a transcript reads like a dialog.

use std::io::{self, IsTerminal as _, Write as _};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::answers::Announcer;
use crate::failure::{Failure, Result};

const PROMPT: &str = "> ";

/// The source of lines.
pub(crate) enum Prompt {
    Terminal(Box<DefaultEditor>),
    Pipe,
}

impl Prompt {
    pub(crate) fn new() -> Result<Self> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(Self::Pipe);
        }
        let editor = DefaultEditor::new().map_err(terminal)?;
        Ok(Self::Terminal(Box::new(editor)))
    }

    /// Prints above the prompt, where there is one.
    pub(crate) fn announcer(&mut self) -> Option<Announcer> {
        match self {
            Self::Terminal(editor) => Some(Box::new(editor.create_external_printer().ok()?)),
            Self::Pipe => None,
        }
    }

    /// The next line; `None` at the end.
    pub(crate) fn line(&mut self) -> Result<Option<String>> {
        match self {
            Self::Terminal(editor) => loop {
                match editor.readline(PROMPT) {
                    Ok(line) => {
                        // A line that cannot be remembered can be typed again.
                        let _ = editor.add_history_entry(line.as_str());
                        return Ok(Some(line));
                    }
                    // Ctrl-C gives up a line, not the sessions.
                    Err(ReadlineError::Interrupted) => {}
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(terminal(error)),
                }
            },
            Self::Pipe => {
                let mut line = String::new();
                let read = io::stdin()
                    .read_line(&mut line)
                    .map_err(Failure::system("reading a line"))?;
                if read == 0 {
                    return Ok(None);
                }
                let line = line.trim_end_matches(['\n', '\r']).to_owned();
                let echoed = writeln!(io::stdout(), "{PROMPT}{line}");
                echoed.map_err(|error| match error.kind() {
                    io::ErrorKind::BrokenPipe => Failure::NobodyReads,
                    _ => Failure::System {
                        what: "writing the output",
                        source: error,
                    },
                })?;
                Ok(Some(line))
            }
        }
    }
}

fn terminal(error: ReadlineError) -> Failure {
    Failure::System {
        what: "reading from the terminal",
        source: io::Error::other(error),
    }
}
