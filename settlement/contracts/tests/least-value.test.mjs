// The least value that a contract asks for is enough for what it then does, on contracts as large as they can become: with exactly that every
// operation that people send is carried out to the end of its trace, and with one nanoton less it is refused (101). A bound of gas that were
// too low would show: what runs out of gas burns what the message carries.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toNano } from '@ton/core';
import { anchor, cancel, change, execute, forbid, leaveOnly, propose, prune, refused, revoke, revokeKey, slash, stake, taken, tighten, unstake,
    withdraw } from './support/acts.mjs';
import { channelOf, enclave, fill, longLists, providerOf, range, sixteen } from './support/largest.mjs';
import { DAY, IMAGE, MODEL, NOW, OP, plain } from './support/world.mjs';

// Mainnet's prices in nanoton, and the bounds of the contracts.
const gas = (units) => 400n * BigInt(units);
const forward = (bits, cells) => 400000n + 400n * BigInt(bits) + 40000n * BigInt(cells);
const rent = (bits, cells, seconds) => (BigInt(bits + 500 * cells) * BigInt(seconds) + 65535n) / 65536n;
const NOTICE = forward(600, 1);
const GOVERN = gas(70000) + NOTICE;
const ANCHOR = gas(15000) + NOTICE;
const OWN = gas(20000) + NOTICE;
const CLOSE = gas(8000) + NOTICE;
const attestValue = (threshold) => gas(9000 + 6000 * threshold + 20000) + forward(1000, 1) + NOTICE;
const claimValue = (items) => BigInt(items) * (gas(25000) + 2n * forward(1900, 2));

/** The contract at `at` refuses one nanoton less than `value`, and with it the message reaches `end`; the world is then as it was. */
async function least(w, from, at, value, send, end = at) {
    const whole = w.chain.snapshot();
    await refused(w, from, w[at], 101, () => send(value - 1n));
    taken(await send(value), w[end]);
    await w.chain.loadFrom(whole);
}

test('governance: the least value is enough on the largest Registry', async () => {
    const w = await longLists({ threshold: 1 });
    const [govern, anyone] = [(...args) => least(w, w.governance, 'registry', ...args), (...args) => least(w, w.stranger, 'registry', ...args)];
    await w.send(w.stranger, w.registry, toNano('2'), plain(OP.fund));
    await providerOf(w, range(0, 512).map(enclave));
    await fill(w, 15, 15);

    await govern(GOVERN, (value) => propose(w, sixteen(15), { value }));
    await fill(w, 0, 1);
    // What it lacks of its rent comes on top of the same bound, which is asked for at last: what is only enough for a later checkpoint is
    // refused by it, and does not run out of gas on the way.
    await anyone(GOVERN, (value) => anchor(w, {}, { index: 15, value }));
    await refused(w, w.stranger, w.registry, 101, () => anchor(w, {}, { index: 15, value: ANCHOR }));
    taken(await anchor(w, {}, { index: 15 }), w.registry);
    for (const index of [0, 7, 15]) await anyone(ANCHOR, (value) => anchor(w, { treeSize: 11n }, { index, value }));

    for (const id of [0, 7, 15]) await govern(GOVERN, (value) => cancel(w, id, { value }));
    await govern(GOVERN, (value) => forbid(w, 0, IMAGE, { value }));
    await govern(GOVERN, (value) => forbid(w, 1, MODEL, { value }));
    for (const left of [0, 8, 15]) {
        await govern(GOVERN, (value) => tighten(w, { drop: 0xffff ^ (1 << left), threshold: 1, maxLifetime: 3600 }, { value }));
    }
    const revokeValue = gas(8000 + 20000) + forward(1000, 1) + NOTICE;
    for (const n of range(0, 4)) {
        await govern(revokeValue, (value) => revokeKey(w, enclave(128 * n).publicKey, true, { value }), 'provider');
    }
    w.chain.now = NOW + 2 * DAY;
    await w.send(w.stranger, w.registry, toNano('2'), plain(OP.fund));
    for (const id of [0, 7, 15]) await anyone(GOVERN, (value) => execute(w, id, { value }));
});

test('governance without a time-lock: the least value is enough on the largest Registry', async () => {
    const w = await longLists({ threshold: 1 });
    const govern = (...args) => least(w, w.governance, 'registry', ...args);
    await w.send(w.stranger, w.registry, toNano('2'), plain(OP.fund));
    await fill(w, 16, 15);
    taken(await propose(w, change.timeLock(0)), w.registry);
    w.chain.now = NOW + 2 * DAY;
    taken(await execute(w, 15), w.registry);
    taken(await forbid(w, 0, IMAGE), w.registry);
    await w.send(w.stranger, w.registry, toNano('2'), plain(OP.fund));
    for (const cell of [sixteen(15), change.allow(0, IMAGE), change.allow(1, MODEL), change.maxLifetime(60), change.governance(w.stranger.address),
        change.timeLock(DAY), change.release(1, IMAGE, MODEL)]) await govern(GOVERN, (value) => propose(w, cell, { value }));
});

test('a Registry that holds less than a year of rent asks for what it lacks besides', async () => {
    for (const [by, proposals, send] of [
        ['governance', 9, (w, value) => propose(w, sixteen(8), { value })],
        ['stranger', 8, (w, value) => execute(w, 8, { value })],
        ['stranger', 8, (w, value) => anchor(w, {}, { index: 15, value })],
    ]) {
        const w = await longLists({ threshold: 1 });
        const executes = send.toString().includes('execute');
        await fill(w, 15, executes ? 9 : 8);
        if (executes) w.chain.now = NOW + 2 * DAY;
        await leaveOnly(w, w.registry, toNano('0.1'));
        const lacks = rent(28000 + 24000 + 5200 * proposals + 600 * 512, 90 + 90 + 34 * proposals + 2 * 512, 365 * DAY) - toNano('0.1');
        await least(w, w[by], 'registry', lacks + GOVERN, (value) => send(w, value));
    }
});

test('attestations: the least value is enough for sixteen signatures and 512 keys', async () => {
    const w = await longLists();
    await fill(w, 16, 16);
    await providerOf(w, range(0, 511).map(enclave));
    const signers = range(0, 16);
    const owner = (send) => least(w, w.owner, 'registry', attestValue(16), send, 'provider');
    assert.equal((await w.get(w.registry, 'attest_value')).readBigNumber(), attestValue(16));
    await owner((value) => w.attest({ enclaveKey: enclave(511).publicKey }, signers, { value }));
    await providerOf(w, range(0, 512).map(enclave));
    for (const n of range(0, 4)) {
        await owner((value) => w.attest({ enclaveKey: enclave(128 * n).publicKey, generation: 1 }, [...signers].reverse(), { value }));
    }
});

test('the owner of a Provider: the least value is enough for 512 keys', async () => {
    const w = await longLists();
    await providerOf(w, range(0, 512).map(enclave));
    await w.topUp(toNano('5'));
    const owner = (...args) => least(w, w.owner, 'provider', ...args);
    const anyone = (...args) => least(w, w.stranger, 'provider', ...args);
    // Of a stake the gas is asked for, and one nanoton that can be stake.
    await anyone(gas(20000) + 1n, (value) => stake(w, value, w.stranger));
    taken(await stake(w, toNano('10')), w.provider);
    await owner(OWN, (value) => unstake(w, toNano('4'), { value }));
    taken(await unstake(w, toNano('4')), w.provider);
    await owner(OWN, (value) => withdraw(w, { value }));
    for (const n of range(0, 4)) {
        await owner(OWN, (value) => revoke(w, enclave(128 * n).publicKey, true, { value }));
        await anyone(gas(25000) + 2n * NOTICE,
            (value) => slash(w, { sequence: 1, total: 2n }, { sequence: 2, total: 1n }, { enclave: enclave(128 * n), value }));
    }
    await least(w, w.owner, 'provider', gas(5000) + forward(100, 1) + gas(8000) + NOTICE, (value) => w.release(w.owner, value), 'channel');
    w.chain.now = NOW + 12 * DAY + 1;
    await owner(OWN, (value) => withdraw(w, { value }));
    for (const n of range(0, 4)) await anyone(OWN, (value) => prune(w, enclave(128 * n).publicKey, { value }));
});

test('claims: the least value is enough for 512 keys and 256 entries', async () => {
    const w = await longLists();
    await providerOf(w, range(0, 512).map(enclave));
    await channelOf(w, 1, 250);
    let turn = 1;
    const claims = async (numbers, isNew) => {
        turn++;
        const items = numbers.map((n, j) => ({ enclave: enclave(n), repeated: j >= isNew, voucher: { cap: toNano('9') + BigInt(turn) },
            receipt: { sequence: 100000 + turn, total: toNano('1') + toNano('0.01') * BigInt(turn) } }));
        const value = claimValue(numbers.length);
        assert.equal((await w.get(w.provider, 'claim_value', [{ type: 'int', value: BigInt(numbers.length) }])).readBigNumber(), value);
        await least(w, w.owner, 'provider', value, (v) => w.claim(items, { value: v }), 'channel');
    };
    for (const count of [1, 2, 5]) await claims(range(250, 250 + count), count);
    const paid = async (numbers) => taken(await w.claim(numbers.map((n) => ({ enclave: enclave(n), receipt: { total: 1000n } }))), w.channel);
    await paid(range(250, 255));
    await claims([255], 1);
    await paid([255]);
    for (const b of range(0, 3)) {
        for (const [count, isNew] of [[1, 1], [1, 0], [5, 5], [6, 4], [7, 3], [8, 2], [8, 0]]) {
            await claims(range(0, count).map((j) => (b * 29 + j * 41) % 256), isNew);
        }
    }
});

test('the client of a Channel: the least value is enough for 256 entries', async () => {
    const w = await longLists();
    await providerOf(w, range(0, 256).map(enclave));
    w.openAnother(2);
    // A year's rent of sixteen entries, and the gas.
    await least(w, w.client, 'channel', rent(17000 + 16 * 700, 40 + 2 * 16, 365 * DAY) + gas(4000), (value) => w.topUp(value));
    await channelOf(w, 1, 256);
    const client = (value, send) => least(w, w.client, 'channel', value, send);
    const close = (op) => (value) => w.call(op, w.client, w.channel, value);
    await client(gas(4000), (value) => w.topUp(value));
    await client(CLOSE, close(OP.startClose));
    taken(await w.startClose(), w.channel);
    w.chain.now = NOW + 3 * DAY;
    await client(CLOSE, close(OP.finishClose));
    taken(await w.finishClose(), w.channel);
    w.chain.now += 10 * DAY + 1;
    await client(CLOSE, close(OP.delete));
});
