//! The six methods that put roles and permissions on a key and take them off.

use super::*;

/// What a key has, asked in the way of a method.
macro_rules! assign {
    ($client:expr, $method:ident, $request:ident, $field:ident, $key:expr, $what:expr) => {{
        let request = pb::$request { key_id: $key.key_id.clone(), $field: texts($what), ..Default::default() };
        $client.keys().$method(request).await.map(|response| response.map(|response| response.$field))
    }};
}

/// The names of roles, or the slugs, in alphabetical order.
fn names<T: Named>(answer: Result<tonic::Response<Vec<T>>, tonic::Status>) -> Vec<String> {
    let mut names: Vec<String> = answer.unwrap().into_inner().into_iter().map(Named::name).collect();
    names.sort();
    names
}

trait Named {
    fn name(self) -> String;
}

impl Named for pb::KeyRole {
    fn name(self) -> String {
        self.name
    }
}

impl Named for String {
    fn name(self) -> String {
        self
    }
}

#[tokio::test]
async fn roles_are_added_removed_and_set_and_the_answer_is_what_the_key_then_holds() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (key, _) = client.plain_key(&client.api("documents").await, "").await;
    let reader = client.role("reader", &[]).await;
    client.role("writer", &[]).await;
    client.role("lister", &[]).await;
    macro_rules! add { ($($name:expr),*) => { assign!(client, add_key_roles, AddKeyRolesRequest, roles, key, &[$($name),*]) } }
    macro_rules! remove { ($($name:expr),*) => { assign!(client, remove_key_roles, RemoveKeyRolesRequest, roles, key, &[$($name),*]) } }
    macro_rules! set { ($($name:expr),*) => { assign!(client, set_key_roles, SetKeyRolesRequest, roles, key, &[$($name),*]) } }
    assert_eq!(names(add!("reader")), ["reader"]);
    assert_eq!(names(add!(&reader.role_id, "writer", "writer")), ["reader", "writer"]);
    let events = client.events().await;
    assert_eq!(names(add!("reader", "writer")), ["reader", "writer"]);
    assert_eq!(names(remove!("lister")), ["reader", "writer"]);
    assert_eq!(names(set!("writer", "reader")), ["reader", "writer"]);
    assert_eq!(client.events().await, events, "twice is once");
    // One that isn't there leaves all as it was.
    let before = client.get_key(&key.key_id).await.unwrap();
    for answer in [add!("lister", "nobody"), remove!("reader", "nobody"), set!("lister", "nobody")] {
        assert_eq!(refusal(answer), not_found("ROLE"));
    }
    assert_eq!(client.get_key(&key.key_id).await.unwrap(), before);
    assert_eq!(names(remove!("reader")), ["writer"]);
    assert_eq!(names(set!("reader", "lister")), ["lister", "reader"]);
    assert_eq!(names(set!()), Vec::<String>::new());
    for answer in [add!(), remove!()] {
        assert_eq!(fields(&answer.unwrap_err()), ["roles"]);
    }
    for answer in [add!("reader", ""), remove!("reader", "no"), set!("reader", &"x".repeat(256))] {
        assert_eq!(fields(&answer.unwrap_err()), ["roles[1]"]);
    }
    assert_eq!(refusal(add!("role_00000000000000000000000000")), not_found("ROLE"));
}

#[tokio::test]
async fn permissions_are_added_removed_and_set_and_the_answer_is_what_the_key_then_holds() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (key, _) = client.plain_key(&client.api("documents").await, "").await;
    macro_rules! add { ($($name:expr),*) => { assign!(client, add_key_permissions, AddKeyPermissionsRequest, permissions, key, &[$($name),*]) } }
    macro_rules! remove { ($($name:expr),*) => { assign!(client, remove_key_permissions, RemoveKeyPermissionsRequest, permissions, key, &[$($name),*]) } }
    macro_rules! set { ($($name:expr),*) => { assign!(client, set_key_permissions, SetKeyPermissionsRequest, permissions, key, &[$($name),*]) } }
    assert_eq!(names(add!("b")), ["b"]);
    let request = pb::GetPermissionRequest { permission: "b".into(), ..Default::default() };
    let b = client.permissions().get_permission(request).await.unwrap().into_inner().permission.unwrap();
    assert_eq!(add!(&b.permission_id, "c", "a", "a").unwrap().into_inner(), ["a", "b", "c"], "in order");
    let events = client.events().await;
    assert_eq!(names(add!("a", "c")), ["a", "b", "c"]);
    assert_eq!(names(set!("c", "b", "a", &b.permission_id)), ["a", "b", "c"]);
    assert_eq!(client.events().await, events, "twice is once");
    let before = client.get_key(&key.key_id).await.unwrap();
    assert_eq!(refusal(remove!("a", "unknown")), not_found("PERMISSION"));
    let unknown = "perm_00000000000000000000000000";
    for answer in [add!("new", unknown), remove!("a", unknown), set!("new", unknown)] {
        assert_eq!(refusal(answer), not_found("PERMISSION"));
    }
    assert_eq!(client.get_key(&key.key_id).await.unwrap(), before);
    assert_eq!(client.events().await, events, "none was made on the way");
    assert_eq!(names(remove!("b", "a")), ["c"]);
    assert_eq!(names(remove!("b")), ["c"]);
    assert_eq!(names(set!("d", "a")), ["a", "d"]);
    assert_eq!(names(set!()), Vec::<String>::new());
    for answer in [add!(), remove!()] {
        assert_eq!(fields(&answer.unwrap_err()), ["permissions"]);
    }
    for answer in [add!("a", ""), remove!("a", "b c"), set!("a", &"x".repeat(129))] {
        assert_eq!(fields(&answer.unwrap_err()), ["permissions[1]"]);
    }
    let taken = (Grpc::AlreadyExists, "PERMISSION_ALREADY_EXISTS".to_owned());
    assert_eq!(refusal(add!("A")), taken, "unique ignoring case");
    assert_eq!(refusal(add!("New", "nEW")), taken);
}

#[tokio::test]
async fn a_rehearsed_assignment_answers_and_changes_nothing() {
    let house = House::in_memory().await;
    let client = house.operator().await;
    let (key, _) = client.plain_key(&client.api("documents").await, "").await;
    client.role("reader", &[]).await;
    let (before, events) = (client.get_key(&key.key_id).await.unwrap(), client.events().await);
    let request = pb::SetKeyRolesRequest {
        key_id: key.key_id.clone(),
        roles: texts(&["reader"]),
        validate_only: true,
        ..Default::default()
    };
    assert_eq!(client.keys().set_key_roles(request).await.unwrap().into_inner().roles.len(), 1);
    let request = pb::AddKeyPermissionsRequest {
        key_id: key.key_id.clone(),
        permissions: texts(&["new"]),
        validate_only: true,
        ..Default::default()
    };
    assert_eq!(client.keys().add_key_permissions(request).await.unwrap().into_inner().permissions, ["new"]);
    assert_eq!((client.get_key(&key.key_id).await.unwrap(), client.events().await), (before, events));
}
