//! Secrets from files.

#![allow(clippy::unwrap_used)]

use turnpike_service_kit::read_secret_file;

#[test]
fn a_secret_is_trimmed_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, "  open sesame \n").unwrap();
    let secret = read_secret_file(&path).unwrap();
    assert_eq!(secret.expose(), "open sesame");
    assert!(!format!("{secret:?}").contains("sesame"));
}

#[test]
fn a_secret_that_is_not_there_is_an_error_that_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    let error = read_secret_file(&path).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{}: cannot read the secret", path.display())),
        "{error}"
    );
    std::fs::write(&path, "\n").unwrap();
    assert!(
        read_secret_file(&path)
            .unwrap_err()
            .to_string()
            .contains("the secret is empty")
    );
    assert!(
        read_secret_file(directory.path())
            .unwrap_err()
            .to_string()
            .contains("not a secret file")
    );
}
