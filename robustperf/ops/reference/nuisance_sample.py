import torch

from robustperf.ops.program import FOG_NODES, Law
from robustperf.ops.reference.draws import draws


def nuisance_sample(index, draw, codes, numbers, key):
    parts, word = [], 0
    for step in range(len(codes) // 4):
        _, law, size, _ = codes[4 * step : 4 * step + 4]
        if law == Law.SHARED:
            continue
        lower, upper = (
            torch.tensor(numbers[16 * step + place : 16 * step + place + 6], dtype=torch.float32, device=index.device)
            for place in (0, 6)
        )
        if law == Law.BOX:
            parts.append(_between(lower[:size], upper[:size], _words(index, draw, word, size, False, key)))
        elif law == Law.EVERYWHERE:
            parts.append(_between(lower[0], upper[0], _words(index, draw, word, size, False, key)))
        elif law == Law.NORMAL:
            parts.append(upper[0] * _words(index, draw, word, size, True, key))
        elif law == Law.BALL:
            normal = _words(index, draw, word, size, True, key).double()
            share = _words(index, draw, word + size, 1, False, key).double() ** (1 / size)
            parts.append((normal * (numbers[16 * step + 6] * share / normal.norm(dim=2, keepdim=True))).float())
            word += 1
        elif law == Law.FOG:
            u = _words(index, draw, word, 1 + FOG_NODES, False, key)
            parts += [_between(lower[0], upper[0], u[..., :1]), u[..., 1:]]
        word += size
    return torch.cat(parts, 2)


def _words(index, draw, first, count, normal, key):
    return draws(key, index, draw, first + count, normal)[..., first:]


def _between(lower, upper, u):
    return torch.minimum(lower + (upper - lower) * u, upper)
