//! i386: numbers, and the calls that take other arguments there, for the most part a 64-bit value in two halves.
//!
//! From `arch/x86/entry/syscalls/syscall_32.tbl`.

use super::Arg::{DirFd, Fd, Flags, Int, Path, Ptr, Size};
use super::Data::Buf;
use super::Dir::{Read, Write};
use super::{Syscall, call, moves};

/// Numbers from the first on, without a gap within a row.
pub(super) const NUMBERS: &[(usize, &str)] = &[
    (0, "restart_syscall exit fork read write open close waitpid creat link"),
    (10, "unlink execve chdir time mknod chmod lchown break oldstat lseek"),
    (20, "getpid mount umount setuid getuid stime ptrace alarm oldfstat pause"),
    (30, "utime stty gtty access nice ftime sync kill rename mkdir"),
    (40, "rmdir dup pipe times prof brk setgid getgid signal geteuid"),
    (50, "getegid acct umount2 lock ioctl fcntl mpx setpgid ulimit oldolduname"),
    (60, "umask chroot ustat dup2 getppid getpgrp setsid sigaction sgetmask ssetmask"),
    (70, "setreuid setregid sigsuspend sigpending sethostname setrlimit getrlimit getrusage gettimeofday"),
    (79, "settimeofday"),
    (80, "getgroups setgroups select symlink oldlstat readlink uselib swapon reboot readdir"),
    (90, "mmap munmap truncate ftruncate fchmod fchown getpriority setpriority profil statfs"),
    (100, "fstatfs ioperm socketcall syslog setitimer getitimer stat lstat fstat olduname"),
    (110, "iopl vhangup idle vm86old wait4 swapoff sysinfo ipc fsync sigreturn"),
    (120, "clone setdomainname uname modify_ldt adjtimex mprotect sigprocmask create_module init_module"),
    (129, "delete_module"),
    (130, "get_kernel_syms quotactl getpgid fchdir bdflush sysfs personality afs_syscall setfsuid setfsgid"),
    (140, "_llseek getdents _newselect flock msync readv writev getsid fdatasync _sysctl"),
    (150, "mlock munlock mlockall munlockall sched_setparam sched_getparam sched_setscheduler"),
    (157, "sched_getscheduler sched_yield sched_get_priority_max"),
    (
        160,
        "sched_get_priority_min sched_rr_get_interval nanosleep mremap setresuid getresuid vm86 query_module",
    ),
    (168, "poll nfsservctl"),
    (170, "setresgid getresgid prctl rt_sigreturn rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait"),
    (178, "rt_sigqueueinfo rt_sigsuspend"),
    (180, "pread64 pwrite64 chown getcwd capget capset sigaltstack sendfile getpmsg putpmsg"),
    (190, "vfork ugetrlimit mmap2 truncate64 ftruncate64 stat64 lstat64 fstat64 lchown32 getuid32"),
    (200, "getgid32 geteuid32 getegid32 setreuid32 setregid32 getgroups32 setgroups32 fchown32 setresuid32"),
    (209, "getresuid32"),
    (
        210,
        "setresgid32 getresgid32 chown32 setuid32 setgid32 setfsuid32 setfsgid32 pivot_root mincore madvise",
    ),
    (220, "getdents64 fcntl64"),
    (224, "gettid readahead setxattr lsetxattr fsetxattr getxattr"),
    (230, "lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr tkill"),
    (239, "sendfile64"),
    (240, "futex sched_setaffinity sched_getaffinity set_thread_area get_thread_area io_setup io_destroy"),
    (247, "io_getevents io_submit io_cancel"),
    (250, "fadvise64"),
    (252, "exit_group lookup_dcookie epoll_create epoll_ctl epoll_wait remap_file_pages set_tid_address"),
    (259, "timer_create"),
    (
        260,
        "timer_settime timer_gettime timer_getoverrun timer_delete clock_settime clock_gettime clock_getres",
    ),
    (267, "clock_nanosleep statfs64 fstatfs64"),
    (
        270,
        "tgkill utimes fadvise64_64 vserver mbind get_mempolicy set_mempolicy mq_open mq_unlink mq_timedsend",
    ),
    (280, "mq_timedreceive mq_notify mq_getsetattr kexec_load waitid"),
    (286, "add_key request_key keyctl ioprio_set"),
    (290, "ioprio_get inotify_init inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat mknodat"),
    (298, "fchownat futimesat"),
    (300, "fstatat64 unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll"),
    (310, "unshare set_robust_list get_robust_list splice sync_file_range tee vmsplice move_pages getcpu"),
    (319, "epoll_pwait"),
    (320, "utimensat signalfd timerfd_create eventfd fallocate timerfd_settime timerfd_gettime signalfd4"),
    (328, "eventfd2 epoll_create1"),
    (330, "dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open recvmmsg fanotify_init"),
    (339, "fanotify_mark"),
    (
        340,
        "prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg setns process_vm_readv",
    ),
    (348, "process_vm_writev kcmp"),
    (350, "finit_module sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create bpf execveat"),
    (359, "socket"),
    (360, "socketpair bind connect listen accept4 getsockopt setsockopt getsockname getpeername sendto"),
    (370, "sendmsg recvfrom recvmsg shutdown userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2"),
    (380, "pkey_mprotect pkey_alloc pkey_free statx arch_prctl io_pgetevents rseq"),
    (393, "semget semctl shmget shmctl shmat shmdt msgget"),
    (400, "msgsnd msgrcv msgctl clock_gettime64 clock_settime64 clock_adjtime64 clock_getres_time64"),
    (407, "clock_nanosleep_time64 timer_gettime64 timer_settime64"),
    (410, "timerfd_gettime64 timerfd_settime64 utimensat_time64 pselect6_time64 ppoll_time64"),
    (416, "io_pgetevents_time64 recvmmsg_time64 mq_timedsend_time64 mq_timedreceive_time64"),
    (420, "semtimedop_time64 rt_sigtimedwait_time64 futex_time64 sched_rr_get_interval_time64"),
];

/// Sorted by name; to be looked at before those that all ABIs share.
pub(super) static CALLS: &[Syscall] = &[
    call("fadvise64", &[Fd, Size, Size, Size, Int]),
    call("fadvise64_64", &[Fd, Size, Size, Size, Size, Int]),
    call("fallocate", &[Fd, Flags, Size, Size, Size, Size]),
    call("fanotify_mark", &[Fd, Flags, Flags, Flags, DirFd, Path]),
    call("ftruncate64", &[Fd, Size, Size]),
    call("lookup_dcookie", &[Size, Size, Ptr, Size]),
    call("mmap", &[Ptr]),
    moves("pread64", &[Fd, Ptr, Size, Size, Size], Read, Some(0), Buf { ptr: 1, len: 2 }),
    moves("pwrite64", &[Fd, Ptr, Size, Size, Size], Write, Some(0), Buf { ptr: 1, len: 2 }),
    call("readahead", &[Fd, Size, Size, Size]),
    call("select", &[Ptr]),
    call("sync_file_range", &[Fd, Size, Size, Size, Size, Flags]),
    call("truncate64", &[Path, Size, Size]),
];
