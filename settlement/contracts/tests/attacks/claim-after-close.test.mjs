// The provider comes when the client has gone.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toNano } from '@ton/core';
import { ready, refused } from '../support/acts.mjs';
import { DAY, NOW } from '../support/world.mjs';

test('after a release nothing is paid, and the provider loses only the fees', async () => {
    const w = await ready();
    await w.release();
    await refused(w, w.owner, w.channel, 140, () => w.claim());
    assert.equal((await w.paid()).paid, 0n);
});

test('after a finished close nothing is paid; the delay covers every claim window', async () => {
    const w = await ready();
    await w.startClose();
    w.chain.now = NOW + 3 * DAY;
    await w.finishClose();
    await refused(w, w.owner, w.channel, 140, () => w.claim());
});

test('to a deleted Channel nothing is lost either', async () => {
    const w = await ready();
    await w.release();
    w.chain.now = NOW + 11 * DAY;
    await w.call(0x43030006, w.stranger, w.channel);
    assert.equal(await w.balance(w.channel), 0n);
    await w.attest({ generation: 1, until: NOW + 12 * DAY, expiry: NOW + 12 * DAY });
    const before = await w.balance(w.owner.address);
    const result = await w.claim();
    assert.equal(before - (await w.balance(w.owner.address)), result.fees - w.rent(result));
    assert.equal(await w.balance(w.channel), 0n);
    assert.ok(toNano('0.05') > result.fees);
});
