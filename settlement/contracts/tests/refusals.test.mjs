// What must be refused: each case is one step away from what is accepted, pays nothing, and costs only its sender fees.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Address, beginCell, contractAddress, Dictionary, toNano } from '@ton/core';
import { keyPairFromSeed, sha256_sync } from '@ton/crypto';
import { createShardAccount } from '@ton/sandbox';
import { keyOf } from './support/cells.mjs';
import { change, propose, ready, refused, taken, within } from './support/acts.mjs';
import { channelState, CODE, DAY, exitCode, IMAGE, MODEL, NOW, OP, providerState, World } from './support/world.mjs';

const elsewhere = new Address(0, Buffer.alloc(32, 0xcc));

const verdicts = [
    ['k-1 signatures', { signers: [0, 1] }, 109],
    ['no signature', { signers: [] }, 109],
    ['a duplicate signer', { signers: [0, 1, 1] }, 110],
    ['an unknown signer', { signers: [0, 1, 9] }, 111],
    ['another key under a known position', { keys: [0x10, 0x11, 0x13].map(keyOf) }, 112],
    ['another network', { network: -239 }, 102],
    ['another Registry', { registry: elsewhere }, 103],
    ['an expired verdict', { expiry: NOW - 1 }, 104],
    ['another verifier set', { setEpoch: 1 }, 105],
    ['an attestation that is over', { until: NOW }, 106],
    ['an attestation that is too long', { until: NOW + DAY + 1 }, 106],
    ['an image that is not allowed', { image: MODEL }, 107],
    ['a model that is not allowed', { modelRoot: IMAGE }, 108],
];
for (const [name, { signers = [0, 1, 2], keys, ...fields }, code] of verdicts) {
    test(`attest refused: ${name}`, async () => {
        const w = await World.create();
        await refused(w, w.owner, w.registry, code, () => w.attest(fields, signers, keys && { keys }));
        assert.equal((await w.record()).found, false);
        const control = await w.attest();
        assert.equal(exitCode(control, w.provider), 0);
    });
}

test('with threshold k-1 the verdict short of k passes', async () => {
    const w = await World.create({ threshold: 2 });
    await w.attest({}, [0, 1]);
    assert.equal((await w.record()).found, true);
});

test('the payer gets the rest back when the Provider refuses', async () => {
    const w = await World.create();
    await refused(w, w.owner, w.provider, 120, () => w.attest({ generation: 1 }));
    await w.attest();
    await refused(w, w.owner, w.provider, 120, () => w.attest());
    await refused(w, w.owner, w.provider, 121, () => w.attest({ generation: 1, until: NOW + DAY - 1 }));
});

test('the payer brings a poor Provider up to a year of rent, or gets it all back', async () => {
    const w = await World.create();
    const poor = providerState({ registry: w.registry, owner: w.owner.address, salt: 1 });
    w.provider = contractAddress(0, poor);
    await w.send(w.owner, w.provider, toNano('0.005'), beginCell().storeUint(OP.fund, 32).storeUint(0, 64), poor);
    const least = (await w.get(w.registry, 'attest_value')).readBigNumber();
    await refused(w, w.owner, w.provider, 101, () => w.attest({}, [0, 1, 2], { value: least }));
    assert.equal(exitCode(await w.attest(), w.provider), 0);
    const rent = await w.balance(w.provider);
    assert.ok(rent > toNano('0.005') && rent < toNano('0.03'), `${rent}`);
    w.chain.now = NOW + 3600;
    assert.equal(exitCode(await w.attest({ generation: 1, until: NOW + DAY + 3600 }), w.provider), 0);
    assert.equal(await w.balance(w.provider), rent);
});

test('the payer gets the rest back when there is no Provider', async () => {
    const w = await World.create();
    const before = await w.balance(w.owner.address);
    const result = await w.attest({ provider: elsewhere });
    assert.equal(before - (await w.balance(w.owner.address)), result.fees);
    assert.equal(await w.balance(elsewhere), 0n);
});

test('wrong senders are refused', async () => {
    const w = await ready();
    const attested = beginCell().storeUint(OP.attested, 32).storeUint(0, 64).storeUint(1, 256).storeUint(0, 32)
        .storeUint(0, 32).storeUint(NOW + DAY, 32).storeUint(0, 256).storeAddress(w.stranger.address);
    await refused(w, w.stranger, w.provider, 100, () => w.send(w.stranger, w.provider, toNano('0.2'), attested));
    await refused(w, w.stranger, w.provider, 100, () => w.claim([{}], { from: w.stranger }));
    const settle = beginCell().storeUint(OP.settle, 32).storeRef(w.item().cell()).storeUint(NOW, 32).storeUint(NOW + DAY, 32);
    await refused(w, w.stranger, w.channel, 100, () => w.send(w.stranger, w.channel, toNano('0.2'), settle));
    await refused(w, w.stranger, w.channel, 100, () => w.startClose(w.stranger));
    await refused(w, w.stranger, w.channel, 100, () => w.call(OP.release, w.stranger, w.channel));
    await refused(w, w.client, w.provider, 100, () => w.release(w.client));
    await refused(w, w.stranger, w.registry, 100, () => propose(w, change.timeLock(0), { from: w.stranger }));
});

test('an unknown operation or a plain transfer comes back', async () => {
    const w = await ready();
    for (const to of [w.registry, w.provider, w.channel]) {
        await refused(w, w.stranger, to, 0xffff, () => w.call(0x12345678, w.stranger, to));
        await refused(w, w.stranger, to, 0xffff, () => w.send(w.stranger, to, toNano('1'), beginCell()));
    }
});

const claims = [
    ['a voucher for another network', { voucher: { network: -239 } }, 130],
    ['a voucher for another channel', { voucher: { channel: elsewhere } }, 130],
    ['a voucher for another enclave', { voucher: { enclaveKey: Buffer.alloc(32, 1) } }, 130],
    ['a voucher signed by another key', { client: keyOf(0x41) }, 130],
    ['no voucher, none verified before', { repeated: true }, 131],
    ['a receipt later than the voucher', { voucher: { expiry: NOW - 1 } }, 132],
    ['a receipt for another network', { receipt: { network: -239 } }, 133],
    ['a receipt for another provider', { receipt: { provider: elsewhere } }, 133],
    ['a receipt for another channel', { receipt: { channel: elsewhere } }, 133],
    ['a receipt later than the attestation', { receipt: { time: NOW + DAY + 1 } }, 134],
];
for (const [name, item, code] of claims) {
    test(`claim refused: ${name}`, async () => {
        const w = await ready();
        await refused(w, w.owner, w.channel, code, () => w.claim([item]));
        assert.equal((await w.paid()).paid, 0n);
        await w.claim();
        assert.equal((await w.paid()).paid, toNano('1'));
    });
}

test('claim refused: a receipt by an unattested key', async () => {
    const w = await ready();
    await refused(w, w.owner, w.provider, 124, () => w.claim([{ enclave: keyOf(0x51) }]));
});

test('claim refused: a receipt signed by another key than it names', async () => {
    const w = await ready();
    const forger = { publicKey: w.enclave.publicKey, secretKey: keyOf(0x51).secretKey };
    await refused(w, w.owner, w.channel, 133, () => w.claim([{ enclave: forger }]));
});

for (const [second, code, paid] of [[0, 0, toNano('1')], [1, 135, 0n]]) {
    test(`claim ${code ? 'refused: the window is over' : 'paid at the last second of its window'}`, async () => {
        const w = await ready();
        w.chain.now = NOW + 4 * DAY + second;
        assert.equal(exitCode(await w.claim(), code ? w.provider : w.channel), code);
        assert.equal((await w.paid()).paid, paid);
    });
}

test('claim refused: there is no such Channel', async () => {
    const w = await World.create();
    await w.attest();
    const before = await w.balance(w.owner.address);
    const result = await w.claim();
    assert.equal(before - (await w.balance(w.owner.address)), result.fees);
});

test('claim refused: nine items', async () => {
    const w = await ready();
    await refused(w, w.owner, w.provider, 125, () => w.claim(Array(9).fill({})));
});

test('a voucher past its cap pays only the cap; a replay pays nothing more', async () => {
    const w = await ready();
    const item = { receipt: { total: toNano('3') } };
    await w.claim([item]);
    assert.equal((await w.paid()).paid, toNano('2'));
    const channel = await w.balance(w.channel);
    await refused(w, w.owner, w.channel, 0, () => w.claim([item]));
    assert.equal((await w.paid()).paid, toNano('2'));
    assert.equal(await w.balance(w.channel), channel);
});

test('an older, lower voucher does not lower what is known', async () => {
    const w = await ready();
    await w.claim([{ receipt: { total: toNano('0.5') } }]);
    await w.claim([{ voucher: { cap: toNano('1') }, receipt: { sequence: 2, total: toNano('1.8') } }]);
    assert.deepEqual(await w.paid(), { paid: toNano('1'), cap: toNano('2'), expiry: NOW + 7 * DAY });
    await w.claim([{ repeated: true, receipt: { sequence: 2, total: toNano('1.8') } }]);
    assert.equal((await w.paid()).paid, toNano('1.8'));
});

test('one refused item refuses the claim: nothing is paid by halves', async () => {
    const w = await ready();
    await refused(w, w.owner, w.channel, 133, () => w.claim([{}, { receipt: { sequence: 2, network: -239 } }]));
    await refused(w, w.owner, w.provider, 124, () => w.claim([{}, { enclave: keyOf(0x51) }]));
    assert.equal((await w.paid()).paid, 0n);
    await w.claim();
    assert.equal((await w.paid()).paid, toNano('1'));
});

test('too little value is refused', async () => {
    const w = await ready();
    const least = (await w.get(w.provider, 'claim_value', [{ type: 'int', value: 1n }])).readBigNumber();
    await refused(w, w.owner, w.provider, 101, () => w.claim([{}], { value: least - 1n }));
    await w.claim([{}], { value: least });
    assert.equal((await w.paid()).paid, toNano('1'));
    const attest = (await w.get(w.registry, 'attest_value')).readBigNumber();
    await refused(w, w.owner, w.registry, 101, () => w.attest({}, [0, 1, 2], { value: attest - 1n }));
    w.chain.now = NOW + 10;
    assert.equal(exitCode(await w.attest({ generation: 1, until: NOW + DAY + 10 }, [0, 1, 2], { value: attest }), w.provider), 0);
});

test('the least value is enough for sixteen signatures and for eight items', async (t) => {
    const w = await World.create({ verifiers: 16, threshold: 16 });
    const value = (await w.get(w.registry, 'attest_value')).readBigNumber();
    const all = Array.from({ length: 16 }, (_, i) => 15 - i);
    const attest = await w.attest({}, all, { value });
    assert.equal(exitCode(attest, w.provider), 0);
    t.diagnostic(`attest 16 of 16: gas ${attest.gas}, fees ${attest.fees} nanoton, at least ${value}`);
    await w.topUp(toNano('5'));
    const least = (await w.get(w.provider, 'claim_value', [{ type: 'int', value: 8n }])).readBigNumber();
    const items = Array.from({ length: 8 }, (_, i) => ({ repeated: i > 1, receipt: { sequence: i, total: BigInt(i + 1) } }));
    await w.claim(items, { value: least });
    assert.equal((await w.paid()).paid, 8n);
});

test('a full Provider costs no more than the bounds allow, and takes no further key', async (t) => {
    const w = await World.create();
    await w.topUp(toNano('5'));
    const { data } = (await w.chain.getContract(w.provider)).account.account.storage.state.state;
    const s = data.beginParse();
    const fixed = s.loadBits(267 + 32);
    s.loadMaybeRef();
    s.skip(16);
    const record = { serialize: (r, b) => b.storeUint(1, 8).storeUint(NOW, 32).storeUint(NOW + DAY, 32).storeUint(0, 64)
        .storeUint(NOW + 12 * DAY, 32).storeUint(r, 256), parse: () => { throw new Error('not read'); } };
    const keys = Dictionary.empty(Dictionary.Keys.BigUint(256), record);
    for (let i = 0; i < 511; i++) keys.set(BigInt('0x' + keyOf(0).publicKey.toString('hex')) ^ (BigInt(i + 1) << 247n), BigInt(i));
    const full = beginCell().storeBits(fixed).storeDict(keys).storeUint(511, 16).storeSlice(s).endCell();
    await w.chain.setShardAccount(w.provider, createShardAccount({ address: w.provider, code: CODE.provider, data: full,
        balance: toNano('1') }));
    const result = await w.attest();
    assert.equal(exitCode(result, w.provider), 0);
    const claim = await w.claim([{}], { value: (await w.get(w.provider, 'claim_value', [{ type: 'int', value: 1n }])).readBigNumber() });
    assert.equal((await w.paid()).paid, toNano('1'));
    await within(w, w.provider, 20000 + 512 * 900, 60 + 2 * 512);
    t.diagnostic(`full Provider: attest gas ${result.gas}, claim gas ${claim.gas}`);
    assert.equal(exitCode(await w.attest({ enclaveKey: keyOf(0x51).publicKey }), w.provider), 123);
});

test('a closing channel takes no deposit and refunds no earlier than its delay', async () => {
    const w = await ready();
    await refused(w, w.client, w.channel, 141, () => w.finishClose());
    await w.startClose();
    await refused(w, w.client, w.channel, 140, () => w.startClose());
    await refused(w, w.client, w.channel, 140, () => w.topUp(toNano('1')));
    w.chain.now = NOW + 3 * DAY - 1;
    assert.equal(exitCode(await w.finishClose(), w.channel), 142);
    w.chain.now = NOW + 3 * DAY;
    assert.equal(exitCode(await w.finishClose(), w.channel), 0);
    assert.equal(exitCode(await w.claim(), w.channel), 140);
    await refused(w, w.client, w.channel, 140, () => w.topUp(toNano('1')));
    w.chain.now = NOW + 13 * DAY;
    assert.equal(exitCode(await w.call(OP.delete, w.stranger, w.channel), w.channel), 142);
});

test('no close delay keeps money for more than ninety days', async () => {
    for (const closeDelay of [90 * DAY + 1, 2 ** 32 - 1]) {
        const w = await World.create();
        w.channelInit = channelState({ provider: w.provider, owner: w.owner.address, client: w.client.address,
            clientKey: w.clientKeys.publicKey, closeDelay });
        w.channel = contractAddress(0, w.channelInit);
        await w.topUp(toNano('5'));
        assert.equal(exitCode(await w.startClose(), w.channel), 0);
        assert.equal((await w.state()).at, NOW + 90 * DAY);
        w.chain.now = NOW + 90 * DAY - 1;
        assert.equal(exitCode(await w.finishClose(), w.channel), 142);
        w.chain.now = NOW + 90 * DAY;
        assert.equal(exitCode(await w.finishClose(), w.channel), 0);
        w.chain.now += 97 * DAY;
        await refused(w, w.stranger, w.channel, 142, () => w.call(OP.delete, w.stranger, w.channel));
        w.chain.now += 1;
        assert.equal(exitCode(await w.call(OP.delete, w.stranger, w.channel), w.channel), 0);
    }
});

test('a claim whose new entries the Channel could not pay rent for is refused', async () => {
    const w = await World.create();
    const key = (n) => keyPairFromSeed(sha256_sync(`enclave ${n}`));
    for (let n = 0; n < 18; n++) await w.attest({ enclaveKey: key(n).publicKey });
    await w.topUp(toNano('0.2'));
    const item = (n, total) => ({ enclave: key(n), receipt: { total } });
    for (let n = 0; n < 14; n++) await w.claim([item(n, 1000n)]);
    const before = await w.balance(w.channel);
    // The first takes everything; with the seventeenth entry begins the next step of rent.
    const all = [item(14, toNano('1')), item(15, 5n), item(16, 5n)];
    await refused(w, w.owner, w.channel, 137, () => w.claim(all));
    assert.equal(await w.balance(w.channel), before);
    await w.claim([item(14, toNano('1'))]);
    await w.claim([item(15, 5n)]);
    await refused(w, w.owner, w.channel, 137, () => w.claim([item(16, 5n)]));
    assert.deepEqual([(await w.state()).entries, (await w.state()).available], [16, 0n]);
    await w.topUp(toNano('0.1'));
    await w.claim([item(16, 5n)]);
    assert.deepEqual([(await w.state()).entries, (await w.paid(key(16).publicKey)).paid], [17, 5n]);
});

test('a verifier set that was replaced attests no more', async () => {
    const w = await ready({ timeLock: 0 });
    await propose(w, change.verifiers(w.verifiers.map((k) => k.publicKey), 3));
    const later = { generation: 1, until: NOW + DAY + 1 };
    w.chain.now = NOW + 1;
    await refused(w, w.owner, w.registry, 105, () => w.attest(later));
    await w.attest({ ...later, setEpoch: 1 });
    assert.equal((await w.record()).setEpoch, 1);
});

test('too little value is refused for every operation of a Channel', async () => {
    const w = await ready();
    const value = toNano('0.003');
    const call = (op, from, value) => w.call(op, from, w.channel, value);
    await refused(w, w.client, w.channel, 101, () => call(OP.topUp, w.client, toNano('0.0015')));
    await refused(w, w.client, w.channel, 101, () => call(OP.startClose, w.client, value));
    assert.equal((await w.state()).status, 0);
    taken(await w.startClose(), w.channel);
    w.chain.now = NOW + 3 * DAY;
    await refused(w, w.stranger, w.channel, 101, () => call(OP.finishClose, w.stranger, value));
    assert.equal((await w.state()).status, 1);
    taken(await w.finishClose(), w.channel);
    w.chain.now = NOW + 30 * DAY;
    await refused(w, w.stranger, w.channel, 101, () => call(OP.delete, w.stranger, value));
    assert.equal((await w.state()).status, 2);
    // A Provider attaches enough to a release; here a person stands in its place.
    w.channelInit = channelState({ provider: w.owner.address, owner: w.owner.address, client: w.client.address, clientKey: w.clientKeys.publicKey });
    w.channel = contractAddress(0, w.channelInit);
    taken(await w.topUp(toNano('1')), w.channel);
    await refused(w, w.owner, w.channel, 101, () => call(OP.release, w.owner, value));
    taken(await call(OP.release, w.owner, toNano('0.05')), w.channel);
});
