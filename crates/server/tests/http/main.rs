//! The server as programs meet it: over HTTP, on a port of this machine.

mod client;
mod doors;
mod oip;
mod taught;
