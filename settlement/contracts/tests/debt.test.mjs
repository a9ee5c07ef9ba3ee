// Contracts that nobody touched for years owe rent. TON takes it from what an account holds, never from a message that comes: so every
// operation does what it does without a debt, and what is owed comes out of what stays in the account.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toNano } from '@ton/core';
import { change, conserved, propose, ready, slash, stake, stakeOf, taken, unstake, withdraw } from './support/acts.mjs';
import { DAY, NOW, OP, plain, World } from './support/world.mjs';

const DEBT = 60000000;

/** Lets years pass until the account holds nothing and owes 0.06 TON; at 0.1 it would be frozen. */
async function inDebt(w, address) {
    const { used, lastPaid } = (await w.chain.getContract(address)).account.account.storageStats;
    const perSecond = Number(used.bits + 500n * used.cells) / 65536;
    w.chain.now = lastPaid + Math.ceil((Number(await w.balance(address)) + DEBT) / perSecond);
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
        await w.topUp(toNano('5'));
        taken(await conserved(w, () => propose(w, change.maxLifetime(3600), { value: toNano('0.9') })), w.registry);
        const item = { voucher: { expiry: until }, receipt: { time: w.chain.now } };
        taken(await conserved(w, () => w.claim([item])), w.channel);
        assert.equal((await w.paid()).paid, toNano('1'));
    }
});
