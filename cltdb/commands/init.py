"""`cltdb init`: a new commented spec."""

from pathlib import Path

from cltdb import output
from cltdb.commands.common import Command
from cltdb.errors import CltdbError, shown


def add_options(parser):
    parser.add_argument("name", metavar="NAME", help="the name of the spec, which becomes experiments/NAME.yaml")
    parser.add_argument(
        "--template",
        choices=["quickstart", "gpt2", "llama", "gemma", "qwen"],
        default="quickstart",
        help="the spec to start from (default quickstart)",
    )


def init_command(options):
    import re
    from importlib.resources import files

    from cltdb.engine.section import MAX_NAME, NAME, docstring
    from cltdb.engine.yaml_text import commented
    from cltdb.spec import Experiment

    try:
        template = files("cltdb.experiments") / f"{options.template}.yaml"
    except ModuleNotFoundError:  # a source checkout, where the folder stands beside the package
        template = Path(__file__).parents[2] / "experiments" / f"{options.template}.yaml"
    if not re.fullmatch(NAME, options.name) or len(options.name) > MAX_NAME:
        raise CltdbError(
            "cltdb init",
            found=f"the name {shown(options.name)}",
            expected=f"letters, digits, dot, dash, underscore, at most {MAX_NAME} characters",
            do="choose such a name",
        )
    target = Path("experiments") / f"{options.name}.yaml"
    if target.exists():
        raise CltdbError(str(target), found="a spec of that name", expected="a new name", do="choose another or remove it")
    text = commented(template.read_text(encoding="utf-8"), lambda path: docstring(path, Experiment))
    text = re.sub(r"^name: .*$", f'name: "{options.name}"', text, count=1, flags=re.MULTILINE)
    target.parent.mkdir(exist_ok=True)
    target.write_text(text, encoding="utf-8")
    output.say(f"wrote {target}")
    if not Path("cltdb.yaml").exists():
        Path("cltdb.yaml").write_text(
            "# The project: where things are, and defaults that every experiment inherits.\nworkspace: artifacts\ndatabase: {path: cltdb.duckdb}\n",
            encoding="utf-8",
        )
        output.say("wrote cltdb.yaml")
    output.say(f"next: cltdb plan {target}")


COMMAND = Command(
    "write a new spec with a comment on each key", "cltdb init my-experiment --template gpt2", add_options, init_command
)
