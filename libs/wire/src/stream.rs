//! Frames in a byte stream: STUN and ChannelData over TCP, and over TLS on TCP.
//!
//! A stream has no datagrams, so that each message's own length says where it ends: STUN's
//! ([RFC 8489 section 6.2.2](https://www.rfc-editor.org/rfc/rfc8489#section-6.2.2)), or ChannelData's, which is padded to
//! a multiple of four bytes that its length does not count
//! ([RFC 8656 section 12.5](https://www.rfc-editor.org/rfc/rfc8656#section-12.5)). There is no mark to find the next
//! message by: after bytes that begin none, the stream is of no more use.

use crate::channel_data;
use crate::stun::MAGIC_COOKIE;
use thiserror::Error;

/// Bytes of a STUN header.
const STUN_HEADER_LEN: usize = 20;
/// The longest frame that the formats allow, with its padding.
pub const MAX_FRAME: usize = STUN_HEADER_LEN + 65_532;

/// Why a stream's bytes begin no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Neither STUN nor ChannelData.
    #[error("neither STUN nor ChannelData")]
    NotTurn,
    /// Longer than the reader lets it be.
    #[error("longer than the limit")]
    TooLong,
}

/// The whole frames at the beginning of some bytes.
///
/// An iterator: each frame comes without its padding. It ends at the first frame that is not whole, or that is none;
/// [`Frames::rest`] is what has not been returned.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    rest: &'a [u8],
    limit: usize,
    failed: Option<FrameError>,
}

impl<'a> Frames<'a> {
    /// Reads frames of at most `limit` bytes, padding included.
    pub fn new(bytes: &'a [u8], limit: usize) -> Self {
        Self {
            rest: bytes,
            limit,
            failed: None,
        }
    }

    /// What no whole frame was made of: to be put before what the stream brings next.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether the stream has to end, because what follows is no frame. Known once the iterator has ended.
    pub fn error(&self) -> Option<FrameError> {
        self.failed
    }
}

impl<'a> Frames<'a> {
    /// The next frame, and all that directly follow it with the same first four bytes, if it is ChannelData: equal in
    /// channel and length; without data it comes alone. With the distance from one to the next, which is their length with
    /// padding.
    #[inline]
    pub fn next_run(&mut self) -> Option<(&'a [u8], usize)> {
        let all = self.rest;
        let first = self.next()?;
        let stride = first.len().next_multiple_of(4);
        if first[0] >= 0x40 && first.len() > channel_data::HEADER_LEN {
            let header = first.first_chunk::<{ channel_data::HEADER_LEN }>();
            let alike = |frame: &&[u8]| frame.first_chunk() == header;
            let more = self.rest.chunks_exact(stride).take_while(alike).count();
            self.rest = &self.rest[more * stride..];
        }
        Some((&all[..all.len() - self.rest.len()], stride))
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.failed.is_some() {
            return None;
        }
        match measure(self.rest) {
            Err(error) => {
                self.failed = Some(error);
                None
            }
            Ok(None) => None,
            Ok(Some(len)) => {
                let padded = len.next_multiple_of(4);
                if padded > self.limit {
                    self.failed = Some(FrameError::TooLong);
                    return None;
                }
                let (frame, rest) = self.rest.split_at_checked(padded)?;
                self.rest = rest;
                Some(&frame[..len])
            }
        }
    }
}

/// The length of the frame that these bytes begin, without padding; `None` while it is not known.
#[inline]
fn measure(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    match bytes.first() {
        None => Ok(None),
        // As over UDP, wider than RFC 8656: RFC 5766 had channel numbers up to 0x7FFF.
        Some(0x40..=0x7F) => {
            let header = bytes.first_chunk::<{ channel_data::HEADER_LEN }>();
            Ok(header.map(|[_, _, l0, l1]| {
                channel_data::HEADER_LEN + usize::from(u16::from_be_bytes([*l0, *l1]))
            }))
        }
        Some(0..=3) => {
            // As much of it as there is: whoever speaks another protocol is told early.
            let cookie = bytes.iter().skip(4).zip(MAGIC_COOKIE);
            if cookie.into_iter().any(|(is, should)| *is != should) {
                return Err(FrameError::NotTurn);
            }
            let Some([_, _, l0, l1]) = bytes.first_chunk() else {
                return Ok(None);
            };
            let body = usize::from(u16::from_be_bytes([*l0, *l1]));
            if !body.is_multiple_of(4) {
                return Err(FrameError::NotTurn);
            }
            Ok(Some(STUN_HEADER_LEN + body))
        }
        Some(_) => Err(FrameError::NotTurn),
    }
}

/// Bytes of padding after a frame of `len` bytes.
#[inline]
pub fn padding(len: usize) -> usize {
    len.next_multiple_of(4) - len
}
