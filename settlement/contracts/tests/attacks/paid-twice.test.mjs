// A key is removed from the Provider and attested anew; its enclave goes on counting, and the provider claims its total again.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { contractAddress, toNano } from '@ton/core';
import { prune, ready, refused, taken } from '../support/acts.mjs';
import { DAY, NOW, OP, plain, providerState, World } from '../support/world.mjs';

// What once removed a Channel's entry after its key.
const pruneEntry = (w) => w.send(w.owner, w.provider, toNano('0.1'),
    plain(0x43020009).storeBuffer(w.channel.hash, 32).storeBuffer(w.enclave.publicKey, 32));
const KEPT = 12 * DAY; // an attestation of a day, three days of claims, a week, and a day

test('a total is paid once, whatever became of its key meanwhile', async () => {
    const w = await ready();
    const [short, long] = [{ expiry: NOW + 3600 }, { expiry: NOW + 60 * DAY }];
    taken(await w.claim([{ voucher: { ...short, cap: toNano('2') }, receipt: { total: toNano('2') } }]), w.channel);
    const again = w.chain.now = NOW + KEPT + 1;
    taken(await prune(w, w.enclave.publicKey), w.provider);
    await pruneEntry(w);
    taken(await w.attest({ until: again + DAY, expiry: again }), w.provider);
    const before = await w.balance(w.channel);
    const more = { sequence: 2, total: toNano('2.1'), time: again };
    const result = taken(await w.claim([{ voucher: { ...long, cap: toNano('2.1') }, receipt: more }]), w.channel);
    assert.equal(before - (await w.balance(w.channel)) - w.rent(result), toNano('0.1'));
    assert.equal((await w.paid()).paid, toNano('2.1'));
});

test('the same receipt is not paid again where there is no claim window either', async () => {
    const w = await World.create();
    const state = providerState({ registry: w.registry, owner: w.owner.address, claimWindow: 0 });
    w.provider = contractAddress(0, state);
    await w.send(w.owner, w.provider, toNano('0.2'), plain(OP.fund), state);
    w.openAnother(7);
    taken(await w.attest({ until: NOW + 100 }), w.provider);
    await w.topUp(toNano('5'));
    const item = { voucher: { expiry: NOW + 90 }, receipt: { time: NOW + 80 } };
    w.chain.now = NOW + 90;
    taken(await w.claim([item]), w.channel);
    const again = w.chain.now = NOW + 101;
    await refused(w, w.stranger, w.provider, 126, () => prune(w, w.enclave.publicKey));
    await pruneEntry(w);
    await refused(w, w.owner, w.provider, 120, () => w.attest({ until: again + DAY, expiry: again }));
    await refused(w, w.owner, w.provider, 135, () => w.claim([item]));
    assert.equal((await w.paid()).paid, toNano('1'));
});

test('nothing removes an entry', async () => {
    const w = await ready();
    await w.claim();
    w.chain.now = NOW + KEPT + 1;
    await prune(w, w.enclave.publicKey);
    await refused(w, w.owner, w.provider, 0xffff, () => pruneEntry(w));
    const ofChannel = plain(0x43030007).storeBuffer(w.enclave.publicKey, 32).storeAddress(w.owner.address);
    await refused(w, w.owner, w.channel, 0xffff, () => w.send(w.owner, w.channel, toNano('0.1'), ofChannel));
    assert.equal((await w.paid()).paid, toNano('1'));
});
