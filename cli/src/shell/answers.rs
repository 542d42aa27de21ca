//! Where sessions leave their answers, for the dialog to print.
//!
//! 1. An answer is printed once: by the dialog, or, while that waits for a line on a terminal, by the
//!    session's own thread, above the prompt.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustyline::ExternalPrinter;

/// What a session has to say.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) session: String,
    pub(crate) lines: Vec<String>,
    /// Whether the session's transaction is over.
    pub(crate) ended: bool,
    /// Whether it has been printed.
    pub(crate) is_printed: bool,
}

/// Prints above a prompt.
pub(crate) type Announcer = Box<dyn ExternalPrinter + Send>;

/// The answers that the dialog has not taken yet.
#[derive(Default)]
pub(crate) struct Answers {
    waiting: Mutex<Inbox>,
    arrived: Condvar,
    announcer: Mutex<Option<Announcer>>,
}

#[derive(Default)]
struct Inbox {
    answers: VecDeque<Answer>,
    /// Whether the dialog waits for a line.
    at_prompt: bool,
}

impl Answers {
    /// From now on answers that come while the dialog waits for a line are printed at once.
    pub(crate) fn announce_with(&self, announcer: Announcer) {
        *locked(&self.announcer) = Some(announcer);
    }

    /// Whether the dialog waits for a line.
    pub(crate) fn at_prompt(&self, is: bool) {
        locked(&self.waiting).at_prompt = is;
    }

    /// Leaves an answer.
    pub(crate) fn give(&self, mut answer: Answer) {
        let mut announcer = locked(&self.announcer);
        let mut inbox = locked(&self.waiting);
        let announces = inbox.at_prompt && announcer.is_some();
        answer.is_printed = announces;
        let text = announces.then(|| format!("{}\n", answer.printed().join("\n")));
        inbox.answers.push_back(answer);
        // The printer may have to wait for the prompt; the dialog must be able to take answers meanwhile.
        drop(inbox);
        self.arrived.notify_all();
        if let (Some(announcer), Some(text)) = (&mut *announcer, text)
            && announcer.print(text).is_err()
        {
            let _ = writeln!(std::io::stderr(), "error: the terminal takes no output");
        }
    }

    /// The next answer, waiting for it that long.
    pub(crate) fn take(&self, within: Duration) -> Option<Answer> {
        let inbox = locked(&self.waiting);
        let is_empty = |inbox: &mut Inbox| inbox.answers.is_empty();
        let waited = self.arrived.wait_timeout_while(inbox, within, is_empty);
        let (mut inbox, _) = waited.unwrap_or_else(PoisonError::into_inner);
        inbox.answers.pop_front()
    }
}

impl Answer {
    /// As it is printed: each line with its session.
    pub(crate) fn printed(&self) -> Vec<String> {
        let lines = self.lines.iter();
        lines
            .map(|line| format!("{}: {line}", self.session))
            .collect()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of another thread leaves a queue that is still a queue.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_once_and_not_waited_for_longer_than_asked() {
        let answers = Answers::default();
        assert!(answers.take(Duration::ZERO).is_none());
        answers.give(Answer {
            session: "s1".into(),
            lines: vec!["a".into(), "b".into()],
            ended: false,
            is_printed: false,
        });
        let answer = answers.take(Duration::from_secs(5)).expect("it was given");
        assert_eq!(answer.printed(), ["s1: a", "s1: b"]);
        assert!(!answer.is_printed, "there is no prompt");
        assert!(answers.take(Duration::ZERO).is_none());
    }
}
