// Bodies that end early, carry too much, or hang on for ever.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { beginCell, Cell, toNano } from '@ton/core';
import { anchor, change, propose, ready, revoke, revokeKey, slash } from '../support/acts.mjs';
import { DAY, exitCode, NOW, OP, plain, World } from '../support/world.mjs';

const state = async (w) => JSON.stringify(await Promise.all([w.registry, w.provider, w.channel].map(async (a) =>
    (await w.chain.getContract(a)).account.account.storage.state.state.data.hash().toString('hex'))));

/** The same body with its bits cut to `bits`, and with `refs` of its references. */
function cut(cell, bits, refs) {
    const b = beginCell().storeBits(cell.bits.substring(0, bits));
    for (const ref of cell.refs.slice(0, refs)) b.storeRef(ref);
    return b.endCell();
}

/** What these acts would send: [sender, contract, value, body], without sending it. */
function bodies(w, acts) {
    const { send } = w;
    const found = [];
    w.send = (from, to, value, body) => { found.push([from, to, value, body instanceof Cell ? body : body.endCell()]); return {}; };
    acts.forEach((act) => act());
    w.send = send;
    return found;
}

test('a body cut short anywhere changes nothing, and whole it changes something', async () => {
    const w = await ready();
    w.chain.now = NOW + 60;
    for (const [from, to, value, body] of bodies(w, [
        () => w.attest({ generation: 1, until: NOW + DAY + 1 }),
        () => w.claim(),
        () => propose(w, change.timeLock(0)),
        () => anchor(w),
        () => revokeKey(w, w.enclave.publicKey, false),
        () => slash(w, { sequence: 1, total: 2n }, { sequence: 2, total: 1n }),
    ])) {
        const before = await state(w);
        for (let bits = 0; bits < body.bits.length; bits += 23) await w.send(from, to, toNano('0.2'), cut(body, bits, body.refs.length));
        for (let refs = 0; refs < body.refs.length; refs++) await w.send(from, to, toNano('0.2'), cut(body, body.bits.length, refs));
        assert.equal(await state(w), before);
        await w.send(from, to, value, body);
        assert.notEqual(await state(w), before, body.toString());
    }
});

// The local chain calls it by another exit code (settlement/src/local/emulator_tests.rs), and each of these fields is met there by this test.
test('where an address should be, a cell that holds another kind of address is one that ends early', async () => {
    const w = await ready({ timeLock: 0 });
    w.chain.now = NOW + 60;
    const verdict = () => w.attest({ generation: 1, until: NOW + DAY + 1 });
    for (const [act, depth, bit, at] of [
        [verdict, 1, 32 + 32, w.registry],
        [verdict, 1, 32 + 32 + 267, w.registry],
        [() => propose(w, change.governance(w.governance.address)), 1, 8, w.registry],
        [() => revokeKey(w, w.enclave.publicKey, false), 0, 96, w.registry],
        [() => anchor(w), 1, 32 + 32, w.registry],
        [() => w.release(), 0, 96, w.provider],
        [() => revoke(w, w.enclave.publicKey, false), 0, 96 + 257, w.provider],
        [() => slash(w, { sequence: 1, total: 2n }, { sequence: 2, total: 1n }), 0, 96 + 256, w.provider],
    ]) {
        const [[from, to, value, body]] = bodies(w, [act]);
        const before = await state(w);
        for (const tag of [0b00, 0b01, 0b11]) {
            assert.equal(exitCode(await w.send(from, to, value, tagged(body, depth, bit, tag)), at), 9, `${tag} in ${body}`);
        }
        assert.equal(await state(w), before);
    }
});

/** The same cell, with these two bits in it or in the first cell that it refers to. */
function tagged(cell, depth, bit, tag) {
    const b = beginCell();
    if (depth > 0) {
        b.storeBits(cell.bits).storeRef(tagged(cell.refs[0], depth - 1, bit, tag));
        cell.refs.slice(1).forEach((ref) => b.storeRef(ref));
    } else {
        b.storeBits(cell.bits.substring(0, bit)).storeUint(tag, 2).storeBits(cell.bits.substring(bit + 2, cell.bits.length - bit - 2));
        cell.refs.forEach((ref) => b.storeRef(ref));
    }
    return b.endCell();
}

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
