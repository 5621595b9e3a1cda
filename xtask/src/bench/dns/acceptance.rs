//! What the project asks of dns-signal, and whether these measurements show it.
use super::load::{CPU, P99, Pace, SPEED};
use super::servers::{OURS, RIVALS};
use super::{ADDED, FORWARDED_RATE, INTERCEPTED_RATE, Part};
use crate::bench::results::Book;
use crate::bench::verdict::Verdict;

/// Every bound.
pub(super) fn judge(book: &Book) -> Vec<Verdict> {
    let ours = |part: Part, metric: &str| book.median(&part.title(), OURS, metric);
    let fast = Part::Intercepted(Pace::Fast);
    let paced = Part::Intercepted(Pace::PerSecond(INTERCEPTED_RATE));
    let forwarded = Part::Forwarded(Pace::PerSecond(FORWARDED_RATE));
    let ms = |us: f64| us / 1e3;
    let mut verdicts = vec![
        Verdict::at_least(
            format!("{}: queries/s on one core", fast.title()),
            ours(fast, SPEED),
            80_000.0,
        ),
        Verdict::at_most(
            format!("{}: p99, ms", paced.title()),
            ours(paced, P99).map(ms),
            1.0,
        ),
        Verdict::at_most(
            format!("{}: added on the mean, ms", forwarded.title()),
            ours(forwarded, ADDED).map(ms),
            0.3,
        ),
    ];
    for rival in RIVALS {
        let theirs = book.median(&fast.title(), rival, CPU);
        let ratio = ours(fast, CPU)
            .zip(theirs)
            .map(|(ours, theirs)| ours / theirs);
        verdicts.push(Verdict::at_most(
            format!("{}: CPU to {rival}'s", fast.title()),
            ratio,
            1.0,
        ));
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::bench::results::{self, Metrics};

    #[test]
    fn what_was_measured_is_judged_and_the_rest_is_not() {
        let mut part = results::Part {
            circumstances: Value::Null,
            realtime: false,
            rounds: 1,
            cases: Vec::new(),
        };
        let case = Part::Intercepted(Pace::Fast).title();
        for (name, speed, cpu) in [
            (OURS, 90_000.0, 5.0),
            (RIVALS[0], 1e5, 6.0),
            (RIVALS[1], 1e5, 4.0),
        ] {
            let metrics = [(SPEED.to_owned(), speed), (CPU.to_owned(), cpu)];
            part.add(&case, name, Metrics::from(metrics));
        }
        part.conclude();
        let mut book = Book::default();
        book.parts.insert("intercepted-fast".to_owned(), part);
        let met: Vec<bool> = judge(&book).iter().filter_map(Verdict::is_met).collect();
        assert_eq!(met, [true, true, false]);
    }
}
