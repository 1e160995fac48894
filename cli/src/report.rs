//! What the command says: results on stdout, the log and progress on stderr.
//!
//! Nothing else prints. A reader that closes stdout early ends the command quietly with code 0.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::args::{Global, LogForm, When};
use crate::failure::{Failure, Result};

/// See the module documentation.
pub struct Report {
    level: u8,
    color: bool,
    json: bool,
    bar: Option<ProgressBar>,
}

impl Report {
    /// Output as the global options ask.
    pub fn new(global: &Global) -> Report {
        let terminal = std::io::stderr().is_terminal();
        Report {
            level: if global.quiet { 0 } else { 1 + global.verbose },
            color: match global.color {
                When::Always => true,
                When::Never => false,
                When::Auto => terminal && std::env::var_os("NO_COLOR").is_none(),
            },
            json: global.log == LogForm::Json,
            bar: None,
        }
    }

    /// Writes a result to stdout.
    pub fn out(&self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(e) => Err(Failure::io("stdout".as_ref(), e)),
        }
    }

    /// Writes a line to stdout.
    pub fn line(&self, text: &str) -> Result<()> {
        self.out(&format!("{text}\n"))
    }

    /// Writes one JSON value to stdout.
    pub fn value(&self, v: &Value) -> Result<()> {
        self.line(&format!("{v:#}"))
    }

    /// Something the user must know.
    pub fn warn(&self, text: &str) {
        self.log(1, "warning", "33", text);
    }

    /// What was done.
    pub fn info(&self, text: &str) {
        self.log(1, "info", "", text);
    }

    /// Details, with `-v`.
    pub fn detail(&self, text: &str) {
        self.log(2, "detail", "2", text);
    }

    /// Text that was asked for beside the result (modules, tables): stderr, whatever the level.
    pub fn ir(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| stderr(text.trim_end())),
            None => stderr(text.trim_end()),
        }
    }

    /// The reason of a failure.
    pub fn fail(&self, failure: &Failure) {
        self.finish();
        if self.json {
            let mut v = failure.json();
            v["level"] = json!("error");
            stderr(&v.to_string());
        } else {
            stderr(&format!("{} {}", self.paint("error:", "1;31"), failure.message));
        }
    }

    fn log(&self, level: u8, name: &str, color: &str, text: &str) {
        if self.level < level {
            return;
        }
        let line = if self.json {
            json!({"level": name, "message": text}).to_string()
        } else if name == "warning" {
            format!("{} {text}", self.paint("warning:", color))
        } else {
            self.paint(text, color)
        };
        match &self.bar {
            Some(bar) => bar.suspend(|| stderr(&line)),
            None => stderr(&line),
        }
    }

    fn paint(&self, text: &str, color: &str) -> String {
        match self.color && !color.is_empty() {
            true => format!("\x1b[{color}m{text}\x1b[0m"),
            false => text.into(),
        }
    }

    /// Starts a progress bar of that many steps; shown on a terminal only, and not with `--quiet`.
    pub fn start(&mut self, steps: u64) {
        self.finish();
        if self.level == 0 || self.json {
            return;
        }
        // Not drawn where stderr is no terminal.
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner} [{bar:24}] {msg} {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("█▉ "));
        bar.enable_steady_tick(Duration::from_millis(100));
        self.bar = Some(bar);
    }

    /// One step of the progress bar is done, the next is named.
    pub fn step(&self, next: &str) {
        if let Some(b) = &self.bar {
            b.inc(1);
            b.set_message(next.to_string());
        }
    }

    /// Removes the progress bar.
    pub fn finish(&self) {
        if let Some(b) = &self.bar {
            b.finish_and_clear();
        }
    }
}

fn stderr(line: &str) {
    // There is nobody to tell if stderr is closed.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Rows as aligned columns, two spaces between them; columns in `right` are right-aligned.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (c, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[c] - cell.chars().count());
            let gap = if c > 0 { "  " } else { "" };
            line += &match right.contains(&c) {
                true => format!("{gap}{pad}{cell}"),
                false => format!("{gap}{cell}{pad}"),
            };
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// Strings of anything printable, for [`table`].
#[macro_export]
macro_rules! row {
    ($($e:expr),* $(,)?) => { vec![$($e.to_string()),*] };
}

/// Bytes for people: `22.9 MB`.
pub fn bytes(n: u64) -> String {
    match n {
        0..1000 => format!("{n} B"),
        1000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}

/// A large number for people: `671.03 B`.
pub fn count(n: u64) -> String {
    match n {
        0..1_000_000 => n.to_string(),
        1_000_000..1_000_000_000 => format!("{:.2} M", n as f64 / 1e6),
        _ => format!("{:.2} B", n as f64 / 1e9),
    }
}

/// A duration for people: `1.24 s`, `310 µs`.
pub fn seconds(s: f64) -> String {
    match s {
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_by_characters() {
        let t = table(&[row!["µs", 1], row!["a", 100]], &[1]);
        assert_eq!(t, "µs    1\na   100\n");
    }

    #[test]
    fn units() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(22_870_000), "22.9 MB");
        assert_eq!(seconds(0.00031), "310.0 µs");
    }
}
