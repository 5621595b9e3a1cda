//! What an operator reads when a config file is wrong.

#![allow(clippy::unwrap_used)]

use serde::Deserialize;
use std::path::Path;
use std::process::ExitCode;
use turnpike_service_kit::{
    ConfigError, EXIT_CONFIG, EXIT_FAILURE, load_config, parse_config, report,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[allow(dead_code)]
struct Config {
    network: String,
    #[serde(default)]
    dns: Dns,
    #[serde(default)]
    export: Vec<Export>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[allow(dead_code)]
struct Dns {
    listen: Vec<std::net::SocketAddr>,
    max_in_flight: u16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Export {
    name: String,
}

#[track_caller]
fn error_of(text: &str) -> String {
    let error = parse_config::<Config>(Path::new("c.toml"), text).unwrap_err();
    let line = error.to_string();
    assert!(!line.contains('\n'), "more than one line: {line}");
    line
}

#[test]
fn a_good_file_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.toml");
    std::fs::write(
        &path,
        "network = \"west\"\n[dns]\nlisten = [\"127.0.0.1:53\"]\n",
    )
    .unwrap();
    let config: Config = load_config(&path).unwrap();
    assert_eq!(config.network, "west");
    assert_eq!(config.dns.listen.len(), 1);
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    assert_eq!(
        error_of("network = \"west\"\n\n[dns]\nlisten = []\nmax_in_fligth = 3\n"),
        "c.toml:5: field `dns.max_in_fligth`: unknown key; did you mean `max-in-flight`?"
    );
    assert_eq!(
        error_of("network = \"west\"\nzebra = 1\n"),
        "c.toml:2: field `zebra`: unknown key; known here: network, dns, export"
    );
    assert_eq!(
        error_of(
            "network = \"west\"\n[[export]]\nname = \"a\"\n[[export]]\nname = \"b\"\nnam = 1\n"
        ),
        "c.toml:6: field `export[1].nam`: unknown key; did you mean `name`?"
    );
    assert_eq!(
        error_of("network = \"west\"\n\"two\\nlines\" = 1\n"),
        "c.toml:2: field `two\\nlines`: unknown key; known here: network, dns, export"
    );
}

#[test]
fn a_wrong_type_is_named_with_its_value() {
    assert_eq!(
        error_of("network = \"west\"\n[dns]\nmax-in-flight = \"many\"\n"),
        "c.toml:3: field `dns.max-in-flight`: value `many`: invalid type: string \"many\", expected u16; \
         correct the value"
    );
    let line = error_of("network = \"west\"\n[dns]\nlisten = [\"127.0.0.1:53\", \"localhost\"]\n");
    assert!(
        line.starts_with("c.toml:3: field `dns.listen[1]`: value `localhost`: invalid"),
        "{line}"
    );
}

#[test]
fn a_missing_key_is_named_with_its_table() {
    assert_eq!(
        error_of("[dns]\nlisten = []\n"),
        "c.toml:1: field `network`: missing; add it"
    );
    let line = error_of("network = \"west\"\n[[export]]\n");
    assert!(
        line.ends_with("field `export[0].name`: missing; add it"),
        "{line}"
    );
}

#[test]
fn what_is_no_toml_is_said_with_its_line() {
    let line = error_of("network = \"west\"\n[dns\n");
    assert!(line.starts_with("c.toml:2: not valid TOML: "), "{line}");
    let line = error_of("network = \"west\"\nnetwork = \"east\"\n");
    assert!(
        line.starts_with("c.toml:2: not valid TOML: duplicate key"),
        "{line}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = load_config::<Config>(Path::new("/nonexistent/c.toml"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "/nonexistent/c.toml: the file does not exist; create it, or name another with --config FILE"
    );
    let error = load_config::<Config>(Path::new("/tmp"))
        .unwrap_err()
        .to_string();
    assert_eq!(error, "/tmp: not a regular file; name a TOML file");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.toml");
    std::fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    let error = load_config::<Config>(&path).unwrap_err().to_string();
    assert!(
        error.ends_with("the file is not UTF-8 text; name a TOML file"),
        "{error}"
    );
}

#[test]
fn a_value_refused_later_is_found_by_its_field() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.toml");
    std::fs::write(&path, "network = \"west\"\n[dns]\n\n  listen = []\n").unwrap();
    let error = ConfigError::new(
        &path,
        "dns.listen",
        "[]",
        "no address",
        "name one, such as 127.0.0.1:53",
    );
    let expected = format!(
        "{}:4: field `dns.listen`: value `[]`: no address; name one, such as 127.0.0.1:53",
        path.display()
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn the_exit_code_tells_configuration_from_circumstances() {
    let code = |error: anyhow::Error| format!("{:?}", report(None, Err(error)));
    let expect = |code: u8| format!("{:?}", ExitCode::from(code));
    let config = ConfigError::without_field("wrong", "correct it");
    assert_eq!(
        code(anyhow::Error::new(config).context("outer")),
        expect(EXIT_CONFIG)
    );
    assert_eq!(code(anyhow::anyhow!("no luck")), expect(EXIT_FAILURE));
    let in_use = std::io::Error::from(std::io::ErrorKind::AddrInUse);
    let listen = ConfigError::listen("admin", "127.0.0.1:1".parse().unwrap(), &in_use);
    assert_eq!(code(listen.into()), expect(EXIT_FAILURE));
    assert_eq!(
        format!("{:?}", report(None, Ok(()))),
        format!("{:?}", ExitCode::SUCCESS)
    );
}
