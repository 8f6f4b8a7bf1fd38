//! Options, and figures as they are printed: always with the spread, and as ratios to the floor of the same run.

use std::fmt;

/// What `cargo bench --bench NAME -- [FACTOR]` asks for.
pub struct Options {
    /// How many times the usual work.
    pub factor: usize,
}

/// `None` if the benchmark was not started by `cargo bench`, such as by `cargo test --all-targets`.
pub fn options() -> Option<Options> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("run this with cargo bench");
        return None;
    }
    Some(Options { factor: arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(1).max(1) })
}

/// The monotonic clock, in nanoseconds: comparable between processes.
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Some measurements of one thing.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    values: Vec<f64>,
}

impl Sample {
    pub fn add(&mut self, value: f64) {
        self.values.push(value);
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub fn quantile(&self, quantile: f64) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (sorted.len() as f64 * quantile) as usize;
        sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }

    /// Every measurement times this.
    pub fn scaled(&self, factor: f64) -> Self {
        self.values.iter().map(|value| value * factor).collect()
    }

    /// What each measurement has more than the other's of the same round.
    pub fn minus(&self, other: &Self) -> Self {
        self.values.iter().zip(&other.values).map(|(own, other)| own - other).collect()
    }

    /// What each measurement is in terms of the other's of the same round.
    pub fn over(&self, other: &Self) -> Self {
        self.values.iter().zip(&other.values).map(|(own, other)| own / other).collect()
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self { values: values.into_iter().collect() }
    }
}

impl fmt::Display for Sample {
    /// The median, and the least and the most.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [least, median, most] = [0.0, 0.5, 1.0].map(|quantile| self.quantile(quantile));
        write!(f, "{median:.2} ({least:.2} to {most:.2})")
    }
}

/// One line: what it is, its figure, and its ratio to the floor, with the goal if there is one.
pub fn line(what: &str, figure: impl fmt::Display, ratio: Option<(&Sample, Option<f64>)>) {
    let ratio = match ratio {
        Some((ratio, Some(goal))) => format!("{:>22} x, goal {goal}", ratio.to_string()),
        Some((ratio, None)) => format!("{:>22} x", ratio.to_string()),
        None => String::new(),
    };
    println!("  {what:<44} {:>30} {ratio}", figure.to_string());
}
