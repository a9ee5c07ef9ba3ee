// With COCOON_TRACES naming a folder, every transaction of the emulator is written there, with the account before and after, so that
// another implementation can be asked for the same (settlement/src/local/emulator_tests.rs).

import { createWriteStream, mkdirSync } from 'node:fs';
import { basename, join } from 'node:path';

const folder = process.env.COCOON_TRACES;
let file;

export function record(chain) {
    if (!folder) return;
    if (!file) {
        mkdirSync(folder, { recursive: true });
        file = createWriteStream(join(folder, `${basename(process.argv[1], '.test.mjs')}.jsonl`));
    }
    const run = chain.executor.runTransaction.bind(chain.executor);
    chain.executor.runTransaction = async (args) => {
        const { result, ...rest } = await run(args);
        file.write(JSON.stringify({
            now: args.now,
            lt: Number(args.lt),
            seed: (args.randomSeed ?? Buffer.alloc(32)).toString('hex'),
            before: args.shardAccount,
            message: args.message.toBoc().toString('base64'),
            after: result.success ? result.shardAccount : null,
            transaction: result.success ? result.transaction : null,
            exitCode: result.success ? null : result.vmResults?.vmExitCode,
        }) + '\n');
        return { result, ...rest };
    };
}
