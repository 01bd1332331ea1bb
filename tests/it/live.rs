//! Real programs, traced through the files.
