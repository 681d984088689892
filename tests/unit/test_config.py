"""Configuration: every spelling of the documents, from code, YAML and environment, with clear errors."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from lexigram.config import LexigramConfig
from lexigram.config.base import BaseConfig
from lexigram.contracts.core.config import Environment
from lexigram.events import config as config_package
from lexigram.events.config import (
    EventBusConfig,
    EventsConfig,
    KafkaConfig,
    MongoDBEventStoreConfig,
    PostgresEventStoreConfig,
    RabbitMQConfig,
    RedisEventStoreConfig,
    SqliteConfig,
)
from lexigram.events.config.section import ConfigSection
from lexigram.events.exceptions import EventValidationError
from lexigram.events.types import EventStoreBackend, SnapshotStrategy

POSTGRES = "postgresql://ada:s3cr3t@db.example/events"

# One row per spelling: what is written, and where it must arrive.
SPELLINGS: list[tuple[dict[str, Any], str, Any]] = [
    ({"event_store_backend": "sqlite"}, "event_store_backend", EventStoreBackend.SQLITE),
    ({"event_store": {"backend": "sqlite"}}, "event_store_backend", EventStoreBackend.SQLITE),
    ({"event_store_backend": "SQLITE"}, "event_store_backend", EventStoreBackend.SQLITE),
    ({"event_bus": {"backend": "redis"}}, "event_bus.backend", "redis"),
    ({"event_bus_backend": "redis"}, "event_bus.backend", "redis"),
    ({"event_bus": {"backend": "redis", "redis": {"url": "redis://h"}}}, "redis.url", "redis://h"),
    ({"memory": {"max_events_per_stream": 0}}, "memory.max_events_per_stream", 0),
    ({"event_bus": {"handler_timeout": 5}}, "event_bus.handler_timeout_seconds", 5.0),
    ({"outbox": {"enabled": False}}, "outbox.enabled", False),
    ({"outbox_enabled": False}, "outbox.enabled", False),
    ({"outbox": {"poll_interval": 7}}, "outbox.poll_interval", 7.0),
    ({"outbox_poll_interval": 7}, "outbox.poll_interval", 7.0),
    ({"saga": {"enabled": False}}, "saga.enabled", False),
    ({"sagas": {"enabled": False}}, "saga.enabled", False),
    ({"sagas_enabled": False}, "saga.enabled", False),
    ({"projection": {"batch_size": 7}}, "projection.batch_size", 7),
    ({"projections": {"batch_size": 7}}, "projection.batch_size", 7),
    ({"snapshots": {"strategy": "time_based"}}, "snapshots.strategy", SnapshotStrategy.TIME_BASED),
    ({"snapshot": {"event_count_threshold": 9}}, "snapshots.event_count_threshold", 9),
    ({"sqlite": {"database": "a.db"}}, "sqlite.database", "a.db"),
    ({"sqlite": {"path": "a.db"}}, "sqlite.database", "a.db"),
    ({"sqlite": {"url": "sqlite:///a.db"}}, "sqlite.database", "a.db"),
    ({"sqlite": {"dsn": "sqlite:////var/a.db"}}, "sqlite.database", "/var/a.db"),
    ({"sqlite_database": "007"}, "sqlite.database", "007"),
    ({"sqlite": {"synchronous": "normal"}}, "sqlite.synchronous", "NORMAL"),
    ({"sqlite": {"busy_timeout_seconds": 2}}, "sqlite.busy_timeout_seconds", 2.0),
    *[({"postgres": {key: POSTGRES}}, "postgres.dsn", POSTGRES) for key in ("dsn", "connection_string", "uri", "url")],
    ({"postgres_connection_string": POSTGRES}, "postgres.dsn", POSTGRES),
    ({"mongodb": {"uri": "mongodb://h/x"}}, "mongodb.connection_string", "mongodb://h/x"),
    ({"mongo": {"connection_string": "mongodb://h/x"}}, "mongodb.connection_string", "mongodb://h/x"),
    ({"redis": {"url": "redis://localhost:6379/0"}}, "redis.url", "redis://localhost:6379/0"),
    ({"event_store": {"memory": {"max_events_per_stream": 7}}}, "memory.max_events_per_stream", 7),
    ({"event_store": {"backend": "sqlite", "sqlite": {"path": "a.db"}}}, "sqlite.database", "a.db"),
    ({"event_store": {"postgres": {"dsn": POSTGRES}}}, "postgres.dsn", POSTGRES),
    ({"event_store": {"mongodb": {"uri": "mongodb://h/x"}}}, "mongodb.connection_string", "mongodb://h/x"),
    ({"event_store": {"redis": {"url": "redis://h"}}}, "redis.url", "redis://h"),
    ({"redis": {"connection_string": "rediss://h"}}, "redis.url", "rediss://h"),
    ({"rabbitmq": {"url": "amqp://h"}}, "rabbitmq.url", "amqp://h"),
    ({"kafka": {"bootstrap_servers": "h:9092"}}, "kafka.bootstrap_servers", "h:9092"),
    ({"azure": {"connection_string": "Endpoint=sb://x"}}, "azure_servicebus.connection_string", "Endpoint=sb://x"),
    ({"command_bus": {"max_retries": 9}}, "command_bus.max_retries", 9),
    ({"command_bus": {"timeout_seconds": 2.5}}, "command_bus.timeout_seconds", 2.5),
    ({"metrics_middleware": {"enabled": False}}, "metrics_middleware.enabled", False),
    ({"enabled": False}, "enabled", False),
    ({"env": "production"}, "env", Environment.PRODUCTION),
]


def flat(values: Mapping[str, Any], prefix: str = "LEX_EVENTS") -> dict[str, str]:
    """Return the environment variables that say what `values` says."""
    variables: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}__{key.upper()}"
        variables |= (
            flat(value, name)
            if isinstance(value, Mapping)
            else {name: str(value).lower() if value in (True, False) else str(value)}
        )
    return variables


def at(config: EventsConfig, path: str) -> Any:
    """Return the plain value at a dotted path."""
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part)
    return value.get_secret_value() if hasattr(value, "get_secret_value") else value


def from_code(values: dict[str, Any], folder: Path, patch: pytest.MonkeyPatch) -> EventsConfig:
    return EventsConfig(**values)


def from_dict(values: dict[str, Any], folder: Path, patch: pytest.MonkeyPatch) -> EventsConfig:
    return EventsConfig.from_dict(values)


def from_yaml(values: dict[str, Any], folder: Path, patch: pytest.MonkeyPatch) -> EventsConfig:
    (folder / "application.yaml").write_text(yaml.safe_dump({"events": values}), encoding="utf-8")
    return EventsConfig.from_yaml(folder / "application.yaml")


def from_environment(values: dict[str, Any], folder: Path, patch: pytest.MonkeyPatch) -> EventsConfig:
    for name, value in flat(values).items():
        patch.setenv(name, value)
    return EventsConfig.from_yaml(folder / "application.yaml")


def from_application(values: dict[str, Any], folder: Path, patch: pytest.MonkeyPatch) -> EventsConfig:
    (folder / "application.yaml").write_text(yaml.safe_dump({"events": values}), encoding="utf-8")
    patch.chdir(folder)
    return EventsConfig.from_section(LexigramConfig.from_env_profile().get_section("events"))


def from_framework(values: dict[str, Any], folder: Path, patch: pytest.MonkeyPatch) -> EventsConfig:
    """The framework's own strict binding, which only knows dataclass fields."""
    return LexigramConfig.from_dict({"events": values}).get_section("events", EventsConfig)


SOURCES = [from_code, from_dict, from_yaml, from_environment, from_application]


@pytest.mark.parametrize("source", SOURCES, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("values", "path", "expected"), SPELLINGS, ids=lambda v: str(v)[:60])
def test_every_spelling_arrives_from_every_source(
    source: Callable[..., EventsConfig],
    values: dict[str, Any],
    path: str,
    expected: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The documents' flat and nested spellings mean the same in code, YAML and environment."""
    assert at(source(values, tmp_path, monkeypatch), path) == expected


@pytest.mark.parametrize(
    "values", [{"event_store": {"backend": "sqlite"}}, {"sagas": {"enabled": False}}, {"postgres": {"uri": POSTGRES}}]
)
def test_the_frameworks_strict_binding_accepts_nested_spellings(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`LexigramConfig.get_section("events", EventsConfig)` knows the aliases, though they are no fields."""
    config = from_framework(values, tmp_path, monkeypatch)
    assert config == EventsConfig(**values)
    assert not {"event_store", "sagas", "uri"} & set(config.model_dump())


def test_defaults_are_those_of_the_documents() -> None:
    """Without configuration: memory, outbox on every five seconds, sagas on."""
    config = EventsConfig()
    assert config.enabled
    assert config.event_store_backend is EventStoreBackend.MEMORY
    assert (config.event_bus.backend, config.outbox.enabled, config.outbox.poll_interval) == ("memory", True, 5)
    assert config.saga.enabled
    assert config.validate_backend_config() == []
    assert SqliteConfig().synchronous == "FULL"


def test_sections_of_two_configurations_are_not_shared() -> None:
    """Each configuration has its own sections."""
    assert EventsConfig().event_bus is not EventsConfig().event_bus


def test_environment_overrides_yaml_under_another_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment wins although YAML and environment spell the field differently."""
    (tmp_path / "application.yaml").write_text(
        "events:\n  event_store_backend: postgres\n  sqlite: {database: yaml.db}\n  command_bus: {max_retries: 1}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEX_EVENTS__EVENT_STORE__BACKEND", "sqlite")
    monkeypatch.setenv("LEX_EVENTS__SQLITE__PATH", "env.db")
    for config in (
        EventsConfig.from_yaml(),
        EventsConfig.from_section(LexigramConfig.from_env_profile().get_section("events")),
    ):
        assert config.event_store_backend is EventStoreBackend.SQLITE
        assert config.sqlite is not None
        assert config.sqlite.database == "env.db"
        assert config.command_bus.max_retries == 1
    assert EventsConfig.from_yaml(env_override=False).event_store_backend is EventStoreBackend.POSTGRES


def test_profile_overrides_the_base_file(tmp_path: Path) -> None:
    """`application.<profile>.yaml` lies on top of `application.yaml`."""
    (tmp_path / "application.yaml").write_text("events: {event_store_backend: memory, debug: true}")
    (tmp_path / "application.staging.yaml").write_text("events: {event_store_backend: sqlite}")
    config = EventsConfig.from_yaml(tmp_path / "application.yaml", profile="staging")
    assert config.event_store_backend is EventStoreBackend.SQLITE
    assert config.debug


def test_code_is_not_overridden_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration made in code is taken as it is, also where an application passes it on as a mapping."""
    monkeypatch.setenv("LEX_EVENTS__EVENT_STORE__BACKEND", "sqlite")
    assert EventsConfig().event_store_backend is EventStoreBackend.MEMORY
    section = LexigramConfig.from_dict({"events": {"event_store_backend": "memory"}}).get_section("events")
    assert isinstance(section, dict)
    assert EventsConfig.from_section(section).event_store_backend is EventStoreBackend.MEMORY


@pytest.mark.parametrize("source", SOURCES, ids=lambda f: f.__name__)
def test_variables_are_substituted_from_every_source(
    source: Callable[..., EventsConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`${VAR}` and `${VAR:default}` work in code, YAML and environment."""
    monkeypatch.setenv("DATABASE_URL", POSTGRES)
    values = {
        "postgres": {"connection_string": "${DATABASE_URL}"},
        "sqlite": {"database": "${NOWHERE:a}-${NOWHERE:}.db"},
    }
    config = source(values, tmp_path, monkeypatch)
    assert at(config, "postgres.dsn") == POSTGRES
    assert at(config, "sqlite.database") == "a-.db"


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which field and which variable, and how to give a default."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(EventValidationError, match=r"dsn refers to the environment variable DATABASE_URL") as caught:
        PostgresEventStoreConfig(connection_string="${DATABASE_URL}")
    assert caught.value.field == "PostgresEventStoreConfig.dsn"


SECRETS = [
    EventsConfig(postgres={"dsn": POSTGRES}),
    EventsConfig(mongodb={"uri": "mongodb://ada:s3cr3t@h/x"}),
    EventsConfig(redis={"url": "redis://:s3cr3t@h"}),
    EventsConfig(rabbitmq={"url": "amqp://ada:s3cr3t@h"}),
    EventsConfig(azure={"connection_string": "Endpoint=sb://x;SharedAccessKey=s3cr3t"}),
]


@pytest.mark.parametrize(
    "config",
    SECRETS,
    ids=lambda c: next(n for n in ("postgres", "mongodb", "redis", "rabbitmq", "azure_servicebus") if getattr(c, n)),
)
def test_secrets_are_masked(config: EventsConfig) -> None:
    """No representation shows a password."""
    shown = [repr(config), str(config), str(config.to_safe_dict()), config.model_dump_json(), f"{config.model_dump()}"]
    assert all("s3cr3t" not in text for text in shown)


@pytest.mark.parametrize(
    "values",
    [
        {"postgres": POSTGRES},
        {"postgres": {"dsn": POSTGRES.replace("postgresql", "mysql")}},
        {"postgres": {"dsn": POSTGRES, "url": POSTGRES + "2"}},
        {"postgres": {"dsn": [POSTGRES]}},
    ],
)
def test_errors_never_show_secrets(values: dict[str, Any]) -> None:
    """A wrong address is reported without its content."""
    with pytest.raises(EventValidationError) as caught:
        EventsConfig(**values)
    assert "s3cr3t" not in str(caught.value)
    assert "events.postgres" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"event_store_backend": "oracle"},
            r"events\.event_store_backend: expected one of memory, .* got 'oracle' \(str\)",
        ),
        (
            {"event_bus": {"max_handler_retries": "many"}},
            r"events\.event_bus\.max_handler_retries: expected a whole number, got 'many'",
        ),
        ({"event_bus": {"max_handler_retries": 1.5}}, r"expected a whole number, got 1\.5 \(float\)"),
        ({"event_bus": {"max_handler_retries": True}}, r"expected a whole number, got True \(bool\)"),
        ({"event_bus": {"max_handler_retries": -1}}, r"expected a number of at least 0, got -1"),
        (
            {"command_bus": {"timeout_seconds": 0}},
            r"events\.command_bus\.timeout_seconds: expected a number greater than 0",
        ),
        ({"command_bus": {"timeout_seconds": "nan"}}, r"expected a number, got 'nan'"),
        ({"event_bus": {"parallel_dispatch": "perhaps"}}, r"expected true or false, got 'perhaps'"),
        ({"event_bus": {"parallel_dispatch": []}}, r"expected true or false, got \[\] \(list\)"),
        ({"event_bus": {"backend": "carrier pigeon"}}, r"expected one of memory, redis, rabbitmq, kafka, azure"),
        ({"event_bus": 3}, r"events\.event_bus: expected a mapping or EventBusConfig, got int"),
        ({"sqlite": {"database": ""}}, r"events\.sqlite\.database: expected the path of a file"),
        ({"sqlite": {"database": "a\0b"}}, r"events\.sqlite\.database"),
        ({"sqlite": {"url": "postgresql://u:secret@h/x"}}, r"events\.sqlite\.database: expected the path of a file"),
        ({"sqlite": {"pragmas": 3}}, r"events\.sqlite\.pragmas: expected a mapping"),
        ({"sqlite": {"synchronous": "SOMETIMES"}}, r"expected one of FULL, NORMAL, OFF, EXTRA"),
        ({"metrics_middleware": {"histogram_buckets": [1, "x"]}}, r"histogram_buckets\[1\]: expected a number"),
        ({"kafka": {}}, r"events\.kafka\.bootstrap_servers is required"),
        ({"postgres": {"schema_name": "a b"}}, r"events\.postgres\.schema_name: expected a text that matches .*'a b'"),
        ({"postgres": {"events_table": "x;--"}}, r"events\.postgres\.events_table: expected a text that matches"),
        ({"postgres": {"snapshots_table": "x" * 64}}, r"events\.postgres\.snapshots_table: expected a text"),
        ({"postgres": {"table_prefix": "1"}}, r"events\.postgres\.table_prefix: expected a text that matches"),
        (
            {"mongodb": {"url": "mongodb://h", "database": "a/b"}},
            r"events\.mongodb\.database_name: expected a text that matches",
        ),
        (
            {"mongodb": {"url": "mongodb://h", "events_collection": "$x"}},
            r"events\.mongodb\.events_collection: expected a text that matches",
        ),
        ({"redis": {"namespace": "{a}"}}, r"events\.redis\.namespace: expected a text that matches"),
        ({"name": None}, r"events\.name: expected a text, got None"),
        ({"saga": {"enabled": True}, "sagas": {"enabled": False}}, r"events\.saga\.enabled is given twice"),
    ],
)
def test_a_wrong_value_gets_one_clear_error(values: dict[str, Any], message: str) -> None:
    """The path of the field, what is accepted and what came are all in the message."""
    with pytest.raises(EventValidationError, match=message) as caught:
        EventsConfig(**values)
    assert caught.value.field is not None
    assert caught.value.field.startswith("events.")


@pytest.mark.parametrize(
    ("values", "path", "hint"),
    [
        ({"event_store_backnd": "memory"}, "events.event_store_backnd", "event_store_backend"),
        ({"event_bus": {"max_retrys": 3}}, "events.event_bus.max_retrys", "max_"),
        ({"event_store": {"backnd": "memory"}}, "events.event_store.backnd", "event_store.backend"),
        ({"outbox_enable": True}, "events.outbox_enable", "outbox"),
    ],
)
def test_an_unknown_key_gets_a_suggestion(values: dict[str, Any], path: str, hint: str) -> None:
    """A typo is an error that names the nearest known key."""
    with pytest.raises(EventValidationError, match=r"unknown configuration key: ") as caught:
        EventsConfig(**values)
    assert path in str(caught.value)
    assert f"did you mean '{hint}" in str(caught.value)


def test_unknown_keys_can_be_allowed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The framework's own switch turns the error into a warning."""
    monkeypatch.setenv("LEX_CONFIG_ALLOW_UNKNOWN", "true")
    assert EventsConfig(nonsense=1) == EventsConfig()


def test_a_backend_that_is_not_built_fails_validation_with_one_error() -> None:
    """Backends without code in this release are reported, with what is available."""
    assert EventsConfig(event_store_backend="postgres", postgres={"dsn": POSTGRES}).validate_backend_config() == []
    assert EventsConfig(event_store_backend="postgres").validate_backend_config() == [
        "event_store_backend 'postgres' needs the section events.postgres with its address"
    ]
    assert EventsConfig(event_bus_backend="redis").validate_backend_config() == [
        "event_bus.backend 'redis' is not available in this release; available: memory"
    ]
    assert "events.rabbitmq" in EventsConfig(rabbitmq={"url": "amqp://h"}).validate_backend_config()[0]


def test_production_refuses_debug_and_warns_of_memory() -> None:
    """`validate_for_environment` knows what must not go into production."""
    issues = EventsConfig(env="production", debug=True).validate_for_environment()
    assert {issue.field: issue.severity for issue in issues} == {
        "events.debug": "error",
        "events.event_store_backend": "warning",
    }


@pytest.mark.parametrize("name", config_package.__all__)
def test_every_section_is_a_framework_config_with_checked_fields(name: str) -> None:
    """Each class is a `BaseConfig`, and each alias leads to a field."""
    cls = getattr(config_package, name)
    assert issubclass(cls, BaseConfig)
    assert issubclass(cls, ConfigSection)
    names = {field.name for field in dataclasses.fields(cls)}
    assert {target.partition(".")[0] for target in cls.ALIASES.values()} <= names
    assert not names & set(cls.ALIASES)


def test_sections_are_read_under_every_name() -> None:
    """Reading uses the same spellings as writing; other names raise AttributeError."""
    config = EventsConfig(postgres={"dsn": POSTGRES}, sagas={"enabled": False})
    assert config.get("postgres.connection_string").get_secret_value() == POSTGRES
    assert config.get("outbox_enabled") is True
    assert config.get("sagas").enabled is False
    assert not hasattr(config, "nonsense")


def test_configurations_are_equal_if_all_their_settings_are() -> None:
    """Sections, secrets and lists included; each class of section compares its own fields."""
    assert EventsConfig() == EventsConfig()
    others: list[dict[str, Any]] = [
        {"debug": True},
        {"command_bus": {"max_retries": 9}},
        {"postgres": {"dsn": POSTGRES}},
        {"event_store_backend": "sqlite"},
        {"metrics_middleware": {"histogram_buckets": [1.0]}},
    ]
    configs = [EventsConfig(**values) for values in ({}, *others)]
    for number, one in enumerate(configs):
        assert [one == other for other in configs] == [number == place for place in range(len(configs))]
    assert EventsConfig(postgres={"dsn": POSTGRES}) == EventsConfig(postgres_dsn=POSTGRES)
    assert EventsConfig(postgres={"dsn": POSTGRES}) != EventsConfig(postgres={"dsn": f"{POSTGRES}x"})
    assert EventsConfig().command_bus != EventsConfig().query_bus


def test_copies_keep_everything() -> None:
    """`model_copy` and rebuilding from `model_dump` give an equal configuration."""
    config = EventsConfig(event_store_backend="sqlite", sqlite={"database": "a.db"}, postgres={"dsn": POSTGRES})
    assert config.model_copy() == config
    assert EventsConfig(**config.model_dump()) == config
    assert config.model_copy(update={"debug": True}).debug


def test_published_validators_exist() -> None:
    """Programs call the address validators directly."""
    secret = PostgresEventStoreConfig.validate_dsn(POSTGRES)
    assert secret is not None
    assert secret.get_secret_value() == POSTGRES
    assert MongoDBEventStoreConfig.validate_connection_string("mongodb://h").get_secret_value() == "mongodb://h"
    assert RedisEventStoreConfig.validate_url(None) is None
    assert (KafkaConfig(bootstrap_servers="h").topic_prefix, RabbitMQConfig(url="amqp://h").durable) == ("events", True)


@pytest.mark.parametrize(
    ("text", "fine"), [("events:\n", True), ("", False), ("events: true\n", False), ("events: [a]\n", False)]
)
def test_an_empty_section_means_defaults_and_anything_else_is_refused(text: str, fine: bool, tmp_path: Path) -> None:
    """`events:` alone is an empty section; a section must be a mapping."""
    path = tmp_path / "application.yaml"
    path.write_text(text or "events: 7\n", encoding="utf-8")
    if fine:
        assert EventsConfig.from_yaml(path) == EventsConfig()
    else:
        with pytest.raises(EventValidationError, match="events: expected a mapping"):
            EventsConfig.from_yaml(path)


def test_another_section_can_be_named(tmp_path: Path) -> None:
    """`section=` reads another key of the file."""
    (tmp_path / "application.yaml").write_text("messaging: {debug: true}", encoding="utf-8")
    assert EventsConfig.from_yaml(tmp_path / "application.yaml", section="messaging").debug


def test_configurations_can_be_copied_and_pickled() -> None:
    """Aliases that are read like attributes do not get in the way."""
    config = EventsConfig(postgres={"dsn": POSTGRES}, event_store_backend="sqlite")
    assert copy.deepcopy(config) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_settings_can_be_assigned_under_any_spelling_and_are_checked() -> None:
    """An assignment has the effect of the same setting at construction, in copies too, or it is an error."""
    config = copy.deepcopy(EventsConfig())
    config.outbox_enabled = False  # type: ignore[attr-defined]
    config.sqlite_database = "shop.db"  # type: ignore[attr-defined]
    config.event_bus = {"parallel_dispatch": False}  # type: ignore[assignment]
    config.command_bus.max_retries = "7"  # type: ignore[assignment]
    assert config == EventsConfig(
        outbox={"enabled": False},
        sqlite={"database": "shop.db"},
        event_bus={"parallel_dispatch": False},
        command_bus={"max_retries": 7},
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("paralel_dispatch", False, "did you mean 'parallel_dispatch'"),
        ("max_handler_retries", -1, "max_handler_retries: expected a number of at least 0"),
        ("backend", "kafkaesque", "backend: expected one of"),
        ("allow_no_handlers", None, "allow_no_handlers"),
    ],
)
def test_a_wrong_assignment_is_refused_and_changes_nothing(name: str, value: object, message: str) -> None:
    """It had no effect, or one that no constructor would allow."""
    config = EventBusConfig()
    with pytest.raises(EventValidationError, match=message):
        setattr(config, name, value)
    assert config == EventBusConfig()


def test_an_assigned_address_is_read_as_at_construction() -> None:
    """A path from `sqlite:///`; an address of another database is none."""
    sqlite, postgres = SqliteConfig(), PostgresEventStoreConfig(dsn="postgresql://host/shop")
    sqlite.database = "sqlite:///shop.db"
    assert sqlite.database == "shop.db"
    with pytest.raises(EventValidationError, match="expected an address like postgresql://"):
        postgres.dsn = "http://host"  # type: ignore[assignment]
    postgres.dsn = "postgres://other/shop"  # type: ignore[assignment]
    assert postgres == PostgresEventStoreConfig(dsn="postgres://other/shop")
