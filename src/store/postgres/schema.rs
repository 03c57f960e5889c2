//! Embedded migrations: forward only, one transaction under a lock that all controls know, refused when the data is
//! newer than the build.

use sqlx::{Connection, Executor, PgConnection};

use super::super::row::inconsistent;
use super::super::seal::SealKeys;
use super::super::{Error, Result};
use super::error::explain;
use crate::domain::IdSource;

/// In order; the schema's number is how many were applied. Never edit one that was released.
const MIGRATIONS: &[&str] =
    &[include_str!("schema/0001_initial.sql"), include_str!("schema/0002_deliveries.sql")];

/// The advisory lock of whoever looks at the schema: "flux" in ASCII.
const LOCK: i64 = 0x666c_7578;
/// Oldest server (`server_version_num`): the oldest that is still cared for.
const OLDEST: i32 = 140_000;

/// Brings the schema up to date, proves that the keys open what is sealed here, and returns the secret that
/// fingerprints are made with. Controls that start at the same time do this one after the other.
pub(super) async fn prepare(
    conn: &mut PgConnection,
    ids: &dyn IdSource,
    keys: &SealKeys,
) -> Result<[u8; 32]> {
    check_version(conn).await?;
    let mut txn = conn.begin().await.map_err(explain("migrating"))?;
    // Whoever migrates may take longer than anything else here.
    txn.execute("set local lock_timeout = 0; set local statement_timeout = 0")
        .await
        .map_err(explain("migrating"))?;
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *txn)
        .await
        .map_err(explain("migrating"))?;
    migrate(&mut txn, ids).await?;
    let secret = check_keys(&mut txn, keys).await?;
    txn.commit().await.map_err(explain("migrating"))?;
    Ok(secret)
}

/// What is there, in words.
pub(super) async fn look(conn: &mut PgConnection) -> Result<String> {
    let version = check_version(conn).await?;
    let made: bool = sqlx::query_scalar("select to_regclass('meta') is not null")
        .fetch_one(&mut *conn)
        .await
        .map_err(explain("looking at the schema"))?;
    let schema = if made { get(conn, "schema").await? } else { None };
    let known = MIGRATIONS.len();
    Ok(match schema {
        Some(found) => format!("PostgreSQL {}, schema {found} (this build knows {known})", version / 10_000),
        None => format!("PostgreSQL {}, no tables yet: they are made at the first start", version / 10_000),
    })
}

async fn check_version(conn: &mut PgConnection) -> Result<i32> {
    let text: String = sqlx::query_scalar("select current_setting('server_version_num')")
        .fetch_one(conn)
        .await
        .map_err(explain("asking for the version"))?;
    let version: i32 = text.parse().map_err(|_| inconsistent("the database", format!("version {text:?}")))?;
    if version < OLDEST {
        let source =
            format!("it is PostgreSQL {}; flux needs {} or later", version / 10_000, OLDEST / 10_000);
        return Err(Error::Open { what: "the database is too old".into(), source: source.into() });
    }
    Ok(version)
}

async fn migrate(conn: &mut PgConnection, ids: &dyn IdSource) -> Result<()> {
    conn.execute("create table if not exists meta(k text primary key, v text not null)")
        .await
        .map_err(explain("migrating"))?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found = match get(conn, "schema").await? {
        Some(text) => text.parse().map_err(|_| inconsistent("meta", format!("schema is {text:?}")))?,
        None => 0,
    };
    if found > known {
        return Err(Error::NewerSchema { found, known });
    }
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        conn.execute(*migration).await.map_err(explain("migrating"))?;
    }
    if found < known {
        set(conn, "schema", &known.to_string()).await?;
    }
    if get(conn, "instance_id").await?.is_none() {
        set(conn, "instance_id", &ids.random().to_string()).await?;
    }
    Ok(())
}

async fn check_keys(conn: &mut PgConnection, keys: &SealKeys) -> Result<[u8; 32]> {
    let used: Vec<String> = sqlx::query_scalar(
        "select key_id from job_secrets where sealed <> '' \
         union select key_id from deliveries where sealed_url <> ''",
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

async fn get(conn: &mut PgConnection, key: &'static str) -> Result<Option<String>> {
    sqlx::query_scalar("select v from meta where k = $1")
        .bind(key)
        .fetch_optional(conn)
        .await
        .map_err(explain("reading meta"))
}

async fn set(conn: &mut PgConnection, key: &'static str, value: &str) -> Result<()> {
    sqlx::query("insert into meta(k, v) values ($1, $2) on conflict(k) do update set v = excluded.v")
        .bind(key)
        .bind(value)
        .execute(conn)
        .await
        .map_err(explain("writing meta"))?;
    Ok(())
}
