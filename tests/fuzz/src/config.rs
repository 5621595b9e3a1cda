//! A config file: read or refused with one line, never a panic.

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Err(error) = turn_relay::check_config(text) {
        let said = error.to_string();
        assert!(!said.is_empty());
        assert!(!said.contains('\n'), "one line: {said}");
    }
}
