//! A lab for the length of a test.
use std::env;
use std::ops::Deref;
use std::thread;

use anyhow::Result;

use crate::lab::{Lab, LabOptions};

/// A lab that goes down when this goes out of scope, also by a panic. With `TURNPIKE_LAB_KEEP` set, a panic leaves it
/// up, to be looked at.
#[derive(Debug)]
pub struct ScopedLab(Option<Lab>);

impl ScopedLab {
    /// Brings a lab up; one of that name which an earlier, killed run left behind is removed first.
    pub fn up(options: &LabOptions) -> Result<Self> {
        Lab::remove(&options.name)?;
        Lab::up(options).map(|lab| Self(Some(lab)))
    }
}

impl Deref for ScopedLab {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for ScopedLab {
    fn drop(&mut self) {
        let Some(lab) = self.0.take() else { return };
        if thread::panicking() {
            lab.print_last_words();
            if env::var_os("TURNPIKE_LAB_KEEP").is_some() {
                eprintln!("lab `{}` is left up", lab.name());
                return;
            }
        }
        if let Err(error) = lab.down() {
            eprintln!("the lab did not go down: {error:#}");
        }
    }
}
