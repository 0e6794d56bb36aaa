"""How explanations are scored: a module per scorer, with

    METHODS                          {side of explanations that it scores: the method of judges that it asks}
    CHANCE                           what guessing gets; None where it depends on the windows
    OF_FEATURE                       whether it scores the feature, without an explanation, by a language model
    trial(subject, side, rng)        the `Trial`; None where the feature gives none
    measure(trial, answers, rng)     the `Score`
    prepare(subjects)                where it has one: makes what the trials of a block of features need, all at once

Questions depend on the feature, the seed and the scorer alone, so that all explanations of a feature get the same.
"""

from cltdb.explain.scorers import detection, fuzzing, intervention, intruder, pick_one, simulation

SCORERS = {
    "detection": detection,
    "fuzzing": fuzzing,
    "simulation": simulation,
    "pick_one": pick_one,
    "intruder": intruder,
    "intervention": intervention,
}
"""{name in `explain.scorers`: module}."""
