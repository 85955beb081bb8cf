//! The image of demo, tests and benchmarks: busybox with a web page that tells who answers whom.

use crate::busybox;
use anyhow::{Context as _, bail};
use shoal_images::testimage::busybox_archive;
use std::net::IpAddr;

/// Its name. Without arguments it serves [`Page`]s on port 80; with busybox in it, it serves for
/// anything else, too.
pub const WEB_IMAGE: &str = "shoal-web:1";

/// Ends at once on SIGTERM, which the first process of a container would ignore otherwise.
const COMMAND: &str = "trap 'exit 0' TERM; httpd -f -p 80 -h /www & wait";

/// httpd runs this for `/`. It starts no process but its shell.
const PAGE: &str = "#!/bin/sh\n\
    read -r host </proc/sys/kernel/hostname\n\
    printf 'Content-Type: text/plain\\r\\n\\r\\ntask=%s client=%s\\n' \"$host\" \"$REMOTE_ADDR\"\n";

/// The archive, as `docker save` writes it.
pub fn web_image() -> anyhow::Result<Vec<u8>> {
    let files: [(&str, &[u8], u32); 1] = [("www/cgi-bin/index.cgi", PAGE.as_bytes(), 0o755)];
    busybox_archive(busybox()?, WEB_IMAGE, &["/bin/sh", "-c", COMMAND], &files)
        .context("the test image cannot be made")
}

/// What the web image answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Host name of the container that answered.
    pub task: String,
    /// Whom it saw asking.
    pub client: IpAddr,
}

impl Page {
    /// Reads one line.
    pub fn parse(line: &str) -> anyhow::Result<Self> {
        let Some((task, client)) =
            line.trim().strip_prefix("task=").and_then(|rest| rest.split_once(" client="))
        else {
            bail!("{line:?} is not the test page");
        };
        // httpd writes [::ffff:192.0.2.1] for a client over IPv4.
        let client: IpAddr = client.trim_matches(['[', ']']).parse().context("no address")?;
        Ok(Self { task: task.to_owned(), client: client.to_canonical() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_same_over_either_family_of_socket() {
        let plain = Page::parse("task=a client=192.0.2.1\n").unwrap();
        assert_eq!(Page::parse("task=a client=[::ffff:192.0.2.1]").unwrap(), plain);
        assert_eq!(plain.task, "a");
    }

    #[test]
    fn an_error_page_is_not_taken_for_the_page() {
        assert!(Page::parse("<HTML>404 Not Found").is_err());
    }
}
