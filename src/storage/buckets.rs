//! Which credentials serve which bucket (PROTOCOL §1.9): request > profile > the server's own, and those only where the
//! operator listed the bucket.
//!
//! An address that a request chose is reached through clients that obey the address policy; one that the operator wrote
//! down (a profile's, or a vendor's own for a listed bucket) is trusted. A profile's credentials are never sent to an
//! address of a request's choice.

use std::sync::Arc;

use url::Url;

use super::http::HttpClients;
use super::object::{Bucket, Opening, Patience, Who};
use super::policy::of_destination;
use crate::domain::{self, Access, Acl, BucketAccess, Code, Credentials, Failure, Profile};

/// What a bucket is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Reading,
    Writing,
}

/// Opens buckets of requests.
#[derive(Debug)]
pub(super) struct Buckets {
    settings: BucketAccess,
    guarded: Arc<HttpClients>,
    trusted: Arc<HttpClients>,
    patience: Patience,
}

/// A bucket, and on whose behalf.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) bucket: &'a domain::Bucket,
    pub(super) access: &'a Access,
    /// Those of the request.
    pub(super) given: Option<&'a Credentials>,
    pub(super) purpose: Purpose,
    pub(super) acl: Option<Acl>,
}

impl Buckets {
    pub(super) fn new(
        settings: BucketAccess,
        guarded: Arc<HttpClients>,
        trusted: Arc<HttpClients>,
        patience: Patience,
    ) -> Self {
        Self { settings, guarded, trusted, patience }
    }

    /// Builds the clients for a bucket; no network.
    ///
    /// # Errors
    /// `destination_forbidden` or `source_forbidden` for credentials that are missing or do not fit, and what the
    /// address policy says of the endpoint.
    pub(super) fn open(&self, wanted: Wanted<'_>) -> Result<Bucket, Failure> {
        let Wanted { bucket, access, given, purpose, acl } = wanted;
        let refuse = |message: &str| Err(Failure::new(purpose.forbidden(), message));
        let (bucket, who, clients) = match access {
            Access::Request => match given {
                Some(given) => (bucket.clone(), Who::As(given.clone()), &self.guarded),
                None => return refuse("the credentials of the request are not here any more"),
            },
            Access::Anonymous => (bucket.clone(), Who::Anonymous, &self.guarded),
            Access::Profile { name } => {
                let Some(profile) = self.settings.profiles.get(name) else {
                    return refuse("this server has no storage profile of that name");
                };
                let Some(place) = place_of(profile, bucket) else {
                    return refuse("the storage profile is not for that bucket or address");
                };
                let who = profile.credentials.clone().map_or(Who::Machine, Who::As);
                (place, who, &self.trusted)
            }
            Access::Unsaid if self.lists(bucket, purpose) => {
                let own = match bucket {
                    domain::Bucket::S3 { .. } => &self.settings.s3,
                    domain::Bucket::Gcs { .. } => &self.settings.gcs,
                    domain::Bucket::Azure { .. } => &self.settings.azure,
                };
                (bucket.clone(), own.clone().map_or(Who::Machine, Who::As), &self.trusted)
            }
            Access::Unsaid if purpose == Purpose::Reading => (bucket.clone(), Who::Anonymous, &self.guarded),
            Access::Unsaid => {
                return refuse(
                    "writing to a bucket needs credentials in the request or a profile; \
                     the server's own serve the buckets in 'destinations.buckets'",
                );
            }
        };
        if Arc::ptr_eq(clients, &self.guarded)
            && let Some(url) = bucket.endpoint().and_then(|endpoint| Url::parse(endpoint).ok())
        {
            clients.policy().check_url(&url).map_err(|failure| purpose.refusal(failure))?;
        }
        let opening = Opening { bucket: &bucket, prefix: None, who, acl, patience: self.patience, clients };
        Bucket::open_at(opening).map_err(|failure| Failure { code: purpose.forbidden(), ..failure })
    }

    /// Whether the operator lets the server's own credentials be used there. An address of the request's is not theirs.
    fn lists(&self, bucket: &domain::Bucket, purpose: Purpose) -> bool {
        let listed = match purpose {
            Purpose::Reading => &self.settings.sources,
            Purpose::Writing => &self.settings.destinations,
        };
        bucket.endpoint().is_none() && listed.contains(&bucket.url())
    }
}

/// The bucket at the profile's own address; `None` where the request's is another.
fn place_of(profile: &Profile, wanted: &domain::Bucket) -> Option<domain::Bucket> {
    use domain::Bucket::{Azure, Gcs, S3};
    if !profile.buckets.is_empty() && !profile.buckets.iter().any(|name| name == wanted.name()) {
        return None;
    }
    let agrees = |asked: &Option<String>, own: &Option<String>| asked.is_none() || asked == own;
    match (wanted, &profile.place) {
        (S3 { name, region, endpoint: asked, .. }, S3 { region: own, endpoint, path_style, .. }) => {
            agrees(asked, endpoint).then(|| S3 {
                name: name.clone(),
                region: region.clone().or_else(|| own.clone()),
                endpoint: endpoint.clone(),
                path_style: *path_style,
            })
        }
        (Gcs { name, endpoint: asked }, Gcs { endpoint, .. }) => {
            agrees(asked, endpoint).then(|| Gcs { name: name.clone(), endpoint: endpoint.clone() })
        }
        (Azure { account, container, endpoint: asked }, Azure { account: own, endpoint, .. }) => {
            (agrees(asked, endpoint) && account == own).then(|| Azure {
                account: own.clone(),
                container: container.clone(),
                endpoint: endpoint.clone(),
            })
        }
        _ => None,
    }
}

impl Purpose {
    const fn forbidden(self) -> Code {
        match self {
            Self::Reading => Code::SourceForbidden,
            Self::Writing => Code::DestinationForbidden,
        }
    }

    /// A refusal of the address policy, which speaks of sources.
    pub(super) fn refusal(self, failure: Failure) -> Failure {
        match self {
            Self::Reading => failure,
            Self::Writing => of_destination(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::http::SystemLookup;
    use crate::storage::policy::AddressPolicy;

    fn s3(name: &str, endpoint: Option<&str>) -> domain::Bucket {
        let endpoint = endpoint.map(str::to_owned);
        domain::Bucket::S3 { name: name.to_owned(), region: None, endpoint, path_style: None }
    }

    fn key() -> Credentials {
        Credentials::S3 {
            access_key_id: "AK".into(),
            secret_access_key: "canary".into(),
            session_token: None,
        }
    }

    fn buckets() -> Buckets {
        let clients = |rules: &[&str]| {
            let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
            let policy = AddressPolicy::new(rules);
            Arc::new(HttpClients::new(policy, Arc::new(SystemLookup), std::time::Duration::from_secs(1)))
        };
        let profile = |endpoint, buckets: &[&str]| Profile {
            place: s3("", endpoint),
            credentials: Some(key()),
            buckets: buckets.iter().map(ToString::to_string).collect(),
        };
        let settings = BucketAccess {
            profiles: [
                ("any".to_owned(), profile(None, &[])),
                ("inside".to_owned(), profile(Some("http://10.0.0.1:9000"), &["mine"])),
            ]
            .into(),
            sources: vec!["s3://read".to_owned()],
            destinations: vec!["s3://write".to_owned()],
            s3: Some(key()),
            ..BucketAccess::default()
        };
        let patience = Patience::default();
        Buckets::new(settings, clients(&[]), clients(&["0.0.0.0/0", "::/0"]), patience)
    }

    #[test]
    fn the_servers_own_credentials_serve_only_what_the_operator_listed() {
        use Purpose::{Reading, Writing};

        let buckets = buckets();
        let profile = |name: &str| Access::Profile { name: name.to_owned() };
        let open = |bucket: &domain::Bucket, access: &Access, purpose| {
            let given = (*access == Access::Request).then(key);
            let wanted = Wanted { bucket, access, given: given.as_ref(), purpose, acl: None };
            buckets.open(wanted).map(drop).map_err(|failure| failure.code)
        };
        let forbidden = Err(Code::DestinationForbidden);
        // Nothing said: listed buckets as the server, others as nobody, and nobody writes.
        assert_eq!(open(&s3("read", None), &Access::Unsaid, Reading), Ok(()));
        assert_eq!(open(&s3("other", None), &Access::Unsaid, Reading), Ok(()));
        assert_eq!(open(&s3("write", None), &Access::Unsaid, Writing), Ok(()));
        assert_eq!(open(&s3("read", None), &Access::Unsaid, Writing), forbidden);
        // The same name at an address of the request's choice is not the operator's bucket.
        assert_eq!(open(&s3("write", Some("https://evil.example")), &Access::Unsaid, Writing), forbidden);
        // Profiles go to their own address and buckets only.
        assert_eq!(open(&s3("mine", None), &profile("inside"), Writing), Ok(()));
        assert_eq!(open(&s3("mine", Some("http://10.0.0.1:9000")), &profile("inside"), Writing), Ok(()));
        assert_eq!(open(&s3("mine", Some("https://evil.example")), &profile("inside"), Writing), forbidden);
        assert_eq!(open(&s3("yours", None), &profile("inside"), Writing), forbidden);
        assert_eq!(open(&s3("b", Some("https://evil.example")), &profile("any"), Writing), forbidden);
        assert_eq!(open(&s3("b", None), &profile("unknown"), Reading), Err(Code::SourceForbidden));
        // A request's own go where it says, as long as the policy permits the address.
        assert_eq!(open(&s3("b", Some("https://s3.example")), &Access::Request, Writing), Ok(()));
        for inside in [
            "http://10.0.0.1:9000",
            "http://127.0.0.1",
            "http://[::1]",
            "http://2130706433",
            "http://8.8.8.8:22",
        ] {
            assert_eq!(open(&s3("b", Some(inside)), &Access::Request, Writing), forbidden, "{inside}");
            assert_eq!(
                open(&s3("b", Some(inside)), &Access::Anonymous, Reading),
                Err(Code::SourceBlocked),
                "{inside}"
            );
        }
    }

    #[test]
    fn credentials_of_another_kind_make_no_client() {
        let buckets = buckets();
        let azure = domain::Bucket::Azure { account: "a".into(), container: "c".into(), endpoint: None };
        let given = key();
        let wanted = Wanted {
            bucket: &azure,
            access: &Access::Request,
            given: Some(&given),
            purpose: Purpose::Writing,
            acl: None,
        };
        let failure = buckets.open(wanted).unwrap_err();
        assert_eq!(failure.code, Code::DestinationForbidden);
        assert!(!format!("{failure:?}").contains("canary"));
        assert!(buckets.open(Wanted { given: None, ..wanted }).is_err());
    }
}
