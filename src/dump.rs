//! Records to the text of kdump, column by column as NetBSD prints it.
