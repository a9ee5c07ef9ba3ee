// One Registry, Provider and Channel on TON's own emulator, and the messages between people and contracts.

import { readFileSync } from 'node:fs';
import { Address, beginCell, Cell, contractAddress, Dictionary, toNano } from '@ton/core';
import { Blockchain } from '@ton/sandbox';
import { record } from './record.mjs';
import { person } from './wallet.mjs';
import { keyOf, receiptCell, signCell, verdictCell, voucherCell } from './cells.mjs';

const code = (name) => Cell.fromBoc(readFileSync(new URL(`../../build/${name}.boc`, import.meta.url)))[0];
export const CODE = { registry: code('registry'), provider: code('provider'), channel: code('channel') };

export const NETWORK = -217;
export const NOW = 1800000000;
export const DAY = 86400;
export const IMAGE = Buffer.alloc(32, 0x22);
export const MODEL = Buffer.alloc(32, 0x33);

export const OP = {
    fund: 0x43000001, attest: 0x43010001, propose: 0x43010002, execute: 0x43010003, cancel: 0x43010004, forbid: 0x43010005,
    tighten: 0x43010006, revokeKey: 0x43010007, anchor: 0x43010008, attested: 0x43020001, claim: 0x43020002,
    releaseChannel: 0x43020003, stake: 0x43020004, unstake: 0x43020005, withdraw: 0x43020006, revoke: 0x43020007,
    prune: 0x43020008, slash: 0x4302000a, topUp: 0x43030001, settle: 0x43030002,
    startClose: 0x43030003, finishClose: 0x43030004, release: 0x43030005, delete: 0x43030006,
    paid: 0x43040001, refund: 0x43040002, refused: 0x43040003, withdrawn: 0x43040004, slashed: 0x43040005,
    excesses: 0xd53276db,
};

const bigBytes = (n) => Buffer.from(n.toString(16).padStart(64, '0'), 'hex');
const forwardFees = (t) => [...t.outMessages.values()]
    .reduce((sum, m) => sum + (m.info.type === 'internal' ? m.info.forwardFee : 0n), 0n);
const address = (state) => contractAddress(0, state);
export const plain = (op) => beginCell().storeUint(op, 32).storeUint(0, 64);

const keyDict = (entries, value) => {
    const dict = Dictionary.empty(Dictionary.Keys.BigUint(256), value);
    for (const [key, v] of entries) dict.set(BigInt('0x' + key.toString('hex')), v);
    return dict;
};
export const verifierDict = (keys) => {
    const dict = Dictionary.empty(Dictionary.Keys.Uint(8), Dictionary.Values.Buffer(32));
    keys.forEach((key, i) => dict.set(i, key));
    return dict;
};

const nothing = { serialize: () => {}, parse: () => undefined };

export function registryState({ governance, threshold, verifiers, images = [IMAGE], models = [MODEL], network = NETWORK,
    timeLock = 2 * DAY }) {
    const allowed = (list) => keyDict(list.map((d) => [d, undefined]), nothing);
    const rare = beginCell().storeAddress(governance).storeUint(timeLock, 32).storeUint(0, 32).storeUint(0, 8)
        .storeDict(null).storeDict(null).storeUint(0, 32 + 256 + 256).endCell();
    return { code: CODE.registry, data: beginCell().storeUint(1, 8).storeInt(network, 32).storeUint(0, 32)
        .storeUint(threshold, 8).storeUint(DAY, 32).storeUint(images.length, 16).storeUint(models.length, 16)
        .storeDict(verifierDict(verifiers)).storeDict(allowed(images)).storeDict(allowed(models)).storeRef(rare).endCell() };
}

export function providerState({ registry, owner, network = NETWORK, claimWindow = 3 * DAY, salt = 0 }) {
    const terms = beginCell().storeInt(network, 32).storeAddress(registry).storeUint(salt, 256).endCell();
    return { code: CODE.provider, data: beginCell().storeAddress(owner).storeUint(claimWindow, 32).storeDict(null)
        .storeUint(0, 16 + 64 + 64 + 32).storeUint(1, 8).storeRef(terms).endCell() };
}

export function channelState({ provider, owner, client, clientKey, network = NETWORK, closeDelay = 3 * DAY, salt = 7 }) {
    const terms = beginCell().storeUint(1, 8).storeUint(closeDelay, 32).storeAddress(client).storeUint(salt, 256).endCell();
    return { code: CODE.channel, data: beginCell().storeDict(null).storeDict(null).storeDict(null).storeUint(0, 16 + 64 + 8 + 32)
        .storeInt(network, 32).storeAddress(provider).storeAddress(owner).storeBuffer(clientKey, 32).storeUint(0, 32).storeRef(terms).endCell() };
}

/** The exit code of the transaction on `to`, 0 if it succeeded; undefined if there was none. */
export function exitCode(result, to) {
    const tx = result.transactions.find((t) => t.inMessage?.info.type === 'internal' && !t.inMessage.info.bounced
        && t.inMessage.info.dest.equals(to));
    return tx && (tx.description.computePhase.exitCode ?? tx.description.computePhase.reason);
}

export class World {
    static async create({ verifiers = 5, threshold = 3, timeLock = 2 * DAY, images = [IMAGE], models = [MODEL], wallets = false } = {}) {
        const w = new World();
        w.bounce = true;
        w.chain = await Blockchain.create();
        record(w.chain);
        w.chain.now = NOW;
        for (const [i, name] of ['governance', 'owner', 'client', 'payer', 'stranger'].entries()) {
            w[name] = wallets ? await person(w.chain, 0xa0 + i) : await w.chain.treasury(name);
        }
        w.verifiers = Array.from({ length: verifiers }, (_, i) => keyOf(0x10 + i));
        w.clientKeys = keyOf(0x40);
        w.enclave = keyOf(0x50);
        w.threshold = threshold;
        const registry = registryState({ governance: w.governance.address, threshold, timeLock, images, models,
            verifiers: w.verifiers.map((k) => k.publicKey) });
        w.registry = address(registry);
        const provider = providerState({ registry: w.registry, owner: w.owner.address });
        w.provider = address(provider);
        w.openAnother(7);
        await w.send(w.governance, w.registry, toNano('1'), plain(OP.fund), registry);
        await w.send(w.owner, w.provider, toNano('0.2'), plain(OP.fund), provider);
        return w;
    }

    /** From here on the Channel of this salt is the world's. */
    openAnother(salt) {
        this.channelInit = channelState({ provider: this.provider, owner: this.owner.address, client: this.client.address,
            clientKey: this.clientKeys.publicKey, salt });
        this.channel = address(this.channelInit);
    }

    /** Every message that enters the world; keeps count of gas and fees per contract call. */
    async send(from, to, value, body, init) {
        const cell = body instanceof Cell ? body : body.endCell();
        const result = await from.send({ to, value, body: cell, init, bounce: this.bounce });
        result.gas = result.transactions.slice(1).reduce((sum, t) => sum + (t.description.computePhase?.gasUsed ?? 0n), 0n);
        result.fees = result.transactions.reduce((sum, t) => sum + t.totalFees.coins
            + forwardFees(t), 0n);
        return result;
    }

    /** [gas, fees] of each contract's transaction in a trace; fees with the forward fees of what it sent. */
    costs(result) {
        const contracts = [this.registry, this.provider, this.channel];
        return result.transactions.filter((t) => contracts.some((c) => c.equals(new Address(0, bigBytes(t.address)))))
            .map((t) => [Number(t.description.computePhase.gasUsed), Number(t.totalFees.coins + forwardFees(t))]);
    }

    /** Gas and fees of everything in a trace: the wallet and its external message, contracts, forward fees and receipts; without rent. */
    everything(result) {
        const rent = result.transactions.reduce((sum, t) => sum + (t.description.storagePhase?.storageFeesCollected ?? 0n), 0n);
        const gas = result.transactions.reduce((sum, t) => sum + (t.description.computePhase?.gasUsed ?? 0n), 0n);
        return { gas: Number(gas), fees: Number(result.fees - rent) };
    }

    /** Rent that the time until now has brought is paid, so that what follows can be measured without. */
    async settleRent(contracts = [this.registry, this.provider, this.channel]) {
        for (const to of contracts) {
            for (const from of [this.governance, this.owner, this.client, this.payer, this.stranger]) {
                await this.send(from, to, toNano('0.05'), beginCell());
            }
        }
    }

    /** The storage fees in a trace that its contracts paid. */
    rent(result) {
        const contracts = [this.registry, this.provider, this.channel];
        return result.transactions.filter((t) => contracts.some((c) => c.equals(new Address(0, bigBytes(t.address)))))
            .reduce((sum, t) => sum + (t.description.storagePhase?.storageFeesCollected ?? 0n), 0n);
    }

    verdict(fields = {}) {
        return { network: NETWORK, registry: this.registry, provider: this.provider, enclaveKey: this.enclave.publicKey,
            generation: 0, setEpoch: 0, until: NOW + DAY, expiry: NOW + 3600, evidenceId: Buffer.alloc(32, 0x11),
            image: IMAGE, modelRoot: MODEL, ...fields };
    }

    /** `signers`: indices of verifiers; `keys` may replace the key that signs under an index. */
    attestBody(verdict, signers, { keys = this.verifiers } = {}) {
        const cell = verdictCell(verdict);
        let next = null;
        for (const index of [...signers].reverse()) {
            next = beginCell().storeUint(index, 8).storeBuffer(signCell(cell, keys[index] ?? keys[0]), 64)
                .storeMaybeRef(next).endCell();
        }
        return plain(OP.attest).storeRef(cell).storeMaybeRef(next).endCell();
    }

    attest(fields = {}, signers = [0, 1, 2], { value = toNano('0.2'), from = this.owner, ...options } = {}) {
        return this.send(from, this.registry, value, this.attestBody(this.verdict(fields), signers, options));
    }

    topUp(value, from = this.client) {
        return this.send(from, this.channel, value, plain(OP.topUp), this.channelInit);
    }

    voucher(fields = {}) {
        return { network: NETWORK, channel: this.channel, enclaveKey: this.enclave.publicKey, cap: toNano('2'),
            prices: { prompt: 1n, cached: 2n, completion: 3n, reasoning: 4n }, expiry: NOW + 7 * DAY, ...fields };
    }

    receipt(fields = {}) {
        return { network: NETWORK, provider: this.provider, channel: this.channel, enclaveKey: this.enclave.publicKey,
            sequence: 1, total: toNano('1'), time: NOW, ...fields };
    }

    /** One item of a claim: writes its cell, given the next. What is sent and what is signed differ only where `sent` says so. */
    item({ voucher = {}, receipt = {}, repeated = false, channel = this.channel, enclave = this.enclave,
        client = this.clientKeys } = {}) {
        const v = this.voucher({ enclaveKey: enclave.publicKey, ...voucher });
        const r = this.receipt({ enclaveKey: enclave.publicKey, ...receipt });
        const p = v.prices;
        const voucherProof = beginCell().storeUint(v.cap, 64).storeUint(p.prompt, 64).storeUint(p.cached, 64)
            .storeUint(p.completion, 64).storeUint(p.reasoning, 64).storeUint(v.expiry, 32)
            .storeBuffer(signCell(voucherCell(v), client), 64).endCell();
        const cell = (next = null) => beginCell().storeBuffer(enclave.publicKey, 32).storeMaybeRef(next)
            .storeMaybeRef(repeated ? null : voucherProof).storeVarUint(r.sequence, 4).storeVarUint(r.total, 4).storeUint(r.time, 32)
            .storeBuffer(signCell(receiptCell(r), enclave), 64).endCell();
        return { channel, cell };
    }

    /** All items of one channel: that of the first. */
    claim(items = [{}], { value = toNano('0.05') * BigInt(items.length), from = this.owner } = {}) {
        const all = items.map((i) => this.item(i));
        const first = all.reduceRight((next, item) => item.cell(next), null);
        return this.send(from, this.provider, value, beginCell().storeUint(OP.claim, 32).storeBuffer(all[0].channel.hash, 32).storeRef(first));
    }

    call(op, from, to, value = toNano('0.05')) {
        return this.send(from, to, value, plain(op));
    }

    startClose(from = this.client) { return this.call(OP.startClose, from, this.channel); }
    finishClose(from = this.client) { return this.call(OP.finishClose, from, this.channel); }
    release(from = this.owner, value = toNano('0.05')) {
        return this.send(from, this.provider, value, plain(OP.releaseChannel).storeAddress(this.channel));
    }

    async get(to, method, args = []) {
        return (await this.chain.runGetMethod(to, method, args)).stackReader;
    }

    async paid(key = this.enclave.publicKey) {
        const s = await this.get(this.channel, 'paid', [{ type: 'int', value: BigInt('0x' + key.toString('hex')) }]);
        return { paid: s.readBigNumber(), cap: s.readBigNumber(), expiry: s.readNumber() };
    }

    async state() {
        const s = await this.get(this.channel, 'state');
        return { status: s.readNumber(), at: s.readNumber(), entries: s.readNumber(), available: s.readBigNumber(),
            opened: s.readNumber() };
    }

    async record(key = this.enclave.publicKey) {
        const s = await this.get(this.provider, 'enclave', [{ type: 'int', value: BigInt('0x' + key.toString('hex')) }]);
        return { found: s.readBoolean(), state: s.readNumber(), generation: s.readNumber(), setEpoch: s.readNumber(),
            since: s.readNumber(), until: s.readNumber(), keep: s.readNumber(), evidenceId: s.readBigNumber() };
    }

    async balance(of) {
        return (await this.chain.getContract(of)).balance;
    }

    /** Everything all accounts of the world hold, for checks that value is conserved. */
    async total() {
        let sum = 0n;
        for (const a of [this.registry, this.provider, this.channel, ...['governance', 'owner', 'client', 'payer', 'stranger']
            .map((n) => this[n].address)]) sum += await this.balance(a);
        return sum;
    }
}
