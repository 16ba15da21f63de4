//! From where a key may be used: the API's allow-list and its own.

use super::*;

/// The API's list, the key's, the address, what comes of it.
type Case = (&'static [&'static str], &'static [&'static str], Option<&'static str>, Code);

#[tokio::test]
async fn an_address_must_be_in_the_list_of_the_api_and_in_that_of_the_key() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (inside, outside) = (Code::Valid, Code::Forbidden);
    let cases: &[Case] = &[
        (&[], &[], None, inside),
        (&[], &[], Some("203.0.113.9"), inside),
        (&["10.0.0.0/8"], &[], Some("10.1.2.3"), inside),
        (&["10.0.0.0/8"], &[], Some("11.0.0.0"), outside),
        (&["10.0.0.0/8"], &[], None, outside),
        (&[], &["10.0.0.0/8"], Some("10.255.255.255"), inside),
        (&[], &["10.0.0.0/8"], Some("9.255.255.255"), outside),
        (&[], &["10.0.0.0/8"], None, outside),
        (&["10.0.0.0/8"], &["10.1.0.0/16"], Some("10.1.0.1"), inside),
        (&["10.0.0.0/8"], &["10.1.0.0/16"], Some("10.2.0.1"), outside),
        (&["10.1.0.0/16"], &["10.0.0.0/8"], Some("10.2.0.1"), outside),
        (&["10.0.0.0/8"], &["11.0.0.0/8"], Some("10.0.0.1"), outside),
        (&["10.0.0.0/8"], &["11.0.0.0/8"], Some("11.0.0.1"), outside),
        (&[], &["10.0.0.0/8"], Some("::ffff:10.0.0.1"), inside),
        (&[], &["10.0.0.0/8"], Some("::ffff:a00:1"), inside),
        (&[], &["10.0.0.0/8"], Some("::ffff:11.0.0.1"), outside),
        (&[], &["::ffff:10.0.0.0/104"], Some("10.9.9.9"), inside),
        (&[], &["::/0"], Some("10.0.0.1"), outside),
        (&[], &["0.0.0.0/0"], Some("2001:db8::1"), outside),
        (&[], &["2001:db8::/32"], Some("2001:db8:ffff::1"), inside),
        (&[], &["2001:db8::/32"], Some("2001:db9::1"), outside),
        (&["10.0.0.0/8", "2001:db8::/32"], &["2001:db8::1"], Some("2001:0DB8:0::1"), inside),
        (&[], &["192.0.2.7"], Some("192.0.2.7"), inside),
        (&[], &["192.0.2.7"], Some("192.0.2.8"), outside),
    ];
    for (of_api, of_key, address, expected) in cases {
        let request =
            pb::CreateApiRequest { name: "documents".into(), allowed_cidrs: texts(of_api), ..Default::default() };
        let api = client.apis().create_api(request).await.unwrap().into_inner().api.unwrap();
        let request = pb::CreateKeyRequest { api_id: api.api_id, allowed_cidrs: texts(of_key), ..Default::default() };
        let (_, secret) = client.key(request).await;
        let question = pb::VerifyKeyRequest { client_ip: address.map(Into::into), ..about(&secret) };
        let verdict = client.verify(question).await;
        assert_eq!(verdict.code(), *expected, "{of_api:?} {of_key:?} {address:?}");
    }
}

#[tokio::test]
async fn what_is_no_address_is_refused_even_where_there_is_no_list() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let api = client.api("documents").await;
    let (_, secret) = client.plain_key(&api, "").await;
    for address in
        ["", "localhost", "10.0.0.0/8", "10.0.0", "010.0.0.1", "[::1]", "::1%lo", "10.0.0.1:80", "10.0.0.1\0"]
    {
        let question = pb::VerifyKeyRequest { client_ip: Some(address.into()), ..about(&secret) };
        let status = client.keys().verify_key(question).await.unwrap_err();
        assert_eq!((status.code(), fields(&status)), (Grpc::InvalidArgument, texts(&["client_ip"])), "{address:?}");
    }
}
