"""Helm's own engine, for tests: the library of Helm 4, in the package helm-python-sdk.

Usage: helm.py ACTION, with the action's arguments as a JSON object on standard input. Prints JSON. When Helm refuses, exits
with 1 and Helm's message on standard error.
"""

import json
import sys

from helm_python import Chart, Config, HelmError, lint


def render(chart, values, **release):
    """The manifests that `helm template` prints, by the template's path."""
    return Chart.load(chart).render(values, **release)


def check(chart, **options):
    """What `helm lint` finds."""
    return lint(chart, **options)


def values(chart):
    """The chart's own values."""
    return Chart.load(chart).values


def install(kubeconfig, namespace, chart, name, values):
    with Config(kubeconfig_path=kubeconfig, namespace=namespace) as config:
        return config.install(chart, name, values, namespace=namespace)


def upgrade(kubeconfig, namespace, chart, name, values):
    with Config(kubeconfig_path=kubeconfig, namespace=namespace) as config:
        return config.upgrade(chart, name, values, namespace=namespace)


def rollback(kubeconfig, namespace, name, version):
    with Config(kubeconfig_path=kubeconfig, namespace=namespace) as config:
        return config.rollback(name, version=version)


def test(kubeconfig, namespace, name):
    with Config(kubeconfig_path=kubeconfig, namespace=namespace) as config:
        return config.test(name)


def uninstall(kubeconfig, namespace, name):
    with Config(kubeconfig_path=kubeconfig, namespace=namespace) as config:
        return config.uninstall(name)


if __name__ == "__main__":
    actions = (render, check, values, install, upgrade, rollback, test, uninstall)
    action = {action.__name__: action for action in actions}[sys.argv[1]]
    try:
        json.dump(action(**json.load(sys.stdin)), sys.stdout)
    except HelmError as error:
        sys.exit(str(error))
