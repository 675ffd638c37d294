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
  group.append(make('path', { class: 'ring', d: node.ring }));
  if (node.members) group.append(make('path', { class: 'double', d: node.inner, fill: 'none', stroke: node.stroke }));
  group.append(make('path', { d: node.d, fill: node.fill, stroke: node.stroke, 'stroke-width': 1.6 }),
    make('text', { fill: node.ink, 'font-size': node.box ? 12.5 : 10.5 }, node.label), make('title', {}, node.t));
  if (node.mark) group.append(make('text', { class: 'mark', x: node.w / 2 + 5, y: -node.h / 2 - 3, 'font-size': 9 }, node.mark));
  return group;
}

function drawLine(line) {
  const path = make('path', { class: `line ${line.r}`, d: line.d, stroke: line.c, 'stroke-width': line.w,
    'data-a': line.a, 'data-b': line.b });
  if (line.p) { path.setAttribute('stroke-dasharray', line.p); path.classList.add('broken'); }
  path.append(make('title', {}, line.t));
  return path;
}

function drawText([x, y, text, size, fill, anchor, angle]) {
  const label = make('text', { x, y, 'font-size': size, fill, style: `text-anchor:${anchor}` }, text);
  if (angle) label.setAttribute('transform', `rotate(${angle} ${x} ${y})`);
  return label;
}

// Lists of a changed drawing are parts: `[first, count]` of the old list, or an item that it did not have.
function change(graph, parts) {
  const changed = {};
  for (const name in parts) changed[name] = !Array.isArray(parts[name]) ? parts[name]
    : parts[name].flatMap((part) => Array.isArray(part) ? graph[name].slice(part[0], part[0] + part[1]) : [part.item]);
  return changed;
}

// What is the same as before stays in the page: one edge fewer does not build a thousand others anew.
function reconcile(layer, items, name, draw) {
  const known = layer.kept || new Map(), kept = new Map(), wanted = [];
  for (const item of items) {
    let key = name(item);
    while (kept.has(key)) key += "'";
    const old = known.get(key);
    const same = old && (old.item === item || JSON.stringify(old.item) === JSON.stringify(item));
    kept.set(key, { item, element: same ? old.element : draw(item) });
    wanted.push(kept.get(key).element);
  }
  for (const [key, { element }] of known) if (kept.get(key)?.element !== element) element.remove();
  let next = layer.firstChild;
  for (const element of wanted) if (element === next) next = next.nextSibling; else layer.insertBefore(element, next);
  layer.kept = kept;
}

function drawWorld(world, graph) {
  if (!world.firstChild) for (const name of ['bands', 'lines', 'lit', 'nodes', 'texts']) world.append(make('g', { class: name }));
  const [bands, lines, , nodes, texts] = world.children;
  reconcile(bands, graph.bands, String, ([x, y, width, height, fill]) => make('rect', { x, y, width, height, fill }));
  reconcile(lines, graph.lines, (line) => `${line.a} ${line.b} ${line.r}`, drawLine);
  reconcile(nodes, graph.nodes, (node) => node.id, drawNode);
  reconcile(texts, graph.texts, String, drawText);
}

function drawLegend(legend, rows) {
  legend.replaceChildren(...rows.map((row) => {
    const entry = document.createElement('span');
    const mark = make('svg', { width: 22, height: 16, viewBox: '-11 -8 22 16' });
    if (row.line) mark.append(make('path', { d: 'M-10 0h20', stroke: row.fill, 'stroke-width': 3,
      'stroke-dasharray': row.dash || 'none' }));
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

// Keys of the graph: what they do, in words, and the action that they send.
const KEYS = [['Arrow keys', 'to the next node'], ['Home, End', 'to the first and last node'],
  ['Enter', 'select: the panel beside the graph tells about it'], ['p', 'pin or unpin (also Ctrl-click)'],
  ['g', 'make a supernode of the pinned nodes and this one'], ['u', 'take a supernode apart'], ['r', 'rename'],
  ['n', 'write a note'], ['h', 'hide'], ['o', 'draw pinned nodes and supernodes alone'], ['Ctrl-Z', 'undo'],
  ['Ctrl-Shift-Z', 'redo'], ['/', 'search'], ['+ − 0', 'zoom in, out, fit'], ['?', 'these keys'],
  ['Escape', 'close what is open']];
const LETTERS = { p: 'pin', g: 'group', u: 'split', r: 'rename', n: 'annotate', h: 'hide', o: 'isolate' };
const QUESTIONS = { group: ['Name of the supernode', 60], rename: ['Name', 60], annotate: ['Note', 500] };
// Below so many screen pixels to one of the picture's own no dash is drawn.
const MOST_FOUND = 8, FAR = 0.3;

function writeKeys(region) {
  const list = document.createElement('dl');
  for (const [keys, words] of KEYS) {
    const term = document.createElement('dt'), text = document.createElement('dd');
    term.textContent = keys; text.textContent = words; list.append(term, text);
  }
  region.replaceChildren(list);
}

// Lines by the nodes that they join, so that lighting up a neighbourhood touches nothing else.
function indexLines(world) {
  const joined = new Map();
  for (const line of world.querySelectorAll('.lines .line')) for (const end of [line.dataset.a, line.dataset.b]) {
    if (!joined.has(end)) joined.set(end, []);
    joined.get(end).push(line);
  }
  return joined;
}

export default function (component) {
  const { parentElement: root, data, setStateValue } = component;
  const frame = root.querySelector('.graph'), svg = root.querySelector('.picture'), world = root.querySelector('.world');
  const status = root.querySelector('.state'), search = root.querySelector('.search'), found = root.querySelector('.found');
  const ask = root.querySelector('.ask'), keys = root.querySelector('.keys');
  // The drawing comes once; later only its hash does, or what changed. One that cannot be made of it is asked for.
  const drawn = svg.dataset.sign === data.sign, follows = data.change && svg.dataset.sign === data.base;
  if (!drawn && !data.graph && !follows) component.setTriggerValue('missing', data.sign);
  const graph = (!drawn && (data.graph || (follows && change(svg.graph, data.change)))) || svg.graph;
  if (!graph) return () => {};
  const box = svg.view || (svg.view = { x: 0, y: 0, width: graph.width, height: graph.height, run: '' });
  // What was done here and is yet to be taken up: the page replays entries that it has not seen.
  const log = svg.log || (svg.log = { page: Math.random().toString(36).slice(2), entries: [], last: 0 });
  // Thousands of dashes too small to be told apart take seconds to paint.
  const show = () => {
    svg.setAttribute('viewBox', `${box.x} ${box.y} ${box.width} ${box.height}`);
    svg.classList.toggle('far', (svg.clientWidth || FAR * box.width) < FAR * box.width);
  };
  const fit = () => { Object.assign(box, { x: 0, y: 0, width: graph.width, height: graph.height }); show(); };
  const zoom = (factor, cx = box.x + box.width / 2, cy = box.y + box.height / 2) => {
    const bounded = Math.min(Math.max(box.width * factor, 120), graph.width * 3) / box.width;
    box.x = cx - (cx - box.x) * bounded; box.y = cy - (cy - box.y) * bounded;
    box.width *= bounded; box.height *= bounded; box.touched = true; show();
  };
  svg.style.aspectRatio = `${graph.width} / ${graph.height}`;
  svg.style.maxHeight = `${data.height}px`;
  if (graph !== svg.graph) {
    svg.graph = graph;
    const focused = root.activeElement?.dataset?.id, place = root.activeElement?.at;
    drawWorld(world, graph);
    drawLegend(root.querySelector('.legend'), graph.legend);
    svg.setAttribute('aria-label', `Circuit graph. ${graph.caption}`);
    svg.dataset.sign = data.sign;
    svg.joined = indexLines(world);
    const places = new Map(graph.nodes.map((node) => [node.id, node]));
    svg.nodes = [...world.querySelectorAll('.node:not(.fixed)')];
    for (const node of svg.nodes) node.at = places.get(node.dataset.id);
    svg.byId = new Map([...world.querySelectorAll('.node')].map((node) => [node.dataset.id, node]));
    svg.lit ||= [];
    if (focused) {
      const nearest = place && svg.nodes.reduce((best, node) => {
        const distance = Math.hypot(node.at.x - place.x, node.at.y - place.y);
        return !best || distance < best[1] ? [node, distance] : best;
      }, null);
      if (root.activeElement?.dataset?.id !== focused) (svg.byId.get(focused) || nearest?.[0])?.focus({ preventScroll: true });
    }
    if (box.run !== data.run || !box.touched) fit();
  }
  box.run = data.run;

  const { nodes, joined, byId } = svg;
  const reach = (node) => { svg.reached?.setAttribute('tabindex', '-1'); node?.setAttribute('tabindex', '0'); svg.reached = node; };
  const upToDate = !data.applied || data.applied.page !== log.page || data.applied.last >= log.last;
  if (upToDate || !svg.pinned) svg.pinned = new Set(data.pinned || []);
  const pinned = svg.pinned;
  const mark = (chosen) => {
    for (const node of nodes) {
      const id = node.dataset.id;
      node.classList.toggle('chosen', id === chosen);
      node.classList.toggle('pinned', pinned.has(id));
      const pressed = String(id === chosen || pinned.has(id));
      if (node.getAttribute('aria-pressed') !== pressed) node.setAttribute('aria-pressed', pressed);
    }
    reach(byId.get(chosen) || (svg.reached?.isConnected && svg.reached) || nodes[0]);
  };
  mark(data.selected);

  // Lit lines are drawn again above the pale layer of all: no line of thousands is painted anew.
  const light = (ids, around = true) => {
    svg.classList.toggle('dim', ids.size > 0);
    svg.lit.forEach((element) => element.classList.remove('near'));
    const found = new Set(), above = new Set();
    for (const id of ids) {
      if (byId.has(id)) found.add(byId.get(id));
      for (const line of (around && joined.get(id)) || []) {
        above.add(line);
        for (const end of [line.dataset.a, line.dataset.b]) if (byId.has(end)) found.add(byId.get(end));
      }
    }
    svg.lit = [...found];
    svg.lit.forEach((element) => element.classList.add('near'));
    world.querySelector('.lit').replaceChildren(...[...above].map((line) => line.cloneNode(true)));
  };
  const rest = () => light(new Set([...pinned].filter((id) => byId.has(id))));
  rest();

  const send = (kind, ids = [], text = '') => {
    log.last += 1;
    log.entries = [...log.entries, { n: log.last, kind, nodes: ids, text }].slice(-100);
    setStateValue('log', { page: log.page, entries: log.entries });
  };
  const say = (text) => { status.textContent = text; };
  const current = () => {
    const owner = root.activeElement?.closest?.('.node:not(.fixed)');
    return owner || byId.get(data.selected) || null;
  };
  const select = (node) => {
    data.selected = node.dataset.id;
    mark(data.selected);
    say(`Selected ${node.getAttribute('aria-label')}`);
    setStateValue('selected', data.selected);
  };
  const pin = (node) => {
    const id = node.dataset.id;
    if (pinned.has(id)) pinned.delete(id); else pinned.add(id);
    mark(data.selected); rest();
    say(`${pinned.has(id) ? 'Pinned' : 'Unpinned'} ${id}`);
    send('pin', [id]);
  };
  const openAsk = (kind, node) => {
    const id = node?.dataset.id || '';
    const [question, longest] = QUESTIONS[kind];
    ask.querySelector('.question').textContent = question;
    const answer = ask.querySelector('.answer');
    answer.maxLength = longest;
    answer.value = kind === 'group' ? '' : (kind === 'rename' ? data.names : data.notes)?.[id] || '';
    ask.hidden = false;
    answer.focus();
    ask.task = { kind, id };
  };
  const closeAsk = () => { const id = ask.task?.id; ask.hidden = true; ask.task = null; (byId.get(id) || svg.reached)?.focus(); };
  const help = () => {
    const button = root.querySelector('[data-do=help]');
    keys.hidden = !keys.hidden;
    button.setAttribute('aria-expanded', String(!keys.hidden));
    if (!keys.hidden) keys.focus(); else (svg.reached || button).focus();
  };
  const perform = (kind) => {
    const node = current();
    if (kind === 'help') { help(); return; }
    if (kind === 'undo' || kind === 'redo' || kind === 'show' || kind === 'isolate') { say(kind); send(kind); return; }
    if (kind === 'group') {
      const chosen = new Set([...pinned, ...(node ? [node.dataset.id] : [])]);
      if (chosen.size < 2) { say('Pin the nodes to group first: a supernode has at least two'); return; }
    } else if (!node) { say('Select a node first'); return; }
    if (kind === 'pin') pin(node);
    else if (QUESTIONS[kind]) openAsk(kind, node);
    else { say(`${kind} ${node.dataset.id}`); send(kind, [node.dataset.id]); }
  };
  ask.onsubmit = (event) => {
    event.preventDefault();
    const { kind, id } = ask.task;
    send(kind, id ? [id] : [], ask.querySelector('.answer').value);
    closeAsk();
  };
  ask.querySelector('.leave').onclick = closeAsk;

  // Search: nodes that are drawn light up as one types; others of the circuit are named with the edges they need.
  const closeSearch = () => { found.hidden = true; found.replaceChildren(); svg.classList.remove('searching'); rest(); };
  const reveal = (entry) => {
    search.value = ''; closeSearch();
    const node = byId.get(entry.id);
    if (node) { reach(node); node.focus(); select(node); } else { data.selected = entry.id; send('reveal', [entry.id]); }
  };
  const look = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) { closeSearch(); return; }
    const fits = (text) => words.every((word) => text.toLowerCase().includes(word));
    const drawn = nodes.filter((node) => fits(`${node.dataset.id} ${node.at.label} ${node.at.t}`));
    const others = (data.others || []).filter(([id, text]) => fits(`${id} ${text}`));
    light(new Set(drawn.map((node) => node.dataset.id)), false);
    svg.classList.add('dim');
    const entries = [...drawn.map((node) => ({ id: node.dataset.id, text: node.getAttribute('aria-label') })),
      ...others.map(([id, text, why]) => ({ id, text: `${id}: ${text} (${why})` }))];
    found.replaceChildren(...entries.slice(0, MOST_FOUND).map((entry) => {
      const item = document.createElement('li'), button = document.createElement('button');
      button.type = 'button'; button.textContent = entry.text; button.onclick = () => reveal(entry);
      item.append(button);
      return item;
    }));
    found.hidden = !entries.length;
    found.first = entries[0];
    say(`${drawn.length} of the nodes drawn fit, ${others.length} of those that are not`);
  };
  search.oninput = look;
  const walkFound = (event) => {
    const buttons = [...found.querySelectorAll('button')];
    const at = buttons.indexOf(root.activeElement), step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !buttons.length) return false;
    if (at + step < 0) search.focus(); else buttons[Math.min(at + step, buttons.length - 1)].focus();
    return true;
  };

  let start = null, moved = false;
  const owner = (event) => event.target.closest?.('.node');
  const pickable = (event) => { const node = owner(event); return node && !node.classList.contains('fixed') ? node : null; };
  svg.onclick = (event) => { const node = pickable(event);
    if (!node || moved) return;
    if (data.curated && (event.ctrlKey || event.metaKey || event.shiftKey)) pin(node); else select(node); };
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
    zoom(event.deltaY > 0 ? 1.15 : 1 / 1.15, point.x, point.y);
  };
  svg.addEventListener('wheel', wheel, { passive: false });

  // Keys that are handled go no further: Streamlit has letters of its own.
  const press = (event) => {
    const typing = event.target.matches?.('input'), node = pickable(event), command = event.ctrlKey || event.metaKey;
    if (event.key === 'Escape') {
      if (!ask.hidden) closeAsk(); else if (!keys.hidden) help();
      else if (search.value || !found.hidden) { search.value = ''; closeSearch(); svg.reached?.focus(); } else return false;
      return true;
    }
    if (typing && event.target === search) {
      if (event.key === 'Enter') { if (!found.hidden) reveal(found.first); return true; }
      return walkFound(event);
    }
    if (typing) return false;
    if (event.target.closest?.('.found') && walkFound(event)) return true;
    if (data.curated && command && event.key.toLowerCase() === 'z') { perform(event.shiftKey ? 'redo' : 'undo'); return true; }
    if (data.curated && command && event.key.toLowerCase() === 'y') { perform('redo'); return true; }
    if (command && event.key !== 'Enter' && event.key !== ' ') return false;
    if (data.curated && event.key === '/') { search.focus(); return true; }
    if (data.curated && event.key === '?') { help(); return true; }
    if (event.key === '+' || event.key === '=') { zoom(1 / 1.3); return true; }
    if (event.key === '-') { zoom(1.3); return true; }
    if (event.key === '0') { box.touched = false; fit(); return true; }
    if (!node) return false;
    if (event.key === 'Enter' || event.key === ' ') {
      if (data.curated && (command || event.shiftKey)) pin(node); else select(node);
      return true;
    }
    if (data.curated && !event.altKey && LETTERS[event.key.toLowerCase()]) { perform(LETTERS[event.key.toLowerCase()]); return true; }
    const next = nextNode(nodes, node, event.key);
    if (next) { reach(next); next.focus({ preventScroll: false }); }
    return Boolean(next);
  };
  frame.onkeydown = (event) => {
    const inside = event.target.matches?.('input');
    if (press(event)) event.preventDefault();
    else if (!inside) return;
    event.stopPropagation();
  };

  root.querySelector('.tools').hidden = !data.curated;
  root.querySelector('.hint').textContent = data.curated
    ? 'Click a node, or move with the arrow keys and press Enter. Ctrl-click or p pins, g groups, h hides, / searches, ? lists all keys. Drag moves the picture; Ctrl and the wheel zoom.'
    : 'Click a node, or move with the arrow keys and press Enter. Drag moves the picture; Ctrl and the wheel zoom.';
  if (!keys.firstChild) writeKeys(keys);
  const state = { undo: data.undo, redo: data.redo, show: data.hidden };
  for (const button of root.querySelectorAll('[data-do]')) {
    const kind = button.dataset.do;
    if (kind in state) button.disabled = !state[kind];
    if (kind === 'isolate') button.setAttribute('aria-pressed', String(Boolean(data.alone)));
    button.onclick = () => perform(kind);
  }
  for (const button of root.querySelectorAll('[data-zoom]')) button.onclick = () => {
    if (button.dataset.zoom === 'fit') { box.touched = false; fit(); } else zoom(button.dataset.zoom === 'in' ? 1 / 1.3 : 1.3);
  };
  return () => {
    svg.removeEventListener('wheel', wheel);
    svg.removeEventListener('focusin', svg.onfocusin);
    svg.removeEventListener('focusout', svg.onfocusout);
    frame.onkeydown = null;
    for (const name of ['click', 'pointerover', 'pointerout', 'pointerdown', 'pointermove', 'pointerup',
      'pointercancel']) svg[`on${name}`] = null;
  };
}
