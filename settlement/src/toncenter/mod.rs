//! A TON network over toncenter's HTTP API v2 (also served by the local chain, see [`crate::local::rpc`]).
//!
//! The API's answers are believed: nothing here checks proofs. Use a server that you trust, best your own.

pub(crate) mod json;
mod trace;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cocoon_attestation::types::{Digest, UnixTime};
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tycho_types::cell::Cell;

use self::json::{EXIT_CODE_MARK, EXIT_NOT_INITIALIZED, malformed, read_boc, read_hash, read_stack, write_arguments};
use self::trace::Sent;
use crate::address::{Address, NetworkId};
use crate::amount::Nanoton;
use crate::chain::{AccountState, BlockRef, Chain, GetResult, StackValue, Trace, TxSummary};
use crate::error::Error;

/// One call, its answer included.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Pauses before a question is asked again. External messages are never sent twice.
const BACK_OFF: [Duration; 3] = [Duration::from_millis(300), Duration::from_millis(1_500), Duration::from_secs(5)];
const MAX_ANSWER: usize = 16 << 20;
/// Transactions that the API gives at once.
const PAGE: usize = 100;

/// A network behind a toncenter v2 endpoint.
pub struct Toncenter {
    endpoint: String,
    key: Option<String>,
    network: NetworkId,
    client: Client<HttpConnector, Full<Bytes>>,
    sent: Sent,
}

impl fmt::Debug for Toncenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Toncenter({} at {})", self.network, self.endpoint)
    }
}

/// How a call failed.
enum Failure {
    /// The endpoint did not answer, or was too busy: asking again may help.
    Transient(String),
    /// It said no.
    Answer(String),
}

impl Toncenter {
    /// A client of the JSON-RPC endpoint, for example `http://127.0.0.1:8081/api/v2/jsonRPC`; `key` goes into `X-API-Key`.
    /// Only plain HTTP so far: put a TLS-terminating proxy on this machine in front of a remote endpoint.
    pub fn new(endpoint: &str, key: Option<String>, network: NetworkId) -> Result<Self, Error> {
        if !endpoint.starts_with("http://") {
            let why =
                "only http:// is supported so far: reach a remote API through a local TLS-terminating proxy".into();
            return Err(Error::Api { url: endpoint.into(), why });
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { endpoint: endpoint.into(), key, network, client, sent: Sent::default() })
    }

    fn api_error(&self, why: impl fmt::Display) -> Error {
        Error::Api { url: self.endpoint.clone(), why: why.to_string() }
    }

    async fn post(&self, method: &str, params: &Value) -> Result<Value, Failure> {
        let transient = |error: &dyn fmt::Display| Failure::Transient(error.to_string());
        let body = json!({ "id": "1", "jsonrpc": "2.0", "method": method, "params": params }).to_string();
        let mut request =
            Request::builder().method(Method::POST).uri(&self.endpoint).header(CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header("X-API-Key", key);
        }
        let request = request.body(Full::from(body)).map_err(|error| Failure::Answer(error.to_string()))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| transient(&error))?;
            let status = response.status();
            let body =
                Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| transient(&error))?;
            Ok((status, body.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(TIMEOUT, exchange)
            .await
            .map_err(|_| Failure::Transient("no answer in time".into()))??;
        if status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::BAD_GATEWAY
            || status == StatusCode::SERVICE_UNAVAILABLE
        {
            return Err(Failure::Transient(format!("HTTP status {status}")));
        }
        let mut answer: Value = serde_json::from_slice(&body)
            .map_err(|error| Failure::Answer(format!("HTTP status {status}, no JSON: {error}")))?;
        if answer["ok"] == Value::Bool(true) {
            return Ok(answer["result"].take());
        }
        let why = answer["error"].as_str().or(answer["result"].as_str()).unwrap_or("an error without a text");
        Err(Failure::Answer(why.to_owned()))
    }

    /// Asks until there is an answer, a few times. `Ok(Err)` is the API's refusal.
    async fn ask(&self, method: &str, params: Value) -> Result<Result<Value, String>, Error> {
        for pause in BACK_OFF.into_iter().map(Some).chain([None]) {
            match (self.post(method, &params).await, pause) {
                (Ok(value), _) => return Ok(Ok(value)),
                (Err(Failure::Answer(why)), _) => return Ok(Err(why)),
                (Err(Failure::Transient(_)), Some(pause)) => tokio::time::sleep(pause).await,
                (Err(Failure::Transient(why)), None) => return Err(self.api_error(why)),
            }
        }
        Err(self.api_error("no answer"))
    }

    async fn call(&self, method: &str, params: Value) -> Result<Value, Error> {
        self.ask(method, params).await?.map_err(|why| self.api_error(format!("{method}: {why}")))
    }

    /// Asks the network for its global id (parameter 19 of its configuration) and compares.
    pub async fn check_network(&self) -> Result<(), Error> {
        let answer = self.call("getConfigParam", json!({ "config_id": 19 })).await?;
        let cell = read_boc(answer["config"]["bytes"].as_str().unwrap_or_default())?;
        let found = NetworkId(cell.as_slice()?.load_u32()? as i32);
        if found == self.network {
            return Ok(());
        }
        Err(self.api_error(format!("it is {found}, and you named {}: nothing was sent", self.network)))
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

    async fn head(&self) -> Result<BlockRef, Error> {
        let info = self.call("getMasterchainInfo", json!({})).await?;
        self.block_ref(&info["last"]).await
    }

    async fn block(&self, seqno: u32) -> Result<Option<BlockRef>, Error> {
        match self.ask("lookupBlock", masterchain(seqno)).await? {
            Ok(id) => self.block_ref(&id).await.map(Some),
            // Lite servers say so in these words, toncenter passes them on.
            Err(why) if ["not found", "not in db", "not applied"].iter().any(|text| why.contains(text)) => Ok(None),
            Err(why) => Err(self.api_error(format!("lookupBlock: {why}"))),
        }
    }

    async fn account(&self, address: &Address) -> Result<AccountState, Error> {
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
        match self.post("sendBocReturnHash", &json!({ "boc": json::boc(&external) })).await {
            Ok(_) => Ok(hash),
            Err(Failure::Transient(why)) => Err(self.api_error(format!(
                "sendBocReturnHash: {why}; the message may still arrive, so look before sending again"
            ))),
            Err(Failure::Answer(why)) => {
                let code = why.split_once(EXIT_CODE_MARK).map(|(_, rest)| rest);
                let code =
                    code.and_then(|rest| rest.split(|c: char| c != '-' && !c.is_ascii_digit()).next()?.parse().ok());
                match code {
                    Some(exit_code) => Err(Error::NotAccepted { account: destination, exit_code }),
                    None => Err(self.api_error(format!("sendBocReturnHash: {why}"))),
                }
            }
        }
    }

    async fn run_get(&self, address: &Address, method: &str, args: Vec<StackValue>) -> Result<GetResult, Error> {
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
        let cells = self.transaction_cells(address, before, limit).await?;
        cells.iter().map(|cell| TxSummary::from_cell(*address, cell)).collect()
    }

    async fn trace(&self, message_hash: &[u8; 32]) -> Result<Option<Trace>, Error> {
        self.follow(message_hash).await
    }
}
