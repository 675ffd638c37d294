// Attention of a head as a table: a row for each position that reads, a column for what it attends to. Text only.
function make(name, text, attributes = {}) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  return element;
}

const NARROWEST = 11, LABELS = 96;

export default function ({ parentElement: root, data }) {
  const table = root.querySelector('table'), { rows, columns, weights, memories, reading } = data;
  root.querySelector('.attention').setAttribute('aria-label', data.title);
  table.style.minWidth = `${LABELS + NARROWEST * columns.length}px`;
  const head = make('tr'), widths = make('colgroup');
  widths.append(make('col', undefined, { style: `width:${LABELS}px` }));
  head.append(make('th', 'reads ↓, attends to →', { class: 'corner' }));
  for (const column of columns) {
    const cell = make('th', undefined, { scope: 'col', title: column });
    cell.append(make('span', column));
    head.append(cell);
  }
  const lines = rows.map((row, place) => {
    const line = make('tr', undefined, place === reading ? { class: 'reading' } : {});
    line.append(make('th', place === reading ? `▸ ${row}` : row, { scope: 'row', title: row }));
    weights[place].forEach((share, column) => {
      const memory = column < memories ? ' memory' : '';
      if (column - memories > place) { line.append(make('td', undefined, { class: 'later' })); return; }
      line.append(make('td', undefined, { class: `share${memory}`, style: `--share:${Math.round(100 * Math.sqrt(share))}%`,
        'aria-label': share.toFixed(3), title: `from ${row}\nto ${columns[column]}\nprobability ${share.toFixed(3)}` }));
    });
    return line;
  });
  const top = make('thead'), body = make('tbody');
  top.append(head);
  body.append(...lines);
  table.replaceChildren(widths, top, body);
}
