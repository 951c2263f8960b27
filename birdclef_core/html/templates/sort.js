// Headings of sortable tables become buttons: a click sorts by the column, largest first, a second one the other way round.
for (const head of document.querySelectorAll('table.sortable thead th')) {
  const button = document.createElement('button');
  button.type = 'button';
  button.append(...head.childNodes);
  head.append(button);
  button.onclick = () => {
    const body = head.closest('table').tBodies[0], column = head.cellIndex;
    const falling = head.ariaSort !== 'descending';
    const value = row => { const text = row.cells[column].dataset.number ?? row.cells[column].textContent;
      return text === '' || isNaN(text) ? text : Number(text); };
    // What is not a number is less than any number.
    const compare = (x, y) => typeof x !== typeof y ? (typeof x === 'number' ? 1 : -1)
      : typeof x === 'number' ? x - y : x.localeCompare(y);
    for (const other of head.parentNode.cells) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', falling ? 'descending' : 'ascending');
    body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b)) * (falling ? -1 : 1)));
  };
}
