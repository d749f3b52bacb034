//! Cuts T-SQL text into tokens: what is a comment, a string, a quoted name, a number or a word.
//!
//! The text comes as UTF-16LE bytes in whatever pieces. Nothing but the current token is kept, and of that only
//! the beginning.

/// Characters of a token that are kept. Names have at most 128 characters.
pub(super) const MAX_TEXT: usize = 128;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A word that is not quoted: a keyword or a name, also `#t`.
    Word,
    /// `[..]`, or `".."`, which may also be a string (QUOTED_IDENTIFIER OFF); the text is what stands inside.
    Quoted,
    /// `'..'` or `N'..'`; the text is what stands inside.
    String,
    /// A number, also `0x..`.
    Number,
    /// `@v` or `@@v`.
    Variable,
    /// Any other character.
    Symbol(char),
    /// What servers may read differently, and why.
    Odd(&'static str),
    /// Behind the last token.
    End,
}

/// A token, with the text it is known by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    /// The text is longer than what is kept of it.
    pub(super) cut: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Between,
    Word,
    Number(Digits),
    /// Inside quotes that this character ends.
    Quoted(u16),
    /// Behind a character that ends the quotes, if it is not doubled.
    QuoteEnds(u16),
    Dash,
    Slash,
    /// In a comment to the line's end; true behind a carriage return.
    Line(bool),
    /// In a comment of this depth, behind this character.
    Block(u32, u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Digits {
    /// A zero came first: `0x` may follow.
    Zero,
    Decimal,
    /// Behind the `e`.
    Exponent,
    Hex,
}

const QUOTE: u16 = b'\'' as u16;
const DOUBLE_QUOTE: u16 = b'"' as u16;
const BRACKET: u16 = b']' as u16;
const RETURN: u16 = b'\r' as u16;
const LINE_FEED: u16 = b'\n' as u16;
const STAR: u16 = b'*' as u16;
const SLASH: u16 = b'/' as u16;

/// Cuts one text after the other. Memory is kept from one to the next.
#[derive(Debug)]
pub(super) struct Lexer {
    state: State,
    text: String,
    chars: usize,
    /// The first byte of a code unit whose second has not come yet.
    half: Option<u8>,
}

impl Lexer {
    pub(super) fn new() -> Self {
        Self { state: State::Between, text: String::with_capacity(MAX_TEXT * 3), chars: 0, half: None }
    }

    pub(super) fn restart(&mut self) {
        self.state = State::Between;
        self.clear();
        self.half = None;
    }

    pub(super) fn feed(&mut self, bytes: &[u8], mut sink: impl FnMut(Token<'_>)) {
        let mut rest = bytes;
        if let Some(low) = self.half.take() {
            let Some((&high, behind)) = rest.split_first() else {
                self.half = Some(low);
                return;
            };
            self.unit(u16::from_le_bytes([low, high]), &mut sink);
            rest = behind;
        }
        loop {
            rest = &rest[self.run(rest)..];
            let Some((unit, behind)) = rest.split_first_chunk::<2>() else { break };
            self.unit(u16::from_le_bytes(*unit), &mut sink);
            rest = behind;
        }
        self.half = rest.first().copied();
    }

    /// Takes what only continues the present state: white space, the rest of a word, what stands in quotes or in a
    /// comment. Returns how many bytes that were.
    fn run(&mut self, bytes: &[u8]) -> usize {
        let units = bytes.chunks_exact(2);
        match self.state {
            State::Between => {
                2 * units.take_while(|unit| unit[1] == 0 && matches!(unit[0], 1..=b' ')).count()
            }
            State::Word => {
                let mut taken = 0;
                for unit in units.take_while(|unit| unit[1] == 0 && IN_WORD[usize::from(unit[0])]) {
                    self.push_ascii(unit[0]);
                    taken += 2;
                }
                taken
            }
            State::Quoted(end) => {
                let end = end.to_le_bytes();
                let mut taken = 0;
                for unit in units.take_while(|unit| **unit != end) {
                    if self.chars <= MAX_TEXT {
                        self.push(u16::from_le_bytes([unit[0], unit[1]]));
                    }
                    taken += 2;
                }
                taken
            }
            State::Line(false) => {
                let ends = |unit: u16| matches!(unit, LINE_FEED | RETURN | 0x85 | 0x2028 | 0x2029);
                2 * units.take_while(|unit| !ends(u16::from_le_bytes([unit[0], unit[1]]))).count()
            }
            State::Block(depth, _) => {
                let inside = |unit: u16| !matches!(unit, STAR | SLASH);
                let taken =
                    2 * units.take_while(|unit| inside(u16::from_le_bytes([unit[0], unit[1]]))).count();
                if taken > 0 {
                    self.state = State::Block(depth, 0);
                }
                taken
            }
            _ => 0,
        }
    }

    /// The text ends here.
    pub(super) fn finish(&mut self, mut sink: impl FnMut(Token<'_>)) {
        match self.state {
            State::Between | State::Line(_) => {}
            State::Word => self.emit(self.word(), &mut sink),
            State::Number(_) => self.emit(Kind::Number, &mut sink),
            State::QuoteEnds(end) => self.emit(quoted(end), &mut sink),
            State::Dash => symbol('-', &mut sink),
            State::Slash => symbol('/', &mut sink),
            State::Quoted(_) => odd("quotes that do not end", &mut sink),
            State::Block(..) => odd("a comment that does not end", &mut sink),
        }
        if self.half.is_some() {
            odd("half a character", &mut sink);
        }
        sink(Token { kind: Kind::End, text: "", cut: false });
        self.restart();
    }

    fn unit(&mut self, unit: u16, sink: &mut impl FnMut(Token<'_>)) {
        match self.state {
            State::Between => self.begin(unit, sink),
            State::Word if is_word(unit) => {
                suspect(unit, sink);
                self.push(unit);
            }
            State::Word if unit == QUOTE && self.text.eq_ignore_ascii_case("n") => {
                self.clear();
                self.state = State::Quoted(QUOTE);
            }
            State::Word => {
                self.emit(self.word(), sink);
                self.begin(unit, sink);
            }
            State::Number(digits) => self.number(digits, unit, sink),
            State::Quoted(end) if unit == end => self.state = State::QuoteEnds(end),
            State::Quoted(_) => self.push(unit),
            State::QuoteEnds(end) if unit == end => {
                self.push(unit);
                self.state = State::Quoted(end);
            }
            State::QuoteEnds(end) => {
                self.emit(quoted(end), sink);
                self.begin(unit, sink);
            }
            State::Dash if unit == u16::from(b'-') => self.state = State::Line(false),
            State::Dash => {
                symbol('-', sink);
                self.begin(unit, sink);
            }
            State::Slash if unit == STAR => self.state = State::Block(1, 0),
            State::Slash => {
                symbol('/', sink);
                self.begin(unit, sink);
            }
            State::Line(_) if unit == LINE_FEED => self.state = State::Between,
            State::Line(behind_return) => {
                // Whether these end a line is the server's to know.
                if (behind_return && unit != RETURN) || matches!(unit, 0x85 | 0x2028 | 0x2029) {
                    odd("a comment with an unusual line end", sink);
                }
                self.state = State::Line(unit == RETURN);
            }
            State::Block(depth, last) => {
                self.state = match (last, unit) {
                    (STAR, SLASH) if depth == 1 => State::Between,
                    (STAR, SLASH) => State::Block(depth - 1, 0),
                    (SLASH, STAR) => State::Block(depth.saturating_add(1), 0),
                    _ => State::Block(depth, unit),
                };
            }
        }
    }

    /// The first character of whatever comes next.
    fn begin(&mut self, unit: u16, sink: &mut impl FnMut(Token<'_>)) {
        self.clear();
        self.state = State::Between;
        match u8::try_from(unit).unwrap_or(0x80) {
            0 => odd("a null character", sink),
            1..=b' ' => {}
            b'\'' => self.state = State::Quoted(QUOTE),
            b'"' => self.state = State::Quoted(DOUBLE_QUOTE),
            b'[' => self.state = State::Quoted(BRACKET),
            b'-' => self.state = State::Dash,
            b'/' => self.state = State::Slash,
            digit @ b'0'..=b'9' => {
                self.push(unit);
                self.state = State::Number(if digit == b'0' { Digits::Zero } else { Digits::Decimal });
            }
            ascii @ ..0x80 if !is_word(unit) => symbol(char::from(ascii), sink),
            _ if is_word(unit) => {
                suspect(unit, sink);
                self.push(unit);
                self.state = State::Word;
            }
            _ => odd("an unusual character", sink),
        }
    }

    fn number(&mut self, digits: Digits, unit: u16, sink: &mut impl FnMut(Token<'_>)) {
        let ascii = u8::try_from(unit).unwrap_or(0x80);
        let next = match (digits, ascii) {
            (Digits::Zero, b'x' | b'X') => Some(Digits::Hex),
            (Digits::Hex, _) if ascii.is_ascii_hexdigit() => Some(Digits::Hex),
            (Digits::Zero | Digits::Decimal, b'0'..=b'9' | b'.') => Some(Digits::Decimal),
            (Digits::Zero | Digits::Decimal, b'e' | b'E') => Some(Digits::Exponent),
            (Digits::Exponent, b'0'..=b'9' | b'+' | b'-') => Some(Digits::Decimal),
            _ => None,
        };
        if let Some(next) = next {
            self.push(unit);
            self.state = State::Number(next);
            return;
        }
        if is_word(unit) && matches!(digits, Digits::Exponent | Digits::Hex) {
            odd("a number that runs into a word", sink);
        }
        self.emit(Kind::Number, sink);
        self.begin(unit, sink);
    }

    fn word(&self) -> Kind {
        if self.text.starts_with('@') { Kind::Variable } else { Kind::Word }
    }

    fn emit(&mut self, kind: Kind, sink: &mut impl FnMut(Token<'_>)) {
        sink(Token { kind, text: &self.text, cut: self.chars > MAX_TEXT });
    }

    fn push_ascii(&mut self, ascii: u8) {
        self.chars += 1;
        if self.chars <= MAX_TEXT {
            self.text.push(char::from(ascii));
        }
    }

    fn push(&mut self, unit: u16) {
        self.chars += 1;
        if self.chars <= MAX_TEXT {
            // Half a surrogate pair: the name is then not the one that was written, so it must not pass for it.
            if (0xD800..0xE000).contains(&unit) {
                self.chars = MAX_TEXT + 1;
            }
            self.text.push(char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
    }

    fn clear(&mut self) {
        self.text.clear();
        self.chars = 0;
    }
}

fn quoted(end: u16) -> Kind {
    if end == QUOTE { Kind::String } else { Kind::Quoted }
}

fn symbol(character: char, sink: &mut impl FnMut(Token<'_>)) {
    sink(Token { kind: Kind::Symbol(character), text: "", cut: false });
}

fn odd(why: &'static str, sink: &mut impl FnMut(Token<'_>)) {
    sink(Token { kind: Kind::Odd(why), text: "", cut: false });
}

/// Reports letters that some collation or older server takes for an ASCII letter.
fn suspect(unit: u16, sink: &mut impl FnMut(Token<'_>)) {
    if matches!(unit, 0xFF00..=0xFFEF | 0x212A | 0x017F | 0x0130 | 0x0131) {
        odd("a letter that may stand for another", sink);
    }
}

/// The ASCII characters of names and keywords.
const IN_WORD: [bool; 256] = {
    let mut in_word = [false; 256];
    let mut at = 0;
    while at < 0x80 {
        in_word[at] = (at as u8).is_ascii_alphanumeric() || matches!(at as u8, b'_' | b'@' | b'#' | b'$');
        at += 1;
    }
    in_word
};

/// Characters of names and keywords. Surrogates are.
fn is_word(unit: u16) -> bool {
    match u8::try_from(unit) {
        Ok(ascii @ ..0x80) => IN_WORD[usize::from(ascii)],
        _ => char::from_u32(u32::from(unit)).is_none_or(char::is_alphanumeric),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<String> {
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let (mut lexer, mut seen) = (Lexer::new(), vec![]);
        lexer.feed(&bytes, |token| seen.push(format!("{:?} {}", token.kind, token.text)));
        lexer.finish(|token| seen.push(format!("{:?} {}", token.kind, token.text)));
        assert_eq!(seen.pop().as_deref(), Some("End "));
        seen
    }

    #[test]
    fn comments_nest_and_quotes_double() {
        assert_eq!(tokens("a/* /* ' */ -- */b--c'\nd"), ["Word a", "Word b", "Word d"]);
        assert_eq!(tokens("a/*/b*/c"), ["Word a", "Word c"]);
        assert_eq!(tokens("N'it''s'"), ["String it's"]);
        assert_eq!(tokens("[a]]b]\"c\"\"d\""), ["Quoted a]b", "Quoted c\"d"]);
        assert_eq!(tokens("a-b/c"), ["Word a", "Symbol('-') ", "Word b", "Symbol('/') ", "Word c"]);
    }

    #[test]
    fn numbers_end_where_words_begin() {
        assert_eq!(tokens("1from"), ["Number 1", "Word from"]);
        assert_eq!(tokens("1.5e-3,0xAF"), ["Number 1.5e-3", "Symbol(',') ", "Number 0xAF"]);
        assert_eq!(tokens("1exec"), ["Odd(\"a number that runs into a word\") ", "Number 1e", "Word xec"]);
        assert_eq!(tokens("@@spid @a #t"), ["Variable @@spid", "Variable @a", "Word #t"]);
    }

    #[test]
    fn what_does_not_end_is_odd() {
        for text in ["'a", "[a", "\"a", "/* a", "/* /* */", "\u{a0}", "a\0", "--a\rb", "\u{ff53}et"] {
            assert!(tokens(text).iter().any(|token| token.starts_with("Odd")), "{text}");
        }
    }
}
