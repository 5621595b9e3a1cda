//! The site's own check of users, as it is configured.

use super::{seconds, share};
use crate::hook::{Hook, HookSetup};
use serde::Deserialize;
use service_kit::{ConfigError, read_secret_of_field};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use turn_relay_proto::LookupLimits;

/// `[hook]`: an HTTP server that is asked about users who are none of those known here. It gets `{"user": …, "realm": …}` by
/// POST, and answers 200 with `{"password": …}`, or with the keys as `{"md5": …, "sha256": …}` in hexadecimal digits; also
/// `"user"`, who that is for quotas, and `"seconds"`, how long that is remembered at most. 401, 403 or 404 is a refusal, and
/// anything else a failure, with which nobody gets in.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct HookFile {
    /// `http://` or `https://`, without user and password.
    pub(super) url: String,
    /// A file of mode 0600 with what is sent as `Authorization: Bearer …`. Default: none.
    pub(super) secret_file: Option<PathBuf>,
    /// For `https://`: the certificate authorities as PEM. Default: those of this machine.
    pub(super) ca_file: Option<PathBuf>,
    /// How long an answer may take, waiting for a turn included. Default: 2000.
    pub(super) timeout_milliseconds: Option<NonZeroU32>,
    /// Questions at a time. Default: 32.
    pub(super) in_flight: Option<NonZeroUsize>,
    /// How long a user is remembered. Default: 60.
    pub(super) remember_seconds: Option<NonZeroU32>,
    /// How long a refusal is remembered. Default: 10.
    pub(super) remember_refused_seconds: Option<NonZeroU32>,
    /// Users that are remembered, and as many refusals. Default: 16384.
    pub(super) remembered: Option<NonZeroUsize>,
    /// Requests that wait for an answer; further ones are answered by 500. Default: 1024.
    pub(super) waiting: Option<NonZeroUsize>,
}

impl HookFile {
    /// The bounds of one event loop of so many.
    pub(super) fn limits(&self, threads: u16) -> LookupLimits {
        LookupLimits {
            remembered: share(self.remembered, 16_384, threads),
            waiting: share(self.waiting, 1_024, threads),
        }
    }

    /// Whom to ask, with the files read.
    pub(super) fn load(&self, realm: &str) -> Result<Arc<Hook>, ConfigError> {
        let milliseconds = self.timeout_milliseconds.map_or(2_000, NonZeroU32::get);
        let secret = self.secret_file.as_deref();
        let secret = secret.map(|path| read_secret_of_field("hook.secret-file", path));
        Hook::new(HookSetup {
            url: self.url.clone(),
            realm: realm.to_owned(),
            secret: secret.transpose()?,
            authorities: self.ca_file.clone(),
            timeout: Duration::from_millis(milliseconds.into()),
            in_flight: self.in_flight.map_or(32, NonZeroUsize::get),
            remember: seconds(self.remember_seconds, 60),
            remember_refused: seconds(self.remember_refused_seconds, 10),
        })
        .map(Arc::new)
    }
}
