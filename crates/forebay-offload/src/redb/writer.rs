use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, mpsc},
};

use redb::{Database, Durability, ReadableTable};
use tokio::sync::oneshot;

use super::{
    board::Board,
    codec::Record,
    tables::{JOBS, KEYS, REQUESTS, RESPONSES, SECRETS},
};
use crate::{
    policy::{Command, Effects, Enqueued, Job, JobId, KeyTag, Machine, Reply, Settled},
    random,
    store::{StoreError, StoreErrorKind},
};

/// Calls in one commit, at most.
const MAX_BATCH: usize = 1_024;

/// What the writer is asked for.
pub(super) enum Message {
    Call(Call),
    Secret { queue: String, answer: oneshot::Sender<Result<[u8; 32], StoreError>> },
}

/// Commands for one queue, each with the record that goes with it.
pub(super) struct Call {
    pub(super) queue: String,
    pub(super) now_ms: u64,
    pub(super) commands: Vec<(Command, Option<Vec<u8>>)>,
    pub(super) answer: oneshot::Sender<Vec<Reply>>,
}

/// The thread that owns the state machines and writes the file.
pub(super) struct Writer {
    pub(super) db: Arc<Database>,
    pub(super) machines: HashMap<String, Machine>,
    pub(super) board: Arc<Board>,
}

/// What a commit changes in one queue: the last word on each record.
#[derive(Default)]
struct Changes {
    jobs: BTreeSet<JobId>,
    keys: BTreeSet<KeyTag>,
    requests: HashMap<JobId, Option<Vec<u8>>>,
    responses: HashMap<JobId, Option<Vec<u8>>>,
    told: Vec<Effects>,
}

impl Writer {
    /// Takes whoever ran jobs for gone, and writes mended records: called once, before the first call.
    pub(super) fn reopen(&mut self, now_ms: u64, mended: &HashMap<String, Vec<JobId>>) -> Result<(), redb::Error> {
        let mut changes = HashMap::new();
        for (name, machine) in &mut self.machines {
            let (_, effects) = machine.apply(now_ms, Command::LoseLeases);
            let mut of_queue = Changes::default();
            of_queue.note(effects);
            of_queue.jobs.extend(mended.get(name).into_iter().flatten());
            changes.insert(name.clone(), of_queue);
        }
        self.commit(&changes)?;
        self.publish(changes.keys());
        Ok(())
    }

    /// Serves until all senders are gone, or a commit fails: then nobody knows what the disk has, and the thread ends;
    /// every call from then on finds the channel closed.
    pub(super) fn run(mut self, calls: &mpsc::Receiver<Message>) {
        while let Ok(first) = calls.recv() {
            // What has come while the last commit was under way goes into one.
            let batch: Vec<Message> = std::iter::once(first).chain(calls.try_iter()).take(MAX_BATCH).collect();
            if let Err(error) = self.serve(batch) {
                tracing::error!(%error, "the job file could not be written: the store is closed");
                return;
            }
        }
    }

    fn serve(&mut self, batch: Vec<Message>) -> Result<(), redb::Error> {
        let mut changes: HashMap<String, Changes> = HashMap::new();
        let mut answers = Vec::with_capacity(batch.len());
        for message in batch {
            match message {
                Message::Call(call) => {
                    let machine = self.machines.entry(call.queue.clone()).or_default();
                    let changes = changes.entry(call.queue).or_default();
                    let replies = call
                        .commands
                        .into_iter()
                        .map(|(command, record)| changes.apply(machine, call.now_ms, command, record))
                        .collect();
                    answers.push((call.answer, replies));
                }
                Message::Secret { queue, answer } => _ = answer.send(self.secret(&queue)?),
            }
        }
        self.commit(&changes)?;
        // From here on it is on disk and may be seen.
        self.publish(changes.keys());
        for (answer, replies) in answers {
            let _ = answer.send(replies); // a caller that has gone may ask again
        }
        for (name, changes) in &changes {
            let watchers = self.board.watchers(name);
            for effects in &changes.told {
                watchers.tell(effects);
            }
        }
        Ok(())
    }

    fn publish<'a>(&self, queues: impl Iterator<Item = &'a String>) {
        for name in queues {
            if let Some(machine) = self.machines.get(name) {
                self.board.publish(name, machine);
            }
        }
    }

    fn commit(&self, changes: &HashMap<String, Changes>) -> Result<(), redb::Error> {
        if changes.values().all(Changes::is_empty) {
            return Ok(());
        }
        let mut txn = self.db.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        {
            let (mut jobs, mut keys) = (txn.open_table(JOBS)?, txn.open_table(KEYS)?);
            let (mut requests, mut responses) = (txn.open_table(REQUESTS)?, txn.open_table(RESPONSES)?);
            for (name, changes) in changes {
                let Some(machine) = self.machines.get(name) else { continue };
                for id in &changes.jobs {
                    put(&mut jobs, name, id.as_u128(), machine.job(*id).map(Job::encode).as_deref())?;
                }
                for key in &changes.keys {
                    put(&mut keys, name, key.as_u128(), machine.key(*key).map(Record::encode).as_deref())?;
                }
                for (id, record) in &changes.requests {
                    put(&mut requests, name, id.as_u128(), record.as_deref())?;
                }
                for (id, record) in &changes.responses {
                    put(&mut responses, name, id.as_u128(), record.as_deref())?;
                }
            }
        }
        txn.commit()?;
        Ok(())
    }

    fn secret(&self, queue: &str) -> Result<Result<[u8; 32], StoreError>, redb::Error> {
        let txn = self.db.begin_write()?;
        let secret = {
            let mut table = txn.open_table(SECRETS)?;
            let known = table.get(queue)?.map(|known| <[u8; 32]>::try_from(known.value()));
            match known {
                Some(known) => known,
                None => {
                    let secret = random::secret();
                    table.insert(queue, &secret[..])?;
                    Ok(secret)
                }
            }
        };
        txn.commit()?;
        Ok(secret.map_err(|_| StoreError::new(StoreErrorKind::Corrupt, "the queue's secret has not 32 bytes")))
    }
}

impl Changes {
    fn apply(&mut self, machine: &mut Machine, now_ms: u64, command: Command, record: Option<Vec<u8>>) -> Reply {
        let id = match &command {
            Command::Enqueue { spec, .. } => Some(spec.id),
            Command::Settle { id, .. } | Command::Requeue { id, .. } => Some(*id),
            _ => None,
        };
        let (reply, effects) = machine.apply(now_ms, command);
        // A repeated settle saves nothing: the first one's answer stands.
        let ended_now = id.is_some_and(|id| effects.saved.contains(&id));
        if let Some(id) = id {
            match &reply {
                Reply::Enqueued(Enqueued::New(_)) => _ = self.requests.insert(id, record),
                Reply::Settled(Settled::Done(state)) if state.is_ended() && ended_now && record.is_some() => {
                    self.responses.insert(id, record);
                }
                Reply::Requeued(Some(_)) => _ = self.responses.insert(id, None),
                _ => {}
            }
        }
        if let Reply::Claimed(claimed) = &reply
            && claimed.more
            && !claimed.jobs.is_empty()
        {
            self.told.push(Effects::work_left());
        }
        self.note(effects);
        reply
    }

    fn note(&mut self, effects: Effects) {
        self.jobs.extend(&effects.saved);
        self.jobs.extend(&effects.erased);
        self.keys.extend(&effects.keys);
        for id in effects.spent.iter().chain(&effects.erased) {
            self.requests.insert(*id, None);
        }
        for id in &effects.erased {
            self.responses.insert(*id, None);
        }
        self.told.push(effects);
    }

    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.keys.is_empty() && self.requests.is_empty() && self.responses.is_empty()
    }
}

type Open<'a> = redb::Table<'a, super::tables::Key, &'static [u8]>;

fn put(table: &mut Open<'_>, queue: &str, id: u128, record: Option<&[u8]>) -> Result<(), redb::Error> {
    match record {
        Some(record) => _ = table.insert((queue, id), record)?,
        None => _ = table.remove((queue, id))?,
    }
    Ok(())
}
