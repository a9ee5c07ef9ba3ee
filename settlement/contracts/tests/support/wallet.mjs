// A person with the wallet that people have: v5R1, asked by external messages.

import { external, internal, toNano } from '@ton/core';
import { WalletContractV5R1 } from '@ton/ton';
import { keyOf } from './cells.mjs';

export async function person(chain, seed, balance = toNano('10000')) {
    const keys = keyOf(seed);
    const wallet = WalletContractV5R1.create({ workchain: 0, publicKey: keys.publicKey });
    let seqno = 0;
    const treasury = await chain.treasury('bank');
    await treasury.send({ to: wallet.address, value: balance, bounce: false });
    const me = {
        address: wallet.address,
        send({ to, value, body, init, bounce }) {
            const request = wallet.createTransfer({ seqno, secretKey: keys.secretKey, sendMode: 3,
                timeout: chain.now + 60, messages: [internal({ to, value, body, init, bounce })] });
            const first = seqno++ === 0;
            return chain.sendMessage(external({ to: wallet.address, init: first ? wallet.init : undefined, body: request }));
        },
    };
    // The first message deploys the wallet, which is not what anyone wants to measure.
    await me.send({ to: wallet.address, value: 1n, bounce: false });
    return me;
}
