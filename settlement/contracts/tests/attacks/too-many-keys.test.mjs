// Ninety-eight keys in one claim, which once exhausted all gas of a prototype and burned more than a TON.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toNano } from '@ton/core';
import { ready, refused, taken } from '../support/acts.mjs';

test('ninety-eight keys are refused at the ninth, for the price of nine', async () => {
    const w = await ready();
    const items = (count) => Array.from({ length: count }, (_, i) => ({ repeated: i > 0, receipt: { sequence: i, total: BigInt(i + 1) } }));
    const result = await refused(w, w.owner, w.provider, 125, () => w.claim(items(98), { value: toNano('5') }));
    assert.ok(result.gas < 40000n, `${result.gas}`);
    await refused(w, w.owner, w.provider, 125, () => w.claim(items(9)));
    await w.claim(items(8));
    assert.equal((await w.paid()).paid, 8n);
});

// TON charges 4,000 gas for each check of a transaction after the tenth.
test('an eleventh signature is refused before any is checked', async () => {
    const w = await ready();
    const items = (count, vouchers) => Array.from({ length: count }, (_, i) => ({ repeated: i >= vouchers,
        receipt: { sequence: i, total: BigInt(i + 1) } }));
    for (const [count, vouchers] of [[6, 6], [6, 5], [7, 4], [8, 3]]) {
        const result = await refused(w, w.owner, w.provider, 125, () => w.claim(items(count, vouchers)));
        assert.ok(result.gas < 30000n, `${result.gas}`);
    }
    for (const [count, vouchers] of [[5, 5], [6, 4], [7, 3], [8, 2]]) {
        taken(await w.claim(items(count, vouchers)), w.channel);
        assert.equal((await w.paid()).paid, BigInt(Math.max(count, 5)));
    }
});
