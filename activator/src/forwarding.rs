//! What the kernel has to do for forwarding: be a router, and give packets of clients this host's address.

use std::io::{self, Write as _};

use anyhow::Context as _;
use ipnet::{Ipv4Net, Ipv6Net};

/// The one table that belongs to us.
const TABLE: &str = "inet turnpike_activator";

/// The nftables table while this lives; removed when dropped.
#[derive(Debug)]
pub(crate) struct Forwarding {
    removed: bool,
}

impl Forwarding {
    /// Puts the table in place of whatever an earlier run left, and switches forwarding on.
    ///
    /// # Errors
    /// When the kernel or `nft` refuses; says what is missing.
    pub(crate) fn set_up(interface: &str, ipv4: Ipv4Net, ipv6: Ipv6Net) -> anyhow::Result<Self> {
        switch_on("/proc/sys/net/ipv4/ip_forward", "IPv4")?;
        switch_on("/proc/sys/net/ipv6/conf/all/forwarding", "IPv6")?;
        nft(&table(interface, ipv4, ipv6)).context("cannot set up source NAT")?;
        tracing::info!(table = TABLE, interface, "source NAT set up");
        Ok(Self { removed: false })
    }

    /// Removes the table.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub(crate) fn remove(mut self) -> anyhow::Result<()> {
        self.removed = true;
        nft(&format!("delete table {TABLE}\n")).context("cannot remove the source NAT")
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        if !self.removed {
            let _ = nft(&format!("delete table {TABLE}\n"));
        }
    }
}

/// One transaction. `add` before `delete` makes it work whether the table is there or not.
///
/// Towards the tunnel only answers pass: nobody in this network can open a connection to a sidecar. What arrives
/// from the tunnel was rewritten by us, so its source is a client; all else is dropped in case it is not.
fn table(interface: &str, ipv4: Ipv4Net, ipv6: Ipv6Net) -> String {
    format!(
        r#"add table {TABLE}
delete table {TABLE}
table {TABLE} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {ipv4} oifname != "{interface}" masquerade
    ip6 saddr {ipv6} oifname != "{interface}" masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname "{interface}" ct state established,related accept
    oifname "{interface}" drop
    iifname "{interface}" ip saddr {ipv4} accept
    iifname "{interface}" ip6 saddr {ipv6} accept
    iifname "{interface}" drop
  }}
}}
"#
    )
}

fn switch_on(path: &str, family: &str) -> anyhow::Result<()> {
    match std::fs::read_to_string(path) {
        Ok(value) if value.trim() != "0" => Ok(()),
        Ok(_) => {
            std::fs::write(path, "1\n").with_context(|| {
                format!(
                    "cannot switch {family} forwarding on; run as root, or write 1 to {path} before"
                )
            })?;
            tracing::info!(
                path,
                "{family} forwarding switched on for this network namespace"
            );
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::warn!(
                path,
                "the kernel has no {family}: services are not reached over it"
            );
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {path}")),
    }
}

fn nft(script: &str) -> anyhow::Result<()> {
    let mut child = service_kit::nft::spawn(&["-f", "-"])?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(script.as_bytes())
            .context("cannot write to `nft`")?;
    }
    let output = child.wait_with_output().context("cannot wait for `nft`")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(service_kit::nft::refusal(&said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_masks_clients_and_lets_only_answers_in() {
        let script = table(
            "turnpike0",
            Ipv4Net::new_assert([100, 89, 0, 0].into(), 16),
            Ipv6Net::new_assert([0xfd89, 0, 0, 0, 0, 0, 0, 0].into(), 64),
        );
        for line in [
            "delete table inet turnpike_activator",
            "ip saddr 100.89.0.0/16 oifname != \"turnpike0\" masquerade",
            "ip6 saddr fd89::/64 oifname != \"turnpike0\" masquerade",
            "oifname \"turnpike0\" drop",
        ] {
            assert!(script.contains(line), "{script}");
        }
    }
}
