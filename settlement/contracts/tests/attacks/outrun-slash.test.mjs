// A provider whose enclave contradicted itself has its key removed before anybody shows it, and takes its stake back.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { contractAddress, toNano } from '@ton/core';
import { prune, refused, revoke, slash, stake, stakeOf, taken, unstake, withdraw } from '../support/acts.mjs';
import { DAY, NOW, OP, plain, providerState, World } from '../support/world.mjs';

const contradiction = [{ sequence: 1, total: 2n }, { sequence: 2, total: 1n }];

async function staked(claimWindow) {
    const w = await World.create();
    const state = providerState({ registry: w.registry, owner: w.owner.address, claimWindow });
    w.provider = contractAddress(0, state);
    await w.send(w.owner, w.provider, toNano('0.2'), plain(OP.fund), state);
    taken(await w.attest({ until: NOW + 60 }), w.provider);
    await stake(w, toNano('10'));
    return w;
}

for (const claimWindow of [0, 3 * DAY]) {
    for (const [name, ended, act] of [
        ['whose attestation ends', 60, async () => {}],
        ['that is retired', 30, (w) => revoke(w, w.enclave.publicKey, false)],
        ['that is void', 30, (w) => revoke(w, w.enclave.publicKey, true)],
    ]) {
        test(`a key ${name} can be slashed until its stake is free, with a claim window of ${claimWindow} s`, async () => {
            const w = await staked(claimWindow);
            w.chain.now = NOW + ended;
            await act(w);
            // The latest moment at which the stake of an active key can be asked back.
            taken(await unstake(w, (await stakeOf(w)).stake), w.provider);
            const { unlocksAt } = await stakeOf(w);
            w.chain.now = unlocksAt;
            assert.equal(unlocksAt, (await w.record()).keep);
            await refused(w, w.stranger, w.provider, 126, () => prune(w, w.enclave.publicKey));
            const before = await w.balance(w.stranger.address);
            taken(await slash(w, ...contradiction), w.provider);
            assert.ok((await w.balance(w.stranger.address)) - before > toNano('1.9'));
            const owner = await w.balance(w.owner.address);
            taken(await withdraw(w), w.provider);
            assert.ok((await w.balance(w.owner.address)) - owner < toNano('0.4'));
        });
    }
}
