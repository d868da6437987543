//! The simulated disk of `testkit`, for the tests of this library's own insides: they are another build of the library
//! than the one that `testkit` depends on, and so have a `Storage` of their own.

#[path = "../testkit/src/crash/disk.rs"]
#[allow(dead_code, unreachable_pub)] // other searches use the rest, from outside
pub(crate) mod disk;
