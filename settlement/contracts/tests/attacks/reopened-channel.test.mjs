// A Channel is closed, deleted and deployed anew at the same address; the provider claims its old receipts again.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toNano } from '@ton/core';
import { ready, refused } from '../support/acts.mjs';
import { DAY, NOW } from '../support/world.mjs';

test('old receipts are not paid by the new Channel', async () => {
    const w = await ready();
    const long = { expiry: NOW + 60 * DAY };
    await w.claim([{ voucher: long }]);
    await w.release();
    await refused(w, w.client, w.channel, 140, () => w.topUp(toNano('5')));
    let now = NOW;
    // The enclave goes on and renews every day, so its key is attested all the time.
    for (let generation = 1; generation <= 12; generation++) {
        now = w.chain.now = NOW + generation * DAY - 3600;
        await w.attest({ generation, until: now + DAY, expiry: now + 3600 });
        if (generation === 10) await refused(w, w.stranger, w.channel, 142, () => w.call(0x43030006, w.stranger, w.channel));
    }
    await w.call(0x43030006, w.stranger, w.channel);
    assert.equal(await w.balance(w.channel), 0n);
    await w.topUp(toNano('5'));
    assert.equal((await w.state()).opened, now - 600);
    assert.equal((await w.paid()).paid, 0n);
    await refused(w, w.owner, w.channel, 136, () => w.claim([{ voucher: long }]));
    // Within the slack for clocks, not before it.
    await refused(w, w.owner, w.channel, 136, () => w.claim([{ voucher: long, receipt: { time: now - 601 } }]));
    await w.claim([{ voucher: long, receipt: { time: now, total: toNano('0.5') } }]);
    assert.equal((await w.paid()).paid, toNano('0.5'));
});

test('a Channel cannot be deleted before it is closed', async () => {
    const w = await ready();
    await refused(w, w.stranger, w.channel, 141, () => w.call(0x43030006, w.stranger, w.channel));
    await w.startClose();
    w.chain.now = NOW + 90 * DAY;
    await refused(w, w.stranger, w.channel, 141, () => w.call(0x43030006, w.stranger, w.channel));
});
