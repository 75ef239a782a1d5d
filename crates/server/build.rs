//! The page is part of the program: a file that comes or goes in it makes the program anew.

#![allow(clippy::print_stdout)]

fn main() {
    println!("cargo:rerun-if-changed=page");
}
