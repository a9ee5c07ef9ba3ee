// A host keeps the voucher that passed through it, and uses it for itself.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toNano } from '@ton/core';
import { keyOf } from '../support/cells.mjs';
import { ready, refused } from '../support/acts.mjs';

test('with an enclave of its own it gets nothing: the voucher names the enclave', async () => {
    const w = await ready();
    const own = keyOf(0x51);
    await w.attest({ enclaveKey: own.publicKey });
    await refused(w, w.owner, w.channel, 130, () => w.claim([{ enclave: own, voucher: { enclaveKey: w.enclave.publicKey } }]));
});

test('without the enclave it gets nothing: the voucher is a limit, not a payment', async () => {
    const w = await ready();
    const forger = { publicKey: w.enclave.publicKey, secretKey: keyOf(0x51).secretKey };
    await refused(w, w.owner, w.channel, 133, () => w.claim([{ enclave: forger }]));
    // What the enclave did sign for is all it gets, however high the voucher.
    await w.claim([{ receipt: { total: toNano('0.1') } }]);
    assert.equal((await w.paid()).paid, toNano('0.1'));
});
