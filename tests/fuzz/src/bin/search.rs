//! libFuzzer's program for the target that `TURNPIKE_FUZZ_TARGET` names.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let run = TARGET.get_or_init(|| {
        let name = std::env::var("TURNPIKE_FUZZ_TARGET").expect("TURNPIKE_FUZZ_TARGET");
        turnpike_fuzz::target(&name).expect("a target of this name")
    });
    run(data);
});
