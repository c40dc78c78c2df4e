//! What a command answers on standard output: lines and tables for people, JSON for programs.

use std::io::{self, Write};

use clap::builder::styling::{AnsiColor, Style};
use comfy_table::{ContentArrangement, presets};
use serde::Serialize;

/// How to answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
}

/// What to call attention to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it is.
    Plain,
    /// All is well.
    Good,
    /// Something may need a look.
    Doubtful,
    /// Something is wrong.
    Bad,
    /// Not so important.
    Faint,
    /// A heading.
    Heading,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Doubtful => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Faint => Style::new().dimmed(),
            Self::Heading => Style::new().bold(),
        }
    }

    /// Returns the text in this tone. Where there is no terminal, the tone is taken out on the way.
    pub(super) fn paint(self, text: &str) -> String {
        let style = self.style();
        format!("{style}{text}{style:#}")
    }
}

impl Output {
    /// Makes a way to answer.
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Answers with a value, or for a person with what `show` makes of it.
    pub(super) fn answer<T: Serialize>(
        self,
        value: &T,
        show: impl FnOnce(&T) -> String,
    ) -> io::Result<()> {
        if self.json {
            self.line(&to_json(value)?)
        } else {
            self.line(show(value).trim_end_matches('\n'))
        }
    }

    /// Answers with one of many: JSON without line ends, or a line for a person.
    pub(super) fn each<T: Serialize>(
        self,
        value: &T,
        show: impl FnOnce(&T) -> String,
    ) -> io::Result<()> {
        if self.json {
            self.line(&serde_json::to_string(value)?)
        } else {
            self.line(&show(value))
        }
    }

    /// Says something that only people need.
    pub(super) fn say(self, line: &str) -> io::Result<()> {
        if self.json { Ok(()) } else { self.line(line) }
    }

    /// Writes bytes as they are.
    pub(super) fn bytes(self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }

    /// Returns whether programs read the answer.
    pub(super) fn is_json(self) -> bool {
        self.json
    }

    fn line(self, line: &str) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()
    }
}

fn to_json<T: Serialize>(value: &T) -> io::Result<String> {
    Ok(serde_json::to_string_pretty(value)?)
}

/// Writes a line for a person to standard error; who cannot read it needs no error about that.
pub(super) fn tell(line: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// A table without borders. Colour goes to whole rows, so that columns stay in line.
pub(super) struct Listing {
    table: comfy_table::Table,
    tones: Vec<Tone>,
}

impl Listing {
    /// Makes a table with these columns.
    pub(super) fn new(columns: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(columns.iter().copied());
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self {
            table,
            tones: Vec::new(),
        }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, tone: Tone, cells: Vec<String>) {
        // A line end would break the table, and any other control character the terminal.
        let plain = |cell: String| -> String {
            cell.chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect()
        };
        self.table.add_row(cells.into_iter().map(plain));
        self.tones.push(tone);
    }

    /// Returns the lines.
    pub(super) fn render(&self) -> String {
        let tones = std::iter::once(Tone::Heading).chain(self.tones.iter().copied());
        let lines = self.table.lines().zip(tones);
        lines
            .map(|(line, tone)| tone.paint(line.trim_end()) + "\n")
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(styled: &str) -> String {
        anstream::adapter::strip_str(styled).to_string()
    }

    #[test]
    fn columns_stand_in_line_and_have_no_borders() {
        let mut listing = Listing::new(&["NAME", "STATE"]);
        listing.row(Tone::Good, vec!["n1".to_owned(), "alive".to_owned()]);
        listing.row(Tone::Bad, vec!["longer".to_owned(), "down".to_owned()]);

        let shown = plain(&listing.render());

        assert_eq!(shown, "NAME    STATE\nn1      alive\nlonger  down\n");
    }

    #[test]
    fn a_cell_cannot_break_the_table_or_the_terminal() {
        let mut listing = Listing::new(&["VALUE"]);
        listing.row(Tone::Plain, vec!["a\nb\x1b[31m".to_owned()]);

        assert_eq!(plain(&listing.render()), "VALUE\na b [31m\n");
    }
}
