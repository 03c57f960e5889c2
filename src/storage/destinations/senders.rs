//! Destinations that a request names by a URL: FTP servers, fenced by part and rename, and HTTP receivers, which have no
//! fence (see [`put`]).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;

use super::{Existing, HandleFate, StagedFile};
use crate::domain::{Access, Code, Credentials, Destination, Failure, HttpMethod, OutputSecrets};
use crate::storage::ftp::{self, FtpClients, FtpLimits, FtpLogin, FtpTarget, Part, Uploads};
use crate::storage::handle::{Place, Staged};
use crate::storage::http::{HttpClients, Lookup};
use crate::storage::is_reserved;
use crate::storage::pauses::Pauses;
use crate::storage::policy::{AddressPolicy, AllowRule};
use crate::storage::put::{self, Put, PutLimits};

/// Bounds on FTP servers. The confirmation of a large file takes as long as the server's disk needs.
const FTP_LIMITS: FtpLimits = FtpLimits {
    connect: Duration::from_secs(10),
    reply: Duration::from_secs(30),
    confirm: Duration::from_mins(2),
    stall: Duration::from_secs(30),
};
/// Bounds on HTTP receivers.
const PUT_LIMITS: PutLimits = PutLimits { stall: Duration::from_secs(30), answer: Duration::from_mins(2) };
/// Until a connection to an HTTP receiver stands.
const CONNECT: Duration = Duration::from_secs(10);

/// Who sends to URLs.
#[derive(Debug)]
pub(in crate::storage) struct Senders {
    http: Arc<HttpClients>,
    ftp: FtpClients,
    put_limits: PutLimits,
    pauses: Pauses,
}

impl Senders {
    /// Senders that may reach the public internet and what `allow` adds.
    pub(in crate::storage) fn new(allow: &[AllowRule], lookup: Arc<dyn Lookup>) -> Self {
        let policy = || AddressPolicy::new(allow.to_vec());
        Self {
            http: Arc::new(HttpClients::new(policy(), Arc::clone(&lookup), CONNECT)),
            ftp: FtpClients::new(policy(), lookup, FTP_LIMITS),
            put_limits: PUT_LIMITS,
            pauses: Pauses::default(),
        }
    }

    /// Whether a job may name this URL, as far as that is known without the network.
    pub(super) fn check_http(&self, url: &str, secrets: &OutputSecrets) -> Result<(), Failure> {
        let request = put::request(secrets.url.as_deref().unwrap_or(url), &secrets.headers)?;
        put::check(&self.http, request.url())
    }

    /// The same for FTP.
    pub(super) fn check_ftp(&self, url: &str, secrets: &OutputSecrets) -> Result<(), Failure> {
        let (uploads, path) = self.ftp(url, secrets)?;
        if is_reserved(&path) {
            return Err(forbidden("names that start with '.flux-' are reserved"));
        }
        self.ftp.check(&uploads.server).map_err(ftp::destination_failure)
    }

    /// The place of a new handle; nothing is sent and nobody is asked.
    pub(super) fn place(
        &self,
        destination: &Destination,
        secrets: &OutputSecrets,
        file: &StagedFile,
    ) -> Result<Option<Place>, Failure> {
        Ok(match destination {
            Destination::Http { url, method } => {
                self.check_http(url, secrets)?;
                Some(Place::Http {
                    url: url.clone(),
                    method: *method,
                    source: file.path.clone(),
                    content_type: file.content_type.clone(),
                })
            }
            Destination::Ftp { url, .. } => {
                self.check_ftp(url, secrets)?;
                let access = match secrets.credentials {
                    Some(_) => Access::Request,
                    None => Access::Anonymous,
                };
                Some(Place::Ftp { url: url.clone(), access, modified: None })
            }
            Destination::Storage { .. } | Destination::File { .. } | Destination::Bucket { .. } => None,
        })
    }

    /// An FTP server as a destination, and the path on it.
    pub(super) fn ftp(&self, url: &str, secrets: &OutputSecrets) -> Result<(Uploads<'_>, String), Failure> {
        let bad = |error: ftp::BadAddress| {
            forbidden("the destination's URL names no file on an FTP server").with_detail(error.to_string())
        };
        let target = FtpTarget::parse(url).map_err(bad)?;
        let login = match &secrets.credentials {
            Some(Credentials::Login { username, password }) => {
                FtpLogin::new(username.clone(), password.clone()).map_err(bad)?
            }
            Some(_) => return Err(forbidden("an FTP server takes a user and a password")),
            None => target.login.unwrap_or_default(),
        };
        let uploads =
            Uploads { clients: &self.ftp, server: target.server, login, pauses: self.pauses.clone() };
        Ok((uploads, target.path))
    }

    /// What is at a path of an FTP server now.
    pub(super) async fn existing(
        &self,
        url: &str,
        secrets: &OutputSecrets,
    ) -> Result<Option<Existing>, Failure> {
        let (uploads, path) = self.ftp(url, secrets)?;
        let found = uploads.existing(&path).await?;
        Ok(found.map(|size| Existing { publication: None, size, sha256: None, etag: None }))
    }

    /// Sends the file to an HTTP receiver, which is all there is to it.
    pub(super) async fn put(
        &self,
        sending: &Sending<'_>,
        staged: &Staged,
        secrets: &OutputSecrets,
    ) -> Result<(), Failure> {
        let put = Put {
            method: match sending.method {
                HttpMethod::Put => Method::PUT,
                HttpMethod::Post => Method::POST,
            },
            request: put::request(secrets.url.as_deref().unwrap_or(sending.url), &secrets.headers)?,
            path: sending.source,
            size: staged.size,
            sha256: &staged.sha256,
            content_type: sending.content_type,
        };
        put::put(&self.http, self.put_limits, self.pauses.clone(), &put).await
    }
}

/// An HTTP handle's place.
#[derive(Debug)]
pub(super) struct Sending<'a> {
    pub(super) url: &'a str,
    pub(super) method: HttpMethod,
    pub(super) source: &'a PathBuf,
    pub(super) content_type: &'a str,
}

/// A handle as an FTP server sees it.
pub(super) fn part(staged: &Staged, path: String, modified: Option<&String>) -> Part {
    Part {
        path,
        publication: staged.publication,
        overwrite: staged.overwrite,
        size: staged.size,
        sha256: staged.sha256.clone(),
        modified: modified.cloned(),
    }
}

/// What becomes of an HTTP handle that is destroyed: nothing was sent before its permit, and what was sent after it
/// cannot be taken back or asked for. It is sent again, or the job ends without knowing.
pub(super) fn forgotten(staged: &Staged) -> HandleFate {
    tracing::warn!(
        publication = %staged.publication,
        "an HTTP destination cannot say whether it has a file that was begun to be sent (publication_unknown)"
    );
    HandleFate::Dead
}

/// Said when somebody wants to read back what was sent to a URL.
pub(super) fn not_read_back(destination: &Destination) -> Failure {
    let kind = destination.kind();
    Failure::new(
        Code::DestinationForbidden,
        format!("what was sent to an '{kind}' destination is not read back"),
    )
}

fn forbidden(sentence: &str) -> Failure {
    Failure::new(Code::DestinationForbidden, sentence)
}
