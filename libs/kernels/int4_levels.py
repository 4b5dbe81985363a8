#!/usr/bin/env python3
"""Derives the levels of int4 weights (quantize.cc): prints sixteen integers.

Lloyd's iteration for groups of 32 normal values under the quantiser's own rule: of both signs and
some sizes of scale take the one that fits best, then the best scale for its codes. It starts at
levels that are not symmetric, as the rest points then are not either, and better for it: the sign
of the scale turns the longer end to where a group needs it. Takes seconds.
"""

import bisect
import random

GROUPS = 3000
ITERATIONS = 25
ENDS = (107, 117, 127, 137, 147)  # What the largest magnitude of a group becomes, in levels.
START = (-126, -98, -75, -57, -42, -28, -16, -5, 6, 17, 29, 43, 59, 77, 99, 127)


def fit(group, levels, bounds):
    """The scale and codes of one group."""
    largest = max(abs(value) for value in group)
    best = (-1.0, 0.0, ())
    for end in ENDS:
        for inverse in (end / largest, -end / largest):
            codes = [bisect.bisect_left(bounds, value * inverse) for value in group]
            product = sum(value * levels[code] for value, code in zip(group, codes))
            square = sum(levels[code] ** 2 for code in codes)
            best = max(best, (product * product / square, product / square, codes))
    return best[1], best[2]


def main():
    rng = random.Random(1)
    groups = [[rng.gauss(0.0, 1.0) for _ in range(32)] for _ in range(GROUPS)]
    levels = list(START)
    for _ in range(ITERATIONS):
        bounds = [(low + high) / 2 for low, high in zip(levels, levels[1:])]
        products = [0.0] * 16
        squares = [0.0] * 16
        for group in groups:
            scale, codes = fit(group, levels, bounds)
            for value, code in zip(group, codes):
                products[code] += scale * value
                squares[code] += scale * scale
        means = [product / square for product, square in zip(products, squares)]
        largest = max(abs(mean) for mean in means)
        levels = [127 * mean / largest for mean in means]
    print(", ".join(str(round(level)) for level in levels))


if __name__ == "__main__":
    main()
