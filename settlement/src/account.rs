//! A wallet on a chain: sends, waits for everything a message causes, and reports what it cost.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cocoon_attestation::types::UnixTime;
use tokio::sync::Mutex;
use tycho_types::cell::Cell;
use tycho_types::models::StateInit;

use crate::address::Address;
use crate::amount::Nanoton;
use crate::chain::{Chain, TxSummary};
use crate::error::Error;
use crate::wallet::{OutMessage, Wallet};

/// Seconds that a signed request stays valid.
const VALIDITY: u64 = 60;
/// Pause between looks at a trace that is not finished.
const POLL: Duration = Duration::from_millis(500);
/// Looks after which a trace counts as unfinished: two minutes.
const MAX_POLLS: u32 = 240;
/// Exit code reported when the wallet accepted a request but could not send all its messages: TON's "not enough Toncoin".
pub const EXIT_NOT_SENT: i32 = 37;

/// What a message caused and cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxReport {
    /// Hash of the external message.
    pub message: [u8; 32],
    /// Every transaction, the wallet's first.
    pub transactions: Vec<TxSummary>,
    /// Gas that all of them used.
    pub gas_used: u64,
    /// Fees that all of them paid.
    pub fees: Nanoton,
    /// The first account that did not carry out its message, and its exit code.
    pub aborted: Option<(Address, i32)>,
}

/// A request that is signed: what tells it apart on a chain, and until when it can arrive there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    /// Hash of the external message.
    pub message: [u8; 32],
    /// The wallet takes it no later.
    pub valid_until: UnixTime,
}

impl Signed {
    /// Whether a chain whose newest block is of this time, and that knows nothing of it, will never carry it out.
    pub fn lapsed(&self, now: UnixTime) -> bool {
        now > self.valid_until.plus(VALIDITY)
    }
}

impl TxReport {
    /// What a request of so many messages caused, whose first transaction is the wallet's.
    pub fn of(message: [u8; 32], messages: usize, transactions: Vec<TxSummary>) -> Self {
        let unsent = transactions.first().filter(|own| !own.failed && own.out_msg_hashes.len() < messages);
        let failed = transactions.iter().find(|transaction| transaction.failed);
        Self {
            message,
            gas_used: transactions.iter().map(|transaction| transaction.gas_used).sum(),
            fees: transactions.iter().map(|transaction| transaction.fees).sum(),
            aborted: match unsent {
                Some(own) => Some((own.account, EXIT_NOT_SENT)),
                None => failed.map(|transaction| (transaction.account, transaction.exit_code)),
            },
            transactions,
        }
    }

    /// The report, if every message was carried out.
    pub fn success(self) -> Result<Self, Error> {
        match self.aborted {
            None => Ok(self),
            Some((account, exit_code)) => Err(Error::Aborted { account, exit_code }),
        }
    }
}

/// A wallet that pays on a chain. Requests of one `Account` go out one after the other.
pub struct Account {
    chain: Arc<dyn Chain>,
    wallet: Wallet,
    turn: Mutex<()>,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({})", self.wallet.address())
    }
}

impl Account {
    /// The account of an Ed25519 seed on a chain.
    pub fn new(chain: Arc<dyn Chain>, seed: [u8; 32]) -> Result<Self, Error> {
        let wallet = Wallet::new(seed, chain.network())?;
        Ok(Self::with_wallet(chain, wallet))
    }

    /// The account of a wallet on a chain.
    pub fn with_wallet(chain: Arc<dyn Chain>, wallet: Wallet) -> Self {
        Self { chain, wallet, turn: Mutex::new(()) }
    }

    /// Its chain.
    pub fn chain(&self) -> &Arc<dyn Chain> {
        &self.chain
    }

    /// Its wallet.
    pub fn wallet(&self) -> &Wallet {
        &self.wallet
    }

    /// Its address.
    pub fn address(&self) -> Address {
        self.wallet.address()
    }

    /// What it holds.
    pub async fn balance(&self) -> Result<Nanoton, Error> {
        Ok(self.chain.account(&self.address()).await?.balance)
    }

    /// Sends one message and waits for everything it causes. A report is no success: look at `aborted`.
    pub async fn send(
        &self,
        to: Address,
        value: Nanoton,
        body: Option<Cell>,
        state_init: Option<StateInit>,
    ) -> Result<TxReport, Error> {
        self.send_all(&[OutMessage::new(to, value, body, state_init)]).await
    }

    /// Sends several messages with one signature (at most as many as the wallet's version takes), and waits for everything they cause.
    pub async fn send_all(&self, messages: &[OutMessage]) -> Result<TxReport, Error> {
        self.send_noted(messages, |_| Ok(())).await
    }

    /// The same, and has `note` keep which request it is before it is sent: whoever dies meanwhile, or is not told what became of it, finds it
    /// again by that. Nothing is sent if it cannot be kept.
    pub async fn send_noted<E: From<Error>>(
        &self,
        messages: &[OutMessage],
        note: impl FnOnce(&Signed) -> Result<(), E> + Send,
    ) -> Result<TxReport, E> {
        let _turn = self.turn.lock().await;
        let account = self.address();
        let state = self.chain.account(&account).await?;
        let needed: Nanoton = messages.iter().map(|message| message.value).sum();
        // The wallet skips what it cannot pay without a word, so ask first.
        if state.balance < needed || state.balance == Nanoton::ZERO {
            return Err(Error::Funds { account, balance: state.balance, needed }.into());
        }
        let seqno = if state.active { self.seqno().await? } else { 0 };
        let valid_until = self.chain.head().await?.time.plus(VALIDITY);
        let request = self.wallet.request(seqno, valid_until, messages, !state.active)?;
        let signed = Signed { message: request.repr_hash().0, valid_until };
        note(&signed)?;
        self.chain.send(request).await?;
        Ok(self.wait(&signed, messages.len()).await?)
    }

    async fn seqno(&self) -> Result<u32, Error> {
        let stack = self.chain.run_get(&self.address(), "seqno", Vec::new()).await?.success("seqno")?;
        let seqno = stack.first().and_then(|value| value.as_u64()).and_then(|seqno| u32::try_from(seqno).ok());
        seqno.ok_or_else(|| Error::Unexpected("seqno".into()))
    }

    async fn wait(&self, signed: &Signed, messages: usize) -> Result<TxReport, Error> {
        for _ in 0..MAX_POLLS {
            match self.chain.trace(&signed.message).await? {
                Some(trace) if trace.finished => {
                    return Ok(TxReport::of(signed.message, messages, trace.transactions));
                }
                Some(_) => {}
                // A head past its time without it: the request can never be executed any more.
                None if signed.lapsed(self.chain.head().await?.time) => break,
                None => {}
            }
            tokio::time::sleep(POLL).await;
        }
        Err(Error::NotSeen(hex::encode(signed.message)))
    }
}
