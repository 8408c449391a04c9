// Metronome's beacon: counts what happens on a page, without cookies. See docs/beacon.md.
// `make docs` writes beacon.min.js, which is served: this file without comments and white space.
// Errors in it must not affect the page.
try { (() => {
  'use strict';

  // Characters in a batch. Each takes up to three bytes, and browsers send at most 64 KiB as a page closes.
  const BATCH = 2e4, RETRY_MS = 5e3, MINUTES = 6e4;
  // The file extensions that `metronome import` counts as downloads, too.
  const FORMAT = /\.(tar\.(?:bz2|[gx]z)|7z|apk|arrow|bz2|[ct]sv|deb|dmg|docx?|epub|exe|flac|gem|gml|gpkg|gpx|grib|gz|h5|hdf5|iso|jar|km[lz]|la[sz]|mkv|mp[34]|msi|nc|nt|od[pst]|ogg|parquet|pdf|pptx?|rar|rdf|rpm|rtf|shp|sqlite|tar|tgz|tiff?|ttl|txt|wav|webm|whl|xlsx?|xml|xz|zip|zst|(?:geo|nd)?json|jsonld?)$/i;

  const safe = (action) => (...args) => {
    try {
      const result = action(...args);
      result?.catch?.(() => {});
      return result;
    } catch {
      return undefined;
    }
  };
  const on = (target, names, listener) => names.split(' ').forEach((name) =>
    target.addEventListener(name, safe(listener), { capture: true, passive: true }));
  const random = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join('');
  const truncate = (value) => String(value).slice(0, 1e3);

  const script = document.currentScript || document.querySelector('script[src*="metronome.js"]');
  const { id, url: base, heartbeat = 30, off = '' } = script.dataset;
  const server = new URL('tick', base ? new URL(base.replace(/\/?$/, '/'), document.baseURI) : script.src).href;
  const enabled = (part) => !off.split(' ').includes(part);
  // For visitors who opt out, nothing is stored and no heartbeats are sent.
  const optedOut = navigator.globalPrivacyControl || navigator.doNotTrack === '1';

  // Unsent batches, in localStorage or, where that is not available, in memory.

  const memory = new Map(), prefix = `metronome ${server} `;
  const withStorage = (action) => optedOut ? undefined : safe(() => action(localStorage))();
  const read = (key) => memory.get(key) || withStorage((storage) => storage.getItem(key)) || '';
  const unsentKeys = () => [
    ...memory.keys(),
    ...withStorage((storage) => Object.keys(storage).filter((key) => key.startsWith(prefix))) || [],
  ].sort();

  const drop = (key) => {
    memory.delete(key);
    withStorage((storage) => storage.removeItem(key));
  };

  const trim = () => {
    let remaining = 25e4;
    unsentKeys().reverse().forEach((key) => {
      remaining -= read(key).length;
      if (remaining < 0 || Date.now() - key.slice(prefix.length).split(' ')[0] > 7 * 24 * 60 * MINUTES) drop(key);
    });
  };

  const store = (text) => {
    // A key for each batch, so that tabs do not overwrite each other's.
    const key = `${prefix}${Date.now()} ${random()}`;
    withStorage((storage) => storage.setItem(key, text));
    if (!read(key)) memory.set(key, text);
    trim();
    retry();
  };

  // Sending.

  let queue = [], unreachable, draining, flushTimer, retryTimer, pause = RETRY_MS;

  // Returns whether the batch is finished: accepted, or rejected for good.
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
    unreachable = true;
    store(text);
  });

  const drain = safe(async () => {
    if (draining) return;
    draining = true;
    trim();
    let failed = false;
    for (const key of unsentKeys()) {
      const text = read(key);
      failed = text && !await post(text);
      if (failed) break;
      drop(key);
    }
    clearTimeout(retryTimer);
    draining = retryTimer = 0;
    unreachable = failed;
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
    // Not by JSON.stringify: pages may have changed how it encodes arrays.
    return texts.map((text) => `[${text}]`);
  };

  const flush = (leaving) => {
    clearTimeout(flushTimer);
    flushTimer = 0;
    completeView();
    const events = queue;
    queue = [];
    batches(events).forEach((text) => {
      if (unreachable || !navigator.onLine || leaving && !navigator.sendBeacon(server, text)) store(text);
      else if (!leaving) send(text);
    });
    // Batches that could not be stored may still be delivered.
    if (leaving) memory.forEach((text) => navigator.sendBeacon(server, text));
  };

  const push = (event) => {
    queue.push(event);
    if (!visible) flush(true);
    else flushTimer ||= setTimeout(safe(flush), 1e3);
  };

  // Views, and the item of each path.

  const items = new Map();
  let earlyEvents = [], started, visible = document.visibilityState !== 'hidden', lastActivity;
  let path, url, item, pendingView, previousMeta;

  const meta = () => document.querySelector('meta[name=metronome-id]')?.content;
  const host = (address) => new URL(address).hostname.replace(/^www\./, '');
  const currentPath = () => safe(decodeURIComponent)(location.pathname) || location.pathname;

  const tick = (fields) => {
    const event = { event_id: random(), ts: Date.now(), ...fields };
    if (started) {
      completeView();
      push({ id: item, url, ...event });
    } else {
      earlyEvents.push(event);
    }
  };

  const view = (from) => {
    path = currentPath();
    url = location.href.split('#')[0];
    pendingView = { event_id: random(), ts: Date.now(), event: 'view', url };
    // A referrer of the same site shows the server that a session continues; it is not counted as a referrer.
    if (from) pendingView[host(from) === host(url) ? 'referer_url' : 'referer'] = from;
    if (enabled('views')) push(pendingView);
  };

  // Frameworks set title and item after the URL: read them when the view is sent or another event follows.
  const completeView = () => {
    if (!pendingView) return;
    const metaId = meta();
    if (!items.has(path)) items.set(path, !items.size && id || metaId !== previousMeta && metaId || path);
    item = pendingView.id = items.get(path);
    pendingView.title = document.title;
    pendingView = undefined;
  };

  const start = () => {
    if (started) return;
    started = true;
    lastActivity = Date.now();
    view(document.referrer);
    earlyEvents.forEach(tick);
    drain();
  };

  const onNavigation = () => {
    if (!started || currentPath() === path) return;
    reportVitals();
    completeView();
    previousMeta = meta();
    lastActivity = Date.now();
    view(url);
  };

  const sendHeartbeat = () => {
    const isActive = Date.now() - lastActivity < 5 * MINUTES;
    if (started && visible && !optedOut && +heartbeat && isActive) tick({ event: 'heartbeat' });
  };

  const show = () => {
    visible = true;
    if (document.readyState !== 'loading') start();
  };

  const hide = () => {
    if (!visible) return;
    start();
    reportVitals();
    sendHeartbeat();
    visible = false;
    flush(true);
  };

  // Downloads and outlinks.

  const onClick = (event) => {
    const link = event.composedPath().find((node) => /^a(rea)?$/i.test(node.localName) && node.href && node.protocol);
    if (!link || event.button > 1) return;
    const { href, pathname, protocol, dataset } = link, file = link.getAttribute('download');
    const web = /^http/.test(protocol), linked = dataset.id ? { id: dataset.id } : {};
    const name = file || pathname;
    const format = dataset.format || (FORMAT.exec(name) || file !== null && /\.(\w+)$/.exec(name) || [])[1];
    if (file !== null || web && format) {
      if (enabled('downloads')) tick({ ...linked, event: 'download', format, download: truncate(web ? href : file) });
    } else if (web && host(href) !== host(location.href) && enabled('outlinks')) {
      tick({ ...linked, event: 'outlink', link: truncate(href) });
    }
  };

  // Errors.

  const errorCounts = new Map();
  let errors = 0;
  const onError = (event) => {
    // Images that fail to load raise error events, too.
    if (event.target !== window) return;
    const error = event.reason ?? event.error ?? event.message, message = truncate(error);
    errorCounts.set(message, (errorCounts.get(message) || 0) + 1);
    if (errorCounts.get(message) > 3 || ++errors > 20) return;
    tick({
      event: 'error',
      message,
      error_url: event.filename,
      error_line: event.lineno,
      error_column: event.colno,
      error_stack: error?.stack && truncate(error.stack),
    });
  };

  // Web vitals, as defined at https://web.dev/articles/vitals.

  const layoutShifts = 'layout-shift', largest = 'largest-contentful-paint';
  const interactions = () => performance.interactionCount || 0;
  let vitals, observer, hiddenAt;
  const timing = () => performance.getEntriesByType('navigation')[0] || {};
  const supports = (type) => PerformanceObserver.supportedEntryTypes.includes(type);
  const round = (number) => number >= 0 ? Math.round(number) : undefined;

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

  const newVitals = () => ({ worst: 0, sum: 0, slow: new Map(), before: interactions() });

  const reportVitals = safe(() => {
    if (!vitals) return;
    observer.takeRecords().forEach(measure);
    const { paint, worst, slow, before, restored } = vitals, lcp = vitals[largest];
    const { responseStart, activationStart = 0 } = timing(), origin = restored ? 0 : activationStart;
    const since = (at) => at === undefined ? at : round(Math.max(at - origin, 0));
    const durations = [...slow.values()].sort((a, b) => b - a);
    const nth = Math.floor((interactions() - before) / 50);
    vitals = undefined;
    tick({
      event: 'timing',
      TTFB: restored ? 0 : since(responseStart || undefined),
      FCP: since(paint),
      LCP: since(lcp),
      CLS: paint >= 0 && supports(layoutShifts) ? Math.round(worst * 1e4) / 1e4 : undefined,
      INP: round(durations[Math.min(durations.length - 1, nth)]),
    });
  });

  const observe = () => {
    const { activationStart = 0 } = timing();
    const hidden = performance.getEntriesByType('visibility-state')
      .find((state) => state.name === 'hidden' && state.startTime >= activationStart);
    hiddenAt = document.prerendering ? Infinity : hidden ? hidden.startTime : visible ? Infinity : 0;
    vitals = { ...newVitals(), before: 0 };
    observer = new PerformanceObserver(safe((list) => list.getEntries().forEach(measure)));
    ['paint', largest, layoutShifts, 'first-input', 'event'].filter(supports).forEach((type) =>
      observer.observe({ type, buffered: true, durationThreshold: 40 }));
  };

  const onPageShow = (event) => {
    if (!event.persisted) return;
    hiddenAt = Infinity;
    if (enabled('vitals')) vitals = { ...newVitals(), restored: true };
    const onPaint = () => {
      const at = performance.now() - event.timeStamp;
      if (vitals) vitals.paint = vitals[largest] = at;
    };
    requestAnimationFrame(() => requestAnimationFrame(safe(onPaint)));
    visible = true;
    lastActivity = Date.now();
    view(url);
  };

  safe(() => {
    const before = window.metronome;
    // The page has a second tag.
    if (before?.tick && !before.q) return;
    window.metronome = { tick: safe(tick) };
    safe(() => before.q.forEach(tick))();
    if (enabled('vitals')) safe(observe)();
    if (enabled('errors')) on(window, 'error unhandledrejection', onError);
    on(window, 'click auxclick', onClick);
    on(window, 'pagehide', hide);
    on(window, 'pageshow', onPageShow);
    on(window, 'online', drain);
    on(window, 'pointermove pointerdown keydown scroll wheel touchstart', () => { lastActivity = Date.now(); });
    on(document, 'visibilitychange prerenderingchange', () => document.visibilityState === 'hidden' ? hide() : show());
    if (enabled('navigations')) {
      on(window, 'popstate', onNavigation);
      ['pushState', 'replaceState'].forEach((name) => {
        const original = history[name];
        history[name] = function (...args) {
          const result = original.apply(this, args);
          safe(onNavigation)();
          return result;
        };
      });
    }
    if (+heartbeat) setInterval(safe(sendHeartbeat), heartbeat * 1e3);
    on(document, 'DOMContentLoaded', () => visible && start());
    if (visible) show();
  })();
})(); } catch { /* Nothing is counted. */ }
