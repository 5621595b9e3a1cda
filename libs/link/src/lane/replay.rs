//! Which counters of a key were seen: a sliding bitmap. [RFC 6479](https://www.rfc-editor.org/rfc/rfc6479)

const WORD: u64 = 64;
/// A power of two.
const WORDS: u64 = 128;

/// Counters below the highest one seen that are still told apart; what is older counts as seen.
pub(crate) const WINDOW: u64 = WORDS * WORD - WORD;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Never,
    Before,
    /// Too old to tell.
    Perhaps,
}

pub(crate) struct Window {
    /// One more than the highest counter that was marked.
    next: u64,
    bits: Box<[u64; WORDS as usize]>,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self {
            next: 0,
            bits: Box::new([0; WORDS as usize]),
        }
    }

    pub(crate) fn look(&self, counter: u32) -> Seen {
        let counter = u64::from(counter);
        if counter >= self.next {
            return Seen::Never;
        }
        if self.next - counter > WINDOW {
            return Seen::Perhaps;
        }
        let bit = 1 << (counter % WORD);
        match self.bits[(counter / WORD % WORDS) as usize] & bit {
            0 => Seen::Never,
            _ => Seen::Before,
        }
    }

    /// Called once the datagram was found to be authentic, and never before.
    pub(crate) fn mark(&mut self, counter: u32) {
        let counter = u64::from(counter);
        if counter >= self.next {
            // The words that come into sight still hold what was a whole turn ago.
            let from = self.next.div_ceil(WORD);
            let fresh = (counter / WORD + 1).saturating_sub(from).min(WORDS);
            for word in 0..fresh {
                self.bits[((counter / WORD - word) % WORDS) as usize] = 0;
            }
            self.next = counter + 1;
        }
        self.bits[(counter / WORD % WORDS) as usize] |= 1 << (counter % WORD);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_counter_passes_once_and_never_when_too_old(
            start in 0_u32..20_000,
            steps in prop::collection::vec((0_u32..3, 0_u32..20_000), 1..600),
        ) {
            let (mut window, mut seen, mut highest) = (Window::new(), HashSet::new(), None::<u32>);
            let mut at = start;
            for (kind, step) in steps {
                // Mostly onward, sometimes back, sometimes far.
                at = match kind {
                    0 => at + 1 + step % 3,
                    1 => at.saturating_sub(step % 9_000),
                    _ => at + step % 5_000,
                };
                let too_old = highest.is_some_and(|highest| u64::from(highest) + 1 > u64::from(at) + WINDOW);
                let expected = match (too_old, seen.contains(&at)) {
                    (true, _) => Seen::Perhaps,
                    (false, true) => Seen::Before,
                    (false, false) => Seen::Never,
                };
                prop_assert_eq!(window.look(at), expected);
                if expected == Seen::Never {
                    window.mark(at);
                    seen.insert(at);
                    highest = highest.max(Some(at));
                    prop_assert_eq!(window.look(at), Seen::Before);
                }
            }
        }
    }

    #[test]
    fn the_last_counter_of_a_key_is_a_counter_like_any_other() {
        let mut window = Window::new();
        window.mark(u32::MAX);
        assert_eq!(window.look(u32::MAX), Seen::Before);
        assert_eq!(window.look(u32::MAX - 1), Seen::Never);
        assert_eq!(window.look(0), Seen::Perhaps);
    }
}
