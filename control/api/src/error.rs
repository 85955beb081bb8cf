//! Errors of a request and their form on the wire: a status and `{"message": …}`.
use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;
use shoal_containers::RuntimeError;
use shoal_images::ImageError;
use shoal_model::{ControlError, ErrorKind};

/// Why a request was refused, as the client reads it after `Error response from daemon: `.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

/// What a handler gives.
pub(crate) type Answer = Result<Response, ApiError>;

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError { status, message: message.into() }
    }

    pub(crate) fn bad(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// A feature of Docker's that this version does not have.
    pub(crate) fn absent(what: &str) -> ApiError {
        ApiError::new(StatusCode::NOT_IMPLEMENTED, format!("{what} not supported in this version"))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status == StatusCode::NOT_MODIFIED {
            return self.status.into_response();
        }
        (self.status, Json(json!({ "message": self.message }))).into_response()
    }
}

impl From<ControlError> for ApiError {
    fn from(e: ControlError) -> ApiError {
        let status = match e.kind {
            ErrorKind::InvalidArgument | ErrorKind::FailedPrecondition => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::AlreadyExists => StatusCode::CONFLICT,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
            ErrorKind::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        };
        ApiError { status, message: e.message }
    }
}

impl From<ImageError> for ApiError {
    fn from(e: ImageError) -> ApiError {
        let status = match &e {
            ImageError::NotFound { .. } => StatusCode::NOT_FOUND,
            ImageError::Ambiguous { .. }
            | ImageError::InvalidReference { .. }
            | ImageError::Corrupt { .. }
            | ImageError::InvalidContainerId { .. } => StatusCode::BAD_REQUEST,
            ImageError::InUse { .. } | ImageError::ManyNames { .. } => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        ApiError { status, message: e.to_string() }
    }
}

impl From<RuntimeError> for ApiError {
    fn from(e: RuntimeError) -> ApiError {
        let status = match e {
            RuntimeError::Image(e) => return e.into(),
            RuntimeError::NotFound { .. } => StatusCode::NOT_FOUND,
            RuntimeError::Ambiguous { .. }
            | RuntimeError::Invalid { .. }
            | RuntimeError::Start { .. }
            | RuntimeError::Exec { .. } => StatusCode::BAD_REQUEST,
            RuntimeError::NameTaken { .. }
            | RuntimeError::TooMany { .. }
            | RuntimeError::NotRunning { .. }
            | RuntimeError::RemoveRunning { .. } => StatusCode::CONFLICT,
            RuntimeError::AlreadyRunning { .. } => StatusCode::NOT_MODIFIED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        ApiError { status, message: e.to_string() }
    }
}

impl From<tokio::task::JoinError> for ApiError {
    fn from(e: tokio::task::JoinError) -> ApiError {
        ApiError::internal(format!("the request's work was interrupted: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_refusals_have_docker_s_status() {
        for (kind, status) in [
            (ErrorKind::InvalidArgument, 400),
            (ErrorKind::FailedPrecondition, 400),
            (ErrorKind::PermissionDenied, 403),
            (ErrorKind::NotFound, 404),
            (ErrorKind::AlreadyExists, 409),
            (ErrorKind::Unknown, 500),
            (ErrorKind::Unavailable, 503),
        ] {
            let error = ApiError::from(ControlError::new(kind, "x"));
            assert_eq!(error.status.as_u16(), status, "{kind:?}");
        }
    }
}
