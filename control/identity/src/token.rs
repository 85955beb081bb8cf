//! Join tokens: `SWMTKN-1-<digest of the root certificate>-<secret>`.
//!
//! The digest is SHA-256 of the root certificate's DER form; digest and secret (128 random bits) are
//! written in base 36.

use crate::base36;
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

const PREFIX: &str = "SWMTKN-1-";
/// 256 bits need ⌈256 / log₂ 36⌉ digits.
const DIGEST_LEN: usize = 50;
/// 128 bits need ⌈128 / log₂ 36⌉ digits.
const SECRET_LEN: usize = 25;

/// SHA-256 of a root certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RootDigest([u8; 32]);

impl RootDigest {
    /// Digest of a certificate in DER form.
    pub fn of(der: &[u8]) -> RootDigest {
        RootDigest(Sha256::digest(der).into())
    }
}

impl fmt::Display for RootDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base36::encode(&self.0, DIGEST_LEN))
    }
}

/// Why a text is no join token. Never repeats the text, which may hold a secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// Another beginning.
    #[error(
        "invalid join token: it does not begin with {PREFIX}; copy the whole token that `swarm join-token` prints"
    )]
    Prefix,
    /// Not two parts behind the prefix, or of other lengths.
    #[error(
        "invalid join token: {PREFIX} must be followed by {DIGEST_LEN} characters, a hyphen and \
         {SECRET_LEN} characters; copy the whole token that `swarm join-token` prints"
    )]
    Form,
    /// Something else than `0-9a-z`.
    #[error("invalid join token: it may only hold the digits 0-9 and the letters a-z")]
    Characters,
    /// Digits that stand for no digest or secret.
    #[error("invalid join token: its {0} is out of range; copy the token again")]
    Range(&'static str),
}

/// A join token. The secret is wiped when dropped and not shown by `Debug`.
#[derive(Clone)]
pub struct JoinToken {
    digest: RootDigest,
    secret: Zeroizing<[u8; 16]>,
}

impl JoinToken {
    /// A token with a new secret for the cluster with this root certificate.
    pub fn new(digest: RootDigest) -> JoinToken {
        JoinToken { digest, secret: Zeroizing::new(rand::random()) }
    }

    /// Reads a token; white space around it is allowed, since tokens are pasted.
    pub fn parse(text: &str) -> Result<JoinToken, TokenError> {
        let rest = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let (digest, secret) = rest.split_once('-').ok_or(TokenError::Form)?;
        if digest.len() != DIGEST_LEN || secret.len() != SECRET_LEN {
            return Err(TokenError::Form);
        }
        if !(digest.bytes().chain(secret.bytes()))
            .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
        {
            return Err(TokenError::Characters);
        }
        Ok(JoinToken {
            digest: RootDigest(base36::decode(digest).ok_or(TokenError::Range("digest"))?),
            secret: Zeroizing::new(base36::decode(secret).ok_or(TokenError::Range("secret"))?),
        })
    }

    /// The token as users see it.
    pub fn render(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(base36::encode(&*self.secret, SECRET_LEN));
        Zeroizing::new(format!("{PREFIX}{}-{}", self.digest, *secret))
    }

    /// Digest of the root certificate the bearer shall trust.
    pub fn digest(&self) -> RootDigest {
        self.digest
    }

    /// Whether both are the same token; takes the same time wherever they differ.
    pub fn matches(&self, other: &JoinToken) -> bool {
        (self.digest.0.ct_eq(&other.digest.0) & self.secret.ct_eq(&*other.secret)).into()
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("digest", &self.digest).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken::new(RootDigest::of(b"root"))
    }

    #[test]
    fn a_token_has_docker_form_and_reads_back() {
        let token = token();
        let text = token.render();
        let parts: Vec<&str> = text.split('-').collect();
        assert_eq!((parts[0], parts[1], parts[2].len(), parts[3].len()), ("SWMTKN", "1", 50, 25));
        let read = JoinToken::parse(&format!("  {}\n", *text)).unwrap();
        assert!(read.matches(&token));
        assert_eq!(read.digest(), RootDigest::of(b"root"));
    }

    #[test]
    fn tokens_with_another_secret_or_digest_do_not_match() {
        let token = token();
        assert!(!token.matches(&self::token()));
        let other_root = JoinToken { digest: RootDigest::of(b"x"), secret: token.secret.clone() };
        assert!(!token.matches(&other_root));
    }

    #[test]
    fn bad_tokens_say_what_is_wrong() {
        let good = token().render();
        let (head, secret) = good.rsplit_once('-').unwrap();
        let cases = [
            (String::new(), TokenError::Prefix),
            ("SWMTKN-2-1-a-b".into(), TokenError::Prefix),
            (good.to_lowercase(), TokenError::Prefix),
            ("SWMTKN-1-".into(), TokenError::Form),
            (head.into(), TokenError::Form),
            (good[..good.len() - 1].into(), TokenError::Form),
            (format!("{}0", *good), TokenError::Form),
            (format!("{}-0", *good), TokenError::Form),
            (good.replacen("-1-", "-1-0", 1), TokenError::Form),
            (
                format!("{head}-{}", secret.to_uppercase().replace(char::is_numeric, "A")),
                TokenError::Characters,
            ),
            (format!("{head}-{}", "é".repeat(12) + "a"), TokenError::Characters),
            (format!("{PREFIX}{}-{secret}", "z".repeat(50)), TokenError::Range("digest")),
            (format!("{head}-{}", "z".repeat(25)), TokenError::Range("secret")),
        ];
        for (text, error) in cases {
            assert_eq!(JoinToken::parse(&text).unwrap_err(), error, "{text}");
            assert!(error.to_string().starts_with("invalid join token: "), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let token = token();
        let secret = token.render().rsplit_once('-').unwrap().1.to_owned();
        let shown = format!("{token:?}");
        assert!(!shown.contains(&secret) && !shown.contains(&format!("{:?}", *token.secret)));
    }
}
