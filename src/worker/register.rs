//! Making a worker known to a control, again and again, so that a control that restarts finds it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use url::Url;

use super::service::Worker;
use crate::rpc::wire::Registration;
use crate::rpc::{CallError, FleetClient, WorkerApi as _};

/// First and longest wait before a registration that failed is said again.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// A control that asks for silence is asked again all the same after so long.
const LONGEST: Duration = Duration::from_mins(1);

/// Where controls reach this worker.
#[derive(Debug, Clone)]
pub enum Advertised {
    /// `HOST:PORT`, as configured.
    Fixed(String),
    /// Where it listens; every address of the machine stands for the one from which it reaches the control.
    Listening(SocketAddr),
}

/// Registers with one control.
#[derive(Debug)]
pub struct Registrar {
    /// The control.
    pub client: FleetClient,
    /// Its address, for the log and for the way to it.
    pub control: Url,
    /// What it is told.
    pub advertised: Advertised,
}

impl Registrar {
    /// Registers until dropped.
    pub async fn run(self, worker: Worker) {
        let mut wait = RETRY.0;
        let mut trouble: Option<CallError> = None;
        let mut known = false;
        loop {
            let pause = match self.register(&worker).await {
                Ok(again) => {
                    if !std::mem::replace(&mut known, true) {
                        tracing::info!(control = %self.control, "registered");
                    }
                    (wait, trouble) = (RETRY.0, None);
                    again.clamp(Duration::from_secs(1), LONGEST)
                }
                Err(error) => {
                    if trouble.as_ref().map(std::mem::discriminant) != Some(std::mem::discriminant(&error)) {
                        tracing::warn!(control = %self.control, %error, "not registered; trying again");
                    }
                    (known, trouble) = (false, Some(error));
                    let pause = wait;
                    wait = (wait * 2).min(RETRY.1);
                    pause
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn register(&self, worker: &Worker) -> Result<Duration, CallError> {
        let address = match &self.advertised {
            Advertised::Fixed(address) => address.clone(),
            Advertised::Listening(address) if !address.ip().is_unspecified() => address.to_string(),
            Advertised::Listening(address) => {
                let from = self.route().await.map_err(|error| {
                    CallError::Unreachable(format!("there is no way to {}: {error}", self.control))
                })?;
                SocketAddr::new(from, address.port()).to_string()
            }
        };
        let report = worker.status().await;
        let registration = Registration {
            worker: report.worker,
            boot: report.boot,
            address,
            slots: report.slots,
            version: report.version,
            protocol: report.protocol,
        };
        Ok(self.client.register(&registration).await?.again)
    }

    /// The address of this machine on the way to the control. Connecting a UDP socket sends nothing.
    async fn route(&self) -> std::io::Result<IpAddr> {
        let host = self.control.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = self.control.port_or_known_default().unwrap_or_default();
        let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
        for to in tokio::net::lookup_host((host, port)).await? {
            let any: IpAddr =
                if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0)).await?;
            match socket.connect(to).await {
                Ok(()) => return Ok(socket.local_addr()?.ip()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::ClientSecurity;

    #[tokio::test]
    async fn the_address_towards_a_control_on_this_machine_is_this_machine() {
        for (control, expected) in [("http://127.0.0.1:1", "127.0.0.1"), ("http://127.0.0.2:1", "127.0.0.1")]
        {
            let registrar = Registrar {
                client: FleetClient::connect(control, &ClientSecurity::default()).unwrap(),
                control: control.parse().unwrap(),
                advertised: Advertised::Listening("0.0.0.0:1".parse().unwrap()),
            };
            let from = registrar.route().await.unwrap();
            assert!(from.is_loopback(), "{control}: {from}, not {expected}");
        }
    }
}
