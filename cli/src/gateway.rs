//! `cocoon gateway`: a directory of enclaves and a blind relay, for a network that runs elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use cocoon_gateway::{Gateway, GatewayConfig, Limits};
use cocoon_settlement::{Address, ops};
use serde::{Deserialize, Serialize};

use crate::config;

/// A gateway.
#[derive(Debug, Args)]
pub struct GatewayArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the enclaves that their providers announce, and relay sealed requests to them; Ctrl-C or SIGTERM stops it
    Serve {
        /// The gateway's configuration, TOML; docs/guides/gateway.md explains each key
        #[arg(long)]
        config: PathBuf,
    },
}

/// A gateway's configuration, in TOML. Paths are taken from the file's folder.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayFile {
    /// Where it listens.
    pub listen: SocketAddr,
    /// toncenter's endpoint of the chain.
    pub chain: String,
    /// TON network.
    pub network: i32,
    /// File with the key of that API; `COCOON_TONCENTER_KEY` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_key_file: Option<PathBuf>,
    /// The Registry whose providers are listed.
    pub registry: Address,
    /// What is borne of whoever is slow or many.
    #[serde(default)]
    pub limits: LimitsEntry,
}

/// Limits; what is absent is the default of `cocoon_gateway::Limits`. Times in seconds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsEntry {
    /// Connections at once.
    pub connections: Option<usize>,
    /// How long the head of a request may take, and a connection may stay open without one.
    pub head: Option<u64>,
    /// How long the body of a request may take.
    pub body: Option<u64>,
    /// How long a host may be silent.
    pub silence: Option<u64>,
    /// How long answers under way are waited for at the end.
    pub grace: Option<u64>,
}

impl LimitsEntry {
    fn limits(&self) -> Result<Limits> {
        let default = Limits::default();
        let seconds = |key: &str, given: Option<u64>, default: Duration| {
            let given = given.map_or(default, Duration::from_secs);
            ensure!(!given.is_zero(), "`limits.{key}` is 0: nothing would be served");
            Ok(given)
        };
        let connections = self.connections.unwrap_or(default.connections);
        ensure!(
            (1..=1_000_000).contains(&connections),
            "`limits.connections` is {connections}: write 1 to 1000000, as many as the process may have files open"
        );
        Ok(Limits {
            connections,
            head: seconds("head", self.head, default.head)?,
            body: seconds("body", self.body, default.body)?,
            silence: seconds("silence", self.silence, default.silence)?,
            grace: self.grace.map_or(default.grace, Duration::from_secs),
        })
    }
}

/// Runs the command.
///
/// # Errors
/// The configuration or the address cannot be used, or the chain knows no such Registry; the message says why.
pub async fn run(args: GatewayArgs) -> Result<ExitCode> {
    let Command::Serve { config: path } = args.command;
    let (file, base) = config::read::<GatewayFile>(&path, "gateway")?;
    let limits = file.limits.limits()?;
    let chain = config::chain(&file.chain, file.network, file.chain_key_file.as_deref(), &base)?;
    chain.check_network().await.context("`chain` and `network`")?;
    ops::registry_params(chain.as_ref(), &file.registry).await.context("`registry`")?;
    let listener = tokio::net::TcpListener::bind(file.listen)
        .await
        .with_context(|| format!("cannot listen on {}: name another address as `listen`", file.listen))?;
    println!("gateway at http://{}", listener.local_addr()?);
    let gateway = Gateway::new(GatewayConfig { limits, ..GatewayConfig::new(chain, file.registry) });
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let told = tokio::spawn(async move {
        let waited = config::interrupted().await;
        println!(
            "stopping: answers under way are waited for, {} s at most; again stops at once",
            limits.grace.as_secs()
        );
        let _ = stop.send(());
        waited
    });
    let served = cocoon_gateway::serve(listener, gateway.router(), limits, async move {
        let _ = stopped.await;
    });
    tokio::select! {
        () = served => {}
        again = async {
            told.await??;
            config::interrupted().await
        } => again?,
    }
    println!("stopped");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_would_serve_nobody_are_refused_by_name() {
        for (text, expected) in
            [("connections = 0", "limits.connections"), ("body = 0", "limits.body"), ("silence = 0", "limits.silence")]
        {
            let entry: LimitsEntry = toml::from_str(text).unwrap();
            assert!(entry.limits().unwrap_err().to_string().contains(expected), "{text}");
        }
        assert_eq!(LimitsEntry::default().limits().unwrap(), Limits::default());
        assert!(toml::from_str::<LimitsEntry>("connection = 1").is_err(), "an unknown key");
    }
}
