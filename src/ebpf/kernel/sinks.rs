//! A sink's slot: its rings, and what has become of it.

use super::*;

impl Maps {
    /// Opens a slot with these rings.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub(in crate::ebpf) fn open<'a>(
        &mut self,
        slot: u32,
        rings: impl ExactSizeIterator<Item = &'a Ring>,
        policy: Policy,
    ) -> Result<Change> {
        let at = slot as usize * SINK;
        // Whoever has the number of the last sink there has nothing to write to.
        let id = &mut self.ids[slot as usize];
        *id = id.wrapping_add(SLOTS);
        self.sinks.half(at + 48).store(*id, Ordering::SeqCst);
        for at in [at, at + 8, at + 24] {
            self.sinks.word(at).store(0, Ordering::SeqCst);
        }
        for at in [at + 16, at + 52, at + 56] {
            self.sinks.half(at).store(0, Ordering::SeqCst);
        }
        self.set_policy(slot, policy);
        self.put(slot, rings)
    }

    /// Puts rings into a slot: programs that begin from now on write into these, and when the change is done none writes
    /// into what was there.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub(in crate::ebpf) fn put<'a>(
        &mut self,
        slot: u32,
        rings: impl ExactSizeIterator<Item = &'a Ring>,
    ) -> Result<Change> {
        let (mask, at) = (rings.len() as u32 - 1, slot as usize * SINK + 24);
        let turn = self.sinks.half(at + 4);
        turn.fetch_add(1, Ordering::SeqCst);
        let change = self.rings.put(slot, rings)?;
        self.sinks.half(at).store(mask, Ordering::SeqCst);
        turn.fetch_add(1, Ordering::SeqCst);
        Ok(change)
    }

    /// Takes the rings out of these slots, which are closed, so many of each: when the change is done the kernel has let go
    /// of them.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub(in crate::ebpf) fn vacate(&self, slots: &[(u32, u32)]) -> Result<Change> {
        self.rings.vacate(slots)
    }

    /// What a loss means.
    pub(in crate::ebpf) fn set_policy(&self, slot: u32, policy: Policy) {
        let stop = u32::from(policy == Policy::Stop);
        self.sinks.half(slot as usize * SINK + 20).store(stop, Ordering::SeqCst);
    }

    /// Nothing more is written into this slot.
    pub(in crate::ebpf) fn close(&self, slot: u32) {
        self.sinks.half(slot as usize * SINK + 16).store(libc::EPIPE as u32, Ordering::SeqCst);
    }

    /// True where a loss has ended it.
    pub(in crate::ebpf) fn is_dead(&self, slot: u32) -> bool {
        self.sinks.half(slot as usize * SINK + 16).load(Ordering::SeqCst) == libc::EAGAIN as u32
    }

    /// Records and bytes lost that no event has told of; they are told with this.
    pub(in crate::ebpf) fn take_lost(&self, slot: u32) -> (u64, u64) {
        let at = slot as usize * SINK;
        match self.sinks.word(at).load(Ordering::SeqCst) {
            0 => (0, 0),
            _ => (
                self.sinks.word(at).swap(0, Ordering::SeqCst),
                self.sinks.word(at + 8).swap(0, Ordering::SeqCst),
            ),
        }
    }

    /// Children of this slot's processes for which there was no room. They stay so many until that is told.
    pub(in crate::ebpf) fn untraced(&self, slot: u32) -> u32 {
        self.sinks.half(slot as usize * SINK + 56).load(Ordering::SeqCst)
    }

    /// It was told of so many.
    pub(in crate::ebpf) fn told_untraced(&self, slot: u32, told: u32) {
        self.sinks.half(slot as usize * SINK + 56).fetch_sub(told, Ordering::SeqCst);
    }
}
