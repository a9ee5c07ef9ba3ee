// Ninety-eight keys in one claim, which once exhausted all gas of a prototype and burned more than a TON.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toNano } from '@ton/core';
import { ready, refused } from '../support/acts.mjs';

test('ninety-eight keys are refused at the ninth, for the price of nine', async () => {
    const w = await ready();
    const result = await refused(w, w.owner, w.provider, 125, () => w.claim(Array(98).fill({}), { value: toNano('5') }));
    assert.ok(result.gas < 40000n, `${result.gas}`);
    await refused(w, w.owner, w.provider, 125, () => w.claim(Array(9).fill({})));
    await w.claim(Array.from({ length: 8 }, (_, i) => ({ receipt: { sequence: i, total: BigInt(i + 1) } })));
    assert.equal((await w.paid()).paid, 8n);
});
