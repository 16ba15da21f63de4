//! `envoy.service.auth.v3.Authorization`: Envoy asks whether an HTTP request may pass, and is answered by the key in it.
//!
//! It is `VerifyKey` with the question in another form. What a client of Envoy can cause, it is told by a denied response,
//! never by an error of the call: a proxy that lets requests pass when it gets no answer must not be led to that by them.

use tonic::{Request, Response, Status};

use crate::domain::Flaw;
use crate::domain::key::Verdict;
use crate::error::{Error, Violation};
use crate::pb::envoy::service::auth::v3 as pb;
use crate::service::Done;
use crate::service::verify::Verification;

use super::verify::questions::{LastQuery, question};
use super::verify::wording::Wording;
use super::{Desk, admitted};

mod answering;
mod asking;

use answering::{Refusal, allowed, denied};
use asking::Asked;

#[tonic::async_trait]
impl pb::authorization_server::Authorization for Desk {
    async fn check(&self, request: Request<pb::CheckRequest>) -> Result<Response<pb::CheckResponse>, Status> {
        let (caller, request) = admitted(request)?;
        let request_id = &caller.call.request_id;
        let Asked { received, key_header, presented, question: asked } = asking::read(request)?;
        let key = match presented {
            Ok(key) => key,
            Err(why) => return Ok(Response::new(denied(Refusal::Unclear(why), &key_header, request_id))),
        };
        let (asked, _) = question(Wording::of(&mut asked.about(key)), &mut LastQuery::default()).map_err(located)?;
        let verified = match self.ostiary.verify_key(&caller, &asked, None).await {
            // The question itself has been found good: it is this key that does not fit it, and the client chose the key.
            Err(Error::Invalid(_)) => return Ok(Response::new(denied(Refusal::Unlimited, &key_header, request_id))),
            verified => verified?,
        };
        let Done { answer: Verification { verdict, key }, revision: _ } = verified;
        let unknown_too_often = verdict == Verdict::NotFound && self.unknown(&caller, asked.client).is_some();
        Ok(Response::new(match (verdict, key) {
            (Verdict::Valid, Some(key)) => allowed(key, &key_header, &received, request_id),
            // Envoy does not wait for an answer that is held back, so a prober is told to wait instead.
            (_, _) if unknown_too_often => denied(Refusal::Probing, &key_header, request_id),
            (verdict, key) => denied(Refusal::Verdict(verdict, key.map(|key| key.limits)), &key_header, request_id),
        }))
    }
}

/// Where Envoy's configuration of a route is in the request.
const EXTENSIONS: &str = "attributes.context_extensions";

/// What is wrong, by the names that the configuration of a route has for it.
fn located(error: Error) -> Error {
    match error {
        Error::Invalid(violations) => Error::Invalid(violations.into_iter().map(within_extensions).collect()),
        Error::Query { field: _, flaw } => Error::Query { field: "attributes.context_extensions.permissions", flaw },
        other => other,
    }
}

fn within_extensions(violation: Violation) -> Violation {
    let Violation { field, flaw } = violation;
    in_extensions(&field, flaw)
}

fn in_extensions(name: &str, flaw: Flaw) -> Violation {
    Violation::new(format!("{EXTENSIONS}.{name}"), flaw)
}
