"""Labels, environment and annotations."""

from __future__ import annotations

import pytest

from imagekit.base.errors import UsageError
from registrydisk.labels import checked_variables, environment_of, instancetype_labels, parse_assignments


def test_instance_types_are_labels_and_environment() -> None:
    labels = instancetype_labels(instancetype="virtualmachineinstancetype/u1.small", preference="fedora")
    assert labels == {
        "instancetype.kubevirt.io/default-instancetype": "u1.small",
        "instancetype.kubevirt.io/default-instancetype-kind": "VirtualMachineInstancetype",
        "instancetype.kubevirt.io/default-preference": "fedora",
    }
    assert environment_of({**labels, "other": "x"}) == {
        "INSTANCETYPE_KUBEVIRT_IO_DEFAULT_INSTANCETYPE": "u1.small",
        "INSTANCETYPE_KUBEVIRT_IO_DEFAULT_INSTANCETYPE_KIND": "VirtualMachineInstancetype",
        "INSTANCETYPE_KUBEVIRT_IO_DEFAULT_PREFERENCE": "fedora",
    }
    assert instancetype_labels() == {}


@pytest.mark.parametrize("text", ["virtualmachinepreference/u1", "pod/u1", "U1", "a b", "-a", "/", "virtualmachineinstancetype/"])
def test_what_is_no_instance_type_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        instancetype_labels(instancetype=text)


def test_assignments() -> None:
    assert parse_assignments(("a=1", "b=x=y", "c="), option="--label") == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize("text", ["a", "=1", " =1", "a=1\n2", "a=\x1b[2J", "a=" + "x" * 5000])
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_assignments((text,), option="--label")


def test_variables_need_a_name() -> None:
    with pytest.raises(UsageError):
        checked_variables({"a-b": "1"})
