//! Why a call failed, told apart as far as the caller acts differently.

use std::error::Error;
use std::io;

use tonic::{Code, ConnectError, Status};

use super::wire::{self, PROTOCOL};

/// Why a call to a worker or a control failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Another incarnation answers there, or it does not know the run.
    #[error("the worker does not know it")]
    NotFound,
    /// A higher epoch was seen, or the reservation ran out.
    #[error("the worker refused it as stale: {0}")]
    Stale(String),
    /// Nothing listens at the address: the process is gone, and whatever ran in it.
    #[error("the connection was refused: {0}")]
    Refused(String),
    /// No answer in time, a broken stream, or it drains: nothing is known about what runs there.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// The token or a certificate was not accepted, by either side.
    #[error("not authorised: {0}")]
    Unauthorized(String),
    /// It speaks another protocol than this build.
    #[error(
        "it speaks protocol {theirs}, this build speaks {PROTOCOL}: run the same version of flux on both sides"
    )]
    Incompatible {
        /// Its number; 0 = it tells none.
        theirs: u32,
    },
    /// It does not speak this protocol, or a defect.
    #[error("it answered wrongly: {0}")]
    Protocol(String),
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        if let Some(cause) = status.source() {
            return of_transport(cause);
        }
        let message = status.message().to_owned();
        match status.code() {
            Code::NotFound => Self::NotFound,
            Code::FailedPrecondition => Self::Stale(message),
            Code::Unauthenticated | Code::PermissionDenied => Self::Unauthorized(message),
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Aborted
            | Code::ResourceExhausted => Self::Unreachable(message),
            Code::Ok
            | Code::Unknown
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => Self::Protocol(message),
        }
    }
}

impl From<wire::InvalidMessage> for CallError {
    fn from(invalid: wire::InvalidMessage) -> Self {
        Self::Protocol(invalid.to_string())
    }
}

/// A status that was made on this side, of an error below it.
fn of_transport(error: &(dyn Error + 'static)) -> CallError {
    let (mut connecting, mut refused, mut untrusted) = (false, false, false);
    let mut text = String::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = if text.is_empty() { said } else { format!("{text}: {said}") };
        }
        connecting |= error.is::<ConnectError>();
        if let Some(io) = error.downcast_ref::<io::Error>() {
            refused |= io.kind() == io::ErrorKind::ConnectionRefused;
            // What TLS refuses comes as data that is not valid; TCP itself has no such error.
            untrusted |= io.kind() == io::ErrorKind::InvalidData;
        }
        untrusted |= error.is::<rustls::Error>();
        cause = error.source();
    }
    // HTTP/2 keeps only the text of what the layer below it said.
    untrusted |= text.contains("received fatal alert");
    if connecting && refused {
        CallError::Refused(text)
    } else if untrusted {
        CallError::Unauthorized(text)
    } else {
        CallError::Unreachable(text)
    }
}
