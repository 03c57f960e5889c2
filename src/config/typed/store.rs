//! Where jobs are recorded.

use secrecy::SecretString;
use url::Url;

use super::super::document::{Document, Hidden};
use super::super::{Postgres, Store};
use super::Check;

const EXPECTED: &str =
    "expected \"sqlite\" (a file below server.data_dir) or \"postgres://USER@HOST:PORT/DATABASE\"";

impl Check<'_> {
    pub(super) fn store(&mut self, document: &Document) -> Option<Store> {
        let store = &document.store;
        let text = store.url.expose();
        if text == "sqlite" {
            for (key, given) in
                [("password", store.password.is_some()), ("password_file", store.password_file.is_some())]
            {
                if given {
                    self.fault(&format!("store.{key}"), "means nothing for a file; set store.url");
                }
            }
            return Some(Store::Sqlite);
        }
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "postgres" | "postgresql"));
        let Some(mut url) = url else {
            self.fault("store.url", EXPECTED);
            return None;
        };
        if url.path().trim_matches('/').is_empty() {
            self.fault("store.url", "names no database: expected \"postgres://USER@HOST:PORT/DATABASE\"");
        }
        let within =
            url.password().map(|text| percent_encoding::percent_decode_str(text).decode_utf8_lossy());
        let within = within.map(|text| SecretString::from(text.into_owned()));
        if within.is_some() && url.set_password(None).is_err() {
            self.fault("store.url", EXPECTED);
        }
        let beside = store.password.as_ref().map(|Hidden(secret)| secret.clone());
        let given = [within.is_some(), beside.is_some(), store.password_file.is_some()];
        if given.iter().filter(|given| **given).count() > 1 {
            let problem = "give the password once: in store.url, store.password or store.password_file";
            self.fault("store.url", problem);
        }
        let password_file = store.password_file.as_deref().map(|file| self.path(file));
        Some(Store::Postgres(Postgres { url, password: within.or(beside), password_file }))
    }
}
