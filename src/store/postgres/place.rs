//! Where a PostgreSQL is and how to get in.

use std::fmt;
use std::str::FromStr as _;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};

use super::super::{Error, Result};

/// A database of PostgreSQL.
#[derive(Clone)]
pub struct Place {
    pub(super) options: PgConnectOptions,
    shown: String,
}

/// An address that is none. Says nothing of what was written there, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is no address of a PostgreSQL: {0}")]
pub struct PlaceError(String);

impl Place {
    /// Takes `postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?sslmode=…]`. A password that is given apart holds.
    pub fn parse(url: &str, password: Option<&str>) -> std::result::Result<Self, PlaceError> {
        let mut options = PgConnectOptions::from_str(url).map_err(|error| match error {
            sqlx::Error::Configuration(why) => PlaceError(why.to_string()),
            _ => PlaceError("it cannot be read".to_owned()),
        })?;
        if let Some(password) = password {
            options = options.password(password);
        }
        let options = options.application_name("flux").disable_statement_logging();
        let database = options.get_database().unwrap_or_else(|| options.get_username());
        let shown = format!(
            "postgres://{}@{}:{}/{database}",
            options.get_username(),
            options.get_host(),
            options.get_port()
        );
        Ok(Self { options, shown })
    }

    /// Connects once, to see whether it can be done.
    pub(super) async fn connect(&self) -> Result<PgConnection> {
        let patience = std::time::Duration::from_secs(10);
        match tokio::time::timeout(patience, self.options.connect()).await {
            Ok(Ok(conn)) => Ok(conn),
            Ok(Err(error)) => Err(self.explain(error)),
            Err(_) => Err(self.away("it does not answer".into())),
        }
    }

    /// Connects and says what is there, without changing anything.
    pub async fn look(&self) -> Result<String> {
        let mut conn = self.connect().await?;
        let found = super::schema::look(&mut conn).await?;
        // It was only a look.
        let _ = sqlx::Connection::close(conn).await;
        Ok(found)
    }

    fn away(&self, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
        tracing::debug!(place = %self, "the database is away");
        Error::Unavailable { doing: "connecting to PostgreSQL", source }
    }

    /// What somebody has to repair is told from what ends by itself.
    fn explain(&self, error: sqlx::Error) -> Error {
        let code = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .map(std::borrow::Cow::into_owned);
        let what = match code.as_deref() {
            Some("28P01" | "28000") => format!("{self} refuses the user or the password"),
            Some("3D000") => format!("{self} has no such database; make it with `createdb`"),
            Some("42501") => format!("{self} does not allow this user to connect"),
            _ if matches!(error, sqlx::Error::Tls(_) | sqlx::Error::Configuration(_)) => {
                format!("{self} cannot be spoken to securely")
            }
            _ => return self.away(error.into()),
        };
        Error::Open { what, source: error.into() }
    }
}

/// Without the password.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({})", self.shown)
    }
}
