// A verdict that was used is sent again, so that its value ends where nobody can fetch it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Address, toNano } from '@ton/core';
import { conserved, refused } from '../support/acts.mjs';
import { DAY, NOW, World } from '../support/world.mjs';

test('who pays for a replay gets the rest back', async () => {
    const w = await World.create();
    await w.attest();
    for (let i = 0; i < 3; i++) await refused(w, w.owner, w.provider, 120, () => w.attest());
    await refused(w, w.owner, w.provider, 121, () => w.attest({ generation: 1, until: NOW + DAY - 1 }));
    assert.equal((await w.record()).generation, 0);
});

test('also where there is no Provider at the other end, whatever the value', async () => {
    for (const value of ['0.03', '0.2', '5']) {
        const w = await World.create();
        const nowhere = new Address(0, Buffer.alloc(32, 0xcc));
        const before = await w.balance(w.owner.address);
        const result = await conserved(w, () => w.attest({ provider: nowhere }, [0, 1, 2], { value: toNano(value) }));
        assert.equal(before - (await w.balance(w.owner.address)), result.fees);
        assert.equal(await w.balance(nowhere), 0n);
    }
});
