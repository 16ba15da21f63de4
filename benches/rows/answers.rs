//! What the load reads of answers: the verdict's code and no more, so that it costs little.

use bytes::Bytes;
use ostiary::pb::v1::VerificationCode;
use prost::Message as _;

use crate::Failed;

/// The outcome within a verdict.
#[derive(Clone, PartialEq, prost::Message)]
struct Verdict {
    #[prost(bool, tag = "1")]
    valid: bool,
    #[prost(enumeration = "VerificationCode", tag = "2")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OfOne {
    #[prost(message, optional, tag = "2")]
    verdict: Option<Verdict>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OfBatch {
    #[prost(message, repeated, tag = "2")]
    results: Vec<OfItem>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OfItem {
    #[prost(message, optional, tag = "1")]
    verdict: Option<Verdict>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OfStream {
    #[prost(bytes = "bytes", tag = "2")]
    correlation_id: Bytes,
    #[prost(message, optional, tag = "3")]
    verdict: Option<Verdict>,
}

/// The code of a `VerifyKeyResponse`.
pub fn code(answer: Bytes) -> Result<VerificationCode, Failed> {
    code_of(OfOne::decode(answer)?.verdict)
}

/// The codes of a `BatchVerifyKeysResponse`, in the order of the requests.
pub fn codes(answer: Bytes) -> Result<Vec<VerificationCode>, Failed> {
    OfBatch::decode(answer)?.results.into_iter().map(|result| code_of(result.verdict)).collect()
}

/// The correlation id and the code of a `StreamVerifyKeysResponse`.
pub fn correlated(answer: Bytes) -> Result<(Bytes, VerificationCode), Failed> {
    let OfStream { correlation_id, verdict } = OfStream::decode(answer)?;
    Ok((correlation_id, code_of(verdict)?))
}

/// That the code is the one that says yes.
pub fn valid(code: VerificationCode) -> Result<(), Failed> {
    if code == VerificationCode::Valid { Ok(()) } else { Err(format!("not valid: {code:?}").into()) }
}

fn code_of(verdict: Option<Verdict>) -> Result<VerificationCode, Failed> {
    let Verdict { valid, code } = verdict.ok_or("an answer without a verdict")?;
    let code = VerificationCode::try_from(code)?;
    if valid == (code == VerificationCode::Valid) { Ok(code) } else { Err("a verdict that contradicts itself".into()) }
}
