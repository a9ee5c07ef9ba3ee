//! `cocoon demo`: the main job with real checks, then six attacks that must fail.

pub mod search;
