//! What went wrong with an FTP server, sorted by what follows from it.

use std::fmt;

use suppaftp::{FtpError, Status};

use super::FtpServer;

/// Longest text of a reply that is kept.
const LONGEST: usize = 200;

/// A refusal as the server put it, made fit for a log: one line, printable, bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Reply {
    code: u32,
    text: String,
}

impl Reply {
    fn new(code: u32, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let text = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
        Self { code, text }
    }

    /// RFC 959 has one code, 550, for files that are missing and for files that may not be touched.
    fn says_denied(&self) -> bool {
        let text = self.text.to_ascii_lowercase();
        ["denied", "permission", "not allowed", "forbidden"].iter().any(|word| text.contains(word))
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why something with a server did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) enum FtpFault {
    /// The address policy has no such server.
    Blocked { host: String, port: u16 },
    /// The user or the password is wrong. The reply is not kept: servers are known to repeat what they were sent.
    Login,
    /// No encryption, or a certificate that is not trusted.
    Tls(String),
    /// No such file (550).
    Missing(Reply),
    /// No right to it (550 with words that say so, 532, 553).
    Denied(Reply),
    /// The server's disk or the user's quota is full (452, 552).
    Full(Reply),
    /// Another refusal: a command that is not known or not taken.
    Refused(Reply),
    /// Against the protocol.
    Nonsense(String),
    /// No answer, no connection, a busy server: another try may help.
    Unreachable {
        /// For the client, the second half of a sentence.
        what: &'static str,
        /// For the operator.
        detail: String,
    },
}

impl FtpFault {
    pub(super) fn unreachable(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Unreachable { what, detail: detail.into() }
    }

    pub(super) fn blocked(server: &FtpServer) -> Self {
        Self::Blocked { host: server.host.clone(), port: server.port }
    }

    /// Whether the server said that it does not know or take this command (500 to 504).
    pub(in crate::storage) const fn is_unsupported(&self) -> bool {
        matches!(self, Self::Refused(reply) if reply.code >= 500 && reply.code <= 504)
    }

    /// Sorts an error of the library. `what` is said where the server is simply not there.
    pub(super) fn of(error: FtpError, what: &'static str) -> Self {
        match error {
            FtpError::UnexpectedResponse(response) => {
                let reply = Reply::new(response.status.code(), &response.body);
                match response.status {
                    Status::NotLoggedIn | Status::InvalidCredentials | Status::LoginNeedAccount => {
                        Self::Login
                    }
                    Status::FileUnavailable if !reply.says_denied() => Self::Missing(reply),
                    Status::FileUnavailable | Status::StoringNeedAccount | Status::BadFilename => {
                        Self::Denied(reply)
                    }
                    Status::RequestedActionNotTaken | Status::ExceededStorage => Self::Full(reply),
                    status if (400..500).contains(&status.code()) => {
                        Self::unreachable("its server is busy or broke off", reply.to_string())
                    }
                    status if status.code() >= 500 => Self::Refused(reply),
                    // An answer that belongs to no question, such as the end of a transfer that was given up.
                    _ => Self::Nonsense(format!("out of turn: {reply}")),
                }
            }
            FtpError::ConnectionError(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Self::Nonsense(error.to_string())
            }
            FtpError::ConnectionError(error) => Self::unreachable(what, error.to_string()),
            FtpError::SecureError(detail) => Self::Tls(detail),
            FtpError::BadResponse | FtpError::InvalidAddress(_) => {
                Self::Nonsense("an unreadable reply".to_owned())
            }
            FtpError::DataConnectionAlreadyOpen => Self::Nonsense("a transfer is under way".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use suppaftp::types::Response;

    use super::*;

    fn fault(status: Status, text: &str) -> FtpFault {
        FtpFault::of(FtpError::UnexpectedResponse(Response::new(status, text.as_bytes().to_vec())), "x")
    }

    #[test]
    fn one_code_means_missing_or_denied() {
        assert!(matches!(
            fault(Status::FileUnavailable, "550 a: No such file or directory"),
            FtpFault::Missing(_)
        ));
        assert!(matches!(fault(Status::FileUnavailable, "550 a: Permission denied"), FtpFault::Denied(_)));
        assert!(matches!(fault(Status::NotAvailable, "421 Too many users"), FtpFault::Unreachable { .. }));
        assert!(matches!(fault(Status::ExceededStorage, "552 Quota"), FtpFault::Full(_)));
        assert!(fault(Status::NotImplemented, "502 REST").is_unsupported());
        assert!(matches!(fault(Status::ClosingDataConnection, "226 done"), FtpFault::Nonsense(_)));
    }

    #[test]
    fn what_a_server_says_is_one_printable_line() {
        let FtpFault::Missing(reply) =
            fault(Status::FileUnavailable, &format!("550 \u{1b}[31m\r\n{}", "x".repeat(999)))
        else {
            unreachable!("550 is missing");
        };
        let text = reply.to_string();
        assert!(text.chars().count() == LONGEST && !text.contains(char::is_control), "{text}");
        assert_eq!(fault(Status::NotLoggedIn, "530 wrong: canary"), FtpFault::Login);
    }
}
