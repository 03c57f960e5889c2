//! Where an FTP server and a file on it are: URLs taken apart.

use url::Url;

/// Whether connections are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Security {
    /// `ftp`: they are not.
    Plain,
    /// `ftps`: by `AUTH TLS` on the usual port.
    Tls,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct FtpServer {
    pub(in crate::storage) security: Security,
    /// A name, or an address without brackets.
    pub(in crate::storage) host: String,
    pub(in crate::storage) port: u16,
}

/// Who logs in.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::storage) struct FtpLogin {
    pub(in crate::storage) user: String,
    pub(in crate::storage) password: String,
}

impl Default for FtpLogin {
    /// As RFC 1635 has it.
    fn default() -> Self {
        Self { user: "anonymous".to_owned(), password: "flux@".to_owned() }
    }
}

impl std::fmt::Debug for FtpLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FtpLogin(…)")
    }
}

/// A file on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct FtpTarget {
    pub(in crate::storage) server: FtpServer,
    /// From the folder that one is in after logging in, or from the root where it begins with `/`.
    pub(in crate::storage) path: String,
    /// What the URL's userinfo says, if it has one.
    pub(in crate::storage) login: Option<FtpLogin>,
}

/// Why a URL names no file on an FTP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::storage) enum BadAddress {
    #[error("it is no ftp or ftps URL")]
    Url,
    #[error("its path is empty, names a folder, or holds characters that no command may have")]
    Path,
    #[error("its user or password holds characters that no command may have")]
    Login,
}

impl FtpTarget {
    /// Takes `ftp://user:password@host:port/path` apart. Each part is percent-decoded; `%2F` first in the path means the
    /// server's root (RFC 1738 §3.2.2).
    pub(in crate::storage) fn parse(text: &str) -> Result<Self, BadAddress> {
        let (scheme, rest) = text.split_once(':').ok_or(BadAddress::Url)?;
        let security = match scheme.to_ascii_lowercase().as_str() {
            "ftp" => Security::Plain,
            "ftps" => Security::Tls,
            _ => return Err(BadAddress::Url),
        };
        // Of the two only `ftp` is a scheme whose hosts and paths are read as a browser reads them: `127.1`, `..`.
        let url = Url::parse(&format!("ftp:{rest}")).map_err(|_| BadAddress::Url)?;
        let host = url.host_str().ok_or(BadAddress::Url)?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host).to_owned();
        let port = url.port_or_known_default().unwrap_or(21);
        let decode = |part: &str| {
            percent_encoding::percent_decode_str(part).decode_utf8().map(std::borrow::Cow::into_owned).ok()
        };
        let path = decode(url.path().strip_prefix('/').unwrap_or(url.path())).ok_or(BadAddress::Path)?;
        if !is_file_path(&path) {
            return Err(BadAddress::Path);
        }
        let login = if url.username().is_empty() {
            None
        } else {
            let user = decode(url.username()).ok_or(BadAddress::Login)?;
            let password = decode(url.password().unwrap_or_default()).ok_or(BadAddress::Login)?;
            Some(FtpLogin::new(user, password)?)
        };
        Ok(Self { server: FtpServer { security, host, port }, path, login })
    }
}

impl FtpLogin {
    /// A user and a password that a command can carry.
    pub(in crate::storage) fn new(user: String, password: String) -> Result<Self, BadAddress> {
        let fits = !user.is_empty() && is_plain(&user) && is_plain(&password);
        if fits { Ok(Self { user, password }) } else { Err(BadAddress::Login) }
    }
}

/// Whether a path names a file and can be part of a command. `..` is refused: a path says where it leads.
pub(in crate::storage) fn is_file_path(path: &str) -> bool {
    let below = path.strip_prefix('/').unwrap_or(path);
    path.len() <= 1024
        && is_plain(path)
        && below.split('/').all(|name| !name.is_empty() && name != "." && name != "..")
        // Some servers take a leading '-' for options.
        && !below.starts_with('-')
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<(Security, String, u16, String), BadAddress> {
        let target = FtpTarget::parse(url)?;
        Ok((target.server.security, target.server.host, target.server.port, target.path))
    }

    #[test]
    fn urls_are_taken_apart() {
        let plain =
            |host: &str, port, path: &str| Ok((Security::Plain, host.to_owned(), port, path.to_owned()));
        assert_eq!(read("ftp://h.example/a/b%20c.mp4"), plain("h.example", 21, "a/b c.mp4"));
        assert_eq!(read("FTP://H.example:2121/a"), plain("h.example", 2121, "a"));
        assert_eq!(read("ftp://h/%2Fsrv/a"), plain("h", 21, "/srv/a"));
        assert_eq!(read("ftp://h/x/../a"), plain("h", 21, "a"));
        assert_eq!(read("ftp://[::1]/a"), plain("::1", 21, "a"));
        let tls = |host: &str, path: &str| Ok((Security::Tls, host.to_owned(), 21, path.to_owned()));
        assert_eq!(read("ftps://h/a"), tls("h", "a"));
        // Spellings of inner addresses are read as addresses, also where the scheme is no browser's.
        assert_eq!(read("ftps://2130706433/a"), tls("127.0.0.1", "a"));
        assert_eq!(read("ftp://0x7f.1/a"), plain("127.0.0.1", 21, "a"));
    }

    #[test]
    fn nothing_that_would_be_another_command_passes() {
        for url in [
            "ftp://h/a%0d%0aDELE%20b",
            "ftp://h/a%0a",
            "ftp://h/a%00b",
            "ftp://h/a%7fb",
            "ftp://h/%ff",
            "ftp://h/",
            "ftp://h",
            "ftp://h/folder/",
            "ftp://h/a//b",
            "ftp://h/a%2F..%2Fb",
            "ftp://h/-R",
        ] {
            assert_eq!(read(url), Err(BadAddress::Path), "{url}");
        }
        for url in ["ftp://u%0d%0aDELE%20b@h/a", "ftp://u:p%0a@h/a", "ftp://u:%ff@h/a"] {
            assert_eq!(read(url), Err(BadAddress::Login), "{url}");
        }
        for url in ["http://h/a", "ftp://", "sftp://h/a", "ftp", "ftp://h:99999/a"] {
            assert_eq!(read(url), Err(BadAddress::Url), "{url}");
        }
    }

    #[test]
    fn userinfo_is_the_login_and_never_prints() {
        let target = FtpTarget::parse("ftps://us%65r:p%40ss%2Fcanary@h/a").unwrap();
        let login = target.login.clone().unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("user", "p@ss/canary"));
        assert!(!format!("{target:?}").contains("canary"));
        assert_eq!(FtpTarget::parse("ftp://h/a").unwrap().login, None);
    }
}
