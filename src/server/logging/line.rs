//! One log line of one event, in which nothing that a client chose can do more than be read.
//!
//! Names, ids and texts of clients come into fields and messages. So whatever is not plain text is written as an escape:
//! line ends, which would forge a line; terminals' control sequences; marks that turn the direction of text around. And a
//! field is cut, or one line could hold the 32 KiB of a group's id.

use std::fmt::{self, Debug, Write};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

use super::LogFormat;

/// More of a message or of a field is left out. In characters as they are written.
const FIELD_CHARS_MAX: usize = 2048;

/// Writes events as lines.
pub(super) struct Line {
    pub format: LogFormat,
    /// Whether a terminal reads.
    pub colours: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = *event.metadata().level();
        match self.format {
            LogFormat::Text => {
                SystemTime.format_time(&mut out)?;
                let (begin, end) = if self.colours { (colour(level), "\x1b[0m") } else { ("", "") };
                write!(out, " {begin}{level:>5}{end}")?;
                let mut fields = Fields { out: &mut out, format: self.format, first: true, result: Ok(()) };
                event.record(&mut fields);
                fields.result?;
                writeln!(out)
            }
            LogFormat::Json => {
                out.write_str("{\"timestamp\":\"")?;
                SystemTime.format_time(&mut out)?;
                write!(out, "\",\"level\":\"{level}\",\"fields\":{{")?;
                let mut fields = Fields { out: &mut out, format: self.format, first: true, result: Ok(()) };
                event.record(&mut fields);
                fields.result?;
                out.write_str("}}\n")
            }
        }
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// Writes the fields of an event behind each other.
struct Fields<'a, 'w> {
    out: &'a mut Writer<'w>,
    format: LogFormat,
    /// None is written yet.
    first: bool,
    result: fmt::Result,
}

impl Fields<'_, '_> {
    fn put(&mut self, field: &Field, value: &dyn Debug, is_number: bool) {
        // What the `log` facade's events say of their place.
        if field.name().starts_with("log.") || self.result.is_err() {
            return;
        }
        self.result = self.write(field.name(), value, is_number);
    }

    fn write(&mut self, name: &str, value: &dyn Debug, is_number: bool) -> fmt::Result {
        match self.format {
            LogFormat::Text => {
                self.out.write_char(' ')?;
                if name != "message" {
                    write!(self.out, "{name}=")?;
                }
                plain(self.out, value)
            }
            LogFormat::Json => {
                if !std::mem::take(&mut self.first) {
                    self.out.write_char(',')?;
                }
                quoted(self.out, name)?;
                self.out.write_char(':')?;
                if is_number { write!(self.out, "{value:?}") } else { quoted(self.out, format_args!("{value:?}")) }
            }
        }
    }
}

impl Visit for Fields<'_, '_> {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, &value, true);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, &value, true);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, &value, true);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match self.format {
            LogFormat::Text => self.put(field, &value, false),
            // The quotes are JSON's.
            LogFormat::Json => self.put(field, &format_args!("{value}"), false),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, value, false);
    }
}

fn plain(out: &mut Writer<'_>, value: &dyn Debug) -> fmt::Result {
    let mut cut = Cut { out, left: FIELD_CHARS_MAX, over: 0, json: false };
    write!(cut, "{value:?}")?;
    cut.end()
}

fn quoted(out: &mut Writer<'_>, value: impl fmt::Display) -> fmt::Result {
    out.write_char('"')?;
    let mut cut = Cut { out: &mut *out, left: FIELD_CHARS_MAX, over: 0, json: true };
    write!(cut, "{value}")?;
    cut.end()?;
    out.write_char('"')
}

/// Passes text on: escaped, and no more than so much of it.
struct Cut<'a, W> {
    out: &'a mut W,
    left: usize,
    /// Bytes that were left out.
    over: usize,
    json: bool,
}

impl<W: Write> Cut<'_, W> {
    fn end(self) -> fmt::Result {
        if self.over > 0 { write!(self.out, "… and {} bytes more", self.over) } else { Ok(()) }
    }
}

impl<W: Write> Write for Cut<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.left == 0 {
                self.over += character.len_utf8();
                continue;
            }
            let escape = !is_plain(character);
            self.left = self.left.saturating_sub(if escape { 6 } else { 1 });
            match (character, self.json) {
                ('"' | '\\', true) => write!(self.out, "\\{character}")?,
                _ if escape && self.json => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        write!(self.out, "\\u{unit:04x}")?;
                    }
                }
                _ if escape => write!(self.out, "{}", character.escape_default())?,
                _ => self.out.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// Whether a character may reach a terminal or a file of lines as it is.
fn is_plain(character: char) -> bool {
    // Ends of lines and paragraphs, and what changes the direction in which text is shown.
    let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !character.is_control() && !turns
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panics here").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// What is written, without its time.
    fn line(format: LogFormat, log: impl FnOnce()) -> String {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_writer(kept.clone())
            .event_format(Line { format, colours: false })
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = kept.0.lock().expect("no test panics here").clone();
        let text = String::from_utf8(bytes).expect("text");
        let time = text.find('Z').expect("a time");
        text[time + 1..].to_owned()
    }

    /// A name as somebody hostile chooses it: a forged line, a terminal's sequences, text turned around.
    const HOSTILE: &str = "a\nERROR forged\r\x1b[2J\x1b]0;t\x07\u{9b}31m\u{202e}\u{2028}\"\\é";

    #[test]
    fn whatever_a_client_chose_stays_in_its_line() {
        let said = [LogFormat::Text, LogFormat::Json].map(|format| {
            line(format, || {
                let error = io::Error::other(HOSTILE);
                tracing::warn!(name = HOSTILE, shown = %HOSTILE, ?error, count = 3, "topic {HOSTILE} is gone");
            })
        });
        for text in &said {
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(text.ends_with('\n'));
            assert!(text.trim_end_matches('\n').chars().all(is_plain), "{text:?}");
            assert!(text.contains('é'), "{text:?}");
        }
        assert!(said[0].starts_with("  WARN topic a\\nERROR forged\\r\\u{1b}[2J"), "{}", said[0]);
        assert!(said[0].contains(" count=3"), "{}", said[0]);
        assert!(said[1].contains("\\u000aERROR forged\\u000d\\u001b[2J"), "{}", said[1]);
        assert!(said[1].contains(",\"count\":3"), "{}", said[1]);
        assert!(said[1].contains("\\u202e\\u2028\\\"\\\\é"), "{}", said[1]);
    }

    #[test]
    fn a_field_is_cut() {
        for format in [LogFormat::Text, LogFormat::Json] {
            for name in ["x".repeat(32_767), "\x1b".repeat(32_767), "é".repeat(20_000)] {
                let text = line(format, || tracing::info!(%name, "said"));
                assert!(text.len() < 3 * FIELD_CHARS_MAX, "{} bytes", text.len());
                assert!(text.contains("bytes more"), "{}", &text[text.len() - 60..]);
            }
        }
    }

    #[test]
    fn lines_look_as_people_and_tools_know_them() {
        let said = line(LogFormat::Text, || tracing::info!(listening = "a:1", ms = 7_u64, ok = true, "ready: {}", "b"));
        assert_eq!(said, "  INFO ready: b listening=\"a:1\" ms=7 ok=true\n");
        let said = line(LogFormat::Json, || tracing::info!(listening = "a:1", ms = 7_u64, "ready"));
        let expected = r#"","level":"INFO","fields":{"message":"ready","listening":"a:1","ms":7}}"#;
        assert_eq!(said, format!("{expected}\n"));
    }
}
