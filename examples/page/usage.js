// Shows the item's tock: views, downloads and referrers.
const server = document.currentScript.dataset.metronome;
const item = document.querySelector('meta[name=metronome-id]').content;
const DAYS = 28, DAY_MS = 864e5;

const show = async () => {
  const response = await fetch(`${server}/tock/${encodeURIComponent(item)}.json`);
  if (!response.ok) return;
  const { views, downloads, referers } = await response.json();
  const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);
  document.querySelector('#views').textContent = sum(views).toLocaleString('en');
  document.querySelector('#downloads').textContent = sum(downloads).toLocaleString('en');
  list('#formats', downloads, 'none yet');
  list('#referers', referers, 'no other site yet');
  plot(views);
};

const list = (selector, counts, placeholder) => {
  const rows = Object.entries(counts).slice(0, 5).map(([name, count]) => row(name, count.toLocaleString('en')));
  document.querySelector(selector).replaceChildren(...rows.length ? rows : [row(placeholder, '')]);
};

const row = (...texts) => {
  const line = document.createElement('li');
  line.append(...texts.map((text) => Object.assign(document.createElement('span'), { textContent: text })));
  return line;
};

const plot = (views) => {
  const days = Array.from({ length: DAYS }, (_, ago) =>
    new Date(Date.now() - (DAYS - 1 - ago) * DAY_MS).toISOString().slice(0, 10));
  const max = Math.max(1, ...days.map((day) => views[day] || 0));
  const bars = days.map((day, index) => {
    const bar = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
    const height = views[day] ? Math.max(3, 78 * views[day] / max) : 1;
    Object.entries({ x: index * 10 + 1, y: 80 - height, width: 8, height, rx: 1, class: views[day] ? 'some' : 'none' })
      .forEach(([name, value]) => bar.setAttribute(name, value));
    const tooltip = document.createElementNS('http://www.w3.org/2000/svg', 'title');
    tooltip.textContent = `${day}: ${views[day] || 0}`;
    bar.append(tooltip);
    return bar;
  });
  document.querySelector('#days').replaceChildren(...bars);
};

// If Metronome is unavailable, the last numbers stay.
const update = () => show().catch(() => {});
update();
setInterval(update, 3000);
