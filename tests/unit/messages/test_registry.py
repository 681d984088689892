"""Names of classes and classes of names."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.events import Command, DomainEvent, EventCodec, EventValidationError, event_type
from lexigram.events.messages.registry import EventTypeRegistry, default_registry, full_name


class RegistryParent(DomainEvent):
    a: int = 0


class RegistryChild(RegistryParent):
    b: int = 0


class RegistryTwin(DomainEvent):
    a: int = 0


HERE = __name__


def twin() -> type[DomainEvent]:
    """A class of the same name in another place."""

    class RegistryTwin(DomainEvent):
        a: int = 0

    return RegistryTwin


def test_a_class_is_stored_under_its_full_name() -> None:
    """Module and qualified name."""
    assert default_registry.type_name(RegistryChild) == f"{HERE}.RegistryChild"
    assert default_registry.resolve(f"{HERE}.RegistryChild") is RegistryChild


def test_an_alias_becomes_the_stored_name_and_the_full_name_still_resolves() -> None:
    """Events stored before the class got its alias are found too, and so are former names."""
    registry = EventTypeRegistry()

    @event_type("registry.named", "old.place.Named", registry=registry)
    class Named(DomainEvent):
        a: int = 0

    assert registry.type_name(Named) == "registry.named"
    for name in ("registry.named", "old.place.Named", full_name(Named)):
        assert registry.resolve(name) is Named
    assert registry.select(Named) == registry.select("registry.named") == registry.select("old.place.Named")
    assert registry.select(Named) == {"registry.named", "old.place.Named", full_name(Named)}


def test_an_alias_belongs_to_one_class() -> None:
    """A second class cannot take it; defining the same class again can."""
    registry = EventTypeRegistry()
    registry.register(RegistryParent, "taken")
    with pytest.raises(EventValidationError, match="already belongs to") as caught:
        registry.register(RegistryTwin, "taken")
    assert caught.value.field == "alias"
    registry.register(RegistryParent, "taken")


@pytest.mark.parametrize("alias", ["", "a\0b", "x" * 256, 5])
def test_bad_aliases_are_refused(alias: Any) -> None:
    """Empty, with NUL, too long, or not text."""
    with pytest.raises(EventValidationError) as caught:
        EventTypeRegistry().register(RegistryParent, alias)
    assert caught.value.field == "alias"
    with pytest.raises(EventValidationError, match=r'@event_type\("order.item_added"\)'):
        event_type(RegistryParent)  # type: ignore[arg-type]  # the decorator without its parentheses


def test_only_classes_are_registered() -> None:
    """An instance is not a class."""
    with pytest.raises(EventValidationError) as caught:
        EventTypeRegistry().register(RegistryParent())  # type: ignore[arg-type]
    assert caught.value.field == "cls"


def test_a_class_selects_itself_and_its_subclasses() -> None:
    """The framework's event class selects everything."""
    assert default_registry.select(RegistryParent) == {f"{HERE}.RegistryParent", f"{HERE}.RegistryChild"}
    assert default_registry.select(RegistryChild) == {f"{HERE}.RegistryChild"}
    assert default_registry.select([RegistryChild, "RegistryParent"]) == default_registry.select(RegistryParent)
    assert default_registry.select(RegistryParent) < default_registry.select(ContractEvent)


def test_a_class_name_selects_if_it_is_unique() -> None:
    """Two classes of one name are ambiguous; the full name is not. Unknown names stand for themselves."""
    assert default_registry.select("RegistryTwin") == {f"{HERE}.RegistryTwin"}
    other = twin()
    with pytest.raises(EventValidationError, match="'RegistryTwin' is ambiguous") as caught:
        default_registry.select("RegistryTwin")
    assert caught.value.field == "types"
    assert default_registry.select(full_name(other)) == {full_name(other)}
    assert default_registry.select("far.away.Gone") == {"far.away.Gone"}
    del other, caught
    gc.collect()
    assert default_registry.select("RegistryTwin") == {f"{HERE}.RegistryTwin"}


def test_a_class_that_has_not_been_used_yet_is_selected_by_its_name() -> None:
    """One of the framework's own event class enters the registry by its first use only."""

    class RegistryUnused(ContractEvent):
        pass

    registry = EventTypeRegistry()
    for known in (registry, default_registry):
        assert known.select("RegistryUnused") == {full_name(RegistryUnused)}
    assert registry.select("RegistryChild") == {f"{HERE}.RegistryChild"}


def test_a_name_that_no_class_can_have_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page of a subscription selects its types: looking through all classes each time would cost more than the page."""
    registry, looked = EventTypeRegistry(), list[None]()
    monkeypatch.setattr(registry, "_register_events", lambda: looked.append(None))
    for name in ("registryorder.placed", "order-placed", "order placed"):
        assert registry.select(name) == {name}
    assert not looked
    registry.select(f"{HERE}.RegistryChild")
    registry.select("RegistryChild")
    assert len(looked) == 2


def test_a_class_name_that_nothing_has_is_mentioned_once(caplog: pytest.LogCaptureFixture) -> None:
    """Its module may not be imported. Other names may be event types that events were given, of any program."""
    registry = EventTypeRegistry()
    for name in ("RegistryNobody", "RegistryNobody", "item.imported", "imported", "far.away.Gone"):
        assert registry.select(name) == {name}
    assert [record.getMessage().split(" is known")[0] for record in caplog.records] == [
        "no event class named 'RegistryNobody'"
    ]


@pytest.mark.parametrize("types", [5, [5], [""], [None]])
def test_a_selection_of_something_else_is_refused(types: Any) -> None:
    """Only classes and names."""
    with pytest.raises((EventValidationError, TypeError)):
        default_registry.select(types)


def test_a_name_that_no_longer_exists_falls_back_with_a_warning() -> None:
    """To the only class of that name or alias; with two candidates to none."""
    with pytest.warns(UserWarning, match=r"'moved\.away\.RegistryChild' is not known; taken to be .*@event_type"):
        assert default_registry.resolve("moved.away.RegistryChild", "RegistryChild") is RegistryChild
    other = twin()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert default_registry.resolve("moved.away.RegistryTwin", "RegistryTwin") is None
        assert default_registry.resolve("moved.away.Nothing", "Nothing") is None
    del other


def test_the_fallback_warns_on_every_read_through_the_codec() -> None:
    """The guess is not kept, so that a better registration is found at once."""
    codec = EventCodec()
    row = codec.encode(RegistryChild(b=1))
    for _ in range(2):
        with pytest.warns(UserWarning, match="is not known"):
            event = codec.decode("moved.away.RegistryChild", "RegistryChild", row.payload, 1, 1)
        assert type(event) is RegistryChild
    registry = EventTypeRegistry()
    registry.register(RegistryChild, "moved.away.RegistryChild")
    assert type(EventCodec(registry).decode("moved.away.RegistryChild", "x", row.payload, 1, 1)) is RegistryChild


def test_an_alias_given_later_is_used_at_once() -> None:
    """What codecs have remembered of a registry follows its changes."""
    registry = EventTypeRegistry()
    codec = EventCodec(registry)

    class Later(DomainEvent):
        a: int = 0

    assert codec.encode(Later()).type_name == full_name(Later)
    registry.register(Later, "later")
    row = codec.encode(Later(a=5))
    assert row.type_name == "later"
    assert codec.decode("later", "Later", row.payload, 1, 1).a == 5  # type: ignore[attr-defined]


def test_framework_events_are_found_without_registration() -> None:
    """Subclasses of the framework's own class do not register themselves."""

    class NeverSeen(ContractEvent):
        pass

    assert default_registry.resolve(full_name(NeverSeen)) is NeverSeen


def test_a_class_that_goes_away_leaves_its_name() -> None:
    """The registry keeps no class alive."""

    class Passing:
        pass

    registry = EventTypeRegistry()
    registry.register(Passing, "passing")
    name, gone = full_name(Passing), weakref.ref(Passing)
    del Passing
    gc.collect()
    assert gone() is None
    assert registry.resolve_value(name) is None
    assert not registry.knows("passing")


def test_values_resolve_only_in_packages_that_have_events() -> None:
    """A plain data class of a loaded module is found by name, anything else is not."""
    registry = EventTypeRegistry()
    assert registry.resolve_value(f"{HERE}.RegistryParent") is None
    registry.register(RegistryChild)
    from tests.unit.messages import codec_samples

    assert registry.resolve_value("tests.unit.messages.codec_samples.Item") is codec_samples.Item
    for name in ("argparse.Namespace", "tests.unit.messages.codec_samples.same", "subprocess.Popen", "", "."):
        assert registry.resolve_value(name) is None


def test_a_script_s_classes_are_stored_under_the_script_s_name(tmp_path: Path) -> None:
    """So that the module can be imported by another program that reads the events."""
    script = tmp_path / "shop_script.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            from lexigram.events import DomainEvent, EventCodec

            class Sold(DomainEvent):
                sku: str

            if __name__ == "__main__":
                row = EventCodec().encode(Sold(sku="x"))
                print(row.type_name)
                sys.stdout.buffer.write(row.payload)
            """
        )
    )
    for command, name in (([str(script)], "shop_script.Sold"), (["-m", "shop_script"], "shop_script.Sold")):
        out = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, check=True).stdout
        first, _, payload = out.partition(b"\n")
        assert first.decode() == name
        read = "import sys, shop_script; from lexigram.events import EventCodec; " \
            f"e = EventCodec().decode('{name}', 'Sold', sys.stdin.buffer.read(), 1, 1); print(type(e).__name__, e.sku)"  # fmt: skip
        answer = subprocess.run(
            [sys.executable, "-c", read], cwd=tmp_path, input=payload, capture_output=True, check=True
        )
        assert answer.stdout.split() == [b"Sold", b"x"]


def test_a_restarted_script_finds_its_own_commands_and_values(tmp_path: Path) -> None:
    """What a saga or an outbox has stored of them outlives the process, though `__main__` is no module of that name."""
    script = tmp_path / "shop_script.py"
    script.write_text(
        textwrap.dedent(
            """
            import dataclasses, sys
            from lexigram.events import Command, DomainEvent, EventCodec

            class Sold(DomainEvent):
                sku: str

            @dataclasses.dataclass
            class Price:
                cents: int

            class Ship(Command[None]):
                sku: str

            if sys.argv[1:] == ["write"]:
                sys.stdout.buffer.write(EventCodec().encode_value([Ship(sku="x"), Price(3)]))
            else:
                print(*[type(value).__name__ for value in EventCodec().decode_value(sys.stdin.buffer.read())])
            """
        )
    )
    for command in ([str(script)], ["-m", "shop_script"]):
        program = [sys.executable, *command]
        stored = subprocess.run([*program, "write"], cwd=tmp_path, capture_output=True, check=True).stdout
        read = subprocess.run(program, cwd=tmp_path, input=stored, capture_output=True, check=True)
        assert read.stdout.split() == [b"Ship", b"Price"]


def test_commands_are_found_where_no_events_are_defined() -> None:
    """A package of commands alone; and a class that is no plain data is not found even so."""

    class Pack(Command[None]):
        box: str

    registry = EventTypeRegistry()
    assert registry.resolve_value(full_name(Pack)) is Pack
    assert registry.resolve_value(f"{HERE}.nothing") is None
