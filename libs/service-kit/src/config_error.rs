//! A configuration that cannot be used, said in one line.

use crate::locate;
use std::fmt::{self, Display};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Which file, line and field is wrong, what is wrong with it, and what to do:
/// ``FILE:LINE: field `x`: value `v`: problem; remedy``. Absent parts are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(Box<Parts>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Parts {
    file: Option<PathBuf>,
    line: Option<usize>,
    field: Option<String>,
    value: Option<String>,
    problem: String,
    remedy: String,
    transient: bool,
}

impl ConfigError {
    /// A value that was read but cannot be used. `field` is the full path (`dns.listen`, `export[0].name`); the line is
    /// found by reading `file` again.
    pub fn new(
        file: &Path,
        field: &str,
        value: impl Display,
        problem: impl Display,
        remedy: impl Display,
    ) -> Self {
        Self::of_field(field, value, problem, remedy).in_file(file)
    }

    /// As [`ConfigError::new`] where the file is not known (yet: see [`ConfigError::in_file`]), or for a flag.
    pub fn of_field(
        field: &str,
        value: impl Display,
        problem: impl Display,
        remedy: impl Display,
    ) -> Self {
        Self(Box::new(Parts {
            field: Some(field.to_owned()),
            value: Some(value.to_string()),
            problem: problem.to_string(),
            remedy: remedy.to_string(),
            ..Parts::default()
        }))
    }

    /// Something wrong that is not in one field.
    pub fn without_field(problem: impl Display, remedy: impl Display) -> Self {
        Self(Box::new(Parts {
            problem: problem.to_string(),
            remedy: remedy.to_string(),
            ..Parts::default()
        }))
    }

    /// An address that cannot be listened on, with the usual causes told apart.
    pub fn listen(field: &str, address: SocketAddr, error: &io::Error) -> Self {
        let (problem, remedy) = match error.kind() {
            io::ErrorKind::AddrInUse => (
                "the port is in use".to_owned(),
                "stop the process that has it, or choose another",
            ),
            io::ErrorKind::AddrNotAvailable => (
                "this machine does not have the address".to_owned(),
                "use one that `ip address` shows, or 0.0.0.0 or [::] for all",
            ),
            io::ErrorKind::PermissionDenied => (
                "not permitted".to_owned(),
                "a port below 1024 needs CAP_NET_BIND_SERVICE",
            ),
            _ => (format!("cannot listen: {error}"), "choose another address"),
        };
        let mut error = Self::of_field(field, address, problem, remedy);
        error.0.transient = true;
        error
    }

    /// Names the file, and with it the line, unless one is named already.
    #[must_use]
    pub fn in_file(mut self, file: &Path) -> Self {
        if self.0.file.is_none() {
            self.0.line = self.0.field.as_deref().and_then(|field| {
                let text = std::fs::read_to_string(file).ok()?;
                locate::line_of_field(&text, field)
            });
            self.0.file = Some(file.to_owned());
        }
        self
    }

    /// The field is one of a table: `table.field`. An error that names a file of its own stays as it is.
    pub fn within(mut self, table: &str) -> Self {
        if let Some(field) = self.0.field.take() {
            self.0.field = Some(match self.0.file {
                None => format!("{table}.{field}"),
                Some(_) => field,
            });
        }
        self
    }

    pub(crate) fn at(mut self, file: &Path, line: Option<usize>) -> Self {
        self.0.file = Some(file.to_owned());
        self.0.line = line;
        self
    }

    /// Of a file that a field names: what is shown is the configuration's own file and line, the field, and the path.
    pub(crate) fn naming(mut self, field: &str, path: &Path) -> Self {
        self.0.file = None;
        self.0.line = None;
        self.0.field = Some(field.to_owned());
        self.0.value = Some(path.display().to_string());
        self
    }

    pub(crate) fn with_field(mut self, field: String) -> Self {
        self.0.field = Some(field);
        self
    }

    pub(crate) fn with_value(mut self, value: Option<String>) -> Self {
        self.0.value = value;
        self
    }

    /// Whether the configuration may be right and the circumstances wrong (a port in use), so that a restart can help.
    pub fn is_transient(&self) -> bool {
        self.0.transient
    }

    /// The full path of the field at fault.
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    pub(crate) fn has_file(&self) -> bool {
        self.0.file.is_some()
    }
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = &*self.0;
        if let Some(file) = &parts.file {
            write!(f, "{}:", file.display())?;
            if let Some(line) = parts.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        if let Some(field) = &parts.field {
            write!(f, "field `{field}`: ")?;
        }
        if let Some(value) = &parts.value {
            write!(f, "value `{value}`: ")?;
        }
        f.write_str(&parts.problem)?;
        if !parts.remedy.is_empty() {
            write!(f, "; {}", parts.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
