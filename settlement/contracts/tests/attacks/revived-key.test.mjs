// A key was revoked; a verdict signed before is still valid and is brought to the Registry.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { prune, ready, refused, revoke, revokeKey } from '../support/acts.mjs';
import { DAY, NOW } from '../support/world.mjs';

for (const isVoid of [false, true]) {
    test(`a ${isVoid ? 'void' : 'retired'} key is not attested again by any verdict`, async () => {
        const w = await ready();
        w.chain.now = NOW + 100;
        await revoke(w, w.enclave.publicKey, isVoid);
        for (const generation of [0, 1, 2 ** 32 - 1]) {
            await refused(w, w.owner, w.provider, 122, () => w.attest({ generation, until: NOW + DAY + 100 }));
        }
        await refused(w, w.stranger, w.provider, 126, () => prune(w, w.enclave.publicKey));
    });
}

test('the tombstone outlives every verdict that was signed before', async () => {
    const w = await ready();
    await revokeKey(w, w.enclave.publicKey, true);
    const last = NOW + 11 * DAY;
    w.chain.now = last;
    await refused(w, w.stranger, w.provider, 126, () => prune(w, w.enclave.publicKey));
    w.chain.now = last + 1;
    await prune(w, w.enclave.publicKey);
    assert.equal((await w.record()).found, false);
    // The longest attestation that the old verdicts could ask for ended long ago.
    await refused(w, w.owner, w.registry, 104, () => w.attest());
    await refused(w, w.owner, w.registry, 106, () => w.attest({ expiry: last + DAY }));
});
