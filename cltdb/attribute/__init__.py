"""Attribution graphs: which features, through which direct effects, make a prompt's logits; checked by intervention.

The stage's package and its main function share a name: `cltdb.attribute(model, dictionary, prompt, …)` calls
`cltdb.attribute.graph.attribute`.
"""

import sys
from types import ModuleType


class _Callable(ModuleType):
    def __call__(self, *arguments, **options):
        from cltdb.attribute.graph import attribute

        return attribute(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
