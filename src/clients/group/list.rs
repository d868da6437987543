//! Groups from outside: which there are, what they have committed, and their deletion. None of it hosts a group.

use std::collections::BTreeMap;

use super::error::{ConsumerError, Result};
use super::host::{OFFSETS_TOPIC, SHARE_STATE_TOPIC, load, remove_all};
use super::name::{dir_of, name_of};
use super::record::CommittedOffset;
use crate::error::Error;
use crate::log::TopicPartition;
use crate::storage::{Access, LOCK_FILE, Storage};
use crate::store::Store;
use crate::store::retention_holds::{DELETED_GROUP_SUFFIX, GROUPS_DIR, names_of_groups};

/// What a group's files say of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupDescription {
    /// Its name.
    pub name: String,
    /// Whether a process hosts it now.
    pub is_hosted: bool,
    /// The id of that process, where its lock names it.
    pub host: Option<u32>,
    /// Whether it is a share group, which has no positions;
    /// [`describe_share_group`](crate::clients::describe_share_group) says where it stands.
    pub is_share: bool,
    /// The committed positions.
    pub committed: BTreeMap<TopicPartition, CommittedOffset>,
}

/// The group's own store, to look at: a share group's dead letters are there, where it was hosted by an attached
/// process.
///
/// # Errors
/// [`ConsumerError::UnknownGroup`]; [`ConsumerError::Group`] where its files cannot be read.
pub fn attach_group_store(store: &Store, name: &str) -> Result<Store> {
    store.check_open()?;
    let (storage, options) = (existing(store, name)?, Store::options().shared_clock(store.clock()));
    options.attach_shared(storage).map_err(ConsumerError::group(name))
}

/// The group's own store, to write: no process hosts the group meanwhile.
///
/// # Errors
/// [`ConsumerError::UnknownGroup`]; [`ConsumerError::GroupHosted`] while a process hosts it;
/// [`ConsumerError::Group`] where its files cannot be used.
pub fn open_group_store(store: &Store, name: &str) -> Result<Store> {
    store.check_open()?;
    let storage = existing(store, name)?;
    let failed = ConsumerError::group(name);
    let options = Store::options().set("edgelog.housekeeping", "tick").map_err(&failed)?;
    options.shared_clock(store.clock()).open_shared(storage).map_err(|error| match error {
        Error::DataDirLocked(source) => ConsumerError::GroupHosted { name: name.to_owned(), source },
        error => failed(error),
    })
}

/// The names of all groups that have a directory in the store, in order.
///
/// # Errors
/// [`ConsumerError::Store`] where the directory cannot be listed.
pub fn list_groups(store: &Store) -> Result<Vec<String>> {
    store.check_open()?;
    let mut names: Vec<_> = names_of_groups(&**store.storage())?.iter().filter_map(|dir| name_of(dir)).collect();
    names.sort_unstable();
    Ok(names)
}

/// What the files of a group say, also while another process hosts it. Writes nothing.
///
/// # Errors
/// [`ConsumerError::UnknownGroup`]; [`ConsumerError::Group`] where its files cannot be read.
pub fn describe_group(store: &Store, name: &str) -> Result<GroupDescription> {
    store.check_open()?;
    let storage = existing(store, name)?;
    let failed = ConsumerError::group(name);
    let attached = Store::options().shared_clock(store.clock()).attach_shared(storage.clone()).map_err(&failed)?;
    let committed = match attached.log(OFFSETS_TOPIC, 0) {
        Ok(log) => load(&log, name).map_err(&failed)?.committed,
        Err(Error::UnknownTopicOrPartition { .. }) => BTreeMap::new(),
        Err(error) => return Err(failed(error)),
    };
    let is_share = attached.topic(SHARE_STATE_TOPIC).is_ok();
    let is_hosted = storage.sees_flag("").unwrap_or(false);
    let host = if is_hosted { holder_of(&*storage) } else { None };
    Ok(GroupDescription { name: name.to_owned(), is_hosted, host, is_share, committed })
}

/// Deletes a group with all of its positions.
///
/// # Errors
/// [`ConsumerError::UnknownGroup`]; [`ConsumerError::GroupHosted`] while a process hosts it, this one or another;
/// [`ConsumerError::Group`] where its files cannot be removed.
///
/// # Durability
/// On return, the group is gone also after a power cut. A stop before leaves all of it, or none.
pub fn delete_group(store: &Store, name: &str) -> Result<()> {
    store.check_open()?;
    let (dir, storage) = (dir_of(name)?, existing(store, name)?);
    let failed = ConsumerError::group(name);
    let lock = storage.lock().map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => ConsumerError::GroupHosted { name: name.to_owned(), source },
        _ => failed(Error::storage("lock", LOCK_FILE)(source)),
    })?;
    let groups = store.storage().nested(GROUPS_DIR).map_err(|error| failed(opening(error)))?;
    let gone = format!("{dir}{DELETED_GROUP_SUFFIX}");
    if groups.metadata(&gone).is_ok() {
        remove_all(&*groups, &gone).map_err(&failed)?;
    }
    groups.rename(&dir, &gone).map_err(|error| failed(Error::storage("rename", &dir)(error)))?;
    groups.sync_dir("").map_err(|error| failed(Error::storage("sync directory", GROUPS_DIR)(error)))?;
    remove_all(&*groups, &gone).map_err(&failed)?;
    drop(lock);
    Ok(())
}

fn opening(error: std::io::Error) -> Error {
    Error::storage("open directory", GROUPS_DIR)(error)
}

/// The files of a group that there is.
fn existing(store: &Store, name: &str) -> Result<std::sync::Arc<dyn Storage>> {
    let path = format!("{GROUPS_DIR}/{}", dir_of(name)?);
    match store.storage().metadata(&path) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ConsumerError::UnknownGroup { name: name.to_owned() });
        }
        Err(error) => return Err(ConsumerError::group(name)(Error::storage("look at", &path)(error))),
    }
    store
        .storage()
        .nested(&path)
        .map_err(|error| ConsumerError::group(name)(Error::storage("open directory", &path)(error)))
}

/// The process that the lock's file names.
fn holder_of(storage: &dyn Storage) -> Option<u32> {
    let mut text = [0; 16];
    let read = storage.open(LOCK_FILE, Access::Read).ok()?.read_at(&mut text, 0).ok()?;
    let digits = text[..read].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}
