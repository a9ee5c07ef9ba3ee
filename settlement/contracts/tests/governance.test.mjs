// The Registry's rules: what loosens waits, what tightens acts at once, and nobody but governance does either.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { beginCell, toNano } from '@ton/core';
import { keyOf } from './support/cells.mjs';
import { anchor, cancel, change, conserved, execute, forbid, params, propose, proposals, ready, refused, revokeKey, taken,
    tighten, within } from './support/acts.mjs';
import { DAY, exitCode, IMAGE, MODEL, NOW, World } from './support/world.mjs';

const other = Buffer.alloc(32, 0x77);
const range = (from, count) => Array.from({ length: count }, (_, i) => from + i);

test('a change waits for the time-lock, then anyone may carry it out, once', async () => {
    const w = await World.create();
    taken(await conserved(w, () => propose(w, change.allow(0, other))), w.registry);
    await refused(w, w.stranger, w.registry, 117, () => execute(w, 0));
    w.chain.now = NOW + 2 * DAY - 1;
    await refused(w, w.stranger, w.registry, 117, () => execute(w, 0));
    await refused(w, w.owner, w.registry, 107, () => w.attest({ image: other, until: NOW + 2 * DAY, expiry: NOW + 3 * DAY }));
    w.chain.now = NOW + 2 * DAY;
    taken(await execute(w, 0), w.registry);
    await refused(w, w.stranger, w.registry, 116, () => execute(w, 0));
    taken(await w.attest({ image: other, until: NOW + 3 * DAY, expiry: NOW + 3 * DAY }), w.provider);
    assert.deepEqual(await proposals(w), { next: 1, any: false });
});

test('a proposal that nobody carried out lapses', async () => {
    const w = await World.create();
    await propose(w, change.allow(0, other));
    w.chain.now = NOW + 2 * DAY + 14 * DAY;
    taken(await execute(w, 0), w.registry);
    await propose(w, change.allow(1, other));
    w.chain.now += 2 * DAY + 14 * DAY + 1;
    await refused(w, w.stranger, w.registry, 117, () => execute(w, 1));
    taken(await cancel(w, 1), w.registry);
    assert.deepEqual(await proposals(w), { next: 2, any: false });
});

test('governance may take a proposal back at any time', async () => {
    const w = await World.create();
    await propose(w, change.governance(w.stranger.address));
    await refused(w, w.stranger, w.registry, 100, () => cancel(w, 0, { from: w.stranger }));
    taken(await cancel(w, 0), w.registry);
    await refused(w, w.governance, w.registry, 116, () => cancel(w, 0));
    w.chain.now = NOW + 3 * DAY;
    await refused(w, w.stranger, w.registry, 116, () => execute(w, 0));
});

test('without a time-lock a change acts at once', async () => {
    const w = await World.create({ timeLock: 0 });
    taken(await propose(w, change.allow(0, other)), w.registry);
    taken(await w.attest({ image: other }), w.provider);
});

test('every kind of change does what it says', async () => {
    const w = await World.create({ timeLock: 0 });
    const keys = [0x20, 0x21].map((s) => keyOf(s).publicKey);
    taken(await propose(w, change.verifiers(keys, 2)), w.registry);
    taken(await propose(w, change.maxLifetime(3600)), w.registry);
    taken(await propose(w, change.release(1, other, IMAGE)), w.registry);
    taken(await propose(w, change.timeLock(DAY)), w.registry);
    const p = await params(w);
    assert.deepEqual([p.threshold, p.setEpoch, p.maxLifetime, p.timeLock], [2, 1, 3600, DAY]);
    const release = await w.get(w.registry, 'release');
    assert.deepEqual([release.readNumber(), release.readBigNumber(), release.readBigNumber()],
        [1, BigInt('0x' + other.toString('hex')), BigInt('0x' + IMAGE.toString('hex'))]);
    await propose(w, change.governance(w.stranger.address));
    await propose(w, change.timeLock(0));
    w.chain.now = NOW + DAY;
    taken(await execute(w, 0), w.registry);
    assert.ok((await params(w)).governance.equals(w.stranger.address));
    await refused(w, w.governance, w.registry, 100, () => propose(w, change.timeLock(0)));
    // What the former governance proposed is still there for the new one to cancel, or for anyone to carry out.
    taken(await execute(w, 1), w.registry);
    assert.equal((await params(w)).timeLock, 0);
});

for (const [name, cell] of [
    ['no verifier', change.verifiers([], 0)],
    ['a threshold of nothing', change.verifiers([keyOf(1).publicKey], 0)],
    ['a threshold above the number of verifiers', change.verifiers([keyOf(1).publicKey], 2)],
    ['seventeen verifiers', change.verifiers(Array.from({ length: 17 }, (_, i) => keyOf(i).publicKey), 3)],
    ['a list that does not exist', change.allow(2, other)],
    ['no lifetime', change.maxLifetime(0)],
    ['a lifetime of more than a week', change.maxLifetime(7 * DAY + 1)],
    ['a time-lock of more than ninety days', change.timeLock(90 * DAY + 1)],
    ['an older release', change.release(0, other, other)],
]) {
    test(`a change is refused: ${name}`, async () => {
        const w = await World.create({ timeLock: 0 });
        await refused(w, w.governance, w.registry, 113, () => propose(w, cell));
    });
}

test('seventeen proposals do not fit', async () => {
    const w = await World.create();
    for (let i = 0; i < 16; i++) taken(await propose(w, change.allow(0, Buffer.alloc(32, i))), w.registry);
    await refused(w, w.governance, w.registry, 115, () => propose(w, change.allow(0, other)));
    await cancel(w, 3);
    taken(await propose(w, change.allow(0, other)), w.registry);
});

test('no proposal is larger than what rent is held for', async () => {
    const w = await World.create();
    const chain = (cells) => range(1, cells).reduce((next, n) => beginCell().storeUint(n, 100).storeRef(next).endCell(), beginCell().endCell());
    await refused(w, w.governance, w.registry, 113, () => propose(w, chain(33), { value: toNano('1') }));
    const wide = range(0, 4).reduce((b, n) => b.storeRef(beginCell().storeUint(n, 1023).endCell()), beginCell().storeUint(0, 1000));
    await refused(w, w.governance, w.registry, 113, () => propose(w, wide, { value: toNano('1') }));
    // Sixteen of the largest change there is.
    for (let i = 0; i < 16; i++) {
        const keys = range(0, 16).map((n) => keyOf(0x20 + 16 * (i % 8) + n + Math.floor(i / 8)).publicKey);
        taken(await propose(w, change.verifiers(keys, 1 + (i % 16)), { value: toNano('0.2') }), w.registry);
    }
    for (let n = 0; n < 5; n++) taken(await anchor(w, {}, { index: n }), w.registry);
    await within(w, w.registry, 28000 + 24000 + 16 * 5200 + 2 * 600, 90 + 90 + 16 * 34 + 4);
    assert.ok((await w.balance(w.registry)) > toNano('0.4'));
    const cell = change.allow(0, other);
    await refused(w, w.governance, w.registry, 115, () => propose(w, cell));
});

test('lists are bounded, and who lengthens them pays their rent', async () => {
    const w = await World.create({ timeLock: 0 });
    const before = await w.balance(w.registry);
    for (let i = 0; i < 255; i++) {
        const digest = Buffer.alloc(32);
        digest.writeUInt16BE(i + 1, 3);
        taken(await propose(w, change.allow(0, digest), { value: toNano('0.5') }), w.registry);
    }
    await refused(w, w.governance, w.registry, 113, () => propose(w, change.allow(0, other)));
    // An entry that is there already takes no room.
    taken(await propose(w, change.allow(0, IMAGE)), w.registry);
    taken(await propose(w, change.allow(1, other)), w.registry);
    assert.ok((await w.balance(w.registry)) >= before - 1n);
    await within(w, w.registry, 28000 + 24000 + 258 * 600, 90 + 90 + 2 * 258);
});

test('forbidding acts at once, and stops the next attestation', async () => {
    const w = await World.create();
    await refused(w, w.stranger, w.registry, 100, () => forbid(w, 0, IMAGE, { from: w.stranger }));
    await refused(w, w.governance, w.registry, 113, () => forbid(w, 0, MODEL));
    await refused(w, w.governance, w.registry, 113, () => forbid(w, 2, IMAGE));
    taken(await conserved(w, () => forbid(w, 0, IMAGE)), w.registry);
    await refused(w, w.owner, w.registry, 107, () => w.attest());
    taken(await forbid(w, 1, MODEL), w.registry);
});

test('tightening acts at once and only tightens', async () => {
    const w = await World.create();
    const same = { threshold: 3, maxLifetime: DAY };
    await refused(w, w.stranger, w.registry, 100, () => tighten(w, same, { from: w.stranger }));
    await refused(w, w.governance, w.registry, 114, () => tighten(w, { ...same, threshold: 2 }));
    await refused(w, w.governance, w.registry, 114, () => tighten(w, { ...same, maxLifetime: DAY + 1 }));
    await refused(w, w.governance, w.registry, 113, () => tighten(w, { ...same, drop: 1 << 9 }));
    await refused(w, w.governance, w.registry, 113, () => tighten(w, { ...same, threshold: 6 }));
    await refused(w, w.governance, w.registry, 113, () => tighten(w, { ...same, drop: 0b111 }));
    taken(await conserved(w, () => tighten(w, { drop: 0b10, threshold: 3, maxLifetime: 3600 })), w.registry);
    const until = NOW + 3600;
    await refused(w, w.owner, w.registry, 105, () => w.attest({ until }));
    await refused(w, w.owner, w.registry, 111, () => w.attest({ until, setEpoch: 1 }));
    await refused(w, w.owner, w.registry, 106, () => w.attest({ until: until + 1, setEpoch: 1 }, [0, 2, 3]));
    taken(await w.attest({ until, setEpoch: 1 }, [0, 2, 3]), w.provider);
});

test('governance revokes a key at its Provider, and gets the rest back', async () => {
    const w = await ready();
    await refused(w, w.stranger, w.registry, 100, () => revokeKey(w, w.enclave.publicKey, true, { from: w.stranger }));
    await refused(w, w.governance, w.provider, 124, () => revokeKey(w, keyOf(0x51).publicKey, true));
    const before = await w.balance(w.governance.address);
    const result = taken(await revokeKey(w, w.enclave.publicKey, true), w.provider);
    assert.equal(before - (await w.balance(w.governance.address)), result.fees - w.rent(result));
    assert.equal((await w.record()).state, 3);
    await refused(w, w.owner, w.provider, 122, () => w.claim());
});

test('a checkpoint is anchored by its verifier alone, and a log may only grow', async () => {
    const w = await World.create();
    taken(await conserved(w, () => anchor(w)), w.registry);
    const read = async (index) => {
        const s = await w.get(w.registry, 'anchor', [{ type: 'int', value: BigInt(index) }]);
        return { found: s.readBoolean(), key: s.readBigNumber(), origin: s.readBigNumber(), size: s.readBigNumber() };
    };
    assert.equal((await read(0)).size, 10n);
    assert.equal((await read(1)).found, false);
    await refused(w, w.stranger, w.registry, 118, () => anchor(w));
    await refused(w, w.stranger, w.registry, 118, () => anchor(w, { treeSize: 9n }));
    await refused(w, w.stranger, w.registry, 118, () => anchor(w, { treeSize: 11n, time: NOW - 1 }));
    await refused(w, w.stranger, w.registry, 118, () => anchor(w, { treeSize: 11n, origin: other }));
    await refused(w, w.stranger, w.registry, 102, () => anchor(w, { treeSize: 11n, network: -239 }));
    await refused(w, w.stranger, w.registry, 103, () => anchor(w, { treeSize: 11n, registry: w.provider }));
    await refused(w, w.stranger, w.registry, 112, () => anchor(w, { treeSize: 11n }, { keys: w.verifiers[1] }));
    await refused(w, w.stranger, w.registry, 111, () => anchor(w, { treeSize: 11n }, { index: 9, keys: w.verifiers[0] }));
    taken(await anchor(w, { treeSize: 11n }), w.registry);
    taken(await anchor(w, {}, { index: 1 }), w.registry);
    assert.deepEqual([(await read(0)).size, (await read(1)).size], [11n, 10n]);
});

test('too little value is refused for every operation of governance', async () => {
    const w = await ready();
    const value = toNano('0.005');
    for (const act of [
        () => propose(w, change.maxLifetime(3600), { value }),
        () => cancel(w, 0, { value }),
        () => forbid(w, 0, IMAGE, { value }),
        () => tighten(w, { threshold: 3, maxLifetime: DAY }, { value }),
        () => revokeKey(w, w.enclave.publicKey, false, { value }),
    ]) await refused(w, w.governance, w.registry, 101, act);
    await refused(w, w.stranger, w.registry, 101, () => execute(w, 0, { value }));
    await refused(w, w.stranger, w.registry, 101, () => anchor(w, {}, { value }));
    assert.equal(exitCode(await w.attest({ generation: 1, until: NOW + DAY }), w.provider), 121);
});
