// schema.tlb says what cells are: the published vectors, every message of every kind and every state of the three contracts are read by it,
// to the last bit.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Address, Cell, toNano } from '@ton/core';
import { anchor, cancel, change, execute, forbid, propose, prune, revoke, revokeKey, slash, stake, stakeOf, taken, tighten, unstake, withdraw } from './support/acts.mjs';
import { keyOf } from './support/cells.mjs';
import { scheme } from './support/tlb.mjs';
import { DAY, IMAGE, MODEL, NETWORK, NOW, OP, plain, World } from './support/world.mjs';

const read = (path) => readFileSync(new URL(path, import.meta.url), 'utf8');
const tlb = scheme(read('../../schema.tlb'));
const bytes = (byte) => Buffer.alloc(32, byte).toString('hex');
const at = (byte, workchain = 0) => new Address(workchain, Buffer.alloc(32, byte)).toString();
const number = (hex) => BigInt(`0x${hex}`);

test('signed cells are what the scheme says, field by field', () => {
    const { cells } = JSON.parse(read('../../../docs/vectors/cells.json'));
    const cell = (name) => Cell.fromHex(cells[name].boc);
    assert.deepEqual(tlb.whole('Voucher', cell('voucher')), { network: -217n, channel: at(0xc1), enclave_key: bytes(0xe1), cap: 0xfedcba9876543210n,
        prompt: 1n, cached: 2n, completion: 3n, reasoning: 0xffffffffffffffffn, expiry: 0xfffffffen });
    assert.deepEqual(tlb.whole('SettlementReceipt', cell('settlement_receipt')), { network: -217n, provider: at(0xb1, -1), channel: at(0xc1),
        enclave_key: bytes(0xe1), sequence: 0xfedcba9876543210n, total: 0x0123456789abcdefn, time: 1800000000n });
    assert.deepEqual(tlb.whole('Verdict', cell('verdict')), { network: -3n, registry: at(0xa1), provider: at(0xb1), enclave_key: bytes(0xe1),
        generation: 7n, set_epoch: 3n, until: 1800086400n, expiry: 1800003600n,
        subject: { evidence_id: bytes(0x11), image: bytes(0x22), model_root: bytes(0x33) } });
    assert.deepEqual(tlb.whole('CheckpointAnchor', cell('checkpoint_anchor')), { network: -239n, registry: at(0xa1), origin: bytes(0x44),
        tree_size: 0xfedcba9876543210n, root: bytes(0x55), time: 1800000000n });
});

/** Follows a world: every message that its contracts take or send is read by the scheme, and every state that they leave. */
function follow(w, kinds) {
    const { send } = w;
    w.states = {};
    w.send = async (...args) => {
        const result = await send.apply(w, args);
        for (const { inMessage } of result.transactions) {
            const { info, body } = inMessage;
            if (info.type !== 'internal' || info.bounced || body.bits.length < 32) continue;
            const contracts = [w.registry, w.provider, w.channel];
            if (!contracts.some((contract) => contract.equals(info.dest) || contract.equals(info.src))) continue;
            const [[kind, fields]] = Object.entries(tlb.whole('Message', body));
            kinds.set(kind, fields);
        }
        for (const [name, type] of [['registry', 'RegistryData'], ['provider', 'ProviderData'], ['channel', 'ChannelData']]) {
            const { state } = (await w.chain.getContract(w[name])).account.account?.storage.state ?? {};
            if (state?.data) w.states[name] = tlb.whole(type, state.data);
        }
        return result;
    };
}

test('every message and every state is what the scheme says, and fields mean what get-methods say', async () => {
    const w = await World.create();
    const kinds = new Map();
    const keys = [0, 1, 2, 3].map((n) => keyOf(0x50 + n));
    const hex = keys.map((key) => key.publicKey.toString('hex'));
    const other = Buffer.alloc(32, 0x77);
    follow(w, kinds);
    const paid = (n, turn, fields = {}) => ({ enclave: keys[n], receipt: { sequence: turn, total: toNano('0.1') * BigInt(turn) }, ...fields });

    for (const [n, { publicKey }] of keys.entries()) taken(await w.attest({ enclaveKey: publicKey, until: NOW + DAY - 60 - n }), w.provider);
    taken(await w.attest({ generation: 1 }), w.provider);
    assert.deepEqual(kinds.get('attested'), { query_id: 0n, enclave_key: hex[0], generation: 1n, set_epoch: 0n, until: BigInt(NOW + DAY),
        evidence_id: Buffer.alloc(32, 0x11).toString('hex'), payer: w.owner.address.toString() });
    taken(await w.topUp(toNano('5')), w.channel);
    taken(await w.send(w.stranger, w.registry, toNano('0.5'), plain(OP.fund)), w.registry);
    taken(await w.claim([paid(0, 1), paid(1, 2), paid(2, 3)]), w.channel);
    assert.deepEqual(kinds.get('settle').attested.map(({ until }) => until), [0, 61, 62].map((less) => BigInt(NOW + DAY - less)));
    taken(await w.claim([paid(0, 4, { repeated: true })]), w.channel);
    assert.deepEqual([kinds.get('paid'), kinds.get('claim').first.voucher], [{ amount: toNano('0.3') }, null]);
    const { of_0, of_1, of_2, ...channel } = w.states.channel;
    const entries = new Map([...of_0, ...of_1, ...of_2]);
    const { status, at: since, opened } = await w.state();
    assert.deepEqual([channel.status, channel.at, channel.opened, channel.count], [status, since, opened, 3].map(BigInt));
    assert.equal(entries.size, 3);
    for (const n of [0, 1, 2]) {
        const { paid: amount, cap, expiry } = await w.paid(keys[n].publicKey);
        assert.deepEqual(entries.get(number(hex[n])), { paid: amount, cap, expiry: BigInt(expiry) });
    }
    assert.deepEqual([channel.provider, channel.owner, channel.terms.client, channel.network, channel.terms.close_delay],
        [w.provider, w.owner.address, w.client.address].map(String).concat([BigInt(NETWORK), BigInt(3 * DAY)]));
    // Refused by the Channel: the owner gets the rest.
    await w.claim([paid(0, 5, { client: keyOf(1) })]);

    taken(await stake(w, toNano('10')), w.provider);
    taken(await unstake(w, toNano('4')), w.provider);
    taken(await withdraw(w), w.provider);
    const { stake: held, unbonding, unlocksAt } = await stakeOf(w);
    const provider = w.states.provider;
    assert.deepEqual([provider.stake, provider.unbonding, provider.unlocks_at], [held, unbonding, BigInt(unlocksAt)]);
    assert.deepEqual([provider.owner, provider.claim_window, provider.count, provider.terms.registry], [w.owner.address.toString(), BigInt(3 * DAY), 4n, w.registry.toString()]);
    taken(await revoke(w, keys[1].publicKey, false), w.provider);
    taken(await revokeKey(w, keys[2].publicKey, true), w.provider);
    taken(await slash(w, { sequence: 1, total: 2n }, { sequence: 2, total: 1n }, { enclave: keys[3] }), w.provider);
    for (const { publicKey } of keys) {
        const { state, generation, setEpoch, since, until, keep } = await w.record(publicKey);
        const fields = w.states.provider.keys.get(number(publicKey.toString('hex')));
        assert.deepEqual(fields, { state: BigInt(state), generation: BigInt(generation), set_epoch: BigInt(setEpoch), keep: BigInt(keep),
            attested: { since: BigInt(since), until: BigInt(until) }, evidence_id: Buffer.alloc(32, 0x11).toString('hex') });
    }

    const changes = [change.allow(1, other), change.maxLifetime(3600), change.governance(w.governance.address), change.timeLock(DAY),
        change.release(1, IMAGE, MODEL), change.verifiers([keyOf(0x20).publicKey, keyOf(0x21).publicKey], 2)];
    for (const cell of changes) taken(await propose(w, cell), w.registry);
    const names = [...w.states.registry.rare.proposals.values()].map(({ change }) => Object.keys(change)[0]);
    assert.deepEqual(names, ['allow', 'set_max_lifetime', 'set_governance', 'set_time_lock', 'set_release', 'set_verifiers']);
    taken(await cancel(w, 0), w.registry);
    taken(await anchor(w), w.registry);
    taken(await tighten(w, { drop: 0b10, threshold: 4, maxLifetime: DAY - 1 }), w.registry);
    taken(await w.startClose(), w.channel);
    w.chain.now += 3 * DAY;
    for (const id of [1, 2, 3, 4]) taken(await execute(w, id), w.registry);
    taken(await forbid(w, 1, MODEL), w.registry);
    const registry = w.states.registry;
    assert.deepEqual([registry.set_epoch, registry.threshold, registry.max_lifetime, registry.image_count, registry.model_count], [1n, 4n, 3600n, 1n, 0n]);
    assert.deepEqual([[...registry.verifiers.keys()], registry.images.size, registry.models.size], [[0n, 2n, 3n, 4n], 1, 0]);
    assert.deepEqual([registry.rare.time_lock, registry.rare.next_id, registry.rare.pending, registry.rare.release.version], [BigInt(DAY), 6n, 1n, 1n]);
    assert.deepEqual([registry.rare.release.provider_code, registry.rare.release.channel_code], [IMAGE, MODEL].map((digest) => digest.toString('hex')));
    assert.deepEqual([...registry.rare.anchors.values()], [{ key: w.verifiers[0].publicKey.toString('hex'), origin: bytes(0x44), tree_size: 10n,
        root: bytes(0x55), time: BigInt(NOW) }]);
    taken(await execute(w, 5), w.registry);
    assert.deepEqual([w.states.registry.threshold, [...w.states.registry.verifiers.values()]],
        [2n, [0x20, 0x21].map((seed) => keyOf(seed).publicKey.toString('hex'))]);
    taken(await w.finishClose(), w.channel);
    w.chain.now += 20 * DAY;
    taken(await w.call(OP.delete, w.stranger, w.channel), w.channel);
    taken(await prune(w, keys[0].publicKey), w.provider);
    w.openAnother(8);
    await w.topUp(toNano('1'));
    taken(await w.release(), w.channel);
    assert.deepEqual([...kinds.keys()].sort(), tlb.types.get('Message').map(({ name }) => name).sort(), 'a kind of message was not met');
});

test('a scheme with another field, width or order reads something else, or nothing', async () => {
    const text = read('../../schema.tlb');
    const { cells } = JSON.parse(read('../../../docs/vectors/cells.json'));
    const voucher = Cell.fromHex(cells.voucher.boc);
    for (const [from, to] of [['cap:uint64', 'cap:uint32'], ['cap:uint64\n', 'cap:uint64 more:uint1\n'], [' expiry:uint32 = Voucher', ' = Voucher']]) {
        const changed = text.replace(from, to);
        assert.notEqual(changed, text);
        assert.throws(() => scheme(changed).whole('Voucher', voucher), from);
    }
});
