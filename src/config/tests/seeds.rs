//! The variables of other systems, and the spellings they brought.

use std::path::PathBuf;
use std::time::Duration;

use super::{faults, load};
use crate::config::{LogFormat, Storage};
use crate::domain::{Bucket, Credentials, ObjectPath, Tenant};

#[test]
fn the_seeds_variables() {
    let config = load(
        "[server]\nlisten = \"127.0.0.1:1\"",
        &[
            ("PORT", "9000"),
            ("WORKER_ID", "w7"),
            ("WORK_DIR", "/tmp/w"),
            ("RETENTION_HOURS", "24"),
            ("LOG_LEVEL", "debug"),
            ("ENV", "production"),
            ("API_KEY", "abc"),
            ("LOCAL_STORAGE_DIR", "/media/out"),
            ("S3_REGION", "eu-west-1"),
            ("AWS_ACCESS_KEY_ID", "AK"),
            ("WORKER_NODES", "a:1, B.example:2,"),
            ("GRPC_PORT", "50052"),
            ("REDIS_ADDR", "r:1"),
            ("MYSQL_HOST", ""),
            ("DATABASE_URL", "postgres://h/d"),
            ("DISABLE_AUTO_SHUTDOWN", "true"),
        ],
    )
    .unwrap();
    assert_eq!(config.server.listen, "127.0.0.1:9000".parse().unwrap());
    assert_eq!(config.worker.id.as_str(), "w7");
    assert_eq!(config.worker.work_dir, PathBuf::from("/tmp/w"));
    assert_eq!(config.retention.keep, Duration::from_hours(24));
    assert_eq!((config.log.format, config.log.filter.as_str()), (LogFormat::Json, "debug"));
    assert!(matches!(&config.storage, Storage::Local { root } if root == &PathBuf::from("/media/out")));
    // SHA-256 of "abc", FIPS 180-2 appendix B.1.
    assert_eq!(config.keys[0].hash.0[..4], [0xba, 0x78, 0x16, 0xbf]);
    assert_eq!(config.keys[0].tenant, Tenant::local());
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    assert_eq!(config.workers.nodes, ["a:1", "b.example:2"]);
    assert_eq!(config.network.listen, "127.0.0.1:50052".parse().unwrap());
    assert!(load("", &[("API_PORT", "9000")]).is_ok_and(|config| config.server.listen.port() == 9000));
    assert_eq!(faults("", &[("PORT", "tcp://x")])[0].key, "server.listen");
}

/// A configured bucket of S3.
struct S3 {
    bucket: String,
    region: String,
    path_style: bool,
    prefix: Option<ObjectPath>,
    credentials: Option<Pair>,
}

struct Pair {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

fn s3(file: &str, env: &[(&str, &str)]) -> S3 {
    let storage = load(file, env).unwrap().storage;
    let Storage::Bucket { bucket: Bucket::S3 { name, region, path_style, .. }, prefix, credentials } =
        storage
    else {
        panic!("expected a bucket of S3, got {storage:?}");
    };
    let credentials = credentials.map(|credentials| {
        let Credentials::S3 { access_key_id, secret_access_key, session_token } = credentials else {
            panic!("expected a pair of keys, got {credentials:?}");
        };
        Pair { access_key_id, secret_access_key, session_token }
    });
    S3 { bucket: name, region: region.unwrap(), path_style: path_style.unwrap(), prefix, credentials }
}

#[test]
fn a_bucket_from_the_seeds_variables() {
    let env = [
        ("STORAGE_TYPE", "s3"),
        ("S3_BUCKET", "media"),
        ("S3_REGION", "eu-west-1"),
        ("S3_ENDPOINT", "http://minio:9000"),
        ("S3_ACCESS_KEY", "AK"),
        ("S3_SECRET_KEY", "s3cr3t"),
    ];
    let bucket = s3("[storage]\nregion = \"other\"", &env);
    assert_eq!(
        (bucket.bucket.as_str(), bucket.region.as_str(), bucket.path_style),
        ("media", "eu-west-1", true)
    );
    assert_eq!(bucket.credentials.unwrap().access_key_id, "AK");
    assert_eq!(faults("", &[("STORAGE_TYPE", "s3")])[0].key, "storage.url");
    assert_eq!(faults("", &[("STORAGE_TYPE", "gcs")])[0].problem, "expected \"local\" or \"s3\"");
    assert!(load("", &[("STORAGE_TYPE", "local"), ("S3_BUCKET", "media")]).is_ok());
}

#[test]
fn the_vendors_variables_fill_gaps_and_never_mix_pairs() {
    let ambient = [
        ("AWS_REGION", "eu-north-1"),
        ("AWS_ACCESS_KEY_ID", "ambient"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_SESSION_TOKEN", "t"),
    ];
    let bucket = s3("[storage]\nurl = \"s3://media/a\"", &ambient);
    assert_eq!((bucket.region.as_str(), bucket.path_style), ("eu-north-1", false));
    assert_eq!(bucket.prefix.unwrap().as_str(), "a");
    assert!(bucket.credentials.unwrap().session_token.is_some());

    let own = "[storage]\nurl = \"s3://media\"\naccess_key_id = \"own\"\naccess_key_secret = \"y\"";
    let credentials = s3(own, &ambient).credentials.unwrap();
    assert_eq!(credentials.access_key_id, "own");
    assert!(credentials.session_token.is_none());
    assert_eq!(
        faults("[storage]\nurl = \"s3://media\"\naccess_key_id = \"own\"", &ambient)[0].problem,
        "needs storage.secret_access_key as well"
    );
    assert_eq!(faults("[storage]\nregion = \"x\"", &[])[0].key, "storage.region");
    assert!(s3("[storage]\nurl = \"s3://media\"", &[]).credentials.is_none());
    assert!(s3("[storage]\nurl = \"s3://media\"", &ambient[..2]).credentials.is_none());
}

#[test]
fn the_two_spellings_of_the_secret_are_one_key() {
    let file = "[storage]\nurl = \"s3://media\"\naccess_key_id = \"AK\"\naccess_key_secret = \"file\"";
    for (variable, secret) in [
        ("UNRELATED", "file"),
        ("S3_SECRET_KEY", "higher"),
        ("FLUX__STORAGE__ACCESS_KEY_SECRET", "higher"),
        ("FLUX__STORAGE__SECRET_ACCESS_KEY", "higher"),
    ] {
        let credentials = s3(file, &[(variable, "higher")]).credentials.unwrap();
        assert_eq!(credentials.secret_access_key, secret, "{variable}");
    }
    let both = format!("{file}\nsecret_access_key = \"two\"");
    assert!(faults(&both, &[])[0].problem.contains("duplicate field"));
}
