// Answers for Matomo's script, matomo.js: sends what pages push to _paq to matomo.php, without cookies. See docs/protocols.md.
// `make docs` writes matomo.min.js, which is served: this file without comments and white space.
// Errors in it must not affect the page.
try { (() => {
  'use strict';

  const FORMAT = /\.(7z|apk|arrow|bz2|[ct]sv|deb|dmg|docx?|epub|exe|flac|gem|gml|gpkg|gpx|gz|h5|hdf5|iso|jar|km[lz]|la[sz]|mkv|mp[34]|msi|nc|od[pst]|ogg|parquet|pdf|pptx?|rar|rdf|rpm|rtf|shp|sqlite|tar|tgz|tiff?|ttl|txt|wav|webm|whl|xlsx?|xml|xz|zip|zst|(?:geo|nd)?json)$/i;
  // Whatever the order of calls, these apply to all of them.
  const FIRST = ['setTrackerUrl', 'setSiteId', 'setUserId', 'setDoNotTrack', 'setDomains', 'requireConsent'];
  const random = () => Math.random().toString(36).slice(2, 8);
  const script = document.currentScript || document.querySelector('script[src*="matomo.js"],script[src*="piwik.js"]');

  let endpoint = new URL('matomo.php', script.src).href, silent = false, waiting, basket = {}, view = random();
  let page, title, referrer = document.referrer, once = {}, domains = [], warned = {};
  const common = { idsite: 1, rec: 1, apiv: 1, send_image: 0, res: `${screen.width}x${screen.height}` };

  const post = (parameters) => {
    const body = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== ''));
    if (!navigator.sendBeacon?.(endpoint, body)) fetch(endpoint, { method: 'POST', body, keepalive: true, mode: 'no-cors' }).catch(() => {});
  };

  const send = (parameters) => {
    if (silent) return;
    const all = { ...common, url: page || location.href, urlref: referrer, pv_id: view, ...parameters };
    waiting ? waiting.push(all) : post(all);
  };

  const text = (value) => typeof value === 'string' ? value : undefined;
  const itemsOf = () => JSON.stringify(Object.values(basket));
  const absolute = (url) => new URL(url, document.baseURI).href;

  const follow = ({ target }) => {
    const link = target.closest?.('a[href],area[href]');
    if (!link || !/^https?:$/.test(link.protocol)) return;
    const own = [location.hostname, ...domains].some((host) => link.hostname === host || host.startsWith('*.') && `.${link.hostname}`.endsWith(host.slice(1)));
    if (FORMAT.test(link.pathname) || link.hasAttribute('download')) tracker.trackLink(link.href, 'download');
    else if (!own) tracker.trackLink(link.href, 'link');
  };

  const tracker = {
    setTrackerUrl: (url) => { endpoint = absolute(url); },
    setSiteId: (site) => { common.idsite = site; },
    setUserId: (user) => { common.uid = user; },
    resetUserId: () => { delete common.uid; },
    setCustomUrl: (url) => { page = absolute(url); },
    setDocumentTitle: (name) => { title = name; },
    setReferrerUrl: (url) => { referrer = url; },
    setDomains: (names) => { domains = [].concat(names).map((name) => name.split('/')[0].toLowerCase()); },
    setCustomDimension: (number, value) => { common[`dimension${number}`] = value; },
    deleteCustomDimension: (number) => { delete common[`dimension${number}`]; },
    setCustomData: (name, value) => { common.data = JSON.stringify(typeof name === 'object' ? name : { [name]: value }); },
    setDoNotTrack: (respect) => { silent ||= respect && navigator.doNotTrack === '1'; },
    optUserOut: () => { silent = true; },
    forgetUserOptOut: () => { silent = false; },
    requireConsent: () => { waiting ||= []; },
    setConsentGiven: () => { const sent = waiting || []; waiting = undefined; sent.forEach(post); },
    rememberConsentGiven: () => tracker.setConsentGiven(),
    forgetConsentGiven: () => { waiting = []; },
    trackPageView: (name) => {
      view = random();
      send({ pv_id: view, action_name: text(name) ?? title ?? document.title, ...once });
      once = {};
    },
    trackEvent: (category, action, name, value) => send({ e_c: category, e_a: action, e_n: name, e_v: value, ca: 1 }),
    trackSiteSearch: (word, category, count) => send({ search: word, search_cat: category || undefined, search_count: count === false ? undefined : count }),
    trackGoal: (goal, revenue) => send({ idgoal: goal, revenue }),
    trackLink: (url, type) => send({ [type === 'download' ? 'download' : 'link']: absolute(url), ca: 1 }),
    trackContentImpression: (name, piece, target) => send({ c_n: name, c_p: piece, c_t: target, ca: 1 }),
    trackContentInteraction: (action, name, piece, target) => send({ c_i: action, c_n: name, c_p: piece, c_t: target, ca: 1 }),
    enableLinkTracking: () => { removeEventListener('click', follow, true); addEventListener('click', follow, true); },
    enableHeartBeatTimer: () => addEventListener('visibilitychange', () => document.visibilityState === 'hidden' && tracker.ping()),
    ping: () => send({ ping: 1 }),
    setEcommerceView: (sku, name, category, price) => { once = { _pks: sku, _pkn: name || undefined, _pkc: category && JSON.stringify(category), _pkp: price }; },
    addEcommerceItem: (sku, name, category, price, quantity) => { basket[sku] = [sku, name || '', category || '', price || 0, quantity || 1]; },
    removeEcommerceItem: (sku) => { delete basket[sku]; },
    clearEcommerceCart: () => { basket = {}; },
    trackEcommerceCartUpdate: (total) => send({ idgoal: 0, revenue: total, ec_items: itemsOf() }),
    trackEcommerceOrder: (order, total, subtotal, tax, shipping, discount) => {
      send({ idgoal: 0, ec_id: order, revenue: total, ec_st: subtotal, ec_tx: tax, ec_sh: shipping, ec_dt: discount || undefined, ec_items: itemsOf() });
      basket = {};
    },
    getVisitorId: () => '',
    getUserId: () => common.uid,
    getSiteId: () => common.idsite,
    getTrackerUrl: () => endpoint,
  };
  // Without cookies, nothing is left to do for these.
  const NOTHING = /^(disable|enable(JSError|CrossDomain|Cookies|BrowserFeature|FileTracking)|set(Secure)?Cookie|setVisitor|setSession|setRequest|setCampaign|setConversion|setLink|setDownload|setIgnore|setSecure|alwaysUse|requireCookie|rememberCookie|setCookieConsent|forgetCookie|killFrame|redirectFile|trackVisibleContent|trackAllContent|discardHash|appendTo|addPlugin|setHeartBeat|deleteCookies|setCountPre)/;

  const run = ([name, ...args]) => {
    try {
      if (typeof name === 'function') name.apply(tracker, args);
      else if (tracker[name]) tracker[name](...args);
      else if (!NOTHING.test(name) && !warned[name]) {
        warned[name] = true;
        console.warn(`Metronome does not support _paq.push(['${name}'])`);
      }
    } catch {
      // A wrong argument concerns this call alone.
    }
  };

  const calls = Array.isArray(window._paq) ? window._paq : [];
  const isFirst = ([name]) => FIRST.includes(name);
  window._paq = { push: (...more) => more.forEach(run) };
  const get = (url, site) => { if (url) tracker.setTrackerUrl(url); if (site) tracker.setSiteId(site); return tracker; };
  window.Matomo = window.Piwik = { getTracker: get, getAsyncTracker: get, addTracker: get, initialized: true };
  [...calls.filter(isFirst), ...calls.filter((call) => !isFirst(call))].forEach(run);
})(); } catch {
  // The page works without it.
}
