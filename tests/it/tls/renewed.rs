//! A certificate is exchanged while serving: new connections get the new one, old ones go on, bad ones are passed over.

use std::time::Duration;

use rustix::process::Signal;

use super::{CERTIFIED, certified, encrypted, is_served};
use crate::certificates::Authority;
use crate::process::{Place, Server, await_some};

const STAYS: &str = "the certificate that was in use stays in use";
const READ: &str = "the certificate was read again";

/// Waits until the log has said this so many times.
fn await_said(server: &Server, what: &str, times: usize) {
    await_some(what, || (server.process.log().matches(what).count() == times).then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_sighup_new_connections_get_the_new_certificate_and_old_ones_go_on() {
    let (place, old, new) = (Place::new(), Authority::new(), Authority::new());
    let (server, secret) = certified(&place, &old, &[]);
    let before = encrypted(server.address, &old, None, &secret).await.unwrap();
    assert!(is_served(&before).await);
    new.sign().write(&place);
    server.process.signal(Signal::HUP);
    await_said(&server, READ, 1);
    assert!(is_served(&before).await, "it goes on");
    let after = encrypted(server.address, &new, None, &secret).await.unwrap();
    assert!(is_served(&after).await);
    assert!(encrypted(server.address, &old, None, &secret).await.is_err(), "the old one is not shown any more");
    assert!(is_served(&before).await);
    assert_eq!(server.stop().code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_certificate_is_complained_of_once_and_a_good_one_after_it_is_taken() {
    let (place, old, new) = (Place::new(), Authority::new(), Authority::new());
    let (server, secret) = certified(&place, &old, &[]);
    let before = encrypted(server.address, &old, None, &secret).await.unwrap();
    // The key is that of another.
    place.write("cert.pem", &new.sign().cert);
    await_said(&server, STAYS, 1);
    server.process.signal(Signal::HUP);
    await_said(&server, STAYS, 2);
    assert!(is_served(&encrypted(server.address, &old, None, &secret).await.unwrap()).await, "the old one stays");
    new.sign().write(&place);
    await_said(&server, READ, 1);
    assert!(is_served(&encrypted(server.address, &new, None, &secret).await.unwrap()).await);
    assert!(is_served(&before).await);
    let log = server.stop().stderr;
    assert_eq!(log.matches(STAYS).count(), 2, "once for the change, once when asked: {log}");
    assert!(log.contains("is not the key of the first certificate in cert.pem"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_another_authority_are_let_in_once_it_has_taken_the_place_of_the_former() {
    let (place, authority, former, latter) = (Place::new(), Authority::new(), Authority::new(), Authority::new());
    place.write("clients.pem", &former.pem);
    let (server, secret) = certified(&place, &authority, &["--tls-client-ca", "clients.pem"]);
    place.write("clients.pem", &latter.pem);
    server.process.signal(Signal::HUP);
    await_said(&server, READ, 1);
    let client = encrypted(server.address, &authority, Some(&latter.sign()), &secret).await.unwrap();
    assert!(is_served(&client).await);
    let refused = encrypted(server.address, &authority, Some(&former.sign()), &secret).await;
    assert!(match refused {
        Ok(client) => !is_served(&client).await,
        Err(_) => true,
    });
}

#[test]
fn the_end_of_a_certificate_is_told_of_in_time() {
    let (place, authority) = (Place::new(), Authority::new());
    authority.sign_for(-80, 4).write(&place);
    let server = place.serve(&CERTIFIED);
    await_said(&server, "the certificate expires soon; renew it", 1);
    let log = server.stop().stderr;
    assert!(log.contains("days_left=3") && log.contains("cert.pem"), "{log}");

    authority.sign_for(-80, 200).write(&place);
    let log = place.serve(&CERTIFIED).stop().stderr;
    assert!(!log.contains("expires soon"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_ends_while_serving_is_told_of_at_once_and_an_expired_one_takes_its_place_never() {
    let (place, authority) = (Place::new(), Authority::new());
    authority.sign_between(-3_600, 10).write(&place);
    let server = place.serve(&CERTIFIED);
    let secret = place.first_root_key();
    let before = encrypted(server.address, &authority, None, &secret).await.unwrap();
    await_said(&server, "the certificate expires soon; renew it", 1);
    authority.sign_for(-3, -1).write(&place);
    await_said(&server, STAYS, 1);
    await_said(&server, ": clients refuse it", 1);
    // Its last second may not be over for clients.
    let mut tries = 0;
    while encrypted(server.address, &authority, None, &secret).await.is_ok() {
        tries += 1;
        assert!(tries < 100, "clients take it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(is_served(&before).await, "what was agreed on before goes on");
    authority.sign().write(&place);
    await_said(&server, READ, 1);
    assert!(is_served(&encrypted(server.address, &authority, None, &secret).await.unwrap()).await);
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn without_a_certificate_sighup_does_no_harm() {
    let place = Place::new();
    let server = place.serve(&[]);
    server.process.signal(Signal::HUP);
    await_said(&server, "there is nothing to read again", 1);
    assert_eq!(server.stop().code, Some(0));
}
