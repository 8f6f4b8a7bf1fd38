//! Errors become a status code and JSON here, and nowhere else.
//!
//! The rule: an answer of the controller is 200, and an order's verdict is in its body (`ok`, `outcomes`), also if it
//! failed. Anything else means that the request never became one, that what it asked for does not exist, or that the
//! controller gave no answer.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError, error};

use super::guard::Refusal;
use super::json;
use crate::controller::blobs::BlobError;
use crate::message::client::CursorError;
use crate::model::NameError;

/// Why a request has no other answer.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Malformed(String),
    #[error("`{file}` is not a cluster file that can be used: see the details")]
    Unreadable { file: String, complaints: Vec<String> },
    #[error("the body is over the limit for this request")]
    TooLarge,
    #[error("{0}")]
    Absent(String),
    #[error("there is no `{0}` here; the API is described in the documentation of `/api/v1`")]
    NoRoute(String),
    #[error("`{0}` is not what this address understands")]
    WrongMethod(String),
    #[error("the controller gave no answer: it may be stopping; ask again")]
    Unanswered,
    #[error("the controller is gone: this process is about to end")]
    NoController,
    #[error("the controller did not answer in time; what was ordered may still be carried out")]
    Late,
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error("a mistake of our own: {0}")]
    Internal(String),
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<CursorError> for Problem {
    fn from(error: CursorError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<error::JsonPayloadError> for Problem {
    fn from(error: error::JsonPayloadError) -> Self {
        match error {
            error::JsonPayloadError::Overflow { .. } | error::JsonPayloadError::OverflowKnownLength { .. } => {
                Self::TooLarge
            }
            other => Self::Malformed(format!("the body is not the JSON that is expected here: {other}")),
        }
    }
}

impl From<error::QueryPayloadError> for Problem {
    fn from(error: error::QueryPayloadError) -> Self {
        Self::Malformed(format!("the query of the address cannot be understood: {error}"))
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Refused(Refusal::Host(_) | Refusal::NoHost | Refusal::Origin(_) | Refusal::Role(_)) => {
                StatusCode::FORBIDDEN
            }
            Self::Refused(Refusal::Token | Refusal::LocalToken) => StatusCode::UNAUTHORIZED,
            Self::Refused(Refusal::TokenInQuery) => StatusCode::BAD_REQUEST,
            Self::Refused(Refusal::ContentType(_)) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Unreadable { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Absent(_) | Self::NoRoute(_) => StatusCode::NOT_FOUND,
            Self::WrongMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unanswered | Self::NoController => StatusCode::SERVICE_UNAVAILABLE,
            Self::Late => StatusCode::GATEWAY_TIMEOUT,
            Self::Blob(BlobError::Absent(_)) => StatusCode::NOT_FOUND,
            Self::Blob(BlobError::Elsewhere { .. } | BlobError::Overtaken) => StatusCode::CONFLICT,
            Self::Blob(BlobError::TooLong(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Blob(BlobError::Other(_) | BlobError::TooMuch(_) | BlobError::Manifest { .. }) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::Blob(BlobError::NoRoom { .. }) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Blob(BlobError::Damaged(_) | BlobError::Disk { .. } | BlobError::Panicked(_)) | Self::Internal(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if let Self::Refused(Refusal::Token | Refusal::LocalToken) = self {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        let details = match self {
            Self::Unreadable { complaints, .. } => complaints.clone(),
            _ => Vec::new(),
        };
        response.json(json::Problem { error: self.to_string(), details })
    }
}
