//! Where pages come from, as browsers say it.

use std::fmt;
use std::str::FromStr;

use http::uri::Scheme;
use http::{HeaderValue, Uri};

/// A scheme, a host and perhaps a port: `https://app.example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(HeaderValue);

impl Origin {
    /// As browsers send it.
    pub const fn header(&self) -> &HeaderValue {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url: Option<Uri> = text.parse().ok();
        let fit = url.filter(|url| {
            let by_http = url.scheme().is_some_and(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme));
            let authority = url.authority().map(ToString::to_string).unwrap_or_default();
            // A browser says no more than that, and all of it in lower case.
            let scheme = url.scheme_str().unwrap_or_default();
            let whole = format!("{scheme}://{authority}") == text && text == text.to_ascii_lowercase();
            by_http && whole && !authority.contains(['@', '*'])
        });
        let header = fit.and_then(|_| HeaderValue::from_str(text).ok());
        header.map(Self).ok_or_else(|| "must be like https://app.example.com, without a path".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_says() {
        for good in ["https://app.example.com", "http://localhost:3000", "http://[::1]:8080"] {
            assert_eq!(good.parse::<Origin>().map(|origin| origin.to_string()).as_deref(), Ok(good));
        }
        let bad =
            ["", "*", "app.example.com", "https://", "https://a/", "https://a/b", "https://A", "https://*.a", "null"];
        for bad in bad.into_iter().chain(["https://me@a", "ftp://a", " https://a"]) {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }
}
