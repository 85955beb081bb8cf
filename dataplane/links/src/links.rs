//! The netlink handle and what is asked of it everywhere.
use crate::LinksError;
use futures_util::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags},
    link::{LinkAttribute, LinkMessage},
};
use std::net::IpAddr;

/// Netlink in one network namespace.
#[derive(Clone, Debug)]
pub struct Links {
    pub(crate) handle: Handle,
}

/// An address on a link, with the length of its prefix.
pub(crate) type OnLink = (IpAddr, u8);

impl Links {
    /// Opens a socket in the calling thread's network namespace and spawns the task that serves it.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn new() -> Result<Links, LinksError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinksError::Socket)?;
        tokio::spawn(connection);
        Ok(Links { handle })
    }

    /// Removes a link; both ends when it is a veth. Nothing there is success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove(&self, ifname: &str) -> Result<(), LinksError> {
        let Some(link) = self.find(ifname).await? else { return Ok(()) };
        match self.handle.link().del(link.header.index).execute().await {
            Err(e) if errno(&e) == Some(libc::ENODEV) => Ok(()),
            other => other.map_err(netlink("remove link", ifname)),
        }
    }

    /// Names of the links that begin with `prefix`, sorted. For finding those of no task.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn names_with_prefix(&self, prefix: &str) -> Result<Vec<String>, LinksError> {
        let mut names: Vec<String> =
            self.all().await?.iter().filter_map(name).filter(|n| n.starts_with(prefix)).collect();
        names.sort();
        Ok(names)
    }

    /// Index of a link.
    ///
    /// # Errors
    /// [`LinksError::NoLink`] when there is none.
    pub async fn index(&self, ifname: &str) -> Result<u32, LinksError> {
        let link = self.find(ifname).await?;
        link.map(|l| l.header.index).ok_or_else(|| LinksError::NoLink(ifname.into()))
    }

    pub(crate) async fn find(&self, ifname: &str) -> Result<Option<LinkMessage>, LinksError> {
        let mut found = self.handle.link().get().match_name(ifname.to_string()).execute();
        match found.try_next().await {
            Err(e) if errno(&e) == Some(libc::ENODEV) => Ok(None),
            other => other.map_err(netlink("find link", ifname)),
        }
    }

    pub(crate) async fn all(&self) -> Result<Vec<LinkMessage>, LinksError> {
        let links = self.handle.link().get().execute();
        links.try_collect().await.map_err(netlink("list", "links"))
    }

    /// Puts an address on a link, without duplicate address detection and without a route for its
    /// prefix.
    pub(crate) async fn add_address(&self, index: u32, on: OnLink) -> Result<(), LinksError> {
        let mut request = self.handle.address().add(index, on.0, on.1).replace();
        let message = request.message_mut();
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute));
        message.header.flags |= AddressHeaderFlags::Nodad;
        request.execute().await.map_err(netlink("add address", on.0))
    }

    /// Addresses on all links, or on one, with the index of the link.
    pub(crate) async fn addresses(
        &self,
        index: Option<u32>,
    ) -> Result<Vec<(u32, OnLink)>, LinksError> {
        let mut request = self.handle.address().get();
        if let Some(index) = index {
            request = request.set_link_index_filter(index);
        }
        let messages: Vec<_> =
            request.execute().try_collect().await.map_err(netlink("list", "addresses"))?;
        Ok(messages
            .into_iter()
            .filter(|m| matches!(m.header.family, AddressFamily::Inet | AddressFamily::Inet6))
            .filter_map(|m| {
                // On a point-to-point link IFA_ADDRESS is the peer's, IFA_LOCAL one's own.
                let local = m.attributes.iter().find_map(|a| match a {
                    AddressAttribute::Local(ip) => Some(*ip),
                    _ => None,
                });
                let address = local.or_else(|| {
                    m.attributes.iter().find_map(|a| match a {
                        AddressAttribute::Address(ip) => Some(*ip),
                        _ => None,
                    })
                })?;
                Some((m.header.index, (address, m.header.prefix_len)))
            })
            .collect())
    }
}

/// Name of a link as the kernel tells it.
pub(crate) fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

/// Positive error number of the kernel's answer.
pub(crate) fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|c| -c.get()),
        _ => None,
    }
}

/// Names action and object of a failed request.
pub(crate) fn netlink(
    action: &'static str,
    object: impl ToString,
) -> impl FnOnce(rtnetlink::Error) -> LinksError {
    move |source| LinksError::Netlink { action, object: object.to_string(), source }
}
