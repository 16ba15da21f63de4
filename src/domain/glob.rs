//! Patterns of identifiers: `*` stands for any run of characters, `?` for exactly one, and a `\` takes the meaning of
//! the character after it away. A pattern is about the whole text, in characters and not bytes.

use super::Flaw;

/// A pattern, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Vec<Piece>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// This character.
    Literal(char),
    /// Any one character.
    One,
    /// Any run of characters, an empty one too.
    Run,
}

impl Glob {
    /// Takes a pattern apart.
    pub fn parse(text: &str) -> Result<Self, Flaw> {
        let mut pieces = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let piece = match c {
                '\\' => Piece::Literal(rest.next().ok_or_else(|| Flaw::new("must not end in a single \\"))?),
                '?' => Piece::One,
                '*' => Piece::Run,
                c => Piece::Literal(c),
            };
            // Two runs in a row are one.
            if piece != Piece::Run || pieces.last() != Some(&Piece::Run) {
                pieces.push(piece);
            }
        }
        Ok(Self(pieces))
    }

    /// The pattern that only this text fits.
    pub fn literal(text: &str) -> Self {
        Self(text.chars().map(Piece::Literal).collect())
    }

    /// The one text that it stands for, unless it stands for several.
    pub fn exact(&self) -> Option<String> {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Literal(c) => Some(*c),
                Piece::One | Piece::Run => None,
            })
            .collect()
    }

    /// How many characters stand for themselves.
    pub fn literals(&self) -> usize {
        self.0.iter().filter(|piece| matches!(piece, Piece::Literal(_))).count()
    }

    /// Whether the whole text fits. It takes at most as many steps as text and pattern are long multiplied.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let pieces = &self.0;
        let (mut at, mut piece) = (0, 0);
        // The last run met, and where the text after it began: whatever does not fit later makes that run longer.
        let mut run: Option<(usize, usize)> = None;
        while at < text.len() {
            match pieces.get(piece) {
                Some(Piece::Run) => {
                    run = Some((piece, at));
                    piece += 1;
                }
                Some(Piece::One) => (at, piece) = (at + 1, piece + 1),
                Some(Piece::Literal(c)) if *c == text[at] => (at, piece) = (at + 1, piece + 1),
                Some(Piece::Literal(_)) | None => match run {
                    Some((place, begun)) => {
                        run = Some((place, begun + 1));
                        (at, piece) = (begun + 1, place + 1);
                    }
                    None => return false,
                },
            }
        }
        pieces[piece..].iter().all(|piece| *piece == Piece::Run)
    }
}

impl std::fmt::Display for Glob {
    /// The pattern, as it can be parsed again.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Literal(c @ ('*' | '?' | '\\')) => write!(f, "\\{c}"),
            Piece::Literal(c) => write!(f, "{c}"),
            Piece::One => f.write_str("?"),
            Piece::Run => f.write_str("*"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Glob::parse(pattern).unwrap().matches(text)
    }

    #[test]
    fn a_pattern_is_about_the_whole_text() {
        assert!(matches("user_*", "user_7"));
        assert!(matches("user_*", "user_"));
        assert!(!matches("user_*", "a user_7"));
        assert!(matches("*@example.com", "a@example.com"));
        assert!(!matches("*@example.com", "a@example.com.example.org"));
        assert!(matches("", ""));
        assert!(!matches("", "a"));
        assert!(matches("**a**", "banana"));
    }

    #[test]
    fn a_question_mark_is_one_character_however_many_bytes_it_has() {
        for one in ["a", "\u{e9}", "\u{1f511}"] {
            assert!(matches("x?y", &format!("x{one}y")), "{one}");
            assert!(!matches("x??y", &format!("x{one}y")), "{one}");
        }
    }

    #[test]
    fn a_backslash_takes_a_meaning_away() {
        assert!(matches(r"a\*b", "a*b"));
        assert!(!matches(r"a\*b", "axb"));
        assert!(matches(r"\\", r"\"));
        assert!(Glob::parse(r"a\").is_err());
        assert_eq!(Glob::parse(r"a\*b").unwrap().exact().as_deref(), Some("a*b"));
        assert_eq!(Glob::parse("a*").unwrap().exact(), None);
    }

    #[test]
    fn only_what_stands_for_itself_is_literal() {
        assert_eq!(Glob::parse(r"a?\*b*").unwrap().literals(), 3);
    }

    #[test]
    fn a_pattern_of_many_runs_takes_no_exponential_time() {
        assert!(!matches(&format!("{}c", "a*".repeat(120)), &format!("{}b", "a".repeat(250))));
    }

    fn naive(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => {
                naive(rest, text) || text.split_first().is_some_and(|(_, tail)| naive(pattern, tail))
            }
            (Some(('?', rest)), Some((_, tail))) => naive(rest, tail),
            (Some((c, rest)), Some((d, tail))) => c == d && naive(rest, tail),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_definition(pattern in "[ab*?]{0,8}", text in "[ab\u{e9}]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &text), naive(&chars(&pattern), &chars(&text)));
        }

        #[test]
        fn a_pattern_reads_back_as_it_was_written(pattern in r"[ab*?\\]{0,8}") {
            if let Ok(glob) = Glob::parse(&pattern) {
                prop_assert_eq!(Glob::parse(&glob.to_string()), Ok(glob));
            }
        }
    }
}
