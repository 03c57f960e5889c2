//! Embedded migrations: forward only, one transaction, refused when the data is newer than the build.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sqlx::SqliteConnection;

use super::super::row::{from_json, inconsistent, to_json};
use super::super::seal::{SealKeys, Sealed, random_bytes};
use super::super::{Error, Result};
use super::error::explain;
use crate::domain::IdSource;

/// In order; the schema's number is how many were applied. Never edit one that was released.
const MIGRATIONS: &[&str] = &[include_str!("schema/0001_initial.sql")];

const CHECK_AAD: &[u8] = b"flux key check";

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
///
/// The check value is that secret itself, sealed: it is random, says nothing about the key, and a copy of the database
/// without the key cannot be used to guess request bodies.
pub(super) async fn check_keys(conn: &mut SqliteConnection, keys: &SealKeys) -> Result<[u8; 32]> {
    let wrong = || Error::WrongKey { place: keys.place().to_owned() };
    let used: Vec<String> = sqlx::query_scalar("select distinct key_id from job_secrets where sealed <> x''")
        .fetch_all(&mut *conn)
        .await
        .map_err(explain("checking keys"))?;
    let secret = if let Some(text) = get(conn, "key_check").await? {
        let (key_id, sealed): (String, String) = from_json("meta", "key_check", &text)?;
        let bytes = STANDARD.decode(sealed).map_err(|_| inconsistent("meta", "key_check is not base64"))?;
        let current = keys.is_current(&key_id);
        let opened = keys.open(CHECK_AAD, &Sealed { key_id, bytes }).ok_or_else(wrong)?;
        let secret = opened.try_into().map_err(|_| inconsistent("meta", "key_check is not 32 bytes"))?;
        if !current {
            store_check(conn, keys, secret).await?;
        }
        secret
    } else {
        let secret = random_bytes()?;
        store_check(conn, keys, secret).await?;
        secret
    };
    if used.iter().all(|key_id| keys.knows(key_id)) { Ok(secret) } else { Err(wrong()) }
}

async fn store_check(conn: &mut SqliteConnection, keys: &SealKeys, secret: [u8; 32]) -> Result<()> {
    let sealed = keys.seal(CHECK_AAD, secret.to_vec())?;
    let text = to_json("meta", &(sealed.key_id, STANDARD.encode(sealed.bytes)))?;
    set(conn, "key_check", &text).await
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
