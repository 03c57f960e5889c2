//! Keys about workers on other machines: where they are, who may call, what is encrypted.

use url::{Host, Url};

use super::super::document::{Document, Hidden};
use super::super::{Network, Workers, place};
use super::Check;

impl Check<'_> {
    pub(super) fn workers(&mut self, document: &Document) -> Option<Workers> {
        let workers = &document.workers;
        let mut nodes: Vec<String> = Vec::new();
        for (n, text) in workers.nodes.iter().enumerate() {
            let key = format!("workers.nodes[{n}]");
            let Some(node) = self.ok(&key, place::node(text)) else { continue };
            if nodes.contains(&node) {
                self.fault(&key, "is listed twice");
            }
            nodes.push(node);
        }
        let dns = workers.dns.as_deref().map(|text| self.ok("workers.dns", place::node(text)));
        let tls = workers.tls.unwrap_or_default();
        let certificates = [
            ("ca_file", workers.tls_ca_file.is_some()),
            ("cert_file", workers.tls_cert_file.is_some()),
            ("key_file", workers.tls_key_file.is_some()),
            ("domain", workers.tls_domain.is_some()),
        ];
        for (key, _) in certificates.into_iter().filter(|(_, given)| *given && !tls) {
            self.fault(&format!("workers.tls_{key}"), "means nothing while workers.tls is false");
        }
        self.pair("workers", workers.tls_cert_file.as_ref(), workers.tls_key_file.as_ref());
        let token = self.token("workers.token", workers.token.as_ref());
        let waking = self.waking(document);
        Some(Workers {
            nodes,
            dns: dns.map_or(Some(None), |dns| dns.map(Some))?,
            token,
            tls,
            trusted_network: workers.trusted_network,
            waking: waking?,
        })
    }

    pub(super) fn network(&mut self, document: &Document) -> Option<Network> {
        let worker = &document.worker;
        let listen = self.ok("worker.listen", place::listen(&worker.listen));
        let advertise =
            worker.advertise.as_deref().map(|text| self.ok("worker.advertise", place::node(text)));
        let mut control = Vec::new();
        for (n, text) in worker.control.iter().enumerate() {
            let key = format!("worker.control[{n}]");
            let Some(url) = self.ok(&key, place::endpoint(text)) else { continue };
            if worker.token.is_none() && !is_here(&url) {
                self.fault(
                    &key,
                    "is on another machine, which takes workers by their token; set worker.token",
                );
            }
            control.push(url);
        }
        self.pair("worker", worker.tls_cert_file.as_ref(), worker.tls_key_file.as_ref());
        if worker.tls_client_ca_file.is_some() && worker.tls_cert_file.is_none() {
            self.fault(
                "worker.tls_client_ca_file",
                "needs worker.tls_cert_file and worker.tls_key_file as well",
            );
        }
        let token = self.token("worker.token", worker.token.as_ref());
        Some(Network {
            listen: listen?,
            advertise: advertise.map_or(Some(None), |advertise| advertise.map(Some))?,
            control,
            token,
        })
    }

    /// A certificate and its key come together.
    fn pair(&mut self, section: &str, certificate: Option<&String>, key: Option<&String>) {
        let (has, lacks) = match (certificate, key) {
            (Some(_), None) => ("cert_file", "key_file"),
            (None, Some(_)) => ("key_file", "cert_file"),
            (Some(_), Some(_)) | (None, None) => return,
        };
        self.fault(&format!("{section}.tls_{has}"), format!("needs {section}.tls_{lacks} as well"));
    }

    /// It travels in a header.
    fn token(&mut self, key: &str, token: Option<&Hidden>) -> Option<secrecy::SecretString> {
        let token = token?;
        let text = token.expose();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.fault(key, "expected printable ASCII without spaces, such as `openssl rand -hex 32` prints");
        }
        Some(token.0.clone())
    }
}

/// Whether a URL is certain to be on this machine.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
