//! The server as programs meet it: over HTTP, on a port of this machine.

#![allow(clippy::unwrap_used)]

mod client;
mod doors;
mod oip;
mod taught;
