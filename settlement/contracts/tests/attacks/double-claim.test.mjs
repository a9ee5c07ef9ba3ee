// One receipt is claimed twice: again, in one message, or from an older total.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toNano } from '@ton/core';
import { ready, refused } from '../support/acts.mjs';

test('a claim again pays nothing', async () => {
    const w = await ready();
    await w.claim();
    const left = await w.balance(w.channel);
    for (const repeated of [false, true]) await refused(w, w.owner, w.channel, 0, () => w.claim([{ repeated }]));
    assert.deepEqual([(await w.paid()).paid, await w.balance(w.channel)], [toNano('1'), left]);
});

test('eight times one receipt in one message pays once', async () => {
    const w = await ready();
    const before = await w.balance(w.channel);
    await w.claim(Array.from({ length: 8 }, (_, i) => ({ repeated: i > 1 })));
    assert.equal(before - (await w.balance(w.channel)), toNano('1'));
    assert.equal((await w.paid()).paid, toNano('1'));
});

test('an older receipt after a newer one pays nothing', async () => {
    const w = await ready();
    await w.claim([{ receipt: { sequence: 5, total: toNano('1.5') } }]);
    await refused(w, w.owner, w.channel, 0, () => w.claim([{ receipt: { sequence: 2, total: toNano('1.2') } }]));
    assert.equal((await w.paid()).paid, toNano('1.5'));
});
