"""SuperDeepFool against a plain loop of its publication, where the box is inactive."""

import torch

from python_tests.attacks.minimal_norm import nearest_of, small_net
from robustperf.attacks import SuperDeepFool


def plain_loop(net, x, label, steps):
    """SDF(∞, 1), algorithm 2: (the nearest crossing, how many points were evaluated after x, whether it ended)."""
    point, points = x, []

    def gap_at(point):
        logits = net(point)
        gap = (logits[label] - torch.cat([logits[:label], logits[label + 1 :]]).max()).item()
        points.append((point, gap))
        return gap

    crossed = False
    while len(points) < steps:
        logits, jacobian = net(point), torch.autograd.functional.jacobian(net, point)
        others = [j for j in range(len(logits)) if j != label]
        if crossed:  # project x onto the hyperplane through the point
            w = jacobian[max(others, key=lambda j: logits[j].item())] - jacobian[label]
            point = x + (point - x) @ w / (w @ w) * w
            if gap_at(point) < 0:
                return nearest_of(points, x, 2), len(points), True
            crossed = False
            continue
        j = min(others, key=lambda j: ((logits[label] - logits[j]) / (jacobian[j] - jacobian[label]).norm()).item())
        w = jacobian[j] - jacobian[label]
        point = point + 1.02 * (logits[label] - logits[j]) / (w @ w) * w
        crossed = gap_at(point) < 0
    return nearest_of(points, x, 2), len(points), False


def test_plain_loop():
    net, x, labels = small_net(classes=4)
    found = SuperDeepFool(steps=30)(net, x, labels, bounds=(-1e3, 1e3))
    lengths = set()
    for row in range(len(x)):
        expected, count, ended = plain_loop(net, x[row], labels[row].item(), 30)
        torch.testing.assert_close(found.point[row], expected, rtol=1e-6, atol=1e-7)
        assert found.evaluations[row] <= 31 and found.backward[row] <= 93
        if ended and count < 12:  # later the crossings are a matter of rounding
            assert found.evaluations[row] == 1 + count and found.backward[row] == 3 * (count + 1)
            lengths.add(count)
    assert len(lengths) > 1 and (found.gap < 0).all()
