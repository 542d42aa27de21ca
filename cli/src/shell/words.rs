//! A line of the shell as words: plain ones, and quoted ones that may hold anything.
//!
//! `"…"` and `'…'` keep spaces; within `"…"`, `\n`, `\t`, `\\`, `\"` and `\xHH` stand for bytes that are
//! hard to type.

/// One word of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) bytes: Vec<u8>,
    /// A quoted word is never a word of the shell's own language.
    pub(crate) is_quoted: bool,
}

impl Word {
    /// Whether it is this word of the shell's language.
    pub(crate) fn is(&self, keyword: &str) -> bool {
        !self.is_quoted && self.bytes == keyword.as_bytes()
    }

    /// As text, for names.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// The words of a line.
///
/// # Errors
/// What is wrong with a quote or an escape.
pub(crate) fn words(line: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while let Some(first) = rest.chars().next() {
        let (word, tail) = match first {
            '"' => double_quoted(rest.split_at(1).1)?,
            '\'' => single_quoted(rest.split_at(1).1)?,
            _ => plain(rest),
        };
        if !tail.is_empty() && !tail.starts_with(char::is_whitespace) {
            return Err("a quoted word ends at its quote: a space must follow".to_owned());
        }
        words.push(word);
        rest = tail.trim_start();
    }
    Ok(words)
}

fn plain(rest: &str) -> (Word, &str) {
    let (word, tail) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
    (
        Word {
            bytes: word.as_bytes().to_vec(),
            is_quoted: false,
        },
        tail,
    )
}

fn single_quoted(rest: &str) -> Result<(Word, &str), String> {
    let (word, tail) = rest.split_once('\'').ok_or("a ' is not closed")?;
    Ok((
        Word {
            bytes: word.as_bytes().to_vec(),
            is_quoted: true,
        },
        tail,
    ))
}

fn double_quoted(rest: &str) -> Result<(Word, &str), String> {
    let mut bytes = Vec::new();
    let mut chars = rest.chars();
    loop {
        match chars.next().ok_or("a \" is not closed")? {
            '"' => {
                return Ok((
                    Word {
                        bytes,
                        is_quoted: true,
                    },
                    chars.as_str(),
                ));
            }
            '\\' => bytes.push(escaped(&mut chars)?),
            other => bytes.extend(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn escaped(chars: &mut std::str::Chars<'_>) -> Result<u8, String> {
    match chars.next() {
        Some('n') => Ok(b'\n'),
        Some('t') => Ok(b'\t'),
        Some(same @ ('\\' | '"')) => Ok(same as u8),
        Some('x') => {
            let digits: String = chars.by_ref().take(2).collect();
            let is_hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
            byte.ok_or_else(|| format!("\\x{digits} is no byte: two hexadecimal digits follow \\x"))
        }
        _ => Err("a backslash stands before n, t, \\, \" or xHH".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<String> {
        let words = words(line).expect("well formed");
        words
            .iter()
            .map(|word| word.bytes.escape_ascii().to_string())
            .collect()
    }

    #[test]
    fn quoted_words_keep_spaces_and_bytes() {
        assert_eq!(
            split("  s1 put t 'a key'  \"a \\\"value\\\"\\x00\" "),
            ["s1", "put", "t", "a key", "a \\\"value\\\"\\x00"]
        );
        assert_eq!(split("'' \"\""), ["", ""]);
        assert_eq!(split("\t "), Vec::<String>::new());
        assert_eq!(words("käse").expect("well formed")[0].text(), "käse");
    }

    #[test]
    fn broken_quotes_and_escapes_are_refused() {
        for line in [
            "'a",
            "\"a",
            "\"a\\",
            "\"\\q\"",
            "\"\\x1\"",
            "\"\\xzz\"",
            "'a'b",
            "\"\\x+1\"",
        ] {
            assert!(words(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_quoted_word_is_no_keyword() {
        let line = words("for 'for'").expect("well formed");
        assert_eq!(
            line.iter().map(|word| word.is("for")).collect::<Vec<_>>(),
            [true, false]
        );
    }
}
