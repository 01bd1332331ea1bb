/* What is needed of the kernel's structures; where each member really is, CO-RE finds out when the object is loaded. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct thread_info { u32 status; };
typedef struct { unsigned long sig[1]; } sigset_t;
typedef struct { int counter; } atomic_t;
typedef struct { unsigned int val; } kuid_t;
struct cred { kuid_t euid; };
/* Since 6.9; what a pidfd has as its inode number. */
struct pid { u64 ino; };
struct signal_struct { atomic_t live; int group_exit_code; unsigned int flags; };
struct mm_struct { unsigned long arg_start, arg_end, env_start, env_end; };
/* Since 6.18 a structure, a long before that. */
typedef struct { unsigned long __mm_flags[1]; } mm_flags_t;
struct mm_struct___bitmap { mm_flags_t flags; };
struct mm_struct___word { unsigned long flags; };
struct file { void *private_data; unsigned int f_mode; };
struct fdtable { unsigned int max_fds; struct file **fd; };
struct files_struct { struct fdtable *fdt; };
struct sock_common { unsigned short skc_family; };
struct sock { struct sock_common __sk_common; u16 sk_type; };
struct socket { struct sock *sk; };
struct seccomp { int mode; };
struct task_struct {
	struct seccomp seccomp;
	struct thread_info thread_info;
	unsigned int __state;
	int pid, tgid;
	struct pid *thread_pid;
	char comm[16];
	struct mm_struct *mm;
	struct cred *cred;
	struct files_struct *files;
	struct signal_struct *signal;
	sigset_t blocked, saved_sigmask;
	unsigned int restore_sigmask : 1, in_execve : 1;
};
struct pt_regs {
	unsigned long bp, bx, r10, r9, r8, ax, cx, dx, si, di, orig_ax;
};
struct linux_binprm { unsigned int secureexec : 1; const char *filename; };
struct kernel_siginfo { int si_signo; };
struct sigaction { void *sa_handler; };
struct k_sigaction { struct sigaction sa; };

#pragma clang attribute pop
