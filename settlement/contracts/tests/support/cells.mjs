// Signed cells of schema.tlb, written independently of the Rust code.

import { beginCell } from '@ton/core';
import { keyPairFromSeed, sign } from '@ton/crypto';

export const voucherCell = (v) =>
    beginCell().storeUint(0x434f5631, 32).storeInt(v.network, 32).storeAddress(v.channel).storeBuffer(v.enclaveKey, 32)
        .storeUint(v.cap, 64).storeUint(v.prices.prompt, 64).storeUint(v.prices.cached, 64)
        .storeUint(v.prices.completion, 64).storeUint(v.prices.reasoning, 64).storeUint(v.expiry, 32).endCell();

export const receiptCell = (r) =>
    beginCell().storeUint(0x434f5231, 32).storeInt(r.network, 32).storeAddress(r.provider).storeAddress(r.channel)
        .storeBuffer(r.enclaveKey, 32).storeUint(r.sequence, 64).storeUint(r.total, 64).storeUint(r.time, 32).endCell();

export const verdictCell = (v) =>
    beginCell().storeUint(0x434f4131, 32).storeInt(v.network, 32).storeAddress(v.registry).storeAddress(v.provider)
        .storeBuffer(v.enclaveKey, 32).storeUint(v.generation, 32).storeUint(v.setEpoch, 32).storeUint(v.until, 32)
        .storeUint(v.expiry, 32)
        .storeRef(beginCell().storeBuffer(v.evidenceId, 32).storeBuffer(v.image, 32).storeBuffer(v.modelRoot, 32).endCell())
        .endCell();

export const checkpointCell = (c) =>
    beginCell().storeUint(0x434f4b31, 32).storeInt(c.network, 32).storeAddress(c.registry).storeBuffer(c.origin, 32)
        .storeUint(c.treeSize, 64).storeBuffer(c.root, 32).storeUint(c.time, 32).endCell();

export const keyOf = (seed) => keyPairFromSeed(Buffer.alloc(32, seed));
export const signCell = (cell, keys) => sign(cell.hash(), keys.secretKey);
