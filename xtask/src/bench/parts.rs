//! Which parts of a benchmark `--only` asks for.
use std::fmt::Display;

use anyhow::{Result, ensure};

/// Those of `all` whose names, or the beginnings of whose names up to a dash, are in `only`; all when it is empty.
///
/// # Errors
/// When one of `only` is nobody's name.
pub(super) fn chosen<P: Display>(all: Vec<P>, only: &[String]) -> Result<Vec<P>> {
    for wanted in only {
        let known = all.iter().any(|part| is_called(part, wanted));
        let names: Vec<String> = all.iter().map(P::to_string).collect();
        ensure!(known, "no part `{wanted}`: there are {}", names.join(", "));
    }
    let chosen = |part: &P| only.is_empty() || only.iter().any(|wanted| is_called(part, wanted));
    Ok(all.into_iter().filter(chosen).collect())
}

/// The whole name, or its beginning up to a dash.
pub(super) fn is_called(part: &impl Display, wanted: &str) -> bool {
    part.to_string()
        .strip_prefix(wanted)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}
