//! Figures and how they are shown.

use std::fmt::Write as _;

/// The median; 0 of nothing.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Median of the ratios of two columns, round by round: what was measured side by side is compared side by side.
pub(crate) fn ratio(of: &[f64], to: &[f64]) -> f64 {
    median(&of.iter().zip(to).filter(|(_, to)| **to > 0.0).map(|(of, to)| of / to).collect::<Vec<_>>())
}

/// A table in Markdown.
#[derive(Debug)]
pub(crate) struct Table {
    text: String,
}

impl Table {
    pub(crate) fn new(title: &str, columns: &[&str]) -> Table {
        println!("\n### {title}\n");
        let mut table = Table { text: String::new() };
        table.row(&columns.iter().map(|c| c.to_string()).collect::<Vec<_>>());
        table.row(
            &columns
                .iter()
                .enumerate()
                .map(|(i, _)| if i == 0 { "---" } else { "---:" }.to_owned())
                .collect::<Vec<_>>(),
        );
        table
    }

    /// Printed at once: a long run shows how far it is.
    pub(crate) fn row(&mut self, cells: &[String]) {
        self.text.clear();
        for cell in cells {
            let _ = write!(self.text, "| {cell} ");
        }
        println!("{}|", self.text);
    }
}

/// Nanoseconds for people.
pub(crate) fn ns(figure: f64) -> String {
    match figure {
        f if f <= 0.0 => "-".to_owned(),
        f if f < 1e4 => format!("{f:.0} ns"),
        f if f < 1e7 => format!("{:.1} us", f / 1e3),
        f => format!("{:.0} ms", f / 1e6),
    }
}

/// A ratio for people.
pub(crate) fn times(figure: f64) -> String {
    if figure > 0.0 { format!("{figure:.2}") } else { "-".to_owned() }
}
