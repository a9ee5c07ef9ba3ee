// Contracts that nobody touched for years owe rent. TON takes it from what an account holds. A message that can bounce is credited after
// that, so its value is not touched; one that cannot is credited before, and pays the debt first. Every operation does what it does
// without a debt all the same: what is owed comes out of what is in the account, which of a message that cannot bounce is its value.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { contractAddress, toNano } from '@ton/core';
import { keyPairFromSeed, sha256_sync } from '@ton/crypto';
import { anchor, cancel, change, conserved, execute, forbid, prepaid, proposals, propose, prune, ready, rentOf, revoke, revokeKey, slash, stake, stakeOf, taken, tighten,
    unstake, withdraw } from './support/acts.mjs';
import { channelState, DAY, exitCode, IMAGE, NOW, OP, plain, World } from './support/world.mjs';

const DEBT = 60000000;

/** Lets years pass until the account holds nothing and owes so much, 0.06 TON; at 0.1 it would be frozen. */
async function inDebt(w, address, debt = DEBT) {
    const { used, lastPaid } = (await w.chain.getContract(address)).account.account.storageStats;
    const perSecond = Number(used.bits + 500n * used.cells) / 65536;
    w.chain.now = lastPaid + Math.ceil((Number(await w.balance(address)) + debt) / perSecond);
    assert.ok(w.chain.now > NOW + 365 * DAY);
}

const due = async (w, address) => (await w.chain.getContract(address)).account.account.storageStats.duePayment ?? 0n;

test('a Channel in debt closes, and pays the debt out of a deposit', async () => {
    for (const deposit of [false, true]) {
        const w = await World.create();
        await w.topUp(toNano('0.05'));
        await inDebt(w, w.channel);
        if (deposit) taken(await conserved(w, () => w.topUp(toNano('1'))), w.channel);
        taken(await conserved(w, () => w.startClose()), w.channel);
        assert.equal((await due(w, w.channel)) === 0n, deposit);
        w.chain.now += 3 * DAY;
        const client = await w.balance(w.client.address);
        taken(await conserved(w, () => w.finishClose()), w.channel);
        assert.equal((await w.state()).status, 2);
        const back = (await w.balance(w.client.address)) - client;
        const least = deposit ? toNano('1') - BigInt(DEBT) : 0n;
        assert.ok(back > least - toNano('0.02') && back < least + toNano('0.01'), `${back}`);
    }
});

test('a Provider in debt takes stake, gives it back less the debt, and burns what is there', async () => {
    for (const slashed of [false, true]) {
        const w = await ready();
        await inDebt(w, w.provider);
        taken(await conserved(w, () => stake(w, toNano('2'))), w.provider);
        const { stake: all } = await stakeOf(w);
        assert.ok(all > toNano('1.99') && all <= (await w.balance(w.provider)));
        const owner = await w.balance(w.owner.address);
        if (slashed) {
            taken(await slash(w, { sequence: 1, total: 2n }, { sequence: 2, total: 1n }), w.provider);
            assert.equal((await stakeOf(w)).stake, 0n);
        } else {
            taken(await conserved(w, () => unstake(w, all)), w.provider);
            w.chain.now += 12 * DAY;
            taken(await conserved(w, () => withdraw(w)), w.provider);
            const back = (await w.balance(w.owner.address)) - owner;
            assert.ok(back > toNano('1.8') && back < toNano('2') - BigInt(DEBT), `${back}`);
        }
        assert.equal(await due(w, w.provider), 0n);
    }
});

test('Registry and Provider in debt attest, and the Channel pays a claim', async () => {
    for (const indebted of ['registry', 'provider']) {
        const w = await World.create();
        const [other] = ['registry', 'provider'].filter((name) => name !== indebted);
        await w.send(w.owner, w[other], toNano('10'), plain(OP.fund));
        await inDebt(w, w[indebted]);
        const [until, expiry] = [w.chain.now + DAY, w.chain.now + 3600];
        taken(await conserved(w, () => w.attest({ until, expiry })), w.provider);
        await prepaid(w, w.provider);
        await w.topUp(toNano('5'));
        taken(await conserved(w, () => propose(w, change.maxLifetime(3600), { value: toNano('0.9') })), w.registry);
        await prepaid(w, w.registry);
        const item = { voucher: { expiry: until }, receipt: { time: w.chain.now } };
        taken(await conserved(w, () => w.claim([item])), w.channel);
        assert.equal((await w.paid()).paid, toNano('1'));
    }
});

/** Operations of people besides attesting and claiming: who owes rent, what is done then, and what makes ready for it before. */
const operations = {
    propose: ['registry', (w) => propose(w, change.maxLifetime(3600), { value: toNano('0.9') })],
    cancel: ['registry', (w) => cancel(w, 0, { value: toNano('0.9') }), (w) => propose(w, change.maxLifetime(3600))],
    forbid: ['registry', (w) => forbid(w, 0, IMAGE, { value: toNano('0.9') })],
    tighten: ['registry', (w) => tighten(w, { threshold: 4, maxLifetime: DAY }, { value: toNano('0.9') })],
    revokeKey: ['registry', (w) => revokeKey(w, w.enclave.publicKey, true, { value: toNano('0.9') }),
        (w) => w.send(w.stranger, w.provider, toNano('100'), plain(OP.fund))],
    anchor: ['registry', (w) => anchor(w, {}, { value: toNano('0.9') })],
    releaseChannel: ['provider', (w) => w.release(w.owner, toNano('0.2')), (w) => w.topUp(toNano('100'))],
    fund: ['provider', (w) => w.send(w.stranger, w.provider, toNano('1'), plain(OP.fund))],
    stake: ['provider', (w) => stake(w, toNano('1'))],
    unstake: ['provider', (w) => unstake(w, 0n, { value: toNano('0.2') })],
    withdraw: ['provider', (w) => withdraw(w, { value: toNano('0.2') })],
    revoke: ['provider', (w) => revoke(w, w.enclave.publicKey, true, { value: toNano('0.2') })],
    prune: ['provider', (w) => prune(w, w.enclave.publicKey, { value: toNano('0.2') })],
    slash: ['provider', (w) => slash(w, { sequence: 1, total: 2n }, { sequence: 2, total: 1n }, { value: toNano('0.2') })],
    topUp: ['channel', (w) => w.topUp(toNano('1'))],
    startClose: ['channel', (w) => w.call(OP.startClose, w.client, w.channel, toNano('0.2'))],
    finishClose: ['channel', (w) => w.call(OP.finishClose, w.client, w.channel, toNano('0.2')), (w) => w.startClose()],
    delete: ['channel', (w) => w.call(OP.delete, w.client, w.channel, toNano('0.2')), async (w) => {
        await w.startClose();
        w.chain.now += 3 * DAY;
        await w.finishClose();
    }],
};
for (const [name, [at, act, prepare]] of Object.entries(operations)) {
    test(`${name} is taken by a contract in debt, whether its message can bounce or not`, async () => {
        for (const bounce of [true, false]) {
            const w = await World.create();
            await w.attest();
            await w.topUp(toNano('0.06'));
            await prepare?.(w);
            await inDebt(w, w[at]);
            w.bounce = bounce;
            const held = await w.balance(w[at]);
            const result = taken(await act(w), w[at]);
            const tx = result.transactions.find((t) => t.inMessage?.info.dest?.equals(w[at]));
            const { storageFeesCollected: collected, storageFeesDue: owed } = tx.description.storagePhase;
            assert.equal(tx.description.creditFirst, !bounce);
            // The debt is what the account holds no longer, and all of it is taken from a message that cannot bounce.
            assert.deepEqual(bounce ? [collected, owed > 0n] : [collected > held + 50000000n, owed ?? 0n], bounce ? [held, true] : [true, 0n], name);
        }
    });
}

// Years pass before there is a debt, and a proposal lapses in two weeks: so it is made when the debt is there. It leaves what pays for a
// year and the debt; the test takes away what is for the year.
test('execute is taken by a contract in debt, whether its message can bounce or not', async () => {
    for (const bounce of [true, false]) {
        const w = await World.create();
        await w.send(w.stranger, w.provider, toNano('100'), plain(OP.fund));
        await inDebt(w, w.registry, 95000000);
        taken(await propose(w, change.allow(1, IMAGE), { value: toNano('0.9') }), w.registry);
        await prepaid(w, w.registry);
        w.chain.now += 2 * DAY;
        w.bounce = bounce;
        const shard = await w.chain.getContract(w.registry);
        shard.balance = toNano('0.03');
        const held = await w.balance(w.registry);
        assert.ok(held < (await due(w, w.registry)));
        const result = taken(await conserved(w, () => execute(w, 0, { value: toNano('0.9') })), w.registry);
        const tx = result.transactions.find((t) => t.inMessage?.info.dest?.equals(w.registry));
        const { storageFeesCollected: collected, storageFeesDue: owed } = tx.description.storagePhase;
        assert.equal(tx.description.creditFirst, !bounce);
        assert.deepEqual(bounce ? [collected, owed > 0n] : [collected > held, owed ?? 0n], bounce ? [held, true] : [true, 0n]);
        assert.deepEqual(await proposals(w), { next: 1, any: false });
        // The model is allowed, and a year's rent is there again.
        const now = w.chain.now;
        w.bounce = true;
        taken(await w.attest({ modelRoot: IMAGE, until: now + DAY, expiry: now + 3600 }), w.provider);
        await prepaid(w, w.registry);
    }
});

test('a Channel in debt pays a claim out of a deposit', async () => {
    for (const bounce of [true, false]) {
        const w = await World.create();
        await w.topUp(toNano('0.06'));
        await inDebt(w, w.channel);
        await w.send(w.owner, w.provider, toNano('5'), plain(OP.fund));
        const [until, expiry] = [w.chain.now + DAY, w.chain.now + 3600];
        taken(await w.attest({ until, expiry }), w.provider);
        const item = { voucher: { expiry: until }, receipt: { time: w.chain.now } };
        // Nothing is there to pay for the rent of its entry.
        const empty = await w.claim([item]);
        assert.deepEqual([exitCode(empty, w.provider), exitCode(empty, w.channel)], [0, 137]);
        w.bounce = bounce;
        taken(await w.topUp(toNano('2')), w.channel);
        w.bounce = true;
        taken(await conserved(w, () => w.claim([item])), w.channel);
        assert.equal((await w.paid()).paid, toNano('1'));
        assert.equal(await due(w, w.channel), 0n);
    }
});

/** What `ops::close_value` attaches where rent may have eaten what a Channel holds: 0.05 TON, and its rent until a month after it may be deleted. */
function closeValue(entries, closeDelay) {
    const [bits, cells] = [BigInt(17000 + 700 * entries), BigInt(40 + 2 * entries)];
    return toNano('0.05') + (bits + 500n * cells) * BigInt(37 * DAY + closeDelay) / 65536n + 1n;
}

test('a Channel of 256 entries and the longest delay closes, however little rent has left of it', async () => {
    const w = await World.create();
    const closeDelay = 90 * DAY;
    w.channelInit = channelState({ provider: w.provider, owner: w.owner.address, client: w.client.address,
        clientKey: w.clientKeys.publicKey, closeDelay });
    w.channel = contractAddress(0, w.channelInit);
    await w.topUp(toNano('1'));
    const enclaves = Array.from({ length: 256 }, (_, n) => keyPairFromSeed(sha256_sync(`enclave ${n}`)));
    for (const { publicKey } of enclaves) taken(await w.attest({ enclaveKey: publicKey }), w.provider);
    for (let n = 0; n < 256; n += 5) {
        taken(await w.claim(enclaves.slice(n, n + 5).map((enclave) => ({ enclave, receipt: { total: 1000n } }))), w.channel);
    }
    await w.send(w.stranger, w.provider, toNano('5'), plain(OP.fund));
    const full = w.chain.snapshot();
    for (const released of [false, true]) {
        for (const debt of [0, 95000000]) {
            await w.chain.loadFrom(full);
            if (!released) {
                taken(await w.startClose(), w.channel);
                w.chain.now += closeDelay;
            }
            // Nothing is left, or less than nothing.
            await inDebt(w, w.channel, debt);
            const close = (value) => released ? w.release(w.owner, value) : w.call(OP.finishClose, w.client, w.channel, value);

            // With what is enough for others it cannot keep its rent and pay for the refund: nothing happens, and the message comes back.
            const { status } = await w.state();
            const result = await conserved(w, () => close(toNano('0.05')));
            const tx = result.transactions.find((t) => t.inMessage?.info.dest?.equals(w.channel));
            assert.deepEqual([tx.description.aborted, tx.description.actionPhase.resultCode], [true, 37]);
            assert.deepEqual([(await w.state()).status, (await w.state()).entries], [status, 256]);

            taken(await conserved(w, () => close(closeValue(256, closeDelay))), w.channel);
            assert.equal((await w.state()).status, 2);
            const [holds, needs] = [await w.balance(w.channel), await rentOf(w, w.channel, 127 * DAY)];
            assert.ok(holds >= needs, `${holds} of ${needs}`);
            const client = await w.balance(w.client.address);
            w.chain.now += 97 * DAY + 1;
            taken(await w.call(OP.delete, w.stranger, w.channel), w.channel);
            assert.ok((await w.balance(w.client.address)) > client);
        }
    }
});
