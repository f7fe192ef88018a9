//! `portcullis key new`: a key for a `[consumer.NAME]`, and the hash that the configuration has of it.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::policy::KeyHash;

/// Prints a new key and its hash.
pub(super) fn new() -> Result<(), String> {
    let mut bits = [0; 32];
    SystemRandom::new().fill(&mut bits).map_err(|_| "error: the system gives no random numbers".to_owned())?;
    // The beginning tells people, and what looks for leaked secrets, what it is.
    let key = format!("pcl_{}", URL_SAFE_NO_PAD.encode(bits));
    println!("key    = \"{key}\"\nsha256 = \"{}\"", KeyHash::of(key.as_bytes()));
    Ok(())
}
