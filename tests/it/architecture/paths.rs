//! Just enough of Rust's grammar to list the paths a file names: comments, literals, use trees, modules.

/// A path as written (`crate::domain::JobId` → its segments), each leaf of a use tree on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
    /// Names of the inline modules around it.
    pub(super) modules: Vec<String>,
    /// Below `#[cfg(test)]`.
    pub(super) in_test: bool,
}

/// Every path in a file.
pub(super) fn paths(text: &str) -> Vec<Named> {
    let mut reader =
        Reader { tokens: tokens(text), at: 0, frames: Vec::new(), test_follows: false, found: Vec::new() };
    reader.read();
    reader.found
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Colons,
    Mark(char),
}

struct Frame {
    module: Option<String>,
    in_test: bool,
}

struct Reader {
    tokens: Vec<(Token, usize)>,
    at: usize,
    frames: Vec<Frame>,
    /// `#[cfg(test)]` was read and its item has not begun.
    test_follows: bool,
    found: Vec<Named>,
}

impl Reader {
    fn peek(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead).map(|(token, _)| token)
    }

    fn word(&self, ahead: usize) -> Option<&str> {
        match self.peek(ahead) {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    fn is(&self, ahead: usize, mark: char) -> bool {
        self.peek(ahead) == Some(&Token::Mark(mark))
    }

    fn read(&mut self) {
        while let Some(token) = self.peek(0).cloned() {
            match token {
                Token::Mark('#') if self.begins_test_attribute() => {
                    self.test_follows = true;
                    self.at += 6;
                }
                Token::Mark('{') => self.open(None),
                Token::Mark('}') => {
                    self.frames.pop();
                    self.at += 1;
                }
                Token::Mark(';') => {
                    self.test_follows = false;
                    self.at += 1;
                }
                Token::Word(word) if word == "mod" && self.word(1).is_some() && self.is(2, '{') => {
                    let module = self.word(1).map(str::to_owned);
                    self.at += 2;
                    self.open(module);
                }
                Token::Word(word) if word == "use" => {
                    self.at += 1;
                    self.tree(&[]);
                }
                Token::Word(_) => self.path(),
                Token::Colons | Token::Mark(_) => self.at += 1,
            }
        }
    }

    /// `#[cfg(test)]` is seven tokens; the last bracket is left to be skipped as any mark.
    fn begins_test_attribute(&self) -> bool {
        self.is(1, '[')
            && self.word(2) == Some("cfg")
            && self.is(3, '(')
            && self.word(4) == Some("test")
            && self.is(5, ')')
    }

    fn open(&mut self, module: Option<String>) {
        let in_test = self.test_follows || self.frames.last().is_some_and(|frame| frame.in_test);
        self.frames.push(Frame { module, in_test });
        self.test_follows = false;
        self.at += 1;
    }

    fn name(&mut self, segments: Vec<String>, line: usize) {
        let in_test = self.test_follows || self.frames.last().is_some_and(|frame| frame.in_test);
        let modules = self.frames.iter().filter_map(|frame| frame.module.clone()).collect();
        self.found.push(Named { segments, line, modules, in_test });
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).map_or(0, |(_, line)| *line)
    }

    /// `a::b::c` outside a use declaration. One word alone names nothing beyond the file.
    fn path(&mut self) {
        let line = self.line();
        let mut segments = Vec::new();
        while let Some(word) = self.word(0) {
            segments.push(word.to_owned());
            self.at += 1;
            if self.peek(0) != Some(&Token::Colons) || self.word(1).is_none() {
                break;
            }
            self.at += 1;
        }
        if segments.len() > 1 {
            self.name(segments, line);
        }
    }

    /// One branch of a use tree: `a::b`, `a::{b, c::d}`, `a::*`, `a as b`.
    fn tree(&mut self, stem: &[String]) {
        let line = self.line();
        let mut segments = stem.to_vec();
        loop {
            match self.peek(0) {
                Some(Token::Word(word)) if word == "as" => self.at += 2,
                Some(Token::Word(word)) => {
                    segments.push(word.clone());
                    self.at += 1;
                }
                Some(Token::Colons) => self.at += 1,
                Some(Token::Mark('{')) => {
                    self.at += 1;
                    while self.peek(0).is_some() && !self.is(0, '}') {
                        self.tree(&segments);
                        if self.is(0, ',') {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                Some(Token::Mark('*')) => {
                    segments.push("*".to_owned());
                    self.at += 1;
                }
                Some(Token::Mark(_)) | None => break,
            }
        }
        self.name(segments, line);
    }
}

fn tokens(text: &str) -> Vec<(Token, usize)> {
    let mut lexer = Lexer { chars: text.chars().collect(), at: 0, line: 1 };
    let mut tokens = Vec::new();
    while let Some(c) = lexer.peek(0) {
        let line = lexer.line;
        if let Some(token) = lexer.token(c) {
            tokens.push((token, line));
        }
    }
    tokens
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            if self.peek(0) == Some('\n') {
                self.line += 1;
            }
            self.at += 1;
        }
    }

    fn token(&mut self, c: char) -> Option<Token> {
        match (c, self.peek(1)) {
            ('/', Some('/')) => {
                while self.peek(0).is_some_and(|c| c != '\n') {
                    self.skip(1);
                }
                None
            }
            ('/', Some('*')) => {
                self.block_comment();
                None
            }
            ('"', _) => {
                self.string();
                None
            }
            ('\'', _) => {
                self.quote();
                None
            }
            (':', Some(':')) => {
                self.skip(2);
                Some(Token::Colons)
            }
            (c, _) if c.is_alphabetic() || c == '_' => self.word(),
            (c, _) => {
                self.skip(1);
                (!c.is_whitespace()).then_some(Token::Mark(c))
            }
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => {
                    depth += 1;
                    self.skip(2);
                }
                (Some('*'), Some('/')) => {
                    depth -= 1;
                    self.skip(2);
                }
                (Some(_), _) => self.skip(1),
                (None, _) => return,
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.skip(1);
        while let Some(c) = self.peek(0) {
            self.skip(if c == '\\' { 2 } else { 1 });
            if c == '"' {
                return;
            }
        }
    }

    /// A character (`'a'`, `'\''`) or a lifetime (`'a`).
    fn quote(&mut self) {
        match (self.peek(1), self.peek(2)) {
            (Some('\\'), _) => {
                self.skip(3);
                while self.peek(0).is_some_and(|c| c != '\'') {
                    self.skip(1);
                }
                self.skip(1);
            }
            (Some(_), Some('\'')) => self.skip(3),
            _ => self.skip(1),
        }
    }

    /// A word, or a literal with a prefix (`r#"…"#`, `b"…"`, `c"…"`), or a raw identifier.
    fn word(&mut self) -> Option<Token> {
        let mut word = String::new();
        while let Some(c) = self.peek(0).filter(|c| c.is_alphanumeric() || *c == '_') {
            word.push(c);
            self.skip(1);
        }
        if !matches!(word.as_str(), "r" | "b" | "br" | "c" | "cr") {
            return Some(Token::Word(word));
        }
        // The language allows 255 of them.
        let hashes = (0..=255).take_while(|&n| self.peek(n) == Some('#')).count();
        match self.peek(hashes) {
            Some('"') if word.ends_with('r') => {
                self.raw_string(hashes);
                None
            }
            Some('"') if hashes == 0 => {
                self.string();
                None
            }
            Some('\'') if hashes == 0 && word == "b" => {
                self.quote();
                None
            }
            Some(_) if hashes == 1 && word == "r" => {
                self.skip(1);
                self.word()
            }
            _ => Some(Token::Word(word)),
        }
    }

    fn raw_string(&mut self, hashes: usize) {
        self.skip(hashes + 1);
        while let Some(c) = self.peek(0) {
            let closed = c == '"' && (1..=hashes).all(|n| self.peek(n) == Some('#'));
            self.skip(1);
            if closed {
                self.skip(hashes);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        paths(text).iter().map(|named| named.segments.join("::")).collect()
    }

    #[test]
    fn use_trees_are_spread_out() {
        let text = "use crate::{media::{self, Plan as P}, store::*};\npub use std::fmt;";
        assert_eq!(found(text), ["crate::media::self", "crate::media::Plan", "crate::store::*", "std::fmt"]);
    }

    #[test]
    fn expressions_and_types_count_too() {
        let text =
            "fn f(x: crate::store::Job) -> Vec<u8> { sqlx::query::<X>(\"crate::no\"); ::reqwest::get() }";
        assert_eq!(found(text), ["crate::store::Job", "sqlx::query", "reqwest::get"]);
    }

    #[test]
    fn comments_and_literals_do_not() {
        let text = r##"
            // crate::a::b
            /* crate::a /* crate::b */ crate::c */
            const A: &str = "crate::d \" crate::e"; const B: &str = r#"crate::f " crate::g"#;
            const C: (char, char, u8) = ('"', '\'', b'"'); fn f<'a>(x: &'a crate::yes::X) {}
            const D: &[u8] = br"crate::h"; let r#type = 1;
        "##;
        assert_eq!(found(text), ["crate::yes::X"]);
    }

    #[test]
    fn tests_and_modules_are_known() {
        let text = "use a::b;\n#[cfg(test)]\nuse c::d;\nuse e::f;\nmod inner { use g::h; }\n#[cfg(test)]\nmod tests {\n \
                    fn x() { if y { i::j() } }\n}\nuse k::l;";
        let named = paths(text);
        let tests: Vec<&str> = named.iter().filter(|n| n.in_test).map(|n| n.segments[0].as_str()).collect();
        assert_eq!(tests, ["c", "i"]);
        assert_eq!(named.iter().find(|n| n.segments[0] == "g").unwrap().modules, ["inner"]);
        let line = |name: &str| named.iter().find(|n| n.segments[0] == name).unwrap().line;
        assert_eq!((line("a"), line("i"), line("k")), (1, 8, 10));
    }
}
