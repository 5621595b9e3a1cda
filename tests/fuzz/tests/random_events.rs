//! The core against a small model of what clients may expect: permissions, channels and allocations live as long as RFC 8656
//! says, nothing passes without them, and what has them passes. The search goes on where these few cases end.

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn clients_of_every_kind_get_what_is_theirs_and_nothing_else(
        data in prop::collection::vec(any::<u8>(), 0..2_500)
    ) {
        turnpike_fuzz::target("core").expect("a target")(&data);
    }

    #[test]
    fn any_bytes_are_read_alike_by_both_readers(data in prop::collection::vec(any::<u8>(), 0..300)) {
        turnpike_fuzz::target("stun").expect("a target")(&data);
    }

    #[test]
    fn a_stream_is_the_same_however_it_is_cut(data in prop::collection::vec(any::<u8>(), 0..600)) {
        turnpike_fuzz::target("stream").expect("a target")(&data);
    }

    #[test]
    fn a_successor_goes_on_where_its_predecessor_was(data in prop::collection::vec(any::<u8>(), 0..1_500), kind in 0..4_u8) {
        turnpike_fuzz::target("state").expect("a target")(&[&[kind << 6 | 0x0F][..], &data].concat());
    }

    #[test]
    fn credentials_of_others_are_read_as_a_second_reader_does(data in prop::collection::vec(any::<u8>(), 0..120)) {
        turnpike_fuzz::target("credentials").expect("a target")(&data);
    }
}

proptest! {
    // Of handshakes there are fewer.
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_has_shown_no_cookie_gets_little_and_keeps_nothing(data in prop::collection::vec(any::<u8>(), 0..400)) {
        turnpike_fuzz::target("opening").expect("a target")(&data);
    }
}
