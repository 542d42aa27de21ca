//! Transfers that are resumed until they are complete (F5): the loops around `pread` and `pwrite`.
//!
//! Called by the files of [`OsDisk`](super::OsDisk) and, for what a ring has completed, by its writer.
//!
//! 1. A transfer that was interrupted before its first byte (`EINTR`) starts again.
//! 2. A short transfer is resumed at the last multiple of `step` that it reached, so that a file past
//!    the page cache never sees an unaligned offset, length or address; the bytes behind that multiple
//!    move a second time.
//! 3. A read that gets no further has met the end of the file; a write that gets no further has failed.

use std::io;

use rustix::io::Errno;

/// How far a transfer has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transfer {
    len: usize,
    step: usize,
    done: usize,
}

impl Transfer {
    pub(super) fn new(len: usize, step: usize) -> Self {
        Self { len, step, done: 0 }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.done >= self.len
    }

    /// How many bytes the next call leaves out at the front: a multiple of the step.
    pub(super) fn start(&self) -> usize {
        self.done - self.done % self.step
    }

    /// Takes note that the call from [`Transfer::start`] on moved `moved` bytes; whether that led further.
    pub(super) fn advance(&mut self, moved: usize) -> bool {
        let reached = self.start() + moved;
        let is_further = reached > self.done;
        self.done = self.done.max(reached);
        is_further
    }
}

/// Reads until `len` bytes are there or the file ends; how many are there. `read` is given how many
/// bytes it shall leave out at the front, always a multiple of `step`.
pub(super) fn read_all(
    len: usize,
    step: usize,
    mut read: impl FnMut(usize) -> Result<usize, Errno>,
) -> io::Result<usize> {
    let mut transfer = Transfer::new(len, step);
    while !transfer.is_complete() {
        if !transfer.advance(retry(|| read(transfer.start()))?) {
            break;
        }
    }
    Ok(transfer.done)
}

/// Writes until `len` bytes are written. `write` is given how many bytes it shall leave out at the
/// front, always a multiple of `step`.
pub(super) fn write_all(
    len: usize,
    step: usize,
    mut write: impl FnMut(usize) -> Result<usize, Errno>,
) -> io::Result<()> {
    let mut transfer = Transfer::new(len, step);
    while !transfer.is_complete() {
        if !transfer.advance(retry(|| write(transfer.start()))?) {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

/// Calls again for as long as a signal interrupts.
pub(super) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A kernel that answers each call with the next of `answers`, then moves everything; it notes
    /// where each call started.
    fn kernel<'a>(
        len: usize,
        answers: &[Result<usize, Errno>],
        starts: &'a mut Vec<usize>,
    ) -> impl FnMut(usize) -> Result<usize, Errno> + 'a {
        let mut answers: VecDeque<_> = answers.iter().copied().collect();
        move |start| {
            starts.push(start);
            answers.pop_front().unwrap_or(Ok(len - start))
        }
    }

    fn write(len: usize, step: usize, answers: &[Result<usize, Errno>]) -> io::Result<Vec<usize>> {
        let mut starts = Vec::new();
        write_all(len, step, kernel(len, answers, &mut starts))?;
        Ok(starts)
    }

    fn read(
        len: usize,
        step: usize,
        answers: &[Result<usize, Errno>],
    ) -> io::Result<(usize, Vec<usize>)> {
        let mut starts = Vec::new();
        let done = read_all(len, step, kernel(len, answers, &mut starts))?;
        Ok((done, starts))
    }

    #[test]
    fn short_and_interrupted_transfers_are_resumed() {
        let answers = [Err(Errno::INTR), Ok(3), Err(Errno::INTR), Ok(1)];
        assert_eq!(write(10, 1, &answers).unwrap(), [0, 0, 3, 3, 4]);
        assert_eq!(read(10, 1, &answers).unwrap(), (10, vec![0, 0, 3, 3, 4]));
    }

    #[test]
    fn an_aligned_transfer_resumes_at_a_block() {
        let answers = [Ok(4096 + 512), Ok(4096)];
        assert_eq!(write(16384, 4096, &answers).unwrap(), [0, 4096, 8192]);
        let (done, starts) = read(16384, 4096, &answers).unwrap();
        assert_eq!((done, starts), (16384, vec![0, 4096, 8192]));
    }

    #[test]
    fn a_read_that_gets_no_further_is_at_the_end() {
        assert_eq!(read(8192, 4096, &[Ok(5000), Ok(904)]).unwrap().0, 5000);
        assert_eq!(read(8192, 1, &[Ok(0)]).unwrap().0, 0);
    }

    #[test]
    fn a_write_that_gets_no_further_fails() {
        let error = write(8192, 4096, &[Ok(512), Ok(512)]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn an_error_ends_a_transfer() {
        let answers = [Ok(4096), Err(Errno::IO)];
        let eio = Some(Errno::IO.raw_os_error());
        assert_eq!(write(8192, 1, &answers).unwrap_err().raw_os_error(), eio);
        assert_eq!(read(8192, 1, &answers).unwrap_err().raw_os_error(), eio);
    }
}
