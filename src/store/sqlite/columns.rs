//! Typed access to a row's columns, so that a wrong one names its table.

use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::super::row::{from_json, inconsistent, narrow, uuid};
use super::super::{Error, Result};
use crate::domain::Timestamp;

/// A row of a table.
pub(super) struct Columns<'r> {
    pub(super) table: &'static str,
    pub(super) row: &'r SqliteRow,
}

impl Columns<'_> {
    fn wrong(&self, column: &str) -> impl FnOnce(sqlx::Error) -> Error {
        let (table, what) = (self.table, column.to_owned());
        move |error| inconsistent(table, format!("{what}: {error}"))
    }

    pub(super) fn id(&self, column: &str) -> Result<Uuid> {
        uuid(self.table, self.row.try_get(column).map_err(self.wrong(column))?)
    }

    pub(super) fn maybe_id(&self, column: &str) -> Result<Option<Uuid>> {
        let bytes: Option<&[u8]> = self.row.try_get(column).map_err(self.wrong(column))?;
        bytes.map(|bytes| uuid(self.table, bytes)).transpose()
    }

    pub(super) fn bytes(&self, column: &str) -> Result<Vec<u8>> {
        self.row.try_get(column).map_err(self.wrong(column))
    }

    pub(super) fn maybe_bytes(&self, column: &str) -> Result<Option<Vec<u8>>> {
        self.row.try_get(column).map_err(self.wrong(column))
    }

    pub(super) fn text(&self, column: &str) -> Result<String> {
        self.row.try_get(column).map_err(self.wrong(column))
    }

    pub(super) fn maybe_text(&self, column: &str) -> Result<Option<String>> {
        self.row.try_get(column).map_err(self.wrong(column))
    }

    pub(super) fn int(&self, column: &str) -> Result<i64> {
        self.row.try_get(column).map_err(self.wrong(column))
    }

    pub(super) fn maybe_int(&self, column: &str) -> Result<Option<i64>> {
        self.row.try_get(column).map_err(self.wrong(column))
    }

    pub(super) fn narrow<T: TryFrom<i64>>(&self, column: &str) -> Result<T> {
        narrow(self.table, column, self.int(column)?)
    }

    pub(super) fn time(&self, column: &str) -> Result<Timestamp> {
        Ok(Timestamp::from_micros(self.int(column)?))
    }

    pub(super) fn maybe_time(&self, column: &str) -> Result<Option<Timestamp>> {
        Ok(self.maybe_int(column)?.map(Timestamp::from_micros))
    }

    pub(super) fn state<T>(&self, column: &str, from: impl Fn(i64) -> Option<T>) -> Result<T> {
        let number = self.int(column)?;
        from(number).ok_or_else(|| inconsistent(self.table, format!("{column} is {number}")))
    }

    /// A text column that holds a checked name.
    pub(super) fn name<T: std::str::FromStr>(&self, column: &str) -> Result<T> {
        let text = self.text(column)?;
        text.parse().map_err(|_| inconsistent(self.table, format!("{column} is {text:?}")))
    }

    pub(super) fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T> {
        from_json(self.table, column, self.row.try_get(column).map_err(self.wrong(column))?)
    }

    pub(super) fn maybe_json<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>> {
        let text: Option<&str> = self.row.try_get(column).map_err(self.wrong(column))?;
        text.map(|text| from_json(self.table, column, text)).transpose()
    }
}
