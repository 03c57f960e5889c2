//! What only a server that several use can show.

#[path = "../../../tests/it/support/postgres.rs"]
mod server;

use server::Database;

use super::*;
use crate::store::SealKeys;

/// The keys of a test's controls.
fn keys(byte: u8) -> Keys {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode([byte; 32]);
    Keys::Configured(SealKeys::from_base64([text.as_str()], "secrets.keys").unwrap())
}

/// A store in a database of its own.
pub(in crate::store) async fn fresh(options: Options) -> (PostgresStore, Database) {
    let database = Database::new().await;
    let place = Place::parse(&database.url, None).unwrap();
    let store = PostgresStore::open(&place, Options { keys: keys(1), ..options }).await.unwrap();
    (store, database)
}
