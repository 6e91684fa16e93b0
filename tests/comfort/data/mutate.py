"""Annotation files with mistakes, drawn at random from a number."""

import json
import random
import re
from copy import deepcopy

# What is put in place of a value.
STRANGE = (
    *(None, True, False, 0, -1, 1.5, -0.0, 1e39, -1e300, 10**30, -(10**400)),
    *(float('nan'), float('inf'), float('-inf'), '', ' ', 'x', '1', 'disc'),
    *('\0', '\ud800', '\ufeff', '\u0661', 'a' * 5000, '../../x', '%s', '{}'),
    *([], {}, [[]], [None], [1, 2, 3], [1, 2, 3, 4], [[1, 2, 3]], {'id': 1}),
    *([0, 0, 1e300, 1e300], [5, 5, -3, -3], [900, 900, 5, 5], ['1'] * 4),
    *({'counts': [1], 'size': [2, 2]}, {'counts': 'x', 'size': 2}),
)
ENCODINGS = ('utf-16', 'utf-32', 'utf-8-sig', 'latin-1', 'cp037')


def mutate_bytes(data: bytes, draw: random.Random) -> bytes:
    """One to four changes of a file that know nothing of its content."""
    for _ in range(draw.randint(1, 4)):
        a, b = sorted(draw.randrange(len(data) + 1) for _ in range(2))
        b = min(b, a + draw.choice((1, 1, 8, 200)))
        kind = draw.randrange(7)
        if kind == 0:
            data = data[:a]
        elif kind == 1:
            data = data[:a] + data[b:]
        elif kind == 2:
            data = data[:b] + data[a:]
        elif kind == 3:
            data = data[:a] + draw.randbytes(b - a) + data[b:]
        elif kind == 4:
            data = data[:a] + draw.choice(b'"{}[],:<>/&0-e.\n').to_bytes(1, 'big') + data[b:]
        elif kind == 5:
            text = data.decode(errors='replace')
            data = text.encode(draw.choice(ENCODINGS), errors='replace')
        else:
            digits = [m.span() for m in re.finditer(rb'\d+', data)]
            if digits:
                a, b = draw.choice(digits)
                number = draw.choice((b'-1', b'1e999', b'9' * 5000, b'0'))
                data = data[:a] + number + data[b:]
    return data


def _places(node, found):
    """Every (container, key) of a JSON value."""
    keys = node if isinstance(node, dict) else range(len(node))
    for key in keys:
        found.append((node, key))
        if isinstance(node[key], dict | list):
            _places(node[key], found)
    return found


def mutate_json(data: bytes, draw: random.Random) -> bytes:
    """One to three changes of values, with correct syntax."""
    content = json.loads(data)
    for _ in range(draw.randint(1, 3)):
        places = _places(content, [])
        if not places:
            break
        node, key = draw.choice(places)
        kind = draw.randrange(5)
        if kind == 0:
            del node[key]
        elif kind == 1:
            other, at = draw.choice(places)
            node[key] = deepcopy(other[at])
        elif kind == 2 and isinstance(node, list):
            node.append(deepcopy(node[key]))
        else:
            node[key] = deepcopy(draw.choice(STRANGE))
    return json.dumps(content).encode()


def mutate_xml(data: bytes, draw: random.Random) -> bytes:
    """One to three changes of elements, with correct syntax but for names."""
    text = data.decode()
    for _ in range(draw.randint(1, 3)):
        elements = list(re.finditer(r'<(\w+)>([^<>]*)</\1>', text))
        if not elements:
            break
        element = draw.choice(elements)
        kind = draw.randrange(5)
        if kind == 0:
            new = ''
        elif kind == 1:
            new = element[0] * 2
        elif kind == 2:
            new = draw.choice(elements)[0]
        else:
            value = draw.choice((*STRANGE, '&x;', '<a/>', '12<!-- -->3'))
            new = f'<{element[1]}>{value}</{element[1]}>'
        text = text[: element.start()] + new + text[element.end() :]
    return text.encode(errors='surrogatepass')
