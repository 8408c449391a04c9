// Works without: every control is a link or a form. This adds values on hover, arrow keys in the chart, navigation
// that keeps the place on the page, the live part, copy buttons and the theme.
const root = document.documentElement;
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

// Before the first paint: the script is loaded without `defer`.
const readTheme = () => { try { return localStorage.getItem('metronome-theme') || ''; } catch { return ''; } };
const setTheme = (theme) => theme ? root.setAttribute('data-theme', theme) : root.removeAttribute('data-theme');
setTheme(readTheme());
