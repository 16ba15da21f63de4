//! The transactions that wait for the writer.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::super::{Body, Failure, Priority, Revision};

/// Interactive transactions that may wait.
pub const INTERACTIVE_QUEUED_MAX: usize = 4_096;
/// Background transactions that may wait.
pub const BACKGROUND_QUEUED_MAX: usize = 64;
/// Transactions handed to the writer at once.
const GROUP_TRANSACTIONS_MAX: usize = 512;
/// Patient transactions that there is always room for.
const GROUP_PATIENT_MIN: usize = GROUP_TRANSACTIONS_MAX / 8;
/// Groups that may go before a waiting background transaction; it then joins the next one. Without an end to its
/// patience a store that is never idle would never store what was counted, and never be swept.
const PATIENCE_GROUPS: u32 = 32;

/// How long the writer waits, at most, for those to come back whom it has just answered.
///
/// A commit costs about the same for one transaction as for sixty. Callers who have been answered together ask again
/// shortly after one another; without the wait the first of them would get a commit of their own, and all others another.
const GATHERING_MAX: Duration = Duration::from_millis(1);

/// How long patient transactions wait for others to come, as long as some do within each of these.
const COMPANY_STEP: Duration = Duration::from_millis(3);
/// At most so many of these.
const COMPANY_STEPS_MAX: u32 = 3;
/// After so long without anything to do a patient transaction waits for nobody.
const COMPANY_GONE: Duration = Duration::from_millis(30);
/// From how many on a commit for them is cheap.
const COMPANY_LARGE: usize = 8;
/// Groups in a row that are content with nearly as many as came the last time, if those were many; the next one waits
/// whether there are more.
const CONTENT_IF_LARGE: u32 = 15;
/// The same if there was only one: whoever is alone hardly notices.
const CONTENT_IF_ALONE: u32 = 3;

/// A transaction and whom to tell.
pub(super) struct Job {
    pub(super) priority: Priority,
    pub(super) body: Body,
    pub(super) answer: Answerable,
}

/// Whoever waits for an answer.
pub(super) struct Answerable {
    answer: oneshot::Sender<Result<Revision, Failure>>,
    /// Where they wait.
    runtime: Option<Handle>,
}

impl Answerable {
    /// For whoever waits on this thread's runtime.
    pub(super) fn here(answer: oneshot::Sender<Result<Revision, Failure>>) -> Self {
        Self { answer, runtime: Handle::try_current().ok() }
    }

    /// Whether they have left.
    pub(super) fn is_gone(&self) -> bool {
        self.answer.is_closed()
    }

    pub(super) fn tell(self, answer: Result<Revision, Failure>) {
        // They may have left meanwhile.
        let _ = self.answer.send(answer);
    }
}

/// Tells everybody. Waking somebody on another thread costs a system call, so each runtime is woken once, and wakes all
/// who wait there by itself.
pub(super) fn tell_all(answers: Vec<(Answerable, Result<Revision, Failure>)>) {
    type Told = Vec<(Answerable, Result<Revision, Failure>)>;
    let mut by_runtime: Vec<(Handle, Told)> = Vec::new();
    for (whom, answer) in answers {
        let Some(runtime) = &whom.runtime else {
            whom.tell(answer);
            continue;
        };
        match by_runtime.iter_mut().find(|(known, _)| known.id() == runtime.id()) {
            Some((_, told)) => told.push((whom, answer)),
            None => by_runtime.push((runtime.clone(), vec![(whom, answer)])),
        }
    }
    for (runtime, told) in by_runtime {
        let tell = move || told.into_iter().for_each(|(whom, answer)| whom.tell(answer));
        runtime.spawn(async move { tell() });
    }
}

/// What the writer does next.
pub(super) enum Next {
    /// Run these, in this order.
    Group(VecDeque<Job>),
    /// A reader of this opening of the file met an error: open the file again.
    Reopen(u64, Failure),
    /// Everything is done and nothing will come.
    End,
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    bell: Condvar,
}

#[derive(Default)]
struct Waiting {
    interactive: VecDeque<Job>,
    patient: VecDeque<Job>,
    background: VecDeque<Job>,
    /// Groups that went before the oldest background transaction.
    passed_over: u32,
    /// Interactive transactions of the last group: as many are likely to come again.
    last_group: usize,
    /// From how many interactive ones on the bell is rung.
    ring_from: usize,
    company: Company,
    reopen: Option<(u64, Failure)>,
    /// Why writes are refused for the time being.
    refusing: Option<Failure>,
    closed: bool,
}

/// What is known of those who are patient.
#[derive(Default)]
struct Company {
    /// While they are waiting for one another: how many of them ring the bell.
    gathers: Option<usize>,
    /// Whether any have been handed out lately.
    near: bool,
    /// How many there were when the last ones that waited for long enough went.
    all: usize,
    /// Groups that have been content with nearly as many since.
    content: u32,
}

impl Queue {
    /// Takes a transaction in, or says at once why not.
    pub(super) fn push(&self, job: Job) -> Result<(), Failure> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(Failure::Closed);
        }
        if let Some(failure) = &waiting.refusing {
            return Err(failure.clone());
        }
        let priority = job.priority;
        let (line, most) = match priority {
            Priority::Interactive => (&mut waiting.interactive, INTERACTIVE_QUEUED_MAX),
            Priority::Patient => (&mut waiting.patient, INTERACTIVE_QUEUED_MAX),
            Priority::Background => (&mut waiting.background, BACKGROUND_QUEUED_MAX),
        };
        if line.len() == most {
            return Err(Failure::Overloaded);
        }
        line.push_back(job);
        let rings = match priority {
            Priority::Background => true,
            Priority::Interactive => {
                waiting.company.gathers.is_some() || waiting.interactive.len() >= waiting.ring_from
            }
            // While interactive ones are gathered these wait with them.
            Priority::Patient => {
                waiting.patient.len() >= waiting.company.gathers.unwrap_or(0) && waiting.ring_from == 0
            }
        };
        drop(waiting);
        if rings {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Waits for something to do.
    pub(super) fn next(&self) -> Next {
        let mut waiting = self.waiting.lock();
        self.gather(&mut waiting);
        loop {
            self.gather_company(&mut waiting);
            if let Some((opening, failure)) = waiting.reopen.take() {
                return Next::Reopen(opening, failure);
            }
            if let Some(group) = waiting.group() {
                return Next::Group(group);
            }
            if waiting.closed {
                return Next::End;
            }
            if !waiting.company.near {
                self.bell.wait(&mut waiting);
            } else if self.bell.wait_for(&mut waiting, COMPANY_GONE).timed_out() {
                waiting.company.near = false;
            }
        }
    }

    /// Waits a little until most of those are back who were answered last. With one caller nobody waits.
    fn gather(&self, waiting: &mut MutexGuard<'_, Waiting>) {
        let expected = waiting.last_group * 3 / 4;
        let lacks = |waiting: &mut Waiting| waiting.interactive.len() < expected && !waiting.is_interrupted();
        if expected > 1 && lacks(waiting) {
            waiting.ring_from = expected;
            self.bell.wait_while_for(waiting, lacks, GATHERING_MAX);
            waiting.ring_from = 0;
        }
    }

    /// Waits for company while only patient transactions are there: until nearly as many have come as the last time, or no
    /// more do.
    fn gather_company(&self, waiting: &mut MutexGuard<'_, Waiting>) {
        let goal = waiting.company.goal();
        let lacks = |waiting: &mut Waiting| {
            waiting.interactive.is_empty() && (1..goal).contains(&waiting.patient.len()) && !waiting.is_interrupted()
        };
        if !waiting.company.near || !lacks(waiting) {
            return;
        }
        waiting.company.gathers = Some(goal);
        for step in 1..=COMPANY_STEPS_MAX {
            let before = waiting.patient.len();
            if !self.bell.wait_while_for(waiting, lacks, COMPANY_STEP).timed_out() {
                break;
            }
            if waiting.patient.len() == before || step == COMPANY_STEPS_MAX {
                waiting.company.all = waiting.patient.len();
                waiting.company.content = 0;
                break;
            }
        }
        waiting.company.gathers = None;
    }

    /// Asks the writer to open the file again, unless it has done so since this opening.
    pub(super) fn reopen(&self, opening: u64, failure: &Failure) {
        self.waiting.lock().reopen = Some((opening, failure.clone()));
        self.bell.notify_one();
    }

    /// Refuses everything from now on with this failure, what waits included.
    pub(super) fn refuse(&self, failure: &Failure) {
        let mut waiting = self.waiting.lock();
        waiting.refusing = Some(failure.clone());
        let Waiting { interactive, patient, background, .. } = &mut *waiting;
        let refused: Vec<Job> = interactive.drain(..).chain(patient.drain(..)).chain(background.drain(..)).collect();
        drop(waiting);
        for job in refused {
            job.answer.tell(Err(failure.clone()));
        }
    }

    /// Takes transactions again.
    pub(super) fn resume(&self) {
        let mut waiting = self.waiting.lock();
        waiting.refusing = None;
        waiting.reopen = None;
    }

    /// How many transactions wait, those that somebody waits for and those of the background.
    pub(super) fn lengths(&self) -> (usize, usize) {
        let waiting = self.waiting.lock();
        (waiting.awaited(), waiting.background.len())
    }

    /// Whether transactions are taken.
    pub(super) fn takes(&self) -> bool {
        let waiting = self.waiting.lock();
        !waiting.closed && waiting.refusing.is_none()
    }

    /// Takes no more transactions; those that wait are still handed out.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.bell.notify_all();
    }

    /// Waits that long, or until closed. Whether it is closed.
    pub(super) fn pause(&self, length: Duration) -> bool {
        let mut waiting = self.waiting.lock();
        self.bell.wait_while_for(&mut waiting, |waiting| !waiting.closed, length);
        waiting.closed
    }

    /// Whether a reader of this opening of the file has met an error.
    pub(super) fn has_failed(&self, opening: u64) -> bool {
        self.waiting.lock().reopen.take_if(|(failed, _)| *failed == opening).is_some()
    }
}

impl Company {
    /// How many are company enough.
    const fn goal(&self) -> usize {
        let content = match self.all {
            0 | 1 => CONTENT_IF_ALONE,
            2..COMPANY_LARGE => 0,
            COMPANY_LARGE.. => CONTENT_IF_LARGE,
        };
        if self.content > content { usize::MAX } else { self.all - self.all / 8 }
    }
}

impl Waiting {
    /// Transactions that somebody waits for.
    fn awaited(&self) -> usize {
        self.interactive.len() + self.patient.len()
    }

    /// Whether there is something else to see to.
    fn is_interrupted(&self) -> bool {
        self.closed || self.reopen.is_some()
    }

    fn group(&mut self) -> Option<VecDeque<Job>> {
        if self.awaited() == 0 {
            self.passed_over = 0;
            self.last_group = 0;
            return self.background.pop_front().map(|job| VecDeque::from([job]));
        }
        // However many interactive ones there are, some room is for patient ones.
        let room = GROUP_TRANSACTIONS_MAX - self.patient.len().min(GROUP_PATIENT_MIN);
        let of_interactive = self.interactive.len().min(room);
        let of_patient = self.patient.len().min(GROUP_TRANSACTIONS_MAX - of_interactive);
        let interactive = self.interactive.drain(..of_interactive);
        let mut group: VecDeque<Job> = interactive.chain(self.patient.drain(..of_patient)).collect();
        if of_patient > 0 {
            self.company.near = true;
            self.company.content = self.company.content.saturating_add(1);
        }
        self.last_group = of_interactive;
        if self.background.is_empty() {
            self.passed_over = 0;
        } else if self.passed_over < PATIENCE_GROUPS {
            self.passed_over += 1;
        } else {
            self.passed_over = 0;
            group.extend(self.background.pop_front());
        }
        Some(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Decision;

    fn job(priority: Priority) -> Job {
        let body: Body = Box::new(|_| Ok(Decision::Discard));
        Job { priority, body, answer: Answerable::here(oneshot::channel().0) }
    }

    /// A queue in which so many patient transactions have been handed out lately.
    fn in_company(all: usize) -> Queue {
        let queue = Queue::default();
        {
            let company = &mut queue.waiting.lock().company;
            company.near = true;
            company.all = all;
        }
        queue
    }

    fn push(queue: &Queue, number: usize, priority: Priority) {
        (0..number).for_each(|_| queue.push(job(priority)).unwrap());
    }

    fn group(queue: &Queue) -> usize {
        match queue.next() {
            Next::Group(jobs) => jobs.len(),
            Next::Reopen(..) | Next::End => panic!("there is something to do"),
        }
    }

    #[test]
    fn a_patient_transaction_after_a_while_waits_for_nobody() {
        let queue = Queue::default();
        queue.waiting.lock().company.all = 64;
        push(&queue, 1, Priority::Patient);
        assert_eq!(group(&queue), 1);
        let waiting = queue.waiting.lock();
        assert_eq!(waiting.company.all, 64, "it did not wait");
        assert!(waiting.company.near);
    }

    #[test]
    fn a_patient_transaction_that_waits_in_vain_spares_the_next_ones_that() {
        let queue = in_company(64);
        for content in 1..=CONTENT_IF_ALONE {
            push(&queue, 1, Priority::Patient);
            assert_eq!(group(&queue), 1);
            let company = &mut queue.waiting.lock().company;
            assert_eq!((company.all, company.content), (1, content));
        }
    }

    #[test]
    fn nearly_as_many_as_the_last_time_are_company_enough_until_it_is_time_to_see_whether_there_are_more() {
        let queue = in_company(64);
        push(&queue, 56, Priority::Patient);
        assert_eq!(group(&queue), 56);
        assert_eq!(queue.waiting.lock().company.all, 64, "they did not wait");
        {
            let company = &mut queue.waiting.lock().company;
            (company.all, company.content) = (64, CONTENT_IF_LARGE + 1);
        }
        push(&queue, 56, Priority::Patient);
        assert_eq!(group(&queue), 56);
        let waiting = queue.waiting.lock();
        assert_eq!((waiting.company.all, waiting.company.content), (56, 1));
    }

    #[test]
    fn patient_transactions_have_their_part_of_each_group() {
        let queue = Queue::default();
        push(&queue, 2 * GROUP_TRANSACTIONS_MAX, Priority::Interactive);
        push(&queue, 2 * GROUP_PATIENT_MIN, Priority::Patient);
        let Next::Group(jobs) = queue.next() else { panic!("there is something to do") };
        let patient = jobs.iter().filter(|job| job.priority == Priority::Patient).count();
        assert_eq!((jobs.len(), patient), (GROUP_TRANSACTIONS_MAX, GROUP_PATIENT_MIN));
    }

    #[test]
    fn nobody_keeps_an_interactive_transaction_waiting() {
        let queue = in_company(64);
        push(&queue, 1, Priority::Patient);
        push(&queue, 1, Priority::Interactive);
        assert_eq!(group(&queue), 2);
        assert_eq!(queue.waiting.lock().company.all, 64, "they did not wait");
        std::thread::scope(|scope| {
            push(&queue, 1, Priority::Patient);
            scope.spawn(|| {
                let waits = |waiting: &Waiting| waiting.company.gathers.is_some() || waiting.patient.is_empty();
                while !waits(&queue.waiting.lock()) {
                    std::thread::yield_now();
                }
                push(&queue, 1, Priority::Patient);
                push(&queue, 1, Priority::Interactive);
            });
            // On a slow machine the first may have gone before the others came.
            let mut handed_out = group(&queue);
            while handed_out < 3 {
                handed_out += group(&queue);
            }
            assert_eq!(handed_out, 3);
        });
        assert_eq!(queue.waiting.lock().company.gathers, None);
    }
}
