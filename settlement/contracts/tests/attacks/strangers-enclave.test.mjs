// A stranger has a machine whose key he knows, and brings true verdicts for it to another's Provider: to slash its stake, or to fill it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toNano } from '@ton/core';
import { keyOf } from '../support/cells.mjs';
import { keyCount, ready, refused, slash, stake, stakeOf, taken } from '../support/acts.mjs';
import { DAY, NOW, World } from '../support/world.mjs';

const evil = keyOf(0x77);

test('only the owner brings a first key, and the payer has the rest back', async () => {
    const w = await World.create();
    await stake(w, toNano('500'));
    const { stake: before } = await stakeOf(w);
    for (const from of [w.stranger, w.payer, w.governance]) {
        await refused(w, from, w.provider, 100, () => w.attest({ enclaveKey: evil.publicKey }, [0, 1, 2], { from }));
    }
    assert.equal(await keyCount(w), 0);
    const contradiction = [{ sequence: 1, total: 2n }, { sequence: 2, total: 1n }];
    await refused(w, w.stranger, w.provider, 124, () => slash(w, ...contradiction, { enclave: evil }));
    assert.equal((await stakeOf(w)).stake, before);
    taken(await w.attest(), w.provider);
});

test('anyone may pay for a renewal', async () => {
    const w = await ready();
    w.chain.now = NOW + 10;
    taken(await w.attest({ generation: 1, until: NOW + DAY + 10 }, [0, 1, 2], { from: w.stranger }), w.provider);
    assert.equal((await w.record()).until, NOW + DAY + 10);
});
