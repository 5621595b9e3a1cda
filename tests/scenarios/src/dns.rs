//! The table of DNS cases (`dns/cases.txt`): reading it, asking, and comparing.

mod clients;

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context as _, Result};

pub use clients::Clients;

/// The table.
pub const CASES: &str = include_str!("../dns/cases.txt");

/// Rows that hold in one state of the lab.
#[derive(Debug)]
pub struct Section {
    /// What stands in brackets.
    pub state: String,
    /// The rows, in order.
    pub cases: Vec<Case>,
}

/// A row.
#[derive(Debug, Clone)]
pub struct Case {
    /// Who asks.
    pub client: String,
    /// `udp`, `tcp` or `auto`.
    pub transport: String,
    /// What it is asked for, as its arguments.
    pub question: Vec<String>,
    answers: BTreeSet<String>,
    seen: BTreeSet<String>,
    unseen: BTreeSet<String>,
    line: usize,
}

/// What a client got.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Got {
    /// Data of the records, or whatever the client makes of it.
    pub answers: BTreeSet<String>,
    /// What else can be said, each with a colon before it.
    pub seen: BTreeSet<String>,
}

impl fmt::Display for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.answers.iter().chain(&self.seen).cloned().collect();
        f.write_str(&all.join(" "))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let question = self.question.join(" ");
        write!(f, "{:8} {:4}  {question:58}", self.client, self.transport)
    }
}

impl Case {
    /// Whether a client got what the row says.
    #[must_use]
    pub fn fits(&self, got: &Got) -> bool {
        self.answers == got.answers
            && self.seen.is_subset(&got.seen)
            && self.unseen.is_disjoint(&got.seen)
    }

    /// What was expected, for who has to find out.
    #[must_use]
    pub fn expected(&self) -> String {
        let unseen = self.unseen.iter().map(|word| format!("!{word}"));
        let all = self.answers.iter().chain(&self.seen).cloned().chain(unseen);
        let all: Vec<_> = all.collect();
        format!("line {}: expected {}", self.line, all.join(" "))
    }

    fn read(text: &str, line: usize) -> Result<Self> {
        let (asked, expected) = text.split_once("=>").context("no `=>`")?;
        let mut words = asked.split_whitespace().map(str::to_owned);
        let mut case = Self {
            client: words.next().context("no client")?,
            transport: words.next().context("no transport")?,
            question: words.collect(),
            answers: BTreeSet::new(),
            seen: BTreeSet::new(),
            unseen: BTreeSet::new(),
            line,
        };
        for word in expected.split_whitespace() {
            let (set, word) = match word.strip_prefix('!') {
                Some(word) => (&mut case.unseen, word),
                None if word.starts_with(':') && !word.starts_with("::") => (&mut case.seen, word),
                None => (&mut case.answers, word),
            };
            set.insert(word.to_owned());
        }
        Ok(case)
    }
}

/// Reads the table.
///
/// # Errors
/// The line that is no row.
pub fn read(table: &str) -> Result<Vec<Section>> {
    let mut sections: Vec<Section> = Vec::new();
    for (line, text) in (1..).zip(table.lines()) {
        if text.trim().is_empty() || text.starts_with('#') {
            continue;
        }
        if let Some((state, _)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            sections.push(Section {
                state: state.to_owned(),
                cases: Vec::new(),
            });
            continue;
        }
        let case = Case::read(text, line).with_context(|| format!("line {line} of the table"))?;
        let section = sections.last_mut().context("a row before any state")?;
        section.cases.push(case);
    }
    Ok(sections)
}
