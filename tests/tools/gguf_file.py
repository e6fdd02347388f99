"""gguf_file - model files as Python objects: read, changed, written, and judged.

Model.parse(bytes) keeps everything needed to write the same file again; Model.pack() writes it and
remembers where each field went (fields), so that a mutator can damage a named field of the bytes.
judge(bytes) is a second opinion on a header, written from the specification and from the rules in
src/model/gguf.h, not from the C code: it says why a file must be refused, or None.

Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""
import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FIXED = {U8: '<B', I8: '<b', U16: '<H', I16: '<h', U32: '<I', I32: '<i', F32: '<f', BOOL: '<B', U64: '<Q', I64: '<q', F64: '<d'}
INTS = (U8, I8, U16, I16, U32, I32, U64, I64)
SIZE = {t: struct.calcsize(f) for t, f in FIXED.items()}

# element types that can hold weights: id -> (name, elements of a block, bytes of a block)
TYPES = {0: ('F32', 1, 4), 1: ('F16', 1, 2), 2: ('Q4_0', 32, 18), 3: ('Q4_1', 32, 20), 6: ('Q5_0', 32, 22), 7: ('Q5_1', 32, 24),
         8: ('Q8_0', 32, 34), 10: ('Q2_K', 256, 84), 11: ('Q3_K', 256, 110), 12: ('Q4_K', 256, 144), 13: ('Q5_K', 256, 176), 14: ('Q6_K', 256, 210),
         16: ('IQ2_XXS', 256, 66), 17: ('IQ2_XS', 256, 74), 18: ('IQ3_XXS', 256, 98), 19: ('IQ1_S', 256, 50), 20: ('IQ4_NL', 32, 18),
         21: ('IQ3_S', 256, 110), 22: ('IQ2_S', 256, 82), 23: ('IQ4_XS', 256, 136), 29: ('IQ1_M', 256, 56), 30: ('BF16', 1, 2),
         34: ('TQ1_0', 256, 54), 35: ('TQ2_0', 256, 66), 39: ('MXFP4', 32, 17), 40: ('NVFP4', 64, 36), 41: ('Q1_0', 128, 18)}

META_MAX = 64 << 20
TENSOR_MAX = 65536
KEY_MAX = 4096


def up(n, to):
    return (n + to - 1) // to * to


class Tensor:
    def __init__(self, name, dims, kind, data):
        self.name, self.dims, self.kind, self.data = name, list(dims), kind, data
        self.offset = None  # None: placed by pack()

    def copy(self):
        t = Tensor(self.name, self.dims, self.kind, self.data)
        t.offset = self.offset
        return t


class Key:
    """value: int, float, bytes, or for ARRAY a list of them with the element type in `elem`."""

    def __init__(self, name, kind, value, elem=None):
        self.name, self.kind, self.value, self.elem = name, kind, value, elem

    def copy(self):
        return Key(self.name, self.kind, list(self.value) if self.kind == ARRAY else self.value, self.elem)


def n_elem(dims):
    n = 1
    for d in dims:
        n *= d
    return n


def tensor_bytes(dims, kind):
    _, block, size = TYPES[kind]
    return n_elem(dims) // block * size


class Reader:
    def __init__(self, b):
        self.b, self.at = b, 0

    def take(self, fmt):
        v = struct.unpack_from(fmt, self.b, self.at)[0]
        self.at += struct.calcsize(fmt)
        return v

    def text(self):
        n = self.take('<Q')
        if n > len(self.b) - self.at:
            raise struct.error('string')
        self.at += n
        return bytes(self.b[self.at - n:self.at])


class Model:
    def __init__(self):
        self.magic, self.version, self.align = b'GGUF', 3, 32
        self.keys, self.tensors = [], []
        self.n_tensor = self.n_key = None  # None: the real counts
        self.fields = []                   # after pack(): (what, offset, size)

    def copy(self):
        m = Model()
        m.magic, m.version, m.align, m.n_tensor, m.n_key = self.magic, self.version, self.align, self.n_tensor, self.n_key
        m.keys, m.tensors = [k.copy() for k in self.keys], [t.copy() for t in self.tensors]
        return m

    def get(self, name):
        return next((k for k in self.keys if k.name == name), None)

    @staticmethod
    def parse(b):
        m, r = Model(), Reader(b)
        m.magic = bytes(b[:4])
        r.at = 4
        m.version, n_tensor, n_key = r.take('<I'), r.take('<Q'), r.take('<Q')

        def value(kind):
            return r.text() if kind == STRING else r.take(FIXED[kind])
        for _ in range(n_key):
            name, kind = r.text(), r.take('<I')
            if kind == ARRAY:
                elem, n = r.take('<I'), r.take('<Q')
                m.keys.append(Key(name, kind, [value(elem) for _ in range(n)], elem))
            else:
                m.keys.append(Key(name, kind, value(kind)))
            if name == b'general.alignment':
                m.align = m.keys[-1].value
        places = []
        for _ in range(n_tensor):
            name = r.text()
            dims = [r.take('<Q') for _ in range(r.take('<I'))]
            kind, offset = r.take('<I'), r.take('<Q')
            m.tensors.append(Tensor(name, dims, kind, b''))
            places.append(offset)
        base = up(r.at, m.align)
        for t, offset in zip(m.tensors, places):
            t.data = bytes(b[base + offset:base + offset + tensor_bytes(t.dims, t.kind)])
        return m

    def pack(self):
        out, self.fields = bytearray(), []

        def put(fmt, v, what):
            self.fields.append((what, len(out), struct.calcsize(fmt)))
            out.extend(struct.pack(fmt, v & (1 << 8 * struct.calcsize(fmt)) - 1 if fmt not in ('<f', '<d') else v)
                       if fmt[1] not in 'bhiq' else struct.pack(fmt, v))

        def text(s, what):
            put('<Q', len(s), what + ' length')
            self.fields.append((what, len(out), len(s)))
            out.extend(s)

        def value(kind, v, what):
            if kind == STRING:
                text(v, what)
            else:
                put(FIXED[kind], v, what)
        self.fields.append(('magic', 0, 4))
        out.extend(self.magic)
        put('<I', self.version, 'version')
        put('<Q', len(self.tensors) if self.n_tensor is None else self.n_tensor, 'tensor count')
        put('<Q', len(self.keys) if self.n_key is None else self.n_key, 'key count')
        for k in self.keys:
            text(k.name, 'key name')
            put('<I', k.kind, 'value type')
            if k.kind != ARRAY:
                value(k.kind, k.value, 'value')
                continue
            put('<I', k.elem, 'element type')
            put('<Q', len(k.value), 'array count')
            if k.elem == STRING:
                for i, v in enumerate(k.value):
                    if i < 4 or i == len(k.value) - 1:
                        value(k.elem, v, 'element')
                    else:
                        out.extend(struct.pack('<Q', len(v)) + v)
            else:
                self.fields.append(('elements', len(out), SIZE[k.elem] * len(k.value)))
                out.extend(struct.pack('<%d%s' % (len(k.value), FIXED[k.elem][1]), *k.value))
        at, places = 0, []
        for t in self.tensors:
            places.append(at if t.offset is None else t.offset)
            at = max(at, up(places[-1] + len(t.data), self.align)) if places[-1] < 1 << 40 else at
        for t, offset in zip(self.tensors, places):
            text(t.name, 'tensor name')
            put('<I', len(t.dims), 'dimension count')
            for d in t.dims:
                put('<Q', d, 'dimension')
            put('<I', t.kind, 'tensor type')
            put('<Q', offset, 'tensor offset')
        base = up(len(out), self.align)
        self.fields.append(('padding', len(out), base - len(out)))
        out.extend(bytes(base - len(out)))
        self.data_at = base
        for t, offset in zip(self.tensors, places):
            if offset >= 1 << 40:
                continue
            end = base + offset + len(t.data)
            if end > len(out):
                out.extend(bytes(end - len(out)))
            out[base + offset:end] = t.data
        return out


# --- the second opinion

class Refused(Exception):
    pass


def judge(b):
    """Why the header of this single file must be refused, or None."""
    try:
        _judge(b)
    except Refused as e:
        return str(e)
    except struct.error:
        return 'cut'
    return None


def _check(ok, why):
    if not ok:
        raise Refused(why)


def _name(r, limit, what):
    n = struct.unpack_from('<Q', r.b, r.at)[0]
    _check(n <= limit, what + ' length')
    s = r.text()
    _check(len(s) > 0, what + ' empty')
    try:
        s.decode('utf-8')
    except UnicodeDecodeError:
        raise Refused(what + ' not UTF-8') from None
    return s


def _value(r, kind):
    if kind == STRING:
        return r.text()
    _check(kind in FIXED, 'value type')
    v = r.take(FIXED[kind])
    _check(kind != BOOL or v <= 1, 'truth value')
    return v


def _array(r):
    elem, n = r.take('<I'), r.take('<Q')
    _check(elem in FIXED or elem == STRING, 'element type')
    _check(n <= (len(r.b) - r.at) // (8 if elem == STRING else SIZE[elem]), 'array count')
    if elem == STRING:
        for _ in range(n):
            size = struct.unpack_from('<Q', r.b, r.at)[0]
            _check(size <= len(r.b) - r.at - 8, 'string length')
            r.at += 8 + size
    else:
        raw = r.b[r.at:r.at + n * SIZE[elem]]
        _check(elem != BOOL or max(raw, default=0) <= 1, 'truth value')
        r.at += n * SIZE[elem]


def _judge(b):
    r = Reader(b)
    _check(len(b) >= 8 and bytes(b[:4]) == b'GGUF', 'magic')
    r.at = 4
    _check(r.take('<I') in (2, 3), 'version')
    n_tensor, n_key = r.take('<Q'), r.take('<Q')
    _check(n_tensor <= TENSOR_MAX and n_key <= KEY_MAX, 'counts')
    align, names, split = 32, set(), 0
    for _ in range(n_key):
        name = _name(r, 65535, 'key name')
        _check(name not in names, 'key twice')
        names.add(name)
        kind = r.take('<I')
        if kind == ARRAY:
            _array(r)
            v = None
        else:
            v = _value(r, kind)
        if name == b'general.alignment':
            _check(kind in INTS, 'alignment type')
            align = v
        if name in (b'split.no', b'split.count', b'split.tensors.count'):
            _check(kind in INTS and 0 <= v <= (65535 if name != b'split.tensors.count' else 2**31 - 1), 'split key')
            split = v if name == b'split.count' else split
    _check(8 <= align <= 1 << 20 and align & (align - 1) == 0, 'alignment')
    _check(split <= 1, 'part of a split model')
    names, spans = set(), []
    for _ in range(n_tensor):
        name = _name(r, 256, 'tensor name')
        _check(name not in names, 'tensor twice')
        names.add(name)
        n_dim = r.take('<I')
        _check(1 <= n_dim <= 4, 'dimension count')
        dims = [r.take('<Q') for _ in range(n_dim)]
        kind, offset = r.take('<I'), r.take('<Q')
        _check(all(dims) and n_elem(dims) < 1 << 63, 'dimensions')
        _check(kind in TYPES, 'tensor type')
        _check(dims[0] % TYPES[kind][1] == 0, 'row length')
        _check(offset % align == 0, 'offset alignment')
        spans.append((offset, offset + tensor_bytes(dims, kind)))
    _check(r.at <= META_MAX, 'metadata size')
    base = up(r.at, align)
    spans.sort()
    for (a, b_), (c, _) in zip(spans, spans[1:]):
        _check(b_ <= c, 'overlap')
    _check(not spans or base + max(e for _, e in spans) <= len(b), 'range')
