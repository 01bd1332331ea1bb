//! A sink and its rings in the kernel. Each cpu has one of them, as far as their number goes, so that threads on different
//! cpus do not wait for each other; together they have the size that one would have.

use std::sync::Arc;
use std::time::Instant;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::unistd::{SysconfVar, sysconf};

use super::kernel::Maps;
use super::merge::{self, Lane, Source};
use super::near::Near;
use super::observe::Watched;
use super::places::{Change, RINGS};
use super::ring::Ring;
use crate::error::{Error, Result};
use crate::sink::{Room, Sink};

/// Least and most bytes of the rings of a sink. Their memory is all there from the start, so where there are many they begin
/// small and grow when they fill.
const LEAST: usize = 128 << 10;
const MOST: usize = 16 << 20;
/// Of those that fill at least so much: some milliseconds of a busy thread.
const FULL_LEAST: usize = 512 << 10;
/// Least bytes of one of several.
const EACH: usize = 128 << 10;
/// Which part of a small ring must be found full for large ones.
const GROW_AT: usize = 8;

/// A sink and its rings.
pub(super) struct Slot {
    pub(super) sink: Arc<Sink>,
    pub(super) watched: Near<Watched>,
    /// Since when nobody writes to it.
    pub(super) empty: Option<Instant>,
    lanes: Vec<Lane<Ring>>,
    /// What the rings take.
    rooms: Vec<Room>,
    /// The first so many lanes are those of rings that others have taken the place of; theirs is the first room.
    former: usize,
    /// Until it is done, programs may write into the former rings.
    change: Option<Change>,
    /// The rings are as large as they will be.
    grown: bool,
}

impl Slot {
    /// A slot with new rings, which the kernel's side knows.
    ///
    /// # Errors
    /// ENOSPC where there is no memory, what else bpf(2) says.
    pub(super) fn open(at: usize, sink: &Arc<Sink>, maps: &mut Maps, epoll: &Epoll) -> Result<Slot> {
        let full = sink.has_plenty().then(|| rings(sink, epoll, full_size(sink)));
        // There may be plenty, and not for this owner.
        let grown = matches!(full, Some(Ok(_)));
        let (lanes, room) = full.and_then(Result::ok).map_or_else(|| rings(sink, epoll, LEAST), Ok)?;
        let change = maps.open(at as u32, lanes.iter().map(|lane| &lane.source), sink.policy())?;
        let (sink, rooms, change) = (Arc::clone(sink), vec![room], Some(change));
        Ok(Slot { sink, watched: Near::default(), empty: None, lanes, rooms, former: 0, change, grown })
    }

    /// Puts large rings in the place of a small one that fills, and drops that when it has been read.
    pub(super) fn tend(&mut self, at: usize, maps: &mut Maps, epoll: &Epoll) {
        if self.change.as_ref().is_some_and(Change::is_done) {
            self.change = None;
        }
        if self.former > 0 && self.change.is_none() && self.lanes[..self.former].iter().all(is_read) {
            self.lanes.drain(..self.former).for_each(|lane| forget(epoll, &lane));
            self.rooms.remove(0);
            self.former = 0;
        }
        if !self.grown && self.unread() > (LEAST / GROW_AT) as u64 {
            self.grow(at, maps, epoll);
        }
    }

    fn grow(&mut self, at: usize, maps: &mut Maps, epoll: &Epoll) {
        self.grown = true;
        // Where there is no memory for it, the small one goes on.
        let Ok((lanes, room)) = rings(&self.sink, epoll, full_size(&self.sink)) else { return };
        let former = self.lanes.len();
        self.lanes.extend(lanes);
        self.rooms.push(room);
        match maps.put(at as u32, self.lanes[former..].iter().map(|lane| &lane.source)) {
            Ok(change) => (self.former, self.change) = (former, Some(change)),
            // Some may be in their place: all are read.
            Err(error) => log::warn!("eBPF: {error}"),
        }
    }

    /// Gives up to `most` of the events that are there now to `each`, in their order; tells how many there were.
    pub(super) fn read(
        &mut self,
        most: usize,
        mut each: impl FnMut(&Arc<Sink>, &mut Near<Watched>, &[u8]),
    ) -> usize {
        let Slot { sink, watched, lanes, .. } = self;
        merge::merge(lanes, most, |bytes| each(sink, watched, bytes))
    }

    /// As for [`Ring::hush`], all of them.
    pub(super) fn hush(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.source.hush());
    }

    /// As for [`Ring::listen`]: false where one of them has something.
    pub(super) fn listen(&mut self) -> bool {
        let mut empty = true;
        for lane in &mut self.lanes {
            empty &= lane.source.listen();
        }
        empty
    }

    fn unread(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.source.produced() - lane.source.at()).sum()
    }

    /// Where its rings will be written next: what comes before has begun already.
    pub(super) fn produced(&self) -> Vec<u64> {
        self.lanes.iter().map(|lane| lane.source.produced()).collect()
    }

    /// True where all before these places has been read.
    pub(super) fn has_read(&self, places: &[u64]) -> bool {
        self.lanes.iter().zip(places).all(|(lane, place)| lane.source.at() >= *place)
    }

    /// True where all has been read.
    pub(super) fn is_read(&self) -> bool {
        self.lanes.iter().all(is_read)
    }

    /// The rings and their memory, once they are all in their places, and nobody writes into them any more.
    pub(super) fn leave(&mut self, epoll: &Epoll) -> Option<Rings> {
        if self.change.as_ref().is_some_and(|change| !change.is_done()) {
            return None;
        }
        let lanes = std::mem::take(&mut self.lanes);
        lanes.iter().for_each(|lane| forget(epoll, lane));
        Some(Rings { lanes, rooms: std::mem::take(&mut self.rooms) })
    }
}

/// Rings that are not read any more, and their memory.
#[derive(Debug)]
pub(super) struct Rings {
    lanes: Vec<Lane<Ring>>,
    #[expect(dead_code, reason = "it is given back with them")]
    rooms: Vec<Room>,
}

impl Rings {
    pub(super) fn count(&self) -> u32 {
        (self.lanes.len() as u32).min(RINGS)
    }
}

fn is_read(lane: &Lane<Ring>) -> bool {
    lane.source.at() >= lane.source.produced()
}

/// Bytes of the rings of a sink that fill.
fn full_size(sink: &Sink) -> usize {
    sink.size().next_power_of_two().clamp(FULL_LEAST, MOST)
}

/// Rings for a sink, which count against the memory limit: of `size` bytes together.
fn rings(sink: &Sink, epoll: &Epoll, size: usize) -> Result<(Vec<Lane<Ring>>, Room)> {
    let room = sink.room(size)?;
    let cpus = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten().unwrap_or(1).max(1) as usize;
    let count = cpus.next_power_of_two().min(RINGS as usize).min(size / EACH).max(1);
    let rings = (0..count).map(|_| {
        let ring = Ring::new(size / count)?;
        let failed = |errno| Error::sys("epoll_ctl", 0, errno);
        epoll.add(ring.fd(), EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(failed)?;
        Ok(Lane::new(ring))
    });
    Ok((rings.collect::<Result<_>>()?, room))
}

fn forget(epoll: &Epoll, lane: &Lane<Ring>) {
    let _ = epoll.delete(lane.source.fd());
}
