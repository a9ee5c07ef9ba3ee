// Nothing grows without rent paid for: whoever makes a contract larger leaves a year's rent of what it then is, at the network's own
// prices and for what TON itself counts; and a closed Channel holds what it needs until it may be deleted.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { contractAddress, toNano } from '@ton/core';
import { keyPairFromSeed, sha256_sync } from '@ton/crypto';
import { anchor, change, leaveOnly, prepaid, propose, refused, rentOf, taken, within } from './support/acts.mjs';
import { channelState, DAY, exitCode, NOW, OP, World } from './support/world.mjs';

const key = (n) => keyPairFromSeed(sha256_sync(`enclave ${n}`));

test('the first checkpoint of a log pays a year of the Registry, one that replaces another only its gas', async () => {
    const w = await World.create({ verifiers: 16, threshold: 9 });
    await leaveOnly(w, w.registry, toNano('0.001'));
    await refused(w, w.stranger, w.registry, 101, () => anchor(w, {}, { value: toNano('0.06') }));
    assert.equal((await w.get(w.registry, 'anchor', [{ type: 'int', value: 0n }])).readBoolean(), false);
    taken(await anchor(w), w.registry);
    await prepaid(w, w.registry);
    await leaveOnly(w, w.registry, toNano('0.001'));
    taken(await anchor(w, { treeSize: 11n }), w.registry);
    assert.equal(await w.balance(w.registry), toNano('0.001'));
    for (let index = 1; index < 16; index++) {
        await leaveOnly(w, w.registry, toNano('0.001'));
        taken(await anchor(w, {}, { index }), w.registry);
        await prepaid(w, w.registry);
    }
    // Sixteen verifiers and sixteen checkpoints: what rent is counted for.
    await within(w, w.registry, 28000 + 24000 + 2 * 600, 90 + 90 + 2 * 2);
});

test('a proposal and what it brings pay a year of the Registry', async () => {
    const w = await World.create();
    await leaveOnly(w, w.registry, toNano('0.001'));
    taken(await propose(w, change.allow(0, Buffer.alloc(32, 1)), { value: toNano('0.3') }), w.registry);
    await prepaid(w, w.registry);
});

test('every key that a Provider takes pays a year of it, up to the last', async () => {
    const w = await World.create();
    await leaveOnly(w, w.provider, toNano('0.001'));
    for (let n = 0; n < 512; n++) {
        taken(await w.attest({ enclaveKey: key(n).publicKey }), w.provider);
        if (n % 16 === 0 || n > 500) await prepaid(w, w.provider);
    }
    // A renewal makes nothing larger, and still brings it up to a year.
    await leaveOnly(w, w.provider, toNano('0.9'));
    w.chain.now = NOW + 60;
    taken(await w.attest({ enclaveKey: key(7).publicKey, generation: 1, until: NOW + DAY + 60 }), w.provider);
    await prepaid(w, w.provider);
    assert.equal(exitCode(await w.attest({ enclaveKey: key(512).publicKey }), w.provider), 123);
});

test('a Channel is not opened with less than a year of rent', async () => {
    const w = await World.create();
    const least = 30893000n + 1600000n; // sixteen entries for a year, and the gas
    await refused(w, w.client, w.channel, 101, () => w.topUp(least - 100000n));
    // TON leaves the account as it was sent, empty: it has taken no deposit.
    assert.deepEqual([(await w.state()).opened, await w.balance(w.channel)], [0, 0n]);
    taken(await w.topUp(least + 100000n), w.channel);
    await prepaid(w, w.channel);
    // Further deposits may be small.
    taken(await w.topUp(toNano('0.002')), w.channel);
});

test('a Channel that pays out everything holds a year of rent at each of its 256 entries', async () => {
    const w = await World.create();
    for (let n = 0; n < 256; n++) await w.attest({ enclaveKey: key(n).publicKey });
    await w.topUp(toNano('0.05'));
    const everything = (n) => ({ enclave: key(n), voucher: { cap: toNano('9') }, receipt: { total: toNano('9') } });
    let refusals = 0;
    for (let n = 0; n < 256; n++) {
        let result = await w.claim([everything(n)]);
        if (exitCode(result, w.channel) === 137) {
            refusals++;
            assert.equal((await w.state()).entries, n, 'it did not grow');
            await w.topUp(toNano('0.02'));
            result = await w.claim([everything(n)]);
        }
        taken(result, w.channel);
        assert.deepEqual([(await w.state()).entries, (await w.state()).available], [n + 1, 0n]);
        await prepaid(w, w.channel);
    }
    assert.equal(refusals, 15, 'once for sixteen entries');
    await within(w, w.channel, 17000 + 256 * 700, 40 + 2 * 256);
    assert.equal(exitCode(await w.claim([{ enclave: keyPairFromSeed(sha256_sync('one more')) }]), w.provider), 124);
});

test('what a year has eaten up is brought back before a Channel takes another key', async () => {
    const w = await World.create();
    await w.topUp(toNano('1'));
    const all = { voucher: { cap: toNano('9') }, receipt: { total: toNano('9') } };
    await w.attest();
    await w.claim([all]);
    assert.equal((await w.state()).available, 0n);
    w.chain.now = NOW + 300 * DAY;
    const [until, expiry] = [w.chain.now + DAY, w.chain.now + 3600];
    const later = { voucher: { cap: toNano('9'), expiry: until }, receipt: { sequence: 2, total: toNano('9'), time: w.chain.now } };
    for (const n of [1, 2]) await w.attest({ enclaveKey: key(n).publicKey, until, expiry });
    await w.attest({ generation: 1, until, expiry });
    const held = await w.balance(w.channel);
    // Between two steps of rent too.
    await refused(w, w.owner, w.channel, 137, () => w.claim([{ ...later, enclave: key(1) }]));
    await refused(w, w.owner, w.channel, 137, () => w.claim([later, { ...later, enclave: key(1) }]));
    // A key that it knows makes it no larger: refused is nothing, paid is nothing.
    taken(await w.claim([later]), w.channel);
    assert.deepEqual([(await w.state()).entries, (await w.balance(w.channel)) < held], [1, true]);
    taken(await w.topUp(toNano('0.5')), w.channel);
    taken(await w.claim([{ ...later, enclave: key(1) }, { ...later, enclave: key(2) }]), w.channel);
    assert.deepEqual([(await w.state()).entries, (await w.state()).available], [3, 0n]);
    await prepaid(w, w.channel);
});

test('a closed Channel owes nothing when it may be deleted, and for a month longer', async () => {
    for (const closeDelay of [0, 3 * DAY, 90 * DAY]) {
        const w = await World.create();
        w.channelInit = channelState({ provider: w.provider, owner: w.owner.address, client: w.client.address,
            clientKey: w.clientKeys.publicKey, closeDelay });
        w.channel = contractAddress(0, w.channelInit);
        await w.attest();
        await w.topUp(toNano('5'));
        await w.claim();
        await w.startClose();
        w.chain.now += closeDelay;
        taken(await w.finishClose(), w.channel);
        const stays = 7 * DAY + closeDelay + 30 * DAY;
        const [holds, needs] = [await w.balance(w.channel), await rentOf(w, w.channel, stays)];
        assert.ok(holds >= needs, `${holds} of ${needs}`);
        assert.ok(holds < toNano('0.02'), `${holds}`);
        const client = await w.balance(w.client.address);
        w.chain.now += stays;
        const result = taken(await w.call(OP.delete, w.stranger, w.channel), w.channel);
        const tx = result.transactions.find((t) => t.inMessage?.info.dest?.equals(w.channel));
        assert.equal(tx.description.storagePhase.storageFeesDue ?? 0n, 0n);
        assert.ok((await w.balance(w.client.address)) > client);
    }
});
