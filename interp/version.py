"""Which version of this package is installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("interp")
except PackageNotFoundError:  # run from its sources
    __version__ = "not installed"
