//! Permission queries: what a caller of `VerifyKey` wants a key to hold.
//!
//! ```text
//! expr    = and {OR and}
//! and     = primary {AND primary}
//! primary = PERMISSION | "(" expr ")"
//! ```
//!
//! AND binds tighter than OR. Operators are whole words in any case, so they can't be permissions, but `android` can.
//! Between words there may be spaces, tabs, CR and LF. Whatever else is written is an error at its position.

use std::fmt;
use std::ops::Range;

use super::Flaw;
use super::permission::{SLUG_LENGTH_MAX, is_permission_byte};

/// The most characters of a query.
pub const QUERY_LENGTH_MAX: usize = 1000;
/// The most permissions that a query names, repetitions included.
pub const QUERY_PERMISSIONS_MAX: usize = 100;
/// The most parentheses that may be open at once. It also bounds how deep every recursion here goes.
pub const QUERY_DEPTH_MAX: usize = 32;

/// What is wrong with a query, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryFlaw {
    /// How many characters of the query precede the fault; its length if something is missing at the end.
    pub position: usize,
    /// What is wrong there.
    pub what: Flaw,
}

impl fmt::Display for QueryFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, what } = self;
        write!(f, "{what} (at position {position})")
    }
}

impl std::error::Error for QueryFlaw {}

/// A condition on the permissions that a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    text: Box<str>,
    /// Where in the text the permissions stand, in order.
    permissions: Vec<Range<usize>>,
    root: Expr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expr {
    /// An index into the permissions.
    Permission(usize),
    /// At least two operands, all of which must hold.
    And(Vec<Expr>),
    /// At least two operands, one of which must hold.
    Or(Vec<Expr>),
}

impl Query {
    /// Reads a query. An empty one is an error: wanting nothing is said by sending none.
    pub fn parse(text: &str) -> Result<Self, QueryFlaw> {
        // Length first, so that the work is bounded whatever was sent.
        if text.len() > QUERY_LENGTH_MAX && text.chars().nth(QUERY_LENGTH_MAX).is_some() {
            return Err(flaw(QUERY_LENGTH_MAX, format!("must be at most {QUERY_LENGTH_MAX} characters")));
        }
        let mut parser = Parser { text, next: 0, depth: 0, permissions: Vec::new() };
        let root = parser.expr()?;
        let permissions = parser.finish()?;
        Ok(Self { text: text.into(), permissions, root })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is satisfied by a key of which `held` tells what it holds.
    pub fn holds(&self, held: impl Fn(&str) -> bool) -> bool {
        self.is_held(&self.root, &held)
    }

    /// The permissions that were lacking: of operands joined by AND those that failed, of alternatives all.
    ///
    /// Each once and in the order of the query; none if the query holds.
    pub fn missing(&self, held: impl Fn(&str) -> bool) -> Vec<&str> {
        let mut lacking = Vec::new();
        self.collect_lacking(&self.root, &held, &mut lacking);
        let mut distinct = Vec::with_capacity(lacking.len());
        for permission in lacking {
            if !distinct.contains(&permission) {
                distinct.push(permission);
            }
        }
        distinct
    }

    /// The permissions named, in order, repetitions included.
    pub fn permissions(&self) -> impl Iterator<Item = &str> {
        self.permissions.iter().map(|place| &self.text[place.clone()])
    }

    fn permission(&self, index: usize) -> &str {
        &self.text[self.permissions[index].clone()]
    }

    fn is_held(&self, expr: &Expr, held: &impl Fn(&str) -> bool) -> bool {
        match expr {
            Expr::Permission(index) => held(self.permission(*index)),
            Expr::And(operands) => operands.iter().all(|operand| self.is_held(operand, held)),
            Expr::Or(operands) => operands.iter().any(|operand| self.is_held(operand, held)),
        }
    }

    /// Whether the expression holds; if it doesn't, what it lacked is appended, else nothing.
    fn collect_lacking<'a>(&'a self, expr: &Expr, held: &impl Fn(&str) -> bool, lacking: &mut Vec<&'a str>) -> bool {
        match expr {
            Expr::Permission(index) => {
                let permission = self.permission(*index);
                let holds = held(permission);
                if !holds {
                    lacking.push(permission);
                }
                holds
            }
            Expr::And(operands) => {
                let mut holds = true;
                // No short cut: whoever asks wants to know all that is lacking at once.
                for operand in operands {
                    holds &= self.collect_lacking(operand, held, lacking);
                }
                holds
            }
            Expr::Or(operands) => {
                let before = lacking.len();
                let holds = operands.iter().any(|operand| self.collect_lacking(operand, held, lacking));
                if holds {
                    lacking.truncate(before);
                }
                holds
            }
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Permission,
    End,
}

/// Reads from left to right, so the first fault is the one reported.
///
/// All that has been read is ASCII, or reading would have ended there; so positions in bytes are positions in
/// characters.
struct Parser<'a> {
    text: &'a str,
    /// Where the next token is looked for.
    next: usize,
    /// How many parentheses are open.
    depth: usize,
    permissions: Vec<Range<usize>>,
}

impl Parser<'_> {
    fn expr(&mut self) -> Result<Expr, QueryFlaw> {
        let mut operands = vec![self.and()?];
        while self.takes(Token::Or)? {
            operands.push(self.and()?);
        }
        Ok(joined(operands, Expr::Or))
    }

    fn and(&mut self) -> Result<Expr, QueryFlaw> {
        let mut operands = vec![self.primary()?];
        while self.takes(Token::And)? {
            operands.push(self.primary()?);
        }
        Ok(joined(operands, Expr::And))
    }

    fn primary(&mut self) -> Result<Expr, QueryFlaw> {
        let (token, place) = self.peek()?;
        self.next = place.end;
        match token {
            Token::Permission => self.permission(place),
            Token::Open => self.parenthesised(place.start),
            Token::Close | Token::And | Token::Or | Token::End => {
                Err(flaw(place.start, "must have a permission or an opening parenthesis here"))
            }
        }
    }

    fn permission(&mut self, place: Range<usize>) -> Result<Expr, QueryFlaw> {
        if place.len() > SLUG_LENGTH_MAX {
            return Err(flaw(place.start, format!("must have permissions of at most {SLUG_LENGTH_MAX} characters")));
        }
        if self.permissions.len() == QUERY_PERMISSIONS_MAX {
            return Err(flaw(place.start, format!("must name at most {QUERY_PERMISSIONS_MAX} permissions")));
        }
        self.permissions.push(place);
        Ok(Expr::Permission(self.permissions.len() - 1))
    }

    fn parenthesised(&mut self, start: usize) -> Result<Expr, QueryFlaw> {
        if self.depth == QUERY_DEPTH_MAX {
            return Err(flaw(start, format!("must have at most {QUERY_DEPTH_MAX} levels of parentheses")));
        }
        self.depth += 1;
        let expr = self.expr()?;
        self.depth -= 1;
        if self.takes(Token::Close)? {
            Ok(expr)
        } else {
            Err(flaw(self.peek()?.1.start, "must have AND, OR or a closing parenthesis here"))
        }
    }

    fn finish(mut self) -> Result<Vec<Range<usize>>, QueryFlaw> {
        let (token, place) = self.peek()?;
        match token {
            Token::End => Ok(self.permissions),
            Token::Close => Err(flaw(place.start, "must have an opening parenthesis for each closing one")),
            Token::Open | Token::And | Token::Or | Token::Permission => {
                Err(flaw(place.start, "must have AND or OR between permissions"))
            }
        }
    }

    /// Moves past the next token if it is this one.
    fn takes(&mut self, wanted: Token) -> Result<bool, QueryFlaw> {
        let (token, place) = self.peek()?;
        if token == wanted {
            self.next = place.end;
        }
        Ok(token == wanted)
    }

    /// The next token and where it stands.
    fn peek(&mut self) -> Result<(Token, Range<usize>), QueryFlaw> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.next).is_some_and(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')) {
            self.next += 1;
        }
        let start = self.next;
        let length = bytes[start..].iter().take_while(|b| is_permission_byte(**b)).count();
        let word = &self.text[start..start + length];
        let (token, length) = match bytes.get(start) {
            None => (Token::End, 0),
            Some(b'(') => (Token::Open, 1),
            Some(b')') => (Token::Close, 1),
            Some(_) if length == 0 => return Err(stray(self.text, start)),
            Some(_) if word.eq_ignore_ascii_case("and") => (Token::And, length),
            Some(_) if word.eq_ignore_ascii_case("or") => (Token::Or, length),
            Some(_) => (Token::Permission, length),
        };
        Ok((token, start..start + length))
    }
}

fn joined(mut operands: Vec<Expr>, join: fn(Vec<Expr>) -> Expr) -> Expr {
    match operands.len() {
        1 => operands.swap_remove(0),
        _ => join(operands),
    }
}

fn stray(text: &str, position: usize) -> QueryFlaw {
    let code = text[position..].chars().next().map_or(0, u32::from);
    flaw(position, format!("must not contain the character U+{code:04X}"))
}

fn flaw(position: usize, what: impl Into<std::borrow::Cow<'static, str>>) -> QueryFlaw {
    QueryFlaw { position, what: Flaw::new(what) }
}

#[cfg(test)]
mod tests;
