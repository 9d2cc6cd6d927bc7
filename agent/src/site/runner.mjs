// Starts the site's own Astro through its JS API and says what happens, one JSON object a line, on stdout.
//
// Written for Astro 5, 6 and 7. It touches none of the site's files: everything is inline configuration, which Astro
// merges over the site's own. What the site itself prints goes to stderr, so that stdout is ours alone.
//
// stdin carries one line of settings, {root, port, boot, hold}, and then words, one a line: `hold`, `discard` and `release`
// say what becomes of messages to browsers, and each is answered. It is a leash as well: when it closes, the agent is
// gone, and so are we. `boot` is a nonce by which the agent tells that it is this process that answers on the port.
import { statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const print = process.stdout.write.bind(process.stdout);
const log = process.stderr.write.bind(process.stderr);
process.stdout.write = log;
const say = (message) => print(`${JSON.stringify(message)}\n`);

/** What the loaders of content logged: since Astro 6 they tell nobody else that a file does not fit its schema. */
let loaderErrors = [];
process.stderr.write = (text, ...rest) => {
  const [, file, message] = /\[(?:glob|file)-loader\][^\n]*? (?:Failed to reload|Error reading data from) ([^\s:]+): ?([\s\S]*)/.exec(plain(text)) ?? [];
  if (file) loaderErrors.push({ file, message: message.trim() });
  return log(text, ...rest);
};

/** The site's folder. People are told of `astro.config.mjs`, not of where the agent keeps it. */
let folder = '\0';

/** Without colours. */
function plain(text) {
  return String(text ?? '').replace(/\u001b\[[0-9;]*m/g, '');
}

/** A text that fits a line and a person: its beginning. */
const words = (text) => plain(text).replaceAll(`file://${folder}`, '').replaceAll(folder, '').slice(0, 4000).toWellFormed();

const ENTITIES = { '&lt;': '<', '&gt;': '>', '&quot;': '"', '&#39;': "'", '&amp;': '&' };

/** A sentence of Astro's. For its overlay it is HTML, with Markdown in it. */
const sentence = (text) =>
  words(plain(text).replace(/<\/?(?:code|b|strong)>|\*\*/g, '').replace(/&(?:lt|gt|quot|#39|amp);/g, (entity) => ENTITIES[entity]))
    .replace(/\s*\(The stacktrace appears to be already rewritten by [^)]*\)/, '');

/** Where the site's own code stands in a stack, for errors that name no place: what Node says of a configuration. */
function placeInStack(error) {
  const lines = String(error?.stack ?? '').split('\n').filter((line) => line.includes(folder) && !line.includes('/node_modules/'));
  const [, file, line, column] = lines[0]?.slice(lines[0].indexOf(folder)).match(/^([^:()?]+)[^:]*:(\d+)(?::(\d+))?/) ?? [];
  return { file, line: Number(line), column: Number(column) };
}

/** What Vite and Astro know about an error, in one shape. */
function problem(error) {
  const place = error?.loc?.file || error?.id ? { file: error.id, ...error.loc } : placeInStack(error);
  return {
    message: sentence(error?.message ?? error),
    hint: sentence(error?.hint) || undefined,
    file: words(place.file) || undefined,
    line: place.line > 0 ? place.line : undefined,
    column: place.line > 0 && Number.isInteger(place.column) ? place.column : undefined,
    frame: words(error?.frame ?? error?.pluginCode) || undefined,
  };
}

function hot(payload) {
  if (payload?.type === 'error') return { event: 'hot', kind: 'error', held: held.waiting !== null, problem: problem(payload.err) };
  if (payload?.type === 'update') return { event: 'hot', kind: 'update', paths: payload.updates.slice(0, 50).map((update) => update.path) };
  if (payload?.type === 'full-reload') return { event: 'hot', kind: 'full-reload', paths: payload.path ? [payload.path] : [] };
  return undefined;
}

/** How long after a change was taken back an error may still be its. */
const LATE_ERRORS_MS = 1000;

/**
 * What browsers are told while nobody has judged a change yet: kept back in order, then let go or dropped whole. The
 * agent says `hold` before it writes, `discard` when it takes the change back, and `release` when browsers may know.
 */
const held = {
  /** What waits, as functions that send it; none while nothing is held. */
  waiting: null,
  /** Whether errors may be those of a change that was taken back: Astro tells of one 200 ms after the page that failed. */
  stale: false,

  hold() {
    this.waiting ??= [];
  },
  discard() {
    if (this.waiting) this.waiting = [];
    this.stale = true;
  },
  release() {
    const waiting = this.waiting ?? [];
    this.waiting = null;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => { this.stale = false; }, LATE_ERRORS_MS).unref();
    for (const send of waiting) send();
  },
  /** Sends now, or later, or never. */
  pass(payload, send) {
    if (this.stale && payload?.type === 'error') return;
    if (this.waiting) this.waiting.push(send);
    else send();
  },
};

/** When browsers were last told of a change. What they were told by a process before this one is not known. */
let toldAt = Date.now();

/** What is wrong, as browsers were told since then, and when. */
let wrong;

/** A page that was given out before that, and listens only now, missed it. The door says when it was given out. */
function tellLatecomers(server) {
  server.ws?.on?.('connection', (socket, request) => {
    const pageAt = Number(request?.headers?.['edit-page-at'] ?? Infinity);
    if (pageAt < toldAt) socket.send(JSON.stringify({ type: 'full-reload' }));
    // Vite keeps it for whoever comes first if nobody is there: the socket of the page before, or somebody else's, may be.
    else if (wrong && pageAt <= wrong.at) socket.send(JSON.stringify(wrong.payload));
  });
}

/** How many messages browsers were sent, or would have been. */
let messages = 0;

/** Listens in on what is sent to browsers. The same object can pass through several of these senders. */
function listen(server) {
  const heard = new WeakSet();
  const senders = new Set([server.ws, server.hot, server.environments?.client?.hot].filter((sender) => sender?.send));
  for (const sender of senders) {
    const send = sender.send.bind(sender);
    sender.send = (...message) => {
      const payload = message[0];
      if (payload !== null && typeof payload === 'object' && !heard.has(payload)) {
        heard.add(payload);
        messages += 1;
        const told = hot(payload);
        if (told) say(told);
      }
      held.pass(payload, () => {
        if (payload?.type === 'full-reload' || payload?.type === 'update') {
          toldAt = Date.now();
          wrong = undefined;
          say({ event: 'shown' });
        }
        if (payload?.type === 'error') wrong = { payload, at: Date.now() };
        send(...message);
      });
    };
  }
}

/** Whether anything that has been loaded so far is made of this file. */
const isLoaded = (server, file) =>
  Object.values(server.environments ?? { client: server }).some(({ moduleGraph }) => moduleGraph?.getModulesByFile?.(file)?.size > 0);

/** Whether a browser loads this file by itself. */
const isBrowsers = (server, file) => (server.environments?.client ?? server).moduleGraph?.getModulesByFile?.(file)?.size > 0;

/** What reads a whole folder is told of a file that comes or goes a moment after everybody else. */
const FOLDERS_MS = 5;

/**
 * Says of every change that the watcher tells of when everybody who listens has dealt with it: from then on a page shows
 * it. Listeners of Vite's are asynchronous, and emitting does not wait for them; so they are called here, one by one.
 */
function sayChanges(server) {
  const { watcher } = server;
  if (!watcher?.emit) return;
  const emit = watcher.emit;
  watcher.emit = (name, ...details) => {
    if (name !== 'change' && name !== 'add' && name !== 'unlink') return emit.call(watcher, name, ...details);
    const listeners = watcher.rawListeners(name);
    const file = String(details[0]);
    const [loaded, browsers, told] = [isLoaded(server, file), isBrowsers(server, file), messages];
    const dealt = listeners.map((listener) => listener.apply(watcher, details));
    Promise.allSettled(dealt).then(async (results) => {
      if (!loaded && name !== 'change') await new Promise((next) => setTimeout(next, FOLDERS_MS));
      // That a file went while somebody looked at it is no mistake in it.
      const failed = results.find((result) => result.status === 'rejected' && result.reason?.code !== 'ENOENT');
      const logged = loaderErrors.find((error) => file.endsWith(error.file));
      loaderErrors = loaderErrors.filter((error) => !file.endsWith(error.file)).slice(-50);
      if (file.startsWith(folder)) {
        const path = file.slice(folder.length);
        const wrong = failed ? { file: path, ...problem(failed.reason) } : logged && { file: path, message: sentence(logged.message) };
        say({ event: 'changed', file: path, used: loaded || messages > told, browsers, problem: wrong });
      }
      // Astro tells browsers of what nobody handled.
      if (failed) Promise.reject(failed.reason);
    });
    return listeners.length > 0;
  };
}

/** What changes before the watcher has looked at every file once is never told. Bounded: a site may have none. */
function watches({ watcher }) {
  return new Promise((watching) => {
    if (watcher?._readyEmitted) watching();
    watcher?.once?.('ready', watching);
    setTimeout(watching, 5000).unref();
  });
}

/** When to look again at a file of which a change was told. The watcher keeps quiet for 50 ms. */
const LOOKS_MS = [75, 150, 400];

/**
 * Tells of changes that the watcher swallows. It tells nothing of a file for 50 ms after it has told of a change, and
 * not later either: if somebody asked for the page in between, the older version stays for good. The agent keeps its
 * writes apart, but a dev server that was busy hears of them close together. So a file that is not any more as it was
 * when its change was told is told of again.
 */
function repeatSwallowedChanges({ watcher }) {
  const state = (file) => {
    const found = statSync(file, { throwIfNoEntry: false });
    return found && `${found.ino} ${found.mtimeMs} ${found.ctimeMs} ${found.size}`;
  };
  const told = new Map();
  watcher?.on?.('change', (file) => {
    const now = { state: state(file) };
    told.set(file, now);
    for (const wait of LOOKS_MS) {
      setTimeout(() => {
        if (told.get(file) !== now) return; // It was told of again meanwhile.
        const later = state(file);
        if (later !== undefined && later !== now.state) watcher.emit('change', file);
        else if (wait === LOOKS_MS.at(-1)) told.delete(file);
      }, wait).unref();
    }
  });
}

let watching;
let addresses = {};

function integration(boot) {
  let starts = 0;
  return {
    name: 'edit-agent',
    hooks: {
      'astro:config:done': ({ config }) => {
        addresses = { base: config.base ?? '', trailingSlash: config.trailingSlash ?? 'ignore' };
      },
      'astro:server:setup': ({ server }) => {
        starts += 1;
        if (starts > 1) say({ event: 'restarted' });
        listen(server);
        tellLatecomers(server);
        watching = watches(server);
        sayChanges(server);
        repeatSwallowedChanges(server);
        server.middlewares.use('/__edit-agent/boot', (_request, response) => response.end(boot));
      },
    },
  };
}

async function main({ root, port, boot, hold }) {
  if (hold) held.hold();
  folder = `${root}/`;
  process.chdir(root);
  const require = createRequire(join(root, 'package.json'));
  const { dev } = await import(pathToFileURL(require.resolve('astro')).href);
  const server = await dev({
    root,
    server: { host: '127.0.0.1', port },
    devToolbar: { enabled: false },
    integrations: [integration(boot)],
    vite: { server: { strictPort: true } },
  });
  await watching;
  say({ event: 'ready', port: server.address?.port, addresses });
}

const lines = createInterface({ input: process.stdin });
lines.once('line', (line) => {
  lines.on('line', (word) => {
    held[word]();
    say({ event: 'did', word });
  });
  main(JSON.parse(line)).catch((error) => {
    say({ event: 'failed', problem: problem(error) });
    process.exitCode = 1;
    // Watchers may keep the process alive that could not start.
    setTimeout(() => process.exit(1), 100);
  });
});
lines.once('close', () => process.exit(0));
