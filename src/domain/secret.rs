//! Secrets: what proves who a caller is.
//!
//! A secret is `<prefix>_<33 base62 characters: 192 bits><6 base62 characters: CRC-32>`.
//! The checksum refuses typing errors and random probes before anything is looked up; it adds no strength.
//! Of a root key all 192 bits are random. Of an API key the first 64 are its [`Handle`], by which its record is found
//! without an index, and the other 128 are random.
//! A secret is shown once. What is kept is its [`Digest`] and its start, so nothing here prints one.

use std::borrow::Cow;
use std::fmt;

use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

use super::Flaw;

/// The most characters of an issued secret: with them SHA-256 works on a single block.
pub const SECRET_LENGTH_MAX: usize = PREFIX_LENGTH_MAX + 1 + TAIL_LENGTH;
/// The most characters of a prefix.
pub const PREFIX_LENGTH_MAX: usize = 15;

/// What is in a secret besides its prefix: 192 bits.
const BODY_BYTES: usize = 24;
/// Base62 characters that hold them.
const BODY_LENGTH: usize = 33;
/// Base62 characters that hold a CRC-32.
const CHECKSUM_LENGTH: usize = 6;
/// Characters after the last underscore.
const TAIL_LENGTH: usize = BODY_LENGTH + CHECKSUM_LENGTH;
/// Characters of those that may be shown, so that people can tell their keys apart.
const SHOWN_LENGTH: usize = 4;
/// The digits of base62, in the order of their values.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The prefix of root keys, which no API key may have.
const ROOT_KEY_PREFIX: &str = "ostiary";
/// The prefix of API keys for which nobody chose one.
const DEFAULT_PREFIX: &str = "key";

/// What stands before the last underscore of a secret and says whose it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Cow<'static, str>);

impl Prefix {
    /// A prefix for API keys: 1 to 15 of `[A-Za-z0-9_]`, not ending in `_`, and not that of root keys.
    pub fn new(text: &str) -> Result<Self, Flaw> {
        if !is_prefix(text) {
            return Err(Flaw::new(format!(
                "must be 1 to {PREFIX_LENGTH_MAX} characters of A-Z, a-z, 0-9 and _, and must not end in _"
            )));
        }
        if text == ROOT_KEY_PREFIX {
            return Err(Flaw::new(format!("must not be {ROOT_KEY_PREFIX}, which marks root keys")));
        }
        Ok(Self(text.to_owned().into()))
    }

    /// The prefix of every root key.
    pub const fn root_key() -> Self {
        Self(Cow::Borrowed(ROOT_KEY_PREFIX))
    }

    /// The text of the prefix, without the underscore that follows it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `key`: for API keys whose API names no other.
impl Default for Prefix {
    fn default() -> Self {
        Self(Cow::Borrowed(DEFAULT_PREFIX))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The plaintext of a root key or an API key. Wiped from memory when dropped; its `Debug` hides it.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// A new secret of an API key, from where its record lies and 128 random bits.
    pub fn issue_with(prefix: &Prefix, handle: Handle, random: [u8; 16]) -> Self {
        let random = Zeroizing::new(random);
        let mut body = Zeroizing::new([0; BODY_BYTES]);
        body[..HANDLE_BYTES].copy_from_slice(&handle.turned());
        body[HANDLE_BYTES..].copy_from_slice(random.as_slice());
        Self::issue(prefix, *body)
    }

    /// A new secret from 192 random bits.
    pub fn issue(prefix: &Prefix, random: [u8; BODY_BYTES]) -> Self {
        let random = Zeroizing::new(random);
        // Room for all of it from the start: growing would leave copies behind that nobody wipes.
        let mut text = Zeroizing::new(String::with_capacity(SECRET_LENGTH_MAX));
        text.push_str(prefix.as_str());
        text.push('_');
        push_base62(&mut text, *random);
        let checksum = crc32fast::hash(text.as_bytes());
        text.extend(checksum_digits(checksum).map(char::from));
        Self(text)
    }

    /// What a caller presented as a secret, of whatever shape.
    pub fn presented(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The plaintext, for the one answer that delivers it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored instead, and what it is found by.
    pub fn digest(&self) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, self.0.as_bytes()).as_ref());
        Digest(bytes)
    }

    /// Where the record lies if this is the secret of an API key. Anybody can make one up: it proves nothing.
    pub fn handle(&self) -> Option<Handle> {
        let (_, tail) = self.parts()?;
        let body = Zeroizing::new(from_base62(&tail[..BODY_LENGTH])?);
        Some(Handle::turned_back(*body.first_chunk()?))
    }

    /// What may be shown: the prefix, `_` and 4 characters. Of a text that was not issued here: nothing.
    pub fn start(&self) -> String {
        match self.parts() {
            Some((prefix, tail)) => format!("{prefix}_{}", &tail[..SHOWN_LENGTH]),
            None => String::new(),
        }
    }

    /// Whether it has the shape of an issued secret and its checksum holds.
    pub fn well_formed(&self) -> bool {
        self.parts().is_some_and(|_| {
            let (body, written) = self.0.split_at(self.0.len() - CHECKSUM_LENGTH);
            checksum_digits(crc32fast::hash(body.as_bytes())).as_slice() == written.as_bytes()
        })
    }

    /// Whether exactly this prefix stands before the last underscore.
    pub fn has_prefix(&self, prefix: &Prefix) -> bool {
        self.0.rsplit_once('_').is_some_and(|(before, _)| before == prefix.as_str())
    }

    /// The prefix and what follows its underscore, if the shape is that of an issued secret.
    fn parts(&self) -> Option<(&str, &str)> {
        // Length first: what a stranger sends may be long.
        if self.0.len() > SECRET_LENGTH_MAX {
            return None;
        }
        let (before, tail) = self.0.split_at_checked(self.0.len().checked_sub(TAIL_LENGTH)?)?;
        let prefix = before.strip_suffix('_')?;
        // All are looked at, several at a time, rather than one after the other as long as they are right.
        let shaped = tail.bytes().fold(true, |shaped, byte| shaped & byte.is_ascii_alphanumeric());
        (shaped && is_prefix(prefix)).then_some((prefix, tail))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Bytes of a handle.
const HANDLE_BYTES: usize = 8;

/// Where the record of an API key lies among those of its workspace: what the key's id begins with, 48 bits of time and
/// 16 that tell those of a millisecond apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle(pub [u8; HANDLE_BYTES]);

impl Handle {
    /// As it stands in a secret: what tells keys apart comes first, since a secret's first characters are shown.
    fn turned(self) -> [u8; HANDLE_BYTES] {
        let mut bytes = self.0;
        bytes.reverse();
        bytes
    }

    fn turned_back(mut bytes: [u8; HANDLE_BYTES]) -> Self {
        bytes.reverse();
        Self(bytes)
    }
}

/// The SHA-256 of a whole secret: enough to recognise it, useless for presenting it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the digest.
    pub const fn bytes(self) -> [u8; 32] {
        self.0
    }
}

/// The first 4 bytes in hexadecimal: enough to tell digests apart in a log.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "Digest({a:02x}{b:02x}{c:02x}{d:02x})")
    }
}

/// A text that a caller sent, as it may be repeated to them: of a secret that got where it does not belong, its start.
pub fn fit_to_show(text: &str) -> Cow<'_, str> {
    let presented = Secret::presented(text.to_owned());
    if presented.well_formed() { Cow::Owned(format!("{}...", presented.start())) } else { Cow::Borrowed(text) }
}

fn is_prefix(text: &str) -> bool {
    (1..=PREFIX_LENGTH_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !text.ends_with('_')
}

/// Writes a big-endian number of 192 bits as 33 digits.
fn push_base62(text: &mut String, number: [u8; BODY_BYTES]) {
    let mut number = Zeroizing::new(number);
    let mut digits = Zeroizing::new([0; BODY_LENGTH]);
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0;
        for byte in number.iter_mut() {
            let value = remainder * 256 + u16::from(*byte);
            // The remainder is below 62, so the quotient is below 256.
            *byte = (value / 62) as u8;
            remainder = value % 62;
        }
        *digit = ALPHABET[usize::from(remainder)];
    }
    text.extend(digits.iter().map(|digit| char::from(*digit)));
}

/// Reads what [`push_base62`] has written; none if it is more than 192 bits.
fn from_base62(digits: &str) -> Option<[u8; BODY_BYTES]> {
    let mut limbs = Zeroizing::new([0_u64; BODY_BYTES / 8]);
    for digit in digits.bytes() {
        let mut carry = u128::from(base62_value(digit)?);
        for limb in limbs.iter_mut().rev() {
            let value = u128::from(*limb) * 62 + carry;
            *limb = value as u64;
            carry = value >> 64;
        }
        if carry > 0 {
            return None;
        }
    }
    let mut number = [0; BODY_BYTES];
    for (bytes, limb) in number.chunks_exact_mut(8).zip(limbs.iter()) {
        bytes.copy_from_slice(&limb.to_be_bytes());
    }
    Some(number)
}

/// What a digit stands for in [`ALPHABET`].
fn base62_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'Z' => Some(digit - b'A' + 10),
        b'a'..=b'z' => Some(digit - b'a' + 36),
        _ => None,
    }
}

/// Writes a checksum as 6 digits.
fn checksum_digits(mut checksum: u32) -> [u8; CHECKSUM_LENGTH] {
    let mut digits = [0; CHECKSUM_LENGTH];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(checksum % 62) as usize];
        checksum /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> Prefix {
        Prefix::new("example").unwrap()
    }

    #[test]
    fn the_secret_of_a_key_says_where_its_record_lies_and_shows_what_tells_it_apart() {
        let prefix = example();
        let first = Handle([1, 2, 3, 4, 5, 6, 0, 7]);
        let next = Handle([1, 2, 3, 4, 5, 6, 0, 8]);
        let secrets = [first, next].map(|handle| Secret::issue_with(&prefix, handle, [9; 16]));
        assert_eq!(secrets.each_ref().map(|secret| secret.handle()), [Some(first), Some(next)]);
        assert_ne!(secrets[0].start(), secrets[1].start());
        // What is shown is of the handle alone.
        assert_eq!(Secret::issue_with(&prefix, first, [10; 16]).start(), secrets[0].start());
    }

    #[test]
    fn only_what_could_have_been_issued_says_where_to_look() {
        assert_eq!(presented("from elsewhere").handle(), None);
        assert_eq!(presented(&format!("example_{}", "z".repeat(TAIL_LENGTH))).handle(), None, "more than 192 bits");
        let most = Secret::issue(&example(), [0xff; 24]);
        assert_eq!(most.handle(), Some(Handle([0xff; 8])));
    }

    fn presented(text: &str) -> Secret {
        Secret::presented(text.to_owned())
    }

    #[test]
    fn of_a_secret_in_the_wrong_place_only_the_start_is_shown() {
        let secret = Secret::issue(&example(), [7; 24]);
        assert_eq!(fit_to_show(secret.expose()), format!("{}...", secret.start()));
        let no_secret = &secret.expose()[1..];
        assert_eq!(fit_to_show(no_secret), no_secret);
        assert_eq!(fit_to_show("editor"), "editor");
    }

    #[test]
    fn issued_secrets_are_those_that_another_implementation_computes() {
        let counting: [u8; 24] = std::array::from_fn(|i| i as u8);
        for (random, text) in [
            ([0; 24], "example_0000000000000000000000000000000003pNMJf"),
            ([0xff; 24], "example_2lFA6LboL2xx0ldQH2K1TdSrwuqMMiME34UmzWw"),
            (counting, "example_000A7dl5PEW67zZCpFU9uKaHnGgOvQKAR0wG25e"),
        ] {
            assert_eq!(Secret::issue(&example(), random).expose(), text);
        }
    }

    #[test]
    fn the_digest_is_sha_256_of_the_whole_secret() {
        let digest = Secret::issue(&example(), [0; 24]).digest();
        let hex: String = digest.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "1991de0f59e65f4a0b8d7eec8c71d5dc25ce1d193ef157212011fad56a097119");
        assert_eq!(Digest::from_bytes(digest.bytes()), digest);
    }

    #[test]
    fn printing_for_debugging_hides_the_secret() {
        let secret = Secret::issue(&example(), [0xff; 24]);
        assert_eq!(format!("{secret:?}"), "Secret(hidden)");
        assert_eq!(format!("{:?}", Digest::from_bytes([0xab; 32])), "Digest(abababab)");
    }

    #[test]
    fn the_start_shows_the_prefix_and_four_characters() {
        assert_eq!(Secret::issue(&example(), [0xff; 24]).start(), "example_2lFA");
        assert_eq!(presented("of_another_make").start(), "");
    }

    #[test]
    fn a_secret_of_another_shape_is_not_well_formed() {
        let good = Secret::issue(&example(), [0xff; 24]);
        assert!(good.well_formed());
        let text = good.expose();
        for bad in [
            String::new(),
            "_".to_owned(),
            text.trim_start_matches("example").to_owned(),
            text.replace("example_", "example__"),
            text.replace("example_", "exampl\u{e9}_"),
            text.replace("example_", "example_of_length_16_"),
            text.replace('_', ""),
            text.replace("2lFA", "2lF\u{e9}"),
            format!("{text}0"),
            format!("{text}\n"),
            format!(" {text}"),
            text[..text.len() - 1].to_owned(),
            "\u{e9}".repeat(20),
            "x".repeat(1_000_000),
        ] {
            assert!(!presented(&bad).well_formed(), "{bad}");
        }
    }

    #[test]
    fn a_well_formed_secret_fits_one_block_of_sha_256() {
        let longest = Secret::issue(&Prefix::new("fifteen_letters").unwrap(), [0xff; 24]);
        assert_eq!(longest.expose().len(), 55);
        assert!(longest.well_formed());
    }

    #[test]
    fn a_prefix_is_recognised_as_a_whole() {
        let secret = Secret::issue(&Prefix::new("my_app").unwrap(), [1; 24]);
        assert!(secret.has_prefix(&Prefix::new("my_app").unwrap()));
        assert!(!secret.has_prefix(&Prefix::new("my").unwrap()));
        assert!(!secret.has_prefix(&Prefix::root_key()));
        assert!(Secret::issue(&Prefix::root_key(), [1; 24]).has_prefix(&Prefix::root_key()));
        assert!(!presented("ostiary").has_prefix(&Prefix::root_key()));
    }

    #[test]
    fn prefixes_are_short_words_other_than_that_of_root_keys() {
        for good in ["a", "_a", "a_b", "sk_live", "0", "Ostiary", "fifteen_letters"] {
            assert_eq!(Prefix::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "_", "a_", "a-b", "a b", "\u{e9}", "sixteen__letters", "ostiary", "a\0"] {
            assert!(Prefix::new(bad).is_err(), "{bad}");
        }
        assert_eq!(Prefix::default().to_string(), "key");
    }

    proptest! {
        #[test]
        fn every_issued_secret_is_well_formed_and_no_single_typing_error_is(
            random: [u8; 24],
            prefix in "[A-Za-z0-9_]{0,14}[A-Za-z0-9]",
            at: prop::sample::Index,
            typed in "[A-Za-z0-9_]",
        ) {
            prop_assume!(prefix != "ostiary");
            let secret = Secret::issue(&Prefix::new(&prefix).unwrap(), random);
            prop_assert!(secret.well_formed());
            let mut text = secret.expose().to_owned();
            let at = at.index(text.len());
            text.replace_range(at..=at, &typed);
            prop_assert_eq!(presented(&text).well_formed(), text == secret.expose());
        }

        #[test]
        fn any_text_can_be_presented(text: String) {
            let secret = presented(&text);
            let _ = (secret.well_formed(), secret.start(), secret.digest(), secret.has_prefix(&Prefix::root_key()));
        }
    }
}
