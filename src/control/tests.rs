//! All policy, with a backend that watches nothing.
