// Works without: every control is a link or a form. This adds values on hover, arrow keys in the chart, navigation
// that keeps the place on the page, the live part, copy buttons and the theme.
(() => {
  const LIVE_MS = 10_000, SLOW_MS = 150, THEME = 'metronome-theme';
  const root = document.documentElement;
  const $ = (selector, within = document) => within.querySelector(selector);
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

  // The theme: loaded without `defer`, so that it applies before the first paint.

  const storedTheme = () => { try { return localStorage.getItem(THEME) || ''; } catch { return ''; } };
  const applyTheme = (theme) => theme ? root.setAttribute('data-theme', theme) : root.removeAttribute('data-theme');
  applyTheme(storedTheme());
  addEventListener('storage', ({ key, newValue }) => key === THEME && applyTheme(newValue || ''));

  const chooseTheme = (theme) => {
    applyTheme(theme);
    try {
      theme ? localStorage.setItem(THEME, theme) : localStorage.removeItem(THEME);
    } catch { /* Without storage, the choice is for this page. */ }
  };

  // The chart: hover or arrow keys show a bar's values in the legend. The bars are one stop of the tab key.

  const bars = () => $$('.chart > a');
  const readOut = (bar) => {
    const readout = $('#readout');
    if (readout) readout.textContent = bar?.getAttribute('aria-label') || '';
  };

  const moveTo = (bar) => {
    bars().forEach((other) => other.setAttribute('tabindex', other === bar ? 0 : -1));
    bar.focus({ preventScroll: true });
  };

  const onArrow = (event) => {
    const all = bars(), at = all.indexOf(event.target.closest?.('.chart > a'));
    const next = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: all.length - 1 }[event.key];
    if (at < 0 || next === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (all[next]) moveTo(all[next]);
  };

  // What a new page needs.

  const enhance = () => {
    $$('.theme').forEach((label) => { label.hidden = false; });
    const select = $('#theme');
    if (select) select.value = storedTheme();
    bars().forEach((bar, at, all) => {
      bar.setAttribute('tabindex', at === all.length - 1 ? 0 : -1);
    });
    // The legend shows it; the browser's tooltip would cover the neighbours.
    $$('.chart > a > title, .chart > g > title').forEach((title) => {
      title.parentNode.setAttribute('aria-label', title.textContent);
      title.remove();
    });
    if (navigator.clipboard) $$('pre.copy').forEach((block) => {
      const button = Object.assign(document.createElement('button'), { type: 'button', textContent: 'Copy' });
      button.onclick = async () => {
        await navigator.clipboard.writeText($('code', block).textContent);
        button.textContent = 'Copied';
      };
      block.append(button);
    });
  };

  // Navigation: pages of the same server replace the content, and the address stays the truth.

  const base = () => new URL($('.brand').href).pathname;
  const isPage = ({ origin, pathname }) => origin === location.origin && (
    pathname === base() || pathname.startsWith(`${base()}items/`)
    || pathname.startsWith(`${base()}tables/`) && !pathname.endsWith('.csv'));
  const assets = (page) => $$('head link[href], head script[src]', page).map(({ href, src }) => href || src).join();

  const GROUPS = '.controls, .ranges, .chips, .headlines, .intervals, .chart, section[id], .search, .paging, .tools';
  const focusable = (group) => $$('a, button, summary, select, input:not([type=hidden])', group);
  const groupKey = (group) => group.id ? `#${CSS.escape(group.id)}` : `.${group.classList[0]}`;

  const rememberFocus = () => {
    const group = document.activeElement?.closest(GROUPS);
    if (!group) return () => {};
    const key = groupKey(group), at = focusable(group).indexOf(document.activeElement.closest('details')
      ? $('summary', document.activeElement.closest('details')) : document.activeElement);
    return () => {
      const now = $(key), all = now ? focusable(now) : [];
      (all[Math.min(at, all.length - 1)] || $('main'))?.focus({ preventScroll: true });
    };
  };

  let shown = location.pathname + location.search, loading;

  const show = async (address, isNew) => {
    loading?.abort();
    const mine = loading = new AbortController();
    const slow = setTimeout(() => root.classList.add('loading'), SLOW_MS);
    try {
      const response = await fetch(address, { signal: mine.signal, headers: { Accept: 'text/html' } });
      const target = new URL(response.url);
      if (!response.headers.get('Content-Type')?.startsWith('text/html') || !isPage(target)) throw new Error();
      const page = new DOMParser().parseFromString(await response.text(), 'text/html');
      // A newer server, or not one of our pages.
      if (assets(page) !== assets(document) || !$('main', page)) throw new Error();
      const isSamePlace = target.pathname === new URL(shown, location).pathname;
      const restoreFocus = rememberFocus();
      target.hash = new URL(address, location).hash;
      if (isNew) history.pushState(null, '', target);
      shown = target.pathname + target.search;
      document.title = page.title;
      ['main', '.tools', 'footer'].forEach((part) => $(part).replaceWith(document.adoptNode($(part, page))));
      enhance();
      if (isSamePlace) restoreFocus();
      else {
        if (isNew) scrollTo(0, 0);
        $('main').focus({ preventScroll: true });
      }
      $('#status').textContent = page.title;
    } catch (error) {
      if (error.name !== 'AbortError') location.assign(address);
    } finally {
      clearTimeout(slow);
      if (loading === mine) root.classList.remove('loading');
    }
  };

  const onClick = (event) => {
    const link = event.target.closest?.('a');
    $$('details.menu[open]').forEach((menu) => menu.contains(event.target) || menu.removeAttribute('open'));
    if (!link || event.defaultPrevented || event.button) return;
    const address = new URL(link.href.baseVal ?? link.href, location);
    const item = link.dataset.page;
    if ((event.ctrlKey || event.metaKey) && item) {
      event.preventDefault();
      open(item, '_blank', 'noopener');
    } else if (!event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey && !link.hasAttribute('download')
        && isPage(address) && address.pathname + address.search + address.hash !== shown + address.hash) {
      event.preventDefault();
      show(address.href, true);
    }
  };

  const onSubmit = (event) => {
    const form = event.target;
    if (form.method !== 'get' || event.defaultPrevented) return;
    const address = new URL(form.action || location);
    address.search = new URLSearchParams(new FormData(form));
    address.hash = '';
    if (!isPage(address)) return;
    event.preventDefault();
    show(address.href, true);
  };

  // The live part.

  const readLive = async () => {
    const live = $('#live');
    if (document.hidden || !live?.getClientRects().length || live.matches(':hover, :focus-within')) return;
    try {
      const response = await fetch(live.dataset.href);
      const read = new DOMParser().parseFromString(await response.text(), 'text/html');
      const fresh = $('#live', read);
      // Another page may have been opened meanwhile.
      if (!response.ok || !fresh || !live.isConnected) return;
      $('.livelink .spark')?.replaceChildren(...$$('.spark rect', fresh).map((bar) => document.importNode(bar)));
      live.replaceWith(document.adoptNode(fresh));
    } catch { /* The next attempt is in ten seconds. */ }
  };

  const start = () => {
    enhance();
    document.addEventListener('click', onClick);
    document.addEventListener('submit', onSubmit);
    document.addEventListener('keydown', (event) => {
      onArrow(event);
      const menu = event.key === 'Escape' && $('details.menu[open]');
      if (menu) {
        menu.removeAttribute('open');
        $('summary', menu).focus();
      }
    });
    for (const [name, isOn] of [['pointerover', true], ['pointerout', false], ['focusin', true], ['focusout', false]])
      document.addEventListener(name, ({ target }) => {
        const bar = target.closest?.('.chart > a, .chart > g');
        if (bar) readOut(isOn ? bar : null);
      });
    document.addEventListener('change', ({ target }) => {
      if (target.id === 'theme') chooseTheme(target.value);
    });
    addEventListener('popstate', () => {
      if (location.pathname + location.search !== shown) show(location.href, false);
    });
    setInterval(readLive, LIVE_MS);
  };
  document.readyState === 'loading' ? document.addEventListener('DOMContentLoaded', start) : start();
})();
