"""What `--help` prints: read off the files of `conf/`, so that the answer comes at once."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

FOLDER = Path(__file__).resolve().parent
FLAGS = {"-h", "--help"}


def help_text(config_name: str, program: str) -> str:
    """Return what can be chosen and changed from the command line.

    Args:
        config_name: A primary config in `conf/`, without suffix.
        program: Name of the command.
    """
    primary = FOLDER / f"{config_name}.yaml"
    title = primary.read_text().split("\n", 1)[0].lstrip("# ")
    groups = [_group_line(group, chosen) for group, chosen in _groups(primary).items()]
    return "\n".join(
        [
            title,
            "",
            f"usage: {program} [group=choice ...] [key=value ...]",
            "",
            "groups, and the choice that stands unless you name another:",
            *(groups or ["  none"]),
            "",
            f"Every value, its unit and its meaning stand in {FOLDER}.",
            "  --cfg job              print the composed values and do nothing else",
            "  --multirun key=a,b     run once for each value",
            "  --hydra-help           Hydra's own flags",
            "",
        ]
    )


def _groups(primary: Path) -> dict[str, str]:
    """Return the groups of a primary config with their default choices."""
    entries = OmegaConf.to_container(OmegaConf.load(primary))["defaults"]  # type: ignore[index, call-overload]
    found = {group: choice for e in entries if isinstance(e, dict) for group, choice in e.items()}
    return found | _inner_groups(found)


def _inner_groups(chosen: dict[str, str]) -> dict[str, str]:
    """Return the groups that a choice brings along at the root, with their default choices."""
    found: dict[str, str] = {}
    for group in chosen:
        for path in sorted((FOLDER / group).glob("*.yaml")):
            content = OmegaConf.to_container(OmegaConf.load(path))
            entries = content.get("defaults", []) if isinstance(content, dict) else []
            names = [(str(k), v) for e in entries if isinstance(e, dict) for k, v in e.items()]
            found |= {k[1:]: f"{_words(v)} ({group}={path.stem})" for k, v in names
                      if k.startswith("/") and "@" not in k}  # fmt: skip
    return found


def _words(choice: str | list[str]) -> str:
    return ", ".join(choice) if isinstance(choice, list) else choice


def _group_line(group: str, chosen: str) -> str:
    choices = sorted(path.stem for path in (FOLDER / group).glob("*.yaml"))
    return f"  {group:11} {chosen:16} of {', '.join(choices)}"
