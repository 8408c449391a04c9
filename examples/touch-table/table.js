// The touch table: a session starts with the first touch, and ends with the button or after a time without touches.
import { Session } from './microticks.js';

const MINERALS = [
  { id: 'amethyst', name: 'Amethyst', colours: ['#c9a6ff', '#7b3fc4', '#3d1674'], found: 'Zillertal, 1874',
    text: 'Quartz that iron and natural radiation have turned violet. In sunlight it slowly fades.' },
  { id: 'pyrite', name: 'Pyrite', colours: ['#fff0ad', '#c9a227', '#6e5410'], found: 'Navajún, 1962',
    text: 'Fool’s gold: iron and sulphur, grown into cubes so even that they look cut.' },
  { id: 'fluorite', name: 'Fluorite', colours: ['#b8f2dc', '#2fa37c', '#0e5a45'], found: 'Göschenen, 1920',
    text: 'It glows under ultraviolet light, and gave its name to fluorescence.' },
  { id: 'sulphur', name: 'Sulphur', colours: ['#fdffb3', '#dcc918', '#8d7e05'], found: 'Agrigento, 1851',
    text: 'Grown from volcanic gas. The warmth of a hand is enough to make a crystal crackle.' },
  { id: 'azurite', name: 'Azurite', colours: ['#a8d0ff', '#2867d6', '#0c2f7a'], found: 'Chessy, 1846',
    text: 'Copper that water has turned blue: for centuries the painters’ sky.' },
  { id: 'garnet', name: 'Garnet', colours: ['#ffb3b3', '#b3243a', '#590c1b'], found: 'Ötztal, 1903',
    text: 'Twelve faces, each a diamond. It grows deep down, where mountains are pressed together.' },
];
const SHAPE = [
  ['50,4 86,30 50,38', 0], ['50,4 14,30 50,38', 1], ['14,30 50,38 38,78', 1], ['86,30 50,38 62,78', 1],
  ['50,38 38,78 62,78', 0], ['14,30 38,78 20,70', 2], ['86,30 62,78 80,70', 2], ['20,70 38,78 50,97', 2],
  ['80,70 62,78 50,97', 2], ['38,78 62,78 50,97', 1],
];

const setup = await (await fetch('setup.json')).json();
const overview = document.querySelector('#overview'), detail = document.querySelector('#detail');
const hint = document.querySelector('#hint'), done = document.querySelector('#done'), description = document.querySelector('#description');
let session, shown, idle;

// Reports an action, and starts a session if there is none.
const act = (action, data) => {
  if (!session) {
    session = new Session(setup.metronome, setup.key);
    done.hidden = false;
  }
  clearTimeout(idle);
  idle = setTimeout(leave, setup.idleSeconds * 1000);
  if (action) session.track(action, data);
};

const leave = () => {
  clearTimeout(idle);
  const ended = session;
  session = undefined;
  close();
  done.hidden = true;
  description.hidden = true;
  ended?.stop();
};

const open = (mineral) => {
  shown = mineral;
  act('view', { id: mineral.id });
  detail.querySelector('h2').textContent = mineral.name;
  detail.querySelector('.found').textContent = mineral.found;
  detail.querySelector('.text').textContent = mineral.text;
  detail.querySelector('.crystal').replaceChildren(crystal(mineral));
  description.hidden = true;
  overview.hidden = true;
  detail.hidden = false;
  hint.textContent = '';
};

const close = () => {
  shown = undefined;
  detail.hidden = true;
  overview.hidden = false;
  hint.textContent = 'Touch a stone';
};

const crystal = ({ colours }) => {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 100 100');
  svg.setAttribute('aria-hidden', 'true');
  for (const [points, shade] of SHAPE) {
    const face = document.createElementNS('http://www.w3.org/2000/svg', 'polygon');
    face.setAttribute('points', points);
    face.setAttribute('fill', colours[shade]);
    svg.append(face);
  }
  return svg;
};

for (const mineral of MINERALS) {
  const tile = Object.assign(document.createElement('button'), { className: 'tile', type: 'button' });
  const name = Object.assign(document.createElement('span'), { textContent: mineral.name });
  tile.dataset.id = mineral.id;
  tile.append(crystal(mineral), name);
  tile.addEventListener('click', () => open(mineral));
  overview.append(tile);
}

// The list of sessions counts clicks.
addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button || button === done) return;
  act('click', { id: button.dataset.id || shown?.id, target: button.dataset.target || 'tile', x: event.clientX, y: event.clientY });
}, true);
document.querySelector('#back').addEventListener('click', close);
document.querySelector('#more').addEventListener('click', () => { description.hidden = !description.hidden; });
done.addEventListener('click', leave);
addEventListener('contextmenu', (event) => event.preventDefault());
