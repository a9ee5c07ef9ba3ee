// A true receipt is claimed where it does not belong.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { contractAddress, toNano } from '@ton/core';
import { keyOf } from '../support/cells.mjs';
import { ready, refused } from '../support/acts.mjs';
import { channelState, NOW, providerState, World } from '../support/world.mjs';

test('a receipt of another network, provider, channel or enclave pays nothing', async () => {
    const w = await ready();
    const second = keyOf(0x51);
    await w.attest({ enclaveKey: second.publicKey });
    for (const receipt of [{ network: -239 }, { network: 0 }, { provider: w.registry }, { channel: w.provider },
        { enclaveKey: second.publicKey }]) {
        await refused(w, w.owner, w.channel, 133, () => w.claim([{ receipt }]));
    }
    assert.equal((await w.paid()).paid, 0n);
    await w.claim();
    assert.equal((await w.paid()).paid, toNano('1'));
});

test('a receipt for one channel of a client is not paid from another of the same client', async () => {
    const w = await ready();
    const init = channelState({ provider: w.provider, owner: w.owner.address, client: w.client.address,
        clientKey: w.clientKeys.publicKey, salt: 8 });
    const other = contractAddress(0, init);
    await w.send(w.client, other, toNano('5'), (await import('../support/world.mjs')).plain(0x43030001), init);
    const item = { channel: other, receipt: { channel: w.channel }, voucher: { channel: w.channel } };
    await refused(w, w.owner, other, 133, () => w.claim([item]));
});

test('a receipt for one provider is not paid by a channel of another provider of the same owner', async () => {
    const w = await ready();
    const fake = providerState({ registry: w.registry, owner: w.owner.address, salt: 1 });
    const [provider, address] = [w.provider, contractAddress(0, fake)];
    await w.send(w.owner, address, toNano('0.2'), (await import('../support/world.mjs')).plain(0x43000001), fake);
    w.provider = address;
    await w.attest();
    await refused(w, w.owner, w.channel, 100, () => w.claim([{ receipt: { provider } }]));
    w.provider = provider;
    await w.claim([{ receipt: { time: NOW } }]);
    assert.equal((await w.paid()).paid, toNano('1'));
});
