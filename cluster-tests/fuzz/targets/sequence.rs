//! Sequences of what members that lie may say and do, as steps that mean something.
#![no_main]

use fuzz::script::{Step, play};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|steps: Vec<Step>| play(&steps));
