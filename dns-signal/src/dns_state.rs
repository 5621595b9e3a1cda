//! Assigned virtual IPs, kept over a restart: workloads remember answers of the process before.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dns_signal_proto::virtual_ip::{Pools, VirtualIps};

use crate::dns_resolver::Resolver;

const FILE_NAME: &str = "virtual-ips";
/// Pause after a write that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Reads what an earlier process left in the state directory. What cannot be used is reported in the log and left
/// out: names then get the address that their hash gives, which is the same unless names collided.
pub fn load(state_directory: &Path, pools: Pools) -> VirtualIps {
    let mut assigned = VirtualIps::new(pools);
    let path = state_directory.join(FILE_NAME);
    match fs::read_to_string(&path) {
        Ok(text) => match assigned.restore(&text) {
            Ok(restored) if restored.skipped > 0 => tracing::warn!(
                file = %path.display(),
                taken = restored.taken,
                skipped = restored.skipped,
                "some assigned virtual IPs were unreadable"
            ),
            Ok(restored) => tracing::debug!(
                taken = restored.taken,
                "virtual IPs of an earlier start taken over"
            ),
            Err(error) => tracing::warn!(
                file = %path.display(),
                %error,
                "starting without them: names may get other addresses than workloads remember"
            ),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "cannot read assigned virtual IPs")
        }
    }
    assigned
}

/// Writes the assignments whenever there are new ones. Runs until dropped.
pub async fn keep(resolver: Arc<Resolver>, state_directory: PathBuf) {
    loop {
        resolver.unsaved().await;
        while let Err(error) = save(&resolver, &state_directory).await {
            tracing::warn!(directory = %state_directory.display(), %error, "cannot save assigned virtual IPs");
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn save(resolver: &Arc<Resolver>, state_directory: &Path) -> io::Result<()> {
    let text = resolver.encode_assignments();
    let directory = state_directory.to_owned();
    tokio::task::spawn_blocking(move || replace(&directory, &text))
        .await
        .map_err(io::Error::other)?
}

/// Readers see the old text or the new, also after a crash.
fn replace(directory: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let new = directory.join(format!("{FILE_NAME}.new"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, directory.join(FILE_NAME))
}
