//! What goes to the terminal: colours where it shows them, and its size.

use std::io::{IsTerminal, Write};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};

/// What went well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What went wrong.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// What struggles, or needs a person.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// What is under way.
pub const BUSY: Style = AnsiColor::Cyan.on_default();
/// What matters less.
pub const FAINT: Style = Style::new().dimmed();
/// Headings.
pub const BOLD: Style = Style::new().bold();
/// Everything else.
pub const PLAIN: Style = Style::new();

/// The text in a style. [`Output`] takes the style out again where it can't be shown.
pub fn paint(style: Style, text: &str) -> String {
    if text.is_empty() || style == PLAIN {
        return text.to_owned();
    }
    format!("{style}{text}{style:#}")
}

/// Standard output.
pub struct Output {
    stream: AutoStream<Box<dyn Write>>,
    terminal: bool,
    /// How many lines [`Output::redraw`] drew, which the next call draws over.
    drawn: usize,
}

impl Output {
    /// Standard output; without colours where it is no terminal, or `NO_COLOR` is set.
    pub fn new() -> Self {
        let stdout = std::io::stdout();
        let choice = AutoStream::choice(&stdout);
        Self {
            terminal: stdout.is_terminal(),
            stream: AutoStream::new(Box::new(stdout), choice),
            drawn: 0,
        }
    }

    /// What a pipe gets.
    #[cfg(test)]
    pub fn piped(to: impl Write + 'static) -> Self {
        Self {
            stream: AutoStream::never(Box::new(to)),
            terminal: false,
            drawn: 0,
        }
    }

    /// True if a person looks at it.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// How many columns and lines there are to draw on, if it is a terminal.
    pub fn size(&self) -> Option<(usize, usize)> {
        if !self.terminal {
            return None;
        }
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
        (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col.into(), size.ws_row.into()))
    }

    /// How many columns there are, if it is a terminal.
    pub fn width(&self) -> Option<usize> {
        self.size().map(|(columns, _)| columns)
    }

    /// Prints a text as it is.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn print(&mut self, text: &str) -> std::io::Result<()> {
        self.stream.write_all(text.as_bytes())?;
        self.stream.flush()
    }

    /// Draws lines over those that the last call drew. What doesn't fit on the screen is left out above.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn redraw(&mut self, text: &str) -> std::io::Result<()> {
        let most = self
            .size()
            .map_or(usize::MAX, |(_, lines)| lines.saturating_sub(1).max(2));
        let mut lines: Vec<&str> = text.lines().collect();
        if lines.len() > most {
            let left_out = lines.len() - most;
            lines.drain(1..=left_out); // the first line says what it is
        }
        let up = match self.drawn {
            0 => String::new(),
            n => format!("\x1b[{n}A\r"),
        };
        self.drawn = lines.len();
        // The whole in one write, and to the stream below, which takes nothing out: no flicker.
        let body: String = lines.iter().map(|line| format!("{line}\x1b[K\n")).collect();
        let body = if matches!(self.stream.current_choice(), anstream::ColorChoice::Never) {
            lines
                .iter()
                .map(|line| format!("{}\x1b[K\n", anstream::adapter::strip_str(line)))
                .collect()
        } else {
            body
        };
        let mut raw = std::io::stdout().lock();
        raw.write_all(format!("{up}{body}\x1b[J").as_bytes())?;
        raw.flush()
    }
}

impl Default for Output {
    fn default() -> Self {
        Self::new()
    }
}

/// An object as YAML or JSON, as `-o` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// The name alone.
    Name,
    /// A table with more columns.
    Wide,
}

impl Format {
    /// What `-o` takes where only these make sense.
    pub fn among(these: &[Self]) -> impl TypedValueParser<Value = Self> + use<> {
        let names = these.iter().filter_map(ValueEnum::to_possible_value);
        PossibleValuesParser::new(names).try_map(|name| Self::from_str(&name, false))
    }
}

/// An object in JSON or YAML; without the fields that only the API server reads.
///
/// # Errors
/// When it has no such form.
pub fn machine(object: &impl serde::Serialize, format: Format) -> std::io::Result<String> {
    let mut value = serde_json::to_value(object)?;
    forget_managed_fields(&mut value);
    match format {
        Format::Yaml => serde_yaml::to_string(&value).map_err(std::io::Error::other),
        _ => Ok(serde_json::to_string_pretty(&value)? + "\n"),
    }
}

fn forget_managed_fields(value: &mut serde_json::Value) {
    if let Some(metadata) = value.get_mut("metadata").and_then(|metadata| metadata.as_object_mut()) {
        metadata.remove("managedFields");
    }
    for item in value
        .get_mut("items")
        .and_then(|items| items.as_array_mut())
        .into_iter()
        .flatten()
    {
        forget_managed_fields(item);
    }
}
