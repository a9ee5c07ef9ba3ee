// What governance, owners and strangers do beyond the main job, and how a refusal is checked.

import assert from 'node:assert/strict';
import { beginCell, toNano } from '@ton/core';
import { checkpointCell, receiptCell, signCell } from './cells.mjs';
import { DAY, exitCode, NETWORK, NOW, OP, plain, verifierDict, World } from './world.mjs';

export async function ready(options) {
    const w = await World.create(options);
    await w.attest();
    await w.topUp(toNano('5'));
    return w;
}

/** The message is refused by `at` with `code`, and `sender` has everything but the fees; the contracts pay their own rent. */
export async function refused(w, sender, at, code, act) {
    const before = await w.balance(sender.address);
    const result = await act();
    assert.equal(exitCode(result, at), code);
    assert.equal(before - (await w.balance(sender.address)), result.fees - w.rent(result));
    return result;
}

/** The message is taken by `at`, and nothing in its trace fails; what is burned arrives where no contract is. */
export function taken(result, at) {
    assert.equal(exitCode(result, at), 0);
    for (const tx of result.transactions) assert.ok(!tx.description.aborted || tx.address === 0n);
    return result;
}

/** Nothing but fees leaves the world while `act` runs. */
export async function conserved(w, act) {
    const before = await w.total();
    const result = await act();
    assert.equal(before - (await w.total()), result.fees);
    return result;
}

/** Bits and distinct cells of an account's code and data: what its rent is for. */
export async function size(w, address) {
    const { code, data } = (await w.chain.getContract(address)).account.account.storage.state.state;
    const seen = new Set();
    let bits = 0;
    const walk = (cell) => {
        const hash = cell.hash().toString('hex');
        if (seen.has(hash)) return;
        seen.add(hash);
        bits += cell.bits.length;
        cell.refs.forEach(walk);
    };
    [code, data].forEach(walk);
    return { bits, cells: seen.size };
}

/** No account is larger than what its contract holds rent for. */
export async function within(w, address, bits, cells) {
    const found = await size(w, address);
    assert.ok(found.bits <= bits && found.cells <= cells, `${JSON.stringify(found)} of ${bits}, ${cells}`);
}

/** Rent of an account as it is now. Mainnet's prices: one for a bit, 500 for a cell, in 1/65536 nanoton a second. */
export async function rentOf(w, address, seconds = 365 * DAY) {
    const { used } = (await w.chain.getContract(address)).account.account.storageStats;
    return (BigInt(used.bits) + 500n * BigInt(used.cells)) * BigInt(seconds) / 65536n + 1n;
}

/** The account holds a year's rent of what it is, beyond what it owes. */
export async function prepaid(w, address) {
    const { duePayment } = (await w.chain.getContract(address)).account.account.storageStats;
    const [holds, needs] = [(await w.balance(address)) - (duePayment ?? 0n), await rentOf(w, address)];
    assert.ok(holds >= needs, `${holds} of ${needs}`);
}

/** Leaves an account so much, and all else as it is: what TON counts of its size too. */
export async function leaveOnly(w, address, coins) {
    const shard = (await w.chain.getContract(address)).account;
    const { storage, storageStats } = shard.account;
    const account = {
        ...shard.account,
        storage: { ...storage, balance: { ...storage.balance, coins } },
        storageStats: { ...storageStats, lastPaid: w.chain.now },
    };
    await w.chain.setShardAccount(address, { ...shard, account });
}

// ---- governance

export const change = {
    verifiers: (keys, threshold) => beginCell().storeUint(1, 8).storeUint(threshold, 8).storeDict(verifierDict(keys)).endCell(),
    allow: (list, digest) => beginCell().storeUint(2, 8).storeUint(list, 8).storeBuffer(digest, 32).endCell(),
    maxLifetime: (seconds) => beginCell().storeUint(3, 8).storeUint(seconds, 32).endCell(),
    governance: (address) => beginCell().storeUint(4, 8).storeAddress(address).endCell(),
    timeLock: (seconds) => beginCell().storeUint(5, 8).storeUint(seconds, 32).endCell(),
    release: (version, provider, channel) => beginCell().storeUint(6, 8).storeUint(version, 32).storeBuffer(provider, 32)
        .storeBuffer(channel, 32).endCell(),
};

const governed = (w, body, { from = w.governance, value = toNano('0.1') } = {}) => w.send(from, w.registry, value, body);

export const propose = (w, cell, options) => governed(w, plain(OP.propose).storeRef(cell), options);
export const execute = (w, id, options) => governed(w, plain(OP.execute).storeUint(id, 32), { from: w.stranger, ...options });
export const cancel = (w, id, options) => governed(w, plain(OP.cancel).storeUint(id, 32), options);
export const forbid = (w, list, digest, options) => governed(w, plain(OP.forbid).storeUint(list, 8).storeBuffer(digest, 32), options);
export const tighten = (w, { drop = 0, threshold, maxLifetime }, options) =>
    governed(w, plain(OP.tighten).storeUint(drop, 16).storeUint(threshold, 8).storeUint(maxLifetime, 32), options);
export const revokeKey = (w, key, isVoid, options) =>
    governed(w, plain(OP.revokeKey).storeAddress(w.provider).storeBuffer(key, 32).storeBit(isVoid), options);

export function anchor(w, fields = {}, { index = 0, keys = w.verifiers[index], from = w.stranger, value } = {}) {
    const cell = checkpointCell({ network: NETWORK, registry: w.registry, origin: Buffer.alloc(32, 0x44), treeSize: 10n,
        root: Buffer.alloc(32, 0x55), time: NOW, ...fields });
    return governed(w, plain(OP.anchor).storeUint(index, 8).storeRef(cell).storeBuffer(signCell(cell, keys), 64), { from, value });
}

export async function params(w) {
    const s = await w.get(w.registry, 'params');
    return { version: s.readNumber(), network: s.readNumber(), governance: s.readAddress(), timeLock: s.readNumber(),
        setEpoch: s.readNumber(), threshold: s.readNumber(), maxLifetime: s.readNumber() };
}

export async function proposals(w) {
    const s = await w.get(w.registry, 'proposals');
    return { next: s.readNumber(), any: s.readCellOpt() !== null };
}

// ---- Provider

const own = (w, body, { from = w.owner, value = toNano('0.1') } = {}) => w.send(from, w.provider, value, body);

export const stake = (w, value, from = w.owner) => own(w, plain(OP.stake), { from, value });
export const unstake = (w, amount, options) => own(w, plain(OP.unstake).storeUint(amount, 64), options);
export const withdraw = (w, options) => own(w, plain(OP.withdraw), options);
export const revoke = (w, key, isVoid, { payer = w.owner, ...options } = {}) =>
    own(w, plain(OP.revoke).storeBuffer(key, 32).storeBit(isVoid).storeAddress(payer.address), options);
export const prune = (w, key, options) => own(w, plain(OP.prune).storeBuffer(key, 32), { from: w.stranger, ...options });

export function slash(w, earlier, later, { enclave = w.enclave, signer = enclave, channel = w.channel, ...options } = {}) {
    const signed = (fields) => {
        const r = w.receipt({ enclaveKey: enclave.publicKey, channel, ...fields });
        return beginCell().storeUint(r.sequence, 64).storeUint(r.total, 64).storeUint(r.time, 32)
            .storeBuffer(signCell(receiptCell(r), signer), 64).endCell();
    };
    return own(w, plain(OP.slash).storeBuffer(enclave.publicKey, 32).storeAddress(channel).storeRef(signed(earlier))
        .storeRef(signed(later)), { from: w.stranger, ...options });
}

export async function stakeOf(w) {
    const s = await w.get(w.provider, 'stake');
    return { stake: s.readBigNumber(), unbonding: s.readBigNumber(), unlocksAt: s.readNumber(), free: s.readBigNumber() };
}

export const keyCount = async (w) => (await w.get(w.provider, 'key_count')).readNumber();
