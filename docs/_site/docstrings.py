"""Docstrings as the site shows them: Sphinx's roles, unknown to Markdown, become code, and nothing stands twice."""

from __future__ import annotations

import re
from typing import Any

import griffe


class WithoutRoles(griffe.Extension):
    """``:func:`~curl_rl.losses.info_nce``` becomes ```info_nce```."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrites every docstring of the package; those of attributes are there only now."""
        self._rewrite(pkg)

    def _rewrite(self, obj: griffe.Object) -> None:
        if obj.docstring is not None:
            shortened = re.sub(r":\w+:`~(?:\w+\.)*(\w+)`", r"`\1`", obj.docstring.value)
            plain = re.sub(r":\w+:`([^`]+)`", r"`\1`", shortened)
            single = re.sub(r"::$", ":", plain, flags=re.MULTILINE)  # what follows is indented anyway
            # "cuda:<index>" is no tag of HTML
            obj.docstring.value = re.sub(r"(`+)[^`]+\1|<(?=\w)", lambda part: part[0] if part[1] else "&lt;", single)
        for member in obj.members.values():
            if isinstance(member, griffe.Object):
                self._rewrite(member)


class Once(griffe.Extension):
    """Shows what a room exports under the room, from which users import it, and not again under its file."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Removes what is exported from the files, and the files of which nothing is left."""
        for room in pkg.modules.values():
            exported = {name for name in map(str, room.exports or ()) if name in room.members}
            targets = [room[name].final_target for name in exported if room[name].is_alias]
            for target in targets:
                file = target.parent
                if file is not None and file.path.startswith(f"{room.path}.") and target.name in file.members:
                    file.del_member(target.name)
            for file in {target.module.path for target in targets} & {module.path for module in room.modules.values()}:
                module = room.modules[file.rpartition(".")[2]]
                if all(member.is_alias or name.startswith("_") for name, member in module.members.items()):
                    room.del_member(module.name)
