//! A real FTP server (`ProFTPD`) on a port of its own, with one user, TLS, and a temporary folder as that user's home.
//!
//! `scripts/ensure-proftpd.sh` installs it; without it these tests fail. Also used by the unit tests of the storage room.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Who may log in.
pub const USER: &str = "flux";
/// Its password.
pub const PASSWORD: &str = "pass word";
/// That password, by `openssl passwd -6`.
const HASH: &str =
    "$6$fluxtest$UQQnNAUN1f7h.ulk133qxcMNSmwzd1pGMb9HzVFk89UxBObykg07.OUWRFib8G8KuXYkq3vmji3ubop.fMDbN1";
/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server; it ends when dropped.
pub struct FtpServer {
    port: u16,
    folder: tempfile::TempDir,
    child: Child,
}

impl FtpServer {
    /// Starts one.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("home")).unwrap();
        let mut user = id(&["-un"]);
        if user == "root" {
            // It will not let root log in, and as root it becomes the user that logs in.
            user = "nobody".to_owned();
            std::fs::set_permissions(root, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let [uid, gid] = ["-u", "-g"].map(|which| id(&[which, &user]).parse::<u32>().unwrap());
        let group = id(&["-gn", &user]);
        std::os::unix::fs::chown(root.join("home"), Some(uid), Some(gid)).unwrap();
        certificates(root);
        let home = root.join("home");
        private(&root.join("passwd"), &format!("{USER}:{HASH}:{uid}:{gid}::{}:/bin/false\n", home.display()));
        private(&root.join("group"), &format!("{USER}:x:{gid}:\n"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Somebody else may take the port before the server does; then another is tried.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut child = launch(root, port, &user, &group);
            while Instant::now() < deadline {
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                if greets(port) {
                    return Self { port, folder, child };
                }
                std::thread::yield_now();
            }
            let _ = child.kill();
            let _ = child.wait();
            let log = std::fs::read_to_string(root.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "ProFTPD does not start: {log}");
        }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A URL with the login.
    pub fn url(&self, path: &str) -> String {
        format!("ftp://{USER}:pass%20word@127.0.0.1:{}/{path}", self.port)
    }

    /// The same, encrypted, by the name in the certificate.
    pub fn secure_url(&self, path: &str) -> String {
        format!("ftps://{USER}:pass%20word@localhost:{}/{path}", self.port)
    }

    /// The authority of the server's certificate, PEM.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A file of the user.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("home").join(path)
    }

    /// Puts a file there, as the user would.
    pub fn put(&self, path: &str, content: &[u8]) {
        let to = self.path(path);
        std::fs::write(&to, content).unwrap();
        std::fs::set_permissions(&to, PermissionsExt::from_mode(0o666)).unwrap();
    }

    /// What is in a file, if there is one.
    pub fn get(&self, path: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path(path)).ok()
    }

    /// Every name below the user's home, folders with a slash, in order.
    pub fn names(&self) -> Vec<String> {
        fn walk(at: &Path, prefix: &str, names: &mut Vec<String>) {
            for entry in std::fs::read_dir(at).unwrap() {
                let entry = entry.unwrap();
                let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
                if entry.file_type().unwrap().is_dir() {
                    let folder = format!("{name}/");
                    walk(&entry.path(), &folder, names);
                    names.push(folder);
                } else {
                    names.push(name);
                }
            }
        }
        let mut names = Vec::new();
        walk(&self.path(""), "", &mut names);
        names.sort();
        names
    }
}

impl Drop for FtpServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "tests start a real server")]
fn id(arguments: &[&str]) -> String {
    let told = Command::new("id").args(arguments).output().unwrap();
    String::from_utf8(told.stdout).unwrap().trim().to_owned()
}

fn private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

/// An authority and a certificate of it for `localhost`.
fn certificates(root: &Path) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::CertifiedIssuer::self_signed(authority, authority_key).unwrap();
    std::fs::write(root.join("ca.pem"), issuer.pem()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(root.join("cert.pem"), leaf.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    private(&root.join("key.pem"), &key.serialize_pem());
}

#[expect(clippy::disallowed_methods, reason = "tests start a real server")]
fn launch(root: &Path, port: u16, user: &str, group: &str) -> Child {
    let at = root.display();
    let modules = [
        "/usr/lib/proftpd",
        "/usr/lib64/proftpd",
        "/usr/libexec/proftpd",
        "/usr/lib/x86_64-linux-gnu/proftpd",
    ];
    let modules = modules.iter().find(|folder| Path::new(folder).join("mod_tls.so").exists());
    let load =
        modules.map_or_else(String::new, |folder| format!("ModulePath {folder}\nLoadModule mod_tls.c\n"));
    let config = format!(
        "ServerType standalone\nServerName flux\nDefaultServer on\nDefaultAddress 127.0.0.1\nPort {port}\n\
         UseIPv6 off\nUseReverseDNS off\nWtmpLog off\nTransferLog none\nSystemLog {at}/log\nPidFile {at}/pid\n\
         ScoreboardFile {at}/score\nDelayEngine off\nUser {user}\nGroup {group}\nAuthOrder mod_auth_file.c\n\
         AuthUserFile {at}/passwd\nAuthGroupFile {at}/group\nRequireValidShell off\nAllowOverwrite on\n\
         AllowStoreRestart on\nUmask 022\nSocketBindTight on\nControlsEngine off\n{load}\
         <IfModule mod_tls.c>\nTLSEngine on\nTLSRequired off\n\
         TLSECCertificateFile {at}/cert.pem\nTLSECCertificateKeyFile {at}/key.pem\n</IfModule>\n"
    );
    std::fs::write(root.join("proftpd.conf"), config).unwrap();
    let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
    Command::new("proftpd")
        .args(["--nodaemon", "--quiet", "--config"])
        .arg(root.join("proftpd.conf"))
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("ProFTPD is not installed; run scripts/ensure-proftpd.sh")
}

fn greets(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut code = [0; 3];
    stream.read_exact(&mut code).is_ok() && &code == b"220"
}
