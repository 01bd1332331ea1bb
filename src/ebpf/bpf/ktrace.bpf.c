/*
 * The kernel's side of the eBPF backend: turns what a traced process does into events in the rings of its sink.
 *
 * Loaded by src/ebpf/load.rs; the layouts shared with it are in src/ebpf/event.rs and src/ebpf/kernel.rs. The compiled
 * object is committed beside this file: `make` here makes it again.
 */
#include "prelude.h"

#include "syscall.h"
#include "process.h"
#include "psig.h"
#include "csw.h"
