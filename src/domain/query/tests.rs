use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn query(text: &str) -> Query {
    Query::parse(text).unwrap()
}

fn position(text: &str) -> usize {
    Query::parse(text).expect_err(text).position
}

fn holds(text: &str, held: &[&str]) -> bool {
    query(text).holds(|permission| held.contains(&permission))
}

fn missing<'a>(query: &'a Query, held: &[&str]) -> Vec<&'a str> {
    query.missing(|permission| held.contains(&permission))
}

#[test]
fn and_binds_tighter_than_or() {
    assert!(holds("a OR b AND c", &["a"]));
    assert!(!holds("a OR b AND c", &["b"]));
    assert!(!holds("(a OR b) AND c", &["a"]));
    assert!(holds("a AND b OR c", &["c"]));
    assert!(!holds("a AND (b OR c)", &["c"]));
}

#[test]
fn operators_are_whole_words_in_any_case() {
    assert!(holds("a aNd\tb\r\nor(c)", &["c"]));
    let query = query("android Or oregon AND and.more OR or_else");
    assert_eq!(query.permissions().collect::<Vec<_>>(), ["android", "oregon", "and.more", "or_else"]);
}

#[test]
fn permissions_may_have_every_character_of_a_slug() {
    for text in ["*", "a.b:c/d-e_f*", ".", "documents.*", "AND/OR", "-", &"x".repeat(128)] {
        assert_eq!(query(text).permissions().collect::<Vec<_>>(), [text]);
    }
}

#[test]
fn an_error_tells_where_it_is() {
    for (text, at) in [
        ("", 0),
        ("  ", 2),
        ("AND", 0),
        ("a AND", 5),
        ("a AND ", 6),
        ("a or or b", 5),
        ("a b", 2),
        ("a(b)", 1),
        ("(a)b", 3),
        ("()", 1),
        ("(a", 2),
        ("(a b)", 3),
        ("a)", 1),
        (")", 0),
        ("((a) AND b", 10),
        ("a\0", 1),
        ("\0", 0),
        ("a AND \u{e9}", 6),
        ("a\u{a0}AND b", 1),
        ("a \u{b}", 2),
        ("a && b", 2),
        ("a, b", 1),
        ("\u{1f511}", 0),
        ("!a", 0),
    ] {
        assert_eq!(position(text), at, "{text:?}");
    }
    assert_eq!(Query::parse("a+b").unwrap_err().to_string(), "must not contain the character U+002B (at position 1)");
}

#[test]
fn length_is_bounded_before_anything_is_read() {
    let longest = format!("a{}", " ".repeat(QUERY_LENGTH_MAX - 1));
    assert!(Query::parse(&longest).is_ok());
    assert_eq!(position(&format!("{longest} ")), QUERY_LENGTH_MAX);
    for fill in ["(", ")", "a ", "a AND ", "\u{1f511}", "\0"] {
        assert_eq!(position(&fill.repeat(1_000_000 / fill.len())), QUERY_LENGTH_MAX);
    }
    assert_eq!(position(&"\u{1f511}".repeat(QUERY_LENGTH_MAX)), 0);
}

#[test]
fn permissions_are_bounded_in_number_and_length() {
    let hundred = vec!["a"; QUERY_PERMISSIONS_MAX].join(" OR ");
    assert_eq!(query(&hundred).permissions().count(), QUERY_PERMISSIONS_MAX);
    assert_eq!(position(&format!("{hundred} OR a")), hundred.len() + 4);
    assert_eq!(position(&format!("a OR {}", "x".repeat(129))), 5);
}

#[test]
fn parentheses_go_thirty_two_levels_deep() {
    let nested = |depth| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert!(holds(&nested(QUERY_DEPTH_MAX), &["a"]));
    assert_eq!(position(&nested(QUERY_DEPTH_MAX + 1)), QUERY_DEPTH_MAX);
    assert!(Query::parse(&["(a)"; 50].join("AND")).is_ok(), "side by side they don't nest");
}

#[test]
fn what_is_missing_is_what_would_have_to_be_given() {
    let all = query("a AND b AND (c OR d)");
    assert_eq!(missing(&all, &["a"]), ["b", "c", "d"]);
    assert_eq!(missing(&all, &["a", "c"]), ["b"]);
    assert_eq!(missing(&all, &["a", "b", "d"]), [""; 0]);
    assert_eq!(missing(&query("a AND b OR c"), &["a"]), ["b", "c"]);
    assert_eq!(missing(&query("b OR a OR b"), &[]), ["b", "a"]);
}

#[derive(Debug, Clone)]
enum Tree {
    Permission(&'static str),
    And(Vec<Tree>),
    Or(Vec<Tree>),
}

const WORDS: [&str; 4] = ["a", "android", "b.*", "OR-1"];

impl Tree {
    fn holds(&self, held: &BTreeSet<&str>) -> bool {
        match self {
            Self::Permission(word) => held.contains(word),
            Self::And(operands) => operands.iter().all(|operand| operand.holds(held)),
            Self::Or(operands) => operands.iter().any(|operand| operand.holds(held)),
        }
    }

    /// Prints the tree as the fancies have it: which case, which spacing, how many parentheses too many.
    fn print(&self, fancies: &mut impl Iterator<Item = u8>) -> String {
        let mut fancy = || fancies.next().unwrap_or(0);
        let extra = usize::from(fancy() % 4 == 0);
        let (word, operands) = match self {
            Self::Permission(word) => return format!("{}{word}{}", "(".repeat(extra), ")".repeat(extra)),
            Self::And(operands) => (["AND", "and", "aNd"][usize::from(fancy()) % 3], operands),
            Self::Or(operands) => (["OR", "or", "Or"][usize::from(fancy()) % 3], operands),
        };
        let space = [" ", "\t", "\r\n  "][usize::from(fancy()) % 3];
        let printed: Vec<_> = operands
            .iter()
            .map(|operand| match (self, operand) {
                (Self::And(_), Self::Or(_)) => format!("({})", operand.print(fancies)),
                _ => operand.print(fancies),
            })
            .collect();
        let open = "(".repeat(extra) + &" ".repeat(extra);
        open + &printed.join(&format!("{space}{word}{space}")) + &")".repeat(extra)
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    prop::sample::select(&WORDS[..]).prop_map(Tree::Permission).prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Tree::And),
            prop::collection::vec(inner, 2..4).prop_map(Tree::Or),
        ]
    })
}

proptest! {
    #[test]
    fn a_printed_condition_reads_back_with_the_same_meaning(tree in trees(), fancies: Vec<u8>) {
        let text = tree.print(&mut fancies.into_iter());
        prop_assume!(text.len() <= QUERY_LENGTH_MAX);
        let query = Query::parse(&text).map_err(|flaw| TestCaseError::fail(format!("{text}: {flaw}")))?;
        for choice in 0..1u8 << WORDS.len() {
            let held: BTreeSet<&str> =
                WORDS.iter().enumerate().filter(|(bit, _)| choice >> bit & 1 == 1).map(|(_, word)| *word).collect();
            let has = |permission: &str| held.contains(permission);
            prop_assert_eq!(query.holds(has), tree.holds(&held), "{} with {:?}", text, held);
            let missing = query.missing(has);
            prop_assert_eq!(missing.is_empty(), query.holds(has));
            prop_assert!(query.holds(|permission| has(permission) || missing.contains(&permission)));
            prop_assert!(!missing.iter().any(|permission| has(permission)));
        }
    }

    #[test]
    fn any_text_is_read_or_refused_at_a_position_within_it(bytes in prop::collection::vec(any::<u8>(), 0..1_200)) {
        let text = String::from_utf8_lossy(&bytes);
        if let Err(flaw) = Query::parse(&text) {
            prop_assert!(flaw.position <= text.chars().count());
        }
    }

    #[test]
    fn any_words_and_signs_are_read_or_refused_at_a_position_within_them(text in "([()a \t]|AND|or){0,60}") {
        if let Err(flaw) = Query::parse(&text) {
            prop_assert!(flaw.position <= text.len());
        }
    }
}
