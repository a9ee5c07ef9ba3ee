// A contract of the attacker's poses as the Provider, or as its Registry.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { contractAddress, toNano } from '@ton/core';
import { keyOf } from '../support/cells.mjs';
import { ready, refused } from '../support/acts.mjs';
import { OP, plain, providerState, registryState } from '../support/world.mjs';

test('a Provider under a Registry of its owner cannot touch a Channel of the true one', async () => {
    const w = await ready();
    const keys = [keyOf(0x80)];
    const registry = registryState({ governance: w.stranger.address, threshold: 1, verifiers: keys.map((k) => k.publicKey) });
    const fake = providerState({ registry: contractAddress(0, registry), owner: w.stranger.address });
    await w.send(w.stranger, contractAddress(0, registry), toNano('1'), plain(OP.fund), registry);
    await w.send(w.stranger, contractAddress(0, fake), toNano('0.2'), plain(OP.fund), fake);
    const truth = { registry: w.registry, provider: w.provider };
    Object.assign(w, { registry: contractAddress(0, registry), provider: contractAddress(0, fake) });
    const enclave = keyOf(0x81);
    const body = w.attestBody(w.verdict({ enclaveKey: enclave.publicKey }), [0], { keys });
    await w.send(w.stranger, w.registry, toNano('0.2'), body);
    assert.equal((await w.record(enclave.publicKey)).found, true, 'on its own it works');
    await refused(w, w.stranger, w.channel, 100, () => w.claim([{ enclave }], { from: w.stranger }));
    Object.assign(w, truth);
    await w.claim();
    assert.equal((await w.paid()).paid, toNano('1'));
});

test('the Provider takes attestations from its Registry alone, and claims from its owner alone', async () => {
    const w = await ready();
    const attested = plain(OP.attested).storeUint(1, 256).storeUint(0, 32).storeUint(0, 32).storeUint(2 ** 31, 32)
        .storeUint(0, 256).storeAddress(w.stranger.address);
    for (const from of [w.stranger, w.owner, w.governance]) {
        await refused(w, from, w.provider, 100, () => w.send(from, w.provider, toNano('0.2'), attested));
    }
    for (const from of [w.stranger, w.client, w.governance]) await refused(w, from, w.provider, 100, () => w.claim([{}], { from }));
});

test('a bounce that did not come from a contract of ours moves nothing', async () => {
    const w = await ready();
    const before = [await w.balance(w.provider), await w.balance(w.registry)];
    for (const to of [w.provider, w.registry]) {
        await w.chain.sendMessage({ info: { type: 'internal', src: w.stranger.address, dest: to, value: { coins: toNano('0.05') },
            bounce: false, bounced: true, ihrDisabled: true, ihrFee: 0n, forwardFee: 0n, createdAt: 0, createdLt: 0n },
            body: plain(0xffffffff).storeUint(OP.settle, 32).storeUint(0, 64).endCell() });
    }
    assert.ok((await w.balance(w.provider)) >= before[0]);
    assert.ok((await w.balance(w.registry)) >= before[1]);
});
