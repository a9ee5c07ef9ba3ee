// k - 1 verifiers agree, and somebody hopes that nobody counts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { refused } from '../support/acts.mjs';
import { World } from '../support/world.mjs';

for (const [verifiers, threshold] of [[5, 3], [15, 9], [16, 16], [1, 1]]) {
    test(`${threshold - 1} of ${verifiers} signatures are refused where ${threshold} are asked for`, async () => {
        const w = await World.create({ verifiers, threshold });
        const all = Array.from({ length: threshold }, (_, i) => verifiers - 1 - i);
        await refused(w, w.owner, w.registry, 109, () => w.attest({}, all.slice(1)));
        assert.equal((await w.record()).found, false);
        await w.attest({}, all);
        assert.equal((await w.record()).found, true);
    });
}
