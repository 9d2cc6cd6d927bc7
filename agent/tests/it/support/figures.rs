//! How benchmarks say their figures, and what they read of a process.

use std::time::Duration;

/// A line of a benchmark.
#[allow(
    clippy::print_stdout,
    reason = "a benchmark's figures are what it is for"
)]
pub fn row(what: &str, ours: &str, rival: &str, result: &str, budget: &str) {
    println!("{what:58}  {ours:>8}  {rival:>8}  {result:>10}    {budget}");
}

pub fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

/// Megabytes of memory that a process has in use (RSS).
pub fn rss(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("Linux");
    let kilobytes: f64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    kilobytes / 1024.0
}

/// Seconds of a core that a process has used.
pub fn cpu(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = text.rsplit_once(')').expect("a name");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // After the name and the state: utime and stime are the 12th and 13th.
    let ticks: f64 = [11, 12]
        .iter()
        .map(|field| fields[*field].parse::<f64>().expect("a number"))
        .sum();
    ticks / 100.0
}
