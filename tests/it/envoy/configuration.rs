//! The configuration of a route: what is wrong with it is told by its name, and lets nothing pass.

use tonic::Code;

use super::{CheckRequest, Pairs, about, ask, bearer, documents, passes};
use crate::harness::{House, fields, reason};

#[tokio::test]
async fn what_is_wrong_with_the_configuration_of_a_route_is_told_all_at_once() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api_id, request) = documents(&client).await;
    let (_, secret) = client.key(request).await;
    let good = bearer(&secret);
    let here = ("api_id", api_id.as_str());
    let cases: [(Pairs<'_>, &[&str]); 14] = [
        (&[], &["api_id"]),
        (&[("api_id", "documents")], &["api_id"]),
        (&[here, ("permission", "documents.read")], &["permission"]),
        (&[here, ("Permissions", "documents.read")], &["Permissions"]),
        (&[here, ("permissions", "documents.read AND")], &["permissions"]),
        (&[here, ("permissions", "")], &["permissions"]),
        (&[here, ("rate_limits", "exports,")], &["rate_limits[1].name"]),
        (&[here, ("rate_limits", "exports,exports")], &["rate_limits[1].name"]),
        (&[here, ("cost", "many")], &["cost"]),
        (&[here, ("cost", "-1")], &["cost"]),
        (&[here, ("view", "full")], &["view"]),
        (&[here, ("key_header", "host")], &["key_header"]),
        (&[here, ("client_ip_header", "x-ostiary-address")], &["client_ip_header"]),
        (
            &[("key_header", ":path"), ("view", ""), ("cost", ""), ("a", ""), ("b", "")],
            &["api_id", "key_header", "cost", "view", "a", "b"],
        ),
    ];
    for (extensions, wrong) in cases {
        let status = ask(&client, about(&[("authorization", &good)], extensions)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{extensions:?}: {status:?}");
        let wrong: Vec<String> = wrong.iter().map(|name| format!("attributes.context_extensions.{name}")).collect();
        assert_eq!(fields(&status), wrong, "{}", status.message());
    }
    let query = about(&[("authorization", &good)], &[here, ("permissions", "a AND")]);
    assert_eq!(reason(&ask(&client, query).await.unwrap_err()), "PERMISSION_QUERY_SYNTAX");
}

#[tokio::test]
async fn only_http_requests_are_judged_and_only_by_headers_in_one_form() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (api_id, request) = documents(&client).await;
    let (_, secret) = client.key(request).await;
    let good = about(&[("authorization", &bearer(&secret))], &[("api_id", &api_id)]);
    let mut of_tcp = good.clone();
    of_tcp.attributes.as_mut().unwrap().request = None;
    for request in [CheckRequest::default(), of_tcp] {
        let status = ask(&client, request).await.unwrap_err();
        assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec!["attributes.request.http".into()]));
    }
    let mut both = good.clone();
    both.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap().header_map =
        Some(Default::default());
    let status = ask(&client, both).await.unwrap_err();
    assert_eq!(fields(&status), ["attributes.request.http.headers"]);
    passes(&client, good).await;
}
