//! What a process has cost so far.
use std::fs;

use anyhow::{Context as _, Result};

/// Kernels count CPU time in these, per second (`getconf CLK_TCK`; Linux has had no other value on x86 and ARM).
const TICKS: f64 = 100.0;

/// User and system time of a process. `proc(5)`: fields 14 and 15 of `stat`, counted after the name in parentheses; threads
/// that ended are in it.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("the CPU time of process {pid}: is it gone?"))?;
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: f64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    Ok(ticks / TICKS)
}
