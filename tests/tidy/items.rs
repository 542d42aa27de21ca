//! What a source file is made of: its test code and the rest, and the functions of the rest.

use super::lexer::{Token, tokens};

/// A source file without what only tests see.
#[derive(Debug, Default)]
pub(crate) struct Live<'a> {
    pub(crate) tokens: Vec<Token<'a>>,
    /// How many lines are test code.
    pub(crate) test_lines: usize,
    /// The modules that it declares for tests alone (`#[cfg(test)] mod name;`).
    pub(crate) test_modules: Vec<&'a str>,
}

impl<'a> Live<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        let all = tokens(text);
        let mut live = Self::default();
        let mut rest = all.as_slice();
        if is_inner_test_attribute(rest) {
            live.test_lines = text.lines().count();
            return live;
        }
        while let [first, tail @ ..] = rest {
            let Some(count) = test_item_tokens(rest) else {
                live.tokens.push(*first);
                rest = tail;
                continue;
            };
            let (item, tail) = rest.split_at(count);
            if let [.., before, name, last] = item
                && before.text == "mod"
                && last.text == ";"
            {
                live.test_modules.push(name.text);
            }
            let last_line = item.last().map_or(first.line, |token| token.line);
            live.test_lines += last_line + 1 - first.line;
            rest = tail;
        }
        live
    }
}

/// How many tokens the attribute has that `rest` begins with; zero if it begins with none.
fn attribute_tokens(rest: &[Token<'_>]) -> usize {
    let head = match rest {
        [hash, bracket, ..] if hash.text == "#" && bracket.text == "[" => 1,
        [hash, bang, bracket, ..]
            if hash.text == "#" && bang.text == "!" && bracket.text == "[" =>
        {
            2
        }
        _ => return 0,
    };
    head + group_tokens(rest.split_at(head).1)
}

/// How many tokens the bracketed group has that `rest` begins with, both brackets counted.
pub(crate) fn group_tokens(rest: &[Token<'_>]) -> usize {
    let mut depth = 0_usize;
    for (at, token) in rest.iter().enumerate() {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    rest.len()
}

/// Whether the attribute's words make what follows test code: `test`, or `cfg` of `test`.
fn is_test_attribute(attribute: &[Token<'_>]) -> bool {
    let mut words = attribute.iter().filter(|token| token.is_word());
    let Some(first) = words.next() else {
        return false;
    };
    let mut rest = words.map(|token| token.text);
    match first.text {
        "test" => rest.next().is_none(),
        "cfg" => {
            let rest: Vec<_> = rest.collect();
            rest.contains(&"test") && !rest.contains(&"not")
        }
        _ => false,
    }
}

fn is_inner_test_attribute(mut rest: &[Token<'_>]) -> bool {
    loop {
        let count = attribute_tokens(rest);
        let (attribute, tail) = rest.split_at(count);
        if attribute.get(1).is_none_or(|token| token.text != "!") {
            return false;
        }
        if is_test_attribute(attribute) {
            return true;
        }
        rest = tail;
    }
}

/// How many tokens the test-only item has that `rest` begins with, its attributes counted; `None` if
/// what begins here is not for tests alone.
fn test_item_tokens(rest: &[Token<'_>]) -> Option<usize> {
    let mut at = 0;
    let mut is_test = false;
    loop {
        let tail = rest.get(at..)?;
        let count = attribute_tokens(tail);
        if count == 0 {
            break;
        }
        is_test |= is_test_attribute(tail.split_at(count).0);
        at += count;
    }
    is_test.then(|| at + item_tokens(rest.split_at(at).1))
}

/// How many tokens the item, field or statement has that `rest` begins with.
fn item_tokens(rest: &[Token<'_>]) -> usize {
    const ITEMS: [&str; 16] = [
        "pub",
        "fn",
        "mod",
        "use",
        "impl",
        "struct",
        "enum",
        "trait",
        "const",
        "static",
        "type",
        "unsafe",
        "async",
        "extern",
        "macro_rules",
        "let",
    ];
    let is_item = rest
        .first()
        .is_some_and(|token| ITEMS.contains(&token.text));
    let mut at = 0;
    while let Some(token) = rest.get(at) {
        match token.text {
            ";" => return at + 1,
            "," if !is_item => return at + 1,
            // The end of what encloses a last field or statement.
            ")" | "]" | "}" => return at,
            "{" => {
                at += group_tokens(rest.split_at(at).1);
                let is_followed = rest.get(at).is_some_and(|next| next.text == ";");
                return at + usize::from(is_followed);
            }
            "(" | "[" => at += group_tokens(rest.split_at(at).1),
            _ => at += 1,
        }
    }
    rest.len()
}

/// A function as the limits see it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    /// Where it begins.
    pub(crate) line: usize,
    /// From `fn` to the closing brace.
    pub(crate) lines: usize,
    /// Without `self`.
    pub(crate) parameters: usize,
}

/// Every function with a name, nested ones too.
pub(crate) fn functions<'a>(tokens: &[Token<'a>]) -> Vec<Function<'a>> {
    let mut found = Vec::new();
    let mut rest = tokens;
    while let [first, tail @ ..] = rest {
        if first.text == "fn"
            && let [name, signature @ ..] = tail
            && name.is_word()
        {
            let (parameters, body) = split_signature(signature);
            found.push(Function {
                name: name.text,
                line: first.line,
                lines: last_line(body).unwrap_or(name.line) + 1 - first.line,
                parameters: parameters_of(parameters),
            });
        }
        rest = tail;
    }
    found
}

/// The tokens between the parentheses of the parameters, and those behind them.
fn split_signature<'t, 'a>(signature: &'t [Token<'a>]) -> (&'t [Token<'a>], &'t [Token<'a>]) {
    let mut angles = 0_usize;
    for (at, token) in signature.iter().enumerate() {
        match token.text {
            "<" => angles += 1,
            ">" => angles = angles.saturating_sub(1),
            "(" if angles == 0 => {
                let rest = signature.split_at(at).1;
                let (group, body) = rest.split_at(group_tokens(rest));
                return (group.get(1..group.len() - 1).unwrap_or_default(), body);
            }
            _ => {}
        }
    }
    (&[], signature)
}

/// The line of the brace that closes the body, or of the `;` of a function without one.
fn last_line(behind_parameters: &[Token<'_>]) -> Option<usize> {
    let mut at = 0;
    while let Some(token) = behind_parameters.get(at) {
        let rest = behind_parameters.split_at(at).1;
        match token.text {
            ";" => return Some(token.line),
            "{" => {
                let (body, _) = rest.split_at(group_tokens(rest));
                return body.last().map(|token| token.line);
            }
            "(" | "[" => at += group_tokens(rest),
            _ => at += 1,
        }
    }
    None
}

fn parameters_of(list: &[Token<'_>]) -> usize {
    let (mut depth, mut angles) = (0_usize, 0_usize);
    let parameters = list.split(|token| {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            "<" => angles += 1,
            ">" => angles = angles.saturating_sub(1),
            _ => {}
        }
        token.text == "," && depth == 0 && angles == 0
    });
    parameters
        .filter(|parameter| {
            let pattern = parameter.iter().take_while(|token| token.text != ":");
            let is_self = pattern.clone().any(|token| token.text == "self");
            !parameter.is_empty() && !is_self
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<'a>(live: &Live<'a>) -> Vec<&'a str> {
        let words = live.tokens.iter().filter(|token| token.is_word());
        words.map(|token| token.text).collect()
    }

    #[test]
    fn test_items_are_left_out_and_their_lines_counted() {
        let source = "use a;\n#[cfg(test)]\nuse b::{c, d};\n#[cfg(test)]\nmod probe;\nfn e() {}\n\
            #[cfg(test)]\n#[expect(x, reason = \"}\")]\nmod tests {\n  fn f() {}\n}\nfn g() {}\n";
        let live = Live::of(source);
        assert_eq!(words(&live), ["use", "a", "fn", "e", "fn", "g"]);
        assert_eq!(live.test_lines, 2 + 2 + 5);
        assert_eq!(live.test_modules, ["probe"]);
    }

    #[test]
    fn only_what_is_for_tests_alone_is_left_out() {
        assert_eq!(
            words(&Live::of("#[cfg(not(test))] fn a() {}")).last(),
            Some(&"a")
        );
        assert_eq!(
            words(&Live::of("#[cfg(unix)] fn a() {}")).last(),
            Some(&"a")
        );
        assert_eq!(words(&Live::of("#[test] fn a() {} fn b() {}")), ["fn", "b"]);
        assert_eq!(
            words(&Live::of("#[cfg(all(test, unix))] fn a<T, U>() {} x")),
            ["x"]
        );
        assert_eq!(
            words(&Live::of("#![allow(a)] #![cfg(test)] fn b() {}")),
            [""; 0]
        );
        assert_eq!(
            words(&Live::of("struct A { #[cfg(test)] b: C, d: E }")),
            ["struct", "A", "d", "E"]
        );
        assert_eq!(
            words(&Live::of("struct A { #[cfg(test)] b: C } f")),
            ["struct", "A", "f"]
        );
    }

    #[test]
    fn functions_are_measured_from_fn_to_the_closing_brace() {
        let source = "fn a() {\n  let x = \"}\";\n}\ntrait T {\n  fn b(&self) -> [u8; 2];\n}\nfn c<F: Fn(u8, u8) -> u8>(\n  \
            f: F,\n) -> [u8; 2]\nwhere\n  F: X<(u8, u8)>,\n{\n  |g: fn(u8)| {}\n}";
        let measured: Vec<_> = functions(&tokens(source))
            .into_iter()
            .map(|function| {
                (
                    function.name,
                    function.line,
                    function.lines,
                    function.parameters,
                )
            })
            .collect();
        assert_eq!(measured, [("a", 1, 3, 0), ("b", 5, 1, 0), ("c", 7, 8, 1)]);
    }

    #[test]
    fn parameters_are_counted_without_self() {
        for (list, count) in [
            ("", 0),
            ("&'a mut self", 0),
            ("self: Arc<Self>, a: u8", 1),
            (
                "a: HashMap<u8, Vec<(u8, u8)>>, b: impl Fn(u8, u8) -> u8,",
                2,
            ),
            (
                "(a, b): (u8, u8), [c, d]: [u8; 2], e: fn(u8, u8), f: u8, g: u8, h: u8",
                6,
            ),
        ] {
            assert_eq!(parameters_of(&tokens(list)), count, "{list}");
        }
    }
}
