// The Provider's life: keys that end, are revoked and forgotten; stake that backs them; and whose money comes back.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toNano } from '@ton/core';
import { keyOf } from './support/cells.mjs';
import { conserved, keyCount, prune, ready, refused, revoke, slash, stake, stakeOf, taken, unstake,
    withdraw } from './support/acts.mjs';
import { DAY, exitCode, NOW, OP, plain, World } from './support/world.mjs';

const LOCK = 7 * DAY + 3 * DAY + DAY; // longest attestation, claim window, a day

test('stake is deposited by anyone, unbonds, and comes back to the owner alone', async () => {
    const w = await ready();
    taken(await stake(w, toNano('10'), w.stranger), w.provider);
    const { stake: held } = await stakeOf(w);
    assert.ok(held > toNano('9.9') && held < toNano('10'), `${held}`);
    await refused(w, w.stranger, w.provider, 100, () => unstake(w, toNano('1'), { from: w.stranger }));
    await refused(w, w.stranger, w.provider, 100, () => withdraw(w, { from: w.stranger }));
    await refused(w, w.owner, w.provider, 127, () => unstake(w, held + 1n));
    taken(await conserved(w, () => unstake(w, toNano('4'))), w.provider);
    assert.deepEqual({ ...(await stakeOf(w)), free: 0n }, { stake: held - toNano('4'), unbonding: toNano('4'), unlocksAt: NOW + LOCK, free: 0n });

    let owner = await w.balance(w.owner.address);
    w.chain.now = NOW + LOCK - 1;
    taken(await withdraw(w), w.provider);
    assert.ok((await w.balance(w.owner.address)) - owner < toNano('0.4'), 'only what was neither stake nor rent');
    w.chain.now = NOW + LOCK;
    owner = await w.balance(w.owner.address);
    taken(await withdraw(w), w.provider);
    const got = (await w.balance(w.owner.address)) - owner;
    assert.ok(got > toNano('3.99') && got < toNano('4'), `${got}`);
    assert.equal((await stakeOf(w)).stake, held - toNano('4'));
    assert.ok((await w.balance(w.provider)) >= held - toNano('4'));
    // Nothing more to take.
    owner = await w.balance(w.owner.address);
    taken(await withdraw(w), w.provider);
    assert.ok((await w.balance(w.owner.address)) < owner);
});

test('a second unstaking makes the first wait too', async () => {
    const w = await ready();
    await stake(w, toNano('10'));
    await unstake(w, toNano('1'));
    w.chain.now = NOW + DAY;
    await unstake(w, toNano('2'));
    assert.deepEqual([(await stakeOf(w)).unbonding, (await stakeOf(w)).unlocksAt], [toNano('3'), NOW + DAY + LOCK]);
});

test('equivocation costs all stake, also what is unbonding: a fifth to the reporter, the rest burned', async () => {
    for (const [name, earlier, later] of [
        ['a total that falls', { sequence: 1, total: toNano('2') }, { sequence: 2, total: toNano('1') }],
        ['two totals of one number', { sequence: 1, total: toNano('1') }, { sequence: 1, total: toNano('2') }],
        ['two times of one number', { sequence: 1, time: NOW }, { sequence: 1, time: NOW + 1 }],
    ]) {
        const w = await ready();
        await stake(w, toNano('10'));
        await unstake(w, toNano('3'));
        const { stake: staked } = await stakeOf(w);
        const held = staked + toNano('3');
        const free = (await w.balance(w.provider)) - held;
        const reporter = await w.balance(w.stranger.address);
        const result = taken(await slash(w, earlier, later), w.provider);
        const reward = held / 5n;
        assert.equal((await w.balance(w.stranger.address)) - reporter, reward - result.fees + w.rent(result), name);
        assert.equal(await w.balance(w.provider), free - w.rent(result), name);
        const burned = result.transactions.flatMap((t) => [...t.outMessages.values()])
            .filter((m) => m.info.type === 'internal' && m.info.dest.hash.every((b) => b === 0));
        assert.equal(burned.length, 1);
        assert.equal(burned[0].info.value.coins, held - reward);
        assert.deepEqual([(await stakeOf(w)).stake, (await stakeOf(w)).unbonding], [0n, 0n]);
        assert.equal((await w.record()).state, 4);
        // Its claims are refused, it attests no more, and it is punished once.
        await refused(w, w.owner, w.provider, 122, () => w.claim());
        await refused(w, w.owner, w.provider, 122, () => w.attest({ generation: 1, until: NOW + DAY }));
        await refused(w, w.stranger, w.provider, 122, () => slash(w, earlier, later));
    }
});

test('two receipts that can both be true slash nobody', async () => {
    const w = await ready();
    await stake(w, toNano('10'));
    const a = { sequence: 1, total: toNano('1') };
    for (const [earlier, later] of [[a, { sequence: 2, total: toNano('2') }], [a, a], [{ sequence: 2, total: toNano('2') }, a],
        [a, { sequence: 2, total: toNano('1') }]]) {
        await refused(w, w.stranger, w.provider, 128, () => slash(w, earlier, later));
    }
    const b = { sequence: 2, total: 0n };
    await refused(w, w.stranger, w.provider, 133, () => slash(w, a, b, { signer: keyOf(0x51) }));
    await refused(w, w.stranger, w.provider, 124, () => slash(w, a, b, { enclave: keyOf(0x51) }));
    await refused(w, w.stranger, w.provider, 133, () => slash(w, { ...a, network: -239 }, { ...b, network: -239 }));
    await refused(w, w.stranger, w.provider, 133, () => slash(w, { ...a, provider: w.registry }, { ...b, provider: w.registry }));
    await refused(w, w.stranger, w.provider, 133, () => slash(w, a, { ...b, channel: w.registry }));
    await refused(w, w.stranger, w.provider, 101, () => slash(w, a, b, { value: toNano('0.01') }));
    assert.equal((await w.record()).state, 1);
});

test('slashing without stake still ends the key', async () => {
    const w = await ready();
    const before = await w.balance(w.provider);
    const result = taken(await slash(w, { sequence: 1, total: 2n }, { sequence: 2, total: 1n }), w.provider);
    assert.equal(await w.balance(w.provider), before - w.rent(result));
    assert.equal((await w.record()).state, 4);
});

test('a retired key attests no more and is paid until its window ends; a void one is not paid at all', async () => {
    const w = await ready();
    await refused(w, w.stranger, w.provider, 100, () => revoke(w, w.enclave.publicKey, false, { from: w.stranger }));
    await refused(w, w.owner, w.provider, 124, () => revoke(w, keyOf(0x51).publicKey, false));
    w.chain.now = NOW + 100;
    taken(await revoke(w, w.enclave.publicKey, false), w.provider);
    assert.deepEqual([(await w.record()).state, (await w.record()).until], [2, NOW + 100]);
    await refused(w, w.owner, w.provider, 122, () => revoke(w, w.enclave.publicKey, false));
    await refused(w, w.owner, w.provider, 122, () => w.attest({ generation: 1, until: NOW + DAY }));
    await refused(w, w.owner, w.channel, 134, () => w.claim([{ receipt: { time: NOW + 101 } }]));
    w.chain.now = NOW + 100 + 3 * DAY;
    await w.claim([{ receipt: { total: toNano('0.5'), time: NOW + 100 } }]);
    assert.equal((await w.paid()).paid, toNano('0.5'));
    taken(await revoke(w, w.enclave.publicKey, true), w.provider);
    await refused(w, w.owner, w.provider, 122, () => w.claim());
});

test('a retired key is paid no later than its claim window', async () => {
    const w = await ready();
    w.chain.now = NOW + 100;
    await revoke(w, w.enclave.publicKey, false);
    w.chain.now = NOW + 100 + 3 * DAY + 1;
    await refused(w, w.owner, w.provider, 135, () => w.claim());
});

test('a key is forgotten when nothing can need it any more; its entry in the Channel stays', async () => {
    const w = await ready();
    const key = w.enclave.publicKey;
    await w.claim([{ voucher: { expiry: NOW + 5 * DAY } }]);
    await refused(w, w.stranger, w.provider, 126, () => prune(w, key));
    w.chain.now = NOW + DAY + LOCK;
    await refused(w, w.stranger, w.provider, 126, () => prune(w, key));
    w.chain.now = NOW + DAY + LOCK + 1;
    taken(await prune(w, key), w.provider);
    assert.equal(await keyCount(w), 0);
    await refused(w, w.stranger, w.provider, 124, () => prune(w, key));
    assert.deepEqual([(await w.state()).entries, (await w.paid()).paid], [1, toNano('1')]);
});

test('a tombstone stays until no verdict and no receipt for the key can be valid', async () => {
    const w = await ready();
    w.chain.now = NOW + 50;
    await revoke(w, w.enclave.publicKey, true);
    w.chain.now = NOW + 50 + LOCK;
    await refused(w, w.stranger, w.provider, 126, () => prune(w, w.enclave.publicKey));
    w.chain.now += 1;
    taken(await prune(w, w.enclave.publicKey), w.provider);
});

test('a key that was forgotten and attested anew is not paid for its former life', async () => {
    const w = await ready();
    await w.claim([{ receipt: { total: toNano('0.5') } }]);
    const again = NOW + 13 * DAY;
    w.chain.now = again;
    taken(await prune(w, w.enclave.publicKey), w.provider);
    taken(await w.attest({ until: again + DAY, expiry: again }), w.provider);
    assert.equal((await w.record()).since, again - 600);
    const voucher = { expiry: again + DAY };
    await refused(w, w.owner, w.channel, 136, () => w.claim([{ voucher }]));
    await w.claim([{ voucher, receipt: { sequence: 2, time: again } }]);
    assert.equal((await w.paid()).paid, toNano('1'));
});

test('too little value is refused for every operation of a Provider', async () => {
    const w = await ready();
    const value = toNano('0.003');
    const key = w.enclave.publicKey;
    await refused(w, w.stranger, w.provider, 101, () => stake(w, value, w.stranger));
    await refused(w, w.owner, w.provider, 101, () => unstake(w, 0n, { value }));
    await refused(w, w.owner, w.provider, 101, () => withdraw(w, { value }));
    await refused(w, w.owner, w.provider, 101, () => revoke(w, key, false, { value }));
    await refused(w, w.stranger, w.provider, 101, () => prune(w, key, { value }));
    const released = plain(OP.releaseChannel).storeAddress(w.channel);
    await refused(w, w.owner, w.provider, 101, () => w.send(w.owner, w.provider, value, released));
    assert.equal((await w.state()).status, 0);
});

test('a second release brings its value back to the owner', async () => {
    const w = await ready();
    taken(await w.release(), w.channel);
    const [owner, channel] = [await w.balance(w.owner.address), await w.balance(w.channel)];
    const result = await conserved(w, () => w.release());
    assert.deepEqual([exitCode(result, w.provider), exitCode(result, w.channel)], [0, 140]);
    assert.equal(owner - (await w.balance(w.owner.address)), result.fees - w.rent(result));
    assert.equal(await w.balance(w.channel), channel - w.rent(result));
});
