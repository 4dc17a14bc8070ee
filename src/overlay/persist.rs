//! Keeps a storer's records across restarts: a redb file behind a writer thread.
//!
//! Memory is authoritative. Changes are collected, the last one of each record counts, and a thread of its own commits
//! them in batches; so the storer never waits for a disk, and at most [`BATCH`] of changes is lost to a SIGKILL. A disk
//! that fails costs durability and nothing else: the trouble is reported, the changes stay in memory, and the writer
//! tries again.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError,
};

use crate::{clock::UnixMs, kind::Kind, name::Position, record::VerifiedRecord};

/// How long changes are collected before they are committed together.
pub const BATCH: Duration = Duration::from_millis(200);
/// The pause after a first failure; it doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between attempts to write.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Memory for redb's pages. The records are in memory already, so there is nothing to be read twice.
const CACHE: usize = 4 << 20;

/// The octets of a [`RecordKey`], in the file.
type Key = [u8; 64];
/// The changes not yet on disk: an envelope to be written, or none for one to be removed.
type Changes = BTreeMap<RecordKey, Option<Arc<[u8]>>>;
/// What is in the file.
type Records = Vec<(RecordKey, Vec<u8>)>;

const RECORDS: TableDefinition<'static, &Key, &[u8]> = TableDefinition::new("records");

/// What a record is filed under: its position and its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey(Key);

impl RecordKey {
    /// The position.
    pub fn position(&self) -> Position {
        let mut octets = [0; 32];
        octets.copy_from_slice(&self.0[..32]);
        Position::from_octets(octets)
    }
}

impl From<&VerifiedRecord> for RecordKey {
    fn from(record: &VerifiedRecord) -> Self {
        let mut key = [0; 64];
        let (first, second) = key.split_at_mut(32);
        first.copy_from_slice(record.position().octets());
        second.copy_from_slice(record.instance().octets());
        Self(key)
    }
}

/// Why records cannot be kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PersistError {
    /// Another process has the file open.
    #[error("{path} is in use by another process: give each member a home of its own")]
    InUse {
        /// The file.
        path: String,
    },
    /// The file cannot be read or written.
    #[error("{path} cannot be read or written: {why}")]
    Io {
        /// The file.
        path: String,
        /// What the operating system says.
        why: String,
    },
    /// What the file holds is not what was written to it.
    #[error("{path} is damaged: {why}; restart the member to set it aside")]
    Corrupt {
        /// The file.
        path: String,
        /// How that shows.
        why: String,
    },
    /// A damaged file could not be renamed, and is not overwritten.
    #[error("{path} is damaged and cannot be set aside as {to}: {why}")]
    CannotSetAside {
        /// The file.
        path: String,
        /// The name it should have got.
        to: String,
        /// What the operating system says.
        why: String,
    },
    /// The writer thread could not be started, or has ended before its time.
    #[error("records are no longer written to {path}: {why}; restart the member")]
    Stopped {
        /// The file.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// The disk did not keep up.
    #[error("{path} was not written within {ms} ms")]
    Slow {
        /// The file.
        path: String,
        /// How long was waited, in milliseconds.
        ms: u64,
    },
}

impl PersistError {
    /// Always [`Kind::Local`].
    pub const fn kind(&self) -> Kind {
        Kind::Local
    }
}

/// A file that was no database, or no intact one, and was renamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Its name.
    pub from: PathBuf,
    /// Its name now.
    pub to: PathBuf,
    /// What was wrong with it.
    pub why: String,
}

/// What [`Persist::open`] found.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Every envelope in the file and what it is filed under. Not verified: the disk is not trusted.
    pub records: Records,
    /// The file that was found damaged, and what became of it. Nothing of it is among `records`.
    pub set_aside: Option<SetAside>,
}

/// A handle on the file and its writer thread. When it is dropped, what is pending is written and the thread ends.
#[derive(Debug)]
pub struct Persist {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    path: String,
    state: Mutex<State>,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes those who wait for the writer.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pending: Changes,
    /// Changes taken so far, and how many of them are on disk.
    accepted: u64,
    durable: u64,
    /// Failed attempts so far.
    failures: u64,
    trouble: Option<PersistError>,
    /// Somebody waits: do not collect, do not pause.
    urgent: bool,
    stopping: bool,
    ended: bool,
}

impl Shared {
    /// The state. A thread that panicked while it held the lock left nothing half done that matters here.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Persist {
    /// Opens the file, or creates it, checks it and loads what it holds. `now` dates the name of a file set aside.
    ///
    /// A file that is damaged, or is something else, is renamed to `NAME.corrupt-SECONDS` and reported; a new one is
    /// begun. It blocks: every page of the file is read.
    ///
    /// # Errors
    /// [`PersistError::InUse`], [`PersistError::Io`], [`PersistError::CannotSetAside`], [`PersistError::Stopped`].
    pub fn open(path: &Path, now: UnixMs) -> Result<(Self, Loaded), PersistError> {
        let (database, loaded) = match load(path) {
            Ok((database, records)) => (database, Loaded { records, set_aside: None }),
            Err(PersistError::Corrupt { why, .. }) => {
                let set_aside = set_aside(path, now, why)?;
                let (database, records) = load(path)?;
                (database, Loaded { records, set_aside: Some(set_aside) })
            }
            Err(error) => return Err(error),
        };
        let reopened = path.to_owned();
        let reopen = move || builder().open(&reopened).map_err(|error| database_error(&reopened, error));
        Ok((Self::start(path, database, Box::new(reopen))?, loaded))
    }

    fn start(path: &Path, database: Database, reopen: Reopen) -> Result<Self, PersistError> {
        let shared = Arc::new(Shared {
            path: path.display().to_string(),
            state: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        let writer = Writer { shared: Arc::clone(&shared), database: Some(database), reopen };
        let writer = thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || {
                // Dropped last, when the file is closed, and also if redb panics on a file that was damaged under it:
                // whoever waits must learn of it.
                let _obituary = Obituary(Arc::clone(&writer.shared));
                writer.run();
            })
            .map_err(|error| PersistError::Io { path: shared.path.clone(), why: error.to_string() })?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Takes a record to be written. Does not wait.
    pub fn put(&self, record: &VerifiedRecord) {
        self.change(record.into(), Some(record.shared_envelope()));
    }

    /// Takes a record to be removed. Does not wait.
    pub fn delete(&self, key: RecordKey) {
        self.change(key, None);
    }

    fn change(&self, key: RecordKey, envelope: Option<Arc<[u8]>>) {
        let mut state = self.shared.lock();
        // Once the writer has ended nobody would ever take it; `trouble` says so.
        if !state.ended {
            state.accepted += 1;
            state.pending.insert(key, envelope);
            self.shared.work.notify_one();
        }
    }

    /// Waits until all changes taken so far are on disk, at most for `limit`. It blocks: not for a thread that drives
    /// a network.
    ///
    /// # Errors
    /// The writer's trouble if an attempt fails meanwhile; [`PersistError::Slow`]; [`PersistError::Stopped`].
    pub fn flush(&self, limit: Duration) -> Result<(), PersistError> {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.lock();
        let (target, failures) = (state.accepted, state.failures);
        while state.durable < target {
            if state.failures > failures || state.ended {
                return Err(state.trouble.clone().unwrap_or_else(|| self.stopped()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                return Err(PersistError::Slow { path: self.shared.path.clone(), ms });
            }
            state.urgent = true;
            self.shared.work.notify_one();
            state = self.shared.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// What keeps records from being written at present, or `None` if the last attempt succeeded. The writer goes on
    /// trying, except after [`PersistError::Stopped`].
    pub fn trouble(&self) -> Option<PersistError> {
        self.shared.lock().trouble.clone()
    }

    /// How many changes are not on disk yet.
    pub fn pending(&self) -> usize {
        self.shared.lock().pending.len()
    }

    /// Writes what is pending, ends the thread and lets go of the file, at most within `limit` each: whoever opens it
    /// next finds it free. Changes that come later go nowhere. Dropping does the same without a limit, and keeps quiet
    /// about failures.
    ///
    /// # Errors
    /// As [`Persist::flush`].
    pub fn close(&self, limit: Duration) -> Result<(), PersistError> {
        let flushed = self.flush(limit);
        let mut state = self.shared.lock();
        state.stopping = true;
        self.shared.work.notify_one();
        // A writer that a disk holds up past the limit lets go when the disk lets go of it.
        drop(self.shared.done.wait_timeout_while(state, limit, |state| !state.ended));
        flushed
    }

    fn stopped(&self) -> PersistError {
        PersistError::Stopped { path: self.shared.path.clone(), why: "the writer has ended" }
    }
}

impl Drop for Persist {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.work.notify_one();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has left its trouble behind; there is nobody here to tell.
            let _ = writer.join();
        }
    }
}

/// Opens the file again after a failure: redb refuses to go on with a database that has seen an I/O error.
type Reopen = Box<dyn Fn() -> Result<Database, PersistError> + Send>;

struct Writer {
    shared: Arc<Shared>,
    database: Option<Database>,
    reopen: Reopen,
}

impl Writer {
    fn run(mut self) {
        let mut pause = MIN_PAUSE;
        while let Some((batch, accepted)) = self.collect() {
            let outcome = self.commit(&batch);
            let mut state = self.shared.lock();
            match outcome {
                Ok(()) => {
                    state.durable = accepted;
                    state.trouble = None;
                    pause = MIN_PAUSE;
                    self.shared.done.notify_all();
                }
                Err(error) => {
                    // redb wants the file closed after a failure, and so does a file that is to be repaired.
                    self.database = None;
                    state.failures += 1;
                    state.trouble = Some(error);
                    state.urgent = false;
                    for (key, envelope) in batch {
                        state.pending.entry(key).or_insert(envelope);
                    }
                    self.shared.done.notify_all();
                    if state.stopping {
                        return;
                    }
                    let waiting = |state: &mut State| !state.urgent && !state.stopping;
                    drop(self.shared.work.wait_timeout_while(state, pause, waiting));
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
    }

    /// Waits for changes, then for [`BATCH`], and takes what has come. `None`: nothing is left and the handle is gone.
    fn collect(&self) -> Option<(Changes, u64)> {
        let idle = |state: &mut State| state.pending.is_empty() && !state.stopping;
        let collecting = |state: &mut State| !state.urgent && !state.stopping;
        let work = &self.shared.work;
        let state = work.wait_while(self.shared.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let mut state = work.wait_timeout_while(state, BATCH, collecting).unwrap_or_else(PoisonError::into_inner).0;
        state.urgent = false;
        let batch = std::mem::take(&mut state.pending);
        (!batch.is_empty()).then_some((batch, state.accepted))
    }

    fn commit(&mut self, batch: &Changes) -> Result<(), PersistError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.reopen)()?,
        };
        let database = self.database.insert(database);
        write(database, batch).map_err(|error| redb_error(&self.shared.path, error))
    }
}

/// Marks the writer as gone, however it went.
struct Obituary(Arc<Shared>);

impl Drop for Obituary {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        if thread::panicking() {
            state.trouble = Some(PersistError::Stopped { path: self.0.path.clone(), why: "the writer has failed" });
        }
        self.0.done.notify_all();
    }
}

/// Commits changes in one transaction, with an fsync.
fn write(database: &Database, batch: &Changes) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(RECORDS)?;
        for (RecordKey(key), envelope) in batch {
            match envelope {
                Some(envelope) => drop(table.insert(key, &**envelope)?),
                None => drop(table.remove(key)?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Opens the file and reads all of it. redb promises errors for damage, and is not taken at its word: the reading
/// happens in a thread, so that a panic is an error too.
fn load(path: &Path) -> Result<(Database, Records), PersistError> {
    let text = path.display().to_string();
    let file = path.to_owned();
    let reader = thread::Builder::new()
        .name("records".to_owned())
        .spawn(move || {
            make_private(&file).map_err(|error| io_error(&file, &error))?;
            let database = builder().create(&file).map_err(|error| database_error(&file, error))?;
            let records = read(&database).map_err(|error| redb_error(&file.display().to_string(), error))?;
            Ok((database, records))
        })
        .map_err(|error| PersistError::Io { path: text.clone(), why: error.to_string() })?;
    reader
        .join()
        .unwrap_or_else(|_| Err(PersistError::Corrupt { path: text, why: "reading it failed unexpectedly".to_owned() }))
}

/// Creates the file, if there is none, for its owner alone: whom a user's records name is nobody else's business.
fn make_private(path: &Path) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}

fn io_error(path: &Path, error: &io::Error) -> PersistError {
    PersistError::Io { path: path.display().to_string(), why: error.to_string() }
}

fn read(database: &Database) -> Result<Records, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(RECORDS) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut records = Vec::new();
    for entry in table.iter()? {
        let (key, envelope) = entry?;
        records.push((RecordKey(*key.value()), envelope.value().to_vec()));
    }
    Ok(records)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    // Without the check redb trusts a file that was closed properly, and may panic on damage.
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder
}

/// Renames a damaged file to a name that is free.
fn set_aside(path: &Path, now: UnixMs, why: String) -> Result<SetAside, PersistError> {
    let name = |nth: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".corrupt-{}", now.0 / 1000));
        if nth > 0 {
            name.push(format!(".{nth}"));
        }
        PathBuf::from(name)
    };
    let to = (0..100).map(name).find(|to| !to.exists()).unwrap_or_else(|| name(100));
    match fs::rename(path, &to) {
        Ok(()) => Ok(SetAside { from: path.to_owned(), to, why }),
        Err(error) => Err(PersistError::CannotSetAside {
            path: path.display().to_string(),
            to: to.display().to_string(),
            why: error.to_string(),
        }),
    }
}

fn database_error(path: &Path, error: DatabaseError) -> PersistError {
    redb_error(&path.display().to_string(), error.into())
}

/// Tells a disk's failures, which pass or are the operator's to mend, from a file that is damaged.
fn redb_error(path: &str, error: redb::Error) -> PersistError {
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => PersistError::InUse { path },
        // Another magic number, or a file shorter than its header says.
        redb::Error::Io(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            PersistError::Corrupt { path, why: error.to_string() }
        }
        redb::Error::Io(error) => PersistError::Io { path, why: error.to_string() },
        redb::Error::PreviousIo => PersistError::Io { path, why: StorageError::PreviousIo.to_string() },
        error => PersistError::Corrupt { path, why: error.to_string() },
    }
}

#[cfg(test)]
mod tests;
