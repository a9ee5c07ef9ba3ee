// What operations cost with everything counted: the wallet (v5R1) and its external message, every contract, every forward fee, and the
// owner's receipt of the payment; 100 keys in the Provider and 64 entries in the Channel.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keyPairFromSeed, sha256_sync } from '@ton/crypto';
import { toNano } from '@ton/core';
import { taken, within } from './support/acts.mjs';
import { DAY, NOW, World } from './support/world.mjs';

const key = (n) => keyPairFromSeed(sha256_sync(`enclave ${n}`));

async function attested(w, keys) {
    for (let n = 0; n < keys; n++) taken(await w.attest({ enclaveKey: key(n).publicKey }), w.provider);
}

const item = (n, sequence, repeated = false, cap = '2') => ({ enclave: key(n), repeated, voucher: { cap: toNano(cap) },
    receipt: { sequence, total: toNano('0.01') * BigInt(sequence) } });

function cost(w, result) {
    const all = result.transactions;
    const gas = all.reduce((sum, t) => sum + (t.description.computePhase?.gasUsed ?? 0n), 0n);
    return { gas: Number(gas), fees: Number(result.fees - w.rent(result)), steps: all.map((t) => Number(t.description.computePhase?.gasUsed ?? 0n)) };
}

test('claims cost what the documents say', async (t) => {
    const w = await World.create({ wallets: true });
    await attested(w, 100);
    const show = (name, result) => {
        const c = cost(w, taken(result, w.channel));
        t.diagnostic(`${name}: ${c.fees / 1e9} TON, gas ${c.gas} = ${c.steps.join(' + ')}`);
        return c.fees;
    };
    const all = (name, found, limit) => {
        const mean = found.reduce((sum, f) => sum + f, 0) / found.length;
        t.diagnostic(`${name}: ${(mean / 1e9).toFixed(5)} TON, mean of ${found.length} keys; the dearest ${Math.max(...found) / 1e9}, at most ${limit}`);
        for (const f of found) assert.ok(f <= Number(toNano(limit)), `${name}: ${f / 1e9} of ${limit}`);
        return mean;
    };
    const one = async (i) => cost(w, taken(await w.claim([i]), w.channel)).fees;

    // Small channels: of one client and one enclave each.
    const [only, onlyAgain] = [[], []];
    for (let n = 0; n < 16; n++) {
        w.openAnother(1000 + n);
        await w.topUp(toNano('1'));
        only.push(await one(item(n, 1)));
        onlyAgain.push(await one(item(n, 2, true)));
    }
    all('first claim of a channel', only, '0.014');
    all('repeated, a channel of one enclave', onlyAgain, '0.010');

    w.openAnother(7);
    await w.topUp(toNano('100'));
    const first = [];
    for (let n = 0; n < 64; n++) first.push(await one(item(n, 1)));
    assert.equal((await w.state()).entries, 64);
    await within(w, w.channel, 17000 + 64 * 700, 40 + 2 * 64);
    all('first claim of a key, 0 to 63 entries before', first, '0.014');
    const over = async (act) => {
        const found = [];
        for (let n = 0; n < 64; n++) found.push(await one(act(n)));
        return found;
    };
    const fresh = all('new voucher, 64 entries', await over((n) => item(n, 3, false, '3')), '0.014');
    const repeated = all('repeated, 64 entries', await over((n) => item(n, 4, true)), '0.012');
    for (const [name, alone, limit, items] of [
        ['five new vouchers', fresh, 0.007, [1, 2, 5, 6, 9].map((n) => item(n, 4, false, '3'))],
        ['eight repeated', repeated, 0.007, [10, 13, 14, 17, 18, 21, 22, 25].map((n) => item(n, 4, true))],
        // Past ten signature checks TON charges 4,000 gas for each further one.
        ['eight new vouchers', fresh, 0.007, [26, 29, 30, 33, 34, 37, 38, 41].map((n) => item(n, 4, false, '3'))],
    ]) {
        const fees = show(name, await w.claim(items));
        const further = (fees - alone) / (items.length - 1);
        t.diagnostic(`    each further key: ${further / 1e9} TON, at most ${limit}`);
        assert.ok(further <= limit * 1e9, name);
    }
});

for (const [verifiers, threshold, limit] of [[5, 3, '0.017'], [15, 9, '0.024']]) {
    test(`an attestation by ${threshold} of ${verifiers} costs what the documents say`, async (t) => {
        const w = await World.create({ wallets: true, verifiers, threshold });
        for (let n = 0; n < 100; n++) {
            const signers = Array.from({ length: threshold }, (_, i) => i);
            taken(await w.attest({ enclaveKey: key(n).publicKey }, signers), w.provider);
        }
        w.chain.now = NOW + 10;
        const signers = Array.from({ length: threshold }, (_, i) => verifiers - 1 - i);
        const renewal = cost(w, taken(await w.attest({ enclaveKey: key(50).publicKey, generation: 1, until: NOW + DAY + 5 }, signers), w.provider));
        const first = cost(w, taken(await w.attest({ enclaveKey: key(100).publicKey }, signers), w.provider));
        t.diagnostic(`first: ${first.fees / 1e9} TON, gas ${first.gas} = ${first.steps.join(' + ')}`);
        t.diagnostic(`renewal: ${renewal.fees / 1e9} TON, gas ${renewal.gas} = ${renewal.steps.join(' + ')}`);
        for (const c of [first, renewal]) assert.ok(c.fees <= Number(toNano(limit)));
    });
}
