// docs/vectors/cells.json, also pinned by the Rust tests: both sides must build the same cells and signatures.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { Address } from '@ton/core';
import { checkpointCell, keyOf, receiptCell, signCell, verdictCell, voucherCell } from './support/cells.mjs';

const file = new URL('../../../docs/vectors/cells.json', import.meta.url);
const address = (byte, workchain = 0) => new Address(workchain, Buffer.alloc(32, byte));
const bytes = (byte) => Buffer.alloc(32, byte);
const big = 0xfedcba9876543210n;

// Every field has a value of its own, the widest where width matters, so that no two can be exchanged.
const cells = {
    voucher: voucherCell({
        network: -217, channel: address(0xc1), enclaveKey: bytes(0xe1), cap: big,
        prices: { prompt: 1n, cached: 2n, completion: 3n, reasoning: 0xffffffffffffffffn }, expiry: 0xfffffffe,
    }),
    settlement_receipt: receiptCell({
        network: -217, provider: address(0xb1, -1), channel: address(0xc1), enclaveKey: bytes(0xe1), sequence: big,
        total: 0x0123456789abcdefn, time: 1800000000,
    }),
    verdict: verdictCell({
        network: -3, registry: address(0xa1), provider: address(0xb1), enclaveKey: bytes(0xe1), generation: 7,
        setEpoch: 3, until: 1800086400, expiry: 1800003600, evidenceId: bytes(0x11), image: bytes(0x22),
        modelRoot: bytes(0x33),
    }),
    checkpoint_anchor: checkpointCell({
        network: -239, registry: address(0xa1), origin: bytes(0x44), treeSize: big, root: bytes(0x55), time: 1800000000,
    }),
};

const seed = 0x2a;
const produced = {
    seed: bytes(seed).toString('hex'),
    public_key: keyOf(seed).publicKey.toString('hex'),
    cells: Object.fromEntries(Object.entries(cells).map(([name, cell]) => [name, {
        boc: cell.toBoc({ idx: false, crc32: false }).toString('hex'),
        hash: cell.hash().toString('hex'),
        signature: signCell(cell, keyOf(seed)).toString('hex'),
    }])),
};

if (process.env.WRITE_VECTORS) {
    writeFileSync(file, JSON.stringify(produced, null, 2) + '\n');
}

test('signed cells are those of the published vectors', () => {
    assert.deepEqual(produced, JSON.parse(readFileSync(file, 'utf8')));
});

test('every operation has the same number in schema.tlb and in the contracts', () => {
    const read = (path, pattern) => {
        const text = readFileSync(new URL(path, import.meta.url), 'utf8');
        return new Map([...text.matchAll(pattern)].map(([, a, b]) => (/^[0-9a-f]+$/.test(b) ? [a, b] : [b, a])));
    };
    const schema = read('../../schema.tlb', /^(\w+)#([0-9a-f]{2}|[0-9a-f]{8}) (?:(?!= \w+;)[^])*= (?:Message|Change);/gm);
    const snake = (name) => name.replace(/(?<!^)[A-Z]/g, (letter) => `_${letter}`).toLowerCase();
    const tolk = new Map();
    for (const [name, number] of read('../src/messages.tolk', /^struct \(0x([0-9a-f]+)\) (\w+)/gm)) tolk.set(snake(name), number);
    // What the virtual machine puts before a body that bounces, and a name that the Provider's message has already.
    assert.ok(tolk.delete('bounced'));
    tolk.set('release', tolk.get('release_to_client'));
    assert.ok(tolk.delete('release_to_client'));
    assert.equal(schema.size, 36);
    assert.deepEqual([...schema].sort(), [...tolk].sort());
});
