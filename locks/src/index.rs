//! Where the nodes of one shard are, by their rows' hashes: a table of words, each with half a hash and a number.
//!
//! Called by `shard`, under the row latch.
//! 1. Linear probing: what is looked for lies between the place of its hash and the next empty word, as a rule in one cache
//!    line. To grow, or to remove, reads no node: the half of the hash that is kept says where a word belongs.
//! 2. Whatever is removed leaves no mark: those behind it move up (Knuth, The Art of Computer Programming 3, 6.4, algorithm R).
//! 3. At most three quarters of the words are used; when none is, so is the memory of all but a few.
//! 4. Where the words are is told to those who have not the latch, for a hint: whoever follows it reads nothing there.
//!
//! Crash: memory only.

use std::sync::atomic::{AtomicUsize, Ordering};

use lockstone_base::{prefetch, prefetch_at};

/// So many words stay when nothing is used.
const WORDS_MIN: usize = 16;

/// The numbers of a shard's nodes.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// A power of two of them, or none.
    words: Vec<Word>,
    used: usize,
}

/// Half a hash above a number, which is counted from one; zero is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word(u64);

const EMPTY: Word = Word(0);

/// Where the words of an index were when somebody said so last, under its latch.
#[derive(Debug, Default)]
pub(crate) struct Signpost {
    words: AtomicUsize,
    mask: AtomicUsize,
}

impl Signpost {
    /// `hash` is going to be looked for. The words may be elsewhere by now, and the two parts of the answer of two moments: then
    /// the hint is of no use, and does no harm.
    pub(crate) fn expect(&self, hash: u64) {
        let (words, mask) = (&self.words, &self.mask);
        let at = hash as u32 as usize & mask.load(Ordering::Relaxed);
        prefetch_at(words.load(Ordering::Relaxed) + at * size_of::<Word>());
    }
}

/// The place of an empty word.
#[derive(Debug)]
pub(crate) struct Free(usize);

impl Word {
    fn new(hash: u64, number: u32) -> Self {
        Self((hash << 32) | (u64::from(number) + 1))
    }

    fn has_half_of(self, hash: u64) -> bool {
        self.0 >> 32 == hash & u64::from(u32::MAX)
    }

    fn number(self) -> Option<u32> {
        (self.0 as u32).checked_sub(1)
    }

    /// Where it belongs.
    fn home(self, mask: usize) -> usize {
        (self.0 >> 32) as usize & mask
    }
}

impl Index {
    fn mask(&self) -> usize {
        self.words.len().wrapping_sub(1)
    }

    fn word(&self, at: usize) -> Word {
        self.words.get(at).copied().unwrap_or(EMPTY)
    }

    fn set(&mut self, at: usize, word: Word) {
        if let Some(place) = self.words.get_mut(at) {
            *place = word;
        }
    }

    /// The place of the word of `hash` whose number `is_it`, or of the empty one where it would be.
    fn probe(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> usize {
        let mask = self.mask();
        let mut at = hash as u32 as usize & mask;
        loop {
            let word = self.word(at);
            let Some(number) = word.number() else {
                return at;
            };
            if word.has_half_of(hash) && is_it(number) {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    /// The number of `hash` that `is_it`.
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.word(self.probe(hash, is_it)).number()
    }

    /// The number of `hash` that `is_it`, or the place that is free for one.
    pub(crate) fn locate(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Result<u32, Free> {
        let at = self.probe(hash, is_it);
        self.word(at).number().ok_or(Free(at))
    }

    /// Adds a number of `hash` at the place that [`Index::locate`] has just found for it.
    pub(crate) fn insert(&mut self, free: Free, hash: u64, number: u32) {
        let mut at = free.0;
        if (self.used + 1) * 4 > self.words.len() * 3 {
            self.grow();
            at = self.probe(hash, |_| false);
        }
        self.set(at, Word::new(hash, number));
        self.used += 1;
    }

    fn grow(&mut self) {
        let words = vec![EMPTY; (self.words.len() * 2).max(WORDS_MIN)];
        let mask = words.len() - 1;
        let before = std::mem::replace(&mut self.words, words);
        for word in before.into_iter().filter(|word| *word != EMPTY) {
            let mut at = word.home(mask);
            while self.word(at) != EMPTY {
                at = (at + 1) & mask;
            }
            self.set(at, word);
        }
    }

    /// Removes the number of `hash`.
    ///
    /// # Panics
    /// If it is not there.
    pub(crate) fn remove(&mut self, hash: u64, number: u32) {
        let mut hole = self.probe(hash, |other| other == number);
        assert!(
            self.word(hole).number() == Some(number),
            "a node that is used is in the index"
        );
        self.used -= 1;
        if self.used == 0 {
            self.words.truncate(WORDS_MIN);
            self.words.shrink_to(WORDS_MIN);
            self.words.fill(EMPTY);
            return;
        }
        let mask = self.mask();
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let word = self.word(at);
            if word == EMPTY {
                break;
            }
            // It may move up to the hole unless it belongs behind it.
            let from_home = at.wrapping_sub(word.home(mask)) & mask;
            let from_hole = at.wrapping_sub(hole) & mask;
            if from_home >= from_hole {
                self.set(hole, word);
                hole = at;
            }
        }
        self.set(hole, EMPTY);
    }

    #[cfg(test)]
    pub(crate) fn is_at(&self, signpost: &Signpost) -> bool {
        let told = [&signpost.words, &signpost.mask].map(|part| part.load(Ordering::Relaxed));
        told == [self.words.as_ptr().addr(), self.mask()]
    }

    /// Says where the words are.
    pub(crate) fn tell(&self, signpost: &Signpost) {
        let words = self.words.as_ptr().addr();
        signpost.words.store(words, Ordering::Relaxed);
        signpost.mask.store(self.mask(), Ordering::Relaxed);
    }

    /// `hash` is going to be looked for.
    pub(crate) fn expect(&self, hash: u64) {
        if let Some(word) = self.words.get(hash as u32 as usize & self.mask()) {
            prefetch(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Few halves of hashes, so that many rows want the same place, and places that wrap round.
    fn hash() -> impl Strategy<Value = u64> {
        let low = prop_oneof![
            0..4_u32,
            12..18_u32,
            (u32::MAX - 3)..=u32::MAX,
            any::<u32>()
        ];
        (low, 0..3_u64).prop_map(|(low, high)| high << 32 | u64::from(low))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn it_finds_what_a_set_has(
            steps in prop::collection::vec((any::<bool>(), hash(), 0..4_u32), 1..300),
            empties in any::<bool>(),
        ) {
            // A row is a hash and one of a few numbers; which rows are there.
            let (mut index, mut set) = (Index::default(), BTreeSet::new());
            let number = |hash: u64, few: u32| (hash as u32 % 1000) * 12 + (hash >> 32) as u32 * 4 + few;
            for (inserts, hash, few) in steps {
                let number = number(hash, few);
                let is_it = |other: u32| other == number;
                prop_assert_eq!(index.find(hash, is_it), set.get(&(hash, number)).map(|_| number));
                if inserts {
                    match index.locate(hash, is_it) {
                        Ok(_) => prop_assert!(set.contains(&(hash, number))),
                        Err(free) => {
                            prop_assert!(set.insert((hash, number)));
                            index.insert(free, hash, number);
                        }
                    }
                } else if set.remove(&(hash, number)) {
                    index.remove(hash, number);
                }
                prop_assert_eq!(index.used, set.len());
                prop_assert!(index.used * 4 <= index.words.len() * 3);
                for (hash, number) in &set {
                    prop_assert_eq!(index.find(*hash, |other| other == *number), Some(*number));
                }
            }
            if empties {
                for (hash, number) in set {
                    index.remove(hash, number);
                }
                prop_assert!(index.words.iter().all(|word| *word == EMPTY));
                prop_assert!(index.words.capacity() <= WORDS_MIN);
            }
        }
    }

    #[test]
    fn a_signpost_shows_where_the_words_were_and_no_harm_is_done_where_they_are_not() {
        let (mut index, signpost) = (Index::default(), Signpost::default());
        signpost.expect(3);
        for hash in 0..100 {
            let free = index.locate(hash, |_| false).unwrap_err();
            index.insert(free, hash, hash as u32);
        }
        index.tell(&signpost);
        assert!(index.is_at(&signpost));
        for hash in 100..1000 {
            let free = index.locate(hash, |_| false).unwrap_err();
            index.insert(free, hash, hash as u32);
        }
        assert!(!index.is_at(&signpost));
        (0..2000).for_each(|hash| signpost.expect(hash));
        drop(index);
        (0..2000).for_each(|hash| signpost.expect(hash));
    }

    #[test]
    #[should_panic(expected = "a node that is used is in the index")]
    fn what_is_not_there_is_not_removed() {
        let mut index = Index::default();
        let free = index.locate(7, |_| false).unwrap_err();
        index.insert(free, 7, 1);
        index.remove(7, 2);
    }
}
