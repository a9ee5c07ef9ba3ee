// `@ton/ton` as it comes, against a local chain's server: deploys, sends and queries. Started by settlement/tests/ton_client.rs with
// the endpoint and the network's global id; the wallet of seed 01..01 has money.
import assert from 'node:assert/strict';
import { Address, beginCell, Cell, internal, SendMode, toNano } from '@ton/core';
import { keyPairFromSeed } from '@ton/crypto';
import { TonClient, WalletContractV4, WalletContractV5R1 } from '@ton/ton';

const [endpoint, globalId] = process.argv.slice(2);
const client = new TonClient({ endpoint, apiKey: 'any' });
const keys = keyPairFromSeed(Buffer.alloc(32, 1));
const giver = client.open(WalletContractV5R1.create({
  publicKey: keys.publicKey,
  walletId: { networkGlobalId: Number(globalId) },
}));

async function until(what, holds) {
  for (let tries = 0; tries < 200; tries++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  assert.fail(`never: ${what}`);
}

// Deploys its own wallet with the first message.
assert.equal(await client.isContractDeployed(giver.address), false);
assert.equal((await client.getContractState(giver.address)).state, 'uninitialized');
const second = client.open(WalletContractV4.create({ workchain: 0, publicKey: keyPairFromSeed(Buffer.alloc(32, 2)).publicKey }));
const send = async (wallet, secretKey, messages) => {
  const seqno = await wallet.getSeqno();
  await wallet.sendTransfer({ seqno, secretKey, messages, sendMode: SendMode.PAY_GAS_SEPARATELY | SendMode.IGNORE_ERRORS });
  await until('the next sequence number', async () => (await wallet.getSeqno()) === seqno + 1);
};
await send(giver, keys.secretKey, [internal({ to: second.address, value: toNano('5'), bounce: false, body: 'for you' })]);
assert.equal(await client.isContractDeployed(giver.address), true);
assert.equal(await second.getBalance(), toNano('5'));

// The second wallet deploys itself and sends back.
await send(second, keyPairFromSeed(Buffer.alloc(32, 2)).secretKey, [internal({ to: giver.address, value: toNano('1'), bounce: false })]);
assert.ok((await second.getBalance()) < toNano('4'));

// Deploys a contract through a wallet: another wallet's code and data will do.
const third = WalletContractV4.create({ workchain: 0, publicKey: keyPairFromSeed(Buffer.alloc(32, 3)).publicKey });
await send(giver, keys.secretKey, [internal({ to: third.address, value: toNano('0.5'), bounce: true, init: third.init })]);
await until('the contract', () => client.isContractDeployed(third.address));
assert.deepEqual(Cell.fromBoc((await client.getContractState(third.address)).code)[0].hash(), third.init.code.hash());
const { stack } = await client.runMethod(third.address, 'get_subwallet_id');
assert.equal(stack.readNumber(), 698983191);
assert.equal((await client.runMethodWithError(third.address, 'no_such_method')).exit_code, 11);
await assert.rejects(client.runMethod(third.address, 'no_such_method'), /exit_code: 11/);
// Their former names.
assert.equal((await client.callGetMethod(third.address, 'get_subwallet_id')).stack.readNumber(), 698983191);
assert.equal((await client.callGetMethodWithError(third.address, 'no_such_method')).exit_code, 11);

// History: decoded from their cells, by page, by id, and from message to message.
const history = await client.getTransactions(giver.address, { limit: 10 });
assert.equal(history.length, 3, 'deployment with transfer, the transfer back, deployment of a contract');
assert.ok(history.every((transaction, i) => i === 0 || transaction.lt < history[i - 1].lt), 'newest first');
const first = history.at(-1);
assert.equal(first.inMessage.info.type, 'external-in');
const sent = first.outMessages.get(0);
assert.equal(sent.info.value.coins, toNano('5'));
assert.equal(sent.body.beginParse().skip(32).loadStringTail(), 'for you');
const id = { lt: first.lt.toString(), hash: first.hash().toString('base64') };
assert.deepEqual((await client.getTransaction(giver.address, id.lt, id.hash)).hash(), first.hash());
const newest = { lt: history[0].lt.toString(), hash: history[0].hash().toString('base64') };
const older = await client.getTransactions(giver.address, { limit: 10, ...newest });
assert.deepEqual(older.map((transaction) => transaction.lt), history.slice(1).map((transaction) => transaction.lt));
const created = sent.info.createdLt.toString();
const taken = await client.tryLocateResultTx(giver.address, second.address, created);
assert.equal(taken.inMessage.info.value.coins, toNano('5'));
assert.deepEqual((await client.tryLocateSourceTx(giver.address, second.address, created)).hash(), first.hash());
await assert.rejects(client.tryLocateResultTx(giver.address, second.address, '1'));

// Blocks.
const { latestSeqno, initSeqno, workchain, shard } = await client.getMasterchainInfo();
assert.equal(initSeqno, 0);
assert.equal(workchain, -1);
assert.equal(shard, '-9223372036854775808');
const found = [];
for (let seqno = 1; seqno <= latestSeqno; seqno++) {
  for (const each of await client.getWorkchainShards(seqno)) {
    assert.equal(each.workchain, 0);
    found.push(...await client.getShardTransactions(each.workchain, each.seqno, each.shard));
  }
  assert.deepEqual(await client.getShardTransactions(-1, seqno, shard), [], 'nothing happens in the masterchain');
}
const hashes = new Set(found.map((transaction) => transaction.hash));
for (const transaction of history) assert.ok(hashes.has(transaction.hash().toString('base64')), 'in a block');
for (const { account } of found) assert.ok(account instanceof Address);

// Fees before they are paid: the transfer's own transaction costs what was estimated.
const seqno = await giver.getSeqno();
const body = giver.createTransfer({
  seqno, secretKey: keys.secretKey, sendMode: SendMode.PAY_GAS_SEPARATELY | SendMode.IGNORE_ERRORS,
  messages: [internal({ to: second.address, value: 1n, bounce: false })],
});
const unsigned = beginCell().storeBits(body.beginParse().loadBits(body.bits.length - 512)).storeBits(beginCell().storeUint(0, 512).endCell().bits)
  .storeRef(body.refs[0]).endCell();
const { source_fees: fees } = await client.estimateExternalMessageFee(giver.address, { body: unsigned, initCode: null, initData: null, ignoreSignature: true });
await assert.rejects(client.estimateExternalMessageFee(giver.address, { body: unsigned, initCode: null, initData: null, ignoreSignature: false }), /exitcode=/);
assert.equal(await giver.getSeqno(), seqno, 'an estimate changes nothing');
const balance = await giver.getBalance();
await client.sendExternalMessage(giver, body);
await until('the transfer', async () => (await giver.getSeqno()) === seqno + 1);
const paid = balance - (await giver.getBalance()) - 1n;
const total = BigInt(fees.in_fwd_fee + fees.gas_fee + fees.fwd_fee + fees.storage_fee);
assert.ok(fees.gas_fee > 0 && fees.in_fwd_fee > 0 && fees.fwd_fee > 0);
assert.ok(paid - total >= 0n && paid - total <= 10n, `estimated ${total}, paid ${paid}: more than a second's rent apart`);

// A request that was used, and one under another key, are refused with the contract's exit code; their sender keeps his money.
await assert.rejects(client.sendExternalMessage(giver, body), /exitcode=133/);
const forged = giver.createTransfer({ seqno: seqno + 1, secretKey: keyPairFromSeed(Buffer.alloc(32, 9)).secretKey, sendMode: 3,
  messages: [internal({ to: second.address, value: 1n })] });
await assert.rejects(client.sendExternalMessage(giver, forged), /exitcode=135/);
await assert.rejects(client.sendFile(Buffer.from('no bag of cells')), /bag of cells/);
console.log('ok');
