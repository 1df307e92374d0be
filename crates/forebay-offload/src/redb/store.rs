use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use forebay_core::Class;
use redb::{Database, DatabaseError, ReadableDatabase};
use tokio::{sync::oneshot, task::spawn_blocking};

use super::{
    board::Board,
    codec::{Corrupt, Record},
    load,
    tables::{JOBS, REQUESTS, RESPONSES, Table},
    writer::{Call, Message, Writer},
};
use crate::{
    clock::Clock,
    policy::{
        Cancelled, Cause, Claim, Command, Enqueued, Erased, Job, JobId, Renewed, Reply, Settled, Stats, Swept, Verdict,
    },
    store::{
        Changed, JobStore, LeaseRef, Leased, LeasedJobs, NewJob, Settle, StoreError, StoreErrorKind, StoredRequest,
        StoredResponse,
    },
};

/// Pages of the file that are held in memory, in bytes.
const CACHE: usize = 64 << 20;

/// Keeps jobs in one file, on disk before anything is confirmed; see the [module page](super).
///
/// Clones share the file. Dropping the last one waits for the commit under way.
#[derive(Clone)]
pub struct RedbStore {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    db: Arc<Database>,
    clock: Clock,
    board: Arc<Board>,
    /// `None` only while dropping.
    calls: Option<mpsc::Sender<Message>>,
    writer: Option<JoinHandle<()>>,
}

impl RedbStore {
    /// Opens the file, or makes it, and starts its writer thread.
    ///
    /// # Errors
    /// When another process has it open ([`StoreErrorKind::InUse`]), or it cannot be read or written.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let shared = blocking(move || open(path)).await?;
        Ok(Self { shared: Arc::new(shared) })
    }

    async fn call(&self, queue: &str, commands: Vec<(Command, Option<Vec<u8>>)>) -> Result<Vec<Reply>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let call = Call { queue: queue.to_owned(), now_ms: self.shared.clock.now_ms(), commands, answer };
        self.shared.send(Message::Call(call))?;
        answered.await.map_err(|_| closed())
    }

    async fn command(&self, queue: &str, command: Command) -> Result<Reply, StoreError> {
        let replies = self.call(queue, vec![(command, None)]).await?;
        replies.into_iter().next().ok_or_else(closed)
    }

    /// Reads committed records: what is not on disk yet is not seen.
    async fn read<T: Record + Send + 'static>(
        &self,
        table: Table,
        queue: &str,
        ids: Vec<JobId>,
    ) -> Result<Vec<Option<Result<T, Corrupt>>>, StoreError> {
        let (db, queue) = (Arc::clone(&self.shared.db), queue.to_owned());
        blocking(move || {
            let read = || -> Result<_, redb::Error> {
                let txn = db.begin_read()?;
                let table = txn.open_table(table)?;
                let mut records = Vec::with_capacity(ids.len());
                for id in ids {
                    let record = table.get((queue.as_str(), id.as_u128()))?;
                    records.push(record.map(|record| T::decode(record.value())));
                }
                Ok(records)
            };
            read().map_err(|error| io(error, "the job file could not be read"))
        })
        .await
    }

    async fn read_one<T: Record + Send + 'static>(
        &self,
        table: Table,
        queue: &str,
        id: JobId,
    ) -> Result<Option<T>, StoreError> {
        match self.read(table, queue, vec![id]).await?.pop().flatten() {
            None => Ok(None),
            Some(Ok(record)) => Ok(Some(record)),
            Some(Err(Corrupt)) => Err(StoreError::new(StoreErrorKind::Corrupt, "a record of the job is corrupt")),
        }
    }

    /// Fails a claimed job whose request cannot be read.
    async fn fail_corrupt(&self, queue: &str, job: &Job) -> Result<(), StoreError> {
        tracing::error!(queue, id = %job.id, "a job's request is corrupt: the job has failed");
        let verdict = Verdict::Fail { http_status: None, bytes: 0, cause: Cause::Corrupt };
        self.command(queue, Command::Settle { id: job.id, token: job.token, verdict }).await.map(|_| ())
    }
}

fn open(path: PathBuf) -> Result<Shared, StoreError> {
    let db = Database::builder().set_cache_size(CACHE).create(&path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => {
            StoreError::new(StoreErrorKind::InUse, format!("{} is open in another process", path.display()))
        }
        error => io(error.into(), &format!("{} could not be opened", path.display())),
    })?;
    let (db, clock, board) = (Arc::new(db), Clock::default(), Arc::new(Board::default()));
    let now_ms = clock.now_ms();
    let load = || -> Result<Writer, redb::Error> {
        load::create(&db)?;
        let loaded = load::load(&db, now_ms)?;
        let mut writer = Writer { db: Arc::clone(&db), machines: loaded.machines, board: Arc::clone(&board) };
        writer.reopen(now_ms, &loaded.mended)?;
        Ok(writer)
    };
    let writer = load().map_err(|error| io(error, &format!("{} could not be read", path.display())))?;
    let (calls, received) = mpsc::channel();
    let writer = thread::Builder::new()
        .name("forebay-jobs".to_owned())
        .spawn(move || writer.run(&received))
        .map_err(|error| StoreError::new(StoreErrorKind::Io, "the writer could not be started").caused_by(error))?;
    Ok(Shared { path, db, clock, board, calls: Some(calls), writer: Some(writer) })
}

impl Shared {
    fn send(&self, message: Message) -> Result<(), StoreError> {
        self.calls.as_ref().and_then(|calls| calls.send(message).ok()).ok_or_else(closed)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The writer ends when nobody can call it any more. Waiting for it means that the file is free afterwards.
        drop(self.calls.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join(); // a writer that panicked has nothing to say
        }
    }
}

impl JobStore for RedbStore {
    async fn enqueue(&self, queue: &str, jobs: &[NewJob]) -> Result<Vec<Enqueued>, StoreError> {
        let command = |job: &NewJob| {
            (Command::Enqueue { spec: job.spec.clone(), bounds: job.bounds }, Some(job.request.encode()))
        };
        let replies = self.call(queue, jobs.iter().map(command).collect()).await?;
        Ok(replies
            .into_iter()
            .filter_map(|reply| if let Reply::Enqueued(reply) = reply { Some(reply) } else { None })
            .collect())
    }

    async fn claim(&self, queue: &str, ask: &Claim) -> Result<LeasedJobs, StoreError> {
        let Reply::Claimed(claimed) = self.command(queue, Command::Claim(ask.clone())).await? else {
            return Ok(LeasedJobs::default());
        };
        let ids = claimed.jobs.iter().map(|job| job.id).collect();
        let requests = self.read::<StoredRequest>(REQUESTS, queue, ids).await?;
        let mut jobs = Vec::with_capacity(claimed.jobs.len());
        for (job, request) in claimed.jobs.into_iter().zip(requests) {
            match request {
                Some(Ok(request)) => jobs.push(Leased { job, request }),
                None | Some(Err(Corrupt)) => self.fail_corrupt(queue, &job).await?,
            }
        }
        Ok(LeasedJobs { jobs, more: claimed.more, next_at: claimed.next_at })
    }

    async fn renew(&self, queue: &str, leases: &[LeaseRef], ttl_ms: u64) -> Result<Vec<Renewed>, StoreError> {
        let command = |lease: &LeaseRef| (Command::Renew { id: lease.id, token: lease.token, ttl_ms }, None);
        let replies = self.call(queue, leases.iter().map(command).collect()).await?;
        Ok(replies
            .into_iter()
            .filter_map(|reply| if let Reply::Renewed(reply) = reply { Some(reply) } else { None })
            .collect())
    }

    async fn settle(&self, queue: &str, ends: &[Settle]) -> Result<Vec<Settled>, StoreError> {
        let command = |end: &Settle| {
            let LeaseRef { id, token } = end.lease;
            (Command::Settle { id, token, verdict: end.verdict }, end.response.as_ref().map(Record::encode))
        };
        let replies = self.call(queue, ends.iter().map(command).collect()).await?;
        Ok(replies
            .into_iter()
            .filter_map(|reply| if let Reply::Settled(reply) = reply { Some(reply) } else { None })
            .collect())
    }

    async fn cancel(&self, queue: &str, id: JobId) -> Result<Cancelled, StoreError> {
        match self.command(queue, Command::Cancel { id }).await? {
            Reply::Cancelled(cancelled) => Ok(cancelled),
            _ => Ok(Cancelled::Unknown),
        }
    }

    async fn requeue(
        &self,
        queue: &str,
        id: JobId,
        target_ms: u64,
        expires_after_ms: u64,
    ) -> Result<Option<Job>, StoreError> {
        match self.command(queue, Command::Requeue { id, target_ms, expires_after_ms }).await? {
            Reply::Requeued(job) => Ok(job),
            _ => Ok(None),
        }
    }

    async fn erase(&self, queue: &str, id: JobId) -> Result<Erased, StoreError> {
        match self.command(queue, Command::Erase { id }).await? {
            Reply::Erased(erased) => Ok(erased),
            _ => Ok(Erased::Live),
        }
    }

    async fn sweep(&self, queue: &str) -> Result<Swept, StoreError> {
        match self.command(queue, Command::Sweep).await? {
            Reply::Swept(swept) => Ok(swept),
            _ => Ok(Swept::default()),
        }
    }

    async fn get(&self, queue: &str, id: JobId) -> Result<Option<Job>, StoreError> {
        let Some(job) = self.read_one::<Job>(JOBS, queue, id).await? else { return Ok(None) };
        let now = self.now_ms();
        let due = if job.state.is_ended() { job.until <= now } else { job.state.is_waiting() && job.expires <= now };
        if !due {
            return Ok(Some(job));
        }
        // Its time is over, and no worker has looked since.
        self.sweep(queue).await?;
        self.read_one(JOBS, queue, id).await
    }

    async fn result(&self, queue: &str, id: JobId) -> Result<Option<StoredResponse>, StoreError> {
        self.read_one(RESPONSES, queue, id).await
    }

    async fn secret(&self, queue: &str) -> Result<[u8; 32], StoreError> {
        let (answer, answered) = oneshot::channel();
        self.shared.send(Message::Secret { queue: queue.to_owned(), answer })?;
        answered.await.map_err(|_| closed())?
    }

    fn stats(&self, queue: &str) -> Stats {
        self.shared.board.stats(queue)
    }

    fn retry_after_s(&self, queue: &str, class: Class) -> u64 {
        self.shared.board.retry_after_s(queue, class)
    }

    fn work(&self, queue: &str) -> Changed {
        self.shared.board.watchers(queue).work()
    }

    fn changed(&self, queue: &str, id: JobId) -> Changed {
        self.shared.board.watchers(queue).changed(id)
    }

    fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

/// Runs file I/O where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::new(StoreErrorKind::Io, "reading the job file was cut short").caused_by(error)),
    }
}

fn io(error: redb::Error, message: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Io, message).caused_by(error)
}

fn closed() -> StoreError {
    StoreError::new(StoreErrorKind::Closed, "the job file is closed after a failed write")
}
