//! What those who watch are told: right figures, no secrets, and never more lines than there are methods and codes.

mod page;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ostiary::pb::v1 as pb;
use ostiary::rpc::policy;
use ostiary::service::survey::Ending;
use ostiary::world::World;
use tonic::Code;
use tonic::metadata::MetadataMap;

use crate::certificates::Authority;
use crate::harness::{Client, House, at, root_key, span};
use crate::process::{Place, Server, await_some, mode};
use crate::tls::{CERTIFIED, encrypted};
use page::Page;

const DASHBOARD: &str = include_str!("../../deploy/grafana/ostiary.json");
const MANUAL: &str = include_str!("../../docs/metrics.md");
const LOOPBACK: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];
const VERIFY: &str = "ostiary.v1.KeyService/VerifyKey";

/// Where a server tells metrics, by its own word.
pub fn admin(server: &Server) -> SocketAddr {
    await_some("listener for metrics", || {
        let log = server.process.log();
        let line = log.lines().find(|line| line.contains("metrics are told"))?;
        line.split_once("address=")?.1.trim().parse().ok()
    })
}

/// Sends a request over a connection and returns the status and the rest of the answer.
fn ask(mut connection: impl Read + Write, method: &str, path: &str) -> (u16, String, String) {
    write!(connection, "{method} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

pub fn scrape(address: SocketAddr) -> Page {
    let (status, head, body) = ask(TcpStream::connect(address).unwrap(), "GET", "/metrics");
    assert_eq!(status, 200, "{body}");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    Page::read(body)
}

/// The page once the store has been looked through.
fn whole(address: SocketAddr) -> Page {
    await_some("look through the store", || {
        Some(scrape(address)).filter(|page| page.figure("ostiary_oldest_root_key_age_seconds", &[]).is_some())
    })
}

async fn call(client: &Client, path: &str) -> Code {
    client.raw(path, Vec::new(), MetadataMap::new()).await.unwrap_err().code()
}

#[tokio::test]
async fn what_has_happened_is_told_and_nothing_of_whom_it_concerns() {
    let place = Place::new();
    let server = place.serve(&LOOPBACK);
    let address = admin(&server);
    let client = server.client(&place.first_root_key()).await;
    let api = client.api("documents").await;
    let (key, secret) = client.plain_key(&api, "customer").await;
    for _ in 0..3 {
        assert!(client.verdict(&secret, None).await.valid);
    }
    assert!(!client.verdict(&secret, Some("documents.read")).await.valid);
    assert!(!client.verdict("nothing", None).await.valid);
    assert_eq!(client.get_key(&format!("key_{}", "0".repeat(26))).await.unwrap_err().code(), Code::NotFound);
    let page = scrape(address);

    let figure = |name: &str, labels: &[(&str, &str)]| page.figure(name, labels).unwrap_or_default();
    let calls =
        |method: &str, code: &str| figure("ostiary_rpc_duration_seconds_count", &[("method", method), ("code", code)]);
    assert_eq!(calls(VERIFY, "OK"), 5.0);
    assert_eq!(calls("ostiary.v1.KeyService/CreateKey", "OK"), 1.0);
    assert_eq!(calls("ostiary.v1.KeyService/GetKey", "NOT_FOUND"), 1.0);
    assert!(figure("ostiary_rpc_duration_seconds_sum", &[("method", VERIFY), ("code", "OK")]) > 0.0);
    let first = page.samples.iter().find_map(|sample| sample.labels.get("le"));
    assert_eq!(first.map(String::as_str), Some("0.0001"), "from 100 µs on");
    for (outcome, times) in [("VALID", 3.0), ("INSUFFICIENT_PERMISSIONS", 1.0), ("NOT_FOUND", 1.0), ("EXPIRED", 0.0)] {
        assert_eq!(page.figure("ostiary_verifications_total", &[("outcome", outcome)]), Some(times), "{outcome}");
    }
    let (commits, changes) =
        (figure("ostiary_store_commits_total", &[]), figure("ostiary_store_transactions_total", &[]));
    assert!(commits >= 2.0 && changes >= commits, "{commits} {changes}");
    assert!(figure("ostiary_cache_reads_total", &[("result", "hit")]) > 3.0);
    assert!(figure("ostiary_cache_reads_total", &[("result", "miss")]) > 1.0);
    assert_eq!(page.figure("ostiary_store_queue_depth", &[("priority", "interactive")]), Some(0.0));
    assert_eq!(page.figure("ostiary_calls_under_way", &[]), Some(0.0));
    assert_eq!(page.figure("ostiary_calls_shed_total", &[]), Some(0.0));
    assert_eq!(page.figure("ostiary_connections", &[]), Some(1.0));
    assert_eq!(page.figure("ostiary_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
    assert_eq!(page.figure("ostiary_sweep_lag_seconds", &[]), Some(0.0));
    let size = place.data().join("ostiary.redb").metadata().unwrap().len();
    assert_eq!(page.figure("ostiary_store_size_bytes", &[]), Some(size as f64));

    let me = client.root_keys().who_am_i(pb::WhoAmIRequest::default()).await.unwrap().into_inner();
    let workspace = me.workspace.unwrap().workspace_id;
    let of_whom = [secret, place.first_root_key(), key.key_id, api.api_id, workspace, me.root_key.unwrap().root_key_id];
    for one in of_whom.iter().map(String::as_str).chain(["documents", "customer"]) {
        let bare = one.rsplit_once('_').map_or(one, |(_, bare)| bare);
        assert!(!page.text.contains(bare), "{one}");
    }
}

#[tokio::test]
async fn whatever_is_called_there_are_no_more_lines_than_methods_and_codes() {
    let place = Place::new();
    let server = place.serve(&LOOPBACK);
    let address = admin(&server);
    let client = server.client(&place.first_root_key()).await;
    for number in 0..50 {
        assert_eq!(call(&client, &format!("/ostiary.v1.KeyService/MadeUp{number}")).await, Code::Unimplemented);
        assert_eq!(call(&client, &format!("/made.up{number}.Service/Method")).await, Code::Unimplemented);
        assert_eq!(call(&client, &format!("/grpc.health.v1.Health/MadeUp{number}")).await, Code::Unimplemented);
    }
    let page = whole(address);
    let known: BTreeSet<_> = policy::names().collect();
    assert!(page.values("method").is_subset(&known), "{:?}", page.values("method"));
    assert_eq!(page.values("code"), BTreeSet::from(["UNIMPLEMENTED"]));
    let made_up = [("method", "other"), ("code", "UNIMPLEMENTED")];
    assert_eq!(page.figure("ostiary_rpc_duration_seconds_count", &made_up), Some(150.0));
    let labels: BTreeSet<_> = page.samples.iter().flat_map(|sample| sample.labels.keys()).collect();
    assert_eq!(labels.len(), 8, "{labels:?}");
}

#[tokio::test]
async fn what_is_found_by_looking_through_the_store_is_told() {
    let place = Place::new();
    let server = place.serve(&[]);
    let client = server.client(&place.first_root_key()).await;
    let api = client.api("documents").await;
    let ttl = pb::create_key_request::Expiration::Ttl(span(3_600_000));
    client.key(pb::CreateKeyRequest { api_id: api.api_id, expiration: Some(ttl), ..Default::default() }).await;
    drop(client);
    assert!(!server.process.log().contains("metrics are told"), "nobody has asked for them");
    server.stop();

    let server = place.serve(&LOOPBACK);
    let page = whole(admin(&server));
    assert_eq!(page.figure("ostiary_expiring_within_day", &[("kind", "key")]), Some(1.0));
    assert_eq!(page.figure("ostiary_expiring_within_day", &[("kind", "root_key")]), Some(0.0));
    let age = page.figure("ostiary_oldest_root_key_age_seconds", &[]).unwrap();
    assert!(age < page.figure("ostiary_start_time_seconds", &[]).unwrap() && age < 3_600.0, "{age}");
}

#[tokio::test]
async fn the_oldest_root_key_is_one_that_opens_something_and_only_ends_within_a_day_count() {
    const DAY: u64 = 24 * 3_600_000;
    let house = House::unswept().await;
    let operator = house.operator().await;
    let first = operator.me().await.unwrap();
    house.pass(DAY);
    let (_, second) = operator.root_key("second", &["*.*.*", "workspaces.*.*"]).await;
    let ends = |moment| Some(pb::create_root_key_request::Expiration::ExpireTime(at(moment)));
    for (name, moment) in [("within", house.now() + DAY), ("beyond", house.now() + DAY + 1)] {
        let request = pb::CreateRootKeyRequest { expiration: ends(moment), ..root_key(name, &["apis.*.read_api"]) };
        operator.root_keys().create_root_key(request).await.unwrap();
    }
    let survey = house.ostiary.survey().await.unwrap();
    assert_eq!(survey.ending, Ending { keys: 0, root_keys: 1 });
    assert_eq!(survey.oldest_root_key.map(|made| made.millis()), Some(house.now() - DAY));

    let disabled = pb::UpdateRootKeyRequest {
        root_key_id: first.root_key_id,
        enabled: Some(false),
        force: true,
        ..Default::default()
    };
    operator.with(&second).root_keys().update_root_key(disabled).await.unwrap();
    let survey = house.ostiary.survey().await.unwrap();
    assert_eq!(survey.oldest_root_key.map(|made| made.millis()), Some(house.now()));
}

#[tokio::test]
async fn the_sweep_lags_as_far_as_the_first_thing_that_is_due() {
    let house = House::unswept().await;
    let operator = house.operator().await;
    let api = operator.api("documents").await;
    for (name, ttl) in [("first", 1_000), ("second", 5_000)] {
        let ttl = pb::create_key_request::Expiration::Ttl(span(ttl));
        let request = pb::CreateKeyRequest {
            api_id: api.api_id.clone(),
            name: name.into(),
            expiration: Some(ttl),
            ..Default::default()
        };
        operator.key(request).await;
    }
    assert_eq!(house.ostiary.behind().await.unwrap(), Duration::ZERO);
    house.pass(4_000);
    assert_eq!(house.ostiary.behind().await.unwrap(), Duration::from_secs(3));
    house.sweep().await;
    assert_eq!(house.ostiary.behind().await.unwrap(), Duration::ZERO);
}

#[tokio::test]
async fn over_a_socket_too_and_nothing_but_metrics_is_there() {
    let place = Place::new();
    let socket = place.path("admin");
    let server = place.serve(&["--admin-listen", &format!("unix:{}", socket.display())]);
    await_some("socket", || UnixStream::connect(&socket).ok());
    assert_eq!(mode(&socket), 0o660);
    let over = || UnixStream::connect(&socket).unwrap();
    // Silent ones take a place and no more.
    let _silent: Vec<_> = (0..3).map(|_| over()).collect();
    let (status, _, body) = ask(over(), "GET", "/metrics");
    assert_eq!(status, 200);
    Page::read(body);
    for (method, path) in [("GET", "/"), ("GET", "/metrics/"), ("POST", "/metrics"), ("GET", "/debug")] {
        assert_eq!(ask(over(), method, path).0, 404, "{method} {path}");
    }
    assert_eq!(server.stop().code, Some(0));
    assert!(!socket.exists(), "a server that stops takes its socket away");
}

#[tokio::test]
async fn metrics_are_not_told_to_other_machines_by_accident() {
    let place = Place::new();
    let refused = place.serve_in_vain(&["--admin-listen", "0.0.0.0:0"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("--admin-listen") && refused.stderr.contains("--allow-plaintext"), "{refused:?}");
    let allowed = place.serve(&["--admin-listen", "0.0.0.0:0", "--allow-plaintext"]);
    let taken = admin(&allowed).to_string();
    scrape(SocketAddr::from(([127, 0, 0, 1], admin(&allowed).port())));

    let other = Place::new().serve_in_vain(&["--admin-listen", &taken, "--allow-plaintext"]);
    assert_eq!(other.code, Some(1));
    assert!(other.stderr.contains(&format!("--admin-listen {taken}")), "{other:?}");
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
    words.filter(|word| word.starts_with("ostiary_")).collect()
}

#[tokio::test]
async fn the_manual_and_the_dashboard_name_what_there_is() {
    let (place, authority) = (Place::new(), Authority::new());
    authority.sign().write(&place);
    let server = place.serve(&[&LOOPBACK[..], &CERTIFIED].concat());
    let client = encrypted(server.address, &authority, None, &place.first_root_key()).await.unwrap();
    client.me().await.unwrap();
    let page = whole(admin(&server));
    let in_days = |days: u64| (World::real(None).now().millis() / 1_000 + days * 24 * 3_600) as f64;
    let expiry = page.figure("ostiary_certificate_expiry_time_seconds", &[]).unwrap();
    assert!((in_days(334)..in_days(336)).contains(&expiry), "{expiry}");
    let there: BTreeSet<_> = page.samples.iter().map(|sample| sample.name.as_str()).collect();
    serde_json::from_str::<serde_json::Value>(DASHBOARD).unwrap();
    let shown = names(DASHBOARD);
    assert!(shown.len() > 15 && shown.is_subset(&there), "{:?}", shown.difference(&there));

    let rows = MANUAL.lines().filter_map(|line| line.strip_prefix("| `ostiary_")?.split('`').next());
    let told: Vec<_> = rows.map(|name| format!("ostiary_{name}")).collect();
    let suffix = |kind: &str| match kind {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    };
    let known: BTreeSet<_> = page.families.iter().map(|(name, kind)| format!("{name}{}", suffix(kind))).collect();
    assert_eq!(told.iter().cloned().collect::<BTreeSet<_>>(), known);
    assert_eq!(told.len(), known.len());
}
