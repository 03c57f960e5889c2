//! Embedded migrations: forward only, one transaction, refused when the data is newer than the build.

use sqlx::SqliteConnection;

use super::super::row::inconsistent;
use super::super::seal::SealKeys;
use super::super::{Error, Result};
use super::error::explain;
use crate::domain::IdSource;

/// In order; the schema's number is how many were applied. Never edit one that was released.
const MIGRATIONS: &[&str] =
    &[include_str!("schema/0001_initial.sql"), include_str!("schema/0002_deliveries.sql")];

/// Brings the schema up to date. Only the holder of the data folder calls this.
pub(super) async fn migrate(conn: &mut SqliteConnection, ids: &dyn IdSource) -> Result<()> {
    sqlx::raw_sql("begin immediate; create table if not exists meta(k text primary key, v text not null)")
        .execute(&mut *conn)
        .await
        .map_err(explain("migrating"))?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found = match get(conn, "schema").await? {
        Some(text) => text.parse().map_err(|_| inconsistent("meta", format!("schema is {text:?}")))?,
        None => 0,
    };
    if found > known {
        sqlx::raw_sql("rollback").execute(conn).await.map_err(explain("migrating"))?;
        return Err(Error::NewerSchema { found, known });
    }
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        sqlx::raw_sql(*migration).execute(&mut *conn).await.map_err(explain("migrating"))?;
    }
    set(conn, "schema", &known.to_string()).await?;
    if get(conn, "instance_id").await?.is_none() {
        set(conn, "instance_id", &ids.random().to_string()).await?;
    }
    sqlx::raw_sql("commit").execute(conn).await.map_err(explain("migrating"))?;
    Ok(())
}

/// Proves that the keys open what is sealed here, and returns the secret that fingerprints are made with.
pub(super) async fn check_keys(conn: &mut SqliteConnection, keys: &SealKeys) -> Result<[u8; 32]> {
    let used: Vec<String> = sqlx::query_scalar(
        "select key_id from job_secrets where sealed <> x'' \
         union select key_id from deliveries where sealed_url <> x''",
    )
    .fetch_all(&mut *conn)
    .await
    .map_err(explain("checking keys"))?;
    let kept = get(conn, "key_check").await?;
    let (secret, fresh) = keys.check(kept.as_deref(), &used)?;
    if let Some(text) = fresh {
        set(conn, "key_check", &text).await?;
    }
    Ok(secret)
}

async fn get(conn: &mut SqliteConnection, key: &'static str) -> Result<Option<String>> {
    sqlx::query_scalar("select v from meta where k = ?")
        .bind(key)
        .fetch_optional(conn)
        .await
        .map_err(explain("reading meta"))
}

async fn set(conn: &mut SqliteConnection, key: &'static str, value: &str) -> Result<()> {
    sqlx::query("insert into meta(k, v) values (?, ?) on conflict(k) do update set v = excluded.v")
        .bind(key)
        .bind(value.to_owned())
        .execute(conn)
        .await
        .map_err(explain("writing meta"))?;
    Ok(())
}
