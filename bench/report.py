"""From the runs of bench/table.py to table.csv, table.md and table.svg."""
import csv
import os
import statistics
from xml.sax.saxutils import escape

OWN = 'hearth'
FIGURES = [('prefill', 'prefill_tok_s', 'tok/s'), ('decode', 'decode_tok_s', 'tok/s'), ('first', 'first_s', 's'), ('memory', 'rss_mb', 'MB')]
LIMIT = {'prefill': ('prefill_int8_percent', 'int8_gop_s'), 'decode': ('decode_read_percent', 'read_gb_s')}
COLUMNS = ['cell', 'figure', 'state', 'program', 'median', 'least', 'most', 'unit', 'rounds', 'percent_of_limit', 'hearth_ratio', 'read_gb_s', 'int8_gop_s', 'source']
COLORS = ['#3d7ab8', '#c46a2d', '#5a9a4a', '#8a5aa8']


def median(values):
    return statistics.median(values) if values else None


def ratio_of(own, other, unit):
    """How many times better hearth is: faster, sooner, smaller."""
    return own / other if unit == 'tok/s' else other / own


def is_near(x, y):
    return max(x, y) < 1.15 * min(x, y)


def work_of(runs, what):
    """What a token costs of the limit, in its unit, by hearth's own account."""
    percent, limit = LIMIT[what]
    field = {w: f for w, f, _ in FIGURES}[what]
    found = [r['figures'] for r in runs if r['program'] == OWN and r['figures'].get(field) and percent in r['figures'] and limit in r['figures']]
    return median([f[percent] / 100 * f[limit] / f[field] for f in found])


def is_steady(run, work=None):
    """Whether the machine could do as much after a run as before it, and no answer (work: of work_of) shows that it could do more
    in between."""
    is_same = all(is_near(run['before'][k], run['after'][k]) for k in run['before'])
    return is_same and (not work or run['figures'].get('decode_tok_s', 0) * work < 1.1 * read_of(run))


def limit_of(run, limit):
    return (run['before'][limit] + run['after'][limit]) / 2


def read_of(run):
    return limit_of(run, 'read_gb_s')


def states_of(runs):
    """Where one state of memory ends and the next begins, in GB/s: gaps of over a quarter between the speeds that were read."""
    reads = sorted(read_of(r) for r in runs)
    return [(a + b) / 2 for a, b in zip(reads, reads[1:]) if b > 1.25 * a]


def in_states(runs, figure):
    """(name of the state, its runs): answers by the speed of memory, as far as it held; all else together."""
    if figure != 'decode':
        return [('', runs)]
    work = work_of(runs, figure)
    steady = [r for r in runs if is_steady(r, work)]
    edges = [0, *states_of(steady), 1e30]
    parts = [[r for r in steady if low < read_of(r) <= high] for low, high in zip(edges, edges[1:])]
    return [(f'at {median([read_of(r) for r in p]):.0f} GB/s' if len(parts) > 1 else '', p) for p in parts if p]


def row_of(cell, figure, state, program, runs, own):
    """Of the runs of one program in one state; own: those of hearth."""
    what, field, unit = figure
    values, others = [r['figures'][field] for r in runs], [r['figures'][field] for r in own]
    row = dict(cell=cell, figure=what, state=state, program=program, median=median(values), least=min(values), most=max(values), unit=unit, rounds=len(values),
               percent_of_limit=None, hearth_ratio=None, ratio_range=None, source='measured')
    row |= {k: median([limit_of(r, k) for r in runs]) for k in ('read_gb_s', 'int8_gop_s')}
    if what in LIMIT:
        limit = LIMIT[what][1]
        work = work_of(own, what)
        row['percent_of_limit'] = median([100 * work * r['figures'][field] / limit_of(r, limit) for r in runs]) if work else None
    if program != OWN and own:
        row['hearth_ratio'] = ratio_of(median(others), row['median'], unit)
        pairs = [ratio_of(o, v, unit) for o, v in zip(others, values)]
        row['ratio_range'] = (min(pairs), max(pairs))
    return row


def known_rows(known, cell, what, unit, own_row, present):
    """Rows of programs that were not measured, from their shares of the limit."""
    rows = []
    for k in known:
        if k['cell'] == cell and k['figure'] == what and k['program'] not in present and own_row['percent_of_limit']:
            v = float(k['percent']) / own_row['percent_of_limit'] * own_row['median']
            rows.append({**own_row, 'program': k['program'], 'median': v, 'least': v, 'most': v, 'rounds': 0, 'percent_of_limit': float(k['percent']),
                         'hearth_ratio': ratio_of(own_row['median'], v, unit), 'ratio_range': None, 'source': 'known'})
    return rows


def failures(runs):
    """What failed and was not measured later, or by other settings only, a line each."""
    done = {(r['cell'], r['program']) for r in runs if r['figures']}
    last = {(r['cell'], r['program'], bool(r['figures'])): r['note'] for r in runs if r['note']}
    lines = [f'{cell}, {program}{", measured without " if is_part else ": "}{" ".join(note.split())[:400]}'
             for (cell, program, is_part), note in last.items() if is_part or (cell, program) not in done]
    answered = {(r['cell'], r['program']) for r in runs if r['figures'].get('decode_tok_s')}
    work = {c: work_of([r for r in runs if r['cell'] == c], 'decode') for c in {r['cell'] for r in runs}}
    steady = {(r['cell'], r['program']) for r in runs if is_steady(r, work[r['cell']])}
    return lines + [f'{cell}, {program}: the speed of memory changed during every run' for cell, program in sorted(answered - steady)]


def collect(cells, runs, known):
    rows = []
    for cell in (c for c in cells if any(r['cell'] == c['name'] for r in runs)):
        name = cell['name']
        for figure in FIGURES:
            what, field, unit = figure
            if what == 'prefill' and cell['batch'] > 1:
                continue  # a few tokens to begin with
            whole = [r for r in runs if r['cell'] == name and r['figures'].get(field)]
            for state, mine in in_states(whole, what):
                by = {p: [r for r in mine if r['program'] == p] for p in sorted({r['program'] for r in mine}, key=lambda p: (p != OWN, p))}
                found = [row_of(name, figure, state, p, by[p], by.get(OWN, [])) for p in by]
                if found and found[0]['program'] == OWN:
                    found += known_rows(known, name, what, unit, found[0], {r['program'] for r in whole})
                rows += found
    return rows


def show(v):
    return '' if v is None else f'{v:.0f}' if abs(v) >= 100 else f'{v:.3g}'


def write_csv(path, rows):
    with open(path, 'w', newline='') as f:
        w = csv.DictWriter(f, COLUMNS, extrasaction='ignore')
        w.writeheader()
        w.writerows({k: f'{v:.6g}' if isinstance(v, float) else v for k, v in r.items()} for r in rows)


def md_cell(r):
    if r is None:
        return ''
    star = '\\*' if r['source'] == 'known' else ''
    span = f' ({show(r["least"])}-{show(r["most"])})' if r['rounds'] > 1 else ''
    share = f', {r["percent_of_limit"]:.0f} %' if r['percent_of_limit'] is not None else ''
    return f'{show(r["median"])}{star}{span}{share}'


def md_ratio(r):
    if r is None:
        return ''
    span = f' ({r["ratio_range"][0]:.2f}-{r["ratio_range"][1]:.2f})' if r['ratio_range'] and r['rounds'] > 1 else ''
    return f'{r["hearth_ratio"]:.2f}{span}' if r['hearth_ratio'] is not None else ''


def markdown(rows, failed=()):
    others = sorted({r['program'] for r in rows} - {OWN})
    lines = ['| | | ' + ' | '.join([OWN] + [x for o in others for x in (o, 'ratio')]) + ' | read GB/s |', '|---|---|' + '---|' * (2 * len(others) + 2)]
    seen = {(r['cell'], r['figure'], r['state']): {} for r in rows}
    for r in rows:
        seen[r['cell'], r['figure'], r['state']][r['program']] = r
    for (cell, what, state), by in seen.items():
        unit = next(iter(by.values()))['unit']
        own = by.get(OWN)
        parts = [cell, f'{what} {state}'.rstrip() + f', {unit}', md_cell(own)] + [x for o in others for x in (md_cell(by.get(o)), md_ratio(by.get(o)))]
        lines.append('| ' + ' | '.join(parts + [show(own['read_gb_s']) if own else '']) + ' |')
    lines += ['', 'Medians (range); percents of the int8 peak for prefill, of the memory bandwidth read before and after each run for decode. '
              'Ratios above 1: hearth is better.']
    if any(r['source'] == 'known' for r in rows):
        lines.append('\\* not measured here: bench/known.csv, as a share of the limit.')
    lines += ['', 'Failed:'] * bool(failed) + [f'- {f}' for f in failed]
    return '\n'.join(lines) + '\n'


def svg(rows):
    """Bars: how many times better hearth is, a group for each cell and figure."""
    bars = [r for r in rows if r['hearth_ratio'] is not None]
    others = sorted({r['program'] for r in bars})
    most = max([r['hearth_ratio'] for r in bars] + [1.0])
    groups = list(dict.fromkeys((r['cell'], r['figure'], r['state']) for r in bars))
    left, width, bar = 300, 560, 13
    parts, y = [], 40
    for i, o in enumerate(others):
        parts.append(f'<rect x="{left + i * 160}" y="12" width="12" height="12" fill="{COLORS[i % 4]}"/>'
                     f'<text x="{left + i * 160 + 17}" y="22">against {escape(o)}</text>')
    for group in groups:
        mine = [r for r in bars if (r['cell'], r['figure'], r['state']) == group]
        title = f'{group[0]}, {group[1]} {group[2]}'.rstrip()
        parts.append(f'<text x="{left - 8}" y="{y + bar * len(mine) / 2 + 4:.0f}" text-anchor="end">{escape(title)}</text>')
        for r in mine:
            w = r['hearth_ratio'] / most * width
            star = '*' if r['source'] == 'known' else ''
            parts.append(f'<rect x="{left}" y="{y}" width="{w:.1f}" height="{bar - 2}" fill="{COLORS[others.index(r["program"]) % 4]}"/>'
                         f'<text x="{left + w + 4:.1f}" y="{y + bar - 3}">{r["hearth_ratio"]:.2f}{star}</text>')
            y += bar
        y += 8
    one = left + width / most
    parts.append(f'<line x1="{one:.1f}" y1="34" x2="{one:.1f}" y2="{y}" stroke="#888" stroke-dasharray="3 3"/>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 70}" height="{y + 12}" font-family="sans-serif" font-size="12">'
            f'<title>Speed of hearth, times that of others</title><rect width="100%" height="100%" fill="white"/>' + '\n'.join(parts) + '</svg>\n')


def write(out, cells, runs, known_path):
    with open(known_path, newline='') as f:
        rows = collect(cells, runs, list(csv.DictReader(f)))
    write_csv(os.path.join(out, 'table.csv'), rows)
    for name, text in (('table.md', markdown(rows, failures(runs))), ('table.svg', svg(rows))):
        with open(os.path.join(out, name), 'w') as f:
            f.write(text)
