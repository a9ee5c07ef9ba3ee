//! Roles as their operators run them: `cocoon` in processes of their own, with key files and configurations in folders.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cocoon_attestation::ReferenceValues;
use cocoon_attestation::dev::DevPlatform;
use cocoon_protocol::identity::SigningKey;
use cocoon_settlement::{Address, NetworkId};
use serde_json::Value;

/// Seed of who signs reference values.
pub const RELEASE: [u8; 32] = [71; 32];

/// The program.
pub fn cocoon() -> Command {
    Command::new(crate::cocoon_binary())
}

/// A passphrase file in a folder.
///
/// # Panics
/// It cannot be written.
pub fn passphrase(folder: &Path) -> PathBuf {
    let path = folder.join("passphrase");
    std::fs::write(&path, "correct horse battery staple\n").expect("a passphrase file");
    path
}

/// The public key that is believed about reference values, hexadecimal.
///
/// # Panics
/// Never.
pub fn release_key() -> String {
    hex::encode(SigningKey::from_seed(&RELEASE).expect("a key").public())
}

/// A policy that takes a development platform, and more lines of it.
pub fn policy(platform: &DevPlatform, more: &str) -> String {
    format!("roots = [\"{}\"]\n{more}", hex::encode(platform.tdx_root_der()))
}

/// A process whose output is read as it comes. Killed when dropped.
pub struct Role {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Role {
    /// Starts it.
    ///
    /// # Panics
    /// It cannot be run.
    pub fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
        let said = Arc::new(Mutex::new(Vec::new()));
        let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        keep(out, said.clone());
        keep(err, said.clone());
        Self { child, said }
    }

    /// Everything that it has said.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line with this text.
    ///
    /// # Panics
    /// It says nothing like it in time; what it said is in the message.
    pub fn wait_for(&self, text: &str) -> String {
        let until = Instant::now() + Duration::from_secs(120);
        loop {
            let said = self.said();
            if let Some(line) = said.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            assert!(Instant::now() < until, "no {text:?} in {said:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The URL at the end of the line with this text.
    ///
    /// # Panics
    /// There is no such line in time.
    pub fn url(&self, text: &str) -> String {
        let line = self.wait_for(text);
        let url = line.split_whitespace().rev().find(|word| word.starts_with("http://")).expect("a URL");
        url.trim_end_matches([';', '.']).to_owned()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// It runs no more.
    pub fn signal(&self, name: &str) {
        signal(name, self.pid());
    }

    /// Kills it without warning, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It does not end in time.
    pub fn end(&mut self) -> ExitStatus {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < until, "it does not end: {:#?}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.kill();
    }
}

fn keep(stream: impl std::io::Read + Send + 'static, said: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            said.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
}

/// Sends a process a signal.
///
/// # Panics
/// It is not there.
pub fn signal(name: &str, pid: u32) {
    let status = Command::new("kill").args([name, &pid.to_string()]).status().expect("kill");
    assert!(status.success(), "{name} {pid}");
}

/// A node that has keys and an address, and no configuration yet.
pub struct NodePlan {
    folder: PathBuf,
    name: String,
    said: Value,
    address: SocketAddr,
}

impl NodePlan {
    /// So many of them, each in a folder of its own.
    ///
    /// # Panics
    /// Their keys cannot be made, or are not the same when they are asked for again.
    pub fn several(folder: &Path, count: usize) -> Vec<Self> {
        let plan = |index| {
            let folder = folder.join(format!("node-{index}"));
            std::fs::create_dir(&folder).expect("a folder");
            let name = format!("node-{index}.example/log");
            let said = keys(&folder, &name);
            assert_eq!(said, keys(&folder, &name), "the same keys again");
            let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            Self { folder, name, said, address: address.expect("a free port") }
        };
        (0..count).map(plan).collect()
    }

    /// Its verdict key, for the Registry.
    ///
    /// # Panics
    /// `cocoon node keys` said none.
    pub fn verdict_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        hex::decode_to_slice(self.said["verdict"].as_str().expect("a key"), &mut key).expect("a key");
        key
    }

    /// Writes their configurations, each with the others as its witnesses, and starts them.
    ///
    /// # Panics
    /// A file cannot be written, or a process not be run.
    pub fn start(
        plans: Vec<Self>,
        chain: &str,
        registry: &Address,
        references: &ReferenceValues,
        policy: &str,
    ) -> Vec<Node> {
        Self::start_with(plans, chain, registry, references, policy, "")
    }

    /// The same, with more tables in each configuration.
    ///
    /// # Panics
    /// A file cannot be written, or a process not be run.
    pub fn start_with(
        plans: Vec<Self>,
        chain: &str,
        registry: &Address,
        references: &ReferenceValues,
        policy: &str,
        more: &str,
    ) -> Vec<Node> {
        let (signed, signer) = (references.to_signed(&RELEASE).expect("signed"), release_key());
        let mut nodes = Vec::new();
        for (index, plan) in plans.iter().enumerate() {
            std::fs::write(plan.folder.join("references.toml"), &signed).expect("written");
            std::fs::write(plan.folder.join("policy.toml"), policy).expect("written");
            let mut config = format!(
                "name = \"{}\"\nindex = {index}\nlisten = \"{}\"\ndata = \"data\"\nkey = \"node.key\"\nchain = \"{chain}\"\n\
                 network = {}\nregistry = \"{registry}\"\npolicy = \"policy.toml\"\nreferences = \"references.toml\"\n\
                 reference_signers = [\"{signer}\"]\n",
                plan.name,
                plan.address,
                NetworkId::LOCAL.0
            );
            for other in plans.iter().filter(|other| other.address != plan.address) {
                let (log, witness) = (text(&other.said, "log"), text(&other.said, "witness"));
                let address = other.address;
                config += &format!("[[peers]]\nurl = \"http://{address}\"\nlog = \"{log}\"\nwitness = \"{witness}\"\n");
            }
            config += more;
            std::fs::write(plan.folder.join("node.toml"), config).expect("written");
            let mut node = Node {
                folder: plan.folder.clone(),
                process: None,
                url: format!("http://{}", plan.address),
                log: text(&plan.said, "log"),
                witness: text(&plan.said, "witness"),
            };
            node.start();
            nodes.push(node);
        }
        nodes
    }
}

fn text(said: &Value, key: &str) -> String {
    said[key].as_str().expect("a key").to_owned()
}

/// What `cocoon node keys` says.
fn keys(folder: &Path, name: &str) -> Value {
    let out = cocoon()
        .args(["node", "keys", "--json", "--name", name, "--key"])
        .arg(folder.join("node.key"))
        .arg("--passphrase-file")
        .arg(passphrase(folder))
        .output()
        .expect("runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("JSON")
}

/// A verifier node. Killed when dropped.
pub struct Node {
    /// Its configuration, `node.toml`, and its data.
    pub folder: PathBuf,
    process: Option<Role>,
    /// Where it listens.
    pub url: String,
    /// Verifier key of its checkpoints.
    pub log: String,
    /// Verifier key of its cosignatures.
    pub witness: String,
}

impl Node {
    /// Starts it.
    pub fn start(&mut self) {
        let mut command = cocoon();
        command.args(["node", "serve", "--config"]).arg(self.folder.join("node.toml"));
        self.process = Some(Role::start(command.arg("--passphrase-file").arg(self.folder.join("passphrase"))));
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process = None;
    }
}
