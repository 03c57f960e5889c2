//! Workers as children of this process: one machine that scales itself.
//!
//! A child is an ordinary `flux serve --role worker` with a port and a token of its own on loopback, and the
//! configuration of this process. It leaves with 0 when it is idle, and dies with us: the launcher ties it to the
//! thread that forked it.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpStream};

use super::{Crew, Need, Trouble, Waker, Woken};
use crate::control::fleet::Member;
use crate::control::shared::Shared;
use crate::control::{Found, WorkerHandle};
use crate::domain::WorkerId;
use crate::media::process::{Child, Spawner, Spec, Stderr, Stdout};
use crate::rpc::{ClientSecurity, Token, WorkerClient};

/// Between two tries to connect to a child that starts.
const LOOK: Duration = Duration::from_millis(10);

/// How a child's name is told apart leaves so much for its first part.
const LONGEST_NAME: usize = 50;

/// How worker processes are started.
#[derive(Debug, Clone)]
pub struct Children {
    /// Starts them.
    pub spawner: Spawner,
    /// This executable.
    pub program: PathBuf,
    /// `serve --role worker` with what it shares with this process, but for the address.
    pub args: Vec<OsString>,
    /// The environment of this process.
    pub env: Vec<(OsString, OsString)>,
    /// Where relative paths begin.
    pub folder: PathBuf,
    /// Their names begin with this.
    pub name: WorkerId,
    /// Slots of each.
    pub slots: u32,
}

/// The children there are.
pub(super) struct Nursery {
    children: Children,
    patience: Duration,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    coming: AtomicU32,
    alive: AtomicU32,
}

/// Counts one as long as it lives.
struct Counted(Arc<Counts>, fn(&Counts) -> &AtomicU32);

impl Counted {
    fn new(counts: &Arc<Counts>, which: fn(&Counts) -> &AtomicU32) -> Self {
        which(counts).fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counts), which)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Nursery {
    pub(super) fn new(children: &Children, patience: Duration) -> Self {
        Self { children: children.clone(), patience, counts: Arc::default() }
    }

    async fn start(&self, shared: &Arc<Shared>) -> Result<(), String> {
        let address = free_address().await.map_err(|error| format!("there is no free port: {error}"))?;
        let token = format!("{}{}", shared.ids.random().simple(), shared.ids.random().simple());
        let name: String = self.children.name.as_str().chars().take(LONGEST_NAME).collect();
        let Children { program, args, folder, .. } = &self.children;
        let mut spec = Spec::new(program, args.iter().cloned(), folder);
        spec.args.extend(["--grpc-listen".into(), address.to_string().into()]);
        spec.env = self.children.env.clone();
        spec.env.extend([
            ("FLUX__WORKER__ID".into(), format!("{name}-{}", address.port()).into()),
            ("FLUX__WORKER__TOKEN".into(), token.clone().into()),
        ]);
        (spec.stdout, spec.stderr, spec.nice) = (Stdout::Null, Stderr::Inherited, 0);
        let security = ClientSecurity { token: Some(Token::new(token.into())), tls: None };
        let client = WorkerClient::connect(&address.to_string(), &security).map_err(|e| e.to_string())?;
        let child = self.children.spawner.spawn(spec).await.map_err(|error| error.to_string())?;
        let cared = Cared {
            handle: WorkerHandle { client, address: address.to_string(), found: Found::Started },
            address,
            patience: self.patience,
            coming: Some(Counted::new(&self.counts, |counts| &counts.coming)),
            alive: Counted::new(&self.counts, |counts| &counts.alive),
        };
        shared.spawn("child", cared.look_after(Arc::clone(shared), child));
        Ok(())
    }
}

#[async_trait]
impl Waker for Nursery {
    fn name(&self) -> &'static str {
        "process"
    }

    fn slots(&self) -> Option<u32> {
        Some(self.children.slots)
    }

    fn crew(&self) -> Option<Crew> {
        let count = |count: &AtomicU32| count.load(Ordering::Relaxed);
        Some(Crew { coming: count(&self.counts.coming), up: Some(count(&self.counts.alive)) })
    }

    async fn wake(&self, shared: &Arc<Shared>, need: Need) -> Woken {
        for begun in 0..need.workers {
            if let Err(problem) = self.start(shared).await {
                tracing::error!(problem, "cannot start a worker process");
                return Woken { begun, trouble: Some(Trouble::Busy(None)) };
            }
        }
        Woken { begun: need.workers, trouble: None }
    }
}

/// Somebody else may take it before the child does; then the child fails and another is started.
async fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()
}

/// A child and what is known of it.
struct Cared {
    handle: WorkerHandle,
    address: SocketAddr,
    patience: Duration,
    /// Until it answers.
    coming: Option<Counted>,
    alive: Counted,
}

/// How a child ended.
enum End {
    Exited(std::io::Result<std::process::ExitStatus>),
    /// It never answered.
    Mute,
}

impl Cared {
    /// Follows a child to its end. Dropped with the control, it kills the child.
    async fn look_after(mut self, shared: Arc<Shared>, mut child: Child) {
        let member = match self.rises(&shared, &mut child).await {
            Ok(member) => member,
            Err(end) => return told(&shared, self.address, end),
        };
        let end = self.serves(&mut child, &member).await;
        let Self { address, coming, alive, .. } = self;
        // Nobody must look for room there any more when the next look is asked for.
        member.left();
        drop((coming, alive, child));
        told(&shared, address, end);
        see_off(&shared, &member).await;
    }

    /// Until it can be connected to. Joined any earlier, it would be called silent.
    async fn rises(&self, shared: &Arc<Shared>, child: &mut Child) -> Result<Arc<Member>, End> {
        let rises = tokio::time::timeout(self.patience, listening(self.address));
        tokio::select! {
            biased;
            exited = child.wait() => return Err(End::Exited(exited)),
            up = rises => up.map_err(|_| End::Mute)?,
        }
        shared.join(self.handle.clone());
        shared.fleet.at(&self.handle.address).ok_or(End::Mute)
    }

    async fn serves(&mut self, child: &mut Child, member: &Member) -> End {
        let answers = tokio::time::timeout(self.patience, member.answers());
        tokio::select! {
            biased;
            exited = child.wait() => return End::Exited(exited),
            answered = answers => if answered.is_err() {
                return End::Mute;
            },
        }
        tracing::info!(worker = %self.address, "worker process is up");
        self.coming = None;
        End::Exited(child.wait().await)
    }
}

fn told(shared: &Shared, address: SocketAddr, end: End) {
    match end {
        End::Exited(Ok(status)) if status.success() => {
            tracing::info!(worker = %address, "worker process left");
            return shared.wakes.look();
        }
        End::Exited(Ok(status)) => tracing::warn!(worker = %address, %status, "worker process died"),
        End::Exited(Err(error)) => tracing::warn!(worker = %address, %error, "lost a worker process"),
        End::Mute => tracing::warn!(worker = %address, "worker process does not answer; stopping it"),
    }
    shared.wakes.fell();
}

async fn listening(address: SocketAddr) {
    while TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Takes it out of the fleet, once its runs have noticed.
async fn see_off(shared: &Shared, member: &Arc<Member>) {
    while !shared.runs.given_to(member).is_empty() {
        tokio::time::sleep(LOOK).await;
    }
    shared.leave(member);
}
