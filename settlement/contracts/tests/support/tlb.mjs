// Reads cells by a TL-B scheme: as much of the language as schema.tlb uses.

import assert from 'node:assert/strict';
import { Dictionary } from '@ton/core';

/** The constructors of each type: `{ name, tag, fields: [[name, type]] }`. */
export function scheme(text) {
    const types = new Map();
    const declarations = text.replace(/\/\/.*$/gm, '').split(';').map((each) => each.trim()).filter(Boolean);
    for (const declaration of declarations) {
        const [, name, tag, fields, type] = declaration.match(/^(\w+)(?:#([0-9a-f]+))?\s([^=]*)=\s*(\w+)$/) ?? assert.fail(`not read: ${declaration}`);
        const found = [...fields.matchAll(/(\w+):(\([^()]+\)|\S+)/g)];
        assert.equal(found.map(([whole]) => whole).join(' '), fields.trim().replace(/\s+/g, ' '), declaration);
        types.set(type, [...(types.get(type) ?? []), { name, tag, fields: found.map(([, field, of]) => [field, of]) }]);
    }
    return new Scheme(types);
}

class Scheme {
    constructor(types) {
        this.types = types;
    }

    /** The cell is of this type, and nothing is behind it. */
    whole(type, cell) {
        return this.#all(type, cell.beginParse());
    }

    #all(type, slice) {
        const value = this.#read(type, slice);
        assert.deepEqual([slice.remainingBits, slice.remainingRefs], [0, 0], `something is behind ${type}`);
        return value;
    }

    #read(type, slice) {
        const [head, first, second] = type.replace(/^\(|\)$/g, '').split(' ');
        const width = Number(head.match(/\d+$/)?.[0]);
        if (head.startsWith('^')) return this.#all(head.slice(1), slice.loadRef().beginParse());
        if (/^uint\d+$/.test(head)) return slice.loadUintBig(width);
        if (/^int\d+$/.test(head)) return slice.loadIntBig(width);
        if (/^bits\d+$/.test(head)) return slice.loadBuffer(width / 8).toString('hex');
        if (first === '*') {
            const all = [];
            while (slice.remainingBits > 0) all.push(this.#read(head, slice));
            return all;
        }
        switch (head) {
            case 'Bool': return slice.loadBit();
            case 'True': return true;
            case 'MsgAddressInt': return slice.loadAddress().toString();
            case 'VarUInteger': return slice.loadVarUintBig(Math.log2(Number(first)));
            case 'Maybe': return slice.loadBit() ? this.#read(first, slice) : null;
            case 'HashmapE': {
                const parse = (value) => this.#all(second, value);
                const dictionary = Dictionary.load(Dictionary.Keys.BigUint(Number(first)), { parse }, slice);
                return new Map([...dictionary].map(([key, value]) => [key, value]));
            }
        }
        const constructors = this.types.get(head) ?? assert.fail(`no type ${head}`);
        const { name, tag, fields } = constructors.find(({ tag }) => !tag
            || (slice.remainingBits >= 4 * tag.length && slice.preloadUint(4 * tag.length) === parseInt(tag, 16))) ?? assert.fail(`no ${head}`);
        if (tag) slice.skip(4 * tag.length);
        const value = Object.fromEntries(fields.map(([field, of]) => [field, this.#read(of, slice)]));
        return constructors.length > 1 ? { [name]: value } : value;
    }
}
