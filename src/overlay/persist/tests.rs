use std::{
    env,
    io::{BufRead, BufReader},
    ops::Bound,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use redb::{BackendError, StorageBackend};

use super::*;
use crate::record::testing::{Draft, NOW};

const LONG: Duration = Duration::from_secs(60);

/// One of many records: name `nth`, written by one of 256 instances.
fn record(nth: u32, instance: u8) -> VerifiedRecord {
    Draft::user(&format!("sip:user-{nth}@p2psip.org"), instance).unverified()
}

fn envelope(nth: u32) -> Vec<u8> {
    record(nth, 0).envelope().to_vec()
}

fn put(persist: &Persist, range: std::ops::Range<u32>) {
    range.for_each(|nth| persist.put(&record(nth, 0)));
}

fn open(path: &Path) -> (Persist, Loaded) {
    Persist::open(path, NOW).unwrap()
}

/// What a member that starts now would find.
fn reload(path: &Path) -> Vec<Vec<u8>> {
    let (_, loaded) = open(path);
    assert_eq!(loaded.set_aside, None);
    loaded.records.into_iter().map(|(_, envelope)| envelope).collect()
}

/// Whether these are true records: of the first `count` names, under the right keys.
fn are_true(records: &Records, count: u32) -> bool {
    let expected: BTreeMap<RecordKey, Vec<u8>> =
        (0..count).map(|nth| ((&record(nth, 0)).into(), envelope(nth))).collect();
    records.iter().all(|(key, envelope)| expected.get(key) == Some(envelope))
}

#[test]
fn a_restart_brings_the_records_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.redb");
    let (persist, loaded) = open(&path);
    assert!(loaded.records.is_empty() && loaded.set_aside.is_none());
    put(&persist, 0..2000);
    persist.delete((&record(7, 0)).into());
    persist.close(LONG).unwrap();
    let records = open(&path).1.records;
    assert_eq!(records.len(), 1999);
    assert!(are_true(&records, 2000));
    assert!(!records.iter().any(|(key, _)| *key == RecordKey::from(&record(7, 0))));
}

#[test]
fn the_last_write_of_a_record_wins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.redb");
    let (persist, _) = open(&path);
    let version = |instance: u8, nth: u64| Draft::user("sip:a@p2psip.org", instance).sequence(nth).unverified();
    for nth in 0..1000 {
        persist.put(&version(1, nth));
        persist.put(&version(2, nth));
        if nth == 500 {
            persist.flush(LONG).unwrap();
        }
    }
    assert!(persist.pending() <= 2);
    persist.delete((&version(2, 0)).into());
    persist.flush(LONG).unwrap();
    assert_eq!(persist.pending(), 0);
    drop(persist);
    assert_eq!(reload(&path), [version(1, 999).envelope()]);
}

#[test]
fn dropping_the_handle_writes_what_is_pending() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.redb");
    put(&open(&path).0, 0..10);
    assert_eq!(reload(&path).len(), 10);
}

#[test]
fn changes_are_written_without_being_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (persist, _) = open(&folder.path().join("records.redb"));
    put(&persist, 0..10);
    let deadline = Instant::now() + LONG;
    while persist.shared.lock().durable < 10 {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(persist.trouble(), None);
}

#[test]
fn a_file_that_is_something_else_is_set_aside_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.redb");
    for (nth, garbage) in [b"a note to myself".to_vec(), vec![0; 100_000], vec![0xa5; 5]].into_iter().enumerate() {
        fs::write(&path, &garbage).unwrap();
        let (persist, loaded) = open(&path);
        let set_aside = loaded.set_aside.unwrap();
        assert_eq!(fs::read(&set_aside.to).unwrap(), garbage);
        let suffix = if nth == 0 { String::new() } else { format!(".{nth}") };
        assert_eq!(set_aside.to, folder.path().join(format!("records.redb.corrupt-1700000000{suffix}")));
        assert!(!set_aside.why.is_empty() && loaded.records.is_empty());
        put(&persist, 0..3);
        persist.close(LONG).unwrap();
        assert_eq!(reload(&path).len(), 3);
    }
}

#[test]
fn a_table_of_another_shape_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.redb");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TableDefinition::<u64, u64>::new("records")).unwrap().insert(1, 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(open(&path).1.set_aside.unwrap().why.contains("records"));
}

/// A file of two commits, closed properly.
fn intact(folder: &Path) -> Vec<u8> {
    let path = folder.join("intact.redb");
    let (persist, _) = open(&path);
    put(&persist, 0..100);
    persist.flush(LONG).unwrap();
    put(&persist, 100..200);
    persist.close(LONG).unwrap();
    fs::read(path).unwrap()
}

/// Opens a damaged copy: it must be set aside, or yield true records only.
fn open_damaged(folder: &Path, octets: &[u8]) -> bool {
    let path = folder.join("damaged.redb");
    fs::write(&path, octets).unwrap();
    let (persist, loaded) = open(&path);
    assert!(are_true(&loaded.records, 200));
    if let Some(set_aside) = &loaded.set_aside {
        assert!(loaded.records.is_empty());
        fs::remove_file(&set_aside.to).unwrap();
    }
    put(&persist, 0..5);
    persist.close(LONG).unwrap();
    loaded.set_aside.is_some()
}

#[test]
fn a_truncated_file_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let intact = intact(folder.path());
    // At a page boundary, within a page, within the header, nearly whole.
    for length in [1, 63, 64, 200, 320, 4095, 4096, 8192, 20_000, intact.len() / 2, intact.len() - 1] {
        assert!(open_damaged(folder.path(), &intact[..length]), "{length}");
    }
    assert!(!open_damaged(folder.path(), &intact));
}

#[test]
fn a_damaged_file_yields_true_records_or_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let intact = intact(folder.path());
    let mut set_aside = 0;
    for at in (0..400).step_by(29).chain((4096..intact.len()).step_by(intact.len() / 30)) {
        let mut damaged = intact.clone();
        let end = intact.len().min(at + 16);
        damaged[at..end].iter_mut().for_each(|byte| *byte ^= 0xff);
        set_aside += u32::from(open_damaged(folder.path(), &damaged));
    }
    assert!(set_aside > 5, "{set_aside}");
}

#[test]
fn where_nothing_can_be_written_opening_fails_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing").join("records.redb");
    let error = Persist::open(&missing, NOW).unwrap_err();
    assert!(matches!(error, PersistError::Io { .. }), "{error:?}");
    assert_eq!(error.kind(), Kind::Local);
    assert!(error.to_string().contains("missing/records.redb"), "{error}");
    let error = Persist::open(folder.path(), NOW).unwrap_err();
    assert!(matches!(error, PersistError::Io { .. }), "{error:?}");
    assert!(folder.path().exists());
}

#[test]
fn a_file_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.redb");
    let (persist, _) = open(&path);
    put(&persist, 0..10);
    let error = Persist::open(&path, NOW).unwrap_err();
    assert!(matches!(error, PersistError::InUse { .. }), "{error:?}");
    persist.close(LONG).unwrap();
    assert_eq!(reload(&path).len(), 10);
}

/// A disk in memory that can be full, and whose octets outlive the database.
#[derive(Debug, Clone, Default)]
struct Disk {
    octets: Arc<Mutex<Vec<u8>>>,
    full: Arc<AtomicBool>,
    /// Whether a full disk takes its time to say so, and whether somebody waits for it.
    slow: Arc<AtomicBool>,
    waiting: Arc<AtomicBool>,
}

impl Disk {
    fn writable(&self) -> io::Result<MutexGuard<'_, Vec<u8>>> {
        let full = self.full.load(Ordering::SeqCst);
        while full && self.slow.load(Ordering::SeqCst) {
            self.waiting.store(true, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(1));
        }
        if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(self.octets.lock().unwrap()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.octets.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let octets = self.octets.lock().unwrap();
        let from = octets.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable()?.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.writable().map(drop)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.writable()?[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}

fn database(disk: &Disk) -> Result<Database, PersistError> {
    builder().create_with_backend(disk.clone()).map_err(|error| database_error(Path::new("disk"), error))
}

fn on_disk(disk: &Disk) -> Persist {
    let reopened = disk.clone();
    let reopen = Box::new(move || database(&reopened));
    Persist::start(Path::new("disk"), database(disk).unwrap(), reopen).unwrap()
}

#[test]
fn a_full_disk_is_reported_and_nothing_is_lost_once_there_is_room() {
    let disk = Disk::default();
    let persist = on_disk(&disk);
    put(&persist, 0..10);
    persist.flush(LONG).unwrap();
    assert_eq!(persist.trouble(), None);

    disk.full.store(true, Ordering::SeqCst);
    put(&persist, 5..20);
    let error = persist.flush(LONG).unwrap_err();
    assert!(matches!(error, PersistError::Io { .. }) && error.kind() == Kind::Local, "{error:?}");
    assert!(error.to_string().contains("no storage space"), "{error}");
    assert_eq!(persist.trouble(), Some(error));
    assert_eq!(persist.pending(), 15);
    // A second attempt fails on the way to reopening.
    let newer = Draft::user("sip:user-5@p2psip.org", 0).removed().unverified();
    persist.put(&newer);
    persist.flush(LONG).unwrap_err();
    assert_eq!(persist.pending(), 15);

    disk.full.store(false, Ordering::SeqCst);
    persist.flush(LONG).unwrap();
    assert_eq!((persist.trouble(), persist.pending()), (None, 0));
    drop(persist);
    let held: BTreeMap<_, _> = read(&database(&disk).unwrap()).unwrap().into_iter().collect();
    let expected = (0..20).map(|nth| if nth == 5 { newer.clone() } else { record(nth, 0) });
    assert_eq!(held, expected.map(|record| (RecordKey::from(&record), record.envelope().to_vec())).collect());
}

#[test]
fn a_batch_that_failed_does_not_replace_what_came_meanwhile() {
    let disk = Disk::default();
    let persist = on_disk(&disk);
    disk.full.store(true, Ordering::SeqCst);
    disk.slow.store(true, Ordering::SeqCst);
    put(&persist, 0..2);
    while !disk.waiting.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(1));
    }
    persist.delete((&record(0, 0)).into());
    disk.slow.store(false, Ordering::SeqCst);
    persist.flush(LONG).unwrap_err();
    disk.full.store(false, Ordering::SeqCst);
    persist.close(LONG).unwrap();
    assert_eq!(read(&database(&disk).unwrap()).unwrap(), [((&record(1, 0)).into(), envelope(1))]);
}

#[test]
fn a_writer_that_is_gone_is_reported_and_keeps_nobody_waiting() {
    let disk = Disk::default();
    let database = database(&disk).unwrap();
    let persist = Persist::start(Path::new("disk"), database, Box::new(|| panic!("as redb might"))).unwrap();
    disk.full.store(true, Ordering::SeqCst);
    put(&persist, 0..1);
    persist.flush(LONG).unwrap_err();
    let error = persist.flush(LONG).unwrap_err();
    assert!(matches!(error, PersistError::Stopped { .. }), "{error:?}");
    put(&persist, 1..100);
    assert!(persist.pending() <= 1);
    assert_eq!(persist.trouble(), Some(error));
}

const VICTIM: &str = "P2PSIP_TEST_VICTIM";

/// Not a test: the process that `what_was_flushed_survives_sigkill` kills.
#[test]
fn victim_of_a_kill() {
    let Some(path) = env::var_os(VICTIM) else { return };
    let (persist, _) = open(Path::new(&path));
    for nth in 0.. {
        persist.put(&record(nth, 0));
        if nth % 10 == 9 {
            persist.flush(LONG).unwrap();
            // Not print!: the harness would capture it.
            io::Write::write_all(&mut io::stderr(), format!("flushed {nth}\n").as_bytes()).unwrap();
        }
    }
}

#[test]
fn what_was_flushed_survives_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.redb");
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "overlay::persist::tests::victim_of_a_kill", "--nocapture"])
        .env(VICTIM, &path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let flushed = lines.by_ref().filter_map(|line| line.strip_prefix("flushed ")?.parse::<u32>().ok()).nth(4);
    child.kill().unwrap();
    child.wait().unwrap();
    let last = lines.filter_map(|line| line.strip_prefix("flushed ")?.parse::<u32>().ok()).last().or(flushed);
    let envelopes: std::collections::BTreeSet<_> = reload(&path).into_iter().collect();
    let last = last.unwrap();
    assert!(last >= 49);
    for nth in 0..=last {
        assert!(envelopes.contains(&envelope(nth)), "{nth} of {last}");
    }
}
