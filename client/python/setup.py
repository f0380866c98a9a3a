"""Puts libstatecache.so into the wheel: from $STATECACHE_LIBRARY, this tree's build/release, or pkg-config."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution
from wheel.bdist_wheel import bdist_wheel

HERE = Path(__file__).resolve().parent
NAME = "libstatecache.so.0"


def find_library() -> Path:
    named = os.environ.get("STATECACHE_LIBRARY")
    if named:
        if not Path(named).is_file():
            raise SystemExit(f"STATECACHE_LIBRARY names {named}, which is not there")
        return Path(named)
    built = HERE.parents[1] / "build" / "release" / "lib" / NAME
    if built.is_file():
        return built
    try:
        libdir = subprocess.run(
            ["pkg-config", "--variable=libdir", "statecache"], check=True, capture_output=True, text=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        libdir = ""
    if libdir and (Path(libdir) / NAME).is_file():
        return Path(libdir) / NAME
    raise SystemExit(
        f"{NAME} was not found: build the tree (cmake --build build/release --target statecache), install it where "
        "pkg-config finds statecache.pc, or set STATECACHE_LIBRARY to the file"
    )


def version() -> str:
    header = (HERE / "statecache" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"', header, re.MULTILINE)
    assert found is not None
    return found.group(1)


class WithLibrary(build_py):
    def run(self) -> None:
        super().run()
        to = Path(self.build_lib) / "statecache"
        to.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(find_library().resolve(), to / NAME)


class Binary(Distribution):
    def has_ext_modules(self) -> bool:
        return True


class AnyPython(bdist_wheel):
    """The library belongs to a machine, not to a version of Python."""

    def get_tag(self):
        _, _, platform = super().get_tag()
        return "py3", "none", platform


setup(version=version(), distclass=Binary, cmdclass={"build_py": WithLibrary, "bdist_wheel": AnyPython})
