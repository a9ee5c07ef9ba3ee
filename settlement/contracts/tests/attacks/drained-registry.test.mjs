// Messages that only burn gas are sent to a contract until it has nothing left.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { beginCell, toNano } from '@ton/core';
import { ready } from '../support/acts.mjs';
import { OP, plain } from '../support/world.mjs';

test('no message, whatever its value, takes anything from a contract', async () => {
    const w = await ready({ verifiers: 16, threshold: 16 });
    const signers = Array.from({ length: 16 }, (_, i) => i);
    const verdicts = [w.attestBody(w.verdict(), signers), w.attestBody(w.verdict({ network: 1 }), signers), w.attestBody(w.verdict(), [])];
    const bodies = [beginCell().endCell(), ...verdicts,
        ...Object.values(OP).flatMap((op) => [plain(op).endCell(), plain(op).storeUint(0, 900).endCell()])];
    for (const at of ['registry', 'provider', 'channel']) {
        for (const value of [1n, 1000000n, 3000000n, 6000000n, 12000000n, toNano('0.05')]) {
            for (const body of bodies) {
                const before = await w.balance(w[at]);
                await w.send(w.stranger, w[at], value, body);
                const after = await w.balance(w[at]);
                assert.ok(after >= before, `${at} lost ${before - after} to ${body.toString()} with ${value}`);
            }
        }
    }
});

test('an external message is not accepted', async () => {
    const w = await ready();
    for (const at of [w.registry, w.provider, w.channel]) {
        const before = await w.balance(at);
        await assert.rejects(w.chain.sendMessage({ info: { type: 'external-in', dest: at, importFee: 0n }, body: plain(OP.fund).endCell() }),
            { message: /External message not accepted/, exitCode: 11 });
        assert.equal(await w.balance(at), before);
    }
});
