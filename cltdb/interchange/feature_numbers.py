"""A feature as one number in other tools' files: the Cantor pair of its layer and index."""

import math


def cantor_pair(layer, feature):
    """The number of a feature: layer 1, feature 57794 is 1670217704."""
    return (layer + feature) * (layer + feature + 1) // 2 + feature


def cantor_unpair(number):
    """(layer, feature) of a number of any size, exactly: other tools' float square roots fail above 2**53."""
    diagonal = (math.isqrt(8 * number + 1) - 1) // 2
    feature = number - diagonal * (diagonal + 1) // 2
    return diagonal - feature, feature
