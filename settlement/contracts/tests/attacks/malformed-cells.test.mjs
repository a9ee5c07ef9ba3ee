// Bodies that end early, carry too much, or hang on for ever.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { beginCell, Cell, toNano } from '@ton/core';
import { anchor, change, propose, ready } from '../support/acts.mjs';
import { OP, plain, World } from '../support/world.mjs';

const state = async (w) => JSON.stringify(await Promise.all([w.registry, w.provider, w.channel].map(async (a) =>
    (await w.chain.getContract(a)).account.account.storage.state.state.data.hash().toString('hex'))));

/** The same body with its bits cut to `bits`, and with `refs` of its references. */
function cut(cell, bits, refs) {
    const b = beginCell().storeBits(cell.bits.substring(0, bits));
    for (const ref of cell.refs.slice(0, refs)) b.storeRef(ref);
    return b.endCell();
}

test('a body cut short anywhere changes nothing', async () => {
    const w = await ready();
    const bodies = {};
    const record = w.send.bind(w);
    w.send = (from, to, value, body) => { bodies.last = [from, to, body instanceof Cell ? body : body.endCell()]; return { cut: true }; };
    const whole = [];
    for (const act of [() => w.attest({ generation: 1 }), () => w.claim(), () => propose(w, change.timeLock(0)), () => anchor(w)]) {
        act();
        whole.push(bodies.last);
    }
    w.send = record;
    for (const [from, to, body] of whole) {
        const before = await state(w);
        for (let bits = 0; bits < body.bits.length; bits += 23) await w.send(from, to, toNano('0.2'), cut(body, bits, body.refs.length));
        for (let refs = 0; refs < body.refs.length; refs++) await w.send(from, to, toNano('0.2'), cut(body, body.bits.length, refs));
        assert.equal(await state(w), before);
    }
});

test('a chain of sixty signatures costs no more than the threshold reads', async () => {
    const w = await World.create();
    const many = Array.from({ length: 60 }, (_, i) => i % 5);
    const honest = await w.attest();
    w.chain.now += 1;
    const long = await w.attest({ generation: 1, until: w.chain.now + 86400 }, [0, 1, 2, ...many]);
    assert.ok(long.gas <= honest.gas + 500n, `${long.gas} against ${honest.gas}`);
});

test('exotic cells and cells that refer to themselves in depth are refused', async () => {
    const w = await ready();
    let deep = beginCell().endCell();
    for (let i = 0; i < 60; i++) deep = beginCell().storeRef(deep).endCell();
    const library = beginCell().storeUint(2, 8).storeBuffer(Buffer.alloc(32, 1)).endCell({ exotic: true });
    const before = await state(w);
    for (const ref of [deep, library]) {
        for (const [to, op] of [[w.registry, OP.attest], [w.registry, OP.propose], [w.provider, OP.claim], [w.channel, OP.settle]]) {
            const body = op === OP.claim
                ? beginCell().storeUint(op, 32).storeBuffer(w.channel.hash, 32).storeRef(ref)
                : plain(op).storeRef(ref).storeMaybeRef(null);
            await w.send(op === OP.propose ? w.governance : w.owner, to, toNano('0.2'), body);
        }
    }
    // A proposal is not opened before it is carried out; then it fails as a whole.
    assert.notEqual(await state(w), before);
    const settled = await state(w);
    w.chain.now += 2 * 86400;
    for (const id of [0, 1]) await w.send(w.stranger, w.registry, toNano('0.1'), plain(OP.execute).storeUint(id, 32));
    assert.equal(await state(w), settled);
});
