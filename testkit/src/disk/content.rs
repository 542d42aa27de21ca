//! The content of one file: shared pages that are copied when they are written, so that the disks of a
//! crash enumeration share what they have in common.
//!
//! 1. Bytes that were never put read as zeros and take no room.
//! 2. Reads end at the length. Bytes may lie behind it: a write whose growth is not durable yet.

use std::sync::{Arc, LazyLock};

use super::PAGE_BYTES;
use super::payload::Payload;

type Page = [u8; PAGE_BYTES];

static ZERO_PAGE: LazyLock<Arc<Page>> = LazyLock::new(|| Arc::new([0; PAGE_BYTES]));

#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pages: Arc<Vec<Option<Arc<Page>>>>,
    len: u64,
}

impl Content {
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        content.put(0, &Payload::new(bytes));
        content.len = bytes.len() as u64;
        content
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// How many bytes of a device it takes.
    pub(super) fn room(&self) -> u64 {
        (self.pages.iter().flatten().count() * PAGE_BYTES) as u64
    }

    /// Whether the page that holds `offset` takes room.
    pub(super) fn has_room_at(&self, offset: u64) -> bool {
        let page = offset / PAGE_BYTES as u64;
        matches!(self.pages.get(page as usize), Some(Some(_)))
    }

    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let there = self.len.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let mut at = offset;
        let mut rest = buffer.get_mut(..there).unwrap_or_default();
        while !rest.is_empty() {
            let within = at as usize % PAGE_BYTES;
            let count = rest.len().min(PAGE_BYTES - within);
            let (now, later) = rest.split_at_mut(count);
            match self.pages.get(at as usize / PAGE_BYTES) {
                Some(Some(page)) => {
                    now.copy_from_slice(page.get(within..within + count).unwrap_or_default());
                }
                _ => now.fill(0),
            }
            rest = later;
            at += count as u64;
        }
        there
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.read(0, &mut bytes);
        bytes
    }

    /// Puts the bytes in place and leaves the length alone.
    pub(super) fn put(&mut self, offset: u64, payload: &Payload) {
        let end = offset as usize + payload.len();
        let pages = Arc::make_mut(&mut self.pages);
        if payload.len() > 0 && pages.len() < end.div_ceil(PAGE_BYTES) {
            pages.resize(end.div_ceil(PAGE_BYTES), None);
        }
        let mut at = offset as usize;
        while at < end {
            let within = at % PAGE_BYTES;
            let count = (end - at).min(PAGE_BYTES - within);
            let start = at - offset as usize;
            let part = payload.slice(start..start + count);
            if let Some(page) = pages.get_mut(at / PAGE_BYTES) {
                put_in_page(page, within, &part);
            }
            at += count;
        }
    }

    pub(super) fn grow(&mut self, to: u64) {
        self.len = self.len.max(to);
    }

    /// Forgets everything from `to` on, also what lies behind the length.
    pub(super) fn cut(&mut self, to: u64) {
        self.len = self.len.min(to);
        let whole = (to as usize).div_ceil(PAGE_BYTES);
        let within = to as usize % PAGE_BYTES;
        if self.pages.len() < whole || (self.pages.len() == whole && within == 0) {
            return;
        }
        let pages = Arc::make_mut(&mut self.pages);
        pages.truncate(whole);
        if let Some(Some(page)) = pages.last_mut().filter(|_| within > 0) {
            let behind = Arc::make_mut(page).get_mut(within..);
            behind.unwrap_or_default().fill(0);
        }
    }
}

fn put_in_page(page: &mut Option<Arc<Page>>, within: usize, part: &Payload) {
    let whole = part.len() == PAGE_BYTES;
    if whole && matches!(part, Payload::Zeros(_)) {
        *page = Some(ZERO_PAGE.clone());
        return;
    }
    let target = page.get_or_insert_with(|| ZERO_PAGE.clone());
    if whole {
        let mut fresh = [0; PAGE_BYTES];
        part.copy_to(&mut fresh);
        *target = Arc::new(fresh);
    } else if let Some(range) = Arc::make_mut(target).get_mut(within..within + part.len()) {
        part.copy_to(range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_agrees_with_a_plain_vector() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..200 {
            let mut content = Content::default();
            let mut model: Vec<u8> = Vec::new();
            for _ in 0..20 {
                let at = rng.usize(..20_000);
                if rng.u8(..4) == 0 {
                    model.truncate(at);
                    content.cut(at as u64);
                } else {
                    let bytes = vec![rng.u8(..3); rng.usize(..10_000)];
                    let end = at + bytes.len();
                    if !bytes.is_empty() {
                        model.resize(model.len().max(end), 0);
                        model[at..end].copy_from_slice(&bytes);
                        content.grow(end as u64);
                    }
                    content.put(at as u64, &Payload::new(&bytes));
                }
                let before = content.clone();
                assert_eq!(content.to_vec(), model);
                content.put(0, &Payload::new(b"elsewhere"));
                assert_eq!(before.to_vec(), model, "a clone saw another's write");
                content = before;
            }
        }
    }

    #[test]
    fn holes_take_no_room() {
        let mut content = Content::default();
        content.grow(1 << 30);
        assert_eq!(content.room(), 0);
        content.put(1 << 20, &Payload::Zeros(1));
        assert_eq!(content.room(), PAGE_BYTES as u64);
        assert!(content.has_room_at((1 << 20) + 4095) && !content.has_room_at(4096));
    }
}
