//! Sealing and opening: which key, which counter, and when the next key's turn is.
//!
//! ```text
//!   0                   1                   2                   3                   4
//!   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9
//!  +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!  |0 0 0 0 1|epoch|                          counter                              |  text ... tag
//!  +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::keys::{Aead, Key, Secret, TAG_LEN};
use super::replay::{Seen, Window};

/// Bytes before the text.
pub(crate) const HEADER_LEN: usize = 5;
/// The first byte without the epoch: 8 to 15 belong to nobody in
/// [RFC 9443 §2](https://www.rfc-editor.org/rfc/rfc9443#section-2).
pub(crate) const FIRST_BYTE: u8 = 0x08;
const EPOCH_MASK: u8 = 0x07;

/// After so many datagrams the next key's turn has come, and the second number is never exceeded under one key. It is
/// below what AES-GCM bears, see [`crate::MAX_DATAGRAM`].
pub(crate) const REKEY_AFTER: u32 = 1 << 24;
pub(crate) const COUNTER_LIMIT: u32 = 1 << 25;
/// So long a key is used for at most, while the peer answers.
pub(crate) const REKEY_TIME: Duration = Duration::from_secs(300);
/// So long what was sealed under the key before the last change is still opened.
pub(crate) const OVERLAP: Duration = Duration::from_secs(10);
/// Forged datagrams after which the keys are used no more: the integrity limit of ChaCha20-Poly1305, the stricter one.
/// [RFC 9001 §6.6](https://www.rfc-editor.org/rfc/rfc9001#section-6.6)
const FORGERY_LIMIT: u64 = 1 << 36;

/// The sending half of one direction.
pub(crate) struct Sealer {
    aead: Aead,
    key: Key,
    following: Secret,
    epoch: u32,
    counter: u32,
    since: Option<Instant>,
    /// The peer has opened something of this epoch. Only then may the next one begin: so the receiver is never more
    /// than one epoch behind.
    confirmed: bool,
}

impl Sealer {
    pub(crate) fn new(first: &Secret, aead: Aead) -> Option<Self> {
        Some(Self {
            aead,
            key: first.key(aead)?,
            following: first.next()?,
            epoch: 0,
            counter: 0,
            since: None,
            confirmed: false,
        })
    }

    pub(crate) const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The peer said that it opened something of `epoch`.
    pub(crate) fn confirm(&mut self, epoch: u32) {
        self.confirmed |= epoch == self.epoch;
    }

    /// Makes ready for `count` datagrams. `false`: the key is used up and the peer never said that it has it.
    pub(crate) fn prepare(&mut self, count: usize, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let due = self.counter >= REKEY_AFTER || now.saturating_duration_since(since) >= REKEY_TIME;
        if due && self.confirmed {
            self.rekey(now);
        }
        usize::try_from(COUNTER_LIMIT - self.counter).is_ok_and(|left| count <= left)
    }

    fn rekey(&mut self, now: Instant) {
        let (Some(key), Some(following)) = (self.following.key(self.aead), self.following.next())
        else {
            return;
        };
        self.key = key;
        self.following = following;
        self.epoch += 1;
        self.counter = 0;
        self.since = Some(now);
        self.confirmed = false;
    }

    /// Room for the header, to be filled by [`Sealer::seal`].
    pub(crate) fn begin(buffer: &mut BytesMut) {
        buffer.extend_from_slice(&[0; HEADER_LEN]);
    }

    /// Seals what is in `buffer` from `start` on: a header's room and the text. Appends the tag. After
    /// [`Sealer::prepare`] it never fails; if it would, nothing of it may leave, and what was in `buffer` is gone.
    pub(crate) fn seal(&mut self, buffer: &mut BytesMut, start: usize) {
        match self.try_seal(buffer, start) {
            Some(tag) => buffer.extend_from_slice(&tag),
            None => buffer.truncate(start),
        }
    }

    fn try_seal(&mut self, buffer: &mut BytesMut, start: usize) -> Option<[u8; TAG_LEN]> {
        let counter = self.counter;
        if counter >= COUNTER_LIMIT {
            return None;
        }
        // Whatever comes of it, this counter is used.
        self.counter += 1;
        let datagram = buffer.get_mut(start..)?;
        let (header, text) = datagram.split_at_mut_checked(HEADER_LEN)?;
        header[0] = FIRST_BYTE | (self.epoch as u8 & EPOCH_MASK);
        header[1..].copy_from_slice(&counter.to_be_bytes());
        self.key.seal(counter, header, text)
    }

    #[cfg(test)]
    pub(crate) fn skip(&mut self, datagrams: u32) {
        self.counter = self.counter.saturating_add(datagrams).min(COUNTER_LIMIT);
    }

    #[cfg(test)]
    pub(crate) const fn position(&self) -> (u32, u32) {
        (self.epoch, self.counter)
    }
}

/// Why a datagram was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unopened {
    Short,
    Epoch,
    Replayed,
    Old,
    Forged,
}

struct Receiving {
    epoch: u32,
    key: Key,
    window: Window,
}

impl Receiving {
    fn new(epoch: u32, secret: &Secret, aead: Aead) -> Option<Self> {
        Some(Self {
            epoch,
            key: secret.key(aead)?,
            window: Window::new(),
        })
    }

    const fn answers_to(&self, bits: u8) -> bool {
        self.epoch as u8 & EPOCH_MASK == bits
    }
}

/// The receiving half of one direction: the key in use, the next one, and for a while the one before.
pub(crate) struct Opener {
    aead: Aead,
    current: Receiving,
    next: Receiving,
    following: Secret,
    previous: Option<(Receiving, Instant)>,
    forged: u64,
}

impl Opener {
    pub(crate) fn new(first: &Secret, aead: Aead) -> Option<Self> {
        let second = first.next()?;
        Some(Self {
            aead,
            current: Receiving::new(0, first, aead)?,
            next: Receiving::new(1, &second, aead)?,
            following: second.next()?,
            previous: None,
            forged: 0,
        })
    }

    /// Opens a datagram in place and gives its text.
    pub(crate) fn open<'a>(
        &mut self,
        datagram: &'a mut [u8],
        now: Instant,
    ) -> Result<(u32, &'a mut [u8]), Unopened> {
        if datagram.len() <= HEADER_LEN + TAG_LEN {
            return Err(Unopened::Short);
        }
        if self.forged >= FORGERY_LIMIT {
            return Err(Unopened::Forged);
        }
        let (header, text) = datagram.split_at_mut(HEADER_LEN);
        let bits = header[0] & EPOCH_MASK;
        let counter = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let mut is_next = false;
        let receiving = if self.current.answers_to(bits) {
            &mut self.current
        } else if self.next.answers_to(bits) {
            is_next = true;
            &mut self.next
        } else {
            match &mut self.previous {
                Some((previous, until)) if previous.answers_to(bits) && now < *until => previous,
                _ => return Err(Unopened::Epoch),
            }
        };
        match receiving.window.look(counter) {
            Seen::Never => {}
            Seen::Before => return Err(Unopened::Replayed),
            Seen::Perhaps => return Err(Unopened::Old),
        }
        let Some(text) = receiving.key.open(counter, header, text) else {
            self.forged += 1;
            return Err(Unopened::Forged);
        };
        receiving.window.mark(counter);
        let epoch = receiving.epoch;
        if is_next {
            self.advance(now);
        }
        Ok((epoch, text))
    }

    /// The peer uses the next key: it is the current one from now on.
    fn advance(&mut self, now: Instant) {
        let after = self.following.next();
        let next = Receiving::new(self.next.epoch + 1, &self.following, self.aead);
        let (Some(after), Some(next)) = (after, next) else {
            return;
        };
        self.following = after;
        let current = std::mem::replace(&mut self.next, next);
        let previous = std::mem::replace(&mut self.current, current);
        self.previous = Some((previous, now + OVERLAP));
    }

    /// When [`Opener::handle_timeout`] has a key to forget.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.previous.as_ref().map(|(_, until)| *until)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|until| until <= now) {
            self.previous = None;
        }
    }

    /// The epoch of the key in use.
    pub(crate) const fn epoch(&self) -> u32 {
        self.current.epoch
    }
}
