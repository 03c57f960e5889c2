//! Building clients of object stores: one place for the configured bucket, for profiles and for requests.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use url::Url;

use super::connector::Connector;
use super::{Bucket, CONNECT_TIMEOUT, Multi, Patience, READ_TIMEOUT, SEND_TIMEOUT, Staging};
use crate::domain::{self, Acl, Code, Credentials, Failure, ObjectPath};
use crate::storage::http::HttpClients;

/// With which credentials a bucket is used.
#[derive(Debug, Clone)]
pub(in crate::storage) enum Who {
    /// Without any.
    Anonymous,
    /// The machine's own role.
    Machine,
    /// These.
    As(Credentials),
}

/// All that a bucket's clients are made of.
#[derive(Debug)]
pub(in crate::storage) struct Opening<'a> {
    pub(in crate::storage) bucket: &'a domain::Bucket,
    /// Put before every key.
    pub(in crate::storage) prefix: Option<ObjectPath>,
    pub(in crate::storage) who: Who,
    pub(in crate::storage) acl: Option<Acl>,
    pub(in crate::storage) patience: Patience,
    /// What it is reached with: clients that obey the policy for strangers, or those that trust the operator.
    pub(in crate::storage) clients: &'a Arc<HttpClients>,
}

impl Bucket {
    /// Builds the clients; no network.
    ///
    /// # Errors
    /// `destination_forbidden` where the credentials are of another kind or cannot be read.
    pub(in crate::storage) fn open_at(opening: Opening<'_>) -> Result<Self, Failure> {
        let reading = client(&opening, READ_TIMEOUT, HeaderMap::new())?;
        let (sending, finishing_new, staging) = match opening.bucket {
            domain::Bucket::S3 { .. } => {
                let mut acl = HeaderMap::new();
                if let Some(chosen) = opening.acl {
                    acl.insert(
                        HeaderName::from_static("x-amz-acl"),
                        HeaderValue::from_static(chosen.as_str()),
                    );
                }
                let mut only_new = HeaderMap::new();
                only_new.insert(http::header::IF_NONE_MATCH, HeaderValue::from_static("*"));
                let finishing_new = client(&opening, SEND_TIMEOUT, only_new)?;
                (client(&opening, SEND_TIMEOUT, acl)?, Some(finishing_new), Staging::Uploads)
            }
            domain::Bucket::Gcs { .. } => {
                (client(&opening, SEND_TIMEOUT, HeaderMap::new())?, None, Staging::Uploads)
            }
            domain::Bucket::Azure { .. } => {
                (client(&opening, SEND_TIMEOUT, HeaderMap::new())?, None, Staging::Blobs)
            }
        };
        Ok(Self {
            identity: opening.bucket.clone(),
            prefix: opening.prefix,
            reading,
            sending,
            finishing_new,
            staging,
        })
    }
}

fn client(opening: &Opening<'_>, answer: Duration, headers: HeaderMap) -> Result<Arc<dyn Multi>, Failure> {
    let connector = Connector::new(opening.clients, answer);
    let options = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_allow_http(opening.bucket.endpoint().is_some_and(|endpoint| endpoint.starts_with("http:")))
        .with_default_headers(headers);
    let retry = retry(opening.patience);
    let unfit = || Failure::new(Code::DestinationForbidden, "the credentials are not of the bucket's kind");
    match opening.bucket {
        domain::Bucket::S3 { name, region, endpoint, path_style } => {
            let mut builder = AmazonS3Builder::new()
                .with_bucket_name(name)
                .with_region(region.as_deref().unwrap_or("us-east-1"))
                .with_virtual_hosted_style_request(!path_style.unwrap_or(endpoint.is_some()))
                .with_client_options(options)
                .with_retry(retry)
                .with_http_connector(connector);
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(s3_endpoint(endpoint, name, *path_style));
            }
            builder = match &opening.who {
                Who::Anonymous => builder.with_skip_signature(true),
                Who::Machine => builder,
                Who::As(Credentials::S3 { access_key_id, secret_access_key, session_token }) => {
                    let keyed =
                        builder.with_access_key_id(access_key_id).with_secret_access_key(secret_access_key);
                    match session_token {
                        Some(token) => keyed.with_token(token),
                        None => keyed,
                    }
                }
                Who::As(_) => return Err(unfit()),
            };
            Ok(Arc::new(builder.build().map_err(|error| refused(&error))?))
        }
        domain::Bucket::Gcs { name, endpoint } => {
            let mut builder = GoogleCloudStorageBuilder::new()
                .with_bucket_name(name)
                .with_client_options(options)
                .with_retry(retry)
                .with_http_connector(connector);
            if let Some(endpoint) = endpoint {
                builder = builder.with_base_url(endpoint);
            }
            builder = match &opening.who {
                Who::Anonymous => builder.with_skip_signature(true),
                Who::Machine => builder,
                Who::As(Credentials::ServiceAccount { json }) => builder.with_service_account_key(json),
                Who::As(Credentials::Bearer { token }) => builder.with_bearer_token(token),
                Who::As(_) => return Err(unfit()),
            };
            Ok(Arc::new(builder.build().map_err(|error| refused(&error))?))
        }
        domain::Bucket::Azure { account, container, endpoint } => {
            let mut builder = MicrosoftAzureBuilder::new()
                .with_account(account)
                .with_container_name(container)
                .with_client_options(options)
                .with_retry(retry)
                .with_http_connector(connector);
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint.clone());
            }
            builder = match &opening.who {
                Who::Anonymous => builder.with_skip_signature(true),
                Who::Machine => builder,
                Who::As(Credentials::AccountKey { key }) => builder.with_access_key(key),
                Who::As(Credentials::Bearer { token }) => builder.with_bearer_token_authorization(token),
                Who::As(Credentials::Sas { token }) => {
                    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(token.as_bytes())
                        .map(|(name, value)| (name.into_owned(), value.into_owned()))
                        .collect();
                    builder.with_sas_authorization(pairs)
                }
                Who::As(_) => return Err(unfit()),
            };
            Ok(Arc::new(builder.build().map_err(|error| refused(&error))?))
        }
    }
}

/// `object_store` takes an endpoint of virtual-hosted requests with the bucket already in its name.
fn s3_endpoint(endpoint: &str, bucket: &str, path_style: Option<bool>) -> String {
    let plain = endpoint.trim_end_matches('/');
    if path_style != Some(false) {
        return plain.to_owned();
    }
    let Ok(mut url) = Url::parse(plain) else { return plain.to_owned() };
    let host = url.host_str().unwrap_or_default().to_owned();
    if !host.starts_with(&format!("{bucket}.")) && url.set_host(Some(&format!("{bucket}.{host}"))).is_err() {
        return plain.to_owned();
    }
    url.as_str().trim_end_matches('/').to_owned()
}

pub(super) fn retry(patience: Patience) -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: patience.backoff,
        max_backoff: Duration::from_secs(5),
        ..Default::default()
    };
    RetryConfig { backoff, max_retries: patience.retries, retry_timeout: patience.within }
}

/// What makes no client: a key that is none. Its text is not repeated, it may hold a part of it.
fn refused(_: &object_store::Error) -> Failure {
    Failure::new(Code::DestinationForbidden, "the credentials or the bucket's address cannot be used")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_virtual_hosts_carry_the_bucket_once() {
        assert_eq!(s3_endpoint("https://s3.example", "b", Some(false)), "https://b.s3.example");
        assert_eq!(s3_endpoint("https://b.s3.example/", "b", Some(false)), "https://b.s3.example");
        assert_eq!(s3_endpoint("https://s3.example:9000/", "b", None), "https://s3.example:9000");
    }
}
