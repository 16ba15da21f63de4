//! Certificates that can't be used end a start with one line that says what to do.

use super::CERTIFIED;
use crate::certificates::Authority;
use crate::process::{Ended, Place, set_mode};

/// The one line with which a process gave up.
fn complaint(ended: &Ended, code: i32) -> String {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    let complaints: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(complaints.len(), 1, "{ended:?}");
    assert!(complaints[0].starts_with("ostiary: "), "{ended:?}");
    complaints[0].to_owned()
}

/// What a start in a place says whose files have been prepared like this.
fn said(prepare: impl FnOnce(&Place, &Authority)) -> String {
    let place = Place::new();
    prepare(&place, &Authority::new());
    let complaint = complaint(&place.serve_in_vain(&CERTIFIED), 1);
    assert!(!place.data().exists(), "nothing was touched");
    complaint
}

#[test]
fn what_can_not_be_read_or_is_not_what_it_should_be_is_named() {
    let missing = said(|_, _| {});
    assert!(missing.contains("--tls-cert cert.pem: can't be read: No such file"), "{missing}");
    let keyless = said(|place, authority| {
        place.write("cert.pem", &authority.sign().cert);
    });
    assert!(keyless.contains("--tls-key key.pem: can't be read: No such file"), "{keyless}");
    let nonsense = said(|place, authority| {
        authority.sign().write(place);
        place.write("cert.pem", "not a certificate");
    });
    assert!(nonsense.contains("--tls-cert cert.pem: holds no certificate in PEM"), "{nonsense}");
    let exchanged = said(|place, authority| {
        let signed = authority.sign();
        place.write("cert.pem", &signed.cert);
        place.write("key.pem", &signed.cert);
    });
    assert!(exchanged.contains("--tls-key key.pem: holds no private key in PEM"), "{exchanged}");
    let damaged = said(|place, authority| {
        authority.sign().write(place);
        place.write("cert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    });
    assert!(damaged.contains("--tls-cert cert.pem: holds a certificate that can't be read"), "{damaged}");
}

#[test]
fn a_key_of_another_certificate_is_named_and_not_shown() {
    let mut key = String::new();
    let complaint = said(|place, authority| {
        authority.sign().write(place);
        key = authority.sign().key;
        place.write("key.pem", &key);
    });
    assert!(
        complaint.contains("--tls-key key.pem: is not the key of the first certificate in cert.pem"),
        "{complaint}"
    );
    assert!(!complaint.contains(key.lines().nth(1).unwrap()));
}

#[test]
fn a_certificate_that_has_expired_or_is_not_valid_yet_says_since_or_from_when() {
    let expired = said(|place, authority| {
        authority.sign_for(-30, -3).write(place);
    });
    assert!(expired.contains("--tls-cert cert.pem: the certificate expired on "), "{expired}");
    assert!(expired.contains(", 3 days ago; renew it"), "{expired}");
    let early = said(|place, authority| {
        authority.sign_for(2, 30).write(place);
    });
    assert!(early.contains("the certificate is not valid before "), "{early}");
}

#[test]
fn a_key_that_everybody_can_read_is_refused_with_the_remedy() {
    let lax = said(|place, authority| {
        let (_, key) = authority.sign().write(place);
        set_mode(&key, 0o644);
    });
    assert!(lax.contains("run: chmod o= key.pem"), "{lax}");
}

#[test]
fn flags_that_need_each_other_say_so() {
    let place = Place::new();
    Authority::new().sign().write(&place);
    for (flags, needed) in [
        (&["--tls-cert", "cert.pem"][..], "--tls-key"),
        (&["--tls-key", "key.pem"], "--tls-cert"),
        (&["--tls-client-ca", "cert.pem"], "--tls-cert and --tls-key"),
    ] {
        let complaint = complaint(&place.serve_in_vain(flags), 2);
        assert!(complaint.contains(&format!("needs {needed} besides")), "{complaint}");
    }
    let nobody = place.write("nobody.pem", "");
    let flags = [&CERTIFIED[..], &["--tls-client-ca", nobody.to_str().unwrap()]].concat();
    let complaint = complaint(&place.serve_in_vain(&flags), 1);
    assert!(complaint.contains("--tls-client-ca") && complaint.contains("holds no certificate in PEM"), "{complaint}");
}

#[test]
fn with_a_certificate_other_machines_may_be_listened_to() {
    let place = Place::new();
    Authority::new().sign().write(&place);
    let server = place.serve(&[&CERTIFIED[..], &["--listen", "0.0.0.0:0"]].concat());
    assert_eq!(server.stop().code, Some(0));
}
