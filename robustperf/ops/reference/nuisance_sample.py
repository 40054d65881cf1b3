import torch

from robustperf.ops.program import Distribution, steps_of
from robustperf.ops.reference.draws import draws


def nuisance_sample(index, draw, codes, parameters, key):
    def words(first, count, normal=False):
        return draws(key, index, draw, first + count, normal)[..., first:]

    parts = []
    for step in steps_of(codes, parameters):
        lower, upper = (
            torch.tensor(bounds, dtype=torch.float32, device=index.device) for bounds in (step.lower, step.upper)
        )
        if step.distribution == Distribution.BOX:
            parts.append(_between(lower[: step.dim], upper[: step.dim], words(step.word, step.dim)))
        elif step.distribution == Distribution.EVERYWHERE:
            parts.append(_between(lower[0], upper[0], words(step.word, step.dim)))
        elif step.distribution == Distribution.NORMAL:
            parts.append(upper[0] * words(step.word, step.dim, normal=True))
        elif step.distribution == Distribution.BALL:
            normal = words(step.word, step.dim, normal=True).double()
            fraction = words(step.word + step.dim, 1).double() ** (1 / step.dim)  # of the radius
            parts.append((normal * (step.upper[0] * fraction / normal.norm(dim=2, keepdim=True))).float())
        elif step.distribution == Distribution.FOG:
            u = words(step.word, step.dim)
            parts += [_between(lower[0], upper[0], u[..., :1]), u[..., 1:]]
    return torch.cat(parts, 2)


def _between(lower, upper, u):
    return torch.minimum(lower + (upper - lower) * u, upper)
