// Someone without any verifier's key signs a verdict for a machine of their own.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keyOf } from '../support/cells.mjs';
import { refused } from '../support/acts.mjs';
import { World } from '../support/world.mjs';

test('a verdict signed by keys of the attacker is refused', async () => {
    const w = await World.create();
    const forgers = Array.from({ length: 5 }, (_, i) => keyOf(0x80 + i));
    await refused(w, w.owner, w.registry, 112, () => w.attest({}, [0, 1, 2], { keys: forgers }));
    assert.equal((await w.record()).found, false);
});

test('one forged signature among good ones is enough to refuse', async () => {
    for (const bad of [0, 1, 2]) {
        const w = await World.create();
        const keys = w.verifiers.map((k, i) => (i === bad ? keyOf(0x80) : k));
        await refused(w, w.owner, w.registry, 112, () => w.attest({}, [0, 1, 2], { keys }));
    }
});

test('signatures over one verdict do not carry another', async () => {
    const w = await World.create();
    const good = w.attestBody(w.verdict(), [0, 1, 2]).beginParse();
    good.skip(32 + 64);
    good.loadRef();
    const signatures = good.loadRef();
    const other = w.attestBody(w.verdict({ enclaveKey: keyOf(0x51).publicKey }), []).beginParse();
    other.skip(32 + 64);
    const { beginCell, toNano } = await import('@ton/core');
    const body = beginCell().storeUint(0x43010001, 32).storeUint(0, 64).storeRef(other.loadRef()).storeMaybeRef(signatures);
    await refused(w, w.owner, w.registry, 112, () => w.send(w.owner, w.registry, toNano('0.2'), body));
    // Control: what they do sign is taken.
    await w.attest();
    assert.equal((await w.record()).found, true);
});
