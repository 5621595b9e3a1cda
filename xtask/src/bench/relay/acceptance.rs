//! What the project asks of its relay, and whether these measurements show it.
use super::contender::{COTURN, LIMIT, OURS};
use super::load::{CPU, DELIVERED, DIRECTIONS, Load};
use super::part::{ADDED, BESIDE, CHURN, HALVES, TO_FEWER, beside, half_load};
use crate::bench::results::Book;
use crate::bench::verdict::Verdict;

/// Every bound.
pub(super) fn judge(book: &Book) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let ratio = |case: &str, metric: &str, other: &str| {
        let other = book.median(case, other, metric)?;
        Some(book.median(case, OURS, metric)? / other)
    };
    for direction in DIRECTIONS {
        for (flows, spent, speed) in [(1, 0.21, 5.5), (16, 0.37, 2.4)] {
            let case = Load::fast(flows, 1200, direction).name();
            let what = |text: &str| format!("1. {case}: {text}");
            let seen = ratio(&case, CPU, COTURN);
            verdicts.push(Verdict::at_most(what("CPU to coturn's"), seen, spent));
            if flows == 1 {
                let seen = ratio(&case, CPU, LIMIT);
                verdicts.push(Verdict::at_most(what("CPU to the limit's"), seen, 2.5));
            }
            let seen = ratio(&case, DELIVERED, COTURN);
            verdicts.push(Verdict::at_least(
                what("packets/s to coturn's"),
                seen,
                speed,
            ));
        }
        for flows in [1, 16] {
            let case = Load::fast(flows, 1200, direction).plain().name();
            let seen = ratio(&case, CPU, COTURN);
            verdicts.push(Verdict::at_most(
                format!("1. {case}: CPU to coturn's"),
                seen,
                0.4,
            ));
        }
    }
    for direction in DIRECTIONS {
        let many = Load::fast(256, 1200, direction);
        let crowded = Load {
            idle: BESIDE,
            ..many
        };
        let to_fewer = |load| book.median(&beside(load), OURS, TO_FEWER);
        let what = format!("2. CPU of 256 flows to that of 16, {direction}");
        verdicts.push(Verdict::at_most(what, to_fewer(many), 1.3));
        let what = format!("2. CPU of 256 flows with {BESIDE} idle to without, {direction}");
        verdicts.push(Verdict::at_most(what, to_fewer(crowded), 1.05));
    }
    let each = book.median(CHURN, OURS, "cpu_ns_each").map(|ns| ns / 1e3);
    let speed = book.median(CHURN, OURS, "allocations_per_second");
    verdicts.push(Verdict::at_least(
        "3. allocations/s".to_owned(),
        speed,
        20_000.0,
    ));
    verdicts.push(Verdict::at_most(
        "3. CPU of an allocation, us".to_owned(),
        each,
        40.0,
    ));
    for direction in DIRECTIONS {
        for whose in HALVES {
            let case = half_load(direction, whose);
            let added = |contender| book.median(&case, contender, ADDED[1]);
            let what = format!("4. p99 added {case}, us");
            verdicts.push(Verdict::at_most(what, added(OURS), 100.0));
            // No more than nothing cannot be compared by a ratio.
            let what = format!("4. p99 added {case}, less coturn's, us");
            let seen = added(OURS)
                .zip(added(COTURN))
                .map(|(ours, theirs)| ours - theirs);
            verdicts.push(Verdict::at_most(what, seen, 0.0));
        }
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::bench::results::{Metrics, Part};

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let mut part = Part {
            circumstances: Value::Null,
            realtime: false,
            rounds: 1,
            cases: Vec::new(),
        };
        let case = Load::fast(1, 1200, DIRECTIONS[0]).name();
        for (contender, cpu, speed) in [(OURS, 0.6, 5.0), (COTURN, 3.0, 1.0), (LIMIT, 0.2, 9.0)] {
            let metrics = [(CPU.to_owned(), cpu), (DELIVERED.to_owned(), speed)];
            part.add(&case, contender, Metrics::from(metrics));
        }
        part.conclude();
        let mut book = Book::default();
        book.parts.insert("flows-1-1200".to_owned(), part);
        let verdicts = judge(&book);
        let met: Vec<bool> = verdicts.iter().filter_map(Verdict::is_met).collect();
        // 0.2 of coturn's CPU, 3 times the limit's, 5 times coturn's speed.
        assert_eq!(met, [true, false, false]);
    }
}
