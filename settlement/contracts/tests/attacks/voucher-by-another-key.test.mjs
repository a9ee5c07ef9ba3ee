// A voucher is signed by a key that is not the Channel's client key: the provider's own, another client's, the enclave's.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toNano } from '@ton/core';
import { keyOf } from '../support/cells.mjs';
import { ready, refused } from '../support/acts.mjs';

test('only the client key of the Channel promises its money', async () => {
    const w = await ready();
    for (const client of [keyOf(0x41), w.enclave, w.verifiers[0]]) {
        await refused(w, w.owner, w.channel, 130, () => w.claim([{ client }]));
    }
    assert.equal((await w.paid()).paid, 0n);
    await w.claim();
    assert.equal((await w.paid()).paid, toNano('1'));
    // Nor later, when a voucher of the client's is known.
    await refused(w, w.owner, w.channel, 130, () =>
        w.claim([{ client: keyOf(0x41), voucher: { cap: toNano('4') }, receipt: { sequence: 2, total: toNano('4') } }]));
});
