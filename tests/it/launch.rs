//! `ktrace COMMAND` and `ktruss COMMAND`.
