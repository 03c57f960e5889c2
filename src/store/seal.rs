//! Sealing of secrets at rest: ChaCha20-Poly1305 (RFC 8439) with the job's id as associated data (PROTOCOL §1.9).

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};

use super::row::{from_json, inconsistent, to_json};
use super::{Error, Result};

/// Length of a key, bytes.
const KEY_BYTES: usize = 32;
/// The generated key's name in the data folder.
const KEY_FILE: &str = "secrets.key";
const CHECK_AAD: &[u8] = b"flux key check";

/// Keys that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealKeysError {
    /// No key at all.
    #[error("there is no sealing key")]
    Empty,
    /// A key that is not 32 bytes in base64.
    #[error("sealing key {0} is not 32 bytes in base64")]
    NotAKey(usize),
}

/// The keys that seal secrets: the first seals, all open.
pub struct SealKeys {
    place: String,
    keys: Vec<SealKey>,
}

struct SealKey {
    id: String,
    key: LessSafeKey,
}

/// A sealed text: nonce, ciphertext and tag in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) key_id: String,
    pub(super) bytes: Vec<u8>,
}

impl SealKeys {
    /// Takes keys in base64, the first of which seals. `place` names their source in errors.
    pub fn from_base64<'a>(
        keys: impl IntoIterator<Item = &'a str>,
        place: impl Into<String>,
    ) -> std::result::Result<Self, SealKeysError> {
        let mut all = Vec::new();
        for (n, text) in keys.into_iter().enumerate() {
            let bytes = STANDARD.decode(text.trim()).ok();
            all.push(bytes.as_deref().and_then(SealKey::new).ok_or(SealKeysError::NotAKey(n + 1))?);
        }
        if all.is_empty() {
            return Err(SealKeysError::Empty);
        }
        Ok(Self { place: place.into(), keys: all })
    }

    /// A key that lives as long as this process.
    pub(super) fn of_this_process() -> Result<Self> {
        Self::from_bytes(&random_bytes::<KEY_BYTES>()?, "memory")
    }

    /// The data folder's own key, made at the first start, readable by its owner only.
    pub(super) fn of_folder(folder: &Path) -> Result<Self> {
        let path = folder.join(KEY_FILE);
        let place = path.display().to_string();
        let failed = |source| Error::Open { what: format!("sealing key {place}"), source };
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let text = match made {
            Ok(mut file) => {
                let text = STANDARD.encode(random_bytes::<KEY_BYTES>()?);
                file.write_all(text.as_bytes())
                    .and_then(|()| file.sync_all())
                    .and_then(|()| File::open(folder)?.sync_all())
                    .map_err(|e| failed(e.into()))?;
                text
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let mut text = String::new();
                File::open(&path)
                    .and_then(|mut file| file.read_to_string(&mut text))
                    .map_err(|e| failed(e.into()))?;
                text
            }
            Err(error) => return Err(failed(error.into())),
        };
        Self::from_base64([text.as_str()], place.clone()).map_err(|e| failed(e.into()))
    }

    fn from_bytes(bytes: &[u8], place: &str) -> Result<Self> {
        let key = SealKey::new(bytes)
            .ok_or_else(|| Error::Open { what: "sealing key".into(), source: "it is not 32 bytes".into() })?;
        Ok(Self { place: place.to_owned(), keys: vec![key] })
    }

    /// Proves that these keys open what is sealed in a record: its check value, as kept, and what was sealed with the
    /// keys named. Returns the secret that fingerprints are made with, and the check value if it is to be kept anew.
    ///
    /// The check value is that secret itself, sealed: it is random, says nothing about the key, and a copy of the
    /// database without the key cannot be used to guess request bodies.
    pub(super) fn check(
        &self,
        kept: Option<&str>,
        used: &[String],
    ) -> Result<([u8; KEY_BYTES], Option<String>)> {
        let wrong = || Error::WrongKey { place: self.place.clone() };
        let kept = kept.map(|text| from_json::<(String, String)>("meta", "key_check", text)).transpose()?;
        let (secret, current) = match kept {
            Some((key_id, sealed)) => {
                let bytes =
                    STANDARD.decode(sealed).map_err(|_| inconsistent("meta", "key_check is not base64"))?;
                let current = self.is_current(&key_id);
                let opened = self.open(CHECK_AAD, &Sealed { key_id, bytes }).ok_or_else(wrong)?;
                let secret =
                    opened.try_into().map_err(|_| inconsistent("meta", "key_check is not 32 bytes"))?;
                (secret, current)
            }
            None => (random_bytes()?, false),
        };
        if !used.iter().all(|key_id| self.knows(key_id)) {
            return Err(wrong());
        }
        let fresh = (!current).then(|| self.seal(CHECK_AAD, secret.to_vec())).transpose()?;
        let text = |sealed: Sealed| to_json("meta", &(sealed.key_id, STANDARD.encode(sealed.bytes)));
        Ok((secret, fresh.map(text).transpose()?))
    }

    /// Whether a sealed text of this key could be opened.
    fn knows(&self, key_id: &str) -> bool {
        self.keys.iter().any(|key| key.id == key_id)
    }

    /// Whether this is the key that seals now.
    fn is_current(&self, key_id: &str) -> bool {
        self.keys.first().is_some_and(|key| key.id == key_id)
    }

    pub(super) fn seal(&self, aad: &[u8], mut text: Vec<u8>) -> Result<Sealed> {
        let broken = || Error::Unavailable { doing: "sealing secrets", source: "the cipher refused".into() };
        let key = self.keys.first().ok_or_else(broken)?;
        let nonce: [u8; NONCE_LEN] = random_bytes()?;
        key.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut text)
            .map_err(|_| broken())?;
        let mut bytes = nonce.to_vec();
        bytes.append(&mut text);
        Ok(Sealed { key_id: key.id.clone(), bytes })
    }

    /// `None` when no key opens it or it was changed or moved to another job.
    pub(super) fn open(&self, aad: &[u8], sealed: &Sealed) -> Option<Vec<u8>> {
        let key = self.keys.iter().find(|key| key.id == sealed.key_id)?;
        let (nonce, text) = sealed.bytes.split_at_checked(NONCE_LEN)?;
        let mut text = text.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = key.key.open_in_place(nonce, Aad::from(aad), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }
}

impl std::fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealKeys({} from {})", self.keys.len(), self.place)
    }
}

impl SealKey {
    fn new(bytes: &[u8]) -> Option<Self> {
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, bytes).ok()?);
        let named = [b"flux sealing key".as_slice(), bytes].concat();
        let hash = digest::digest(&digest::SHA256, &named);
        Some(Self { id: STANDARD.encode(&hash.as_ref()[..9]), key })
    }
}

/// Bytes from the system's generator: keys and nonces are never injected.
pub(super) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Unavailable {
        doing: "drawing random bytes",
        source: "the system's generator refused".into(),
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> SealKeys {
        let texts: Vec<_> = bytes.iter().map(|b| STANDARD.encode([*b; KEY_BYTES])).collect();
        SealKeys::from_base64(texts.iter().map(String::as_str), "test").unwrap()
    }

    #[test]
    fn the_first_seals_and_all_open() {
        let old = keys(&[1]).seal(b"job", b"secret".to_vec()).unwrap();
        let both = keys(&[2, 1]);
        assert_eq!(both.open(b"job", &old).as_deref(), Some(b"secret".as_slice()));
        let new = both.seal(b"job", b"secret".to_vec()).unwrap();
        assert!(both.is_current(&new.key_id) && !both.is_current(&old.key_id));
        assert_eq!(keys(&[1]).open(b"job", &new), None);
    }

    #[test]
    fn a_sealed_text_belongs_to_one_job_and_shows_nothing() {
        let keys = keys(&[1]);
        let mut sealed = keys.seal(b"a", b"canary".to_vec()).unwrap();
        assert!(!sealed.bytes.windows(6).any(|w| w == b"canary"));
        assert_eq!(keys.open(b"b", &sealed), None);
        sealed.bytes[20] ^= 1;
        assert_eq!(keys.open(b"a", &sealed), None);
    }

    #[test]
    fn the_folder_keeps_its_key_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let sealed = SealKeys::of_folder(folder.path()).unwrap().seal(b"a", b"x".to_vec()).unwrap();
        let mode = folder.path().join(KEY_FILE).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(SealKeys::of_folder(folder.path()).unwrap().open(b"a", &sealed).is_some());
    }

    #[test]
    fn short_keys_are_refused_by_position() {
        let good = STANDARD.encode([1; KEY_BYTES]);
        let refused = SealKeys::from_base64([good.as_str(), "c2hvcnQ="], "test").unwrap_err();
        assert_eq!(refused, SealKeysError::NotAKey(2));
    }
}
