// Draws a circuit from data alone: text is set with textContent, attributes with setAttribute, never as markup.
const SVG = 'http://www.w3.org/2000/svg';

function make(name, attributes = {}, text) {
  const element = document.createElementNS(SVG, name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  if (text !== undefined) element.textContent = text;
  return element;
}

function drawNode(node) {
  const group = make('g', { class: node.fixed ? 'node fixed' : 'node', 'data-id': node.id,
    transform: `translate(${node.x} ${node.y})` });
  if (node.fixed) group.setAttribute('role', 'img');
  else { group.setAttribute('role', 'button'); group.setAttribute('tabindex', '-1'); }
  group.setAttribute('aria-label', node.fixed ? node.t : `${node.id}: ${node.t}`);
  group.append(make('path', { class: 'ring', d: node.ring }),
    make('path', { d: node.d, fill: node.fill, stroke: node.stroke, 'stroke-width': 1.6 }),
    make('text', { fill: node.ink, 'font-size': node.box ? 12.5 : 10.5 }, node.label), make('title', {}, node.t));
  return group;
}

function drawWorld(world, graph) {
  const pieces = document.createDocumentFragment();
  for (const [x, y, width, height, fill] of graph.bands) pieces.append(make('rect', { x, y, width, height, fill }));
  for (const line of graph.lines) {
    const path = make('path', { class: `line ${line.r}`, d: line.d, stroke: line.c, 'stroke-width': line.w,
      'data-a': line.a, 'data-b': line.b });
    path.append(make('title', {}, line.t));
    pieces.append(path);
  }
  for (const node of graph.nodes) pieces.append(drawNode(node));
  for (const [x, y, text, size, fill, anchor, angle] of graph.texts) {
    const label = make('text', { x, y, 'font-size': size, fill, style: `text-anchor:${anchor}` }, text);
    if (angle) label.setAttribute('transform', `rotate(${angle} ${x} ${y})`);
    pieces.append(label);
  }
  world.replaceChildren(pieces);
}

function drawLegend(legend, rows) {
  legend.replaceChildren(...rows.map((row) => {
    const entry = document.createElement('span');
    const mark = make('svg', { width: 22, height: 16, viewBox: '-11 -8 22 16' });
    if (row.line) mark.append(make('path', { d: 'M-10 0h20', stroke: row.fill, 'stroke-width': 3,
      'stroke-dasharray': row.line === 'dash' ? '4 3' : 'none' }));
    else mark.append(make('path', { d: row.d, fill: row.fill, stroke: row.stroke, 'stroke-width': 0.8 }));
    entry.append(mark, document.createTextNode(row.text));
    return entry;
  }));
}

function nextNode(nodes, current, key) {
  // Left and right follow the row, then the reading order; up and down take the nearest node above or below.
  if (key === 'Home') return nodes[0];
  if (key === 'End') return nodes[nodes.length - 1];
  const here = current.at;
  const ahead = { ArrowRight: (p) => p.x - here.x, ArrowLeft: (p) => here.x - p.x,
    ArrowUp: (p) => here.y - p.y, ArrowDown: (p) => p.y - here.y }[key];
  if (!ahead) return null;
  const level = key === 'ArrowLeft' || key === 'ArrowRight';
  let best = null, cost = Infinity;
  for (const node of nodes) {
    const forward = ahead(node.at);
    if (node === current || forward < 1) continue;
    const aside = Math.abs(level ? node.at.y - here.y : node.at.x - here.x);
    if (forward + 3 * aside < cost) { best = node; cost = forward + 3 * aside; }
  }
  return best;
}

export default function (component) {
  const { parentElement: root, data, setStateValue } = component;
  const svg = root.querySelector('.picture'), world = root.querySelector('.world');
  const status = root.querySelector('.state');
  const graph = data.graph;
  const box = svg.view || (svg.view = { x: 0, y: 0, width: graph.width, height: graph.height, run: '' });
  const show = () => svg.setAttribute('viewBox', `${box.x} ${box.y} ${box.width} ${box.height}`);
  const fit = () => { Object.assign(box, { x: 0, y: 0, width: graph.width, height: graph.height }); show(); };
  const zoom = (factor, cx = box.x + box.width / 2, cy = box.y + box.height / 2) => {
    const bounded = Math.min(Math.max(box.width * factor, 120), graph.width * 3) / box.width;
    box.x = cx - (cx - box.x) * bounded; box.y = cy - (cy - box.y) * bounded;
    box.width *= bounded; box.height *= bounded; show();
  };
  const touched = box.run === data.run && box.touched;
  svg.style.aspectRatio = `${graph.width} / ${graph.height}`;
  svg.style.maxHeight = `${data.height}px`;
  if (svg.dataset.sign !== data.sign) {
    const focused = root.activeElement?.dataset?.id;
    drawWorld(world, graph);
    drawLegend(root.querySelector('.legend'), graph.legend);
    svg.setAttribute('aria-label', `Circuit graph. ${graph.caption}`);
    svg.dataset.sign = data.sign;
    if (focused) root.querySelector(`.node[data-id="${CSS.escape(focused)}"]`)?.focus();
    if (!touched) fit();
  }
  box.run = data.run;

  const nodes = [...world.querySelectorAll('.node:not(.fixed)')];
  const places = new Map(graph.nodes.map((node) => [node.id, node]));
  for (const node of nodes) node.at = places.get(node.dataset.id);
  const reach = (node) => { nodes.forEach((n) => n.setAttribute('tabindex', '-1')); node?.setAttribute('tabindex', '0'); };
  let pinned = new Set(data.pinned || []);
  const mark = (chosen) => {
    for (const node of nodes) {
      node.classList.toggle('chosen', node.dataset.id === chosen);
      node.classList.toggle('pinned', pinned.has(node.dataset.id));
      node.setAttribute('aria-pressed', String(node.dataset.id === chosen || pinned.has(node.dataset.id)));
    }
    reach(nodes.find((node) => node.dataset.id === chosen) || nodes[0]);
  };
  mark(data.selected);

  const light = (ids) => {
    svg.classList.toggle('dim', ids.size > 0);
    world.querySelectorAll('.near').forEach((element) => element.classList.remove('near'));
    if (!ids.size) return;
    const near = new Set(ids);
    world.querySelectorAll('.line').forEach((line) => {
      if (ids.has(line.dataset.a) || ids.has(line.dataset.b)) {
        line.classList.add('near'); near.add(line.dataset.a); near.add(line.dataset.b);
      }
    });
    world.querySelectorAll('.node').forEach((node) => near.has(node.dataset.id) && node.classList.add('near'));
  };
  const rest = () => light(new Set(pinned));
  rest();

  const pick = (node, pin) => {
    const id = node.dataset.id;
    if (pin) {
      if (pinned.has(id)) pinned.delete(id); else pinned.add(id);
      setStateValue('pinned', [...pinned]);
      mark(data.selected); rest();
      return;
    }
    data.selected = id;
    mark(id);
    status.textContent = `Selected ${node.getAttribute('aria-label')}`;
    setStateValue('selected', id);
  };
  let start = null, moved = false;
  const owner = (event) => event.target.closest?.('.node');
  svg.onclick = (event) => { const node = owner(event);
    if (node && !node.classList.contains('fixed') && !moved) pick(node, event.ctrlKey || event.metaKey || event.shiftKey); };
  svg.onpointerover = (event) => { const node = owner(event); if (node && !start) light(new Set([node.dataset.id])); };
  svg.onpointerout = (event) => { if (owner(event)) rest(); };
  svg.onfocusin = (event) => { const node = owner(event); if (node) light(new Set([node.dataset.id])); };
  svg.onfocusout = () => rest();
  svg.addEventListener('focusin', svg.onfocusin);
  svg.addEventListener('focusout', svg.onfocusout);
  svg.onpointerdown = (event) => { start = { x: event.clientX, y: event.clientY, bx: box.x, by: box.y }; moved = false; };
  svg.onpointermove = (event) => {
    if (!start) return;
    const dx = event.clientX - start.x, dy = event.clientY - start.y;
    if (!moved && Math.hypot(dx, dy) < 5) return;
    if (!moved) svg.setPointerCapture(event.pointerId);
    moved = true; box.touched = true; svg.classList.add('drag');
    const scale = 1 / (svg.getScreenCTM()?.a || 1);
    box.x = start.bx - dx * scale; box.y = start.by - dy * scale; show();
  };
  svg.onpointerup = svg.onpointercancel = () => { start = null; svg.classList.remove('drag'); };
  const wheel = (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    box.touched = true; zoom(event.deltaY > 0 ? 1.15 : 1 / 1.15, point.x, point.y);
  };
  svg.addEventListener('wheel', wheel, { passive: false });
  svg.onkeydown = (event) => {
    const node = owner(event);
    if (!node) return;
    if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault(); pick(node, event.ctrlKey || event.metaKey || event.shiftKey); return;
    }
    const next = nextNode(nodes, node, event.key);
    if (next) { event.preventDefault(); reach(next); next.focus({ preventScroll: false }); }
  };
  for (const button of root.querySelectorAll('[data-zoom]')) button.onclick = () => {
    if (button.dataset.zoom === 'fit') { box.touched = false; fit(); }
    else { box.touched = true; zoom(button.dataset.zoom === 'in' ? 1 / 1.3 : 1.3); }
  };
  return () => {
    svg.removeEventListener('wheel', wheel);
    svg.removeEventListener('focusin', svg.onfocusin);
    svg.removeEventListener('focusout', svg.onfocusout);
    for (const name of ['click', 'pointerover', 'pointerout', 'pointerdown', 'pointermove', 'pointerup',
      'pointercancel', 'keydown']) svg[`on${name}`] = null;
  };
}
