//! What a command fails with, as the user reads it.

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The daemon refused.
    #[error("Error response from daemon: {message}")]
    Daemon { status: u16, message: String },
    /// The daemon cannot be reached.
    #[error(
        "Cannot connect to the Shoal daemon at {host}. Is the shoal daemon running? ({reason})"
    )]
    Connect { host: String, reason: String },
    /// The command makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Reading, writing or talking failed.
    #[error("{action}: {reason}")]
    Io { action: String, reason: String },
    /// A command in a container could not be run; Docker's exit code for it.
    #[error("{message}")]
    Exec { message: String, code: u8 },
    /// Everything has been said already.
    #[error("")]
    Silent(u8),
}

pub(crate) type CliResult<T> = Result<T, CliError>;

impl CliError {
    pub(crate) fn io(action: impl Into<String>, reason: impl std::fmt::Display) -> CliError {
        CliError::Io { action: action.into(), reason: reason.to_string() }
    }

    pub(crate) fn usage(text: impl Into<String>) -> CliError {
        CliError::Usage(text.into())
    }

    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, CliError::Silent(_))
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, CliError::Daemon { status: 404, .. })
    }

    /// Exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            CliError::Exec { code, .. } | CliError::Silent(code) => *code,
            _ => 1,
        }
    }
}
