//! Whose credentials serve which bucket: profiles, lists, and the server's own.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::ExposeSecret;

use super::super::document::{self, Document, Hidden, ProfileKeys};
use super::super::place;
use super::super::{Storage, seeds};
use super::Check;
use crate::domain::{Bucket, BucketAccess, Credentials, ObjectPath, Profile};

/// Most bytes of a file with a secret.
const MAX_SECRET_FILE: u64 = 64 * 1024;

impl Check<'_> {
    pub(super) fn buckets(&mut self, document: &Document, storage: Option<&Storage>) -> BucketAccess {
        let sources = self.listed("sources.buckets", &document.sources.buckets);
        let destinations = self.listed("destinations.buckets", &document.destinations.buckets);
        let mut profiles = BTreeMap::new();
        for (name, keys) in &document.storage.profiles {
            let key = format!("storage.profiles.{name}");
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            if !(1..=64).contains(&name.len()) || !name.bytes().all(plain) {
                self.fault(&key, "a profile's name has 1 to 64 letters, digits, '.', '_', '-'");
            } else if let Some(profile) = self.profile(&key, keys) {
                profiles.insert(name.clone(), profile);
            }
        }
        let s3 = match storage {
            Some(Storage::Bucket { bucket: Bucket::S3 { .. }, credentials, .. }) => credentials.clone(),
            _ => None,
        };
        // The vendors' own variables and files are looked at where they may serve somebody only.
        let wanted = !sources.is_empty() || !destinations.is_empty();
        let (s3, gcs, azure) = if wanted {
            (s3.or_else(|| self.vendor_s3()), self.vendor_gcs(), self.vendor_azure())
        } else {
            (None, None, None)
        };
        BucketAccess { profiles, sources, destinations, s3, gcs, azure }
    }

    fn listed(&mut self, key: &str, urls: &[String]) -> Vec<String> {
        let mut listed = Vec::new();
        for (n, text) in urls.iter().enumerate() {
            let bucket = place::container(text).filter(|(_, prefix)| prefix.is_none());
            match bucket {
                Some((bucket, _)) => listed.push(bucket.url()),
                None => self.fault(
                    &format!("{key}[{n}]"),
                    "expected s3://BUCKET, gs://BUCKET or az://ACCOUNT/CONTAINER",
                ),
            }
        }
        listed
    }

    fn profile(&mut self, key: &str, keys: &ProfileKeys) -> Option<Profile> {
        let at = |name: &str| format!("{key}.{name}");
        let endpoint = match &keys.endpoint {
            Some(text) => Some(self.ok(&at("endpoint"), place::endpoint(text))?),
            None => None,
        };
        let endpoint = endpoint.map(|url| url.as_str().trim_end_matches('/').to_owned());
        let secret = |check: &mut Self, name: &str, text: &Option<Hidden>, file: &Option<String>| {
            let file_key = at(&format!("{name}_file"));
            match (text, file) {
                (Some(Hidden(secret)), None) => Some(secret.expose_secret().to_owned()),
                (None, Some(file)) => check.secret_file(&file_key, &check.path(file)),
                (Some(_), Some(_)) => {
                    check.fault(&file_key, format!("stands beside {name}; give it once"));
                    None
                }
                (None, None) => None,
            }
        };
        let key_s3 = secret(self, "secret_access_key", &keys.secret_access_key, &keys.secret_access_key_file);
        let key_azure = secret(self, "account_key", &keys.account_key, &keys.account_key_file);
        let sas = secret(self, "sas_token", &keys.sas_token, &keys.sas_token_file);
        let account_file = keys.service_account_file.as_ref();
        let service_account =
            account_file.and_then(|file| self.secret_file(&at("service_account_file"), &self.path(file)));
        let given = [
            ("region", "s3", keys.region.is_some()),
            ("path_style", "s3", keys.path_style.is_some()),
            ("access_key_id", "s3", keys.access_key_id.is_some()),
            ("secret_access_key", "s3", key_s3.is_some()),
            ("session_token", "s3", keys.session_token.is_some()),
            ("service_account_file", "gcs", account_file.is_some()),
            ("account", "azure", keys.account.is_some()),
            ("account_key", "azure", key_azure.is_some()),
            ("sas_token", "azure", sas.is_some()),
        ];
        let kind = keys.kind.as_str();
        for (name, of, _) in given.into_iter().filter(|(_, of, given)| *given && *of != kind) {
            self.fault(&at(name), format!("means something for kind \"{of}\" only"));
        }
        let (place, credentials) = match kind {
            "s3" => {
                let credentials = match (&keys.access_key_id, key_s3) {
                    (Some(id), Some(secret)) => Some(Credentials::S3 {
                        access_key_id: id.clone(),
                        secret_access_key: secret,
                        session_token: keys
                            .session_token
                            .as_ref()
                            .map(|Hidden(t)| t.expose_secret().to_owned()),
                    }),
                    (None, None) => None,
                    _ => {
                        self.fault(&at("access_key_id"), "access_key_id and secret_access_key go together");
                        None
                    }
                };
                let path_style = keys.path_style;
                (
                    Bucket::S3 { name: String::new(), region: keys.region.clone(), endpoint, path_style },
                    credentials,
                )
            }
            "gcs" => {
                let credentials = service_account.map(|json| Credentials::ServiceAccount { json });
                (Bucket::Gcs { name: String::new(), endpoint }, credentials)
            }
            "azure" => {
                let Some(account) = keys.account.clone() else {
                    self.fault(&at("account"), "is required for kind \"azure\"");
                    return None;
                };
                let credentials = match (key_azure, sas) {
                    (Some(_), Some(_)) => {
                        self.fault(&at("sas_token"), "stands beside account_key; give one of them");
                        None
                    }
                    (Some(key), None) => Some(Credentials::AccountKey { key }),
                    (None, Some(token)) => Some(Credentials::Sas { token }),
                    (None, None) => None,
                };
                (Bucket::Azure { account, container: String::new(), endpoint }, credentials)
            }
            _ => {
                self.fault(&at("kind"), "must be \"s3\", \"gcs\" or \"azure\"");
                return None;
            }
        };
        Some(Profile { place, credentials, buckets: keys.buckets.clone() })
    }

    /// The text of a file that holds a secret, without the line's end.
    fn secret_file(&mut self, key: &str, path: &Path) -> Option<String> {
        let size = std::fs::metadata(path).map(|metadata| metadata.len());
        let read = size.and_then(|size| {
            if size > MAX_SECRET_FILE {
                return Err(std::io::Error::other("the file is too large for a secret"));
            }
            std::fs::read_to_string(path)
        });
        match read {
            Ok(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
            Ok(_) => {
                self.fault(key, "the file is empty");
                None
            }
            Err(error) => {
                self.fault(key, format!("cannot read {}: {error}", path.display()));
                None
            }
        }
    }

    /// Environment, then the file that AWS's own tools keep; the machine's role is for the client to ask.
    fn vendor_s3(&self) -> Option<Credentials> {
        let env = &self.around.env;
        let seeds::Ambient { pair, session_token, .. } = seeds::ambient(env);
        if let Some((id, secret)) = pair {
            return Some(Credentials::S3 {
                access_key_id: id.to_owned(),
                secret_access_key: secret.to_owned(),
                session_token: session_token.map(str::to_owned),
            });
        }
        let file = env.get("AWS_SHARED_CREDENTIALS_FILE").map_or_else(
            || env.get("HOME").map(|home| Path::new(home).join(".aws/credentials")),
            |path| Some(self.path(path)),
        );
        let section = env.get("AWS_PROFILE").map_or("default", String::as_str);
        shared_credentials(&std::fs::read_to_string(file?).ok()?, section)
    }

    fn vendor_gcs(&mut self) -> Option<Credentials> {
        let name = "GOOGLE_APPLICATION_CREDENTIALS";
        let path = self.path(self.around.env.get(name).filter(|path| !path.is_empty())?);
        match std::fs::read_to_string(&path) {
            Ok(json) => Some(Credentials::ServiceAccount { json }),
            Err(error) => {
                self.warnings.push(format!("{name} names {}, which cannot be read: {error}", path.display()));
                None
            }
        }
    }

    fn vendor_azure(&self) -> Option<Credentials> {
        let get = |name: &str| self.around.env.get(name).filter(|text| !text.is_empty()).cloned();
        get("AZURE_STORAGE_KEY")
            .map(|key| Credentials::AccountKey { key })
            .or_else(|| get("AZURE_STORAGE_SAS_TOKEN").map(|token| Credentials::Sas { token }))
    }

    /// A bucket of S3 as the configured storage.
    pub(super) fn s3_storage(
        &mut self,
        storage: &document::Storage,
        name: String,
        prefix: Option<ObjectPath>,
    ) -> Option<Storage> {
        let endpoint = self.storage_endpoint(storage)?;
        let credentials = match (&storage.access_key_id, &storage.secret_access_key) {
            (Some(id), Some(Hidden(secret))) => Some(Credentials::S3 {
                access_key_id: id.clone(),
                secret_access_key: secret.expose_secret().to_owned(),
                session_token: storage
                    .session_token
                    .as_ref()
                    .map(|Hidden(token)| token.expose_secret().to_owned()),
            }),
            (None, None) => None,
            (Some(_), None) => {
                self.fault("storage.access_key_id", "needs storage.secret_access_key as well");
                None
            }
            (None, Some(_)) => {
                self.fault("storage.secret_access_key", "needs storage.access_key_id as well");
                None
            }
        };
        // Both were filled in where the file says nothing.
        let (region, path_style) = (storage.region.clone(), storage.path_style);
        Some(Storage::Bucket {
            bucket: Bucket::S3 { name, region, endpoint, path_style },
            prefix,
            credentials,
        })
    }

    /// Without a slash at its end. `None` = it is wrong.
    #[expect(clippy::option_option, reason = "absent and wrong are two things")]
    fn storage_endpoint(&mut self, storage: &document::Storage) -> Option<Option<String>> {
        let Some(text) = &storage.endpoint else { return Some(None) };
        let url = self.ok("storage.endpoint", place::endpoint(text))?;
        Some(Some(url.as_str().trim_end_matches('/').to_owned()))
    }

    /// A bucket of Google or a container of Azure as the configured storage.
    pub(super) fn cloud_storage(
        &mut self,
        document: &Document,
        container: Bucket,
        prefix: Option<ObjectPath>,
    ) -> Option<Storage> {
        let storage = &document.storage;
        let endpoint = self.storage_endpoint(storage)?;
        let (bucket, credentials) = match container {
            Bucket::Gcs { name, .. } => {
                let file = storage.service_account_file.as_ref();
                let own = file
                    .and_then(|file| self.secret_file("storage.service_account_file", &self.path(file)))
                    .map(|json| Credentials::ServiceAccount { json });
                (Bucket::Gcs { name, endpoint }, own.or_else(|| self.vendor_gcs()))
            }
            Bucket::Azure { account, container, .. } => {
                let own = storage
                    .account_key
                    .as_ref()
                    .map(|Hidden(key)| Credentials::AccountKey { key: key.expose_secret().to_owned() });
                (Bucket::Azure { account, container, endpoint }, own.or_else(|| self.vendor_azure()))
            }
            Bucket::S3 { .. } => return None,
        };
        Some(Storage::Bucket { bucket, prefix, credentials })
    }
}

/// A section of the file `~/.aws/credentials`.
fn shared_credentials(text: &str, section: &str) -> Option<Credentials> {
    let mut within = false;
    let mut found = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            within = name.trim() == section;
        } else if within && let Some((key, value)) = line.split_once('=') {
            found.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    Some(Credentials::S3 {
        access_key_id: found.remove("aws_access_key_id")?,
        secret_access_key: found.remove("aws_secret_access_key")?,
        session_token: found.remove("aws_session_token"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_of_the_credentials_file_is_read() {
        let text =
            "[default]\naws_access_key_id = A\naws_secret_access_key=S=\n\n[other]\naws_access_key_id = B\n";
        let expected = Credentials::S3 {
            access_key_id: "A".into(),
            secret_access_key: "S=".into(),
            session_token: None,
        };
        assert!(shared_credentials(text, "default") == Some(expected));
        assert!(shared_credentials(text, "other").is_none() && shared_credentials(text, "none").is_none());
    }
}
