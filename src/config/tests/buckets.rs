//! Profiles, listed buckets, and whose credentials they get.

use super::*;

fn key(id: &str, secret: &str) -> Credentials {
    let (access_key_id, secret_access_key) = (id.to_owned(), secret.to_owned());
    Credentials::S3 { access_key_id, secret_access_key, session_token: None }
}

/// Credentials print nothing of themselves, so a comparison says only whether it held.
#[track_caller]
fn same(found: Option<&Credentials>, expected: Option<&Credentials>) {
    assert!(found == expected, "other credentials");
}

#[test]
fn profiles_of_every_kind_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "from-a-file\n").unwrap();
    let file = format!(
        "[storage.profiles.a]\nkind = \"s3\"\nregion = \"eu-west-1\"\naccess_key_id = \"AK\"\n\
         secret_access_key_file = \"{0}\"\nbuckets = [\"x\"]\n\
         [storage.profiles.b]\nkind = \"gcs\"\nservice_account_file = \"{0}\"\n\
         [storage.profiles.c]\nkind = \"azure\"\naccount = \"acc\"\nendpoint = \"http://10.0.0.1:10000/acc/\"\n\
         sas_token_file = \"{0}\"\n\
         [storage.profiles.d]\nkind = \"s3\"\n",
        secret.display()
    );
    let access = load(&file, &[]).unwrap().buckets;
    let a = &access.profiles["a"];
    assert_eq!(a.buckets, ["x"]);
    assert!(matches!(&a.place, Bucket::S3 { region: Some(region), .. } if region == "eu-west-1"));
    same(a.credentials.as_ref(), Some(&key("AK", "from-a-file")));
    let json = Credentials::ServiceAccount { json: "from-a-file".to_owned() };
    same(access.profiles["b"].credentials.as_ref(), Some(&json));
    let c = &access.profiles["c"];
    assert_eq!(c.place.endpoint(), Some("http://10.0.0.1:10000/acc"));
    same(c.credentials.as_ref(), Some(&Credentials::Sas { token: "from-a-file".to_owned() }));
    assert!(access.profiles["d"].credentials.is_none(), "the role of the machine");
}

#[test]
fn a_profile_that_makes_no_sense_is_a_fault_with_its_key() {
    for (keys, at) in [
        ("kind = \"ftp\"", "kind"),
        ("kind = \"s3\"\naccess_key_id = \"AK\"", "access_key_id"),
        ("kind = \"s3\"\naccount = \"a\"", "account"),
        ("kind = \"azure\"", "account"),
        ("kind = \"azure\"\naccount = \"a\"\naccount_key = \"k\"\nsas_token = \"t\"", "sas_token"),
        ("kind = \"gcs\"\nservice_account_file = \"/nowhere\"", "service_account_file"),
        (
            "kind = \"azure\"\naccount = \"a\"\naccount_key = \"k\"\naccount_key_file = \"/nowhere\"",
            "account_key_file",
        ),
        ("kind = \"s3\"\nendpoint = \"ftp://x\"", "endpoint"),
    ] {
        let found = faults(&format!("[storage.profiles.p]\n{keys}\n"), &[]);
        let keys: Vec<_> = found.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(keys, [format!("storage.profiles.p.{at}")], "{found:?}");
    }
    assert_eq!(faults("[storage.profiles.\"a b\"]\nkind = \"s3\"", &[]).len(), 1);
}

#[test]
fn only_whole_buckets_are_listed() {
    let file = "[sources]\nbuckets = [\"s3://a\", \"gs://b/\", \"az://acc/c\"]";
    assert_eq!(load(file, &[]).unwrap().buckets.sources, ["s3://a", "gs://b", "az://acc/c"]);
    let bad = "[destinations]\nbuckets = [\"s3://a/prefix\", \"a\", \"az://acc\", \"s3://u:p@a\"]";
    assert_eq!(faults(bad, &[]).len(), 4);
}

/// Environment, then the shared file, and none of it where no bucket is listed.
#[test]
fn the_environment_serves_listed_buckets_only() {
    let dir = tempfile::tempdir().unwrap();
    let shared = dir.path().join("credentials");
    fs::write(&shared, "[default]\naws_access_key_id = F\naws_secret_access_key = file\n").unwrap();
    let at = shared.display().to_string();
    let listed = "[sources]\nbuckets = [\"s3://a\"]";
    let file = [("AWS_SHARED_CREDENTIALS_FILE", at.as_str()), ("AZURE_STORAGE_KEY", "az")];
    let both = [file[0], file[1], ("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "env")];
    same(load(listed, &both).unwrap().buckets.s3.as_ref(), Some(&key("E", "env")));
    let from_file = load(listed, &file).unwrap().buckets;
    same(from_file.s3.as_ref(), Some(&key("F", "file")));
    same(from_file.azure.as_ref(), Some(&Credentials::AccountKey { key: "az".to_owned() }));
    let unlisted = load("", &both).unwrap().buckets;
    assert!(unlisted.s3.is_none() && unlisted.azure.is_none() && unlisted.gcs.is_none());
}

#[test]
fn secrets_of_profiles_are_shown_nowhere() {
    let file = "[storage.profiles.p]\nkind = \"s3\"\naccess_key_id = \"AK\"\nsecret_access_key = \"canary\"\n\
                session_token = \"canary\"\n[storage.profiles.q]\nkind = \"azure\"\naccount = \"a\"\n\
                account_key = \"canary\"\n";
    let config = load(file, &[]).unwrap();
    assert!(config.show().contains("AK"));
    assert!(!config.show().contains("canary") && !format!("{config:?}").contains("canary"));
}

#[test]
fn the_configured_storage_may_be_googles_or_azures() {
    let azure = "[storage]\nurl = \"az://acc/box/pre\"\naccount_key = \"k\"";
    let Storage::Bucket { bucket, prefix, credentials } = load(azure, &[]).unwrap().storage else {
        panic!("a bucket")
    };
    assert_eq!((bucket.url(), prefix.unwrap().to_string()), ("az://acc/box".to_owned(), "pre".to_owned()));
    same(credentials.as_ref(), Some(&Credentials::AccountKey { key: "k".to_owned() }));
    let google = load("[storage]\nurl = \"gs://b\"", &[]).unwrap().storage;
    assert!(matches!(google, Storage::Bucket { credentials: None, .. }));
    assert_eq!(faults("[storage]\nurl = \"gs://b\"\nregion = \"x\"", &[]).len(), 1);
}

/// Else an operator would believe that a credential is used which nobody reads.
#[test]
fn keys_of_another_kind_of_storage_are_faults() {
    for (url, key, at) in [
        ("file:x", "account_key = \"k\"", "account_key"),
        ("file:x", "service_account_file = \"/f\"", "service_account_file"),
        ("file:x", "endpoint = \"http://h\"", "endpoint"),
        ("s3://bucket", "account_key = \"k\"", "account_key"),
        ("s3://bucket", "service_account_file = \"/f\"", "service_account_file"),
        ("gs://bucket", "account_key = \"k\"", "account_key"),
        ("az://acc/box", "path_style = true", "path_style"),
    ] {
        let found = faults(&format!("[storage]\nurl = \"{url}\"\n{key}\n"), &[]);
        let keys: Vec<_> = found.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(keys, [format!("storage.{at}")], "{url}: {found:?}");
    }
}
