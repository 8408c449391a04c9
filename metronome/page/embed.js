// Tells the embedding page how high the content is, and reads new numbers while they can be seen.
const REFRESH_MS = 10_000;

const tellHeight = () => {
  const height = Math.ceil(document.querySelector('main').getBoundingClientRect().height);
  parent.postMessage({ metronome: 'height', height }, '*');
};

const refresh = async () => {
  if (document.hidden) return;
  try {
    const response = await fetch(location.href);
    const read = new DOMParser().parseFromString(await response.text(), 'text/html');
    // If Metronome is unavailable, the last numbers stay.
    if (response.ok) document.querySelector('main').replaceChildren(...read.querySelector('main').childNodes);
  } catch { /* The next attempt is in ten seconds. */ }
};

new ResizeObserver(tellHeight).observe(document.querySelector('main'));
document.addEventListener('visibilitychange', refresh);
setInterval(refresh, REFRESH_MS);
