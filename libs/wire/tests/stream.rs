//! Frames of a byte stream, however it is cut.

#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;
use turnpike_wire::channel_data;
use turnpike_wire::stream::{FrameError, Frames, MAX_FRAME, padding};
use turnpike_wire::stun::MAGIC_COOKIE;

fn stun(body: usize) -> Vec<u8> {
    let body = body / 4 * 4;
    let mut bytes = vec![0, 1];
    bytes.extend((body as u16).to_be_bytes());
    bytes.extend(MAGIC_COOKIE);
    bytes.extend([7; 12]);
    bytes.extend(vec![9; body]);
    bytes
}

fn channel(number: u16, len: usize) -> Vec<u8> {
    let mut bytes = channel_data::header(number, len as u16).to_vec();
    bytes.extend(vec![0xAA; len]);
    bytes
}

/// Reads a stream that arrives in pieces, as a connection does.
fn read(pieces: &[&[u8]], limit: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let (mut tail, mut all) = (Vec::new(), Vec::new());
    for piece in pieces {
        tail.extend_from_slice(piece);
        let mut frames = Frames::new(&tail, limit);
        all.extend(frames.by_ref().map(<[u8]>::to_vec));
        if let Some(error) = frames.error() {
            return (all, Some(error));
        }
        tail = frames.rest().to_vec();
    }
    (all, None)
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (0..200usize).prop_map(stun),
        (0x4000..=0x7FFFu16, 0..200usize).prop_map(|(number, len)| channel(number, len)),
    ]
}

#[test]
fn channel_data_is_padded_and_its_padding_is_not_in_the_frame() {
    let mut bytes = channel(0x4001, 5);
    bytes.extend([0; 3]);
    bytes.extend(stun(8));
    let mut frames = Frames::new(&bytes, MAX_FRAME);
    assert_eq!(frames.next().unwrap(), channel(0x4001, 5));
    assert_eq!(frames.next().unwrap(), stun(8));
    assert_eq!(frames.next(), None);
    assert_eq!((frames.rest(), frames.error()), (&[][..], None));
    assert_eq!([0, 1, 2, 3, 4].map(padding), [0, 3, 2, 1, 0]);
}

#[test]
fn a_frame_is_not_there_before_its_padding() {
    let bytes = channel(0x4001, 5);
    let mut frames = Frames::new(&bytes, MAX_FRAME);
    assert_eq!(frames.next(), None);
    assert_eq!((frames.rest(), frames.error()), (&bytes[..], None));
}

#[test]
fn what_is_no_frame_ends_the_stream_as_early_as_it_can_be_known() {
    let error = |bytes: &[u8]| {
        let mut frames = Frames::new(bytes, 1_000);
        assert_eq!(frames.next(), None);
        frames.error()
    };
    for first in 0..=u8::MAX {
        let known = matches!(first, 0..=3 | 0x40..=0x7F);
        assert_eq!(error(&[first]).is_none(), known, "{first}");
    }
    // HTTP looks like a long frame of a channel; a TLS record, a STUN length that is no multiple of four, another cookie.
    assert_eq!(error(b"GET / HTTP/1.1"), Some(FrameError::TooLong));
    assert_eq!(error(&[22, 3, 1]), Some(FrameError::NotTurn));
    assert_eq!(error(&[0, 1, 0, 2]), Some(FrameError::NotTurn));
    assert_eq!(error(&[0, 1, 0, 0, 0x21, 0x13]), Some(FrameError::NotTurn));
    assert_eq!(error(&[0x40, 0, 0x03, 0xE4]), None);
    assert_eq!(error(&[0x40, 0, 0x03, 0xE5]), Some(FrameError::TooLong));
    assert_eq!(error(&[0, 1, 0x03, 0xD8]), Some(FrameError::TooLong));
}

#[test]
fn the_longest_frames_are_read() {
    let all = [stun(65_532), channel(0x4000, 65_535)].concat();
    let padded = [&all[..], &[0]].concat();
    let (frames, error) = read(&[&padded], MAX_FRAME);
    assert_eq!((frames.len(), error), (2, None));
}

proptest! {
    #[test]
    fn any_cut_of_a_stream_gives_the_same_frames(
        frames in vec(frame(), 0..20),
        cuts in vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let mut stream = Vec::new();
        for frame in &frames {
            stream.extend(frame);
            stream.resize(stream.len().next_multiple_of(4), 0);
        }
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let ends = cuts.iter().copied().chain([stream.len()]);
        let pieces: Vec<_> = ends
            .scan(0, |begin, end| Some(&stream[std::mem::replace(begin, end)..end]))
            .collect();
        let (read, error) = read(&pieces, MAX_FRAME);
        prop_assert_eq!(error, None);
        prop_assert_eq!(read, frames);
    }

    #[test]
    fn runs_are_the_same_frames(
        frames in vec((frame(), 1..5usize), 0..10),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut stream = Vec::new();
        for (frame, count) in &frames {
            for _ in 0..*count {
                stream.extend(frame);
                stream.resize(stream.len().next_multiple_of(4), 0);
            }
        }
        stream.truncate(cut.index(stream.len() + 1));
        let (one_by_one, _) = read(&[&stream], MAX_FRAME);
        let mut runs = Frames::new(&stream, MAX_FRAME);
        let mut read = Vec::new();
        while let Some((run, stride)) = runs.next_run() {
            prop_assert!(run.len() % stride == 0 && !run.is_empty());
            for padded in run.chunks(stride) {
                let frame = Frames::new(padded, MAX_FRAME).next();
                read.push(frame.unwrap().to_vec());
            }
        }
        prop_assert_eq!(read, one_by_one);
    }

    #[test]
    fn garbage_is_read_alike_however_it_is_cut(bytes in vec(any::<u8>(), 0..200), limit in 0..300usize) {
        let (whole, whole_ends) = read(&[&bytes], limit);
        let single: Vec<_> = bytes.chunks(1).collect();
        let (frames, ends) = read(&single, limit);
        prop_assert_eq!(frames, whole);
        prop_assert_eq!(ends.is_some(), whole_ends.is_some());
    }

    #[test]
    fn nothing_is_returned_twice_or_lost(bytes in vec(any::<u8>(), 0..2_000)) {
        let mut frames = Frames::new(&bytes, MAX_FRAME);
        let padded: usize = frames.by_ref().map(|frame| frame.len().next_multiple_of(4)).sum();
        prop_assert_eq!(padded + frames.rest().len(), bytes.len());
        prop_assert!(frames.next().is_none());
    }
}
