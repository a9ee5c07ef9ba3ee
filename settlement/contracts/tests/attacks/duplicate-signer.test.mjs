// One verifier's signature is given several times to reach the threshold.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { change, propose, refused } from '../support/acts.mjs';
import { World } from '../support/world.mjs';

test('a signer counts once, wherever it is repeated', async () => {
    const w = await World.create();
    for (const signers of [[0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 1, 0]]) {
        await refused(w, w.owner, w.registry, 110, () => w.attest({}, signers));
    }
    assert.equal((await w.record()).found, false);
});

test('governance cannot list one key at two places', async () => {
    const w = await World.create({ timeLock: 0 });
    const key = w.verifiers[0].publicKey;
    await refused(w, w.governance, w.registry, 113, () => propose(w, change.verifiers([key, key, w.verifiers[2].publicKey], 3)));
    await w.attest();
    assert.equal((await w.record()).found, true);
});
