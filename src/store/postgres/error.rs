//! PostgreSQL's and sqlx's errors as the store's.

use super::super::{Error, row::inconsistent};

/// What `error` means for whoever was `doing` something.
pub(super) fn explain(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |error| match class(&error).as_deref() {
        // No space or memory (https://www.postgresql.org/docs/current/errcodes-appendix.html).
        Some("53100") => Error::NoSpace { doing, source: Box::new(error) },
        // Data, integrity or a schema that is not ours.
        Some(code) if ["22", "23", "42"].iter().any(|class| code.starts_with(class)) => {
            inconsistent("the database", format!("{doing}: {error}"))
        }
        Some(_) => Error::Unavailable { doing, source: Box::new(error) },
        None => match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) => {
                inconsistent("the database", format!("{doing}: {error}"))
            }
            other => Error::Unavailable { doing, source: Box::new(other) },
        },
    }
}

fn class(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// What is to be tried after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The connection was lost: another one may do.
    Reconnect,
    /// Others were in the way: the same may do, if possible in smaller parts.
    Again,
    /// Nothing.
    GiveUp,
}

/// What an error calls for. Every verb may be said again after an unknown outcome.
pub(super) fn remedy(error: &Error) -> Remedy {
    let Error::Unavailable { source, .. } = error else { return Remedy::GiveUp };
    let Some(error) = source.downcast_ref::<sqlx::Error>() else { return Remedy::GiveUp };
    match class(error).as_deref() {
        // Serialization, deadlock, a lock or a statement that took too long.
        Some("40001" | "40P01" | "55P03" | "57014") => Remedy::Again,
        Some(code) if code.starts_with("08") || code.starts_with("57P") => Remedy::Reconnect,
        Some(_) => Remedy::GiveUp,
        None => match error {
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => Remedy::Reconnect,
            _ => Remedy::GiveUp,
        },
    }
}

/// Whether this is what it looks like when nobody answers: there is nothing to try one by one.
pub(super) fn is_outage(error: &Error) -> bool {
    let Error::Unavailable { source, .. } = error else { return false };
    remedy(error) == Remedy::Reconnect
        || matches!(source.downcast_ref(), Some(sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed))
}

/// The same trouble for one more caller.
pub(super) fn shared(error: &Error) -> Error {
    let text = match error {
        Error::Unavailable { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    Error::Unavailable { doing: "writing", source: text.into() }
}
