//! Linux's errno names and messages, and the kernel's restart codes, which are none (errno(3)).
