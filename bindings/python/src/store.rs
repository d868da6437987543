//! A store, shared by all clients of the process that name its directory.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use edgelog::{NewTopic, Offset, TimestampMs};
use pyo3::prelude::*;

use crate::error::{Failure, local, raised};

/// Stores that are open here, by directory and by whether they are attached.
type Shared = HashMap<(PathBuf, bool), Weak<edgelog::Store>>;

fn shared() -> std::sync::MutexGuard<'static, Shared> {
    static SHARED: OnceLock<Mutex<Shared>> = OnceLock::new();
    SHARED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// A store: a directory with topics in it.
#[pyclass(module = "edgelog._edgelog", frozen, subclass)]
#[derive(Debug)]
pub(crate) struct Store {
    handle: Mutex<Option<Arc<edgelog::Store>>>,
    path: PathBuf,
    attached: bool,
}

impl Store {
    pub(crate) fn handle(&self, py: Python<'_>) -> PyResult<Arc<edgelog::Store>> {
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).clone();
        handle.ok_or_else(|| Failure::new(local::DESTROY, "the store is closed").raise(py))
    }
}

fn options(config: &BTreeMap<String, String>) -> edgelog::Result<edgelog::StoreOptions> {
    config.iter().try_fold(edgelog::Store::options(), |options, (key, value)| options.set(key, value))
}

/// Opens the store, or attaches to it, once a process.
fn open(path: &Path, attach: bool, config: &BTreeMap<String, String>) -> edgelog::Result<(Arc<edgelog::Store>, bool)> {
    let options = options(config)?;
    let mut shared = shared();
    shared.retain(|_, store| store.strong_count() > 0);
    let known = (path.to_owned(), attach);
    // One that was closed is opened again.
    let open = |store: &Arc<edgelog::Store>| store.topics().is_ok();
    if let Some(store) = shared.get(&known).and_then(Weak::upgrade).filter(open) {
        return Ok((store, attach));
    }
    let store = Arc::new(if attach { options.attach(path)? } else { options.open(path)? });
    shared.insert(known, Arc::downgrade(&store));
    Ok((store, attach))
}

/// How a consumer gets at a store: as this process has it, or else attached, so that another process can write it.
fn open_to_read(path: &Path, config: &BTreeMap<String, String>) -> edgelog::Result<(Arc<edgelog::Store>, bool)> {
    for attach in [true, false] {
        let known = shared().get(&(path.to_owned(), attach)).and_then(Weak::upgrade);
        if let Some(store) = known.filter(|store| store.topics().is_ok()) {
            return Ok((store, attach));
        }
    }
    open(path, true, config).or_else(|_| {
        // There is none yet, or nothing of it that could be read: who opens it makes it.
        drop(open(path, false, config)?);
        open(path, true, config)
    })
}

#[pymethods]
impl Store {
    /// mode: `write` opens it for writing, `attach` for reading next to another process that writes it, `read` as this
    /// process has it and else attached.
    #[new]
    #[pyo3(signature = (path, mode="write", config=None))]
    fn new(py: Python<'_>, path: PathBuf, mode: &str, config: Option<BTreeMap<String, String>>) -> PyResult<Store> {
        let config = config.unwrap_or_default();
        let opened = py.detach(|| {
            if mode != "attach" {
                std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            }
            let path = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
            let opened = match mode {
                "attach" => open(&path, true, &config),
                "read" => open_to_read(&path, &config),
                _ => open(&path, false, &config),
            };
            Ok::<_, String>((opened, path))
        });
        let (opened, path) = opened.map_err(|text| Failure::new(56, text).raise(py))?;
        let (handle, attached) = opened.map_err(raised(py))?;
        Ok(Store { handle: Mutex::new(Some(handle)), path, attached })
    }

    /// Its directory.
    #[getter]
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Whether another process writes it, and this one reads.
    #[getter]
    fn attached(&self) -> bool {
        self.attached
    }

    /// Whether it is closed.
    #[getter]
    fn closed(&self) -> bool {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Creates a topic. With `exist_ok`, returns False where it is there already.
    #[pyo3(signature = (name, partitions=1, config=None, exist_ok=false))]
    fn create_topic(
        &self,
        py: Python<'_>,
        name: String,
        partitions: u32,
        config: Option<BTreeMap<String, String>>,
        exist_ok: bool,
    ) -> PyResult<bool> {
        let store = self.handle(py)?;
        let mut topic = NewTopic::new(name).partitions(partitions);
        for (key, value) in config.unwrap_or_default() {
            topic = topic.config(&key, &value);
        }
        let created = py.detach(|| {
            if exist_ok { store.create_topic_if_absent(&topic) } else { store.create_topic(&topic).map(|()| true) }
        });
        created.map_err(raised(py))
    }

    /// Deletes a topic with its records.
    fn delete_topic(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let store = self.handle(py)?;
        py.detach(|| store.delete_topic(name)).map_err(raised(py))
    }

    /// The topics: the number of partitions by name.
    fn topics(&self, py: Python<'_>) -> PyResult<BTreeMap<String, u32>> {
        let store = self.handle(py)?;
        let topics = py.detach(|| store.topics()).map_err(raised(py))?;
        Ok(topics.into_iter().map(|topic| (topic.name, topic.partitions)).collect())
    }

    /// The log start offset and the high watermark of a partition.
    #[pyo3(signature = (topic, partition=0))]
    fn offsets(&self, py: Python<'_>, topic: &str, partition: u32) -> PyResult<(i64, i64)> {
        let store = self.handle(py)?;
        let found = py.detach(|| {
            let log = store.log(topic, partition)?;
            // Attached, this looks at what the writer has appended since.
            let end = log.reader(edgelog::OffsetSpec::Latest)?.position().offset;
            Ok::<_, edgelog::Error>((log.offsets().log_start_offset.0, end.0))
        });
        found.map_err(raised(py))
    }

    /// The offset of the first record with this time, in milliseconds since 1970, or a later one; None where there is
    /// none.
    fn offset_for_time(&self, py: Python<'_>, topic: &str, partition: u32, timestamp: i64) -> PyResult<Option<i64>> {
        let store = self.handle(py)?;
        let found = py.detach(|| store.log(topic, partition)?.offset_for_time(TimestampMs(timestamp)));
        let offset = |Offset(offset)| offset;
        Ok(found.map_err(raised(py))?.map(|found| offset(found.offset)))
    }

    /// Makes every append durable that has returned.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let store = self.handle(py)?;
        py.detach(|| store.flush()).map_err(raised(py))
    }

    /// Gives this handle back. The store itself is closed with its last client.
    fn close(&self, py: Python<'_>) {
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(handle));
    }
}
