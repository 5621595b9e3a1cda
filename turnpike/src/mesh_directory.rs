//! The directory that `turnpike init` makes: the mesh, as files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use identity::Authority;
use serde::{Deserialize, Serialize};
use service_kit::ConfigError;

pub(crate) const CA_CERTIFICATE: &str = "ca-certificate.pem";
pub(crate) const CA_KEY: &str = "ca-key.pem";
pub(crate) const DISCOVERY_CERTIFICATE: &str = "discovery-certificate.pem";
pub(crate) const DISCOVERY_KEY: &str = "discovery-key.pem";
pub(crate) const RELAY_SECRET: &str = "relay-secret";
pub(crate) const RELAY_CERTIFICATE: &str = "relay-certificate.pem";
pub(crate) const RELAY_KEY: &str = "relay-key.pem";
pub(crate) const MESH: &str = "mesh.toml";

/// `mesh.toml`: what is not in the certificates.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct MeshFile {
    /// The mesh's name.
    pub(crate) mesh: String,
    /// Where nodes find discovery: `https://host:port`.
    pub(crate) discovery: String,
}

/// A mesh directory that was opened.
#[derive(Debug)]
pub(crate) struct MeshDirectory {
    pub(crate) authority: Authority,
    pub(crate) file: MeshFile,
}

impl MeshDirectory {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let wrong = |problem: String| {
            let remedy = "name the directory that `turnpike init` made";
            ConfigError::of_field("--mesh-directory", path.display(), problem, remedy)
        };
        let file = path.join(MESH);
        if !file.is_file() {
            return Err(wrong(format!("there is no {MESH} in it")).into());
        }
        let mesh: MeshFile = service_kit::load_config(&file)?;
        let read = |name: &str| {
            fs::read_to_string(path.join(name)).map_err(|error| wrong(format!("{name}: {error}")))
        };
        let key = service_kit::read_secret_file(&path.join(CA_KEY))?;
        let authority = Authority::load(&read(CA_CERTIFICATE)?, key.expose())
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Self {
            authority,
            file: mesh,
        })
    }
}

/// An absolute path without touching the file system: what the samples name.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("the path {}", path.display()))
}
