// What a page of Vite's dev server imports as `/@vite/client`, where no socket reaches the browser. See `vite.rs`.
//
// The names are those of Vite 5 to 8. Nothing is replaced in a running page: what `accept` is given is never called, and every
// change loads the page again, which is right for every site, and what Astro asks for most changes anyway.
import '/@vite/env';

const STATUS = '/_edit/status';
// While somebody looks.
const ASKS_MS = 2000;
// While nobody answers: somebody may have closed a laptop, and every question is a request that is paid for.
const ASKS_MAX_MS = 60000;

// ---- Styles, as Vite's own client puts them in.

const sheets = new Map();
const links = new Map();
for (const element of document.querySelectorAll('style[data-vite-dev-id]')) sheets.set(element.getAttribute('data-vite-dev-id'), element);
for (const element of document.querySelectorAll('link[rel="stylesheet"][data-vite-dev-id]')) links.set(element.getAttribute('data-vite-dev-id'), element);
const nonce = (() => {
  const meta = document.querySelector('meta[property=csp-nonce]');
  return meta?.nonce || meta?.getAttribute('nonce');
})();

// Styles that are put in together stay in the order of their imports, also when something else puts some in meanwhile.
let last;
export function updateStyle(id, content) {
  if (links.has(id)) return;
  let style = sheets.get(id);
  if (style) {
    if (style.textContent !== content) style.textContent = content;
  } else {
    style = document.createElement('style');
    style.setAttribute('type', 'text/css');
    style.setAttribute('data-vite-dev-id', id);
    style.textContent = content;
    if (nonce) style.setAttribute('nonce', nonce);
    if (last) last.insertAdjacentElement('afterend', style);
    else {
      document.head.appendChild(style);
      setTimeout(() => { last = undefined; }, 0);
    }
    last = style;
  }
  sheets.set(id, style);
}

export function removeStyle(id) {
  if (links.has(id)) {
    for (const element of document.querySelectorAll(`link[rel="stylesheet"][data-vite-dev-id="${CSS.escape(id)}"]`)) element.remove();
    links.delete(id);
  }
  sheets.get(id)?.remove();
  sheets.delete(id);
}

// ---- Modules that would be replaced. They may say what they like; what they keep for themselves is kept.

const kept = new Map();
const reload = () => location.reload();
export function createHotContext(owner) {
  if (!kept.has(owner)) kept.set(owner, {});
  const nothing = () => {};
  return {
    get data() { return kept.get(owner); },
    accept: nothing,
    acceptExports: nothing,
    dispose: nothing,
    prune: nothing,
    decline: nothing,
    invalidate: reload,
    on: nothing,
    off: nothing,
    send: nothing,
  };
}

export function injectQuery(url, query) {
  if (url[0] !== '.' && url[0] !== '/') return url;
  const path = url.replace(/[?#].*$/, '');
  const { search, hash } = new URL(url, 'http://vite.dev');
  return `${path}?${query}${search ? `&${search.slice(1)}` : ''}${hash || ''}`;
}

// The door shows what is wrong with a site, and where there is no element there is nothing to draw it in.
export const ErrorOverlay = globalThis.HTMLElement ? class ErrorOverlay extends HTMLElement {
  close() { this.remove(); }
} : class ErrorOverlay {};

// ---- Has anything been shown since this page was asked for? Both times are by the door's clock; this page's is worked out from
// what the door says the time is, and comes out too early rather than too late: then the page is loaded once more than it had to.

const askedFor = (() => {
  const [navigation] = performance.getEntriesByType('navigation');
  return performance.timeOrigin + (navigation?.requestStart ?? 0);
})();

let wait = ASKS_MS;
let timer;
let asking = false;

function askLater() {
  clearTimeout(timer);
  if (document.visibilityState !== 'hidden') timer = setTimeout(ask, wait);
}

async function ask() {
  if (asking) return;
  asking = true;
  try {
    const answer = await fetch(STATUS, { cache: 'no-store', headers: { accept: 'application/json' } });
    const { revision, at } = answer.ok ? await answer.json() : {};
    if (!Number.isFinite(revision)) throw new Error('no revision');
    const ahead = Date.parse(at) - Date.now();
    if (revision > askedFor + ahead) return reload();
    wait = ASKS_MS;
  } catch {
    wait = Math.min(wait * 2, ASKS_MAX_MS);
  } finally {
    asking = false;
  }
  askLater();
}

document.addEventListener('visibilitychange', () => {
  clearTimeout(timer);
  if (document.visibilityState === 'hidden') return;
  wait = ASKS_MS;
  ask();
});
// A page that comes back from the browser's memory has missed what there was.
addEventListener('pageshow', (event) => { if (event.persisted) ask(); });
askLater();
