// Contracts as large as they can become.

import assert from 'node:assert/strict';
import { beginCell, Dictionary, toNano } from '@ton/core';
import { keyPairFromSeed, sha256_sync } from '@ton/crypto';
import { createShardAccount } from '@ton/sandbox';
import { anchor, change, propose, size, taken } from './acts.mjs';
import { keyOf } from './cells.mjs';
import { CODE, DAY, IMAGE, MODEL, NOW, OP, plain, World } from './world.mjs';

export const range = (from, to) => Array.from({ length: to - from }, (_, i) => from + i);
export const enclave = (n) => keyPairFromSeed(sha256_sync(`enclave ${n}`));

/** The largest change: all sixteen verifiers. It differs from number to number. */
export const sixteen = (i, threshold = 1 + i) =>
    change.verifiers(range(0, 16).map((n) => keyOf(0x20 + 16 * (i % 8) + n + Math.floor(i / 8)).publicKey), threshold);

/** A Registry of sixteen verifiers, 256 images and 256 models, without checkpoints and proposals. */
export async function longLists({ threshold = 16, ...options } = {}) {
    const digests = (tag, known) => [known, ...range(1, 256).map((n) => sha256_sync(`${tag} ${n}`))];
    const w = await World.create({ ...options, verifiers: 16, threshold, images: digests('image', IMAGE), models: digests('model', MODEL) });
    await w.send(w.stranger, w.registry, toNano('1'), plain(OP.fund));
    return w;
}

/** The Registry with so many checkpoints more, and so many proposals of sixteen verifiers. */
export async function fill(w, checkpoints, proposals) {
    for (const index of range(0, checkpoints)) taken(await anchor(w, {}, { index }), w.registry);
    for (const i of range(0, proposals)) taken(await propose(w, sixteen(i), { value: toNano('0.3') }), w.registry);
}

/** The Provider as if it had attested these keys. */
export async function providerOf(w, keys) {
    const { data } = (await w.chain.getContract(w.provider)).account.account.storage.state.state;
    const rest = data.beginParse();
    const fixed = rest.loadBits(267 + 32);
    rest.loadMaybeRef();
    rest.skip(16);
    const record = { serialize: (_, b) => b.storeUint(1, 8).storeUint(NOW - 600, 32).storeUint(NOW + DAY - 60, 32).storeUint(0, 64)
        .storeUint(NOW + 12 * DAY, 32).storeUint(1, 256), parse: () => { throw new Error('not read'); } };
    const records = Dictionary.empty(Dictionary.Keys.BigUint(256), record);
    for (const { publicKey } of keys) records.set(BigInt('0x' + publicKey.toString('hex')), 0);
    const full = beginCell().storeBits(fixed).storeDict(records).storeUint(keys.length, 16).storeSlice(rest).endCell();
    const shard = createShardAccount({ address: w.provider, code: CODE.provider, data: full, balance: toNano('2') });
    await w.chain.setShardAccount(w.provider, shard);
    // As TON counts it: what its cell refers to, and that cell, which holds logical time, balance (four bytes) and the flags of the state.
    const { bits, cells } = await size(w, w.provider);
    const used = { bits: BigInt(bits + 64 + 4 + 32 + 1 + 6), cells: BigInt(cells + 1) };
    await w.chain.setShardAccount(w.provider, { ...shard, account: { ...shard.account, storageStats: { ...shard.account.storageStats, used, lastPaid: w.chain.now } } });
}

/** A Channel of so many entries, of the first keys. */
export async function channelOf(w, salt, entries) {
    w.openAnother(salt);
    await w.topUp(toNano('900'));
    for (let i = 0; i < entries; i += 5) {
        taken(await w.claim(range(i, Math.min(i + 5, entries)).map((n) => ({ enclave: enclave(n), receipt: { total: 1000n } }))), w.channel);
    }
    assert.equal((await w.state()).entries, entries);
}
