//! The floor under any tracer that works by eBPF (bpf/floor.bpf.c): what was called and what came of it into a
//! ring for each cpu, which a thread empties; and programs that do nothing.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, RingBuf};
use aya::programs::BtfTracePoint;
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::{Btf, Ebpf, EbpfLoader};

/// An ELF file is read in words.
#[repr(align(8))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("bpf/floor.bpf.o"));

/// Each program and its tracepoint.
const FLOOR: [(&str, &str); 3] =
    [("floor_enter", "sys_enter"), ("floor_exit", "sys_exit"), ("floor_fork", "sched_process_fork")];
const EMPTY: [(&str, &str); 2] = [("empty_enter", "sys_enter"), ("empty_exit", "sys_exit")];
const BEAT: Duration = Duration::from_millis(1);
/// `RINGS` of the programs, and the bytes of all together.
const RINGS: usize = 16;
const BYTES: usize = 16 << 20;
/// `BPF_MAP_TYPE_RINGBUF` of the kernel's uapi/linux/bpf.h.
const RINGBUF: u32 = 27;

/// Most bytes in the pipe, and of one write.
const PIPE: usize = 1 << 20;
const WRITE: usize = 64 << 10;

/// What becomes of a record that was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// Nothing.
    Dropped,
    /// It goes through a pipe to another thread, which looks at it once more: the least that gives it to anybody.
    Piped,
}

/// The loaded programs, attached only while they are measured.
pub(crate) struct Floor {
    ebpf: Ebpf,
    pids: HashMap<MapData, u32, u32>,
    lost: Array<MapData, u64>,
    /// Those in `rings`; none while a thread empties them.
    emptied: Vec<RingBuf<MapData>>,
    /// Where the programs find them.
    _rings: ArrayOfMaps<MapData, MapData>,
}

impl Floor {
    pub(crate) fn load() -> Floor {
        let btf = Btf::from_sys_fs().unwrap();
        let mut ebpf = EbpfLoader::new().btf(Some(&btf)).load(&OBJECT.0).unwrap();
        for (name, tracepoint) in FLOOR.iter().chain(&EMPTY) {
            program(&mut ebpf, name).load(tracepoint, &btf).unwrap();
        }
        let mut map = |name| ebpf.take_map(name).unwrap();
        let pids = HashMap::try_from(map("pids")).unwrap();
        let lost = Array::try_from(map("lost")).unwrap();
        let mut rings: ArrayOfMaps<MapData, MapData> = ArrayOfMaps::try_from(map("rings")).unwrap();
        let cpus = aya::util::nr_cpus().unwrap().next_power_of_two().min(RINGS);
        // A cpu with a higher number has the ring of another: all places are taken.
        let mut emptied = Vec::new();
        for first in 0..cpus {
            let params = aya_obj::Map::new_from_params(RINGBUF, 0, 0, (BYTES / cpus) as u32, 0);
            let ring = MapData::create(params, "floor", None).unwrap();
            for place in (first..RINGS).step_by(cpus) {
                rings.set(place as u32, &ring, 0).unwrap();
            }
            emptied.push(RingBuf::try_from(Map::RingBuf(ring)).unwrap());
        }
        Floor { ebpf, pids, lost, emptied, _rings: rings }
    }

    /// What `f` gives, while a thread empties the rings into which goes what this process and its children do; and how many
    /// records there were.
    pub(crate) fn watching<T>(&mut self, pid: i32, then: Then, f: impl FnOnce() -> T) -> (T, Records) {
        self.lost.set(0, 0, 0).unwrap();
        self.pids.insert(pid as u32, 1, 0).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let pipe = (then == Then::Piped).then(|| std::io::pipe().unwrap());
        let (piped, pipe) = pipe.map(|(from, to)| (read(from), to)).unzip();
        let reader = empty(std::mem::take(&mut self.emptied), Arc::clone(&over), pipe);
        let links = self.attach(&FLOOR);
        let result = f();
        self.detach(links);
        over.store(true, Ordering::SeqCst);
        let (rings, seen) = reader.join().unwrap();
        self.emptied = rings;
        if let Some(piped) = piped {
            assert_eq!(piped.join().unwrap(), seen, "what came through the pipe");
        }
        let pids: Vec<u32> = self.pids.keys().map_while(Result::ok).collect();
        for pid in pids {
            let _ = self.pids.remove(&pid);
        }
        (result, Records { seen, lost: self.lost.get(&0, 0).unwrap() })
    }

    /// What `f` gives, while programs that do nothing are on both tracepoints.
    pub(crate) fn doing_nothing<T>(&mut self, f: impl FnOnce() -> T) -> T {
        let links = self.attach(&EMPTY);
        let result = f();
        self.detach(links);
        result
    }

    fn attach(&mut self, programs: &[(&'static str, &str)]) -> Vec<(&'static str, BtfTracePointLinkId)> {
        programs.iter().map(|(name, _)| (*name, program(&mut self.ebpf, name).attach().unwrap())).collect()
    }

    fn detach(&mut self, links: Vec<(&'static str, BtfTracePointLinkId)>) {
        for (name, link) in links {
            program(&mut self.ebpf, name).detach(link).unwrap();
        }
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut BtfTracePoint {
    ebpf.program_mut(name).unwrap().try_into().unwrap()
}

/// What became of the records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Records {
    pub(crate) seen: u64,
    /// The rings had no room for so many.
    pub(crate) lost: u64,
}

/// Looks at every record, keeps none; gives the rings back, and how many there were.
fn empty(
    mut rings: Vec<RingBuf<MapData>>,
    over: Arc<AtomicBool>,
    mut pipe: Option<PipeWriter>,
) -> JoinHandle<(Vec<RingBuf<MapData>>, u64)> {
    if let Some(pipe) = &pipe {
        // Where it is not allowed the pipe is a small one.
        let _ = nix::fcntl::fcntl(pipe.as_fd(), nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIPE as i32));
    }
    thread::spawn(move || {
        let mut seen = 0;
        let mut gathered = Vec::with_capacity(WRITE);
        loop {
            let last = over.load(Ordering::SeqCst);
            for ring in &mut rings {
                while let Some(record) = ring.next() {
                    seen += 1;
                    let Some(pipe) = &mut pipe else { continue };
                    if gathered.len() + record.len() >= WRITE {
                        pipe.write_all(&gathered).unwrap();
                        gathered.clear();
                    }
                    // Its length goes before it.
                    gathered.push(record.len() as u8);
                    gathered.extend_from_slice(&record);
                }
            }
            if let Some(pipe) = &mut pipe {
                pipe.write_all(&gathered).unwrap();
                gathered.clear();
            }
            if last {
                return (rings, seen);
            }
            thread::sleep(BEAT);
        }
    })
}

/// Looks at every record that comes through a pipe; how many there were.
fn read(mut pipe: PipeReader) -> JoinHandle<u64> {
    thread::spawn(move || {
        let (mut seen, mut buf, mut kept) = (0, vec![0; PIPE], 0);
        while let Ok(n @ 1..) = pipe.read(&mut buf[kept..]) {
            let (mut at, end) = (0, kept + n);
            while let Some(len) = buf[at..end].first() {
                let next = at + 1 + usize::from(*len);
                if next > end {
                    break;
                }
                (at, seen) = (next, seen + 1);
            }
            buf.copy_within(at..end, 0);
            kept = end - at;
        }
        seen
    })
}
