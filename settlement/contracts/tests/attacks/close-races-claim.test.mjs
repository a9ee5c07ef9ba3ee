// The client starts to close, or tries to finish, while a claim is on its way.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toNano } from '@ton/core';
import { ready, refused } from '../support/acts.mjs';
import { DAY, exitCode, NOW } from '../support/world.mjs';

test('a claim that arrives during the close is paid, whoever was first', async () => {
    for (const order of [['claim', 'startClose'], ['startClose', 'claim']]) {
        const w = await ready();
        for (const step of order) assert.equal(exitCode(await w[step](), w.channel), 0);
        assert.equal((await w.paid()).paid, toNano('1'));
        w.chain.now = NOW + 3 * DAY;
        const client = await w.balance(w.client.address);
        await w.finishClose();
        const refund = (await w.balance(w.client.address)) - client;
        assert.ok(refund > toNano('3.97') && refund < toNano('4'), `${refund}`);
    }
});

test('the close cannot be finished a second before its delay, and a claim of the last second is paid', async () => {
    const w = await ready();
    w.chain.now = NOW + DAY;
    await w.startClose();
    w.chain.now = NOW + 4 * DAY - 1;
    await refused(w, w.client, w.channel, 142, () => w.finishClose());
    assert.equal(exitCode(await w.claim(), w.channel), 0);
    w.chain.now = NOW + 4 * DAY;
    assert.equal(exitCode(await w.finishClose(), w.channel), 0);
});

test('starting the close again does not move its end', async () => {
    const w = await ready();
    await w.startClose();
    w.chain.now = NOW + DAY;
    await refused(w, w.client, w.channel, 140, () => w.startClose());
    assert.equal((await w.state()).at, NOW + 3 * DAY);
});

test('a top-up during the close comes back', async () => {
    const w = await ready();
    await w.startClose();
    await refused(w, w.client, w.channel, 140, () => w.topUp(toNano('1')));
});
