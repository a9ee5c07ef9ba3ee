//! The one network interface: a fixed address, and no way further than its own network.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;

use crate::{Error, files, sys};

const INTERFACE: &str = "eth0";

fn mask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0))
}

/// Sets the interface up. There is no gateway and no name server: the guest answers, and asks nobody.
pub fn bring_up(address: Ipv4Addr, prefix: u8) -> Result<(), Error> {
    files::wait_for(Path::new("/sys/class/net").join(INTERFACE), "a virtio network interface")?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(Error::step("network"))?;
    sys::bring_up(&socket, "lo").map_err(Error::step("network: lo"))?;
    sys::set_address(&socket, INTERFACE, address, mask(prefix)).map_err(Error::step("network: address"))?;
    sys::bring_up(&socket, INTERFACE).map_err(Error::step("network: eth0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_those_of_the_prefix() {
        let masks = [8, 24, 30].map(|prefix| mask(prefix).to_string());
        assert_eq!(masks, ["255.0.0.0", "255.255.255.0", "255.255.255.252"]);
    }
}
