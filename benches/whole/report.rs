//! Figures with their targets, and the statistics behind them.

/// Collects lines and prints them as one table.
pub(crate) struct Report(Vec<[String; 3]>);

impl Report {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// One figure; `target` is what the project promises, empty where it promises nothing.
    pub(crate) fn add(&mut self, what: &str, figure: String, target: &str) {
        eprintln!(
            "  {what}: {figure}{}",
            if target.is_empty() { String::new() } else { format!("  (target {target})") }
        );
        self.0.push([what.to_owned(), figure, target.to_owned()]);
    }

    pub(crate) fn print(&self) {
        let widest = self.0.iter().map(|row| row[0].chars().count()).max().unwrap_or(0);
        println!();
        for [what, figure, target] in &self.0 {
            let pad = " ".repeat(widest - what.chars().count());
            println!("{what}{pad}  {figure:<28} {target}");
        }
    }
}

/// The middle value.
pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// The value below which this share of the values lies.
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get(((last as f64) * share).round() as usize).copied().unwrap_or(f64::NAN)
}
