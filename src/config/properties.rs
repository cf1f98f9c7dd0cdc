//! Java's `.properties` syntax: `key=value`, `key: value`, `key value`, comments with `#` or `!`, lines continued by a
//! backslash, and escapes.

/// One setting as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Its key, escapes undone.
    pub key: String,
    /// Its value, escapes undone, blanks at the end kept.
    pub value: String,
    /// The line on which it begins, from 1.
    pub line: usize,
}

/// Reads a file. As with Java a key may occur again: the later one counts, and both are returned.
/// # Errors  The line and text of an escape `\u` that four hexadecimal digits do not follow: the only error there is.
pub fn parse(text: &str) -> Result<Vec<Property>, (usize, String)> {
    let mut properties = Vec::new();
    // A byte order mark is what some editors leave; Java would make it a part of the first key.
    let mut lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let line = trim_start(line);
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = line.to_owned();
        while continues(&logical) {
            logical.pop();
            match lines.next() {
                Some((_, next)) => logical.push_str(trim_start(next)),
                None => break,
            }
        }
        let (key, value) = split(&logical);
        let unescape = |text| unescape(text).ok_or_else(|| (index + 1, logical.clone()));
        properties.push(Property { key: unescape(key)?, value: unescape(value)?, line: index + 1 });
    }
    Ok(properties)
}

fn trim_start(line: &str) -> &str {
    line.trim_start_matches([' ', '\t', '\u{c}'])
}

/// An odd number of backslashes at the end escapes the line's end.
fn continues(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// Key and value: the key ends at the first `=`, `:` or blank that is not escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line
        .char_indices()
        .find(|(_, letter)| {
            let ends = !escaped && matches!(letter, '=' | ':' | ' ' | '\t' | '\u{c}');
            escaped = !escaped && *letter == '\\';
            ends
        })
        .map_or(line.len(), |(index, _)| index);
    let rest = trim_start(&line[end..]);
    let value = rest.strip_prefix(['=', ':']).map_or(rest, trim_start);
    (&line[..end], value)
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut units = Vec::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            flush(&mut units, &mut out);
            out.push(letter);
            continue;
        }
        let Some(escaped) = letters.next() else { break };
        if escaped == 'u' {
            // UTF-16 units: letters beyond U+FFFF come as two escapes.
            let digits: String = letters.by_ref().take(4).collect();
            if digits.len() != 4 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            units.push(u16::from_str_radix(&digits, 16).ok()?);
            continue;
        }
        flush(&mut units, &mut out);
        out.push(match escaped {
            't' => '\t',
            'n' => '\n',
            'r' => '\r',
            'f' => '\u{c}',
            other => other,
        });
    }
    flush(&mut units, &mut out);
    Some(out)
}

fn flush(units: &mut Vec<u16>, out: &mut String) {
    out.extend(char::decode_utf16(units.drain(..)).map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str, usize)]) {
        let found = parse(text).expect("no bad escapes");
        let found: Vec<_> = found.iter().map(|p| (p.key.as_str(), p.value.as_str(), p.line)).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn javas_syntax() {
        check(
            "a=1\nb = 2 \n\tc:3\nd 4\ne\t=\t5",
            &[("a", "1", 1), ("b", "2 ", 2), ("c", "3", 3), ("d", "4", 4), ("e", "5", 5)],
        );
        check("# a=1\n  ! b=2\n\n   \nc=3", &[("c", "3", 5)]);
        check("a=b=c\nd==e\nf= = g\nh:=i", &[("a", "b=c", 1), ("d", "=e", 2), ("f", "= g", 3), ("h", "=i", 4)]);
        check("a", &[("a", "", 1)]);
        check("a=", &[("a", "", 1)]);
        check("=v", &[("", "v", 1)]);
        check("a=1\r\nb=2\r\n", &[("a", "1", 1), ("b", "2", 2)]);
        check("a=1,\\\n    2,\\\n    3\nb=4", &[("a", "1,2,3", 1), ("b", "4", 4)]);
        check("a=x\\\\\nb=y", &[("a", "x\\", 1), ("b", "y", 2)]);
        check("a\\=b\\:c\\ d=e", &[("a=b:c d", "e", 1)]);
        check("a=\\t\\n\\u0041\\ud83d\\ude00\\q", &[("a", "\t\nA😀q", 1)]);
        check("a=1\na=2", &[("a", "1", 1), ("a", "2", 2)]);
        check("a=b\\", &[("a", "b", 1)]);
        check("a=\\\n# not a comment\nb=1", &[("a", "# not a comment", 1), ("b", "1", 3)]);
        check("\u{feff}a=1", &[("a", "1", 1)]);
        check("a=\\ud83d!", &[("a", "\u{fffd}!", 1)]);
    }

    #[test]
    fn a_bad_escape_is_named_with_its_line() {
        assert_eq!(parse("a=1\nb=\\u12"), Err((2, "b=\\u12".to_owned())));
        assert_eq!(parse("a=\\u+123"), Err((1, "a=\\u+123".to_owned())));
    }
}
