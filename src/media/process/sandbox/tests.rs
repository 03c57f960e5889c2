use std::io::Write as _;
use std::net::TcpListener;

use super::super::tests::{flux, script};
use super::super::{Finished, Launcher};
use super::*;

/// What [`as_intruder`] is told, in its working directory; a line each.
const ORDERS: &str = "orders";

/// Plays a tool that was taken over: reaches for everything around it and tells what it got. Started by the tests below;
/// it has no environment by which it could know, so it is ignored otherwise.
#[test]
#[ignore = "a tool of the other tests"]
fn as_intruder() {
    let orders = std::fs::read_to_string(ORDERS).unwrap();
    let mut orders = orders.lines();
    let mut next = || orders.next().unwrap().to_owned();
    let (source, outside) = (next(), PathBuf::from(next()));
    let (gateway, other): (u16, u16) = (next().parse().unwrap(), next().parse().unwrap());
    let tell = |what: &str, result: io::Result<()>| {
        let how = result.map_or_else(|error| format!("{:?}", error.kind()), |()| "got".into());
        say(&format!("{what} {how}"));
    };
    let connect = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map(drop);
    tell("source", std::fs::read(source).map(drop));
    tell("passwd", std::fs::read("/etc/passwd").map(drop));
    tell("secret", std::fs::read(outside.join("secret")).map(drop));
    tell("write", std::fs::write(outside.join("written"), "x"));
    tell("work", std::fs::write("out-0.mp4", "x"));
    tell("link", std::os::unix::fs::symlink("/etc/passwd", "out-1.mp4"));
    tell("gateway", connect(gateway));
    tell("other", connect(other));
    tell("udp", UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map(drop));
    tell("unix", std::os::unix::net::UnixStream::pair().map(drop));
    tell("listen", TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(drop));
    let parent = rustix::process::getppid().unwrap();
    // Ignored by who gets it; what counts is whether it may be sent.
    tell("kill", rustix::process::kill_process(parent, rustix::process::Signal::URG).map_err(Into::into));
    let own = rustix::process::getpid();
    tell(
        "handle",
        rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()).map(drop).map_err(Into::into),
    );
    #[expect(clippy::disallowed_methods, reason = "tries what a tool must not")]
    let started = std::process::Command::new("/bin/true").status();
    tell("program", started.map(drop));
    let mut hoard = Vec::<u8>::new();
    tell("memory", hoard.try_reserve_exact(1 << 30).map_err(|_| io::ErrorKind::OutOfMemory.into()));
    for (name, _) in std::env::vars() {
        say(&format!("env-{name} got"));
    }
}

/// On a line of its own: the harness speaks too.
fn say(what: &str) {
    writeln!(io::stdout(), "\ntried {what}").unwrap();
}

struct Scene {
    folder: tempfile::TempDir,
    gateway: TcpListener,
    other: TcpListener,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["work", "outside"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("outside/secret"), "x").unwrap();
        std::fs::write(folder.path().join("outside/source"), "x").unwrap();
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let scene = Self { folder, gateway: listen(), other: listen() };
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let lines = [
            scene.path("outside/source").display().to_string(),
            scene.path("outside").display().to_string(),
            port(&scene.gateway).to_string(),
            port(&scene.other).to_string(),
        ];
        std::fs::write(scene.path("work").join(ORDERS), lines.join("\n")).unwrap();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn reach(&self) -> Reach {
        Reach {
            read: vec![self.path("outside/source")],
            write: Some(self.path("work")),
            port: Some(self.gateway.local_addr().unwrap().port()),
        }
    }

    async fn run(&self, sandbox: Sandbox, spec: Spec) -> Finished {
        let launcher = Launcher::ReExec { exe: flux(self.folder.path()), sandbox };
        let spawner = Spawner::start(launcher).unwrap();
        run(&spawner, spec, (LOOK_TIME, 64 * 1024), &CancellationToken::new()).await.unwrap()
    }

    /// What the intruder got; everything else was refused for want of rights.
    async fn got(&self, mode: SandboxMode, reach: Reach) -> Vec<String> {
        let exe = std::env::current_exe().unwrap();
        let test = "media::process::sandbox::tests::as_intruder";
        let spec = Spec::new(&exe, ["--exact", test, "--ignored", "--nocapture"], self.path("work"));
        let sandbox = Sandbox { mode, memory: Some(512 << 20), file_size: 1 << 20, ..Sandbox::off() };
        let finished = self.run(sandbox, spec.confined(reach)).await;
        let said = String::from_utf8(finished.stdout).unwrap();
        let tried: Vec<(&str, &str)> =
            said.lines().filter_map(|line| line.strip_prefix("tried ")?.split_once(' ')).collect();
        assert!(tried.len() >= 15, "{said} {:?}", finished.log);
        for (what, how) in &tried {
            assert!(["got", "PermissionDenied", "OutOfMemory"].contains(how), "{what}: {how}");
        }
        // The wrapper that plays flux adds these two.
        let own = ["env-FLUX_TEST_LAUNCH", "env-PWD"];
        let got = tried.iter().filter(|(what, how)| *how == "got" && !own.contains(what));
        got.map(|(what, _)| (*what).to_owned()).collect()
    }
}

#[tokio::test]
async fn a_tool_that_was_taken_over_gets_nothing() {
    let scene = Scene::new();
    let got = scene.got(SandboxMode::Required, scene.reach()).await;
    assert_eq!(got, ["source", "work", "gateway", "env-LC_ALL"]);
    assert!(!scene.path("outside/written").exists());
}

#[tokio::test]
async fn without_the_sandbox_it_gets_all_but_memory() {
    let scene = Scene::new();
    let got = scene.got(SandboxMode::Off, scene.reach()).await;
    let all = [
        "source",
        "passwd",
        "secret",
        "write",
        "work",
        "link",
        "gateway",
        "other",
        "udp",
        "unix",
        "listen",
        "kill",
        "handle",
        "program",
        "env-LC_ALL",
    ];
    assert_eq!(got, all);
    assert!(scene.path("outside/written").exists());
}

#[tokio::test]
async fn who_reads_a_file_has_no_network_and_writes_nothing() {
    let scene = Scene::new();
    let input = Input::File(scene.path("outside/source"));
    // What it is told must be readable; an own folder is not.
    let mut reach = Reach::reading(&input);
    reach.read.push(scene.path("work").join(ORDERS));
    assert_eq!(scene.got(SandboxMode::Auto, reach).await, ["source", "env-LC_ALL"]);
    assert!(!scene.path("work/out-0.mp4").exists());
}

#[tokio::test]
async fn a_wrapper_of_the_operators_may_start_the_tool() {
    let scene = Scene::new();
    let tool =
        script(scene.folder.path(), "wrapper", "x=$(/bin/echo sub)\nprintf '%s' $x\nexec /bin/echo done");
    let spec = Spec::new(&tool, [""; 0], "/").confined(Reach::nothing());
    let sandbox = Sandbox { mode: SandboxMode::Required, ..Sandbox::off() };
    let finished = scene.run(sandbox, spec).await;
    let said = String::from_utf8(finished.stdout).unwrap();
    assert!(said.ends_with("subdone\n"), "{said} {:?}", finished.log);
}

#[test]
fn the_port_is_the_gateways() {
    let url = "http://127.0.0.1:4000/token/in".to_owned();
    assert_eq!(Reach::reading(&Input::Loopback { url }), Reach { port: Some(4000), ..Reach::nothing() });
    let input = Input::File("/srv/in.mp4".into());
    let reach = Reach::reading(&input).writing(Path::new("/work"));
    assert_eq!((reach.read, reach.port), (vec!["/srv/in.mp4".into()], None));
}

#[test]
fn a_look_is_read_as_it_is_told() {
    let all = Confined { landlock: 7, files: true, ports: true, calls: true };
    assert_eq!(read_look("7 true true true\n"), all);
    assert!(all.missing().is_empty());
    assert_eq!(all.active().len(), 4);
    assert_eq!(read_look(""), Confined::default());
    let old = read_look("3 true false true");
    assert_eq!(old.missing().len(), 1, "{old:?}");
    assert_eq!(old.active(), ["landlock files (ABI 3)", "seccomp"]);
}
