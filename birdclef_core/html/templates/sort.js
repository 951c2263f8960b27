// Headings of sortable tables become buttons: a click sorts by the column, largest first, a second one the other way round.
for (const head of document.querySelectorAll('table.sortable thead th')) {
  const button = document.createElement('button');
  button.type = 'button';
  button.append(...head.childNodes);
  head.append(button);
  button.onclick = () => {
    const body = head.closest('table').tBodies[0], column = head.cellIndex;
    const falling = head.ariaSort !== 'descending';
    const value = row => { const { number } = row.cells[column].dataset;
      return number === undefined ? row.cells[column].textContent : Number(number); };
    for (const other of head.parentNode.cells) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', falling ? 'descending' : 'ascending');
    const rows = [...body.rows].sort((a, b) => { const x = value(a), y = value(b);
      return (typeof x === 'number' && typeof y === 'number' ? x - y : String(x).localeCompare(String(y))) * (falling ? -1 : 1); });
    body.append(...rows);
  };
}
