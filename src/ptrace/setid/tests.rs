//! Which programs give privilege.

use super::*;

#[test]
fn a_script_names_its_interpreter() {
    for (line, name) in [
        (&b"#!/bin/sh\n"[..], Some(&b"/bin/sh"[..])),
        (b"#! \t/usr/bin/env python3\nprint()", Some(b"/usr/bin/env")),
        (b"#!bin/sh", Some(b"bin/sh")),
        (b"#!\n/bin/sh", None),
        (b"#!  \n", None),
        (b"#!/bin/\0sh", Some(b"/bin/")),
        (b"\x7fELF", None),
        (b"", None),
    ] {
        assert_eq!(named(line).as_deref(), name, "{line:?}");
    }
}
