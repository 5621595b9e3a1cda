//! Which TSNs arrived beyond the cumulative one. Not in upstream's crate, which keeps the chunks themselves: they stay
//! in memory until the gap before them is closed, and every SACK walks over all of them.

use crate::chunk::chunk_selective_ack::GapAckBlock;
use crate::util::*;

use std::collections::VecDeque;

/// As many duplicates are reported at most; RFC 9260 section 3.3.4 lets a receiver leave some out.
const MAX_DUPLICATES: usize = 32;

/// Ranges of TSNs, in order, with a gap between each two.
#[derive(Default, Debug)]
pub(crate) struct ReceivedTsns {
    /// First and last.
    ranges: VecDeque<(u32, u32)>,
    duplicates: Vec<u32>,
}

impl ReceivedTsns {
    /// Where the first range is that does not end before `tsn`.
    fn find(&self, tsn: u32) -> usize {
        if self
            .ranges
            .back()
            .is_some_and(|(_, last)| sna32lt(*last, tsn))
        {
            return self.ranges.len();
        }
        self.ranges.partition_point(|(_, last)| sna32lt(*last, tsn))
    }

    fn contains(&self, tsn: u32) -> bool {
        self.ranges
            .get(self.find(tsn))
            .is_some_and(|(first, _)| sna32lte(*first, tsn))
    }

    pub(crate) fn can_push(&self, tsn: u32, cumulative_tsn: u32) -> bool {
        !(sna32lte(tsn, cumulative_tsn) || self.contains(tsn))
    }

    /// `false`, and a duplicate to report, when it is there already.
    pub(crate) fn push(&mut self, tsn: u32, cumulative_tsn: u32) -> bool {
        if !self.can_push(tsn, cumulative_tsn) {
            if self.duplicates.len() < MAX_DUPLICATES {
                self.duplicates.push(tsn);
            }
            return false;
        }
        let at = self.find(tsn);
        let after_previous = at > 0 && self.ranges[at - 1].1.wrapping_add(1) == tsn;
        let before_next = at < self.ranges.len() && tsn.wrapping_add(1) == self.ranges[at].0;
        match (after_previous, before_next) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = tsn,
            (false, true) => self.ranges[at].0 = tsn,
            (false, false) => self.ranges.insert(at, (tsn, tsn)),
        }
        true
    }

    /// Takes `tsn` out if it is the first.
    pub(crate) fn pop(&mut self, tsn: u32) -> bool {
        match self.ranges.front_mut() {
            Some((first, last)) if *first == tsn => {
                if first == last {
                    self.ranges.pop_front();
                } else {
                    *first = first.wrapping_add(1);
                }
                true
            }
            _ => false,
        }
    }

    /// Takes out what is not beyond `tsn`.
    pub(crate) fn forget_through(&mut self, tsn: u32) {
        while let Some((first, last)) = self.ranges.front_mut() {
            if sna32lt(tsn, *first) {
                return;
            }
            if sna32lt(tsn, *last) {
                *first = tsn.wrapping_add(1);
                return;
            }
            self.ranges.pop_front();
        }
    }

    pub(crate) fn last(&self) -> Option<u32> {
        self.ranges.back().map(|(_, last)| *last)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn pop_duplicates(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.duplicates)
    }

    /// The blocks of a SACK, the first `most` of them; what is further than a block can say is left out.
    pub(crate) fn gap_ack_blocks(&self, cumulative_tsn: u32, most: usize) -> Vec<GapAckBlock> {
        let offset = |tsn: u32| u16::try_from(tsn.wrapping_sub(cumulative_tsn));
        self.ranges
            .iter()
            .map_while(|(first, last)| {
                let start = offset(*first).ok()?;
                let end = offset(*last).unwrap_or(u16::MAX);
                Some(GapAckBlock { start, end })
            })
            .take(most)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_a_set_in_any_order_and_across_the_end_of_numbers() {
        let cumulative = u32::MAX - 20;
        let mut state = 7_u32;
        for _ in 0..200 {
            let mut received = ReceivedTsns::default();
            let mut set = std::collections::BTreeSet::new();
            for _ in 0..60 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let offset = 2 + (state >> 16) % 48;
                let tsn = cumulative.wrapping_add(offset);
                assert_eq!(set.insert(offset), received.push(tsn, cumulative));
            }
            let mut said = Vec::new();
            let mut before = 0;
            for block in received.gap_ack_blocks(cumulative, usize::MAX) {
                assert!(u32::from(block.start) > before + 1, "blocks touch");
                said.extend(u32::from(block.start)..=u32::from(block.end));
                before = u32::from(block.end);
            }
            assert_eq!(said, set.iter().copied().collect::<Vec<_>>());
            for offset in set {
                assert!(received.pop(cumulative.wrapping_add(offset)));
            }
            assert!(received.is_empty());
        }
    }
}
