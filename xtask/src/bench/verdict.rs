//! Whether a benchmark shows what the project asks for.
use serde_json::{Value, json};

/// One bound, and what was seen.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    what: String,
    /// `None` when it was not measured.
    seen: Option<f64>,
    bound: f64,
    /// Whether `seen` must be at least `bound`; else at most.
    at_least: bool,
}

impl Verdict {
    /// `seen` must be no more.
    pub(crate) fn at_most(what: String, seen: Option<f64>, bound: f64) -> Self {
        Self {
            what,
            seen,
            bound,
            at_least: false,
        }
    }

    /// `seen` must be no less.
    pub(crate) fn at_least(what: String, seen: Option<f64>, bound: f64) -> Self {
        Self {
            at_least: true,
            ..Self::at_most(what, seen, bound)
        }
    }

    /// `None` when it was not measured.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let seen = self.seen?;
        Some(if self.at_least {
            seen >= self.bound
        } else {
            seen <= self.bound
        })
    }

    /// For people, unless it was not measured.
    pub(crate) fn print(&self) {
        let met = match self.is_met() {
            Some(true) => "met   ",
            Some(false) => "MISSED",
            None => return,
        };
        let sign = if self.at_least { ">=" } else { "<=" };
        let seen = self.seen.unwrap_or_default();
        println!(
            "  {met} {:<72} {seen:>9.3} {sign} {:.3}",
            self.what, self.bound
        );
    }

    /// For the file.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "what": self.what,
            "seen": self.seen,
            "bound": self.bound,
            "bound_is": if self.at_least { "least" } else { "most" },
            "met": self.is_met(),
        })
    }
}
