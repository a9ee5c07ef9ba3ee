//! The `cocoon` command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use cocoon_cli::money::{chain, channel, host, registry, wallet};
use cocoon_cli::{audit, chat, demo, endorsements, gateway, measure, node, policy, proxy, up, verify};

#[derive(Parser)]
#[command(version, about = "Private AI inference that nobody has to be trusted for")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the main job from nothing, then six attacks that must fail
    Demo(demo::DemoArgs),
    /// Run everything on this machine, with OpenAI's API at 127.0.0.1:8787
    Up(up::UpArgs),
    /// Ask a question through the local proxy
    Chat(chat::ChatArgs),
    /// Serve OpenAI's API on loopback for a network that runs elsewhere
    Proxy(proxy::ProxyArgs),
    /// A TON wallet: make, import, look, send, account for it
    Wallet(wallet::WalletArgs),
    /// A client's deposit for one provider: open, look, top up, close
    Channel(channel::ChannelArgs),
    /// A GPU provider's machine, guests and contract: doctor, launch, register, stake, serve, claim
    Host(host::HostArgs),
    /// A verifier node: appraise bundles, log them, sign verdicts, witness other nodes' logs
    Node(node::NodeArgs),
    /// A directory of enclaves and blind relay of sealed requests to them
    Gateway(gateway::GatewayArgs),
    /// What everybody trusts, and how governance changes it
    Registry(registry::RegistryArgs),
    /// A TON for development on this machine, with play money
    Chain(chain::ChainCommand),
    /// Check evidence, offline; the exit code is the outcome: 0 accepted, 10 refused, 20 invalid, 30 malformed
    Verify(verify::VerifyArgs),
    /// Check what verifier nodes logged and contracts paid, from the first leaf on; exit codes as those of verify
    Audit(audit::AuditArgs),
    /// Compute what a CPU measures when a guest is launched, from its files; sign it; explain a quote that differs
    Measure(measure::MeasureArgs),
    /// Fetch, list and hand out what vendors say about platforms
    Endorsements(endorsements::EndorsementsArgs),
    /// Say what an appraisal policy accepts
    Policy(policy::PolicyArgs),
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("COCOON_LOG").unwrap_or_else(|_| "error,cocoon=warn".into()),
        )
        .init();
    let result = match Args::parse().command {
        Command::Verify(args) => verify::run(args),
        Command::Measure(args) => measure::run(args),
        Command::Policy(args) => policy::run(args).map(|()| ExitCode::SUCCESS),
        Command::Endorsements(args) => run(async { endorsements::run(args).await.map(|()| ExitCode::SUCCESS) }),
        Command::Audit(args) => run(audit::run(args)),
        Command::Demo(args) => run(demo::run(args)),
        Command::Up(args) => run(up::run(args)),
        Command::Wallet(args) => run(async { wallet::run(args).await.map(|()| ExitCode::SUCCESS) }),
        Command::Channel(args) => run(async { channel::run(args).await.map(|()| ExitCode::SUCCESS) }),
        Command::Host(args) => run(host::run(args)),
        Command::Node(args) => run(node::run(args)),
        Command::Gateway(args) => run(gateway::run(args)),
        Command::Registry(args) => run(async { registry::run(args).await.map(|()| ExitCode::SUCCESS) }),
        Command::Chain(args) => run(async { chain::run(args).await.map(|()| ExitCode::SUCCESS) }),
        Command::Chat(args) => run(async { chat::run(args).await.map(|()| ExitCode::SUCCESS) }),
        Command::Proxy(args) => run(proxy::run(args)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("cocoon: {}", cocoon_cli::ui::error(&error));
        ExitCode::FAILURE
    })
}

fn run(job: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(job)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands for something of the reader's own.
    const PLACEHOLDERS: [(&str, &str); 7] = [
        ("REGISTRY", "0:0000000000000000000000000000000000000000000000000000000000000000"),
        ("PROVIDER", "0:0000000000000000000000000000000000000000000000000000000000000001"),
        ("KEY", "0101010101010101010101010101010101010101010101010101010101010101"),
        ("EVIDENCE_ID", "0202020202020202020202020202020202020202020202020202020202020202"),
        ("SECONDS", "3600"),
        ("UNIX", "1790000000"),
        ("TON", "0.1"),
    ];

    /// On the day when it counts nobody has time to find out what a guide meant.
    #[test]
    fn every_command_of_the_guide_to_an_incident_can_be_typed_as_it_stands() {
        let guide = include_str!("../../docs/guides/incident.md");
        let mut commands = Vec::new();
        for (n, text) in guide.split("```").enumerate() {
            if n % 2 == 1 {
                commands.extend(text.lines().filter(|line| line.starts_with("cocoon ")));
            } else {
                let spans = text.split('`').skip(1).step_by(2);
                commands.extend(spans.filter(|span| span.starts_with("cocoon ")));
            }
        }
        assert!(commands.len() >= 10, "{commands:?}");
        for command in commands {
            let words = command
                .split_whitespace()
                .map(|word| PLACEHOLDERS.iter().find(|(name, _)| *name == word).map_or(word, |(_, value)| *value));
            if let Err(error) = Args::try_parse_from(words) {
                panic!("`{command}` cannot be typed: {error}");
            }
        }
    }
}
