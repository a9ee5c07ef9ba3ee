//! A TON network over toncenter's HTTP API, version 2 or 3 (both also served by the local chain, see [`crate::local::rpc`]).
//!
//! The API's answers are believed: nothing here checks proofs. Use a server that you trust, best your own. What is checked: that it is of
//! the network that was named, that its newest block is not old, and that it does not go back.

mod http;
pub(crate) mod json;
mod retry_after;
mod timer;
mod trace;
mod v3;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cocoon_attestation::types::{Digest, UnixTime};
use serde_json::{Value, json};
use tycho_types::cell::Cell;

pub use self::http::BackOff;
pub use self::timer::{SystemTimer, Timer};

use self::http::{Failure, Http};
use self::json::{EXIT_CODE_MARK, EXIT_NOT_INITIALIZED, malformed, read_boc, read_hash, read_stack, write_arguments};
use self::trace::Sent;
use crate::address::{Address, NetworkId};
use crate::amount::Nanoton;
use crate::chain::{AccountState, BlockRef, Chain, GetResult, StackValue, Trace, TxSummary};
use crate::error::Error;
use crate::local::{Clock, SystemClock};

/// Transactions that the API gives at once.
const PAGE: usize = 100;

/// Which of toncenter's APIs an endpoint speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiVersion {
    /// JSON-RPC over lite servers, `.../api/v2/jsonRPC`.
    V2,
    /// REST over an index, `.../api/v3`.
    V3,
}

/// How to use an endpoint.
#[derive(Clone)]
pub struct Options {
    /// Goes into `X-API-Key`; only over HTTPS or to this machine.
    pub key: Option<String>,
    /// Which API; by default what the URL's path says, and v2 where it does not.
    pub api: Option<ApiVersion>,
    /// Least time between two requests; by default what toncenter allows: 100 ms with a key, a second without, none on this machine.
    pub spacing: Option<Duration>,
    /// When to ask again.
    pub back_off: BackOff,
    /// A newest block older than this is refused, on every network but the local one, whose clock may be set.
    pub stale_after: Duration,
    /// What it is older than.
    pub clock: Arc<dyn Clock>,
    /// What the client waits with.
    pub timer: Arc<dyn Timer>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            key: None,
            api: None,
            spacing: None,
            back_off: BackOff::default(),
            stale_after: Duration::from_secs(60),
            clock: Arc::new(SystemClock),
            timer: Arc::new(SystemTimer),
        }
    }
}

/// A network behind a toncenter endpoint.
pub struct Toncenter {
    http: Http,
    api: ApiVersion,
    network: NetworkId,
    stale_after: Duration,
    clock: Arc<dyn Clock>,
    sent: Sent,
    /// Number of the newest block that was seen.
    seen: AtomicU32,
}

impl fmt::Debug for Toncenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Toncenter({} at {:?})", self.network, self.http)
    }
}

impl Toncenter {
    /// A client of an endpoint, for example `http://127.0.0.1:8081/api/v2/jsonRPC` or `https://toncenter.com/api/v3`.
    pub fn new(endpoint: &str, key: Option<String>, network: NetworkId) -> Result<Self, Error> {
        Self::with_options(endpoint, network, Options { key, ..Options::default() })
    }

    /// A client that is used as the options say.
    pub fn with_options(endpoint: &str, network: NetworkId, options: Options) -> Result<Self, Error> {
        let guessed = if endpoint.contains("/v3") { ApiVersion::V3 } else { ApiVersion::V2 };
        Ok(Self {
            http: Http::new(endpoint, options.key, options.spacing, options.back_off, options.timer)?,
            api: options.api.unwrap_or(guessed),
            network,
            stale_after: options.stale_after,
            clock: options.clock,
            sent: Sent::default(),
            seen: AtomicU32::new(0),
        })
    }

    fn api_error(&self, why: impl fmt::Display) -> Error {
        self.http.error(why)
    }

    /// One JSON-RPC call of API v2.
    async fn post(&self, method: &str, params: &Value) -> Result<Value, Failure> {
        let body = json!({ "id": "1", "jsonrpc": "2.0", "method": method, "params": params });
        let (_, mut answer) = self.http.once("", Some(&body)).await?;
        if answer["ok"] == Value::Bool(true) {
            return Ok(answer["result"].take());
        }
        let why = answer["error"].as_str().or(answer["result"].as_str()).unwrap_or("an error without a text");
        Err(Failure::Answer(why.to_owned()))
    }

    /// One REST call of API v3.
    async fn rest(&self, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let (status, answer) = self.http.once(path, body).await?;
        if status.is_success() {
            return Ok(answer);
        }
        let why = answer["error"].as_str().unwrap_or("an error without a text");
        Err(Failure::Answer(format!("HTTP status {status}: {why}")))
    }

    /// Asks until there is an answer, a few times. `Ok(Err)` is the API's refusal.
    async fn ask(&self, method: &str, params: &Value) -> Result<Result<Value, String>, Error> {
        for attempt in 1.. {
            match self.post(method, params).await {
                Ok(value) => return Ok(Ok(value)),
                Err(Failure::Answer(why)) => return Ok(Err(why)),
                Err(Failure::Transient(why, asked)) => {
                    if !self.http.again(attempt, asked).await {
                        return Err(self.api_error(format!("{method}: {why}, {attempt} times")));
                    }
                }
            }
        }
        Err(self.api_error("no answer"))
    }

    async fn call(&self, method: &str, params: Value) -> Result<Value, Error> {
        self.ask(method, &params).await?.map_err(|why| self.api_error(format!("{method}: {why}")))
    }

    async fn get(&self, path: &str) -> Result<Value, Error> {
        self.call_path(path, None).await
    }

    /// A question to API v3, asked a few times.
    async fn call_path(&self, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        let name = path.split('?').next().unwrap_or_default();
        for attempt in 1.. {
            match self.rest(path, body).await {
                Ok(value) => return Ok(value),
                Err(Failure::Answer(why)) => return Err(self.api_error(format!("{name}: {why}"))),
                Err(Failure::Transient(why, asked)) => {
                    if !self.http.again(attempt, asked).await {
                        return Err(self.api_error(format!("{name}: {why}, {attempt} times")));
                    }
                }
            }
        }
        Err(self.api_error("no answer"))
    }

    /// Asks the network for its global id and compares: parameter 19 of its configuration, or what its newest block says.
    pub async fn check_network(&self) -> Result<(), Error> {
        let found = match self.api {
            ApiVersion::V2 => {
                let answer = self.call("getConfigParam", json!({ "config_id": 19 })).await?;
                let cell = read_boc(answer["config"]["bytes"].as_str().unwrap_or_default())?;
                NetworkId(cell.as_slice()?.load_u32()? as i32)
            }
            ApiVersion::V3 => self.v3_head().await?.1,
        };
        if found == self.network {
            return Ok(());
        }
        Err(self.api_error(format!("it is {found}, and you named {}: nothing was sent", self.network)))
    }

    async fn any_head(&self) -> Result<BlockRef, Error> {
        match self.api {
            ApiVersion::V2 => {
                let info = self.call("getMasterchainInfo", json!({})).await?;
                self.block_ref(&info["last"]).await
            }
            ApiVersion::V3 => Ok(self.v3_head().await?.0),
        }
    }

    /// One submission. Sending the same bytes twice is safe: a message is known by its hash, and a wallet takes each number once.
    async fn submit(&self, external: &Cell) -> Result<(), Failure> {
        let boc = json!({ "boc": json::boc(external) });
        match self.api {
            ApiVersion::V2 => self.post("sendBocReturnHash", &boc).await.map(drop),
            ApiVersion::V3 => self.rest("/message", Some(&boc)).await.map(drop),
        }
    }

    /// Whether a message that may have been taken in is in a block. Where it was `refused` when it was sent again, that may have been its replay,
    /// and what says so be a moment behind the block: then it is looked for a few times.
    async fn arrived(&self, hash: &[u8; 32], refused: bool) -> Result<bool, Error> {
        for attempt in 1.. {
            if self.trace(hash).await.map_err(|error| self.uncertain(error))?.is_some() {
                return Ok(true);
            }
            if !refused || !self.http.again(attempt, None).await {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// A message was submitted, and whether it was taken in is not known.
    fn uncertain(&self, why: impl fmt::Display) -> Error {
        self.api_error(format!("sending: {why}; the message may still arrive, so look before sending another"))
    }

    /// A masterchain block's id as a reference; its time takes a second question.
    async fn block_ref(&self, id: &Value) -> Result<BlockRef, Error> {
        let seqno = id["seqno"].as_u64().and_then(|seqno| u32::try_from(seqno).ok());
        let seqno = seqno.ok_or_else(|| malformed("a block id", "no sequence number"))?;
        let root_hash = Digest(read_hash(id["root_hash"].as_str().unwrap_or_default())?);
        let mut params = masterchain(seqno);
        params["root_hash"] = id["root_hash"].clone();
        params["file_hash"] = id["file_hash"].clone();
        let header = self.call("getBlockHeader", params).await?;
        let time = header["gen_utime"].as_u64().ok_or_else(|| malformed("a block header", "no time"))?;
        Ok(BlockRef { seqno, root_hash, time: UnixTime(time) })
    }

    /// The newest transactions of an account as cells, newest first: all, or those before a given one.
    async fn transaction_cells(
        &self,
        address: &Address,
        before: Option<(u64, [u8; 32])>,
        limit: usize,
    ) -> Result<Vec<Cell>, Error> {
        let mut params = json!({ "address": address.to_string(), "limit": limit.min(PAGE) });
        if let Some((lt, hash)) = before {
            // The API's pages begin with the transaction that is named.
            params["limit"] = json!(limit.saturating_add(1).min(PAGE));
            params["lt"] = json!(lt.to_string());
            params["hash"] = json!(hex::encode(hash));
        }
        let rows = self.call("getTransactions", params).await?;
        let rows = rows.as_array().ok_or_else(|| malformed("a list of transactions", "it is no list"))?;
        let cells = rows.iter().map(|row| read_boc(row["data"].as_str().unwrap_or_default()));
        let mut cells = cells.collect::<Result<Vec<_>, _>>()?;
        if let Some((_, hash)) = before {
            if cells.first().is_none_or(|first| first.repr_hash().0 != hash) {
                return Err(malformed("a page of transactions", "it does not begin where it was asked to"));
            }
            cells.remove(0);
        }
        Ok(cells)
    }
}

/// The masterchain's block number `seqno`, as the API wants it.
fn masterchain(seqno: u32) -> Value {
    json!({ "workchain": -1, "shard": i64::MIN.to_string(), "seqno": seqno })
}

#[async_trait]
impl Chain for Toncenter {
    fn network(&self) -> NetworkId {
        self.network
    }

    /// The newest block, if it is not old and not older than one that this client has seen.
    async fn head(&self) -> Result<BlockRef, Error> {
        for attempt in 1.. {
            let head = self.any_head().await?;
            let seen = self.seen.fetch_max(head.seqno, Ordering::SeqCst);
            // Servers behind one name may be a moment apart: ask again.
            if head.seqno < seen {
                if self.http.again(attempt, None).await {
                    continue;
                }
                return Err(
                    self.api_error(format!("its newest block is {}, and it has shown {seen} before", head.seqno))
                );
            }
            let age = self.clock.now().0.saturating_sub(head.time.0);
            if self.network != NetworkId::LOCAL && age > self.stale_after.as_secs() {
                let why = format!("its newest block is {age} s old: it lags, or this machine's clock is wrong");
                return Err(self.api_error(why));
            }
            return Ok(head);
        }
        Err(self.api_error("no answer"))
    }

    async fn block(&self, seqno: u32) -> Result<Option<BlockRef>, Error> {
        if self.api == ApiVersion::V3 {
            return self.v3_block(seqno).await;
        }
        match self.ask("lookupBlock", &masterchain(seqno)).await? {
            Ok(id) => self.block_ref(&id).await.map(Some),
            // Lite servers say so in these words, toncenter passes them on.
            Err(why) if ["not found", "not in db", "not applied"].iter().any(|text| why.contains(text)) => Ok(None),
            Err(why) => Err(self.api_error(format!("lookupBlock: {why}"))),
        }
    }

    async fn account(&self, address: &Address) -> Result<AccountState, Error> {
        if self.api == ApiVersion::V3 {
            return self.v3_account(address).await;
        }
        let info = self.call("getAddressInformation", json!({ "address": address.to_string() })).await?;
        let cell = |name: &str| match info[name].as_str() {
            None | Some("") => Ok(None),
            Some(text) => read_boc(text).map(Some),
        };
        let balance = info["balance"].as_u64().or_else(|| info["balance"].as_str().and_then(|text| text.parse().ok()));
        let code = cell("code")?;
        let last = &info["last_transaction_id"];
        Ok(AccountState {
            balance: Nanoton(balance.ok_or_else(|| malformed("an account", "no balance"))?),
            active: info["state"] == "active",
            code_hash: code.as_ref().map(|code| code.repr_hash().0),
            code,
            data: cell("data")?,
            last_lt: last["lt"].as_str().and_then(|lt| lt.parse().ok()).unwrap_or(0),
            last_hash: last["hash"].as_str().map_or(Ok([0; 32]), read_hash)?,
        })
    }

    async fn send(&self, external: Cell) -> Result<[u8; 32], Error> {
        let destination = trace::destination(&external)?;
        let hash = external.repr_hash().0;
        // Remembered first: an answer that got lost does not mean that the message did.
        self.sent.remember(hash, destination);
        for attempt in 1.. {
            let failure = match self.submit(&external).await {
                Ok(()) => return Ok(hash),
                Err(failure) => failure,
            };
            // An earlier attempt whose answer got lost may have arrived, and makes this one a replay.
            if attempt > 1 && self.arrived(&hash, matches!(failure, Failure::Answer(_))).await? {
                return Ok(hash);
            }
            match failure {
                Failure::Transient(why, asked) => {
                    if !self.http.again(attempt, asked).await {
                        return Err(self.uncertain(format!("{why}, {attempt} times")));
                    }
                }
                Failure::Answer(why) if attempt > 1 => {
                    return Err(self.uncertain(format!("{why}, after no answer {} times", attempt - 1)));
                }
                Failure::Answer(why) => {
                    let code = why.split_once(EXIT_CODE_MARK).map(|(_, rest)| rest);
                    let code = code
                        .and_then(|rest| rest.split(|c: char| c != '-' && !c.is_ascii_digit()).next()?.parse().ok());
                    return match code {
                        Some(exit_code) => Err(Error::NotAccepted { account: destination, exit_code }),
                        None => Err(self.api_error(format!("sending: {why}"))),
                    };
                }
            }
        }
        Err(self.api_error("no answer"))
    }

    async fn run_get(&self, address: &Address, method: &str, args: Vec<StackValue>) -> Result<GetResult, Error> {
        if self.api == ApiVersion::V3 {
            return self.v3_run_get(address, method, &args).await?.ok_or(Error::NotDeployed(*address));
        }
        let params = json!({ "address": address.to_string(), "method": method, "stack": write_arguments(&args)? });
        let result = self.call("runGetMethod", params).await?;
        let exit_code = result["exit_code"].as_i64().and_then(|code| i32::try_from(code).ok());
        let exit_code = exit_code.ok_or_else(|| malformed("a get-method's result", "no exit code"))?;
        if exit_code == EXIT_NOT_INITIALIZED {
            return Err(Error::NotDeployed(*address));
        }
        Ok(GetResult {
            exit_code,
            stack: read_stack(&result["stack"])?,
            gas_used: result["gas_used"].as_u64().unwrap_or(0),
        })
    }

    async fn transactions_before(
        &self,
        address: &Address,
        before: Option<(u64, [u8; 32])>,
        limit: usize,
    ) -> Result<Vec<TxSummary>, Error> {
        if self.api == ApiVersion::V3 {
            return self.v3_transactions(address, before, limit).await;
        }
        let cells = self.transaction_cells(address, before, limit).await?;
        cells.iter().map(|cell| TxSummary::from_cell(*address, cell)).collect()
    }

    async fn trace(&self, message_hash: &[u8; 32]) -> Result<Option<Trace>, Error> {
        match self.api {
            ApiVersion::V2 => self.follow(message_hash).await,
            ApiVersion::V3 => self.v3_trace(message_hash).await,
        }
    }
}
