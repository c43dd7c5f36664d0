"""The scenario of `loadable` that loses tasks; a module has one."""

from tests.docker.apps.loadable import Leaks

scenario = Leaks()
