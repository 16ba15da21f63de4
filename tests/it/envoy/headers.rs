//! What a client sends: where the key may be, what is too unclear to go by, and what upstream must not believe.

use ostiary::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};

use super::{CheckRequest, Pairs, about, bearer, denied, documents, from, passes};
use crate::harness::{House, texts};
use ostiary::pb::v1 as pb;

/// The same headers one by one.
fn raw(mut request: CheckRequest, headers: &[(&str, &[u8])]) -> CheckRequest {
    let header = |(key, value): &(&str, &[u8])| HeaderValue {
        key: (*key).to_owned(),
        raw_value: value.to_vec(),
        ..Default::default()
    };
    let http = request.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
    http.header_map = Some(HeaderMap { headers: headers.iter().map(header).collect() });
    request
}

#[tokio::test]
async fn what_is_not_clearly_one_key_is_denied() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api_id, request) = documents(&client).await;
    let (_, secret) = client.key(request).await;
    let (good, here) = (bearer(&secret), [("api_id", api_id.as_str())]);
    let twice = format!("{good},{good}");
    let long = bearer(&"a".repeat(513));
    let (no_scheme, basic, two, tab) =
        (secret.clone(), format!("Basic {secret}"), format!("{good} {secret}"), format!("Bearer\t{secret}"));
    let cases: [(Pairs<'_>, &str); 13] = [
        (&[], "KEY_MISSING"),
        (&[("x-api-key", &secret)], "KEY_MISSING"),
        (&[("authorization", "")], "KEY_MALFORMED"),
        (&[("authorization", "Bearer")], "KEY_MALFORMED"),
        (&[("authorization", "Bearer ")], "KEY_MALFORMED"),
        (&[("authorization", &no_scheme)], "KEY_MALFORMED"),
        (&[("authorization", &basic)], "KEY_MALFORMED"),
        (&[("authorization", &two)], "KEY_MALFORMED"),
        (&[("authorization", &tab)], "KEY_MALFORMED"),
        (&[("authorization", &twice)], "KEY_MALFORMED"),
        (&[("authorization", &long)], "KEY_MALFORMED"),
        (&[("authorization", &good), ("Authorization", &good)], "KEY_MALFORMED"),
        (&[("authorization", "Bearer schlüssel")], "KEY_MALFORMED"),
    ];
    for (headers, code) in cases {
        let answer = denied(&client, about(headers, &here)).await;
        assert_eq!((answer.status, answer.code()), (401, code), "{headers:?}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    passes(&client, about(&[("Authorization", &good.replace("Bearer", "bearer"))], &here)).await;
}

#[tokio::test]
async fn headers_may_come_as_they_are() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api_id, request) = documents(&client).await;
    let (_, secret) = client.key(request).await;
    let (good, here) = (bearer(&secret), [("api_id", api_id.as_str())]);
    let one: (&str, &[u8]) = ("authorization", good.as_bytes());
    let passed = passes(&client, raw(about(&[], &here), &[one, ("x-ostiary-identity", b"me")])).await;
    assert!(passed.removed.contains(&"x-ostiary-identity".to_owned()));
    let cases: [&[(&str, &[u8])]; 3] =
        [&[one, one], &[("authorization", b"Bearer \xff")], &[one, ("AUTHORIZATION", b"")]];
    for headers in cases {
        let answer = denied(&client, raw(about(&[], &here), headers)).await;
        assert_eq!((answer.status, answer.code()), (401, "KEY_MALFORMED"), "{headers:?}");
    }
}

#[tokio::test]
async fn the_key_may_be_alone_in_a_header_that_the_route_names_and_then_that_one_is_removed() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api_id, request) = documents(&client).await;
    let (_, secret) = client.key(request).await;
    let extensions = [("api_id", api_id.as_str()), ("key_header", "X-API-Key")];
    let headers = [("x-api-key", secret.as_str()), ("authorization", "Basic dTpw")];
    let passed = passes(&client, about(&headers, &extensions)).await;
    assert!(passed.removed.contains(&"x-api-key".to_owned()));
    assert!(!passed.removed.contains(&"authorization".to_owned()), "that is none of ostiary's business");
    let answer = denied(&client, about(&[("authorization", &bearer(&secret))], &extensions)).await;
    assert_eq!((answer.status, answer.code()), (401, "KEY_MISSING"));
    assert_eq!(answer.headers["www-authenticate"], "ApiKey header=\"x-api-key\"");
    let with_scheme = about(&[("x-api-key", &bearer(&secret))], &extensions);
    assert_eq!(denied(&client, with_scheme).await.code(), "KEY_MALFORMED");
}

#[tokio::test]
async fn nothing_that_a_client_claims_in_the_name_of_ostiary_reaches_upstream() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api_id, request) = documents(&client).await;
    let (key, secret) = client.key(request).await;
    let good = bearer(&secret);
    let claims = [
        ("x-ostiary-key-id", "key_mine"),
        ("x-ostiary-identity", "somebody else"),
        ("x-ostiary-permissions", "*"),
        ("X-OSTIARY-Roles", "administrator"),
        ("x_ostiary_key_id", "key_mine"),
        ("x-ostiary_identity", "somebody else"),
        ("x-ostiary-of-tomorrow", "yes"),
        ("x-other", "stays"),
        ("authorization", &good),
    ];
    for view in ["BASIC", "FULL"] {
        let passed = passes(&client, about(&claims, &[("api_id", &api_id), ("view", view)])).await;
        assert_eq!(passed.set["x-ostiary-key-id"], key.key_id);
        let gone = [
            "authorization",
            "x-ostiary-identity",
            "x-ostiary-permissions",
            "x-ostiary-roles",
            "x-ostiary-remaining-credits",
            "x-ostiary-key-name",
            "x-ostiary-omitted",
            "x_ostiary_key_id",
            "x-ostiary_identity",
            "x-ostiary-of-tomorrow",
        ];
        for name in gone {
            assert!(passed.removed.iter().any(|removed| removed == name), "{name}: {passed:?}");
        }
        assert!(passed.set.keys().all(|name| !passed.removed.contains(name)), "Envoy removes last: {passed:?}");
        assert!(!passed.removed.iter().any(|name| name == "x-other"));
        // Even if Envoy is told to keep headers to itself, what is not said is removed.
        let passed = passes(&client, about(&[("authorization", &good)], &[("api_id", &api_id), ("view", view)])).await;
        assert!(passed.removed.iter().any(|name| name == "x-ostiary-permissions"));
    }
}

#[tokio::test]
async fn what_developers_wrote_can_make_no_header_of_its_own() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api_id, request) = documents(&client).await;
    let names = ["acme, inc. 100 %", "名前", "a%0d%0ax-evil: 1", "\u{85}"];
    for name in names {
        let request = pb::CreateKeyRequest { external_id: Some(name.into()), name: name.into(), ..request.clone() };
        let Ok(made) = client.keys().create_key(request).await else { continue };
        let secret = made.into_inner().secret;
        let extensions = [("api_id", api_id.as_str()), ("view", "FULL")];
        let passed = passes(&client, about(&[("authorization", &bearer(&secret))], &extensions)).await;
        for value in passed.set.values() {
            assert!(value.bytes().all(|byte| byte.is_ascii_graphic()), "{name}: {value:?}");
        }
        assert!(!passed.set["x-ostiary-identity"].contains(','));
    }
}

#[tokio::test]
async fn the_client_is_who_connected_to_envoy_or_whom_a_header_of_envoys_names() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api_id, request) = documents(&client).await;
    let request = pb::CreateKeyRequest { allowed_cidrs: texts(&["10.0.0.0/8", "2001:db8::/32"]), ..request };
    let (_, secret) = client.key(request).await;
    let good = bearer(&secret);
    let connected = |address: &str| from(about(&[("authorization", &good)], &[("api_id", &api_id)]), address);
    for address in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::7"] {
        passes(&client, connected(address)).await;
    }
    for address in ["192.0.2.7", "", "nonsense", "/run/socket"] {
        assert_eq!(denied(&client, connected(address)).await.code(), "FORBIDDEN", "{address}");
    }
    let extensions = [("api_id", api_id.as_str()), ("client_ip_header", "x-envoy-external-address")];
    let named = |address: &str| {
        from(about(&[("authorization", &good), ("x-envoy-external-address", address)], &extensions), "10.0.0.1")
    };
    passes(&client, named("10.1.2.3")).await;
    for address in ["192.0.2.7", "", "nonsense", "10.1.2.3,10.1.2.3"] {
        assert_eq!(denied(&client, named(address)).await.code(), "FORBIDDEN", "{address}");
    }
    let nowhere = from(about(&[("authorization", &good)], &extensions), "10.0.0.1");
    assert_eq!(denied(&client, nowhere).await.code(), "FORBIDDEN", "no other address takes its place");
}
