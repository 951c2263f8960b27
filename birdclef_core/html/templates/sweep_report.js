// Draws the charts of a sweep's page with plotly from the values in #values, and lets readers filter the trials in all of them at once.
// Marks: finished trials are dots; stopped ones are crosses at the score of the stage where they stopped; failed ones have no score.

const V = JSON.parse(document.getElementById('values').textContent);
const T = V.trials, COUNT = T.trial.length, MANY = V.sweeps.length > 1;
const byId = id => document.getElementById(id);
const ended = V.sweeps.map(sweep => sweep.ended);
const recipes = [...new Set(T.recipe)].sort(), statuses = [...new Set(T.status)].sort();
const groups = MANY ? V.sweeps.map(sweep => sweep.name) : recipes;
const groupOf = i => MANY ? T.sweep[i] : recipes.indexOf(T.recipe[i]);
const all = [...Array(COUNT).keys()];
const first = V.sweeps.map((_, number) => T.sweep.indexOf(number));
const short = value => value === null || value === undefined ? '' : Math.abs(value) >= 100 ? Math.round(value).toLocaleString('en')
  : String(Number(value.toPrecision(3)));
const shown = (param, value) => value === null ? 'not there' : param.values ? param.values[value] : short(value);
const scoreText = i => T.score[i] === null ? '' : T.score[i].toFixed(3) + (T.error[i] ? ' ± ' + T.error[i].toFixed(3) : '');

// What is filtered: each filter says whether a trial passes. Parallel coordinates show what their own brush leaves out, in grey.
const filters = new Map();
const passes = (i, except) => [...filters].every(([key, test]) => key === except || test(i));
const visible = except => all.filter(i => passes(i, except));

// Colours follow the page's theme.
const css = name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
const dark = matchMedia('(prefers-color-scheme: dark)');
const colours = () => ['first', 'second', 'third', 'fourth'].map(css)
  .concat(dark.matches ? ['#d7c94f', '#e58ba8', '#8fd06b', '#a9a9d6'] : ['#857500', '#b0305f', '#4b7a1e', '#55558f']);
const colourOf = number => { const known = colours(); return known[number % known.length]; };
const faded = (colour, alpha) => colour + Math.round(alpha * 255).toString(16).padStart(2, '0');
const narrow = () => innerWidth < 600;

function axis(title, more = {}) {
  return { title: { text: title, font: { size: 12.5 }, standoff: 8 }, gridcolor: css('line'), linecolor: css('line'), zeroline: false,
    automargin: true, tickfont: { color: css('muted'), size: 11.5 }, ...more };
}

function layout(x, y, more = {}) {
  return { paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', font: { family: 'system-ui, sans-serif', color: css('ink'), size: 12.5 },
    margin: { l: 56, r: 14, t: 12, b: 46 }, ...(x ? { xaxis: x, yaxis: y } : {}),
    modebar: { bgcolor: 'rgba(0,0,0,0)', color: css('muted'), activecolor: css('first') }, dragmode: narrow() ? false : 'select', hovermode: 'closest',
    hoverlabel: { bgcolor: css('panel'), bordercolor: css('line'), font: { color: css('ink') }, align: 'left' },
    legend: { orientation: 'h', y: 1.02, yanchor: 'bottom', x: 0, bgcolor: 'rgba(0,0,0,0)' }, newselection: { line: { color: css('ink') } }, ...more };
}

const CONFIG = { responsive: true, displaylogo: false, modeBarButtons: [['toImage', 'select2d', 'lasso2d', 'zoom2d', 'pan2d', 'resetScale2d']] };

function tip(i) {
  const where = MANY ? V.sweeps[T.sweep[i]].name + ' ' : '';
  const lines = ['<b>' + escaped(where + T.trial[i]) + '</b> ' + escaped(T.recipe[i]) + ', ' + T.status[i]];
  if (T.score[i] !== null) lines.push(scoreText(i));
  else if (T.last_score[i] !== null) lines.push(T.last_score[i].toFixed(3) + ' at ' + T.last_stage[i] + ' (score of that stage)');
  if (T.reason[i]) lines.push(escaped(wrapped(T.reason[i])).replaceAll('\n', '<br>'));
  for (const param of V.params) if (param.column[i] !== null) lines.push(escaped(param.name + ' = ' + shown(param, param.column[i])));
  return lines.slice(0, 16).join('<br>');
}
const escaped = text => String(text).replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
const wrapped = text => text.replace(/(.{50,70}?) /g, '$1\n');

// Scores are of finished trials; a stopped one is at the score of the stage where it stopped.
const isStopped = i => T.status[i] === 'pruned' && T.last_score[i] !== null;
const height = i => T.score[i] !== null ? T.score[i] : isStopped(i) ? T.last_score[i] : null;

// Dots of finished and crosses of stopped trials, coloured by recipe (of several sweeps, by sweep).
function marks(trials, xOf, yOf = height, more = {}) {
  const traces = [], size = trials.length > 600 ? 5 : trials.length > 100 ? 6.5 : 9;
  for (const [number, name] of groups.entries()) {
    for (const stopped of [true, false]) {
      const own = trials.filter(i => groupOf(i) === number && stopped === (T.score[i] === null) && xOf(i) !== null && yOf(i) !== null);
      if (!own.length) continue;
      traces.push({ type: 'scatter', mode: 'markers', name: stopped ? name + ', stopped' : name, legendgroup: name, x: own.map(xOf), y: own.map(yOf),
        customdata: own, text: own.map(tip), hovertemplate: '%{text}<extra></extra>',
        marker: { size, symbol: stopped ? 'x-thin' : 'circle', opacity: stopped ? 0.75 : 0.8, color: colourOf(number),
          line: { width: stopped ? 1.3 : 0, color: colourOf(number) } }, ...more });
    }
  }
  return traces;
}

// The charts, by the id of their element. Each returns [traces, layout].
const CHARTS = {
  'best-chart': () => {
    const kind = byId('best-over').value, traces = [];
    for (const [number, sweep] of V.sweeps.entries()) {
      const xs = kind === 'trials' ? ended[number].map((_, place) => place + 1) : kind === 'device' ? sweep.device_hours : sweep.hours;
      const points = ended[number].map((offset, place) => [first[number] + offset, xs[place]]).filter(([i, x]) => x !== null && passes(i));
      let best = -Infinity;
      const line = [];
      for (const [i, x] of points) {
        if (T.score[i] !== null && T.score[i] > best) { best = T.score[i]; line.push([i, x, best]); }
      }
      if (line.length) line.push([line.at(-1)[0], points.at(-1)[1], best]);
      const colour = MANY ? colourOf(number) : css('first'), dots = points.filter(([i]) => T.score[i] !== null);
      traces.push({ type: 'scatter', mode: 'markers', name: MANY ? sweep.name + ', trials' : 'finished trials', showlegend: !MANY, x: dots.map(([, x]) => x),
        y: dots.map(([i]) => T.score[i]), customdata: dots.map(([i]) => i), text: dots.map(([i]) => tip(i)), hovertemplate: '%{text}<extra></extra>',
        error_y: { type: 'data', array: dots.map(([i]) => T.error[i] ?? 0), visible: dots.length <= 60, thickness: 1, width: 0, color: faded(colour, .5) },
        marker: { size: dots.length > 300 ? 4 : 7, color: faded(colour, .45) } });
      traces.push({ type: 'scatter', mode: 'lines', name: MANY ? sweep.name : 'best so far', x: line.map(([, x]) => x), y: line.map(([, , y]) => y),
        text: line.map(([i]) => tip(i)), hovertemplate: '%{text}<extra></extra>', line: { shape: 'hv', width: 2.5, color: MANY ? colour : css('second') } });
    }
    const titles = { trials: 'trials that have ended', device: 'device hours spent', wall: 'hours since the start' };
    return [traces, layout(axis(titles[kind], { rangemode: 'tozero' }), axis(V.objective))];
  },

  'importance-chart': () => {
    const [number, name] = JSON.parse(byId('importance-of').value), found = V.sweeps[number].importances[name];
    const rows = found.parameters.toReversed(), room = narrow() ? 18 : 34;
    byId('importance-note').textContent = `From ${found.finished} finished and ${found.stopped} stopped trials. From the parameters alone, `
      + `${Math.max(0, Math.round(100 * found.explained))}% of the differences between trials that were left out could be foretold`
      + (found.explained < .15 ? ': so little that this order may be luck.' : '.');
    const trace = { type: 'bar', orientation: 'h', x: rows.map(row => row[1]), y: rows.map(row => row[0]), marker: { color: css('first') },
      error_x: { type: 'data', symmetric: false, array: rows.map(row => row[3] - row[1]), arrayminus: rows.map(row => row[1] - row[2]), thickness: 1.4, width: 4,
        color: css('ink') }, hovertemplate: '%{y}: %{x:.0%}<extra></extra>' };
    return [[trace], layout(axis('share of the differences between scores', { tickformat: '.0%', rangemode: 'tozero' }),
      axis('', { tickvals: rows.map(row => row[0]), ticktext: rows.map(row => row[0].length > room ? '…' + row[0].slice(1 - room) : row[0]) }),
      { dragmode: false, height: 90 + 26 * rows.length,
        shapes: [{ type: 'line', x0: found.chance, x1: found.chance, y0: 0, y1: 1, yref: 'paper', line: { color: css('second'), dash: 'dash', width: 1.5 } }] })];
  },

  'parallel-chart': () => {
    const trials = visible('parallel').filter(i => T.score[i] !== null);
    const dimensions = (MANY ? [choice('sweep', V.sweeps.map(sweep => sweep.name), i => T.sweep[i])] : [])
      .concat(recipes.length > 1 ? [choice('recipe', recipes, i => recipes.indexOf(T.recipe[i]))] : [])
      .concat(V.params.map(param => param.values ? choice(param.name, param.values, i => param.column[i]) : scale(param)));
    const scores = trials.map(i => T.score[i]);
    const drawnOf = of => ({ label: of.label, values: trials.map(of.value), range: of.range, tickvals: of.tickvals, ticktext: of.ticktext });
    parallel = { dimensions, trials };
    byId('parallel-chart').style.minWidth = 84 * (dimensions.length + 1) + 'px';
    const range = scores.length ? [Math.min(...scores), Math.max(...scores)] : [0, 1];
    if (range[0] === range[1]) range[1] += 1e-6;
    return [[{ type: 'parcoords', labelangle: -18, labelfont: { color: css('ink'), size: 11.5 }, tickfont: { color: css('muted'), size: 10.5 },
      rangefont: { color: 'rgba(0,0,0,0)' }, line: { color: scores, colorscale: dark.matches ? 'Viridis' : [[0, '#c9d3cf'], [.5, '#6fb3a6'], [1, '#0f4c45']], cmin: range[0], cmax: range[1] },
      unselected: { line: { color: css('line'), opacity: .25 } },
      dimensions: [...dimensions.map(drawnOf), { label: 'score', values: scores, range }] }],
    layout(null, null, { margin: { l: 104, r: 60, t: 92, b: 24 }, height: 430 })];
  },

  'contour-chart': () => {
    const [x, y] = [byId('contour-x'), byId('contour-y')].map(select => V.params[Number(select.value)]);
    const trials = visible().filter(i => T.score[i] !== null && x.column[i] !== null && y.column[i] !== null);
    const few = trials.length < 12, traces = few ? [] : [surface(x, y, trials)];
    traces.push({ type: 'scatter', mode: 'markers', x: trials.map(i => x.column[i]), y: trials.map(i => y.column[i]), customdata: trials,
      text: trials.map(tip), hovertemplate: '%{text}<extra></extra>', showlegend: false,
      marker: few ? { size: 13, color: trials.map(i => T.score[i]), colorscale: SHADES(), line: { width: 1, color: css('line') }, colorbar: COLORBAR() }
        : { size: trials.length > 300 ? 3 : 6, color: css('ink'), opacity: .55 } });
    return [traces, layout(paramAxis(x), paramAxis(y))];
  },

  'cost-chart': () => {
    const name = byId('cost-of').value, trials = visible().filter(i => T.score[i] !== null && T[name][i] !== null);
    const traces = marks(trials, i => T[name][i]);
    const sorted = trials.toSorted((a, b) => T[name][a] - T[name][b] || T.score[b] - T.score[a]), front = [];
    for (const i of sorted) if (!front.length || T.score[i] > T.score[front.at(-1)]) front.push(i);
    traces.push({ type: 'scatter', mode: 'lines', name: 'no other is better for less', x: front.map(i => T[name][i]), y: front.map(i => T.score[i]),
      hoverinfo: 'skip', line: { shape: 'hv', color: css('ink'), width: 1.3, dash: 'dot' } });
    const spread = sorted.length > 1 && T[name][sorted.at(-1)] > 20 * T[name][sorted[0]] && T[name][sorted[0]] > 0;
    return [traces, layout(axis(byId('cost-of').selectedOptions[0].textContent, spread ? { type: 'log' } : { rangemode: 'tozero' }), axis(V.objective))];
  },

  'soundscape-chart': () => {
    const trials = visible().filter(i => T.by_recordings[i] !== null && T.by_soundscapes[i] !== null);
    return [marks(trials, i => T.by_recordings[i], i => T.by_soundscapes[i]), layout(axis('val/cmap, on recordings'), axis('val_soundscapes/auroc'))];
  },

  'species-chart': () => {
    const rows = V.species;
    return [[{ type: 'bar', x: rows.map((_, place) => place + 1), y: rows.map(row => row[3] - row[2]), marker: { color: rows.map(row => row[3] >= row[2] ? css('first') : css('second')) },
      text: rows.map(row => `${escaped(row[0])}: ${row[2].toFixed(3)} → ${row[3].toFixed(3)}, ${row[1]} recordings`), textposition: 'none', hovertemplate: '%{text}<extra></extra>' }],
    layout(axis('species, by their gain', rows.length <= (narrow() ? 12 : 40) ? { tickvals: rows.map((_, place) => place + 1), ticktext: rows.map(row => escaped(row[0])) } : {}), axis('gain in average precision'), { dragmode: false, bargap: .1 })];
  },
};
for (const [number, param] of V.params.entries()) {
  CHARTS['slice-' + number] = () => {
    const trials = visible(), wide = param.values ? i => place(param, i) : i => param.column[i];
    const traces = marks(trials, wide, height, { showlegend: false });
    const scores = trials.map(height).filter(value => value !== null), low = scores.length ? Math.min(...scores) : 0;
    const failed = trials.filter(i => T.status[i] === 'failed' && param.column[i] !== null);
    if (failed.length) {
      traces.push({ type: 'scatter', mode: 'markers', showlegend: false, x: failed.map(wide), y: failed.map(() => low - .03), customdata: failed, text: failed.map(tip),
        hovertemplate: '%{text}<extra></extra>', marker: { symbol: 'triangle-down-open', size: 7, color: css('warn') } });
    }
    return [traces, layout(paramAxis(param), axis(''), { height: 260, margin: { l: 44, r: 10, t: 8, b: 42 } })];
  };
}

// Values of a choice stand beside each other, not on one line.
const place = (param, i) => param.column[i] === null ? null : param.column[i] + ((i * 0.618034) % 1 - .5) * .5;

function paramAxis(param) {
  if (!param.values) return axis(param.name, param.log ? { type: 'log', ...logTicks(param.column) } : {});
  return axis(param.name, { tickvals: param.values.map((_, number) => number), ticktext: param.values, range: [-.6, param.values.length - .4] });
}

// Ticks of a logarithmic axis: 1, 2 and 5 of each decade, fewer of many; steps as on a plain axis where the values are within one.
function logTicks(column) {
  const values = column.filter(value => value !== null), low = Math.min(...values), high = Math.max(...values), ticks = [];
  if (high > 5 * low) {
    for (let decade = Math.floor(Math.log10(low)); decade <= Math.log10(high); decade++) ticks.push(...(high > 100 * low ? [1] : high > 15 * low ? [1, 3] : [1, 2, 5]).map(digit => digit * 10 ** decade));
  } else {
    const rough = (high - low || low) / 3, unit = 10 ** Math.floor(Math.log10(rough)), step = unit * [1, 2, 5, 10].find(size => size * unit >= rough);
    for (let count = Math.floor(low / step); count * step <= high + step; count++) if (count > 0) ticks.push(count * step);
  }
  return { tickvals: ticks, ticktext: ticks.map(short), tickangle: 0 };
}

// An axis of the parallel coordinates: where a trial lacks the parameter, its line goes through a mark of its own below the others.
let parallel = null;
function choice(label, values, of) {
  const lacks = all.some(i => of(i) === null), marksOf = values.map((_, number) => number);
  return { label: tail(label), value: i => of(i) ?? -1, range: [lacks ? -1 : 0, Math.max(1, values.length - 1)], tickvals: lacks ? [-1, ...marksOf] : marksOf,
    ticktext: (lacks ? ['–', ...values] : values).map(text => String(text).slice(0, 16)) };
}
function scale(param) {
  const on = value => param.log ? Math.log10(value) : value, values = param.column.filter(value => value !== null).map(on);
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1, lacks = values.length < COUNT;
  const ticks = [0, .25, .5, .75, 1].map(share => low + share * span);
  return { label: tail(param.name), value: i => param.column[i] === null ? low - .12 * span : on(param.column[i]), range: [lacks ? low - .12 * span : low, low + span],
    tickvals: lacks ? [low - .12 * span, ...ticks] : ticks, ticktext: [...(lacks ? ['–'] : []), ...ticks.map(value => short(param.log ? 10 ** value : value))] };
}
const tail = name => name.length > 22 ? '…' + name.slice(-21) : name;

// The mean of the scores around each point, nearer trials counting more; empty where no trial is near.
function surface(x, y, trials) {
  const cells = 28, on = param => param.log ? Math.log10 : value => value, values = param => trials.map(i => on(param)(param.column[i]));
  const [xs, ys] = [values(x), values(y)], extent = list => [Math.min(...list), Math.max(...list)], [x0, x1] = extent(xs), [y0, y1] = extent(ys);
  const width = Math.max(.06, .5 * trials.length ** (-1 / 6) * .45), sx = (x1 - x0 || 1) * width, sy = (y1 - y0 || 1) * width;
  const at = (low, high) => [...Array(cells)].map((_, cell) => low + (high - low) * cell / (cells - 1)), gx = at(x0, x1), gy = at(y0, y1);
  const z = gy.map(v => gx.map(u => {
    let weight = 0, sum = 0;
    for (let k = 0; k < xs.length; k++) {
      const d = ((xs[k] - u) / sx) ** 2 + ((ys[k] - v) / sy) ** 2;
      if (d < 9) { const w = Math.exp(-d / 2); weight += w; sum += w * T.score[trials[k]]; }
    }
    return weight > .15 ? sum / weight : null;
  }));
  const back = (param, list) => param.log ? list.map(value => 10 ** value) : list;
  return { type: 'contour', x: back(x, gx), y: back(y, gy), z, colorscale: SHADES(), contours: { coloring: 'heatmap' },
    line: { width: .5, color: css('line') }, hovertemplate: '%{z:.3f} on average here<extra></extra>', colorbar: COLORBAR() };
}
const SHADES = () => dark.matches ? 'Viridis' : [[0, '#eef2f0'], [.5, '#8cc5bb'], [1, '#146057']];
const COLORBAR = () => ({ thickness: 10, outlinewidth: 0, tickfont: { color: css('muted') } });

// Charts are drawn when they come near the screen, and again when a filter or the theme changes.
const near = new Set(), stale = new Set();
const watcher = new IntersectionObserver(entries => {
  for (const entry of entries) {
    if (entry.isIntersecting) { near.add(entry.target.id); draw(entry.target.id); } else near.delete(entry.target.id);
  }
  document.documentElement.dataset.ready ??= Math.round(performance.now());
}, { rootMargin: '250px' });

function draw(id) {
  if (!stale.has(id)) return;
  stale.delete(id);
  const element = byId(id), [traces, look] = CHARTS[id](), isNew = !element.classList.contains('js-plotly-plot');
  if (isNew) element.textContent = '';
  Plotly.react(element, traces, look, id.startsWith('slice') ? { ...CONFIG, displayModeBar: false } : CONFIG);
  if (!isNew) return;
  element.on('plotly_selected', event => {
    if (!event) return;
    const chosen = new Set(event.points.map(point => point.customdata).filter(value => value !== undefined));
    if (chosen.size) { filters.set('brush', i => chosen.has(i)); refresh(); }
  });
  if (id === 'parallel-chart') element.on('plotly_restyle', () => {
    const tests = element.data[0].dimensions.map((drawn, number) => [parallel.dimensions[number]?.value ?? (i => T.score[i]), drawn.constraintrange])
      .filter(([, range]) => range).map(([value, range]) => [value, Array.isArray(range[0]) ? range : [range]]);
    if (tests.length) filters.set('parallel', i => T.score[i] !== null && tests.every(([value, ranges]) => ranges.some(([low, high]) => value(i) >= low && value(i) <= high)));
    else filters.delete('parallel');
    refresh('parallel-chart');
  });
}

let timer = 0;
function refresh(except = '') {
  for (const id of drawnIds) if (id !== except) stale.add(id);
  const left = visible();
  byId('filter-count').textContent = left.length === COUNT ? `All ${COUNT} trials are shown.` : `${left.length} of ${COUNT} trials are shown.`;
  byId('filter-reset').hidden = left.length === COUNT && !filters.size;
  page = 0;
  clearTimeout(timer);
  timer = setTimeout(() => { for (const id of near) draw(id); table(); }, 30);
}
let drawnIds = [];

// The filters: boxes and sliders, which work by keyboard too.
function boxes(legend, names, of) {
  if (names.length < 2) return null;
  const set = document.createElement('fieldset'), title = document.createElement('legend'), on = new Set(names.keys());
  title.textContent = legend;
  set.append(title);
  for (const [number, name] of names.entries()) {
    const label = document.createElement('label'), box = document.createElement('input');
    box.type = 'checkbox';
    box.checked = true;
    box.onchange = () => { box.checked ? on.add(number) : on.delete(number); filters.set(legend, i => on.has(of(i))); if (on.size === names.length) filters.delete(legend); refresh(); };
    label.append(box, ' ' + name);
    set.append(label);
  }
  return set;
}
function sliders(param) {
  const on = value => param.log ? Math.log10(value) : value, known = param.column.filter(value => value !== null).map(on);
  const low = Math.min(...known), high = Math.max(...known), step = (high - low) / 100;
  if (!(step > 0)) return null;
  const set = document.createElement('fieldset'), title = document.createElement('legend'), text = document.createElement('output');
  title.textContent = param.name;
  const ends = [low, high].map((value, end) => {
    const slider = document.createElement('input');
    Object.assign(slider, { type: 'range', min: low, max: high, step: 'any', value, ariaLabel: param.name + (end ? ', at most' : ', at least') });
    slider.onkeydown = event => {
      const move = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
      if (move) { event.preventDefault(); slider.value = Number(slider.value) + move * step; slider.oninput(); }
    };
    slider.oninput = () => {
      const [least, most] = ends.map(item => Number(item.value)), back = value => short(param.log ? 10 ** value : value);
      text.textContent = `${back(least)} to ${back(most)}`;
      const isAll = least <= low + step / 100 && most >= high - step / 100, slack = step / 1000;
      if (isAll) filters.delete(param.name);
      else filters.set(param.name, i => param.column[i] !== null && on(param.column[i]) >= least - slack && on(param.column[i]) <= most + slack);
      refresh();
    };
    return slider;
  });
  text.textContent = `${short(param.log ? 10 ** low : low)} to ${short(param.log ? 10 ** high : high)}`;
  set.append(title, ...ends, text);
  return set;
}
function buildFilters() {
  const keep = item => item !== null, score = { name: 'score', column: T.score };
  byId('filter-main').replaceChildren(...[MANY ? boxes('sweep', V.sweeps.map(sweep => sweep.name), i => T.sweep[i]) : null,
    boxes('recipe', recipes, i => recipes.indexOf(T.recipe[i])), boxes('status', statuses, i => statuses.indexOf(T.status[i])), sliders(score)].filter(keep));
  byId('filter-params').replaceChildren(...V.params.map(param => param.values ? boxes(param.name, param.values, i => param.column[i]) : sliders(param)).filter(keep));
}

// The table of trials: a page of rows at a time, so that thousands cost no time.
const ROWS = 25;
let page = 0, sorted = { column: 'score', falling: true };
const COLUMNS = [...(MANY ? [['sweep', i => V.sweeps[T.sweep[i]].name]] : []), ['trial', i => T.trial[i]], ['recipe', i => T.recipe[i]], ['status', i => T.status[i]],
  ['score', i => T.score[i], scoreText], ['last stage', i => T.last_stage[i]], ['its score', i => T.last_score[i], i => T.last_score[i]?.toFixed(3) ?? ''],
  ...V.costs.filter(name => name !== 'cost/device_hours').map(name => [name.replace('cost/', ''), i => T[name][i], i => short(T[name][i])]),
  ['spent h', i => T.spent_h[i], i => short(T.spent_h[i])], ['saved h', i => T.saved_h[i], i => short(T.saved_h[i])],
  ...V.params.map(param => [param.name, i => param.column[i], i => shown(param, param.column[i])]), ['reason', i => T.reason[i]]];
function table() {
  const [, of] = COLUMNS.find(([name]) => name === sorted.column), known = value => value !== null && value !== '';
  const compare = (a, b) => { const [x, y] = [of(a), of(b)];
    if (known(x) !== known(y)) return known(x) ? -1 : 1;
    return (typeof x === 'number' ? x - y : String(x).localeCompare(String(y))) * (sorted.falling ? -1 : 1); };
  const rows = visible().sort(compare), pages = Math.max(1, Math.ceil(rows.length / ROWS));
  page = Math.min(page, pages - 1);
  const body = byId('trials-body');
  body.replaceChildren(...rows.slice(page * ROWS, (page + 1) * ROWS).map(i => {
    const row = document.createElement('tr');
    for (const [number, [, value, text]] of COLUMNS.entries()) {
      const cell = document.createElement(number ? 'td' : 'th');
      if (!number) cell.scope = 'row';
      cell.textContent = (text ?? value)(i) ?? '';
      if (typeof value(i) === 'number') cell.className = 'number';
      row.append(cell);
    }
    return row;
  }));
  byId('trials-page').textContent = `Page ${page + 1} of ${pages}`;
  byId('trials-back').disabled = page === 0;
  byId('trials-next').disabled = page >= pages - 1;
}
function buildTable() {
  const head = byId('trials-head');
  for (const [name] of COLUMNS) {
    const cell = document.createElement('th'), button = document.createElement('button');
    cell.scope = 'col';
    button.type = 'button';
    button.textContent = name;
    button.onclick = () => {
      sorted = { column: name, falling: sorted.column === name ? !sorted.falling : true };
      for (const other of head.cells) other.removeAttribute('aria-sort');
      cell.setAttribute('aria-sort', sorted.falling ? 'descending' : 'ascending');
      page = 0;
      table();
    };
    cell.append(button);
    head.append(cell);
  }
  byId('trials-back').onclick = () => { page--; table(); };
  byId('trials-next').onclick = () => { page++; table(); };
  byId('trials-csv').onclick = () => {
    const quoted = value => { const text = String(value ?? ''); return /[",\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text; };
    const lines = [COLUMNS.map(([name]) => quoted(name)), ...visible().map(i => COLUMNS.map(([name, of]) => quoted(V.params.find(param => param.name === name)?.values ? shown(V.params.find(param => param.name === name), of(i)) : of(i))))];
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([lines.map(line => line.join(',')).join('\n') + '\n'], { type: 'text/csv' }));
    link.download = V.sweeps.map(sweep => sweep.name).join('+') + '-trials.csv';
    link.click();
  };
}

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const letters = atob(base64), bytes = new Uint8Array(letters.length);
  for (let place = 0; place < bytes.length; place++) bytes[place] = letters.charCodeAt(place);
  return bytes;
}

async function begin() {
  buildFilters();
  buildTable();
  table();
  byId('filter-reset').onclick = () => { filters.clear(); buildFilters(); const drawn = byId('parallel-chart'); if (drawn?.data) { Plotly.purge(drawn); drawn.className = 'chart'; } refresh(); };
  for (const id of ['best-over', 'importance-of', 'contour-x', 'contour-y', 'cost-of']) {
    const select = byId(id), chart = select?.closest('figure').querySelector('.chart');
    if (select) select.onchange = () => { stale.add(chart.id); draw(chart.id); };
  }
  drawnIds = [...document.querySelectorAll('.chart')].map(element => element.id);
  refresh();
  const packed = bytesOf(byId('plotly').textContent.trim());
  const script = document.createElement('script');
  script.textContent = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'))).text();
  document.head.append(script);
  for (const id of drawnIds) watcher.observe(byId(id));
  dark.onchange = () => refresh();
}
begin().catch(error => {
  for (const element of document.querySelectorAll('.chart')) element.textContent = 'This chart needs a browser of 2023 or later (' + error.message + '). The tables have the same.';
});
