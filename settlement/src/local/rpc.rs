//! The local chain as a toncenter server, so that other processes, and `@ton/ton` unmodified, can use it: JSON-RPC as POST to
//! `/jsonRPC` or `/api/v2/jsonRPC`, and every method by its name under `/api/v2/`, as GET with a query or POST with JSON.
//!
//! Messages that arrive while a block is being written go into the next one together, so many senders share one commit.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc;

use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tycho_types::cell::{Cell, CellBuilder, Load};
use tycho_types::models::{
    self, ExtInMsgInfo, IntAddr, Message, MsgInfo, OwnedMessage, StateInit, StdAddr, Transaction, TxInfo,
};

use super::block::{Block, tx_key_account};
use super::{Estimate, LocalChain, account_state};
use crate::address::{Address, NetworkId};
use crate::chain::{Chain, TxSummary};
use crate::error::Error;
use crate::toncenter::json::{
    EXIT_CODE_MARK, EXIT_NOT_INITIALIZED, base64, boc, malformed, read_arguments, read_boc, read_hash, write_stack,
};

/// Transactions in one answer.
const MAX_TRANSACTIONS: u64 = 1_000;
/// External messages that one block takes from this server.
const MAX_BATCH: usize = 1_000;
/// The one shard of the basechain, `8000000000000000`, as the API writes it.
const WHOLE_SHARD: i64 = i64::MIN;

/// Serves the chain until the listener fails or the future is dropped.
pub async fn serve(listener: TcpListener, chain: Arc<LocalChain>) -> std::io::Result<()> {
    axum::serve(listener, router(chain)).await
}

/// The routes, to be served beside others.
pub fn router(chain: Arc<LocalChain>) -> Router {
    let server = Arc::new(Server { inbox: writer(chain.clone()), chain });
    Router::new()
        .route("/jsonRPC", post(answer))
        .route("/api/v2/jsonRPC", post(answer))
        .route("/api/v2/{method}", get(by_query).post(by_name))
        .merge(super::rpc_v3::router())
        .with_state(server)
}

pub(super) struct Server {
    pub(super) chain: Arc<LocalChain>,
    inbox: mpsc::Sender<Submission>,
}

struct Submission {
    message: Cell,
    result: oneshot::Sender<Result<[u8; 32], Error>>,
}

/// Starts the thread that puts messages into blocks; it ends with the last router.
fn writer(chain: Arc<LocalChain>) -> mpsc::Sender<Submission> {
    let (inbox, waiting) = mpsc::channel::<Submission>();
    std::thread::spawn(move || {
        while let Ok(first) = waiting.recv() {
            let mut batch = vec![first];
            batch.extend(waiting.try_iter().take(MAX_BATCH - 1));
            let (messages, senders): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|submission| (submission.message, submission.result)).unzip();
            match chain.submit(messages) {
                // Whoever no longer listens does not want to know.
                Ok(results) => senders.into_iter().zip(results).for_each(|(sender, result)| drop(sender.send(result))),
                Err(error) => {
                    let why = error.to_string();
                    senders.into_iter().for_each(|sender| drop(sender.send(Err(Error::Execution(why.clone())))));
                }
            }
        }
    });
    inbox
}

impl Server {
    pub(super) async fn send(&self, message: Cell) -> Result<[u8; 32], Error> {
        let gone = || Error::Execution("the chain's writer has stopped; restart the chain".into());
        let (result, answer) = oneshot::channel();
        self.inbox.send(Submission { message, result }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

async fn answer(State(server): State<Arc<Server>>, Json(request): Json<Value>) -> Json<Value> {
    let mut answer = outcome(&server, request["method"].as_str().unwrap_or_default(), &request["params"]).await;
    answer["jsonrpc"] = json!("2.0");
    answer["id"] = request["id"].clone();
    Json(answer)
}

async fn by_query(
    State(server): State<Arc<Server>>,
    Path(method): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Json<Value> {
    Json(outcome(&server, &method, &json!(query)).await)
}

async fn by_name(
    State(server): State<Arc<Server>>,
    Path(method): Path<String>,
    Json(params): Json<Value>,
) -> Json<Value> {
    Json(outcome(&server, &method, &params).await)
}

async fn outcome(server: &Server, method: &str, params: &Value) -> Value {
    match call(server, method, params).await {
        Ok(result) => json!({ "ok": true, "result": result }),
        Err(error) => json!({ "ok": false, "error": explain(&error), "code": 500 }),
    }
}

/// The error's text; a refused external message in the words of a validator, which clients take apart.
pub(super) fn explain(error: &Error) -> String {
    match error {
        Error::NotAccepted { account, exit_code } => format!(
            "cannot apply external message to current state : External message was not accepted\nCannot run message on \
             account: inbound external message rejected by account {account}: {EXIT_CODE_MARK}{exit_code}"
        ),
        other => other.to_string(),
    }
}

async fn call(server: &Server, method: &str, params: &Value) -> Result<Value, Error> {
    let chain = &*server.chain;
    match method {
        "getMasterchainInfo" => {
            let head = head_block(chain).await?;
            let first = chain.stored_block(0)?;
            Ok(json!({ "@type": "blocks.masterchainInfo", "state_root_hash": base64(head.previous),
                       "last": masterchain_id(&head), "init": masterchain_id(&first) }))
        }
        "getConsensusBlock" => {
            let head = head_block(chain).await?;
            Ok(json!({ "consensus_block": head.seqno, "timestamp": head.time }))
        }
        "lookupBlock" => Ok(masterchain_id(&chain.stored_block(seqno(params)?)?)),
        "getBlockHeader" => {
            let block = chain.stored_block(seqno(params)?)?;
            Ok(json!({ "@type": "blocks.header", "id": masterchain_id(&block), "global_id": NetworkId::LOCAL.0,
                       "version": 0, "gen_utime": block.time, "start_lt": block.start_lt.to_string(),
                       "end_lt": block.end_lt.to_string() }))
        }
        "shards" | "getShards" => {
            let block = chain.stored_block(seqno(params)?)?;
            Ok(json!({ "@type": "blocks.shards", "shards": [block_id(0, &block)] }))
        }
        "getBlockTransactions" => block_transactions(chain, params),
        "getAddressInformation" => address_information(chain, &address(params)?).await,
        "getAddressBalance" => Ok(json!(chain.account(&address(params)?).await?.balance.0.to_string())),
        "getAddressState" => Ok(json!(chain.account_info(&address(params)?)?.state)),
        "getWalletInformation" => wallet_information(chain, &address(params)?).await,
        "getTransactions" => transactions(chain, params),
        "tryLocateTx" | "tryLocateResultTx" => locate_result(chain, params),
        "tryLocateSourceTx" => locate_source(chain, params),
        "runGetMethod" => run_get(chain, params).await,
        "estimateFee" => estimate(chain, params),
        "getConfigParam" => {
            let number = number(&params["config_id"]).or_else(|| number(&params["param"]));
            let number = number.and_then(|number| u32::try_from(number).ok());
            let number = number.ok_or_else(|| malformed("a complete call", "`config_id` is missing"))?;
            let cell = chain.config_param(number)?;
            let cell = cell.ok_or_else(|| malformed("a parameter of the chain", format!("there is no {number}")))?;
            Ok(json!({ "@type": "configInfo", "config": { "@type": "tvm.cell", "bytes": boc(&cell) } }))
        }
        "sendBoc" => {
            server.send(read_boc(text(params, "boc")?)?).await?;
            Ok(json!({ "@type": "ok" }))
        }
        "sendBocReturnHash" => {
            let hash = server.send(read_boc(text(params, "boc")?)?).await?;
            Ok(json!({ "@type": "raw.extMessageInfo", "hash": base64(hash) }))
        }
        other => Err(malformed("a method of the local chain", format!("`{other}`, see docs/chain.md"))),
    }
}

pub(super) fn text<'a>(params: &'a Value, name: &'static str) -> Result<&'a str, Error> {
    params[name].as_str().ok_or_else(|| malformed("a complete call", format!("`{name}` is missing")))
}

/// Numbers come as numbers or as text.
pub(super) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn address(params: &Value) -> Result<Address, Error> {
    text(params, "address")?.parse()
}

fn seqno(params: &Value) -> Result<u32, Error> {
    let seqno = number(&params["seqno"]).and_then(|seqno| u32::try_from(seqno).ok());
    seqno.ok_or_else(|| malformed("a complete call", "`seqno` is missing"))
}

async fn head_block(chain: &LocalChain) -> Result<Block, Error> {
    chain.stored_block(chain.head().await?.seqno)
}

/// One chain of blocks plays both workchains, so both name the same block.
fn block_id(workchain: i8, block: &Block) -> Value {
    let hash = base64(block.reference().root_hash);
    json!({ "@type": "ton.blockIdExt", "workchain": workchain, "shard": WHOLE_SHARD.to_string(), "seqno": block.seqno,
            "root_hash": hash, "file_hash": hash })
}

fn masterchain_id(block: &Block) -> Value {
    block_id(-1, block)
}

/// Transactions of the block's accounts in one workchain, all of them unless `count` asks for fewer; `after_lt` goes on.
fn block_transactions(chain: &LocalChain, params: &Value) -> Result<Value, Error> {
    let block = chain.stored_block(seqno(params)?)?;
    let workchain = params["workchain"].as_i64().or_else(|| params["workchain"].as_str()?.parse().ok()).unwrap_or(0);
    let workchain = i8::try_from(workchain).map_err(|_| malformed("a workchain", workchain))?;
    let count = number(&params["count"]).map_or(usize::MAX, |count| count as usize);
    let after = number(&params["after_lt"]).unwrap_or(0);
    let mut own: Vec<_> = block
        .transactions
        .iter()
        .map(|(key, hash)| {
            let lt = u64::from_be_bytes([key[33], key[34], key[35], key[36], key[37], key[38], key[39], key[40]]);
            (lt, tx_key_account(key), hash)
        })
        .filter(|(lt, account, _)| account.workchain == workchain && *lt > after)
        .collect();
    own.sort_unstable();
    let rows: Vec<_> = own
        .iter()
        .take(count)
        .map(|(lt, account, hash)| {
            json!({ "@type": "blocks.shortTxId", "mode": 135, "account": account.to_string(), "lt": lt.to_string(),
                    "hash": base64(hash) })
        })
        .collect();
    Ok(json!({ "@type": "blocks.transactions", "id": block_id(workchain, &block), "req_count": rows.len(),
               "incomplete": rows.len() < own.len(), "transactions": rows }))
}

/// What the API says of an account beyond Cocoon's own view of it.
pub(super) struct AccountInfo {
    pub state: &'static str,
    pub frozen_hash: String,
    shard: models::ShardAccount,
}

impl LocalChain {
    pub(super) fn account_info(&self, address: &Address) -> Result<AccountInfo, Error> {
        let shard = self.lock().shard_account(address)?;
        let (state, frozen_hash) = match shard.load_account()?.map(|account| account.state) {
            Some(models::AccountState::Active(_)) => ("active", String::new()),
            Some(models::AccountState::Frozen(hash)) => ("frozen", base64(hash.0)),
            Some(models::AccountState::Uninit) | None => ("uninitialized", String::new()),
        };
        Ok(AccountInfo { state, frozen_hash, shard })
    }
}

async fn address_information(chain: &LocalChain, address: &Address) -> Result<Value, Error> {
    let info = chain.account_info(address)?;
    let state = account_state(&info.shard)?;
    let head = head_block(chain).await?;
    let cell = |cell: &Option<Cell>| cell.as_ref().map(boc).unwrap_or_default();
    Ok(json!({
        "@type": "raw.fullAccountState",
        "balance": state.balance.0.to_string(),
        "extra_currencies": [],
        "code": cell(&state.code),
        "data": cell(&state.data),
        "last_transaction_id": transaction_id(state.last_lt, &state.last_hash),
        "block_id": masterchain_id(&head),
        "frozen_hash": info.frozen_hash,
        "sync_utime": head.time,
        "state": info.state,
    }))
}

async fn wallet_information(chain: &LocalChain, address: &Address) -> Result<Value, Error> {
    let info = chain.account_info(address)?;
    let state = account_state(&info.shard)?;
    let mut answer = json!({ "wallet": false, "balance": state.balance.0.to_string(), "account_state": info.state,
                             "last_transaction_id": transaction_id(state.last_lt, &state.last_hash) });
    if state.active {
        let seqno = chain.run_get(address, "seqno", Vec::new()).await?;
        if let (0 | 1, Some(seqno)) = (seqno.exit_code, seqno.stack.first().and_then(|value| value.as_u64())) {
            answer["wallet"] = json!(true);
            answer["seqno"] = json!(seqno);
        }
    }
    Ok(answer)
}

fn transaction_id(lt: u64, hash: &[u8; 32]) -> Value {
    json!({ "@type": "internal.transactionId", "lt": lt.to_string(), "hash": base64(hash) })
}

async fn run_get(chain: &LocalChain, params: &Value) -> Result<Value, Error> {
    let args = read_arguments(&params["stack"])?;
    let (exit_code, stack, gas_used) = match chain.run_get(&address(params)?, text(params, "method")?, args).await {
        Ok(result) => (result.exit_code, result.stack, result.gas_used),
        Err(Error::NotDeployed(_)) => (EXIT_NOT_INITIALIZED, Vec::new(), 0),
        Err(error) => return Err(error),
    };
    Ok(json!({ "@type": "smc.runResult", "gas_used": gas_used, "stack": write_stack(&stack), "exit_code": exit_code }))
}

/// The fees of the transaction that an external message with this body would cause, without what its messages cause.
fn estimate(chain: &LocalChain, params: &Value) -> Result<Value, Error> {
    let cell = |name: &str| match params[name].as_str() {
        None | Some("") => Ok(None),
        Some(text) => read_boc(text).map(Some),
    };
    let (code, data) = (cell("init_code")?, cell("init_data")?);
    let init = (code.is_some() || data.is_some()).then(|| StateInit { code, data, ..StateInit::default() });
    let destination = IntAddr::Std(StdAddr::from(address(params)?));
    let message = OwnedMessage {
        info: MsgInfo::ExtIn(ExtInMsgInfo { dst: destination, ..ExtInMsgInfo::default() }),
        init,
        body: read_boc(text(params, "body")?)?.into(),
        layout: None,
    };
    // The API's default is to take a signature that has not been made yet for a good one.
    let ignore = params["ignore_chksig"].as_bool().or_else(|| params["ignore_chksig"].as_str()?.parse().ok());
    let Estimate { import, storage, gas, forward } =
        chain.estimate(CellBuilder::build_from(message)?, ignore.unwrap_or(true))?;
    Ok(json!({ "@type": "query.fees", "destination_fees": [], "source_fees": {
        "@type": "fees", "in_fwd_fee": import.0, "storage_fee": storage.0, "gas_fee": gas.0, "fwd_fee": forward.0 } }))
}

fn transactions(chain: &LocalChain, params: &Value) -> Result<Value, Error> {
    let address = address(params)?;
    let from = number(&params["lt"]).unwrap_or(u64::MAX);
    let down_to = number(&params["to_lt"]).unwrap_or(0);
    let limit = number(&params["limit"]).unwrap_or(10).min(MAX_TRANSACTIONS) as usize;
    let cells = chain.stored_transactions(&address, from, limit)?;
    if let (Some(hash), Some(first)) = (params["hash"].as_str().filter(|hash| !hash.is_empty()), cells.first())
        && first.repr_hash().0 != any_hash(hash)?
    {
        return Err(malformed(
            "a transaction of the account",
            format!("the one at {from} has another hash than {hash}"),
        ));
    }
    let rows: Vec<Value> = cells.iter().map(|cell| transaction(address, cell)).collect::<Result<_, _>>()?;
    Ok(rows.into_iter().filter(|row| number(&row["transaction_id"]["lt"]).is_some_and(|lt| lt > down_to)).collect())
}

/// A hash in base64 or hexadecimal: the API takes both.
pub(super) fn any_hash(text: &str) -> Result<[u8; 32], Error> {
    let mut hash = [0; 32];
    match hex::decode_to_slice(text, &mut hash) {
        Ok(()) => Ok(hash),
        Err(_) => read_hash(text),
    }
}

/// Source, destination and logical time of the message that is looked for.
fn sought(params: &Value) -> Result<(Address, Address, u64), Error> {
    let created = number(&params["created_lt"]);
    let created = created.ok_or_else(|| malformed("a complete call", "`created_lt` is missing"))?;
    Ok((text(params, "source")?.parse()?, text(params, "destination")?.parse()?, created))
}

fn is_sought(message: &Cell, (source, destination, created): (Address, Address, u64)) -> Result<bool, Error> {
    let MsgInfo::Int(info) = MsgInfo::load_from(&mut message.as_slice()?)? else { return Ok(false) };
    Ok(info.created_lt == created && info.src == source.into() && info.dst == destination.into())
}

fn not_located() -> Error {
    malformed("a message of this chain", "no transaction with that source, destination and created_lt")
}

/// The transaction that took the message in.
fn locate_result(chain: &LocalChain, params: &Value) -> Result<Value, Error> {
    let sought = sought(params)?;
    for cell in chain.transactions_after(&sought.1, sought.2, MAX_TRANSACTIONS as usize)? {
        if let Some(message) = cell.parse::<Transaction>()?.in_msg
            && is_sought(&message, sought)?
        {
            return transaction(sought.1, &cell);
        }
    }
    Err(not_located())
}

/// The transaction that sent the message: the newest of the source before it.
fn locate_source(chain: &LocalChain, params: &Value) -> Result<Value, Error> {
    let sought = sought(params)?;
    for cell in chain.stored_transactions(&sought.0, sought.2, 1)? {
        for message in cell.parse::<Transaction>()?.out_msgs.values() {
            if is_sought(&message?, sought)? {
                return transaction(sought.0, &cell);
            }
        }
    }
    Err(not_located())
}

fn transaction(address: Address, cell: &Cell) -> Result<Value, Error> {
    let summary = TxSummary::from_cell(address, cell)?;
    let transaction = cell.parse::<Transaction>()?;
    let storage = match transaction.load_info()? {
        TxInfo::Ordinary(info) => info.storage_phase.map_or(0, |phase| phase.storage_fees_collected.into_inner()),
        TxInfo::TickTock(_) => 0,
    };
    let out: Vec<Value> = transaction.out_msgs.values().map(|out| message(&out?)).collect::<Result<_, Error>>()?;
    let mut row = json!({
        "@type": "raw.transaction",
        "address": { "@type": "accountAddress", "account_address": address.to_string() },
        "utime": transaction.now,
        "data": boc(cell),
        "transaction_id": transaction_id(summary.lt, &summary.hash),
        "fee": summary.fees.0.to_string(),
        "storage_fee": storage.to_string(),
        "other_fee": u128::from(summary.fees.0).saturating_sub(storage).to_string(),
        "out_msgs": out,
    });
    if let Some(cell) = &transaction.in_msg {
        row["in_msg"] = message(cell)?;
    }
    Ok(row)
}

fn message(cell: &Cell) -> Result<Value, Error> {
    let message = cell.parse::<Message<'_>>()?;
    let body = CellBuilder::build_from(message.body)?;
    let init = message.init.as_ref().map(CellBuilder::build_from).transpose()?;
    let name = |address: &IntAddr| match address {
        IntAddr::Std(address) => Address::from(address.clone()).to_string(),
        IntAddr::Var(_) => String::new(),
    };
    let (source, destination, value, fwd_fee, created_lt) = match MsgInfo::load_from(&mut cell.as_slice()?)? {
        MsgInfo::Int(info) => (
            name(&info.src),
            name(&info.dst),
            info.value.tokens.into_inner(),
            info.fwd_fee.into_inner(),
            info.created_lt,
        ),
        MsgInfo::ExtIn(info) => (String::new(), name(&info.dst), 0, 0, 0),
        MsgInfo::ExtOut(info) => (name(&info.src), String::new(), 0, 0, info.created_lt),
    };
    Ok(json!({
        "@type": "raw.message",
        "hash": base64(cell.repr_hash().0),
        "source": source,
        "destination": destination,
        "value": value.to_string(),
        "fwd_fee": fwd_fee.to_string(),
        "ihr_fee": "0",
        "created_lt": created_lt.to_string(),
        "body_hash": base64(body.repr_hash().0),
        "msg_data": { "@type": "msg.dataRaw", "body": boc(&body),
                      "init_state": init.as_ref().map(boc).unwrap_or_default() },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::{Genesis, ManualClock};
    use crate::wallet::{OutMessage, Wallet};
    use cocoon_attestation::types::UnixTime;

    const AT: UnixTime = UnixTime(1_790_000_000);
    const WALLETS: u8 = 40;

    fn wallet(seed: u8) -> Wallet {
        Wallet::new([seed; 32], NetworkId::LOCAL).unwrap()
    }

    fn server() -> Arc<Server> {
        let accounts = (0..WALLETS).map(|seed| (wallet(seed).address(), crate::Nanoton::from_ton(1))).collect();
        let clock = Arc::new(ManualClock::new(AT));
        let chain = Arc::new(LocalChain::in_memory(Genesis { accounts, time: AT }, clock).unwrap());
        Arc::new(Server { inbox: writer(chain.clone()), chain })
    }

    #[tokio::test]
    async fn a_bad_call_is_answered_by_what_is_wrong_with_it_and_makes_no_block() {
        let server = server();
        let (one, two) = (Address::basechain([1; 32]), Address::basechain([2; 32]));
        let calls = [
            (json!({}), "is missing"),
            (
                json!({ "address": 5, "seqno": -1, "boc": [], "source": [], "created_lt": {}, "config_id": "x" }),
                "is missing",
            ),
            (
                json!({ "address": "0:00", "seqno": u64::MAX, "boc": "!", "created_lt": 1, "source": "", "destination": "" }),
                "",
            ),
            (
                json!({ "address": one, "seqno": 99, "boc": "aGk=", "body": "aGk=", "init_code": "aGk=", "method": "x",
                     "stack": [[]], "config_id": 4_000_000_000_u32, "source": one, "destination": two, "created_lt": u64::MAX }),
                "",
            ),
        ];
        for method in [
            "lookupBlock",
            "getBlockHeader",
            "shards",
            "getBlockTransactions",
            "getAddressInformation",
            "getTransactions",
            "getAddressBalance",
            "getAddressState",
            "getWalletInformation",
            "tryLocateTx",
            "tryLocateResultTx",
            "tryLocateSourceTx",
            "runGetMethod",
            "estimateFee",
            "getConfigParam",
            "sendBoc",
            "sendBocReturnHash",
        ] {
            for (params, expected) in &calls {
                match call(&server, method, params).await {
                    Err(error) => assert!(error.to_string().contains(expected), "{method} {params}: {error}"),
                    // Whoever asks for an account that never was gets an empty one, as from TON.
                    Ok(_) => assert!(expected.is_empty() && params["address"] == json!(one), "{method} {params}"),
                }
            }
        }
        let unknown = call(&server, "sendMoney", &json!({})).await.unwrap_err().to_string();
        assert!(unknown.contains("`sendMoney`"), "{unknown}");
        assert_eq!(server.chain.head().await.unwrap().seqno, 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn messages_that_arrive_together_share_blocks_and_each_gets_its_own_answer() {
        let server = server();
        // While the chain is busy the writer cannot take more than one batch.
        let busy = server.chain.lock();
        let sends: Vec<_> = (0..WALLETS)
            .map(|seed| {
                let message = OutMessage::new(Address::basechain([77; 32]), crate::Nanoton(1_000), None, None);
                // Every fourth is of a time that is over.
                let until = if seed % 4 == 0 { UnixTime(AT.0 - 1) } else { AT.plus(60) };
                let request = wallet(seed).request(0, until, &[message], true).unwrap();
                let (result, answer) = oneshot::channel();
                server.inbox.send(Submission { message: request, result }).unwrap();
                (seed, answer)
            })
            .collect();
        drop(busy);
        for (seed, answer) in sends {
            let result = answer.await.unwrap();
            assert_eq!(result.is_err(), seed % 4 == 0, "{seed}: {result:?}");
        }
        let balance = server.chain.account(&Address::basechain([77; 32])).await.unwrap().balance;
        assert_eq!(balance.0, 30 * 1_000);
        assert!(server.chain.head().await.unwrap().seqno <= 3, "one block for each message");
        server.chain.check().unwrap();
    }
}
