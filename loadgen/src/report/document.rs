//! A report as a document, before anyone decides whether it becomes Markdown or HTML.

/// A part of a report.
#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    /// A heading of level 2 or 3 with the anchor that links use.
    Heading {
        /// 2 or 3.
        level: u8,
        /// Anchor.
        id: String,
        /// Text.
        text: String,
    },
    /// A paragraph.
    Text(String),
    /// A paragraph that stands out: the report is provisional, a run was invalid.
    Note(Tone, String),
    /// Points.
    List(Vec<String>),
    /// A table.
    Table(Table),
    /// A figure.
    Figure(Figure),
    /// Text as it is, e.g. a broker's configuration; folded in HTML.
    Verbatim {
        /// What it is.
        summary: String,
        /// The text.
        text: String,
    },
}

/// A table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Column heads.
    pub head: Vec<String>,
    /// Rows of as many entries.
    pub rows: Vec<Vec<Entry>>,
}

/// An entry of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The text.
    pub text: String,
    /// How it strikes the eye. Never the only carrier of meaning.
    pub tone: Tone,
    /// Numbers are set flush right.
    pub number: bool,
}

/// How a text strikes the eye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Not at all.
    Plain,
    /// The answer.
    Strong,
    /// Fine.
    Good,
    /// With care.
    Warn,
    /// Broken.
    Bad,
    /// Less important.
    Soft,
}

/// A figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// File name without extension, and anchor.
    pub id: String,
    /// What to see in it.
    pub title: String,
    /// The drawing.
    pub svg: String,
    /// The same in words or as a pointer to the table with the same figures, for who can't see it.
    pub reading: String,
}

impl Block {
    /// A heading.
    pub fn heading(level: u8, id: &str, text: &str) -> Self {
        Self::Heading { level, id: id.to_owned(), text: text.to_owned() }
    }
}

impl Entry {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain, number: false }
    }

    /// A number.
    pub fn number(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain, number: true }
    }

    /// The same in another tone.
    #[must_use]
    pub fn toned(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }
}

impl From<&str> for Entry {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Entry {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}
