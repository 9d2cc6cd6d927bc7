// Builds the site once, as publishing it would, through Astro's JS API. stdin carries one line of settings, {root};
// stdout says how it went, in one line, {problem} if it did not. What the site prints goes to stderr.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const print = process.stdout.write.bind(process.stdout);
process.stdout.write = process.stderr.write.bind(process.stderr);

async function main({ root }) {
  process.chdir(root);
  const require = createRequire(join(root, 'package.json'));
  const { build } = await import(pathToFileURL(require.resolve('astro')).href);
  await build({ root });
}

createInterface({ input: process.stdin }).once('line', async (line) => {
  const settings = JSON.parse(line);
  const words = (text) =>
    String(text ?? '').replace(/\u001b\[[0-9;]*m/g, '').replaceAll(`file://${settings.root}/`, '').replaceAll(`${settings.root}/`, '').slice(0, 4000).toWellFormed();
  const answer = {};
  try {
    await main(settings);
  } catch (error) {
    answer.problem = { message: words(error?.message ?? error), hint: words(error?.hint) || undefined, file: words(error?.loc?.file ?? error?.id) || undefined, line: error?.loc?.line };
  }
  print(`${JSON.stringify(answer)}\n`, () => process.exit(answer.problem ? 1 : 0));
});
