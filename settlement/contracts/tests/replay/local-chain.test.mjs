// Every transaction that the local chain's tests recorded, made again by TON's own emulator: same everything. The other way round is
// settlement/src/local/emulator_tests.rs.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { beginCell, Cell, Dictionary, loadMessage, loadShardAccount, loadTransaction } from '@ton/core';
import { Executor } from '@ton/sandbox';
import { NETWORK, OP } from '../support/world.mjs';

const folder = process.env.COCOON_TRACES && join(process.env.COCOON_TRACES, 'local-chain');
const CELL_UNDERFLOW = 9;
const FATAL = 12;

/** The parameters that the local chain runs on: mainnet's, under its own global id. */
function configuration() {
    const root = Cell.fromBoc(readFileSync(new URL('../../../data/mainnet-config.boc', import.meta.url)))[0];
    const params = root.beginParse().loadDictDirect(Dictionary.Keys.Int(32), Dictionary.Values.Cell());
    params.set(19, beginCell().storeInt(NETWORK, 32).endCell());
    return beginCell().storeDictDirect(params).endCell().toBoc().toString('base64');
}

const parse = (base64) => Cell.fromBase64(base64).beginParse();

/** What must be equal of a transaction. */
function outline(base64) {
    const { lt, prevTransactionLt, now, oldStatus, endStatus, totalFees, outMessages, address, description } =
        loadTransaction(parse(base64));
    return { address, lt, prevTransactionLt, now, oldStatus, endStatus, totalFees, messages: outMessages.size, description };
}

/** Where messages hold addresses that contracts read: the tag of the first cell that the body refers to where it is there, and the bit. */
const ADDRESSES = new Map([
    [OP.attest, [['434f4131', 64], ['434f4131', 64 + 267]]],
    [OP.propose, [['04', 8]]],
    [OP.revokeKey, [[null, 96]]],
    [OP.anchor, [['434f4b31', 64]]],
    [OP.releaseChannel, [[null, 96]]],
    [OP.revoke, [[null, 96 + 257]]],
    [OP.slash, [[null, 96 + 256]]],
]);

/** Whether a message holds another kind of address than a standard one in one of these places. */
function anotherAddress(message) {
    const { body } = loadMessage(message.beginParse());
    if (body.bits.length < 32) return false;
    return (ADDRESSES.get(body.beginParse().loadUint(32)) ?? []).some(([tag, bit]) => {
        const cell = tag === null ? body : body.refs[0];
        if (!cell || cell.isExotic || cell.bits.length < bit + 2) return false;
        const inside = tag === null || cell.beginParse().loadUint(4 * tag.length) === parseInt(tag, 16);
        return inside && cell.beginParse().skip(bit).loadUint(2) !== 0b10;
    });
}

/**
 * Makes of the local chain's transaction what the emulator says, where the difference is known and let through, and nowhere else.
 * docs/contracts.md lists them.
 */
function normalise(local, emulated, address) {
    const [compute, their] = [local, emulated].map((t) => t.description.computePhase);
    if (compute.type === 'vm') {
        compute.messageStateUsed = false;
        compute.accountActivated = false;
        if (address && compute.exitCode === FATAL && their.exitCode === CELL_UNDERFLOW) compute.exitCode = CELL_UNDERFLOW;
    }
    const [bounce, theirs] = [local, emulated].map((t) => t.description.bouncePhase);
    if (bounce?.type === 'no-funds' && theirs?.type === 'no-funds') bounce.requiredForwardFees = theirs.requiredForwardFees;
    return local;
}

/** The cells of the messages that a transaction sends. */
function messages(base64) {
    const inside = parse(base64).loadRef().beginParse();
    inside.loadMaybeRef();
    return inside.loadMaybeRef()?.hash().toString('hex');
}

/** What must be equal of an account: everything but the dictionary that only large accounts have. */
function state(base64) {
    const { account, lastTransactionLt } = loadShardAccount(parse(base64));
    if (!account) return { lastTransactionLt };
    const { storage, storageStats } = account;
    const { type, state } = storage.state;
    const hash = (cell) => cell?.hash().toString('hex');
    return { lastTransactionLt, address: account.addr.toString(), lastPaid: storageStats.lastPaid, duePayment: storageStats.duePayment, used: storageStats.used,
        lt: storage.lastTransLt, balance: storage.balance.coins, type, code: hash(state?.code), data: hash(state?.data),
        special: state?.special, depth: state?.splitDepth, frozen: storage.state.stateHash };
}

async function replay(executor, config, recorded) {
    const { result } = await executor.runTransaction({ config, libs: null, verbosity: 'short', shardAccount: recorded.before,
        message: Cell.fromBase64(recorded.message), now: recorded.now, lt: BigInt(recorded.lt),
        randomSeed: Buffer.from(recorded.seed, 'hex'), ignoreChksig: false, debugEnabled: false });
    assert.equal(result.success, recorded.transaction !== null, 'accepted');
    if (!result.success) {
        assert.equal(result.vmResults?.vmExitCode, recorded.exitCode, 'exit code of what is not accepted');
        return;
    }
    const emulated = outline(result.transaction);
    assert.deepEqual(emulated, normalise(outline(recorded.transaction), emulated, anotherAddress(Cell.fromBase64(recorded.message))));
    assert.equal(messages(result.transaction), messages(recorded.transaction), 'messages');
    assert.deepEqual(state(result.shardAccount), state(recorded.after));
}

test('every transaction of the local chain is the same on the emulator', async (t) => {
    if (!folder || !existsSync(folder)) {
        assert.ok(!process.env.CI, 'there is no trace of the local chain: run the tests of cocoon-settlement with COCOON_TRACES first');
        return t.skip('COCOON_TRACES names no folder with traces of the local chain');
    }
    const config = configuration();
    const executor = await Executor.create();
    const files = readdirSync(folder).sort();
    let count = 0;
    for (const file of files) {
        const lines = readFileSync(join(folder, file), 'utf8').split('\n').slice(0, -1);
        for (const [number, line] of lines.entries()) {
            try {
                await replay(executor, config, JSON.parse(line));
            } catch (error) {
                error.message = `${file}:${number + 1}: ${error.message}`;
                throw error;
            }
            count++;
        }
    }
    // What differs is noticed: another second is another transaction.
    const recorded = JSON.parse(readFileSync(join(folder, 'random-history.jsonl'), 'utf8').split('\n', 1)[0]);
    await assert.rejects(replay(executor, config, { ...recorded, now: recorded.now + 1 }), assert.AssertionError);
    t.diagnostic(`${count} transactions of ${files.length} files are equal`);
    assert.ok(files.includes('random-history.jsonl') && files.length > 40, `only ${files.length} files`);
    assert.ok(count > 9800, `only ${count} transactions were recorded`);
});

test('a known difference is let through one way only, and for its cause alone', () => {
    const exit = (exitCode) => ({ description: { computePhase: { type: 'vm', messageStateUsed: false, accountActivated: false, exitCode } } });
    const same = (local, emulated, address = true) => normalise(exit(local), exit(emulated), address).description.computePhase.exitCode === emulated;
    assert.ok(same(FATAL, CELL_UNDERFLOW) && same(FATAL, FATAL));
    assert.ok(!same(FATAL, CELL_UNDERFLOW, false));
    assert.ok(!same(CELL_UNDERFLOW, FATAL) && !same(FATAL, 0) && !same(0, CELL_UNDERFLOW));
});
