"""From the runs of bench/table.py to table.csv, table.md and table.svg."""
import csv
import os
import statistics
from xml.sax.saxutils import escape

OWN = 'hearth'
FIGURES = [('prefill', 'prefill_tok_s', 'tok/s'), ('decode', 'decode_tok_s', 'tok/s'), ('first', 'first_s', 's'), ('memory', 'rss_mb', 'MB')]
PERCENT = {'prefill': 'prefill_int8_percent', 'decode': 'decode_read_percent'}
COLUMNS = ['cell', 'figure', 'program', 'median', 'least', 'most', 'unit', 'rounds', 'percent_of_limit', 'hearth_ratio', 'read_gb_s', 'int8_gop_s', 'source']
COLORS = ['#3d7ab8', '#c46a2d', '#5a9a4a', '#8a5aa8']


def median(values):
    return statistics.median(values) if values else None


def ratio_of(own, other, unit):
    """How many times better hearth is: faster, sooner, smaller."""
    return own / other if unit == 'tok/s' else other / own


def row_of(cell, what, unit, program, values, own, rates):
    """own: hearth's values of the same rounds; rates: its figures."""
    pairs = [ratio_of(o, v, unit) for o, v in zip(own, values) if o and v]
    row = dict(zip(COLUMNS, [cell, what, program, median(values), min(values), max(values), unit, len(values), None, None, None, None, 'measured']))
    field = {w: f for w, f, _ in FIGURES}[what]
    by_unit = [r[PERCENT[what]] / r[field] for r in rates if PERCENT.get(what) in r]
    if by_unit:
        row['percent_of_limit'] = median(by_unit) * row['median']
    row['hearth_ratio'] = median(pairs) if program != OWN else None
    row['ratio_range'] = (min(pairs), max(pairs)) if pairs and program != OWN else None
    row['read_gb_s'] = median([r['read_gb_s'] for r in rates if 'read_gb_s' in r])
    row['int8_gop_s'] = median([r['int8_gop_s'] for r in rates if 'int8_gop_s' in r])
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
    """What failed and was not measured later, a line each."""
    done = {(r['cell'], r['program']) for r in runs if r['figures']}
    last = {(r['cell'], r['program']): r['note'] for r in runs if r['note']}
    return [f'{cell}, {program}: {" ".join(note.split())[:200]}' for (cell, program), note in last.items() if (cell, program) not in done]


def without_half_limits(runs):
    """Runs whose limits were measured while another program took a core are left without: their shares would be too good. The
    arithmetic peak tells, since it does not change from run to run."""
    peak = {}
    for r in runs:
        threads = 'threads 1' in r['cell']
        peak[threads] = max(peak.get(threads, 0.0), r['figures'].get('int8_gop_s', 0.0))
    lost = [*PERCENT.values(), 'read_gb_s', 'int8_gop_s']
    return [{**r, 'figures': {k: v for k, v in r['figures'].items()
                              if k not in lost or r['figures'].get('int8_gop_s', 0.0) > 0.8 * peak['threads 1' in r['cell']]}} for r in runs]


def collect(cells, runs, known):
    rows = []
    runs = without_half_limits(runs)
    for cell in (c for c in cells if any(r['cell'] == c['name'] for r in runs)):
        name = cell['name']
        mine = [r for r in runs if r['cell'] == name]
        order = sorted({r['program'] for r in mine}, key=lambda p: (p != OWN, p))
        for what, field, unit in FIGURES:
            if what == 'prefill' and cell['batch'] > 1:
                continue  # a few tokens to begin with
            values = {p: [r['figures'][field] for r in mine if r['program'] == p and r['figures'].get(field)] for p in order}
            rates = [r['figures'] for r in mine if r['program'] == OWN and field in r['figures']]
            found = [row_of(name, what, unit, p, values[p], values.get(OWN, []), rates) for p in order if values[p]]
            if found and found[0]['program'] == OWN:
                found += known_rows(known, name, what, unit, found[0], [f['program'] for f in found])
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
    seen = {(r['cell'], r['figure']): {} for r in rows}
    for r in rows:
        seen[r['cell'], r['figure']][r['program']] = r
    for (cell, what), by in seen.items():
        unit = next(iter(by.values()))['unit']
        own = by.get(OWN)
        parts = [cell, f'{what}, {unit}', md_cell(own)] + [x for o in others for x in (md_cell(by.get(o)), md_ratio(by.get(o)))]
        lines.append('| ' + ' | '.join(parts + [show(own['read_gb_s']) if own else '']) + ' |')
    lines += ['', 'Medians (range); percents of the int8 peak for prefill, of the memory bandwidth measured in the same runs for decode. '
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
    groups = list(dict.fromkeys((r['cell'], r['figure']) for r in bars))
    left, width, bar = 300, 560, 13
    parts, y = [], 40
    for i, o in enumerate(others):
        parts.append(f'<rect x="{left + i * 160}" y="12" width="12" height="12" fill="{COLORS[i % 4]}"/>'
                     f'<text x="{left + i * 160 + 17}" y="22">against {escape(o)}</text>')
    for cell, what in groups:
        mine = [r for r in bars if (r['cell'], r['figure']) == (cell, what)]
        parts.append(f'<text x="{left - 8}" y="{y + bar * len(mine) / 2 + 4:.0f}" text-anchor="end">{escape(cell)}, {what}</text>')
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
