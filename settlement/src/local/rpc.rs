//! The local chain as a toncenter v2 JSON-RPC server, so that other processes, and `@ton/ton`, can use it.
//!
//! A subset: `getMasterchainInfo`, `lookupBlock`, `getBlockHeader`, `getAddressInformation`, `getTransactions`, `runGetMethod`,
//! `sendBoc` and `sendBocReturnHash`, as POST to `/jsonRPC` or `/api/v2/jsonRPC`.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tycho_types::cell::{Cell, CellBuilder, Load};
use tycho_types::models::{IntAddr, Message, MsgInfo, Transaction};

use super::LocalChain;
use super::block::Block;
use crate::address::{Address, NetworkId};
use crate::chain::{Chain, TxSummary};
use crate::error::Error;
use crate::toncenter::json::{
    EXIT_CODE_MARK, EXIT_NOT_INITIALIZED, base64, boc, malformed, read_arguments, read_boc, write_stack,
};

/// Transactions in one answer.
const MAX_TRANSACTIONS: u64 = 1_000;

/// Serves the chain until the listener fails or the future is dropped.
pub async fn serve(listener: TcpListener, chain: Arc<LocalChain>) -> std::io::Result<()> {
    axum::serve(listener, router(chain)).await
}

/// The routes, to be served beside others.
pub fn router(chain: Arc<LocalChain>) -> Router {
    Router::new().route("/jsonRPC", post(answer)).route("/api/v2/jsonRPC", post(answer)).with_state(chain)
}

async fn answer(State(chain): State<Arc<LocalChain>>, Json(request): Json<Value>) -> Json<Value> {
    let result = call(&chain, request["method"].as_str().unwrap_or_default(), &request["params"]).await;
    let mut answer = match result {
        Ok(result) => json!({ "ok": true, "result": result }),
        Err(error) => json!({ "ok": false, "error": explain(&error), "code": 500 }),
    };
    answer["jsonrpc"] = json!("2.0");
    answer["id"] = request["id"].clone();
    Json(answer)
}

/// The error's text; a refused external message in the words of a validator, which clients take apart.
fn explain(error: &Error) -> String {
    match error {
        Error::NotAccepted { account, exit_code } => format!(
            "cannot apply external message to current state : External message was not accepted\nCannot run message on \
             account: inbound external message rejected by account {account}: {EXIT_CODE_MARK}{exit_code}"
        ),
        other => other.to_string(),
    }
}

async fn call(chain: &LocalChain, method: &str, params: &Value) -> Result<Value, Error> {
    match method {
        "getMasterchainInfo" => {
            let head = head_block(chain).await?;
            let first = chain.stored_block(0)?;
            Ok(
                json!({ "@type": "blocks.masterchainInfo", "state_root_hash": base64(head.previous), "last": block_id(&head),
                       "init": block_id(&first) }),
            )
        }
        "lookupBlock" => Ok(block_id(&chain.stored_block(seqno(params)?)?)),
        "getBlockHeader" => {
            let block = chain.stored_block(seqno(params)?)?;
            Ok(json!({ "@type": "blocks.header", "id": block_id(&block), "global_id": NetworkId::LOCAL.0, "version": 0,
                       "gen_utime": block.time, "start_lt": block.start_lt.to_string(), "end_lt": block.end_lt.to_string() }))
        }
        "getAddressInformation" => address_information(chain, &address(params)?).await,
        "getTransactions" => transactions(chain, params),
        "runGetMethod" => run_get(chain, params).await,
        "sendBoc" | "sendBocReturnHash" => {
            let hash = chain.send(read_boc(text(params, "boc")?)?).await?;
            Ok(if method == "sendBoc" {
                json!({ "@type": "ok" })
            } else {
                json!({ "@type": "raw.extMessageInfo", "hash": base64(hash) })
            })
        }
        other => Err(malformed("a method of the local chain", format!("`{other}`, see docs/chain.md"))),
    }
}

fn text<'a>(params: &'a Value, name: &'static str) -> Result<&'a str, Error> {
    params[name].as_str().ok_or_else(|| malformed("a complete call", format!("`{name}` is missing")))
}

/// Numbers come as numbers or as text.
fn number(value: &Value) -> Option<u64> {
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

fn block_id(block: &Block) -> Value {
    let hash = base64(block.reference().root_hash);
    json!({ "@type": "ton.blockIdExt", "workchain": -1, "shard": i64::MIN.to_string(), "seqno": block.seqno,
            "root_hash": hash, "file_hash": hash })
}

async fn address_information(chain: &LocalChain, address: &Address) -> Result<Value, Error> {
    let state = chain.account(address).await?;
    let head = head_block(chain).await?;
    let cell = |cell: &Option<Cell>| cell.as_ref().map(boc).unwrap_or_default();
    Ok(json!({
        "@type": "raw.fullAccountState",
        "balance": state.balance.0.to_string(),
        "extra_currencies": [],
        "code": cell(&state.code),
        "data": cell(&state.data),
        "last_transaction_id": transaction_id(state.last_lt, &state.last_hash),
        "block_id": block_id(&head),
        "frozen_hash": "",
        "sync_utime": head.time,
        "state": if state.active { "active" } else { "uninitialized" },
    }))
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

fn transactions(chain: &LocalChain, params: &Value) -> Result<Value, Error> {
    let address = address(params)?;
    let from = number(&params["lt"]).unwrap_or(u64::MAX);
    let down_to = number(&params["to_lt"]).unwrap_or(0);
    let limit = number(&params["limit"]).unwrap_or(10).min(MAX_TRANSACTIONS) as usize;
    let cells = chain.stored_transactions(&address, from, limit)?;
    let rows: Vec<Value> = cells.iter().map(|cell| transaction(address, cell)).collect::<Result<_, _>>()?;
    Ok(rows.into_iter().filter(|row| number(&row["transaction_id"]["lt"]).is_some_and(|lt| lt > down_to)).collect())
}

fn transaction(address: Address, cell: &Cell) -> Result<Value, Error> {
    let summary = TxSummary::from_cell(address, cell)?;
    let transaction = cell.parse::<Transaction>()?;
    let out: Vec<Value> = transaction.out_msgs.values().map(|out| message(&out?)).collect::<Result<_, Error>>()?;
    let mut row = json!({
        "@type": "raw.transaction",
        "address": { "@type": "accountAddress", "account_address": address.to_string() },
        "utime": transaction.now,
        "data": boc(cell),
        "transaction_id": transaction_id(summary.lt, &summary.hash),
        "fee": summary.fees.0.to_string(),
        "storage_fee": "0",
        "other_fee": summary.fees.0.to_string(),
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
        "msg_data": { "@type": "msg.dataRaw", "body": boc(&body), "init_state": "" },
    }))
}
