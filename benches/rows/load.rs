//! How calls are made: as many as the server can take, or at instants that do not wait for it.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;

use crate::Failed;
use crate::clock::Reading;
use crate::figures::{Summary, drawn, percentile};
use crate::process::Process;
use crate::wire::Wire;

/// Calls under way at a time, over so many connections.
pub const IN_FLIGHT: usize = 64;
pub const CONNECTIONS: usize = 4;

/// Closed-loop: makes calls numbered from 0, so many at a time, each as soon as one before it has ended.
pub async fn saturate(
    wires: &[Wire],
    in_flight: usize,
    calls: usize,
    call: impl AsyncFn(&Wire, usize) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let next = Cell::new(0);
    let workers = (0..in_flight).map(|worker| {
        let (wire, next, call) = (&wires[worker % wires.len()], &next, &call);
        async move {
            while next.get() < calls {
                call(wire, next.replace(next.get() + 1)).await?;
            }
            Ok::<(), Failed>(())
        }
    });
    futures::future::try_join_all(workers).await.map(drop)
}

/// What one call of an open load took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// When it was to be made, from the beginning of the load.
    pub intended: Duration,
    /// How long after that instant its answer came.
    pub latency: Duration,
}

/// Open-loop: makes calls numbered from 0 at random instants, so many a second on average, whether or not those before
/// have ended. A call that is made late has waited since it was due.
pub async fn pace(
    wires: &[Wire],
    rate: f64,
    span: Duration,
    call: impl AsyncFn(&Wire, usize) -> Result<(), Failed>,
) -> Result<Vec<Took>, Failed> {
    let (due, mut dues) = tokio::sync::mpsc::unbounded_channel();
    let begin = Instant::now() + Duration::from_millis(20);
    // The runtime's timer counts milliseconds; a thread that sleeps is finer.
    let pacer = std::thread::spawn(move || {
        let mut intended = Duration::ZERO;
        for place in 0.. {
            // The gaps of a Poisson process, never of the logarithm of 0.
            let uniform = ((drawn(7, place) >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
            intended += Duration::from_secs_f64(-uniform.ln() / rate);
            if intended >= span {
                return;
            }
            std::thread::sleep((begin + intended).saturating_duration_since(Instant::now()));
            if due.send(intended).is_err() {
                return;
            }
        }
    });
    let mut under_way = FuturesUnordered::new();
    let mut took = Vec::new();
    let mut number = 0;
    loop {
        tokio::select! {
            biased;
            intended = dues.recv() => {
                let Some(intended) = intended else { break };
                let (wire, place, call) = (&wires[number % wires.len()], number, &call);
                under_way.push(async move {
                    call(wire, place).await?;
                    Ok::<Took, Failed>(Took { intended, latency: begin.elapsed().saturating_sub(intended) })
                });
                number += 1;
            }
            Some(done) = under_way.next() => took.push(done?),
        }
    }
    while let Some(done) = under_way.next().await {
        took.push(done?);
    }
    pacer.join().map_err(|_| "the pacer panicked")?;
    Ok(took)
}

/// The milliseconds within which this share of the calls was answered that were to be made within the span. There must
/// be some.
pub fn within(took: &[Took], span: std::ops::Range<Duration>, share: f64) -> Result<f64, Failed> {
    let during = took.iter().filter(|took| span.contains(&took.intended));
    percentile(during.map(|took| took.latency.as_secs_f64() * 1e3), share)
}

/// A load that is being made.
pub type Made<'a> = LocalBoxFuture<'a, Result<(), Failed>>;

/// A server, and the load that it is given in each round.
pub struct Side<'a> {
    /// The server.
    pub process: &'a Process,
    /// Units in a round: calls, or keys.
    pub units: usize,
    /// Makes so many units, numbered on from the first number.
    pub make: Box<dyn Fn(usize, usize) -> Made<'a> + 'a>,
}

/// What each unit cost a server, one figure for each round.
#[derive(Debug)]
pub struct Cost {
    /// Microseconds of the server's CPU for a unit.
    pub cpu: Vec<f64>,
    /// Units in a second by the clock on the wall.
    pub rate: Vec<f64>,
}

impl Cost {
    /// How many units for a unit of CPU this does, beside the other.
    pub fn beside(&self, other: &Self) -> Summary {
        Summary::of_ratios(&other.cpu, &self.cpu)
    }
}

/// The same where all loads go to the same server: each round lasts until `settle` is over, so that what the server does
/// later for it does not fall into the next one.
pub async fn alternate(sides: &[Side<'_>], rounds: usize, settle: Duration) -> Result<Vec<Cost>, Failed> {
    let mut costs: Vec<Cost> = sides.iter().map(|_| Cost { cpu: Vec::new(), rate: Vec::new() }).collect();
    for round in 0..=rounds {
        for (side, cost) in sides.iter().zip(&mut costs) {
            let before = side.process.clock().read()?;
            let began = Instant::now();
            (side.make)(round * side.units, side.units).await?;
            let seconds = began.elapsed().as_secs_f64();
            tokio::time::sleep(settle).await;
            let spent = side.process.clock().read()?.since(&before);
            if round > 0 {
                cost.cpu.push(spent.as_secs_f64() * 1e6 / side.units as f64);
                cost.rate.push(side.units as f64 / seconds);
            }
        }
    }
    Ok(costs)
}

/// Gives each server its load in turn, round by round, after one round that does not count.
///
/// What a server does later for a round, such as saving what it has counted, belongs to that round: it lasts until the
/// server's next one, and the last until `settle` is over.
pub async fn interleave(sides: &[Side<'_>], rounds: usize, settle: Duration) -> Result<Vec<Cost>, Failed> {
    let mut readings: Vec<Vec<Reading>> = sides.iter().map(|_| Vec::new()).collect();
    let mut rates: Vec<Vec<f64>> = sides.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        for (place, side) in sides.iter().enumerate() {
            if round > 0 {
                readings[place].push(side.process.clock().read()?);
            }
            let began = Instant::now();
            (side.make)(round * side.units, side.units).await?;
            if round > 0 {
                rates[place].push(side.units as f64 / began.elapsed().as_secs_f64());
            }
        }
    }
    tokio::time::sleep(settle).await;
    let mut costs = Vec::new();
    for ((side, mut readings), rate) in sides.iter().zip(readings).zip(rates) {
        readings.push(side.process.clock().read()?);
        let spent = readings.windows(2).map(|pair| pair[1].since(&pair[0]));
        costs.push(Cost { cpu: spent.map(|spent| spent.as_secs_f64() * 1e6 / side.units as f64).collect(), rate });
    }
    Ok(costs)
}
