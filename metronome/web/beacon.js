// Metronome's beacon: counts what happens on a page, without cookies. What it does is described in docs/beacon.md.
// It is served minified: without comments and white space, every name as it stands here.
// The page must not notice what goes wrong in it.
try { (() => {
  'use strict';

  // A batch's characters have up to three bytes each, and browsers let 64 KiB go out as a page closes.
  const BATCH = 2e4, RETRY_MS = 5e3, MINUTES = 6e4;
  // The formats that an access log's import knows, too.
  const FORMAT = /\.(tar\.(?:bz2|[gx]z)|7z|apk|arrow|bz2|[ct]sv|deb|dmg|docx?|epub|exe|flac|gem|gml|gpkg|gpx|grib|gz|h5|hdf5|iso|jar|km[lz]|la[sz]|mkv|mp[34]|msi|nc|nt|od[pst]|ogg|parquet|pdf|pptx?|rar|rdf|rpm|rtf|shp|sqlite|tar|tgz|tiff?|ttl|txt|wav|webm|whl|xlsx?|xml|xz|zip|zst|(?:geo|nd)?json|jsonld?)$/i;

  const safe = (work) => (...given) => {
    try {
      const done = work(...given);
      done?.catch?.(() => {});
      return done;
    } catch {
      return undefined;
    }
  };
  const on = (target, names, work) => names.split(' ').forEach((name) =>
    target.addEventListener(name, safe(work), { capture: true, passive: true }));
  const random = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join('');
  const cut = (value) => String(value).slice(0, 1e3);

  const script = document.currentScript || document.querySelector('script[src*="metronome.js"]');
  const { id, url: base, heartbeat = 30, off = '' } = script.dataset;
  const server = new URL('tick', base ? new URL(base.replace(/\/?$/, '/'), document.baseURI) : script.src).href;
  const does = (part) => !off.split(' ').includes(part);
  // Who does not want to be followed has nothing stored, and sends nothing that only tells how long somebody stays.
  const shy = navigator.globalPrivacyControl || navigator.doNotTrack === '1';

  // What waits: batches of events that could not be sent.

  const memory = new Map(), prefix = `metronome ${server} `;
  const stored = (work) => shy ? undefined : safe(() => work(localStorage))();
  const read = (key) => memory.get(key) || stored((box) => box.getItem(key)) || '';
  const waiting = () => [
    ...memory.keys(),
    ...stored((box) => Object.keys(box).filter((key) => key.startsWith(prefix))) || [],
  ].sort();

  const drop = (key) => {
    memory.delete(key);
    stored((box) => box.removeItem(key));
  };

  const trim = () => {
    let room = 25e4;
    waiting().reverse().forEach((key) => {
      room -= read(key).length;
      if (room < 0 || Date.now() - key.slice(prefix.length).split(' ')[0] > 7 * 24 * 60 * MINUTES) drop(key);
    });
  };

  const keep = (text) => {
    // A key for each batch: no tab overwrites what another one keeps.
    const key = `${prefix}${Date.now()} ${random()}`;
    stored((box) => box.setItem(key, text));
    if (!read(key)) memory.set(key, text);
    trim();
    retry();
  };

  // Sending.

  let queue = [], away, draining, flushTimer, retryTimer, pause = RETRY_MS;

  // Tells whether the batch is done with: it was taken, or refused for good.
  const post = async (body) => {
    try {
      const keepalive = body.length < BATCH + 2;
      const answer = await fetch(server, { method: 'POST', body, keepalive });
      const { status } = answer, text = await answer.text();
      if (status > 499 || status === 429 || status === 408) return false;
      if (status > 299 || text.includes('"error"')) console.warn(`Metronome: ${text}`);
      return true;
    } catch {
      return false;
    }
  };

  const send = safe(async (text) => {
    if (await post(text)) return;
    away = true;
    keep(text);
  });

  const drain = safe(async () => {
    if (draining) return;
    draining = true;
    trim();
    let failed = false;
    for (const key of waiting()) {
      const text = read(key);
      failed = text && !await post(text);
      if (failed) break;
      drop(key);
    }
    clearTimeout(retryTimer);
    draining = retryTimer = 0;
    away = failed;
    pause = failed ? Math.min(pause * 2, 5 * MINUTES) : RETRY_MS;
    if (failed) retry();
  });

  const retry = () => {
    retryTimer ||= setTimeout(drain, pause * (1 + Math.random()));
  };

  const batches = (events) => {
    const texts = [];
    events.map((event) => safe(JSON.stringify)(event)).filter(Boolean).forEach((text) => {
      const last = texts.length - 1;
      if (texts[last]?.length + text.length < BATCH) texts[last] += `,${text}`;
      else texts.push(text);
    });
    // Joined by hand: pages may have changed how arrays become JSON.
    return texts.map((text) => `[${text}]`);
  };

  const flush = (leaving) => {
    clearTimeout(flushTimer);
    flushTimer = 0;
    settle();
    const events = queue;
    queue = [];
    batches(events).forEach((text) => {
      if (away || !navigator.onLine || leaving && !navigator.sendBeacon(server, text)) keep(text);
      else if (!leaving) send(text);
    });
    // What could not be stored may get through as the page closes.
    if (leaving) memory.forEach((text) => navigator.sendBeacon(server, text));
  };

  const push = (event) => {
    queue.push(event);
    if (!visible) flush(true);
    else flushTimer ||= setTimeout(safe(flush), 1e3);
  };

  // Views, and the items that pages are about.

  const items = new Map();
  let early = [], begun, visible = document.visibilityState !== 'hidden', lively;
  let path, url, item, pending, stale;

  const meta = () => document.querySelector('meta[name=metronome-id]')?.content;
  const host = (address) => new URL(address).hostname.replace(/^www\./, '');
  const here = () => safe(decodeURIComponent)(location.pathname) || location.pathname;

  const tick = (fields) => {
    const event = { event_id: random(), ts: Date.now(), ...fields };
    if (begun) {
      settle();
      push({ id: item, url, ...event });
    } else {
      early.push(event);
    }
  };

  const view = (from) => {
    path = here();
    url = location.href.split('#')[0];
    pending = { event_id: random(), ts: Date.now(), event: 'view', url };
    // The server tells by it that a visit goes on, and does not list it among referers.
    if (from) pending[host(from) === host(url) ? 'referer_url' : 'referer'] = from;
    if (does('views')) push(pending);
  };

  // Frameworks set the title and the item after the address: a view's are read when it is sent, or something follows it.
  const settle = () => {
    if (!pending) return;
    const found = meta();
    if (!items.has(path)) items.set(path, !items.size && id || found !== stale && found || path);
    item = pending.id = items.get(path);
    pending.title = document.title;
    pending = undefined;
  };

  const begin = () => {
    if (begun) return;
    begun = true;
    lively = Date.now();
    view(document.referrer);
    early.forEach(tick);
    drain();
  };

  const moved = () => {
    if (!begun || here() === path) return;
    report();
    settle();
    stale = meta();
    lively = Date.now();
    view(url);
  };

  const beat = () => {
    if (begun && visible && !shy && +heartbeat && Date.now() - lively < 5 * MINUTES) tick({ event: 'heartbeat' });
  };

  const show = () => {
    visible = true;
    if (document.readyState !== 'loading') begin();
  };

  const hide = () => {
    if (!visible) return;
    begin();
    report();
    beat();
    visible = false;
    flush(true);
  };

  // Downloads and links to elsewhere.

  const clicked = (event) => {
    const link = event.composedPath().find((node) => /^a(rea)?$/i.test(node.localName) && node.href && node.protocol);
    if (!link || event.button > 1) return;
    const { href, pathname, protocol, dataset } = link, file = link.getAttribute('download');
    const web = /^http/.test(protocol), about = dataset.id ? { id: dataset.id } : {};
    const name = file || pathname;
    const format = dataset.format || (FORMAT.exec(name) || file !== null && /\.(\w+)$/.exec(name) || [])[1];
    if (file !== null || web && format) {
      if (does('downloads')) tick({ ...about, event: 'download', format, download: cut(web ? href : file) });
    } else if (web && host(href) !== host(location.href) && does('outlinks')) {
      tick({ ...about, event: 'outlink', link: cut(href) });
    }
  };

  // Errors.

  const failures = new Map();
  let errors = 0;
  const failed = (event) => {
    // Pictures that do not load come by here, too.
    if (event.target !== window) return;
    const what = event.reason ?? event.error ?? event.message, message = cut(what);
    failures.set(message, (failures.get(message) || 0) + 1);
    if (failures.get(message) > 3 || ++errors > 20) return;
    tick({
      event: 'error',
      message,
      error_url: event.filename,
      error_line: event.lineno,
      error_column: event.colno,
      error_stack: what?.stack && cut(what.stack),
    });
  };

  // Web vitals, by the definitions at https://web.dev/articles/vitals.

  const layoutShifts = 'layout-shift', largest = 'largest-contentful-paint';
  const interacted = () => performance.interactionCount || 0;
  let vitals, observer, hiddenAt;
  const timing = () => performance.getEntriesByType('navigation')[0] || {};
  const can = (type) => PerformanceObserver.supportedEntryTypes.includes(type);
  const whole = (number) => number >= 0 ? Math.round(number) : undefined;

  const measure = (entry) => {
    const { startTime: at, entryType: type, interactionId: key, duration } = entry;
    if (!vitals) return;
    if (type === layoutShifts) {
      if (entry.hadRecentInput) return;
      if (!(at - vitals.last < 1e3 && at - vitals.first < 5e3)) {
        vitals.sum = 0;
        vitals.first = at;
      }
      vitals.last = at;
      vitals.sum += entry.value;
      vitals.worst = Math.max(vitals.worst, vitals.sum);
    } else if (type === 'paint' || type === largest) {
      if (at < hiddenAt && entry.name !== 'first-paint') vitals[type] = at;
    } else if (key || type === 'first-input') {
      vitals.slow.set(key, Math.max(vitals.slow.get(key) || 0, duration));
    }
  };

  const begins = () => ({ worst: 0, sum: 0, slow: new Map(), before: interacted() });

  const report = safe(() => {
    if (!vitals) return;
    observer.takeRecords().forEach(measure);
    const { paint, worst, slow, before, restored } = vitals, lcp = vitals[largest];
    const { responseStart, activationStart = 0 } = timing(), start = restored ? 0 : activationStart;
    const since = (at) => at === undefined ? at : whole(Math.max(at - start, 0));
    const durations = [...slow.values()].sort((one, other) => other - one);
    const nth = Math.floor((interacted() - before) / 50);
    vitals = undefined;
    tick({
      event: 'timing',
      TTFB: restored ? 0 : since(responseStart || undefined),
      FCP: since(paint),
      LCP: since(lcp),
      CLS: paint >= 0 && can(layoutShifts) ? Math.round(worst * 1e4) / 1e4 : undefined,
      INP: whole(durations[Math.min(durations.length - 1, nth)]),
    });
  });

  const observe = () => {
    const { activationStart = 0 } = timing();
    const hidden = performance.getEntriesByType('visibility-state')
      .find((state) => state.name === 'hidden' && state.startTime >= activationStart);
    hiddenAt = document.prerendering ? Infinity : hidden ? hidden.startTime : visible ? Infinity : 0;
    vitals = { ...begins(), before: 0 };
    observer = new PerformanceObserver(safe((list) => list.getEntries().forEach(measure)));
    ['paint', largest, layoutShifts, 'first-input', 'event'].filter(can).forEach((type) =>
      observer.observe({ type, buffered: true, durationThreshold: 40 }));
  };

  const restore = (event) => {
    if (!event.persisted) return;
    hiddenAt = Infinity;
    if (does('vitals')) vitals = { ...begins(), restored: true };
    const painted = () => {
      const at = performance.now() - event.timeStamp;
      if (vitals) vitals.paint = vitals[largest] = at;
    };
    requestAnimationFrame(() => requestAnimationFrame(safe(painted)));
    visible = true;
    lively = Date.now();
    view(url);
  };

  safe(() => {
    const before = window.metronome;
    // A second tag counts nothing.
    if (before?.tick && !before.q) return;
    window.metronome = { tick: safe(tick) };
    safe(() => before.q.forEach(tick))();
    if (does('vitals')) safe(observe)();
    if (does('errors')) on(window, 'error unhandledrejection', failed);
    on(window, 'click auxclick', clicked);
    on(window, 'pagehide', hide);
    on(window, 'pageshow', restore);
    on(window, 'online', drain);
    on(window, 'pointermove pointerdown keydown scroll wheel touchstart', () => { lively = Date.now(); });
    on(document, 'visibilitychange prerenderingchange', () => document.visibilityState === 'hidden' ? hide() : show());
    if (does('navigations')) {
      on(window, 'popstate', moved);
      ['pushState', 'replaceState'].forEach((name) => {
        const was = history[name];
        history[name] = function (...given) {
          const result = was.apply(this, given);
          safe(moved)();
          return result;
        };
      });
    }
    if (+heartbeat) setInterval(safe(beat), heartbeat * 1e3);
    on(document, 'DOMContentLoaded', () => visible && begin());
    if (visible) show();
  })();
})(); } catch { /* nothing is counted */ }
