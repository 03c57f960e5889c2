//! `SQLite`'s and sqlx's errors as the store's.

use super::super::{Error, row::inconsistent};

/// `SQLite` primary result codes (<https://sqlite.org/rescode.html>).
const READONLY: i32 = 8;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CONSTRAINT: i32 = 19;
const NOTADB: i32 = 26;

/// What `error` means for whoever was `doing` something.
pub(super) fn explain(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |error| match code(&error).map(|code| code & 0xff) {
        Some(FULL | READONLY) => Error::NoSpace { doing, source: Box::new(error) },
        Some(CORRUPT | NOTADB | CONSTRAINT) => inconsistent("the database", format!("{doing}: {error}")),
        Some(_) => Error::Unavailable { doing, source: Box::new(error) },
        None => match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) => {
                inconsistent("the database", format!("{doing}: {error}"))
            }
            other => Error::Unavailable { doing, source: Box::new(other) },
        },
    }
}

fn code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}
