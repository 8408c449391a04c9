// Shows an item's views and downloads where the tag stands: `<script src="…/usage.js" data-id="rivers" async></script>`.
(() => {
  const script = document.currentScript || document.querySelector('script[src*="usage.js"]');

  const show = () => {
    const { id, into, theme } = script.dataset;
    const item = id ?? document.querySelector('meta[name=metronome-id]')?.content;
    const place = into ? document.querySelector(into) : script;
    if (!item || !place) return console.warn(`usage.js: ${item ? `no element matches ${into}` : 'data-id names no item'}`);
    // A frame does not know the schemes that its page supports.
    const schemes = getComputedStyle(document.documentElement).colorScheme;
    const only = schemes.includes('dark') ? schemes.includes('light') ? '' : 'dark' : 'light';
    const address = new URL(`embed/${encodeURIComponent(item)}`, script.src);
    if (theme || only) address.searchParams.set('theme', theme || only);
    const frame = Object.assign(document.createElement('iframe'), { src: address, title: `Usage of ${item}`, height: 420 });
    Object.assign(frame.style, { display: 'block', width: '100%', border: '0' });
    addEventListener('message', ({ source, data }) => {
      if (source === frame.contentWindow && data?.metronome === 'height') frame.height = data.height;
    });
    into ? place.append(frame) : place.after(frame);
  };

  document.readyState === 'loading' ? document.addEventListener('DOMContentLoaded', show) : show();
})();
