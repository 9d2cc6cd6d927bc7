// The status bar in the pages of the site. One file, served as it is: see `door/bar.rs`.
//
// It is a guest in somebody else's page. So it lives in a shadow root of an element beside <body>, where no selector of
// the site's looks for anything; it leaves no name behind; it makes its elements one by one, and its styles as a style sheet
// object, because a page may forbid everything else. It asks `/_edit/*` of its own origin, and nobody else.
//
// Data goes one way: the agent's answers change `state`, and `draw` shows it. Every word is the agent's (`words.rs`).
(() => {
'use strict';

const words = "WORDS";
const HOST = 'edit-bar';
const KEPT = 'edit-bar';
const POLL_MS = 3000;
const NOTICE_MS = 20000;
const KEPT_MS = 60000;
const LISTED_MAX = 30;
// How often it is told that somebody is there, and for how long after they did something.
const TOLD_MS = 30000;
const USED_MS = 120000;

// The tag is gone before the site's own scripts count elements.
document.currentScript?.remove();
if (document.querySelector(HOST)) return;

const style = `
:host{all:initial!important;position:fixed!important;z-index:2147483646!important;inset:auto auto 0 0!important;
--ground:#fff;--text:#1c1f23;--quiet:#5b636c;--line:#dfe3e7;--soft:#f3f5f7;--accent:#1f5fbf;--on-accent:#fff;--good:#1a7f45;--busy:#a86200;--bad:#c0342b}
@media(prefers-color-scheme:dark){:host{--ground:#1d2024;--text:#eceff2;--quiet:#a3acb6;--line:#3a4047;--soft:#282c31;--accent:#8ab8ff;--on-accent:#0d1a2c;--good:#5cc98a;--busy:#f0b357;--bad:#ff8d83}}
@media print{:host{display:none!important}}
*{box-sizing:border-box;margin:0;font:inherit;color:inherit;letter-spacing:inherit}
.pill,.panel{position:fixed;left:16px;bottom:calc(16px + env(safe-area-inset-bottom,0px));font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:var(--text);background:var(--ground);border:1px solid var(--line);box-shadow:0 1px 2px #0001,0 8px 28px #0003;text-align:left;-webkit-font-smoothing:antialiased}
.pill{display:flex;white-space:normal;align-items:center;gap:9px;max-width:min(420px,calc(100vw - 32px));min-height:44px;padding:0 18px 0 15px;border-radius:22px;cursor:pointer}
.pill span:last-child{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.dot{flex:none;width:9px;height:9px;border-radius:50%;background:var(--good)}
.dot.busy{background:var(--busy);animation:breathe 1.4s ease-in-out infinite}
.dot.bad{background:var(--bad)}
.dot.idle{background:var(--quiet)}
@keyframes breathe{50%{opacity:.35}}
.panel{display:flex;flex-direction:column;width:min(380px,calc(100vw - 32px));height:min(580px,calc(100vh - 32px));border-radius:14px;overflow:hidden}
.rising{animation:rise .16s ease-out}
@keyframes rise{from{opacity:0;transform:translateY(8px)}}
[hidden]{display:none!important}
header{display:flex;align-items:center;gap:9px;padding:6px 6px 6px 18px;border-bottom:1px solid var(--line)}
h2,h3{font-weight:600}
h2{flex:1;font-size:15px;outline:0!important}
h3{font-size:13px;color:var(--quiet);padding:14px 18px 2px}
.body{flex:1;overflow:auto;overscroll-behavior:contain;scrollbar-width:thin;scrollbar-color:var(--line) transparent}
.now,.ask,.prompt{padding:14px 18px;border-bottom:1px solid var(--line)}
.now p+p{margin-top:4px}
#question{font-weight:600}
.ask ul{margin:8px 0 0;padding:0 0 0 18px;list-style:disc;color:var(--quiet);max-height:150px;overflow:auto}
.row{display:flex;flex-wrap:wrap;align-items:center;gap:8px;margin-top:12px}
.beside{align-items:flex-end;flex-wrap:nowrap;margin-top:8px}
.between{justify-content:space-between;margin-top:0;padding:14px 18px 4px;flex-wrap:nowrap}
.quiet{color:var(--quiet)}
ol{list-style:none;padding:0 0 10px}
li.entry{display:flex;align-items:center;gap:10px;padding:7px 12px 7px 18px}
li.entry div{flex:1;min-width:0;overflow-wrap:anywhere}
li.entry.undone .what{text-decoration:line-through;color:var(--quiet)}
small{display:block;font-size:12.5px;color:var(--quiet)}
button{display:inline-flex;flex:none;white-space:nowrap;align-items:center;justify-content:center;min-height:44px;padding:0 14px;border:1px solid transparent;border-radius:10px;background:none;cursor:pointer;text-align:inherit}
.line{border-color:var(--line)}
.main{background:var(--accent);color:var(--on-accent);font-weight:600}
.bad-main{background:var(--bad);color:var(--ground);font-weight:600}
.plain{color:var(--accent);padding:0 8px}
.plain.risk{color:var(--bad)}
.close{min-width:44px;padding:0;font-size:21px;color:var(--quiet)}
button:hover{background:var(--soft)}
.main:hover,.bad-main:hover{background:var(--text);color:var(--ground)}
[aria-disabled]{opacity:.55;cursor:default;pointer-events:none}
a{color:var(--accent);text-underline-offset:2px}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
.main:focus-visible,.bad-main:focus-visible{outline-color:var(--text)}
label{font-weight:600;display:block}
textarea{flex:1;min-width:0;padding:9px 12px;font-size:16px;border:1px solid var(--quiet);border-radius:10px;background:var(--ground);resize:vertical;min-height:44px}
::placeholder{color:var(--quiet);opacity:1}
.said{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
@media(max-width:520px){.panel{left:0;right:0;bottom:0;width:auto;height:min(640px,85vh);border-width:1px 0 0;border-radius:16px 16px 0 0;padding-bottom:env(safe-area-inset-bottom,0px)}}
@media(prefers-reduced-motion:reduce){*{animation:none!important}}
@media(forced-colors:active){.dot{background:CanvasText}}
`;

// What is known, and what the person is doing.
const kept = recall();
const state = {
  status: null, history: null, now: null, live: false, offline: false, sending: false,
  open: kept.open === true, notice: kept.notice ?? null, after: kept.after ?? null, sent: kept.sent ?? [],
  asking: null, asked: null, used: kept.used ?? 0, told: kept.told ?? 0,
};

// An element with its properties and children; what is null or false is left out.
function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value == null || value === false) continue;
    if (name === 'onclick') element.addEventListener('click', value);
    else if (name === 'key') element.dataset.key = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

// A button that is of no use now keeps its place, and the focus.
const button = (key, text, kind, onclick, { off, ...more } = {}) =>
  h('button', { type: 'button', key, class: kind, onclick: off ? null : onclick, 'aria-disabled': off ? 'true' : null, ...more }, text);
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const counted = (pair, n) => fill(n === 1 ? pair[0] : pair[1], { n });
const trimmed = (path) => path.replace(/\/(index\.html)?$/, '') || '/';
const here = () => { try { return trimmed(decodeURI(location.pathname)); } catch { return trimmed(location.pathname); } };
const pageName = (path) => (path === '/' ? words.homePage : fill(words.page, { path }));

const pill = h('button', { type: 'button', class: 'pill', 'aria-expanded': 'false', 'aria-controls': 'panel', onclick: () => show(true) });
const said = h('div', { class: 'said', role: 'status', 'aria-live': 'polite' });
const title = h('h2', { id: 'title', tabindex: '-1', key: 'title' }, words.title);
const titleDot = h('span', { class: 'dot' });
const body = h('div', { class: 'body' });
const text = h('textarea', { id: 'text', key: 'text', rows: '1', placeholder: words.askExample });
const promptWords = h('p', { class: 'quiet', role: 'status' });
const prompt = h('form', { class: 'prompt', hidden: true },
  h('label', { for: 'text' }, words.ask),
  h('div', { class: 'row beside' }, text, h('button', { class: 'line', key: 'send' }, words.send)), promptWords);
const news = h('div', null);
const content = h('div', null);
body.append(news, prompt, content);
const panel = h('section', { id: 'panel', class: 'panel', role: 'dialog', 'aria-labelledby': 'title', hidden: true },
  h('header', null, titleDot, title, button('close', '×', 'close', () => show(false), { 'aria-label': words.close })), body);

prompt.addEventListener('submit', (event) => { event.preventDefault(); sendText(); });
panel.addEventListener('keydown', (event) => {
  // The site hears nothing of what is typed here.
  event.stopPropagation();
  if (event.key === 'Escape') {
    if (state.asking) ask(null);
    else show(false);
  } else if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && event.target === text) sendText();
});

const host = document.createElement(HOST);
host.lang = words.language;
host.dir = 'ltr';
const root = host.attachShadow({ mode: 'open' });
const sheet = new CSSStyleSheet();
sheet.replaceSync(style);
root.adoptedStyleSheets = [sheet];
root.append(pill, panel, said);

// What goes on, in one line, and how it looks.
function summary() {
  const { status, history, now, notice } = state;
  if (state.offline) return ['bad', words.offline];
  if (!status) return ['idle', words.connecting];
  if (now) return ['busy', now.sentence];
  if (notice) return [notice.bad ? 'bad' : 'good', isHere(notice) ? words.live : notice.sentence];
  const site = status.site?.state;
  if (!status.site || site === 'starting' || site === 'installing' || site === 'halted') return ['busy', words.starting];
  if (site !== 'serving' || status.site.problem) return ['bad', words.broken];
  if (status.running) return ['busy', words.working];
  if (status.queued > 0) return ['busy', words.waiting];
  const unpublished = history?.unpublished ?? 0;
  return unpublished ? ['good', counted(words.unpublished, unpublished)] : ['good', words.allPublished];
}

function draw() {
  const [kind, line] = summary();
  pill.replaceChildren(h('span', { class: `dot ${kind}` }), h('span', null, line));
  pill.setAttribute('aria-label', `${line}. ${words.opens}`);
  titleDot.className = `dot ${kind}`;
  // Only what happens is read out, and not on every page how things are.
  const { notice } = state;
  const aloud = state.now || state.offline ? line : notice ? [notice.sentence, isHere(notice) && words.live].filter(Boolean).join(' ') : '';
  if (said.textContent !== aloud) said.textContent = aloud;
  pill.hidden = state.open;
  pill.setAttribute('aria-expanded', String(state.open));
  panel.hidden = !state.open;
  prompt.hidden = state.status?.mode !== 'dev';
  if (!state.open) return;
  // Everything is made anew; who was on a button stays on it.
  const focused = root.activeElement?.dataset.key;
  renew(news, now(line));
  renew(content, state.asking ? question() : actions(), entries());
  if (focused && !root.activeElement) focus(focused);
}

// What is the same stays: whoever is about to click on it does not click into the void.
function renew(place, ...children) {
  const made = h('div', null, ...children);
  if (!place.isEqualNode(made)) place.replaceChildren(...made.childNodes);
}

function focus(key) {
  (root.querySelector(`[data-key="${CSS.escape(key)}"]`) ?? title).focus({ preventScroll: true });
}

function now(line) {
  const { notice } = state;
  const shown = notice && !state.now && !state.offline;
  const page = shown && !isHere(notice) && notice.pages?.[0];
  return h('div', { class: 'now' },
    h('p', null, shown ? notice.sentence : line),
    shown && isHere(notice) && h('p', { class: 'quiet' }, words.live),
    page && h('p', null, h('a', { href: location.origin + page, key: 'see' }, fill(words.see, { page: pageName(page) }))),
    shown && notice.both && h('div', { class: 'row' },
      button('both', notice.both.length === 2 ? words.undoBoth : fill(words.undoAll, { n: notice.both.length }), 'line', () => send(state.notice.both.map(undo)), { off: state.sending })));
}

function actions() {
  const { history } = state;
  if (!history) return null;
  const { unpublished, behind, publishBlocked } = history;
  const busy = state.sending || state.now != null;
  return h('div', null,
    h('div', { class: 'row between' },
      button('publish', unpublished ? counted(words.publish, unpublished) : words.publishNone, unpublished ? 'main' : 'line',
        () => ask('publish'), { off: busy || !unpublished || publishBlocked, 'aria-describedby': publishBlocked && 'blocked' }),
      unpublished > 0 && button('discard', words.discard, 'plain risk', () => ask('discard'), { off: busy })),
    publishBlocked && h('p', { id: 'blocked', class: 'quiet between' }, publishBlocked),
    behind > 0 && h('div', { class: 'row between' }, h('p', null, counted(words.behind, behind)),
      button('sync', words.sync, 'line', () => send([{ type: 'sync' }]), { off: busy })));
}

// A decision that is asked for again, with what it is about.
function question() {
  const publishing = state.asking === 'publish';
  // Nothing is published that was not read: what lands meanwhile neither joins the list nor goes out with it.
  const { unpublished, entries: all } = publishing ? state.asked : state.history;
  const upTo = publishing ? all[0]?.instructionId : undefined;
  const pick = (name) => words[state.asking + name];
  return h('div', { class: 'ask', role: 'group', 'aria-labelledby': 'question' },
    h('p', { id: 'question' }, counted(pick('Ask'), unpublished)),
    h('p', { class: 'quiet' }, pick('Explain')),
    h('ul', null, all.filter((entry) => entry.counts).map((entry) => h('li', null, what(entry)))),
    h('div', { class: 'row' },
      button('yes', pick('Yes'), publishing ? 'main' : 'bad-main', () => { const type = state.asking; state.asking = null; send([{ type, upTo }]); }),
      button('no', pick('No'), 'line', () => ask(null))));
}

function ask(asking) {
  const from = state.asking;
  state.asking = asking;
  state.asked = state.history;
  draw();
  focus(asking ? 'yes' : from);
}

// What a prompt did is known best by whoever carried it out.
const what = (entry) => (entry.action === 'prompt' && entry.summary) || entry.sentence;

function entries() {
  const { history } = state;
  if (!history) return null;
  const list = history.entries.slice(0, LISTED_MAX).map((entry) => {
    const undone = entry.state === 'undone';
    const mark = undone ? words.undone : entry.published && entry.action !== 'publish' ? words.published : null;
    return h('li', { class: undone ? 'entry undone' : 'entry' },
      h('div', null, h('span', { class: 'what' }, what(entry)),
        h('small', null, entry.who && `${entry.who} · `, h('time', { datetime: entry.at, title: new Date(entry.at).toLocaleString() }, ago(entry.at)), mark && ` · ${mark}`)),
      entry.undoable && button(`undo-${entry.instructionId}`, words.undo, 'plain', () => send([undo(entry.instructionId)]),
        { off: state.sending || state.now != null, 'aria-label': fill(words.undoOf, { what: what(entry) }) }));
  });
  return h('div', null, h('h3', { id: 'history' }, words.history),
    list.length ? h('ol', { role: 'list', 'aria-labelledby': 'history' }, list) : h('p', { class: 'quiet between' }, words.historyEmpty));
}

function ago(at) {
  const seconds = (Date.now() - Date.parse(at)) / 1000;
  const format = new Intl.RelativeTimeFormat(words.language, { numeric: 'auto' });
  for (const [unit, length] of [['year', 31557600], ['month', 2629800], ['day', 86400], ['hour', 3600], ['minute', 60]]) {
    if (seconds >= length) return format.format(-Math.floor(seconds / length), unit);
  }
  return words.justNow;
}

function show(open) {
  state.open = open;
  state.asking = null;
  // Opened by a person it rises; after the page was loaded again it is simply there.
  panel.classList.toggle('rising', open);
  // What went wrong has been read by now.
  if (!open && state.notice?.bad) state.notice = null;
  draw();
  keep();
  if (open) { title.focus({ preventScroll: true }); refresh(); }
  else pill.focus({ preventScroll: true });
}

// A page is loaded again when it was changed: then the bar goes on where it was.
function recall() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEPT)) ?? {};
    // Who comes back after a while asks how things are, and is not told all that happened.
    return Date.now() - kept.at > KEPT_MS ? { open: kept.open, sent: kept.sent } : kept;
  } catch { return {}; }
}

function keep() {
  const { open, notice, after, sent, used, told } = state;
  const key = root.activeElement?.dataset.key;
  try { sessionStorage.setItem(KEPT, JSON.stringify({ open, notice, after, sent, used, told, key, at: Date.now() })); } catch { /* Nothing is kept then. */ }
}

async function call(path, body, keepalive) {
  const options = body && { method: 'POST', keepalive, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
  return fetch(`${location.origin}/_edit/${path}`, { cache: 'no-store', ...options });
}

const json = async (path) => {
  const answer = await call(path);
  if (!answer.ok) throw new Error(path);
  return answer.json();
};

let refreshing = null;
async function refresh() {
  clearTimeout(refreshing);
  try {
    [state.status, state.history] = await Promise.all([json('status'), json('history')]);
    state.offline = false;
  } catch { state.offline = true; }
  // Without it, what was working may have ended unheard.
  if (!state.status?.running && !state.status?.queued) state.now = null;
  draw();
}

function refreshSoon() {
  clearTimeout(refreshing);
  refreshing = setTimeout(refresh, 120);
}

const newId = () => 'bar-' + Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('');
const undo = (instructionId) => ({ type: 'undo', instructionId });

// Sends instructions; says in a word why they were not taken.
async function send(actions) {
  state.sending = true;
  state.notice = null;
  draw();
  let problem = null;
  try {
    const { clientId, sessionId } = state.status ?? (state.status = await json('status'));
    const messages = actions.map((action) => ({
      version: 1, instructionId: newId(), clientId, sessionId, submittedAt: new Date().toISOString(), action,
    }));
    // An answer may come before that of the call.
    state.sent.push(...messages.map(({ instructionId, action }) => ({ id: instructionId, undo: action.type === 'undo' && action.instructionId })));
    const answer = await call('instructions', messages);
    if (!answer.ok) {
      state.sent = [];
      problem = answer.status === 429 ? words.busy : words.notTaken;
      const why = state.status.mode === 'dev' && (await answer.json()).errors?.[0];
      if (answer.status === 422 && why) problem += ` (${why.path}: ${why.message})`;
    }
  } catch { problem = words.offline; }
  state.sending = false;
  if (problem) tell({ sentence: problem, bad: true });
  else refreshSoon();
  keep();
  draw();
  return !problem;
}

async function sendText() {
  const typed = text.value.trim();
  if (!typed || state.sending) return;
  let action = { type: 'prompt', text: typed };
  if (typed.startsWith('{')) {
    try { action = JSON.parse(typed); } catch { promptWords.textContent = words.notJson; return; }
  }
  promptWords.textContent = words.sending;
  if (await send([action])) text.value = '';
  promptWords.textContent = '';
}

// What there is to say after an instruction: until it has been read, or something else happens.
function tell(notice) {
  state.notice = { until: Date.now() + NOTICE_MS, ...notice };
  expire();
}

let expiring = null;
function expire() {
  clearTimeout(expiring);
  const { notice } = state;
  if (!notice || notice.bad) return;
  expiring = setTimeout(() => { if (state.notice === notice) { state.notice = null; draw(); keep(); } }, Math.max(0, notice.until - Date.now()));
}

const isHere = ({ pages }) => pages?.some((page) => trimmed(page) === here());

// The later instructions that have to be taken back first, newest first. What has no name cannot be: then there are none.
function inTheWay(conflicts) {
  const parties = conflicts.map(({ ours }) => ours);
  if (!parties.length || !parties.every((party) => party?.instructionId)) return null;
  const ids = [...new Set(parties.map((party) => party.instructionId))];
  const listed = state.history?.entries.map((entry) => entry.instructionId) ?? [];
  const at = (id) => Date.parse(parties.find((party) => party.instructionId === id).at);
  // The list knows the order; who asks for what may have a clock of their own.
  return ids.every((id) => listed.includes(id)) ? ids.sort((a, b) => listed.indexOf(a) - listed.indexOf(b)) : ids.sort((a, b) => at(b) - at(a));
}

// A receipt, final or passing.
function heard(receipt, final) {
  if (!final) {
    state.now = receipt;
    // What was said of the change before is over.
    if (receipt.status === 'running') state.notice = null;
    draw();
    return;
  }
  state.now = null;
  // It may come both ways.
  if (state.notice?.id === receipt.instructionId) return;
  const mine = state.sent.find((sent) => sent.id === receipt.instructionId);
  state.sent = state.sent.filter((sent) => sent !== mine);
  const bad = !['pushed', 'published', 'cancelled'].includes(receipt.status);
  const later = receipt.error?.code === 'undo_overlaps' && inTheWay(receipt.error.conflicts ?? []);
  tell({
    id: receipt.instructionId, sentence: receipt.sentence, bad, pages: bad ? [] : receipt.livePages ?? [],
    both: later && mine?.undo ? [...later, mine.undo] : null,
  });
  refreshSoon();
  keep();
  draw();
}

// What happens, as it happens. A hidden page does not listen: a browser has few connections to give. What it misses,
// it is told when it is seen again.
let source = null;
// How often in a row they did not pass, and how often that was looked at since.
let deaf = 0;
let looked = 0;
function listen() {
  source?.close();
  source = null;
  state.live = false;
  if (document.visibilityState === 'hidden') return;
  source = new EventSource(`${location.origin}/_edit/events${state.after ? `?after=${state.after}` : ''}`);
  source.onopen = () => { state.live = true; deaf = 0; refresh(); };
  source.onerror = () => { state.live = false; };
  const on = (name, handler) => source.addEventListener(name, (event) => {
    state.after = event.lastEventId;
    handler(JSON.parse(event.data));
    keep();
  });
  on('progress', (receipt) => heard(receipt, false));
  on('receipt', (receipt) => heard(receipt, true));
  on('site', refreshSoon);
  on('draft', refreshSoon);
}

// Where events do not pass, it is asked; and whether they pass meanwhile, ever more rarely: a function never lets them.
async function poll() {
  if (state.live || document.visibilityState === 'hidden') return;
  if (source?.readyState === 2 && ++looked >= Math.min(2 ** deaf, 20)) {
    deaf += 1;
    looked = 0;
    listen();
  }
  await refresh();
  await pending();
}

// What became of what was sent from here, as far as that is not known.
async function pending() {
  for (const { id } of state.sent) {
    try {
      const receipt = await json(`instructions/${id}`);
      if (!['accepted', 'running', 'applied'].includes(receipt.status)) heard(receipt, true);
    } catch { /* It is asked for again. */ }
  }
}

// That somebody is there keeps the site awake. It is told of a page that is seen and was used a moment ago, and of no other: not
// of a tab that was forgotten. So it counts what a person does, and not that something scrolls or moves by itself.
function use(event) {
  if (!event.isTrusted || (event.type === 'pointermove' && !event.movementX && !event.movementY)) return;
  state.used = Date.now();
  tellPresence();
}

function tellPresence() {
  const now = Date.now();
  if (document.visibilityState === 'hidden' || now - state.used > USED_MS || now - state.told < TOLD_MS) return;
  state.told = now;
  call('presence', { visible: true, used: true }, true).catch(() => { /* It is told again. */ });
}

function begin() {
  document.documentElement.append(host);
  draw();
  if (state.open && kept.key && document.activeElement === document.body) focus(kept.key);
  expire();
  // Whoever brings a tab to the front is there.
  document.addEventListener('visibilitychange', (event) => { keep(); listen(); use(event); });
  for (const name of ['pointerdown', 'pointermove', 'keydown', 'wheel', 'touchmove']) addEventListener(name, use, { capture: true, passive: true });
  addEventListener('pagehide', keep);
  // A page that changes without being loaded may throw out what it does not know.
  document.addEventListener('astro:after-swap', () => { if (!host.isConnected) document.documentElement.append(host); draw(); });
  setInterval(() => { tellPresence(); poll(); }, POLL_MS);
  setInterval(() => { if (state.open) draw(); }, 30000);
  refresh();
  listen();
  pending();
}

if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', begin, { once: true });
else begin();
})();
