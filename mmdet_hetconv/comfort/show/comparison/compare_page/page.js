'use strict';

const data = JSON.parse(document.getElementById('data').textContent);
const list = document.getElementById('images');
const score = document.getElementById('score');
const order = document.getElementById('order');
const SVG = 'http://www.w3.org/2000/svg';
// Pixels on the screen, about: of a third and of half a wide window, and of
// the letters of a label.
const SHOWN_WIDTH = { beside: 440, slider: 560 };
const LABEL = 13;
// Width of a bold letter over its height, generously.
const LETTER = 0.66;

function make(kind, attributes = {}, ...children) {
  const element = document.createElement(kind);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function draw(kind, attributes) {
  const element = document.createElementNS(SVG, kind);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, value);
  }
  return element;
}

function view() {
  return document.forms.tools.elements.view.value;
}

function hue(label) {
  return Math.round(label * 137.5 + 210) % 360;
}

// What is drawn of one image at the chosen score: label, box, text.
function visible(image, who) {
  if (who === 'truth') {
    return (image.truth || []).map(
      ([label, ...box]) => ({ label, box, text: data.classes[label] }));
  }
  return image.found[who]
    .filter((entry) => entry[5] >= data.thresholds[score.value])
    .map(([label, x, y, w, h, value]) => ({
      label,
      box: [x, y, w, h],
      text: `${data.classes[label]} ${value.toFixed(2)}`,
    }));
}

function describe(title, entries) {
  const texts = entries.map((entry) => entry.text).join(', ');
  return `${title}: ${texts || 'nothing'}`;
}

// A label's place, moved down until it covers none before it.
function free(taken, tag) {
  const covered = taken.find((other) =>
    tag.x < other.x + other.width && other.x < tag.x + tag.width &&
    tag.y < other.y + other.height && other.y < tag.y + tag.height);
  return covered
    ? free(taken, { ...tag, y: covered.y + covered.height }) : tag;
}

// Boxes over a picture, in the picture's own pixels.
function overlay(image, who, title) {
  const entries = visible(image, who);
  const [width, height] = image.size;
  const svg = draw('svg', {
    viewBox: `0 0 ${width} ${height}`,
    role: 'img',
    'aria-label': describe(title, entries),
    'data-boxes': entries.length,
  });
  const size = (width * LABEL) / SHOWN_WIDTH[view()];
  const high = size * 1.3;
  const taken = [];
  const tags = [];
  for (const { label, box: [x, y, w, h], text } of entries) {
    const place = { x, y, width: Math.max(0, w), height: Math.max(0, h) };
    const kind = who === 'truth' ? 'box truth' : 'box';
    svg.append(
      draw('rect', { ...place, class: 'case' }),
      draw('rect', {
        ...place, class: kind, stroke: `hsl(${hue(label)} 90% 40%)`,
      }),
    );
    const long = (text.length * LETTER + 0.4) * size;
    const tag = free(taken, {
      x: Math.max(0, Math.min(x, width - long)),
      y: Math.max(0, y - high),
      width: long,
      height: high,
    });
    taken.push(tag);
    const back = draw('rect', { ...tag, class: 'tag' });
    back.style.fill = `hsl(${hue(label)} 65% 26%)`;
    const words = draw('text', {
      x: tag.x + size * 0.2, y: tag.y + size, 'font-size': size,
    });
    words.textContent = text;
    tags.push(back, words);
  }
  svg.append(...tags);
  return svg;
}

function picture(image, ...layers) {
  const box = make('div', { class: 'picture' });
  box.style.aspectRatio = `${image.size[0]} / ${image.size[1]}`;
  box.append(make('img', { src: image.address, alt: '' }), ...layers);
  return box;
}

function figure(image, who, title) {
  return make(
    'figure', {}, picture(image, overlay(image, who, title)),
    make('figcaption', {}, title),
  );
}

// A on the left of a line, B on the right of it.
function slider(image) {
  const [left, right] = data.sides.map(
    (title, who) => overlay(image, who, title));
  const divider = make('div', { class: 'divider' });
  const box = picture(image, left, right, divider);
  box.classList.add('slide');
  const range = make('input', {
    type: 'range', min: 0, max: 100, value: image.divided,
    'aria-label': `${image.name}: how much shows ${data.sides[0]}`,
  });
  const move = () => {
    image.divided = range.value;
    left.style.clipPath = `inset(0 ${100 - range.value}% 0 0)`;
    right.style.clipPath = `inset(0 0 0 ${range.value}%)`;
    divider.style.left = `${range.value}%`;
    range.setAttribute('aria-valuetext', `${range.value} %`);
  };
  const drag = (event) => {
    if (event.buttons) {
      const place = box.getBoundingClientRect();
      range.value = (100 * (event.clientX - place.left)) / place.width;
      move();
    }
  };
  box.addEventListener('pointerdown', drag);
  box.addEventListener('pointermove', drag);
  box.addEventListener('dragstart', (event) => event.preventDefault());
  range.addEventListener('input', move);
  move();
  return make(
    'figure', {}, box, range,
    make('figcaption', {},
      `left ${data.sides[0]}, right ${data.sides[1]}`),
  );
}

function fill(image) {
  if (!image.address) {
    const bytes = Uint8Array.from(
      atob(image.jpeg), (letter) => letter.charCodeAt(0));
    image.address = URL.createObjectURL(
      new Blob([bytes], { type: 'image/jpeg' }));
  }
  const figures = image.truth
    ? [figure(image, 'truth', 'Ground truth')] : [];
  if (view() === 'slider') {
    figures.push(slider(image));
  } else {
    figures.push(...data.sides.map(
      (title, who) => figure(image, who, title)));
  }
  image.views.className = `views ${['one', 'two', ''][figures.length - 1]}`;
  image.views.replaceChildren(...figures);
}

function state(image) {
  const [a, b] = [0, 1].map((who) => visible(image, who).length);
  const truth = image.truth ? `, ground truth ${image.truth.length}` : '';
  const value = image.disagreement[score.value].toFixed(2);
  image.facts.textContent =
    `disagreement ${value}; boxes: A ${a}, B ${b}${truth}`;
}

function show() {
  const text = data.thresholds[score.value].toFixed(2);
  document.getElementById('score-text').textContent = text;
  score.setAttribute('aria-valuetext', text);
  for (const image of data.images) {
    state(image);
    if (image.near) fill(image);
  }
}

function sort() {
  const at = score.value;
  const by = {
    most: (a, b) => b.disagreement[at] - a.disagreement[at],
    least: (a, b) => a.disagreement[at] - b.disagreement[at],
    name: (a, b) => (a.name < b.name ? -1 : 1),
  }[order.value];
  data.images.sort((a, b) => by(a, b) || (a.name < b.name ? -1 : 1));
  list.append(...data.images.map((image) => image.item));
  const mean = data.images.reduce(
    (sum, image) => sum + image.disagreement[at], 0) / data.images.length;
  document.getElementById('status').textContent =
    `${data.images.length} images, mean disagreement ${mean.toFixed(2)} ` +
    `at scores of at least ${data.thresholds[at].toFixed(2)}.`;
}

// A picture is decoded and drawn when it is about to be seen.
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const image = target.image;
    image.near = isIntersecting;
    if (isIntersecting) fill(image);
  }
}, { rootMargin: '800px' });

for (const image of data.images) {
  image.divided = 50;
  image.facts = make('p', { class: 'facts' });
  image.views = make('div', { class: 'views' });
  // As tall as it is going to be, so that the page does not jump.
  image.views.style.minHeight =
    `${(SHOWN_WIDTH.beside * image.size[1]) / image.size[0]}px`;
  image.item = make(
    'li', {}, make('h3', {}, image.name), image.facts, image.views);
  image.item.image = image;
}
score.min = 0;
score.max = data.thresholds.length - 1;
score.value = data.start;
score.addEventListener('input', show);
score.addEventListener('change', sort);
order.addEventListener('change', sort);
document.forms.tools.addEventListener('submit', (e) => e.preventDefault());
for (const radio of document.forms.tools.elements.view) {
  radio.addEventListener('change', show);
}
show();
sort();
for (const image of data.images) watcher.observe(image.item);
