//! A byte stream, in pieces: the same frames come out as out of the whole.

use arbitrary::Unstructured;
use wire::stream::{FrameError, Frames, padding};

pub(crate) fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let limit = 20 + usize::from(input.arbitrary::<u16>().unwrap_or(0));
    let mut pieces = Vec::new();
    while let Ok(length) = input.int_in_range(1..=64_usize) {
        let length = length.min(input.len());
        let Ok(piece) = input.bytes(length) else {
            break;
        };
        if piece.is_empty() {
            break;
        }
        pieces.push(piece);
    }
    let whole = pieces.concat();
    let at_once = read(&[&whole], limit);
    let piecewise = read(&pieces, limit);
    assert_eq!(piecewise.0, at_once.0);
    // Which of two faults is seen first depends on the cut; that there is one does not.
    assert_eq!(piecewise.1.is_some(), at_once.1.is_some());
    runs(&whole, limit, &at_once.0);
}

/// Reads as a connection does.
fn read(pieces: &[&[u8]], limit: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let (mut tail, mut all) = (Vec::new(), Vec::new());
    for piece in pieces {
        tail.extend_from_slice(piece);
        let mut frames = Frames::new(&tail, limit);
        for frame in frames.by_ref() {
            assert!(frame.len() + padding(frame.len()) <= limit);
            all.push(frame.to_vec());
        }
        if let Some(error) = frames.error() {
            return (all, Some(error));
        }
        tail = frames.rest().to_vec();
        // What is not whole is bounded: no stranger fills memory with the beginning of a frame.
        assert!(tail.len() <= limit);
    }
    (all, None)
}

/// Runs are the same frames, taken together.
fn runs(whole: &[u8], limit: usize, expected: &[Vec<u8>]) {
    let mut frames = Frames::new(whole, limit);
    let mut expected = expected.iter();
    while let Some((run, stride)) = frames.next_run() {
        for frame in run.chunks(stride) {
            let one = expected.next().expect("no more frames than one by one");
            assert_eq!(frame[..one.len()], one[..]);
        }
    }
    assert_eq!(expected.next(), None);
}
