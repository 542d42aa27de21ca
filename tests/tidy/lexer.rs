//! Rust source as tokens, each with its line: just enough of the language to count braces safely.
//!
//! - Comments vanish; a string, byte string, raw string or character is one token that begins with its
//!   quote (or its prefix and quote), so nothing inside it can be taken for code.
//! - `::`, `->` and `=>` are one token each, every other punctuation character is one of its own.
//! - A lifetime is the token `'` and a word.

/// A piece of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    /// From 1.
    pub(crate) line: usize,
}

impl Token<'_> {
    /// Whether it is a name or a keyword.
    pub(crate) fn is_word(self) -> bool {
        self.text
            .starts_with(|c: char| c == '_' || c.is_alphabetic())
            && !self.text.ends_with(['"', '\'', '#'])
    }
}

/// The tokens of `text`. Any text gives some: what is not Rust is cut up by the same rules.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (bytes, kept) = match comment_bytes(rest) {
            Some(bytes) => (bytes, false),
            None => match literal_bytes(rest) {
                Some(bytes) => (bytes, true),
                None => (plain_bytes(rest, first), !first.is_whitespace()),
            },
        };
        let (piece, tail) = rest.split_at(bytes);
        if kept {
            // `r#type` is the word `type`.
            let text = piece.strip_prefix("r#").unwrap_or(piece);
            let text = if text.ends_with('#') { piece } else { text };
            found.push(Token { text, line });
        }
        line += piece.matches('\n').count();
        rest = tail;
    }
    found
}

/// How long the comment is that `rest` begins with. Block comments nest.
fn comment_bytes(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    let mut inner = rest.strip_prefix("/*")?;
    let mut depth = 1;
    while depth > 0 {
        let Some(at) = inner.find(['/', '*']) else {
            return Some(rest.len());
        };
        inner = inner.split_at(at).1;
        let step = if inner.starts_with("/*") {
            depth += 1;
            2
        } else if inner.starts_with("*/") {
            depth -= 1;
            2
        } else {
            1
        };
        inner = inner.split_at(step).1;
    }
    Some(rest.len() - inner.len())
}

/// How long the string or character literal is that `rest` begins with.
fn literal_bytes(rest: &str) -> Option<usize> {
    let body = rest.trim_start_matches(['b', 'c']);
    let prefix = rest.len() - body.len();
    if prefix > 1 {
        return None;
    }
    let bytes = if let Some(raw) = body.strip_prefix('r') {
        1 + raw_string_bytes(raw)?
    } else if body.starts_with('"') {
        quoted_bytes(body, '"')
    } else if body.starts_with('\'') {
        character_bytes(body)?
    } else {
        return None;
    };
    Some(prefix + bytes)
}

/// `body` stands behind an `r`: hashes, a quote, anything, the quote and as many hashes.
fn raw_string_bytes(body: &str) -> Option<usize> {
    let text = body.trim_start_matches('#');
    let hashes = body.len() - text.len();
    let end = format!("\"{}", "#".repeat(hashes));
    let inner = text.strip_prefix('"')?;
    let bytes = inner.find(&end).map_or(inner.len(), |at| at + end.len());
    Some(hashes + 1 + bytes)
}

/// `body` begins with a quote; a backslash hides what follows it.
fn quoted_bytes(body: &str, quote: char) -> usize {
    let mut hidden = false;
    for (at, c) in body.char_indices().skip(1) {
        if hidden {
            hidden = false;
        } else if c == '\\' {
            hidden = true;
        } else if c == quote {
            return at + c.len_utf8();
        }
    }
    body.len()
}

/// `body` begins with `'`: a character, or else a lifetime, which is no literal.
fn character_bytes(body: &str) -> Option<usize> {
    let mut inner = body.chars().skip(1);
    let first = inner.next()?;
    let is_character = first == '\\' || (first != '\'' && inner.next() == Some('\''));
    is_character.then(|| quoted_bytes(body, '\''))
}

/// How long the word, punctuation or white space is that `rest` begins with.
fn plain_bytes(rest: &str, first: char) -> usize {
    let is_word = |c: char| c == '_' || c.is_alphanumeric();
    if ["::", "->", "=>"].iter().any(|pair| rest.starts_with(pair)) {
        return 2;
    }
    let word = rest.strip_prefix("r#").unwrap_or(rest);
    if word.len() < rest.len() && word.starts_with(is_word) {
        return 2 + word.find(|c| !is_word(c)).unwrap_or(word.len());
    }
    if is_word(first) {
        return rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    }
    first.len_utf8()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<&str> {
        tokens(source).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_vanish_and_nest() {
        assert_eq!(
            texts("a // } b\nc /* { /* } */ { */ d /// e"),
            ["a", "c", "d"]
        );
        assert_eq!(texts("a /* open"), ["a"]);
    }

    #[test]
    fn literals_are_one_token() {
        let source = r###"f("} \" {", r"\", r#"a"b"#, b"}", br##"}"# "##, c"{", '{', '\'', '"', b'}', '\u{7d}')"###;
        let found = texts(source);
        assert_eq!(found.iter().filter(|text| **text == ",").count(), 10);
        assert!(!found.contains(&"{") && !found.contains(&"}"), "{found:?}");
        assert_eq!(found.last(), Some(&")"));
    }

    #[test]
    fn lifetimes_are_not_characters() {
        assert_eq!(
            texts("fn f<'a, 'b>(x: &'a str) {}"),
            [
                "fn", "f", "<", "'", "a", ",", "'", "b", ">", "(", "x", ":", "&", "'", "a", "str",
                ")", "{", "}"
            ]
        );
    }

    #[test]
    fn pairs_stay_together_and_raw_words_are_words() {
        assert_eq!(
            texts("a::b -> c => r#type r#\"x\"# >= brr"),
            [
                "a", "::", "b", "->", "c", "=>", "type", "r#\"x\"#", ">", "=", "brr"
            ]
        );
    }

    #[test]
    fn lines_are_counted_through_everything() {
        let found = tokens("a\n/* \n */ b \"\n\" c\nd");
        let lines: Vec<_> = found.iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 3, 3, 4, 5]);
    }

    #[test]
    fn words_are_told_from_literals() {
        let words: Vec<_> = tokens("use b\"x\" r\"y\" 1u8 _a é")
            .into_iter()
            .filter(|token| token.is_word())
            .map(|token| token.text)
            .collect();
        assert_eq!(words, ["use", "_a", "é"]);
    }
}
