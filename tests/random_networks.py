"""Small networks put together at random, written in the ways in which people write them.

A network is a list of steps on the maps that there are so far: convolutions, norms and
activations in any order, as modules, functions and in place, by keyword; sums,
concatenations, splits, gates; modules that are shared, hooked, or held in plain lists;
a Sequential that is run in parts; several and nested outputs.
"""

import random
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

Pair = namedtuple('Pair', 'first second')
WIDTHS = (8, 8, 16)
STEPS = 7


@dataclass
class Output:
    maps: list


def doubled(module, args, output):
    return output * 2


def shifted(module, args):
    return (args[0] + 0.1,)


def looks(module, args, output):
    output.mean()


ACTIVATIONS = dict(
    module=lambda net, x: net.act(x),
    in_place_module=lambda net, x: net.act_(x),
    silu=lambda net, x: F.silu(x),
    function=lambda net, x: F.relu(x),
    in_place_function=lambda net, x: F.relu(x, inplace=True),
    method=lambda net, x: x.relu(),
    in_place_method=lambda net, x: x.relu_(),
    keyword=lambda net, x: F.relu(input=x),
    none=lambda net, x: x,
)
SUMS = dict(
    plus=lambda a, b: a + b,
    keyword=lambda a, b: torch.add(input=a, other=b),
    in_place=lambda a, b: a.add_(b),
    iadd=lambda a, b: a.__iadd__(b),
    sum=lambda a, b: sum([a, b]),
    scaled=lambda a, b: torch.add(a, b, alpha=0.5),
    product=lambda a, b: a * torch.sigmoid(b),
)
PARTS = dict(
    slice=lambda x: [x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]],
    # torch does not let views of these be changed in place.
    chunk=lambda x: [y * 1 for y in x.chunk(2, dim=1)],
    split=lambda x: [F.relu(y) for y in torch.split(x, x.shape[1] // 2, dim=1)],
    stride=lambda x: [x[:, ::2], x[:, 1::2]],
)
SIZES = dict(
    pool=lambda net, x: net.pool(x),
    max=lambda net, x: F.max_pool2d(x, 3, 1, 1),
    keyword=lambda net, x: F.max_pool2d(input=x, kernel_size=3, stride=1, padding=1),
    mean=lambda net, x: F.avg_pool2d(x, 3, 1, 1),
    up=lambda net, x: F.interpolate(x, scale_factor=2.0)[..., ::2, ::2],
    gate=lambda net, x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    flip=lambda net, x: x.flip(1),
    copy=lambda net, x: x.clone(),
    view=lambda net, x: x.flatten(2).view(x.shape),
    dropout=lambda net, x: F.dropout(x, training=net.training),
)
OUTPUTS = dict(
    last=lambda maps: maps[-1],
    several=lambda maps: tuple(maps[-3:]),
    nested=lambda maps: dict(a=[maps[-1], (maps[-2],)], b=maps[-1]),
    ordered=lambda maps: OrderedDict(x=maps[-2], y=maps[-1]),
    namedtuple=lambda maps: Pair(maps[-1], maps[-2]),
    dataclass=lambda maps: Output([maps[-1], maps[1]]),
    pooled=lambda maps: maps[-1].mean((2, 3)),
    rows=lambda maps: maps[-1].flatten(2).transpose(1, 2),
)
# How convolution, norm and activation follow each other.
ORDERS = ('cna', 'cna', 'cna', 'can', 'nac', 'ca', 'cn', 'c')


class Network(nn.Module):
    """A network of a seed.

    Args:
        channels: of its input.
        depth: how many networks may stand inside each other.
    """

    def __init__(self, seed, channels=3, depth=1, last=None):
        super().__init__()
        self.draw = draw = random.Random(seed)
        self.act, self.act_ = nn.ReLU(), nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.plain = []  # modules that torch does not see
        self.steps, self.sizes = [], [channels]
        self.add_conv()
        for _ in range(STEPS):
            kinds = ['conv'] * 6 + ['sum'] * 3 + ['cat', 'part', 'size', 'again', 'sequential']
            getattr(self, f'add_{draw.choice(kinds + ["inner"] * depth)}')(depth=depth)
        if last is not None:
            self.add_conv(filters=last)
        self.returns = 'last' if last is not None else draw.choice(list(OUTPUTS))
        del self.draw

    def forward(self, x):
        maps = [x]
        for kind, *args in self.steps:
            maps.append(getattr(self, f'run_{kind}')(maps, *args))
        return OUTPUTS[self.returns](maps)

    def pick(self, fits=lambda size: True):
        """The number of one of the last maps that fit; None if there is none."""
        numbers = [i for i, size in enumerate(self.sizes) if i and fits(size)]
        return self.draw.choice(numbers[-3:]) if numbers else None

    def add(self, size, *step):
        self.steps.append(step)
        self.sizes.append(size)

    def module(self, module):
        name = f'part{len(self._modules)}'
        self.add_module(name, module)
        return name

    # Convolutions with what follows on them.

    def add_conv(self, filters=None, **_):
        draw = self.draw
        i = self.pick() or 0
        filters = filters or draw.choice(WIDTHS)
        order = draw.choice(ORDERS) if i else 'cna'
        kernel, bias = draw.choice((1, 3, 3)), draw.random() < 0.5
        conv = nn.Conv2d(self.sizes[i], filters, kernel, padding=kernel // 2, bias=bias)
        norm = nn.BatchNorm2d(self.sizes[i] if order[0] == 'n' else filters)
        if draw.random() < 0.1:
            conv.register_forward_hook(draw.choice((doubled, looks)))
        if draw.random() < 0.05:
            norm.register_forward_pre_hook(shifted)
        if draw.random() < 0.05:
            self.plain.append(conv)
            name = len(self.plain) - 1
        else:
            name = self.module(conv)
        way = draw.choice(('call', 'call', 'call', 'keyword', 'type'))
        act = draw.choice(list(ACTIVATIONS))
        self.add(filters, 'conv', i, order, name, self.module(norm), act, way)

    def run_conv(self, maps, i, order, conv, norm, act, way):
        conv = self.plain[conv] if isinstance(conv, int) else getattr(self, conv)
        x = maps[i]
        for letter in order:
            if letter == 'a':
                x = ACTIVATIONS[act](self, x)
            elif letter == 'n':
                x = getattr(self, norm)(x)
            elif way == 'type':
                x = conv(x.to(conv.weight.dtype))
            else:
                x = conv(input=x) if way == 'keyword' else conv(x)
        return x

    def add_again(self, **_):
        """A step's modules once more, on another map."""
        known = [step for step in self.steps if step[0] == 'conv' and step[2][0] == 'c']
        kind, i, order, *rest = self.draw.choice(known)
        j = self.pick(lambda size: size == self.sizes[i])
        if j is not None:
            order = self.draw.choice((order, 'cna', 'c'))
            self.add(self.filters(rest[0]), kind, j, order, *rest)

    def filters(self, conv):
        conv = self.plain[conv] if isinstance(conv, int) else getattr(self, conv)
        return conv.out_channels

    def add_sequential(self, **_):
        i, filters = self.pick(), self.draw.choice(WIDTHS)
        modules = [
            *(nn.Conv2d(self.sizes[i], filters, 3, padding=1), nn.BatchNorm2d(filters)),
            *(nn.ReLU(self.draw.random() < 0.5), nn.Conv2d(filters, filters, 1)),
        ]
        cut = self.draw.randrange(5)
        self.add(filters, 'sequential', i, self.module(nn.Sequential(*modules)), cut)

    def run_sequential(self, maps, i, name, cut):
        sequential = getattr(self, name)
        if not cut:
            return sequential(maps[i])
        y = sequential[:cut](maps[i])
        z = y if cut == 4 else sequential[cut:](y)
        return z + y if z.shape == y.shape and cut % 2 else z

    # What joins and divides maps.

    def add_sum(self, **_):
        i = self.pick()
        j = self.pick(lambda size: size == self.sizes[i])
        self.add(self.sizes[i], 'sum', i, j, self.draw.choice(list(SUMS)))

    def run_sum(self, maps, i, j, how):
        return SUMS[how](maps[i], maps[j])

    def add_cat(self, **_):
        i, j = self.pick(), self.pick()
        self.add(self.sizes[i] + self.sizes[j], 'cat', i, j)

    def run_cat(self, maps, i, j):
        return torch.cat([maps[i], maps[j]], dim=1)

    def add_part(self, **_):
        i = self.pick(lambda size: size % 16 == 0)
        if i is not None:
            how = self.draw.choice(list(PARTS))
            self.add(self.sizes[i] // 2, 'part', i, how, self.draw.randrange(2))

    def run_part(self, maps, i, how, which):
        return PARTS[how](maps[i])[which]

    def add_size(self, **_):
        i = self.pick()
        self.add(self.sizes[i], 'size', i, self.draw.choice(list(SIZES)))

    def run_size(self, maps, i, how):
        return SIZES[how](self, maps[i])

    def add_inner(self, depth, **_):
        i, filters = self.pick(), self.draw.choice(WIDTHS)
        inner = Network(self.draw.random(), self.sizes[i], depth - 1, last=filters)
        self.add(filters, 'inner', i, self.module(inner))

    def run_inner(self, maps, i, name):
        return getattr(self, name)(maps[i])


def random_network(seed):
    """One in eval mode whose norms have statistics, about those of their inputs."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Network(seed)
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
            norm.momentum = None
        with torch.no_grad():
            net.train()(torch.randn(4, 3, 16, 24))
        for norm in norms:
            norm.momentum = 0.1
    return net.eval()


def images(seed, count=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 16, 24, generator=generator)
