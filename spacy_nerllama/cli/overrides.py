"""Settings on the command line (--section.key value), as spaCy's own commands take them."""

from typing import Any

from typer import Context


def config_overrides(ctx: Context) -> dict[str, Any]:
    """Read what is left of a command line as overrides of a config, by dotted key.

    RAISES: A usage error for anything else, such as an option that does not exist.
    """
    from click import UsageError
    from spacy.cli._util import parse_config_overrides

    try:
        return parse_config_overrides(ctx.args)
    except UsageError as error:  # spaCy's is click's, which a typer that has its own click does not catch
        ctx.fail(error.format_message())
