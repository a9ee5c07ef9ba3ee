// Compiles every contract. With --check, compares with the committed code instead of writing it.

import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runTolkCompiler } from '@ton/tolk-js';
import { Cell } from '@ton/core';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const check = process.argv.includes('--check');
let stale = false;

for (const name of ['registry', 'provider', 'channel']) {
    const result = await runTolkCompiler({
        entrypointFileName: `${name}.tolk`,
        fsReadCallback: (path) => readFileSync(join(root, 'src', path), 'utf8'),
        optimizationLevel: 2,
    });
    if (result.status === 'error') {
        console.error(result.message);
        process.exit(1);
    }
    const boc = Buffer.from(result.codeBoc64, 'base64');
    const [code] = Cell.fromBoc(boc);
    const file = join(root, 'build', `${name}.boc`);
    if (!check) {
        writeFileSync(file, boc);
    } else if (!readFileSync(file).equals(boc)) {
        console.error(`build/${name}.boc is not what src/${name}.tolk compiles to: run npm run build`);
        stale = true;
    }
    console.log(`${name.padEnd(8)} tolk ${result.tolkVersion} ${boc.length} bytes ${code.hash().toString('hex')}`);
}
process.exit(stale ? 1 : 0);
