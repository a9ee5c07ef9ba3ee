// What operations cost with everything counted: the wallet (v5R1) and its external message, every contract, every forward fee, and the
// owner's receipt of the payment, without rent. Gas and fees are pinned exactly in docs/vectors/operation-costs.json: of every operation
// on nearly empty contracts, which the Rust tests find the same on the local chain; with 100 keys in the Provider, where they are held
// to limits, and receipts of the hundred-thousandth request for several TON; and on contracts as large as they can become.
// WRITE_VECTORS=1 rewrites the file, docs/costs.md, which shows what it says, and the table of docs/contracts.md, which shows what is held to limits.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { toNano } from '@ton/core';
import { anchor, cancel, change, execute, forbid, propose, prune, revoke, revokeKey, slash, stake, taken, tighten, unstake, within,
    withdraw } from './support/acts.mjs';
import { keyOf } from './support/cells.mjs';
import { enclave as key, longLists, providerOf, range, sixteen } from './support/largest.mjs';
import { DAY, IMAGE, NOW, OP, plain, World } from './support/world.mjs';

const KEYS = 100;
const PUBLISHED = "for comparison, Cocoon's published figure: about 0.01 TON per operation of its own contracts (a charge, a top-up or a payout between one "
    + 'client or worker and one proxy, signed by the proxy)';
const file = new URL('../../../docs/vectors/operation-costs.json', import.meta.url);
const page = new URL('../../../docs/costs.md', import.meta.url);
const contracts = new URL('../../../docs/contracts.md', import.meta.url);
const speed = new URL('../../../docs/performance.md', import.meta.url);
const ton = (nanoton) => (nanoton / 1e9).toFixed(5);

const thousands = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ',');
const span = (numbers, words) => [...new Set([numbers].flat().map(words))].join(' to ');
const row = (name, [gas, fees]) => `| ${name} | ${span(gas, thousands)} | ${span(fees, ton)} |\n`;

const found = { small: {}, large: {}, full: {} };
/** Of what is held to a limit: the mean in nanoton (of several sizes of batch the dearest), the dearest, and the limit in TON. */
const held = {};
const hold = (name, fees, limit) => {
    const mean = fees.reduce((sum, each) => sum + each, 0) / fees.length;
    const dearest = Math.max(...fees);
    assert.ok(dearest <= Number(toNano(limit)), `${name}: ${dearest / 1e9} of ${limit}`);
    held[name] = { mean: Math.max(mean, held[name]?.mean ?? 0), dearest: Math.max(dearest, held[name]?.dearest ?? 0), limit };
    return mean;
};
const heldRows = () => Object.entries(held).map(([name, { mean, dearest, limit }]) => `| ${name} | ${ton(mean)} | ${ton(dearest)} | ${limit} |\n`).join('');
const pinned = process.env.WRITE_VECTORS ? null : JSON.parse(readFileSync(file, 'utf8'));
after(() => {
    if (pinned) return;
    const group = (entries) => Object.entries(entries).map(([name, numbers]) => `    ${JSON.stringify(name)}: ${JSON.stringify(numbers)}`).join(',\n');
    writeFileSync(file, `{\n${Object.entries(found).map(([name, entries]) => `  "${name}": {\n${group(entries)}\n  }`).join(',\n')}\n}\n`);
    writeFileSync(contracts, readFileSync(contracts, 'utf8').replace(table('held'), `$1${heldRows()}`));
    writeFileSync(page, Object.entries(found).reduce((text, [name, entries]) => text.replace(table(name), `$1${rows(entries)}`), readFileSync(page, 'utf8')));
});

/** The rows of one table of the page: after the line that names it, and its head. */
const table = (group) => new RegExp(`(<!-- ${group} -->\\n\\|.*\\n\\|.*\\n)(?:\\|.*\\n)*`);
const rows = (entries) => Object.entries(entries).map(([name, numbers]) => row(name, numbers)).join('');

test('the pages of costs and of performance show what is pinned', () => {
    if (!pinned) return;
    const text = readFileSync(page, 'utf8');
    for (const [group, entries] of Object.entries(pinned)) assert.ok(text.match(table(group))?.[0].endsWith(`|\n${rows(entries)}`), group);
    const [, ...said] = readFileSync(speed, 'utf8').match(/3 of 5 verdicts ([\d.]+) TON, one claim with its voucher ([\d.]+) TON, a repeated one ([\d.]+) TON/);
    assert.deepEqual(said, ['attest', 'claim', 'claim again'].map((name) => (pinned.small[name][1] / 1e9).toFixed(4)));
});

/** These costs are those of the file, to the unit: `[gas, fees]`, or of several the least and the most of both. */
function exactly(t, group, name, costs) {
    const list = [costs].flat();
    const bounds = (numbers) => (list.length === 1 ? numbers[0] : [Math.min(...numbers), Math.max(...numbers)]);
    const numbers = [bounds(list.map((c) => c.gas)), bounds(list.map((c) => c.fees))];
    found[group][name] = numbers;
    t.diagnostic(`${name}: gas ${span(numbers[0], thousands)}, ${span(numbers[1], ton)} TON${list.length > 1 ? `, of ${list.length}` : ''}`);
    if (pinned) assert.deepEqual(numbers, pinned[group][name], name);
}

async function attested() {
    const w = await World.create({ wallets: true });
    for (let n = 0; n < KEYS; n++) taken(await w.attest({ enclaveKey: key(n).publicKey }), w.provider);
    return w;
}

/** The key's receipt of this many requests after the hundred-thousandth, alone or under a new voucher. */
const item = (n, turn, repeated = false) => ({ enclave: key(n), repeated, voucher: { cap: toNano('9') + BigInt(turn) },
    receipt: { sequence: 100000 + turn, total: toNano('4') + toNano('0.01') * BigInt(turn) } });
const claim = async (w, items) => w.everything(taken(await w.claim(items), w.channel));

/** None is dearer than the limit, and all are what they were. */
function all(t, name, costs, limit) {
    const mean = hold(name, costs.map((c) => c.fees), limit);
    t.diagnostic(`${name}: ${ton(mean)} TON, mean of ${costs.length}, at most ${limit}`);
    exactly(t, 'large', name, costs);
}

/** What each further key of these claims of `count` cost, beside the first alone: `[claim, the first alone]` in the same state. */
function further(t, name, count, pairs, row) {
    const each = pairs.map(([batch, alone]) => (batch.fees - alone.fees) / (count - 1));
    t.diagnostic(`${name}, each further key: ${ton(each.reduce((sum, fees) => sum + fees, 0) / each.length)} TON, ${ton(Math.min(...each))} to ${
        ton(Math.max(...each))}, of ${each.length}, at most 0.007`);
    hold(`each further key, ${row}`, each, '0.007');
    exactly(t, 'large', name, pairs.map(([batch]) => batch));
}

/** A Channel in which these keys have been paid once, five at a time. */
async function channelOf(w, salt, keys) {
    w.openAnother(salt);
    await w.topUp(toNano('450'));
    for (let i = 0; i < keys.length; i += 5) await claim(w, keys.slice(i, i + 5).map((n) => item(n, 0)));
    assert.equal((await w.state()).entries, keys.length);
}

test('claims in a channel of one enclave cost what the documents say, for every key', async (t) => {
    const w = await attested();
    const [first, again] = [[], []];
    for (let n = 0; n < KEYS; n++) {
        w.openAnother(1000 + n);
        await w.topUp(toNano('6'));
        first.push(await claim(w, [item(n, 0)]));
        again.push(await claim(w, [item(n, 50, true)]));
    }
    all(t, 'first claim of a Channel', first, '0.014');
    all(t, 'claim again, a Channel of one enclave', again, '0.010');
    t.diagnostic(PUBLISHED);
});

test('claims in a channel of 64 enclaves and more cost what the documents say, for every key', async (t) => {
    const w = await attested();
    const costs = { growing: [], fresh: [], repeated: [], first: [] };
    const over = async (keys, list, act) => {
        for (const n of keys) list.push(await claim(w, [act(n)]));
    };
    for (const [salt, there, others] of [[7, range(0, 64), range(64, KEYS)], [8, range(36, KEYS), range(0, 36)]]) {
        w.openAnother(salt);
        await w.topUp(toNano('900'));
        await over(there, costs.growing, (n) => item(n, 0));
        assert.equal((await w.state()).entries, 64);
        await within(w, w.channel, 17000 + 64 * 700, 40 + 2 * 64);
        await over(there, costs.fresh, (n) => item(n, 1));
        await over(there, costs.repeated, (n) => item(n, 2, true));
        await over(others, costs.first, (n) => item(n, 0));
    }
    all(t, 'first claim of a key, up to 63 entries before', costs.growing, '0.014');
    all(t, 'first claim of a key, 64 to 99 entries before', costs.first, '0.014');
    all(t, 'claim with a new voucher, one of 64 entries', costs.fresh, '0.014');
    all(t, 'claim again, one of 64 entries', costs.repeated, '0.012');
});

test('further keys of a claim cost what the documents say, in every batch', async (t) => {
    const w = await attested();
    await channelOf(w, 7, range(0, 64));
    let turn = 0;
    const firsts = {};
    // Two to five alike, and every mix that has as many signatures as one claim may have; the contract refuses more.
    for (const [name, count, isNew, row = name] of [
        ...range(2, 6).flatMap((n) => [[`${n} with new vouchers`, n, n, '2 to 5 with new vouchers'], [`${n} again`, n, 0, '2 to 5 or 8 again']]),
        ['4 with new vouchers and 2 again', 6, 4],
        ['3 with new vouchers and 4 again', 7, 3],
        ['2 with new vouchers and 6 again', 8, 2],
        ['8 again', 8, 0, '2 to 5 or 8 again'],
    ]) {
        const pairs = [];
        for (let b = 0; b < 20; b++) {
            const keys = range(0, count).map((j) => (b * 7 + j * 13) % 64);
            const alone = await claim(w, [item(keys[0], ++turn, !isNew)]);
            turn++;
            pairs.push([await claim(w, keys.map((n, j) => item(n, turn, j >= isNew))), alone]);
        }
        further(t, name, count, pairs, row);
    }
    // First claims of further keys, in two Channels of the same entries: together in one, the first alone in the other.
    for (const [there, others] of [[range(0, 64), range(64, 99)], [range(36, KEYS), range(0, 35)]]) {
        for (const count of range(2, 6)) {
            const [together, alone] = [2 * count, 2 * count + 1].map((salt) => 100 * there[0] + 100 + salt);
            for (const salt of [together, alone]) await channelOf(w, salt, there);
            firsts[count] ??= [];
            for (let i = 0; i + count <= others.length; i += count) {
                const items = others.slice(i, i + count).map((n) => item(n, 1));
                w.openAnother(alone);
                const first = await claim(w, items.slice(0, 1));
                await claim(w, items.slice(1));
                w.openAnother(together);
                firsts[count].push([await claim(w, items), first]);
            }
        }
    }
    for (const [count, pairs] of Object.entries(firsts)) {
        further(t, `${count} first claims, 64 entries and more`, Number(count), pairs, '2 to 5 first claims, 64 entries and more');
    }
});

const limits = [];
for (const [verifiers, threshold, limit, mostGas] of [[5, 3, '0.017', 29000], [15, 9, '0.024', 36000]]) {
    test(`an attestation by ${threshold} of ${verifiers} costs what the documents say`, async (t) => {
        const w = await World.create({ wallets: true, verifiers, threshold });
        const lowest = range(0, threshold);
        const highest = lowest.map((i) => verifiers - 1 - i);
        const act = async (n, fields, signers) => w.everything(taken(await w.attest({ enclaveKey: key(n).publicKey, ...fields }, signers), w.provider));
        const [first, renewals] = [[], []];
        for (let n = 0; n < KEYS; n++) first.push(await act(n, { until: NOW + DAY - 5 }, lowest));
        for (let n = 0; n < KEYS; n++) renewals.push(await act(n, { generation: 1 }, highest));
        all(t, `attest, ${threshold} of ${verifiers} verifiers`, first, limit);
        all(t, `renew, ${threshold} of ${verifiers} verifiers`, renewals, limit);
        for (const { gas } of [...first, ...renewals]) assert.ok(gas <= mostGas, `gas ${gas}`);
        limits.push(mostGas);
    });
}

// The same steps as in settlement/tests/contracts/costs.rs.
test('every operation on nearly empty contracts costs what the documents say', async (t) => {
    const w = await World.create({ wallets: true });
    const keys = range(0, 8).map((n) => keyOf(0x50 + n));
    const note = async (name, at, act) => exactly(t, 'small', name, w.everything(taken(await act(), w[at])));
    const paid = (n, turn, repeated) => ({ enclave: keys[n], repeated, voucher: { cap: toNano('2') + BigInt(turn) },
        receipt: { sequence: turn, total: toNano('0.1') * BigInt(turn) } });

    await note('open a Channel', 'channel', () => w.topUp(toNano('20')));
    await note('top up', 'channel', () => w.send(w.client, w.channel, toNano('1'), plain(OP.topUp)));
    await note('fund', 'provider', () => w.send(w.owner, w.provider, toNano('0.1'), plain(OP.fund)));
    await note('attest', 'provider', () => w.attest({ until: NOW + DAY - 60 }));
    await note('renew', 'provider', () => w.attest({ generation: 1 }, [4, 1, 3]));
    for (const n of range(1, 8)) taken(await w.attest({ enclaveKey: keys[n].publicKey }), w.provider);
    await note('claim', 'channel', () => w.claim([paid(0, 1)]));
    await note('claim again', 'channel', () => w.claim([paid(0, 2, true)]));
    await note('claim, 2 new keys', 'channel', () => w.claim([paid(1, 1), paid(2, 1)]));
    await note('claim, 5 new keys', 'channel', () => w.claim(range(3, 8).map((n) => paid(n, 1))));
    let turn = 3;
    for (const count of range(2, 6)) {
        await note(`claim, ${count} new vouchers`, 'channel', () => w.claim(range(0, count).map((n) => paid(n, turn))));
        turn++;
        await note(`claim, ${count} again`, 'channel', () => w.claim(range(0, count).map((n) => paid(n, turn, true))));
        turn++;
    }
    await note('claim, 8 again', 'channel', () => w.claim(range(0, 8).map((n) => paid(n, turn, true))));

    await note('stake', 'provider', () => stake(w, toNano('10')));
    await note('unstake', 'provider', () => unstake(w, toNano('4')));
    await note('withdraw', 'provider', () => withdraw(w));
    await note('revoke', 'provider', () => revoke(w, keys[1].publicKey, false));
    await note('revoke_key', 'provider', () => revokeKey(w, keys[2].publicKey, true));
    await note('slash', 'provider', () => slash(w, { sequence: 1, total: 2n }, { sequence: 2, total: 1n }, { enclave: keys[3] }));
    await note('propose', 'registry', () => propose(w, change.allow(1, IMAGE)));
    await note('cancel', 'registry', () => cancel(w, 0));
    await note('anchor, first', 'registry', () => anchor(w));
    await note('anchor', 'registry', () => anchor(w, { treeSize: 11n }));
    await note('tighten', 'registry', () => tighten(w, { drop: 0b10, threshold: 3, maxLifetime: DAY - 1 }));
    await propose(w, change.allow(1, IMAGE));
    await note('start close', 'channel', () => w.startClose());
    w.chain.now += 3 * DAY;
    await w.settleRent();
    await note('execute', 'registry', () => execute(w, 1));
    await note('forbid', 'registry', () => forbid(w, 1, IMAGE));
    await note('finish close', 'channel', () => w.finishClose());
    w.chain.now += 20 * DAY;
    await w.settleRent();
    await note('delete', 'channel', () => w.call(OP.delete, w.stranger, w.channel));
    await note('prune', 'provider', () => prune(w, keys[4].publicKey));
    w.openAnother(8);
    await w.topUp(toNano('1'));
    await note('release', 'channel', () => w.release());
    if (pinned) assert.deepEqual(Object.keys(found.small), Object.keys(pinned.small));
});

test('contracts as large as they can become cost what the documents say', async (t) => {
    const w = await longLists({ wallets: true });
    const signers = range(0, 16);
    const act = async (at, send) => w.everything(taken(await send(), w[at]));
    const several = async (name, at, count, send) => {
        const costs = [];
        for (const n of range(0, count)) costs.push(await act(at, () => send(n)));
        exactly(t, 'full', name, costs);
    };

    // Sixteen verifiers, 256 images and 256 models, sixteen checkpoints, and fifteen of the largest proposals before the last.
    await several('anchor, the first of each of 16 verifiers', 'registry', 16, (index) => anchor(w, {}, { index }));
    await several('anchor, again', 'registry', 16, (index) => anchor(w, { treeSize: 11n }, { index }));
    await several('propose sixteen verifiers, 0 to 15 proposals before', 'registry', 16, (i) => propose(w, sixteen(i), { value: toNano('0.3') }));

    // 512 keys.
    await providerOf(w, range(0, 511).map(key));
    const last = { enclaveKey: key(511).publicKey, until: NOW + DAY - 60 };
    await several('attest the 512th key, 16 of 16 verifiers', 'provider', 1, () => w.attest(last, signers));
    await several('renew, one of 512 keys, 16 of 16 verifiers', 'provider', 64, (n) => w.attest({ enclaveKey: key(8 * n).publicKey, generation: 1 }, signers));

    // 256 entries.
    w.openAnother(1);
    await w.topUp(toNano('9000'));
    for (let i = 0; i < 250; i += 5) await claim(w, range(i, i + 5).map((n) => item(n, 0)));
    await several('claim, 5 new keys, 250 entries before', 'channel', 1, () => w.claim(range(250, 255).map((n) => item(n, 0))));
    await several('claim, the 256th entry', 'channel', 1, () => w.claim([item(255, 0)]));
    assert.equal((await w.state()).entries, 256);
    await several('claim with a new voucher, one of 256 entries', 'channel', 64, (n) => w.claim([item(4 * n, 1)]));
    await several('claim again, one of 256 entries', 'channel', 64, (n) => w.claim([item(4 * n, 2, true)]));
    let turn = 2;
    for (const [count, isNew] of [[2, 2], [3, 3], [4, 4], [5, 5], [8, 2], [2, 0], [3, 0], [4, 0], [5, 0], [8, 0]]) {
        const name = isNew === count ? `claim, ${count} new vouchers, 256 entries` : `claim, ${isNew ? `${isNew} new vouchers and ${count - isNew}` : count} again, 256 entries`;
        await several(name, 'channel', 20, (b) => {
            turn++;
            return w.claim(range(0, count).map((j) => item((b * 29 + j * 41) % 256, turn, j >= isNew)));
        });
    }
    w.chain.now = NOW + 3 * DAY;
    await w.settleRent();
    await several('execute, 16 verifiers of 16 proposals', 'registry', 1, () => execute(w, 15, { value: toNano('0.3') }));
    await several('revoke, one of 512 keys', 'provider', 8, (n) => revoke(w, key(64 * n).publicKey, true));
    await several('start close, 256 entries', 'channel', 1, () => w.startClose());
    w.chain.now += 3 * DAY;
    await w.settleRent();
    await several('finish close, 256 entries', 'channel', 1, () => w.finishClose());
    w.chain.now += 20 * DAY;
    await w.settleRent();
    await several('delete, 256 entries', 'channel', 1, () => w.call(OP.delete, w.stranger, w.channel));
    await several('prune, one of 512 keys', 'provider', 8, (n) => prune(w, key(64 * n + 1).publicKey));
    if (pinned) assert.deepEqual(Object.keys(found.full), Object.keys(pinned.full));
});

test('the table of the contracts\' page shows what was measured, and the limits that it is held to', () => {
    if (!pinned) return;
    const text = readFileSync(contracts, 'utf8');
    assert.ok(text.match(table('held'))?.[0].endsWith(`|\n${heldRows()}`), `it should say\n${heldRows()}`);
    const [, ...most] = text.match(/takes at most ([\d,]+) gas with 3 of 5 verifiers and ([\d,]+) with 9 of 15/);
    assert.deepEqual(most, limits.map(thousands));
});
