//! Image names: parsing and the normal form (`docker.io/library/` and `:latest` filled in). Pure.

use std::fmt;

use crate::digest::hex_of;
use crate::error::ImageError;

/// Longest name accepted, in bytes (the distribution specification's limit for a repository).
const MAX_NAME: usize = 255;
/// Longest tag, in bytes (distribution specification).
const MAX_TAG: usize = 128;

/// An image name in normal form: registry and path, with a tag or a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Registry and path, e.g. `docker.io/library/busybox`.
    pub repository: String,
    /// The tag; `latest` where none was given and there is no digest.
    pub tag: Option<String>,
    /// `sha256:…` if the name pins one.
    pub digest: Option<String>,
}

impl Reference {
    /// Reads a name as a user types it: `busybox`, `a/b:1`, `host:5000/x@sha256:…`.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let bad = |reason| ImageError::InvalidReference { reference: text.to_owned(), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, d)) => {
                hex_of(d).ok_or_else(|| {
                    bad("the part after '@' must be sha256: and 64 lower-case hex digits")
                })?;
                (rest, Some(d.to_owned()))
            }
            None => (text, None),
        };
        // A colon after the last slash starts the tag; one before it belongs to a port.
        let slash = rest.rfind('/').map_or(0, |i| i + 1);
        let (name, tag) = match rest[slash..].find(':') {
            Some(i) => (&rest[..slash + i], Some(&rest[slash + i + 1..])),
            None => (rest, None),
        };
        if name.is_empty() {
            return Err(bad("the name is empty"));
        }
        if name.len() > MAX_NAME {
            return Err(bad("the name is longer than 255 characters"));
        }
        if let Some(tag) = tag
            && !valid_tag(tag)
        {
            return Err(bad(
                "a tag is 1 to 128 letters, digits, '_', '.' or '-', not starting with '.' or '-'",
            ));
        }
        let (domain, path) = match name.split_once('/') {
            Some((d, p)) if d.contains(['.', ':']) || d == "localhost" => (d, p),
            _ => ("docker.io", name),
        };
        let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
        if !domain.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b)) {
            return Err(bad("the registry must be a host name with an optional port"));
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad("repository name must be lowercase"));
        }
        if !path.split('/').all(valid_component) {
            return Err(bad(
                "each part of the name is lower-case letters and digits, joined by '.', '_' or '-'",
            ));
        }
        let library = domain == "docker.io" && !path.contains('/');
        let repository = format!("{domain}/{}{path}", if library { "library/" } else { "" });
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { repository, tag, digest })
    }

    /// The repository as Docker prints it: without `docker.io/` and `library/`.
    pub fn familiar_repository(&self) -> &str {
        let short = self.repository.strip_prefix("docker.io/").unwrap_or(&self.repository);
        short
            .strip_prefix("library/")
            .filter(|_| short.len() < self.repository.len())
            .unwrap_or(short)
    }

    /// The name as Docker prints it, e.g. `busybox:latest`.
    pub fn familiar(&self) -> String {
        suffixed(self.familiar_repository(), self.tag.as_deref(), self.digest.as_deref())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&suffixed(&self.repository, self.tag.as_deref(), self.digest.as_deref()))
    }
}

fn suffixed(name: &str, tag: Option<&str>, digest: Option<&str>) -> String {
    let tag = tag.map(|t| format!(":{t}")).unwrap_or_default();
    let digest = digest.map(|d| format!("@{d}")).unwrap_or_default();
    format!("{name}{tag}{digest}")
}

fn valid_tag(tag: &str) -> bool {
    (1..=MAX_TAG).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn valid_component(part: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !part.is_empty()
        && part.bytes().all(|b| alnum(b) || b"._-".contains(&b))
        && part.bytes().next().is_some_and(alnum)
        && part.bytes().last().is_some_and(alnum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(s: &str) -> String {
        Reference::parse(s).unwrap().to_string()
    }

    #[test]
    fn short_names_gain_registry_library_and_tag() {
        assert_eq!(normal("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(normal("me/web:1"), "docker.io/me/web:1");
        assert_eq!(normal("localhost/x"), "localhost/x:latest");
        assert_eq!(normal("reg.example:5000/a/b"), "reg.example:5000/a/b:latest");
        assert_eq!(
            normal("docker.io/busybox:2"),
            "docker.io/busybox:2".replace("io/", "io/library/")
        );
    }

    #[test]
    fn a_digest_needs_no_tag() {
        let d = format!("sha256:{}", "a".repeat(64));
        assert_eq!(normal(&format!("x@{d}")), format!("docker.io/library/x@{d}"));
        assert_eq!(normal(&format!("x:1@{d}")), format!("docker.io/library/x:1@{d}"));
    }

    #[test]
    fn familiar_names_hide_only_the_default_registry() {
        let familiar = |s: &str| Reference::parse(s).unwrap().familiar();
        assert_eq!(familiar("docker.io/library/busybox:1"), "busybox:1");
        assert_eq!(familiar("docker.io/me/web"), "me/web:latest");
        assert_eq!(familiar("example.org/library/x"), "example.org/library/x:latest");
    }

    #[test]
    fn bad_names_say_what_is_wrong() {
        for (name, words) in [
            ("", "empty"),
            ("Busybox", "lowercase"),
            ("a:b:c", "tag"),
            ("a//b", "each part"),
            ("x@sha256:12", "64 lower-case hex"),
            ("-x", "each part"),
        ] {
            let e = Reference::parse(name).unwrap_err().to_string();
            assert!(e.starts_with("invalid reference format") && e.contains(words), "{name}: {e}");
        }
    }
}
