//! Where the rings are in the kernel: each slot has so many places in an array of maps.
//!
//! bpf(2) returns from a change only when no program can be using what was there, 7 to 15 milliseconds later, in which
//! nobody would read the rings: other threads wait for it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use aya::maps::{ArrayOfMaps, Map, MapData};

use super::load::chain;
use super::ring::{self, Ring};
use crate::error::{Error, Result};

/// Most rings of a slot: `RINGS` of bpf/maps.h.
pub(super) const RINGS: u32 = 16;
/// So many changes are waited for at once.
const TOGETHER: usize = 64;
/// Bytes of the ring that is where none is needed.
const LEAST: usize = 4096;

type Said<T> = std::result::Result<T, String>;

/// All places.
pub(super) struct Places {
    rings: ArrayOfMaps<MapData, MapData>,
    fd: OwnedFd,
    /// Takes the place of one that is taken out; nobody writes into it.
    none: Arc<OwnedFd>,
}

/// A change that is to be seen already; until it is done, programs that began before may not know of it.
#[derive(Debug)]
pub(super) struct Change(JoinHandle<Said<()>>);

impl Change {
    pub(super) fn is_done(&self) -> bool {
        self.0.is_finished()
    }
}

impl Places {
    /// Those of the map `rings`.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn of(rings: Map) -> Said<Places> {
        let Map::ArrayOfMaps(data) = &rings else { return Err("rings is not an array of maps".into()) };
        let fd = owned(data)?;
        let rings = ArrayOfMaps::try_from(rings).map_err(|error| chain(&error))?;
        let none = ring::create(LEAST).map_err(|error| error.to_string())?;
        Ok(Places { rings, fd, none: Arc::new(owned(&none)?) })
    }

    /// Puts rings into a slot; they are there when this returns.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub(super) fn put<'a>(&self, slot: u32, rings: impl Iterator<Item = &'a Ring>) -> Result<Change> {
        let rings: Vec<(u32, &MapData)> = (slot * RINGS..).zip(rings.map(Ring::map)).collect();
        let fds = rings.iter().map(|(place, ring)| Ok((*place, Arc::new(owned(ring)?))));
        let change = fds.collect::<Said<_>>().and_then(|fds| self.change(fds)).map_err(failed)?;
        for (place, ring) in rings {
            let ours = id(ring).map_err(failed)?;
            loop {
                let last = change.is_done();
                if self.rings.get(&place, 0).is_ok_and(|there| id(&there).as_ref() == Ok(&ours)) {
                    break;
                }
                if last {
                    let said = change.0.join().unwrap_or_else(|_| Err("a panic".into()));
                    return Err(failed(said.err().unwrap_or_else(|| "not in its place".into())));
                }
                thread::yield_now();
            }
        }
        Ok(change)
    }

    /// Takes the rings out of these slots, so many of each.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub(super) fn vacate(&self, slots: &[(u32, u32)]) -> Result<Change> {
        let places = slots.iter().flat_map(|(slot, count)| slot * RINGS..slot * RINGS + count);
        self.change(places.map(|place| (place, Arc::clone(&self.none))).collect()).map_err(failed)
    }

    fn change(&self, to: Vec<(u32, Arc<OwnedFd>)>) -> Said<Change> {
        let rings = self.fd.try_clone().map_err(|error| error.to_string())?;
        let change = move || to.chunks(TOGETHER).try_for_each(|some| set_all(&rings, some));
        let waiting = thread::Builder::new().name("ring".into()).spawn(change);
        waiting.map(Change).map_err(|error| error.to_string())
    }
}

fn owned(map: &MapData) -> Said<OwnedFd> {
    map.fd().as_fd().try_clone_to_owned().map_err(|error| error.to_string())
}

/// Each in a thread: the kernel lets them wait together.
fn set_all(rings: &OwnedFd, to: &[(u32, Arc<OwnedFd>)]) -> Said<()> {
    let Some(((place, ring), others)) = to.split_first() else { return Ok(()) };
    thread::scope(|scope| {
        let started = others.iter().map(|(place, ring)| scope.spawn(|| set(rings, *place, ring)));
        let started: Vec<_> = started.collect();
        let own = set(rings, *place, ring);
        let others = started.into_iter().map(|other| other.join().unwrap_or_else(|_| Err("a panic".into())));
        others.fold(own, Result::and)
    })
}

fn set(rings: &OwnedFd, place: u32, ring: &OwnedFd) -> Said<()> {
    let map = |fd: &OwnedFd| {
        let fd = fd.try_clone().map_err(|error| error.to_string())?;
        MapData::from_fd(fd).map_err(|error| chain(&error))
    };
    let rings = Map::ArrayOfMaps(map(rings)?);
    let mut rings: ArrayOfMaps<MapData, MapData> =
        ArrayOfMaps::try_from(rings).map_err(|error| chain(&error))?;
    rings.set(place, &map(ring)?, 0).map_err(|error| chain(&error))
}

fn id(map: &MapData) -> Said<u32> {
    map.info().map(|info| info.id()).map_err(|error| chain(&error))
}

fn failed(error: String) -> Error {
    Error::NoSpace { what: format!("rings in the kernel: {error}").into() }
}
