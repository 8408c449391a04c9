// Shows an item's views and downloads where the tag stands: `<script src="…/usage.js" data-id="rivers" async></script>`.
(() => {
  const script = document.currentScript || document.querySelector('script[src*="usage.js"]');
  const { id, into, theme } = script.dataset;
  const item = id ?? document.querySelector('meta[name=metronome-id]')?.content;
  if (!item) return console.warn('usage.js: name the item, as in data-id="rivers"');
  const address = new URL(`embed/${encodeURIComponent(item)}`, script.src);
  if (theme) address.searchParams.set('theme', theme);
  const frame = Object.assign(document.createElement('iframe'), { src: address, title: `Usage of ${item}`, height: 420 });
  Object.assign(frame.style, { display: 'block', width: '100%', border: '0' });
  addEventListener('message', ({ source, data }) => {
    if (source === frame.contentWindow && data?.metronome === 'height') frame.height = data.height;
  });
  const place = () => into ? document.querySelector(into)?.append(frame) : script.after(frame);
  into && document.readyState === 'loading' ? document.addEventListener('DOMContentLoaded', place) : place();
})();
