// A voucher that has expired, or that a higher one has replaced, is used for more than it promised.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toNano } from '@ton/core';
import { ready, refused } from '../support/acts.mjs';
import { DAY, NOW } from '../support/world.mjs';

test('work done after the voucher expired is not paid, work done before is', async () => {
    const w = await ready();
    const voucher = { expiry: NOW + 100 };
    w.chain.now = NOW + 200;
    await refused(w, w.owner, w.channel, 132, () => w.claim([{ voucher, receipt: { time: NOW + 101 } }]));
    await w.claim([{ voucher, receipt: { time: NOW + 100 } }]);
    assert.equal((await w.paid()).paid, toNano('1'));
    // The voucher is remembered with its expiry.
    await refused(w, w.owner, w.channel, 132, () =>
        w.claim([{ repeated: true, receipt: { sequence: 2, total: toNano('1.5'), time: NOW + 101 } }]));
});

test('a lower voucher neither raises nor lowers what a higher one promised', async () => {
    const w = await ready();
    await w.claim([{ receipt: { total: toNano('0.5') } }]);
    await w.claim([{ voucher: { cap: toNano('1'), expiry: NOW + 30 * DAY }, receipt: { sequence: 2, total: toNano('1.8') } }]);
    assert.deepEqual(await w.paid(), { paid: toNano('1'), cap: toNano('2'), expiry: NOW + 7 * DAY });
    // Less than what was paid already: nothing is paid, and nothing is taken back.
    await refused(w, w.owner, w.channel, 0, () => w.claim([{ voucher: { cap: 1n }, receipt: { sequence: 3, total: toNano('1.9') } }]));
    assert.equal((await w.paid()).paid, toNano('1'));
});

test('a voucher never pays beyond its cap', async () => {
    const w = await ready();
    await w.claim([{ voucher: { cap: toNano('0.3') }, receipt: { total: toNano('4') } }]);
    assert.equal((await w.paid()).paid, toNano('0.3'));
});
