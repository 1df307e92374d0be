use std::collections::HashMap;

use forebay_core::Class;
use redb::{Database, ReadableDatabase, ReadableTable};

use super::{
    codec::Record,
    tables::{JOBS, KEYS, REQUESTS, SECRETS},
};
use crate::{
    policy::{Cause, Job, JobId, JobSpec, JobState, KeyRecord, KeyTag, Machine, OwnerTag},
    store::StoredRequest,
};

/// Makes the tables, so that every later transaction finds them.
pub(super) fn create(db: &Database) -> Result<(), redb::Error> {
    let txn = db.begin_write()?;
    for table in [JOBS, KEYS, REQUESTS, super::tables::RESPONSES] {
        txn.open_table(table)?;
    }
    txn.open_table(SECRETS)?;
    txn.commit()?;
    Ok(())
}

/// What a file holds.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) machines: HashMap<String, Machine>,
    /// Jobs whose record has to be written anew.
    pub(super) mended: HashMap<String, Vec<JobId>>,
}

#[derive(Default)]
struct Records {
    jobs: Vec<Job>,
    keys: Vec<(KeyTag, KeyRecord)>,
}

/// Reads the index of every queue in the file.
pub(super) fn load(db: &Database, now_ms: u64) -> Result<Loaded, redb::Error> {
    let mut loaded = Loaded::default();
    let txn = db.begin_read()?;
    let (jobs, requests, keys) = (txn.open_table(JOBS)?, txn.open_table(REQUESTS)?, txn.open_table(KEYS)?);
    let mut queues: HashMap<String, Records> = HashMap::new();
    for entry in jobs.iter()? {
        let (key, record) = entry?;
        let (queue, id) = key.value();
        let id = JobId::from_u128(id);
        let job = match Job::decode(record.value()) {
            Ok(job) if job.id == id => job,
            _ => {
                tracing::error!(queue, %id, "a job's record is corrupt: the job has failed");
                let request = requests.get((queue, id.as_u128()))?;
                let request = request.and_then(|record| StoredRequest::decode(record.value()).ok());
                of(&mut loaded.mended, queue).push(id);
                failed(id, request.as_ref(), now_ms)
            }
        };
        of(&mut queues, queue).jobs.push(job);
    }
    for entry in keys.iter()? {
        let (key, record) = entry?;
        let (queue, tag) = key.value();
        match KeyRecord::decode(record.value()) {
            Ok(record) => of(&mut queues, queue).keys.push((KeyTag::from_u128(tag), record)),
            Err(_) => tracing::error!(queue, "the record of an idempotency key is corrupt: it is forgotten"),
        }
    }
    let machines = queues.into_iter().map(|(name, records)| (name, Machine::restore(records.jobs, records.keys)));
    loaded.machines = machines.collect();
    Ok(loaded)
}

fn of<'a, T: Default>(queues: &'a mut HashMap<String, T>, name: &str) -> &'a mut T {
    if !queues.contains_key(name) {
        queues.insert(name.to_owned(), T::default());
    }
    queues.entry(name.to_owned()).or_default()
}

/// What is left of a job whose record cannot be read: it belongs to whom its request says, or to nobody.
fn failed(id: JobId, request: Option<&StoredRequest>, now_ms: u64) -> Job {
    let owner = match request {
        Some(request) => request.principal.as_ref().map(OwnerTag::of),
        None => Some(OwnerTag::NOBODY),
    };
    let mut job = Job::first(&JobSpec::new(id, Class::P3), now_ms);
    job.owner = owner;
    job.state = JobState::Failed;
    job.cause = Some(Cause::Corrupt);
    job.ended = Some(now_ms);
    job.until = now_ms.saturating_add(job.dead_kept_ms);
    job.request_bytes = request.map_or(0, StoredRequest::bytes);
    job
}
