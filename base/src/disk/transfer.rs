//! Transfers that are resumed until they are complete (F5): the loops around `pread` and `pwrite`.
//!
//! Called by the files of [`BlockingDisk`](super::BlockingDisk) only.
//!
//! 1. A transfer that was interrupted before its first byte (`EINTR`) starts again.
//! 2. A short transfer is resumed at the last multiple of `step` that it reached, so that a file past
//!    the page cache never sees an unaligned offset, length or address; the bytes behind that multiple
//!    move a second time.
//! 3. A read that gets no further has met the end of the file; a write that gets no further has failed.

use std::io;

use rustix::io::Errno;

/// Reads until `len` bytes are there or the file ends; how many are there. `read` is given how many
/// bytes it shall leave out at the front, always a multiple of `step`.
pub(super) fn read_all(
    len: usize,
    step: usize,
    mut read: impl FnMut(usize) -> Result<usize, Errno>,
) -> io::Result<usize> {
    let mut done = 0;
    while done < len {
        let start = done - done % step;
        let reached = start + retry(|| read(start))?;
        if reached <= done {
            break;
        }
        done = reached;
    }
    Ok(done)
}

/// Writes until `len` bytes are written. `write` is given how many bytes it shall leave out at the
/// front, always a multiple of `step`.
pub(super) fn write_all(
    len: usize,
    step: usize,
    mut write: impl FnMut(usize) -> Result<usize, Errno>,
) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let start = done - done % step;
        let reached = start + retry(|| write(start))?;
        if reached <= done {
            return Err(io::ErrorKind::WriteZero.into());
        }
        done = reached;
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
    use super::*;

    /// A kernel that answers each call with the next of `answers`, then moves everything.
    fn kernel(
        len: usize,
        answers: &[Result<usize, Errno>],
    ) -> (
        std::rc::Rc<std::cell::RefCell<Vec<usize>>>,
        impl FnMut(usize) -> Result<usize, Errno>,
    ) {
        let starts = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let seen = starts.clone();
        let mut answers = answers.to_vec().into_iter();
        (starts, move |start| {
            seen.borrow_mut().push(start);
            answers.next().unwrap_or(Ok(len - start))
        })
    }

    #[test]
    fn short_and_interrupted_transfers_are_resumed() {
        let answers = [Err(Errno::INTR), Ok(3), Err(Errno::INTR), Ok(1)];
        let (starts, write) = kernel(10, &answers);
        write_all(10, 1, write).unwrap();
        assert_eq!(*starts.borrow(), [0, 0, 3, 3, 4]);
        let (starts, read) = kernel(10, &answers);
        assert_eq!(read_all(10, 1, read).unwrap(), 10);
        assert_eq!(*starts.borrow(), [0, 0, 3, 3, 4]);
    }

    #[test]
    fn an_aligned_transfer_resumes_at_a_block() {
        let answers = [Ok(4096 + 512), Ok(4096)];
        let (starts, write) = kernel(16384, &answers);
        write_all(16384, 4096, write).unwrap();
        assert_eq!(*starts.borrow(), [0, 4096, 8192]);
        let (starts, read) = kernel(16384, &answers);
        assert_eq!(read_all(16384, 4096, read).unwrap(), 16384);
        assert_eq!(*starts.borrow(), [0, 4096, 8192]);
    }

    #[test]
    fn a_read_that_gets_no_further_is_at_the_end() {
        let (_, read) = kernel(8192, &[Ok(5000), Ok(904)]);
        assert_eq!(read_all(8192, 4096, read).unwrap(), 5000);
        let (_, read) = kernel(8192, &[Ok(0)]);
        assert_eq!(read_all(8192, 1, read).unwrap(), 0);
    }

    #[test]
    fn a_write_that_gets_no_further_fails() {
        let (_, write) = kernel(8192, &[Ok(512), Ok(512)]);
        let error = write_all(8192, 4096, write).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn an_error_ends_a_transfer() {
        let (_, write) = kernel(8192, &[Ok(4096), Err(Errno::IO)]);
        assert_eq!(
            write_all(8192, 1, write).unwrap_err().raw_os_error(),
            Some(Errno::IO.raw_os_error())
        );
        let (_, read) = kernel(8192, &[Ok(4096), Err(Errno::IO)]);
        assert!(read_all(8192, 1, read).is_err());
    }
}
