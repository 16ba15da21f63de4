//! Revoking keys by filter.

use tonic::{Request, Response, Status};

use crate::domain::Flaw;
use crate::domain::id::{ApiId, RootKeyId};
use crate::pb::v1 as pb;
use crate::rpc::fields::Fields;
use crate::rpc::{Desk, admitted, answer, run};
use crate::service::keys::RevocationFilter;

pub(super) async fn revoke_keys(
    desk: &Desk,
    request: Request<pb::RevokeKeysRequest>,
) -> Result<Response<pb::RevokeKeysResponse>, Status> {
    let (caller, request) = admitted(request)?;
    let pb::RevokeKeysRequest { filter, validate_only } = request;
    let mut fields = Fields::default();
    let filter = to_filter(&mut fields, filter.unwrap_or_default());
    let filter = fields.finish(filter)?;
    let done = desk.ostiary.revoke_keys(&caller, filter, run(validate_only)).await?;
    answer(&caller, done, |meta, count| pb::RevokeKeysResponse {
        meta,
        revoked_count: i64::try_from(count).unwrap_or(i64::MAX),
    })
}

fn to_filter(fields: &mut Fields, filter: pb::RevokeKeysFilter) -> Option<RevocationFilter> {
    let pb::RevokeKeysFilter { api_id, identity, role, created_by, create_after, create_before } = filter;
    let api = fields.optional_id("filter.api_id", api_id.as_deref(), ApiId::parse);
    let identity = identity.map_or(Some(None), |text| fields.identity("filter.identity", &text).map(Some));
    let role = role.map_or(Some(None), |text| fields.role("filter.role", &text).map(Some));
    let created_by = fields.optional_id("filter.created_by", created_by.as_deref(), RootKeyId::parse);
    let created_from = fields.moment("filter.create_after", create_after);
    let created_before = fields.moment("filter.create_before", create_before);
    let filter = RevocationFilter {
        api: api?,
        identity: identity?,
        role: role?,
        created_by: created_by?,
        created_from: created_from?,
        created_before: created_before?,
    };
    if filter.is_empty() {
        fields.refuse("filter", Flaw::new("must set at least one of its fields"));
        return None;
    }
    Some(filter)
}
