//! How rate limits and credits are written on a command line.

use crate::pb::v1 as pb;

use super::flags;

/// `name=requests,limit=100,duration=1m`, and of what it may hold besides.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limit {
    name: String,
    limit: Option<i64>,
    duration: Option<prost_types::Duration>,
    cost: Option<i64>,
    auto_apply: bool,
}

fn parts(text: &str) -> Result<Limit, String> {
    let mut limit = Limit::default();
    for part in text.split(',') {
        let (word, value) = part.split_once('=').unwrap_or((part, ""));
        let number = || value.parse().map(Some).map_err(|_| format!("{word}: must be a whole number"));
        match word {
            "name" => limit.name = value.to_owned(),
            "limit" => limit.limit = number()?,
            "cost" => limit.cost = number()?,
            "duration" => limit.duration = Some(flags::span(value).map_err(|flaw| format!("duration: {flaw}"))?),
            "auto-apply" if value.is_empty() => limit.auto_apply = true,
            _ => return Err(format!("{word:?}: must be name=, limit=, duration=, cost= or auto-apply")),
        }
    }
    if limit.name.is_empty() { Err("name=: must be given".to_owned()) } else { Ok(limit) }
}

/// A limit that a key or an identity has.
pub fn stored(text: &str) -> Result<pb::RateLimit, String> {
    let Limit { name, limit, duration, cost, auto_apply } = parts(text)?;
    match (limit, duration, cost) {
        (Some(limit), Some(_), None) => Ok(pb::RateLimit { name, limit, duration, auto_apply }),
        (_, _, Some(_)) => Err("cost=: belongs to verifications".to_owned()),
        _ => Err("limit= and duration=: must both be given".to_owned()),
    }
}

/// A limit that a verification names, or brings along.
pub fn named(text: &str) -> Result<pb::VerifyRateLimit, String> {
    let Limit { name, limit, duration, cost, auto_apply } = parts(text)?;
    if auto_apply {
        return Err("auto-apply: belongs to keys and identities".to_owned());
    }
    if limit.is_some() != duration.is_some() {
        return Err("limit= and duration=: give both or neither".to_owned());
    }
    Ok(pb::VerifyRateLimit { name, cost, limit, duration })
}

/// `daily:AMOUNT`, `monthly:AMOUNT` or `monthly:AMOUNT:DAY`.
pub fn refill(text: &str) -> Result<pb::CreditRefill, String> {
    let shape = || "must be daily:AMOUNT, monthly:AMOUNT or monthly:AMOUNT:DAY".to_owned();
    let parts: Vec<&str> = text.split(':').collect();
    let (interval, amount, day) = match parts[..] {
        ["daily", amount] => (pb::RefillInterval::Daily, amount, None),
        ["monthly", amount] => (pb::RefillInterval::Monthly, amount, None),
        ["monthly", amount, day] => (pb::RefillInterval::Monthly, amount, Some(day)),
        _ => return Err(shape()),
    };
    let amount = amount.parse().map_err(|_| shape())?;
    let day = day.map(str::parse).transpose().map_err(|_| shape())?;
    Ok(pb::CreditRefill { interval: interval.into(), amount, day })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_say_what_they_are_for() {
        let minute = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        let limit = stored("name=requests,limit=100,duration=1m,auto-apply").unwrap();
        assert_eq!(limit, pb::RateLimit { name: "requests".into(), limit: 100, duration: minute, auto_apply: true });
        let named_limit = named("name=requests,cost=3").unwrap();
        assert_eq!(named_limit, pb::VerifyRateLimit { name: "requests".into(), cost: Some(3), ..Default::default() });
        assert_eq!(named("name=a,limit=1,duration=60s").unwrap().duration, minute);
        assert!(stored("name=a").unwrap_err().contains("limit= and duration="));
        assert!(stored("name=a,limit=1,duration=1m,cost=1").unwrap_err().contains("cost="));
        assert!(named("name=a,limit=1").unwrap_err().contains("both or neither"));
        assert!(named("limit=x").unwrap_err().contains("whole number"));
        assert!(stored("limit=1,duration=1m").unwrap_err().contains("name="));
        assert!(stored("name=a,size=1").unwrap_err().contains("\"size\""));
    }

    #[test]
    fn refills_say_how_often_and_to_how_much() {
        assert_eq!(refill("monthly:5:31").unwrap().day, Some(31));
        assert_eq!(refill("daily:5").unwrap().amount, 5);
        for text in ["", "daily", "daily:5:1", "weekly:5", "monthly:x"] {
            assert!(refill(text).is_err(), "{text}");
        }
    }
}
