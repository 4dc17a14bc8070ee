//! What the tools do, one use case a file: each returns a serialisable outcome and prints nothing.

pub mod enroll;
