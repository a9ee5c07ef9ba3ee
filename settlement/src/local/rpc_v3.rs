//! The local chain as a toncenter v3 server: the index's REST API, as far as Cocoon and its tools ask it, under `/api/v3`.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use tycho_types::cell::{Cell, CellBuilder, Load};
use tycho_types::models::{
    AccountStatus, ComputePhase, ComputePhaseSkipReason, IntAddr, Message, MsgInfo, Transaction, TxInfo,
};

use super::block::{Block, tx_key_account};
use super::rpc::{Server, any_hash, explain, number, text};
use crate::address::{Address, NetworkId};
use crate::chain::{Chain, StackValue};
use crate::error::Error;
use crate::toncenter::json::{EXIT_NOT_INITIALIZED, base64, boc, malformed, read_boc, read_int};

/// Transactions in one answer.
const MAX_TRANSACTIONS: u64 = 1_000;

type Parameters = Query<HashMap<String, String>>;

pub(super) fn router() -> Router<Arc<Server>> {
    Router::new()
        .route("/api/v3/masterchainInfo", get(async |State(server): State<Arc<Server>>| answer(info(&server).await)))
        .route(
            "/api/v3/blocks",
            get(async |State(server): State<Arc<Server>>, Query(query): Parameters| {
                answer(blocks(&server, &json!(query)))
            }),
        )
        .route(
            "/api/v3/accountStates",
            get(async |State(server): State<Arc<Server>>, Query(query): Parameters| {
                answer(accounts(&server, &json!(query)).await)
            }),
        )
        .route(
            "/api/v3/transactions",
            get(async |State(server): State<Arc<Server>>, Query(query): Parameters| {
                answer(transactions(&server, &json!(query)))
            }),
        )
        .route(
            "/api/v3/traces",
            get(async |State(server): State<Arc<Server>>, Query(query): Parameters| {
                answer(traces(&server, &json!(query)))
            }),
        )
        .route(
            "/api/v3/message",
            post(async |State(server): State<Arc<Server>>, Json(body): Json<Value>| {
                answer(message_sent(&server, &body).await)
            }),
        )
        .route(
            "/api/v3/runGetMethod",
            post(async |State(server): State<Arc<Server>>, Json(body): Json<Value>| {
                answer(run_get(&server, &body).await)
            }),
        )
}

fn answer(result: Result<Value, Error>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": explain(&error) }))).into_response(),
    }
}

fn block_json(block: &Block) -> Value {
    let hash = base64(block.reference().root_hash);
    json!({ "workchain": -1, "shard": "8000000000000000", "seqno": block.seqno, "root_hash": hash, "file_hash": hash,
            "global_id": NetworkId::LOCAL.0, "gen_utime": block.time.to_string(), "start_lt": block.start_lt.to_string(),
            "end_lt": block.end_lt.to_string(), "tx_count": block.transactions.len() })
}

async fn info(server: &Server) -> Result<Value, Error> {
    let head = server.chain.head().await?.seqno;
    Ok(
        json!({ "first": block_json(&server.chain.stored_block(0)?), "last": block_json(&server.chain.stored_block(head)?) }),
    )
}

fn blocks(server: &Server, query: &Value) -> Result<Value, Error> {
    let seqno = number(&query["seqno"]).and_then(|seqno| u32::try_from(seqno).ok());
    let seqno = seqno.ok_or_else(|| malformed("a complete call", "`seqno` is missing"))?;
    let block = server.chain.lock().store.block(seqno)?;
    Ok(json!({ "blocks": block.iter().map(block_json).collect::<Vec<_>>() }))
}

async fn accounts(server: &Server, query: &Value) -> Result<Value, Error> {
    let address: Address = text(query, "address")?.parse()?;
    let info = server.chain.account_info(&address)?;
    let state = server.chain.account(&address).await?;
    if state.last_lt == 0 && state.balance.0 == 0 {
        return Ok(json!({ "accounts": [], "address_book": {} }));
    }
    let status = if info.state == "uninitialized" { "uninit" } else { info.state };
    let mut row = json!({ "address": address.to_string(), "balance": state.balance.0.to_string(), "status": status,
                          "last_transaction_lt": state.last_lt.to_string(), "last_transaction_hash": base64(state.last_hash) });
    for (name, cell) in [("code", &state.code), ("data", &state.data)] {
        if let Some(cell) = cell {
            row[format!("{name}_boc")] = json!(boc(cell));
            row[format!("{name}_hash")] = json!(base64(cell.repr_hash().0));
        }
    }
    Ok(json!({ "accounts": [row], "address_book": {} }))
}

fn transactions(server: &Server, query: &Value) -> Result<Value, Error> {
    let account: Address = text(query, "account")?.parse()?;
    let limit = number(&query["limit"]).unwrap_or(10).min(MAX_TRANSACTIONS) as usize;
    let end = number(&query["end_lt"]).unwrap_or(u64::MAX);
    let cells = server.chain.stored_transactions(&account, end, limit)?;
    let rows: Vec<Value> = cells.iter().map(|cell| transaction(account, cell)).collect::<Result<_, _>>()?;
    Ok(json!({ "transactions": rows, "address_book": {} }))
}

fn traces(server: &Server, query: &Value) -> Result<Value, Error> {
    let hash = any_hash(text(query, "msg_hash")?)?;
    let state = server.chain.lock();
    let Some(record) = state.store.trace(&hash)? else { return Ok(json!({ "traces": [], "address_book": {} })) };
    let (mut order, mut all) = (Vec::new(), Map::new());
    for key in &record.transactions {
        let missing = || Error::Store { path: "chain".into(), why: "a transaction of a trace is missing".into() };
        let cell = state.store.transaction(key)?.ok_or_else(missing)?;
        let name = base64(cell.repr_hash().0);
        all.insert(name.clone(), transaction(tx_key_account(key), &cell)?);
        order.push(name);
    }
    let complete = record.pending == 0;
    Ok(json!({ "address_book": {}, "traces": [{
        "trace_id": order.first(), "external_hash": base64(hash), "is_incomplete": false,
        "trace_info": { "trace_state": if complete { "complete" } else { "pending" }, "pending_messages": record.pending,
                        "transactions": order.len() },
        "transactions_order": order, "transactions": all }] }))
}

async fn message_sent(server: &Server, body: &Value) -> Result<Value, Error> {
    let hash = base64(server.send(read_boc(text(body, "boc")?)?).await?);
    Ok(json!({ "message_hash": hash, "message_hash_norm": hash }))
}

async fn run_get(server: &Server, body: &Value) -> Result<Value, Error> {
    let address: Address = text(body, "address")?.parse()?;
    let mut args = Vec::new();
    for item in body["stack"].as_array().into_iter().flatten() {
        let value = item["value"].as_str().unwrap_or_default();
        args.push(match item["type"].as_str().unwrap_or_default() {
            "num" => StackValue::Int(read_int(value)?),
            "cell" => StackValue::Cell(read_boc(value)?),
            "slice" => StackValue::Slice(read_boc(value)?),
            other => return Err(malformed("an argument of a get-method", other)),
        });
    }
    Ok(match server.chain.run_get(&address, text(body, "method")?, args).await {
        Ok(result) => json!({ "exit_code": result.exit_code, "gas_used": result.gas_used,
                              "stack": result.stack.iter().map(entry).collect::<Vec<_>>() }),
        Err(Error::NotDeployed(_)) => json!({ "exit_code": EXIT_NOT_INITIALIZED, "gas_used": 0, "stack": [] }),
        Err(error) => return Err(error),
    })
}

fn entry(value: &StackValue) -> Value {
    match value {
        StackValue::Int(int) => {
            let sign = if int.sign() == num_bigint::Sign::Minus { "-" } else { "" };
            json!({ "type": "num", "value": format!("{sign}0x{:x}", int.magnitude()) })
        }
        StackValue::Cell(cell) => json!({ "type": "cell", "value": boc(cell) }),
        StackValue::Slice(cell) => json!({ "type": "slice", "value": boc(cell) }),
        StackValue::Null => json!({ "type": "list", "value": [] }),
        StackValue::Tuple(items) => json!({ "type": "tuple", "value": items.iter().map(entry).collect::<Vec<_>>() }),
    }
}

fn transaction(account: Address, cell: &Cell) -> Result<Value, Error> {
    let tx = cell.parse::<Transaction>()?;
    let TxInfo::Ordinary(info) = tx.load_info()? else {
        return Err(Error::Execution("a tick-tock transaction on an ordinary account".into()));
    };
    let compute = match &info.compute_phase {
        ComputePhase::Executed(phase) => json!({
            "skipped": false, "success": phase.success, "exit_code": phase.exit_code, "vm_steps": phase.vm_steps,
            "gas_used": phase.gas_used.into_inner().to_string(), "gas_fees": phase.gas_fees.into_inner().to_string() }),
        ComputePhase::Skipped(phase) => json!({ "skipped": true, "reason": match phase.reason {
            ComputePhaseSkipReason::NoState => "no_state",
            ComputePhaseSkipReason::BadState => "bad_state",
            ComputePhaseSkipReason::NoGas => "no_gas",
            ComputePhaseSkipReason::Suspended => "suspended",
        } }),
    };
    let mut description = json!({ "type": "ord", "aborted": info.aborted, "destroyed": info.destroyed,
                                  "credit_first": info.credit_first, "compute_ph": compute });
    if let Some(phase) = &info.storage_phase {
        description["storage_ph"] =
            json!({ "storage_fees_collected": phase.storage_fees_collected.into_inner().to_string() });
    }
    if let Some(phase) = &info.action_phase {
        let fee = |part: Option<tycho_types::num::Tokens>| part.map(|fee| fee.into_inner().to_string());
        description["action"] = json!({
            "success": phase.success, "valid": phase.valid, "no_funds": phase.no_funds, "result_code": phase.result_code,
            "total_fwd_fees": fee(phase.total_fwd_fees), "total_action_fees": fee(phase.total_action_fees),
            "msgs_created": phase.messages_created, "skipped_actions": phase.skipped_actions });
    }
    if info.bounce_phase.is_some() {
        description["bounce"] = json!({ "type": "ok" });
    }
    let out: Vec<Value> = tx.out_msgs.values().map(|out| message(&out?)).collect::<Result<_, Error>>()?;
    Ok(json!({
        "account": account.to_string(),
        "hash": base64(cell.repr_hash().0),
        "lt": tx.lt.to_string(),
        "now": tx.now,
        "prev_trans_hash": base64(tx.prev_trans_hash.0),
        "prev_trans_lt": tx.prev_trans_lt.to_string(),
        "orig_status": status(tx.orig_status),
        "end_status": status(tx.end_status),
        "total_fees": tx.total_fees.tokens.into_inner().to_string(),
        "description": description,
        "in_msg": tx.in_msg.as_ref().map(message).transpose()?,
        "out_msgs": out,
    }))
}

fn status(status: AccountStatus) -> &'static str {
    match status {
        AccountStatus::Uninit => "uninit",
        AccountStatus::Frozen => "frozen",
        AccountStatus::Active => "active",
        AccountStatus::NotExists => "nonexist",
    }
}

fn message(cell: &Cell) -> Result<Value, Error> {
    let message = cell.parse::<Message<'_>>()?;
    let opcode = (message.body.size_bits() >= 32).then(|| message.body.clone().load_u32()).transpose()?;
    let init = message.init.as_ref().map(CellBuilder::build_from).transpose()?;
    let body = CellBuilder::build_from(message.body)?;
    let content = |cell: &Cell| json!({ "hash": base64(cell.repr_hash().0), "body": boc(cell) });
    let name = |address: &IntAddr| match address {
        IntAddr::Std(address) => json!(Address::from(address.clone()).to_string()),
        IntAddr::Var(_) => Value::Null,
    };
    let mut row = json!({ "hash": base64(cell.repr_hash().0), "source": null, "destination": null, "value": null,
                          "fwd_fee": null, "created_lt": null, "bounce": null, "bounced": null,
                          "opcode": opcode.map(|op| format!("0x{op:08x}")), "message_content": content(&body),
                          "init_state": init.as_ref().map(content) });
    match MsgInfo::load_from(&mut cell.as_slice()?)? {
        MsgInfo::Int(info) => {
            row["source"] = name(&info.src);
            row["destination"] = name(&info.dst);
            row["value"] = json!(info.value.tokens.into_inner().to_string());
            row["fwd_fee"] = json!(info.fwd_fee.into_inner().to_string());
            row["created_lt"] = json!(info.created_lt.to_string());
            row["bounce"] = json!(info.bounce);
            row["bounced"] = json!(info.bounced);
        }
        MsgInfo::ExtIn(info) => row["destination"] = name(&info.dst),
        MsgInfo::ExtOut(info) => {
            row["source"] = name(&info.src);
            row["created_lt"] = json!(info.created_lt.to_string());
        }
    }
    Ok(row)
}
