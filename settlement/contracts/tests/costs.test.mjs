// What operations cost with everything counted: the wallet (v5R1) and its external message, every contract, every forward fee, and the
// owner's receipt of the payment; 100 keys in the Provider, and receipts of the hundred-thousandth request for several TON.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keyPairFromSeed, sha256_sync } from '@ton/crypto';
import { toNano } from '@ton/core';
import { taken, within } from './support/acts.mjs';
import { DAY, NOW, World } from './support/world.mjs';

const KEYS = 100;
const PUBLISHED = "for comparison, Cocoon's published figure: about 0.01 TON per operation of its own contracts (a charge, a top-up or a payout between one "
    + 'client or worker and one proxy, signed by the proxy)';
const key = (n) => keyPairFromSeed(sha256_sync(`enclave ${n}`));
const range = (from, to) => Array.from({ length: to - from }, (_, i) => from + i);

function cost(w, result) {
    const all = result.transactions;
    const gas = all.reduce((sum, t) => sum + (t.description.computePhase?.gasUsed ?? 0n), 0n);
    return { gas: Number(gas), fees: Number(result.fees - w.rent(result)), steps: all.map((t) => Number(t.description.computePhase?.gasUsed ?? 0n)) };
}

async function attested() {
    const w = await World.create({ wallets: true });
    for (let n = 0; n < KEYS; n++) taken(await w.attest({ enclaveKey: key(n).publicKey }), w.provider);
    return w;
}

/** The key's receipt of this many requests after the hundred-thousandth, alone or under a new voucher. */
const item = (n, turn, repeated = false) => ({ enclave: key(n), repeated, voucher: { cap: toNano('9') + BigInt(turn) },
    receipt: { sequence: 100000 + turn, total: toNano('4') + toNano('0.01') * BigInt(turn) } });
const claim = async (w, items) => cost(w, taken(await w.claim(items), w.channel)).fees;

/** None is dearer than the limit; gives their mean. */
function all(t, name, found, limit) {
    const mean = found.reduce((sum, f) => sum + f, 0) / found.length;
    const [least, most] = [Math.min(...found), Math.max(...found)].map((f) => (f / 1e9).toFixed(5));
    t.diagnostic(`${name}: ${(mean / 1e9).toFixed(5)} TON, ${least} to ${most}, of ${found.length}${limit ? `, at most ${limit}` : ''}`);
    if (limit) for (const f of found) assert.ok(f <= Number(toNano(limit)), `${name}: ${f / 1e9} of ${limit}`);
    return mean;
}

/** A Channel in which these keys have been paid once, five at a time. */
async function channelOf(w, salt, keys) {
    w.openAnother(salt);
    await w.topUp(toNano('900'));
    for (let i = 0; i < keys.length; i += 5) await claim(w, keys.slice(i, i + 5).map((n) => item(n, 0)));
    assert.equal((await w.state()).entries, keys.length);
}

test('claims in a channel of one enclave cost what the documents say, for every key', async (t) => {
    const w = await attested();
    const [first, again] = [[], []];
    for (let n = 0; n < KEYS; n++) {
        w.openAnother(1000 + n);
        await w.topUp(toNano('6'));
        first.push(await claim(w, [item(n, 0)]));
        again.push(await claim(w, [item(n, 50, true)]));
    }
    all(t, 'first claim of a channel', first, '0.014');
    all(t, 'repeated, a channel of one enclave', again, '0.010');
    t.diagnostic(PUBLISHED);
});

test('claims in a channel of 64 enclaves and more cost what the documents say, for every key', async (t) => {
    const w = await attested();
    const found = { growing: [], fresh: [], repeated: [], first: [] };
    const over = async (keys, list, act) => {
        for (const n of keys) list.push(await claim(w, [act(n)]));
    };
    for (const [salt, there, others] of [[7, range(0, 64), range(64, KEYS)], [8, range(36, KEYS), range(0, 36)]]) {
        w.openAnother(salt);
        await w.topUp(toNano('900'));
        await over(there, found.growing, (n) => item(n, 0));
        assert.equal((await w.state()).entries, 64);
        await within(w, w.channel, 17000 + 64 * 700, 40 + 2 * 64);
        await over(there, found.fresh, (n) => item(n, 1));
        await over(there, found.repeated, (n) => item(n, 2, true));
        await over(others, found.first, (n) => item(n, 0));
    }
    all(t, 'first claim of a key, 0 to 63 entries before', found.growing, '0.014');
    all(t, 'first claim of a key, 64 to 99 entries before', found.first, '0.014');
    all(t, 'new voucher, 64 entries', found.fresh, '0.014');
    all(t, 'repeated, 64 entries', found.repeated, '0.012');
});

test('further keys of a claim cost what the documents say, in every batch', async (t) => {
    const w = await attested();
    await channelOf(w, 7, range(0, 64));
    let turn = 0;
    const alone = { fresh: [], repeated: [] };
    for (const n of range(0, 32)) {
        alone.fresh.push(await claim(w, [item(n, ++turn)]));
        alone.repeated.push(await claim(w, [item(n, ++turn, true)]));
    }
    const fresh = all(t, 'a new voucher alone', alone.fresh);
    const repeated = all(t, 'repeated alone', alone.repeated);
    const batch = async (base, items) => ((await claim(w, items)) - base) / (items.length - 1);
    // Every mix that has as many signatures as one claim may have; the contract refuses more.
    for (const [name, count, isNew] of [
        ['five new vouchers', 5, 5],
        ['four new vouchers and two repeated', 6, 4],
        ['three new vouchers and four repeated', 7, 3],
        ['two new vouchers and six repeated', 8, 2],
        ['eight repeated', 8, 0],
    ]) {
        const found = [];
        for (let b = 0; b < 20; b++) {
            turn++;
            const keys = range(0, count).map((j) => (b * 7 + j * 13) % 64);
            found.push(await batch(isNew ? fresh : repeated, keys.map((n, j) => item(n, turn, j >= isNew))));
        }
        all(t, `${name}, each further key`, found, '0.007');
    }
    const found = [];
    for (const [salt, there, others] of [[8, range(0, 64), range(64, 99)], [9, range(36, KEYS), range(0, 35)]]) {
        await channelOf(w, salt, there);
        for (let i = 0; i < others.length; i += 5) found.push(await batch(fresh, others.slice(i, i + 5).map((n) => item(n, 1))));
    }
    all(t, 'first claims of five keys, 64 entries and more, each further key', found, '0.007');
});

for (const [verifiers, threshold, limit, mostGas] of [[5, 3, '0.017', 29000], [15, 9, '0.024', 36000]]) {
    test(`an attestation by ${threshold} of ${verifiers} costs what the documents say`, async (t) => {
        const w = await World.create({ wallets: true, verifiers, threshold });
        const found = { first: [], renewal: [] };
        const gas = { first: [], renewal: [] };
        const note = (kind, c) => {
            found[kind].push(c.fees);
            gas[kind].push(c.gas);
        };
        const lowest = Array.from({ length: threshold }, (_, i) => i);
        for (let n = 0; n < KEYS; n++) note('first', cost(w, taken(await w.attest({ enclaveKey: key(n).publicKey }, lowest), w.provider)));
        w.chain.now = NOW + 10;
        const highest = lowest.map((i) => verifiers - 1 - i);
        for (let n = 0; n < KEYS; n++) {
            const renewal = { enclaveKey: key(n).publicKey, generation: 1, until: NOW + DAY + 5 };
            note('renewal', cost(w, taken(await w.attest(renewal, highest), w.provider)));
        }
        for (const kind of ['first', 'renewal']) {
            all(t, kind, found[kind], limit);
            t.diagnostic(`${kind}: gas ${Math.min(...gas[kind])} to ${Math.max(...gas[kind])}, at most ${mostGas}`);
            for (const used of gas[kind]) assert.ok(used <= mostGas, `${kind}: gas ${used}`);
        }
    });
}
