//! Over real sockets, on loopback.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::super::pb::worker_service_client::WorkerServiceClient;
use super::super::wire::PROTOCOL;
use super::super::{
    CallError, ClientSecurity, ClientTls, Identity, MAX_MESSAGE, NetworkLimits, ServerSecurity, ServerTls,
    Token, WorkerClient, dial, pb, serve,
};
use super::{Echo, attach};

struct Listening {
    address: String,
    draining: CancellationToken,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn listen(security: ServerSecurity) -> Listening {
    listen_with(Echo::default(), security, NetworkLimits::for_slots(1)).await
}

async fn listen_with(api: Echo, security: ServerSecurity, limits: NetworkLimits) -> Listening {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (draining, stop) = (CancellationToken::new(), CancellationToken::new());
    let tokens = (draining.clone(), stop.clone());
    #[expect(clippy::disallowed_methods, reason = "a test has no lifecycle")]
    let served = tokio::spawn(async move {
        serve(listener, Arc::new(api), security, limits, tokens).unwrap().await.unwrap();
    });
    Listening { address, draining, stop, served }
}

fn token(text: &str) -> Token {
    Token::new(text.into())
}

fn with_token(text: &str) -> ClientSecurity {
    ClientSecurity { token: Some(token(text)), tls: None }
}

async fn status(address: &str, security: &ClientSecurity) -> Result<u32, CallError> {
    let client = WorkerClient::connect(address, security).unwrap();
    tokio::time::timeout(Duration::from_secs(20), client.status()).await.unwrap().map(|report| report.slots)
}

/// An authority that signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    fn sign(&self, name: &str, last_year: i32) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity { certificates: certificate.pem().into_bytes(), key: key.serialize_pem().into() }
    }

    fn trusted(&self) -> ClientSecurity {
        let tls = ClientTls { ca: Some(self.pem()), ..ClientTls::default() };
        ClientSecurity { token: None, tls: Some(tls) }
    }
}

const VALID: i32 = 2101;

#[tokio::test]
async fn a_call_needs_the_token_whatever_it_is() {
    let worker = listen(ServerSecurity { token: Some(token("right")), tls: None }).await;
    assert_eq!(status(&worker.address, &with_token("right")).await, Ok(2));
    for wrong in [ClientSecurity::default(), with_token("wrong"), with_token("")] {
        let refused = status(&worker.address, &wrong).await;
        assert!(matches!(refused, Err(CallError::Unauthorized(_))), "{refused:?}");
        let client = WorkerClient::connect(&worker.address, &wrong).unwrap();
        let refused = client.run(&attach(1)).await.err();
        assert!(matches!(refused, Some(CallError::Unauthorized(_))), "{refused:?}");
    }
    let client = WorkerClient::connect(&worker.address, &with_token("right")).unwrap();
    assert_eq!(client.run(&attach(1)).await.unwrap().count().await, 3);
}

#[tokio::test]
async fn health_is_open_and_tells_of_the_drain() {
    let mut worker = listen(ServerSecurity { token: Some(token("right")), tls: None }).await;
    let transport = dial::to_address(&worker.address, &ClientSecurity::default()).unwrap();
    let mut health = HealthClient::new(transport);
    for service in ["", "worker.v1.WorkerService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let told = health.check(request.clone()).await.unwrap().into_inner().status();
        assert_eq!(told, ServingStatus::Serving, "{service:?}");
    }
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    worker.draining.cancel();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    // The open stream does not keep the listener.
    worker.stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), &mut worker.served).await.unwrap().unwrap();
    let refused = status(&worker.address, &with_token("right")).await;
    assert!(matches!(refused, Err(CallError::Refused(_))), "{refused:?}");
}

async fn reflect(address: &str, ask: MessageRequest) -> Result<ServerReflectionResponse, tonic::Status> {
    let mut client = ServerReflectionClient::new(dial::to_address(address, &with_token("right")).unwrap());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut answers = client.server_reflection_info(stream::iter([request])).await?.into_inner();
    answers.next().await.unwrap()
}

#[tokio::test]
async fn the_service_describes_itself() {
    let worker = listen(ServerSecurity { token: Some(token("right")), tls: None }).await;
    let list = reflect(&worker.address, MessageRequest::ListServices(String::new())).await.unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = list.message_response else { panic!("no list") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"worker.v1.WorkerService"), "{names:?}");
    for symbol in ["worker.v1.WorkerService.GetStatus", "control.v1.Fleet", "grpc.health.v1.Health"] {
        let ask = MessageRequest::FileContainingSymbol(symbol.to_owned());
        let file = reflect(&worker.address, ask).await.unwrap().message_response;
        assert!(matches!(file, Some(MessageResponse::FileDescriptorResponse(_))), "{symbol}: {file:?}");
    }
    let mut stranger =
        ServerReflectionClient::new(dial::to_address(&worker.address, &ClientSecurity::default()).unwrap());
    let refused = stranger.server_reflection_info(stream::empty()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn tls_both_ways() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let tls =
        |identity, client_ca| ServerSecurity { token: None, tls: Some(ServerTls { identity, client_ca }) };
    let worker = listen(tls(ours.sign("127.0.0.1", VALID), None)).await;
    assert_eq!(status(&worker.address, &ours.trusted()).await, Ok(2));
    let unknown = status(&worker.address, &theirs.trusted()).await;
    assert!(matches!(unknown, Err(CallError::Unauthorized(_))), "{unknown:?}");
    let mut elsewhere = ours.trusted();
    elsewhere.tls.as_mut().unwrap().domain = Some("other.example".to_owned());
    let misnamed = status(&worker.address, &elsewhere).await;
    assert!(matches!(misnamed, Err(CallError::Unauthorized(_))), "{misnamed:?}");
    // In the clear to a port that speaks TLS: nobody learns anything, nothing is claimed about the process.
    let clear = status(&worker.address, &ClientSecurity::default()).await;
    assert!(matches!(clear, Err(CallError::Unreachable(_) | CallError::Unauthorized(_))), "{clear:?}");

    let stale = listen(tls(ours.sign("127.0.0.1", 2002), None)).await;
    let expired = status(&stale.address, &ours.trusted()).await;
    let Err(CallError::Unauthorized(why)) = &expired else { panic!("{expired:?}") };
    assert!(why.contains("expired"), "{why}");

    let mutual = listen(tls(ours.sign("127.0.0.1", VALID), Some(ours.pem()))).await;
    let shows = |identity| {
        let mut security = ours.trusted();
        security.tls.as_mut().unwrap().identity = Some(identity);
        security
    };
    assert_eq!(status(&mutual.address, &shows(ours.sign("control", VALID))).await, Ok(2));
    for (who, stranger) in [
        ("shows nothing", ours.trusted()),
        ("of another authority", shows(theirs.sign("control", VALID))),
        ("expired", shows(ours.sign("control", 2002))),
    ] {
        let refused = status(&mutual.address, &stranger).await;
        assert!(matches!(refused, Err(CallError::Unauthorized(_))), "{who}: {refused:?}");
    }
}

#[tokio::test]
async fn a_worker_that_never_answers_is_not_taken_for_a_dead_one() {
    let hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = hole.local_addr().unwrap().to_string();
    let client = WorkerClient::connect(&address, &ClientSecurity::default()).unwrap();
    let call = tokio::time::timeout(Duration::from_millis(300), client.status());
    assert!(call.await.is_err(), "bounded by its caller alone");
    drop(hole);
    let gone = status(&address, &ClientSecurity::default()).await;
    assert!(matches!(gone, Err(CallError::Refused(_))), "{gone:?}");

    // Accepts and hangs up: the machine lives, so nothing is known.
    let hangs_up = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = hangs_up.local_addr().unwrap().to_string();
    #[expect(clippy::disallowed_methods, reason = "a test has no lifecycle")]
    let _rude = tokio::spawn(async move { while hangs_up.accept().await.is_ok() {} });
    let broken = status(&address, &ClientSecurity::default()).await;
    assert!(matches!(broken, Err(CallError::Unreachable(_))), "{broken:?}");
}

#[tokio::test]
async fn messages_are_bounded_on_both_sides() {
    let worker = listen(ServerSecurity::default()).await;
    let transport = dial::to_address(&worker.address, &ClientSecurity::default()).unwrap();
    let mut unbounded = WorkerServiceClient::new(transport).max_encoding_message_size(4 * MAX_MESSAGE);
    let huge = pb::JobRequest { task_id: vec![0; MAX_MESSAGE + 1].into(), ..Default::default() };
    let refused = unbounded.submit_job(Request::new(huge)).await.err().unwrap();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    let runs = vec![crate::domain::RunId::from_uuid(uuid::Uuid::nil()); MAX_MESSAGE / 16];
    let session = crate::domain::SessionId::from_uuid(uuid::Uuid::nil());
    let renewal = super::Renewal { session, runs, ttl: Duration::from_secs(1), echo: Duration::ZERO };
    let client = WorkerClient::connect(&worker.address, &ClientSecurity::default()).unwrap();
    let unsent = client.renew(&renewal).await;
    assert!(matches!(unsent, Err(CallError::Protocol(_))), "{unsent:?}");
    assert!(client.status().await.is_ok(), "the connection is as good as before");
}

#[tokio::test]
async fn another_protocol_is_told_by_its_number() {
    let old = Echo { protocol: Some(PROTOCOL + 1) };
    let worker = listen_with(old, ServerSecurity::default(), NetworkLimits::for_slots(1)).await;
    let refused = status(&worker.address, &ClientSecurity::default()).await;
    assert_eq!(refused, Err(CallError::Incompatible { theirs: PROTOCOL + 1 }));
}

#[tokio::test]
async fn who_connects_and_calls_nothing_is_shown_out() {
    let limits = NetworkLimits { handshake: Duration::from_millis(200), ..NetworkLimits::for_slots(1) };
    let ours = Authority::new();
    let tls = ServerTls { identity: ours.sign("127.0.0.1", VALID), client_ca: None };
    let clear = listen_with(Echo::default(), ServerSecurity::default(), limits).await;
    let secure = ServerSecurity { token: None, tls: Some(tls) };
    let secure = listen_with(Echo::default(), secure, limits).await;
    for (address, says) in [
        (&clear.address, &b""[..]),
        (&clear.address, b"PRI"),
        (&clear.address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
        (&secure.address, b""),
        (&secure.address, b"\x16\x03\x01\x02"),
    ] {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(says).await.unwrap();
        let mut sent = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(20), tcp.read_to_end(&mut sent)).await;
        assert!(closed.is_ok(), "still open after {says:?}");
    }
    // One that called stays, however long it says nothing.
    let client = WorkerClient::connect(&clear.address, &ClientSecurity::default()).unwrap();
    client.status().await.unwrap();
    tokio::time::timeout(3 * limits.handshake, std::future::pending::<()>()).await.unwrap_err();
    client.status().await.unwrap();
}
