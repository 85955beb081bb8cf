//! The overlay device: made by the overlay engine, addressed here.
use crate::{Links, LinksError, links::netlink, sysctl};
use rtnetlink::{LinkUnspec, packet_route::link::LinkAttribute};
use std::net::IpAddr;

impl Links {
    /// Sets MTU (bytes) and addresses of an existing device, and sets it up. Each address stands
    /// alone (/32, /128), since the programs send into the device, not routes. Other addresses on it
    /// are removed. Returns its index.
    ///
    /// # Errors
    /// [`LinksError::NoLink`] when there is no such device, or when the kernel refuses.
    pub async fn set_up(
        &self,
        device: &str,
        mtu: u32,
        addresses: &[IpAddr],
    ) -> Result<u32, LinksError> {
        let link = self.find(device).await?.ok_or_else(|| LinksError::NoLink(device.into()))?;
        let index = link.header.index;
        sysctl::set_overlay(device)?;
        let has_mtu = link.attributes.contains(&LinkAttribute::Mtu(mtu));
        let change = LinkUnspec::new_with_index(index);
        let change = if has_mtu { change } else { change.mtu(mtu) };
        self.handle
            .link()
            .set(change.up().build())
            .execute()
            .await
            .map_err(netlink("set up", device))?;
        let present = self.addresses(Some(index)).await?;
        for address in addresses {
            let length = if address.is_ipv4() { 32 } else { 128 };
            self.add_address(index, (*address, length)).await?;
        }
        for (_, (address, length)) in present {
            if !addresses.contains(&address) {
                self.remove_address(index, (address, length)).await?;
            }
        }
        Ok(index)
    }

    async fn remove_address(&self, index: u32, on: (IpAddr, u8)) -> Result<(), LinksError> {
        let message = self.handle.address().add(index, on.0, on.1).message_mut().clone();
        self.handle.address().del(message).execute().await.map_err(netlink("remove address", on.0))
    }
}
