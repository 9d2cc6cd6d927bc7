// What a page of the router does by itself. Everything in it is also a button or a link: see `page.rs`.
//
// A page wakes or makes something only for a person: it is seen, and it has the focus or was touched. A tab in the background, a
// scanner of mail and a prefetch do nothing. It asks one thing at a time, and goes on to the site once.
(() => {
'use strict';

const data = document.querySelector('main').dataset;
const find = (id) => document.getElementById(id);
const byItself = data.byItself === 'yes';

let touched = false;
const isSeen = () => document.visibilityState === 'visible';
const isSomebodyThere = () => isSeen() && (touched || document.hasFocus());

// Calls when a person may have come.
function whenSomebodyComes(call) {
  for (const name of ['pointerdown', 'keydown', 'touchstart']) {
    addEventListener(name, (event) => { if (event.isTrusted) { touched = true; call(); } }, { passive: true });
  }
  addEventListener('focus', call);
  document.addEventListener('visibilitychange', call);
  call();
}

if (data.role === 'link') {
  const form = find('open');
  // Whoever goes back to the link does not want to open it once more.
  let mayOpen = byItself && performance.getEntriesByType('navigation')[0]?.type !== 'back_forward';
  let opening = false;
  const open = () => {
    mayOpen = false;
    opening = true;
    // Where it leads nowhere, the button is there again.
    setTimeout(() => { opening = false; }, 10000);
  };
  addEventListener('pageshow', (event) => { if (event.persisted) { mayOpen = false; opening = false; } });
  // The press that brought the focus has opened it already: a second time, the link would be used up.
  form.addEventListener('submit', (event) => { if (opening) event.preventDefault(); else open(); });
  whenSomebodyComes(() => {
    if (!mayOpen || !isSomebodyThere()) return;
    open();
    form.submit();
  });
  return;
}

const WENT = 'edit-went';
const CAME_BACK_MS = 10000;
const TRIES_MAX = 5;
const ANSWER_MS = 40000;
const BACK_OFF_MAX_MS = 30000;
// How often is asked, where the answer is not held back until there is something new.
const PAUSES_MS = { waking: 1000, draining: 1000, held: 2000, failed: 3000, asleep: 5000, unknown: 5000, full: 10000, ready: 10000, suspended: 60000 };

let told = JSON.parse(data.now);
let since = Date.now();
let woken = false;
let tries = 0;
let failures = 0;
let posting = false;
let left = false;
let asking = null;
let timer = 0;
let due = 0;
const name = document.title.slice(told.headline.length);

// When this page last went on to the site. Null if it never did; undefined if the browser keeps nothing.
function lastWent() {
  try { return sessionStorage.getItem(WENT); } catch { return undefined; }
}
function remember() {
  try { sessionStorage.setItem(WENT, String(Date.now())); return true; } catch { return false; }
}
const went = lastWent();
const cameBack = went === undefined || (went !== null && Date.now() - Number(went) < CAME_BACK_MS);

const write = (id, text) => { const element = find(id); if (element.textContent !== text) element.textContent = text; };
const show = (id, shown) => { find(id).hidden = !shown; };

function draw() {
  document.title = told.headline + name;
  write('headline', told.headline);
  write('words', failures > 2 ? data.offline : told.words);
  show('progress', told.step !== undefined);
  Array.from(find('steps').children, (step, index) => {
    step.classList.toggle('done', index < told.step);
    if (index === told.step) step.setAttribute('aria-current', 'step');
    else step.removeAttribute('aria-current');
  });
  write('expectation', told.expectation ?? '');
  show('reference', told.failure);
  write('reference', told.failure ? data.reference.replace('{code}', () => told.failure.code) : '');
  show('wake', told.button);
  if (told.button) write('button', told.button);
  find('button').setAttribute('aria-disabled', posting);
  if (told.state !== 'ready') show('open', false);
  tick();
}

// How far it is: never all of it as long as it is not.
function tick() {
  const known = told.state === 'waking' && told.estimateMs > 0 && told.elapsedMs !== undefined;
  show('bar', known);
  if (known) find('bar').value = Math.min(95, ((told.elapsedMs + Date.now() - since) * 100) / told.estimateMs);
}

async function read(answer) {
  const said = await answer.json();
  if (typeof said.state !== 'string') throw new Error('this says nothing of the preview');
  failures = 0;
  // That there was no room for it is known only when it is woken: otherwise it is merely asleep.
  if (told.state === 'full' && said.state === 'asleep') return;
  told = said;
  since = Date.now();
}

// Asks how it stands. One at a time, and not while nobody sees it.
async function look() {
  clearTimeout(timer);
  if (asking || posting || left || !isSeen()) return;
  const began = Date.now();
  const mine = asking = new AbortController();
  const late = setTimeout(() => mine.abort(), ANSWER_MS);
  const seen = `${data.state}${data.state.includes('?') ? '&' : '?'}seen=${encodeURIComponent(told.mark)}`;
  try {
    await read(await fetch(seen, { cache: 'no-store', headers: { accept: 'application/json' }, signal: mine.signal }));
  } catch {
    // It was given up because nobody sees the page, or because something is asked for: that goes on by itself.
    if (asking !== mine) return;
    failures += 1;
  } finally {
    clearTimeout(late);
  }
  if (asking !== mine) return;
  asking = null;
  follow(began);
}

function giveUp() {
  clearTimeout(timer);
  const given = asking;
  asking = null;
  given?.abort();
}

// Draws what is known, does what is to be done, and looks again later.
function follow(began) {
  draw();
  act();
  if (left || posting) return;
  const pause = failures > 0
    ? Math.min(BACK_OFF_MAX_MS, 1000 * 2 ** (failures - 1)) * (0.75 + Math.random() / 2)
    : (PAUSES_MS[told.state] ?? 5000) - (Date.now() - began);
  clearTimeout(timer);
  timer = setTimeout(look, Math.max(100, pause));
}

function act() {
  clearTimeout(due);
  if (left || posting) return;
  if (told.state === 'ready') { arrive(); return; }
  if (!byItself || failures > 0) return;
  if (told.state === 'asleep' && !woken) {
    if (isSomebodyThere()) wake();
  } else if (told.state === 'failed' && told.againMs !== undefined && tries < TRIES_MAX) {
    const rest = since + told.againMs - Date.now();
    if (rest > 0) due = setTimeout(act, rest);
    else if (isSomebodyThere()) { tries += 1; wake(); }
  }
}

async function wake() {
  woken = true;
  posting = true;
  giveUp();
  clearTimeout(due);
  draw();
  const began = Date.now();
  try {
    const answer = await fetch(data.wake, {
      method: 'POST', cache: 'no-store', redirect: 'manual', headers: { accept: 'application/json' }, signal: AbortSignal.timeout(ANSWER_MS),
    });
    if (answer.type !== 'opaqueredirect') await read(answer);
  } catch {
    failures += 1;
  }
  // Nobody knows whether it was heard: once it is known to be asleep still, it is asked again, but not for ever.
  if (failures > 0 || told.state === 'unknown') {
    woken = tries >= TRIES_MAX;
    tries += 1;
  }
  posting = false;
  follow(began);
}

// Goes on to the site, once. Who was there a moment ago and is here again is not sent round in a circle.
function arrive() {
  if (cameBack || !remember()) { show('open', true); return; }
  left = true;
  giveUp();
  location.replace(location.origin + data.here);
  // What is a download leaves this page where it is.
  setTimeout(() => show('open', true), 5000);
}

find('link').addEventListener('click', remember);
find('wake').addEventListener('submit', (event) => {
  event.preventDefault();
  if (posting || left) return;
  tries = 0;
  wake();
});
document.addEventListener('visibilitychange', () => { if (isSeen()) look(); else giveUp(); });
setInterval(() => { if (isSeen()) tick(); }, 500);

draw();
whenSomebodyComes(act);
if (!posting && !left) look();
})();
