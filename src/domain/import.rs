//! Keys that were issued elsewhere: known by a digest only, of whatever algorithm it was made with.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest as _, Sha256, Sha512};

use super::Flaw;
use super::secret::{Digest, Secret};

/// How a digest was made of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256 of the whole secret.
    Sha256,
    /// SHA-512 of the whole secret.
    Sha512,
    /// SHA-256 of what stands behind the last underscore: the long token of a prefixed API key.
    LongToken,
}

impl Algorithm {
    /// All of them, in the order in which a presented secret is tried.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha512, Self::LongToken];

    /// What a presented secret is found by if its digest was made like this; none if it has no such part.
    pub fn digest(self, secret: &Secret) -> Option<Digest> {
        let text = secret.expose();
        match self {
            Self::Sha256 => Some(secret.digest()),
            Self::Sha512 => Some(self.filed(&Sha512::digest(text.as_bytes()))),
            Self::LongToken => {
                let (_, token) = text.rsplit_once('_')?;
                (!token.is_empty()).then(|| self.filed(&Sha256::digest(token.as_bytes())))
            }
        }
    }

    /// What a digest is filed under. Each algorithm has its own names, so that a digest made in one way never answers
    /// for a secret in another.
    fn filed(self, digest: &[u8]) -> Digest {
        let label: &[u8] = match self {
            Self::Sha256 => return Digest::from_bytes(digest.try_into().unwrap_or([0; 32])),
            Self::Sha512 => b"ostiary: sha-512\0",
            Self::LongToken => b"ostiary: long token\0",
        };
        Digest::from_bytes(Sha256::new().chain_update(label).chain_update(digest).finalize().into())
    }
}

/// How a digest is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Two hexadecimal digits a byte, in any case.
    Hex,
    /// Base64, standard or URL-safe, padded or not.
    Base64,
}

/// Reads a digest as it was exported, and files it.
pub fn parse(text: &str, algorithm: Algorithm, encoding: Encoding) -> Result<Digest, Flaw> {
    let length = match algorithm {
        Algorithm::Sha256 | Algorithm::LongToken => 32,
        Algorithm::Sha512 => 64,
    };
    // Length first: what is sent may be long.
    let fits = text.len() <= 2 * length;
    let bytes = match encoding {
        Encoding::Hex => fits.then(|| from_hex(text)).flatten(),
        Encoding::Base64 => fits.then(|| from_base64(text)).flatten(),
    };
    let bytes = bytes.filter(|bytes| bytes.len() == length).ok_or_else(|| {
        Flaw::new(match encoding {
            Encoding::Hex => format!("must be {} hexadecimal digits", 2 * length),
            Encoding::Base64 => format!("must be {length} bytes in base64"),
        })
    })?;
    Ok(algorithm.filed(&bytes))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
    GeneralPurpose::new(alphabet, config).decode(text).ok()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn presented(text: &str) -> Secret {
        Secret::presented(text.to_owned())
    }

    #[test]
    fn a_secret_is_found_by_a_digest_made_elsewhere() {
        let text = "sk_example_from_elsewhere";
        let secret = presented(text);
        let sha256 = Sha256::digest(text);
        for spelled in [hex(&sha256), hex(&sha256).to_uppercase()] {
            let filed = parse(&spelled, Algorithm::Sha256, Encoding::Hex).unwrap();
            assert_eq!(Algorithm::Sha256.digest(&secret), Some(filed));
        }
        for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
            let filed = parse(&engine.encode(sha256), Algorithm::Sha256, Encoding::Base64).unwrap();
            assert_eq!(Algorithm::Sha256.digest(&secret), Some(filed));
        }
        let filed = parse(&hex(&Sha512::digest(text)), Algorithm::Sha512, Encoding::Hex).unwrap();
        assert_eq!(Algorithm::Sha512.digest(&secret), Some(filed));
        let filed = parse(&hex(&Sha256::digest("elsewhere")), Algorithm::LongToken, Encoding::Hex).unwrap();
        assert_eq!(Algorithm::LongToken.digest(&secret), Some(filed));
    }

    #[test]
    fn a_digest_answers_only_for_its_own_algorithm() {
        // A secret that is nothing but somebody's long token is not their key.
        let filed = parse(&hex(&Sha256::digest("token")), Algorithm::LongToken, Encoding::Hex).unwrap();
        assert_ne!(Algorithm::Sha256.digest(&presented("token")), Some(filed));
        assert_eq!(Algorithm::LongToken.digest(&presented("token")), None);
        assert_eq!(Algorithm::LongToken.digest(&presented("prefix_")), None);
    }

    #[test]
    fn what_is_no_digest_is_refused_with_its_length() {
        for (text, algorithm, encoding) in [
            (String::new(), Algorithm::Sha256, Encoding::Hex),
            ("0".repeat(63), Algorithm::Sha256, Encoding::Hex),
            ("0".repeat(65), Algorithm::Sha256, Encoding::Hex),
            ("g".repeat(64), Algorithm::LongToken, Encoding::Hex),
            ("0".repeat(64), Algorithm::Sha512, Encoding::Hex),
            ("\u{e9}".repeat(32), Algorithm::Sha256, Encoding::Hex),
            ("A".repeat(42), Algorithm::Sha256, Encoding::Base64),
            ("=".repeat(44), Algorithm::Sha256, Encoding::Base64),
            ("0".repeat(1_000_000), Algorithm::Sha256, Encoding::Hex),
        ] {
            assert!(parse(&text, algorithm, encoding).is_err(), "{}", text.len());
        }
    }
}
