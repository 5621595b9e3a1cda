//! `[traces]` in a service's configuration.

use std::{env, path::PathBuf};

use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use serde::Deserialize;
use service_kit::ConfigError;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::export::{Collector, EXPORT_TIMEOUT};

/// What OpenTelemetry's own programs look at, the first that is there.
const ENDPOINT_VARIABLES: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
const FIELD: &str = "traces.endpoint";

/// `[traces]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TracesConfig {
    /// Where an OpenTelemetry collector takes OTLP over gRPC: `http://HOST:4317`, or `https://…` with `ca-file`. Default: what the
    /// environment says (`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, `OTEL_EXPORTER_OTLP_ENDPOINT`), else nowhere; `""`: nowhere, in any
    /// case.
    pub endpoint: Option<String>,
    /// PEM file with CA certificates: one of them has to have signed the collector's, which has to be for the endpoint's host.
    /// Default: none, and then there is no `https`.
    pub ca_file: Option<PathBuf>,
    /// The part of what begins here that is traced, 0 to 1. What began at another service is traced if that one does. Default: 1.
    pub sample: f64,
}

impl Default for TracesConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            ca_file: None,
            sample: 1.0,
        }
    }
}

impl TracesConfig {
    /// The way to the collector, which is not tried yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// One line naming the field: a sample out of range, no URL, no file that can be read.
    pub fn check(&self) -> Result<Collector, ConfigError> {
        Ok(Collector {
            exporter: self.exporter()?,
            sample: self.sample,
        })
    }

    fn exporter(&self) -> Result<Option<SpanExporter>, ConfigError> {
        if !(0.0..=1.0).contains(&self.sample) {
            let sample = self.sample;
            return Err(ConfigError::of_field(
                "traces.sample",
                sample,
                "out of range",
                "use 0 to 1",
            ));
        }
        let variables = || {
            ENDPOINT_VARIABLES
                .into_iter()
                .find_map(|name| env::var(name).ok())
        };
        let endpoint = self.endpoint.clone().or_else(variables);
        let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.is_empty()) else {
            return Ok(None);
        };
        let wrong = |problem: String| {
            let remedy = "write it as http://HOST:4317, or https://HOST:4317 with `ca-file`";
            ConfigError::of_field(FIELD, &endpoint, problem, remedy)
        };
        let uri = Endpoint::from_shared(endpoint.clone()).map_err(|_| wrong("not a URL".into()))?;
        let scheme = uri.uri().scheme_str().unwrap_or_default();
        let mut builder = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint.clone())
            .with_timeout(EXPORT_TIMEOUT)
            .with_retry_policy(RetryPolicy::recommended());
        match (scheme, &self.ca_file) {
            ("http", _) => {}
            ("https", Some(_)) => builder = builder.with_tls_config(self.trust()?),
            ("https", None) => {
                return Err(wrong(
                    "there is no `ca-file`, so no certificate is believed".into(),
                ));
            }
            _ => return Err(wrong("neither http:// nor https://".into())),
        }
        let exporter = builder.build().map_err(|error| wrong(error.to_string()))?;
        Ok(Some(exporter))
    }

    fn trust(&self) -> Result<ClientTlsConfig, ConfigError> {
        let path = self.ca_file.clone().unwrap_or_default();
        let wrong = |problem: String| {
            ConfigError::of_field(
                "traces.ca-file",
                path.display(),
                problem,
                "name a readable PEM file",
            )
        };
        let pem = std::fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
        Ok(tls)
    }
}
