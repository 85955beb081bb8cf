//! What a node trusts: the cluster's root, and while it is rotated the next one as well.

use crate::{
    IdentityError, RootCertificate, RootDigest,
    certificate::{MAX_PEM, ders_of},
    der,
};

/// Roots a node trusts at once.
const MOST: usize = 2;

/// One root, or two while the root is rotated: the one in force first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trust(Vec<RootCertificate>);

impl Trust {
    /// Two roots; one if both are the same.
    pub fn both(present: RootCertificate, next: RootCertificate) -> Trust {
        match present == next {
            true => Trust(vec![present]),
            false => Trust(vec![present, next]),
        }
    }

    /// Reads one or two root certificates in PEM form, one after another.
    pub fn from_pem(text: &str) -> Result<Trust, IdentityError> {
        const WHAT: &str = "root certificate";
        if text.len() > MAX_PEM {
            return Err(IdentityError::invalid(WHAT, "it is too long"));
        }
        let roots = ders_of(WHAT, text, MOST)?;
        let roots =
            roots.iter().map(|der| RootCertificate::from_pem(&der::pem("CERTIFICATE", der)));
        Ok(Trust(roots.collect::<Result<_, _>>()?))
    }

    /// All of them in PEM form.
    pub fn pem(&self) -> String {
        self.0.iter().map(RootCertificate::pem).collect()
    }

    /// The root in force.
    pub fn present(&self) -> &RootCertificate {
        &self.0[0]
    }

    /// All of them, the one in force first.
    pub fn roots(&self) -> &[RootCertificate] {
        &self.0
    }

    /// Their digests, for messages and reports.
    pub fn digests(&self) -> Vec<RootDigest> {
        self.0.iter().map(RootCertificate::digest).collect()
    }
}

impl From<RootCertificate> for Trust {
    fn from(root: RootCertificate) -> Trust {
        Trust(vec![root])
    }
}
