//! What a key is to be, as it is asked for: when it is made, and when it is imported.

use crate::domain::Flaw;
use crate::domain::id::ApiId;
use crate::domain::import::{self, Algorithm, Encoding};
use crate::domain::name::KEY_NAME;
use crate::domain::secret::Digest;
use crate::domain::time::Expiry;
use crate::pb::v1 as pb;
use crate::rpc::Clock;
use crate::rpc::fields::Fields;
use crate::service::keys::{ImportDraft, KeyDraft};

/// What a key is to be.
pub(super) fn draft(fields: &mut Fields, request: pb::CreateKeyRequest, clock: Clock) -> Option<KeyDraft> {
    use pb::create_key_request::Expiration;
    let pb::CreateKeyRequest {
        api_id,
        name,
        prefix,
        metadata,
        roles,
        permissions,
        enabled,
        expiration,
        allowed_cidrs,
        validate_only: _,
        external_id,
        credits,
        rate_limits,
    } = request;
    let api = fields.id("api_id", &api_id, ApiId::parse);
    let name = fields.name("name", &name, KEY_NAME);
    let prefix = fields.prefix("prefix", prefix.as_deref());
    let metadata = fields.metadata("metadata", metadata);
    let roles = fields.roles("roles", &roles);
    let permissions = fields.permissions("permissions", &permissions);
    let expiry = match expiration {
        None => Some(None),
        Some(Expiration::ExpireTime(moment)) => fields.expire_time("expire_time", Some(moment), clock.ahead_of),
        Some(Expiration::Ttl(ttl)) => {
            fields.ttl("ttl", Some(ttl)).map(|ttl| ttl.map(|ttl| Expiry::At(clock.now.after(ttl))))
        }
    };
    let allowed = fields.networks("allowed_cidrs", &allowed_cidrs);
    let external_id = external_id.map_or(Some(None), |text| fields.external_id("external_id", &text).map(Some));
    let credits = fields.credits("credits", credits);
    let limits = fields.limits("rate_limits", rate_limits);
    Some(KeyDraft {
        api: api?,
        name: name?,
        prefix: prefix?,
        metadata: metadata?,
        roles: roles?,
        permissions: permissions?,
        enabled: enabled.unwrap_or(true),
        expiry: expiry?,
        allowed: allowed?,
        external_id: external_id?,
        credits: credits?,
        limits: limits?,
    })
}

/// What a key is to be that was issued elsewhere.
pub(super) fn import_draft(fields: &mut Fields, row: pb::ImportKeysRow, clock: Clock) -> Option<ImportDraft> {
    use pb::create_key_request::Expiration;
    use pb::import_keys_row::Expiration as RowExpiration;
    let pb::ImportKeysRow {
        hash,
        algorithm,
        api_id,
        name,
        prefix,
        metadata,
        roles,
        permissions,
        enabled,
        allowed_cidrs,
        external_id,
        credits,
        rate_limits,
        expiration,
    } = row;
    let digest = digest(fields, &hash, algorithm);
    let expiration = expiration.map(|expiration| match expiration {
        RowExpiration::ExpireTime(moment) => Expiration::ExpireTime(moment),
        RowExpiration::Ttl(ttl) => Expiration::Ttl(ttl),
    });
    let request = pb::CreateKeyRequest {
        api_id,
        name,
        prefix,
        metadata,
        roles,
        permissions,
        enabled,
        expiration,
        allowed_cidrs,
        validate_only: false,
        external_id,
        credits,
        rate_limits,
    };
    let key = draft(fields, request, clock);
    let (digest, algorithm) = digest?;
    Some(ImportDraft { key: key?, digest, algorithm })
}

/// What a secret is found by, and how that was made. The flaw says nothing of it.
fn digest(fields: &mut Fields, hash: &str, algorithm: i32) -> Option<(Digest, Algorithm)> {
    let (algorithm, encoding) = match pb::HashAlgorithm::try_from(algorithm) {
        Ok(pb::HashAlgorithm::Sha256Hex) => (Algorithm::Sha256, Encoding::Hex),
        Ok(pb::HashAlgorithm::Sha256Base64) => (Algorithm::Sha256, Encoding::Base64),
        Ok(pb::HashAlgorithm::Sha512Hex) => (Algorithm::Sha512, Encoding::Hex),
        Ok(pb::HashAlgorithm::PrefixedApiKey) => (Algorithm::LongToken, Encoding::Hex),
        Ok(pb::HashAlgorithm::Unspecified) | Err(_) => {
            let known = "must be SHA256_HEX, SHA256_BASE64, SHA512_HEX or PREFIXED_API_KEY";
            fields.refuse("algorithm", Flaw::new(known));
            return None;
        }
    };
    let digest = fields.take("hash", import::parse(hash, algorithm, encoding))?;
    Some((digest, algorithm))
}
