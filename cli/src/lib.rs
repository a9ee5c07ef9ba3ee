//! The parts of the `cocoon` command that tests use too: the one-process network, the demo and what a person sees of them.

pub mod audit;
pub mod chat;
pub mod config;
pub mod data;
pub mod demo;
pub mod endorsements;
pub mod gateway;
pub mod host_doctor;
pub mod host_launch;
pub mod host_serve;
pub mod measure;
pub mod money;
pub mod network;
pub mod node;
pub mod paths;
pub mod policy;
pub mod provider;
pub mod proxy;
pub mod staple;
pub mod tap;
pub mod ui;
pub mod up;
pub mod verify;
