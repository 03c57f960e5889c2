//! Typed access to a row's columns, so that a wrong one names its table.

use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::row::{from_json, inconsistent, narrow};
use super::{Error, Result};
use crate::domain::Timestamp;

/// The cells that both databases have, whatever they call their types.
pub(super) trait Cells {
    fn int(&self, column: &str) -> sqlx::Result<Option<i64>>;
    fn text(&self, column: &str) -> sqlx::Result<Option<&str>>;
    fn bytes(&self, column: &str) -> sqlx::Result<Option<&[u8]>>;
    fn id(&self, column: &str) -> sqlx::Result<Option<Uuid>>;
}

impl Cells for SqliteRow {
    fn int(&self, column: &str) -> sqlx::Result<Option<i64>> {
        self.try_get(column)
    }

    fn text(&self, column: &str) -> sqlx::Result<Option<&str>> {
        self.try_get(column)
    }

    fn bytes(&self, column: &str) -> sqlx::Result<Option<&[u8]>> {
        self.try_get(column)
    }

    fn id(&self, column: &str) -> sqlx::Result<Option<Uuid>> {
        self.try_get(column)
    }
}

impl Cells for PgRow {
    /// Of any width: `smallint` and `int` are read like `bigint`.
    fn int(&self, column: &str) -> sqlx::Result<Option<i64>> {
        self.try_get_unchecked(column)
    }

    fn text(&self, column: &str) -> sqlx::Result<Option<&str>> {
        self.try_get(column)
    }

    fn bytes(&self, column: &str) -> sqlx::Result<Option<&[u8]>> {
        self.try_get(column)
    }

    fn id(&self, column: &str) -> sqlx::Result<Option<Uuid>> {
        self.try_get(column)
    }
}

/// A row of a table.
pub(super) struct Columns<'r, R> {
    pub(super) table: &'static str,
    pub(super) row: &'r R,
}

impl<R: Cells> Columns<'_, R> {
    fn there<T>(&self, column: &str, cell: sqlx::Result<Option<T>>) -> Result<T> {
        cell.map_err(self.wrong(column))?
            .ok_or_else(|| inconsistent(self.table, format!("{column} is missing")))
    }

    fn wrong(&self, column: &str) -> impl FnOnce(sqlx::Error) -> Error {
        let (table, what) = (self.table, column.to_owned());
        move |error| inconsistent(table, format!("{what}: {error}"))
    }

    pub(super) fn id(&self, column: &str) -> Result<Uuid> {
        self.there(column, self.row.id(column))
    }

    pub(super) fn maybe_id(&self, column: &str) -> Result<Option<Uuid>> {
        self.row.id(column).map_err(self.wrong(column))
    }

    pub(super) fn bytes(&self, column: &str) -> Result<Vec<u8>> {
        self.there(column, self.row.bytes(column)).map(<[u8]>::to_vec)
    }

    pub(super) fn maybe_bytes(&self, column: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.row.bytes(column).map_err(self.wrong(column))?.map(<[u8]>::to_vec))
    }

    pub(super) fn text(&self, column: &str) -> Result<String> {
        self.there(column, self.row.text(column)).map(str::to_owned)
    }

    pub(super) fn maybe_text(&self, column: &str) -> Result<Option<String>> {
        Ok(self.row.text(column).map_err(self.wrong(column))?.map(str::to_owned))
    }

    pub(super) fn int(&self, column: &str) -> Result<i64> {
        self.there(column, self.row.int(column))
    }

    pub(super) fn maybe_int(&self, column: &str) -> Result<Option<i64>> {
        self.row.int(column).map_err(self.wrong(column))
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
        let text = self.there(column, self.row.text(column))?;
        text.parse().map_err(|_| inconsistent(self.table, format!("{column} is {text:?}")))
    }

    pub(super) fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T> {
        from_json(self.table, column, self.there(column, self.row.text(column))?)
    }

    pub(super) fn maybe_json<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>> {
        let text = self.row.text(column).map_err(self.wrong(column))?;
        text.map(|text| from_json(self.table, column, text)).transpose()
    }
}
