"""The function that stores a batch of appends in one call: order, versions, conditions and retries are decided here.

The lock is taken in a statement of its own. Each later statement of a VOLATILE function takes a fresh snapshot under
READ COMMITTED, so the checks see everything that was committed before the lock was free: one statement that locks and
checks would see the state from before it waited. Source: docs/decisions/0009-order-on-postgresql.md.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from lexigram.events.stores.postgres.names import TableNames

WRONG_ISOLATION: Final = "LX001"
FOREIGN_ROW: Final = "LX002"
NO_HEAD: Final = "LX003"

# The settings make plans independent of when they were made: a plan from an empty table would scan the log for ever.
_SETTINGS: Final = "SET jit = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan"


class Status(IntEnum):
    """What became of one append of a batch."""

    STORED = 0
    STORED_BEFORE = 1
    WRONG_VERSION = 2
    CONDITION_FAILED = 3
    PARTLY_STORED = 4


def functions(names: TableNames, payload: str) -> tuple[str, ...]:
    """Return the statements that create the functions.

    Args:
        payload: Type of the payload column: `json`, `jsonb` or `bytea`.
    """
    given = "bytea" if payload == "bytea" else "text"
    text = _MATCHES, _APPEND
    for old, new in {
        "{append}": names.append,
        "{matches}": names.matches,
        "{events}": names.events,
        "{streams}": names.streams,
        "{types}": names.types,
        "{tags}": names.tags,
        "{head}": names.head,
        "{settings}": _SETTINGS,
        "{given}": given,
        "{payload}": payload,
    }.items():
        text = tuple(part.replace(old, new) for part in text)  # type: ignore[assignment]
    return text


_MATCHES: Final = """
CREATE OR REPLACE FUNCTION {matches}(p_after bigint, p_items jsonb) RETURNS bigint
LANGUAGE plpgsql VOLATILE {settings} AS $function$
DECLARE
    item jsonb;
    kinds integer[];
    wanted text[];
    found bigint;
BEGIN
    FOR item IN SELECT * FROM jsonb_array_elements(p_items) LOOP
        wanted := ARRAY(SELECT jsonb_array_elements_text(item -> 'tags'));
        kinds := NULL;
        IF item -> 'types' <> 'null' THEN
            kinds := ARRAY(SELECT t.key FROM jsonb_array_elements_text(item -> 'types') n JOIN {types} t ON t.type_name = n);
            CONTINUE WHEN cardinality(kinds) = 0;
        END IF;
        IF cardinality(wanted) > 0 THEN
            SELECT g.position INTO found FROM {tags} g
            WHERE g.tag = wanted[1] AND g.position > p_after AND (kinds IS NULL OR g.type = ANY (kinds))
                AND (cardinality(wanted) = 1 OR NOT EXISTS (
                    SELECT FROM unnest(wanted[2:]) o(tag)
                    WHERE NOT EXISTS (SELECT FROM {tags} h WHERE h.tag = o.tag AND h.position = g.position)))
            ORDER BY g.position LIMIT 1;
        ELSIF kinds IS NULL THEN
            SELECT e.position INTO found FROM {events} e WHERE e.position > p_after ORDER BY e.position LIMIT 1;
        ELSE
            SELECT f.position INTO found FROM unnest(kinds) k CROSS JOIN LATERAL (
                SELECT e.position FROM {events} e
                WHERE e.type = k AND e.position > p_after ORDER BY e.position LIMIT 1) f LIMIT 1;
        END IF;
        IF found IS NOT NULL THEN
            RETURN found;
        END IF;
    END LOOP;
    RETURN NULL;
END $function$
"""

# Arrays with the prefix p_ are of the batch, a_ one element per append, e_ per event, t_ per tag.
_APPEND: Final = """
CREATE OR REPLACE FUNCTION {append}(
    p_careful boolean, p_lock_timeout text, p_notify boolean,
    p_streams text[], p_hashes bigint[], p_type_names text[], p_event_types text[],
    a_stream integer[], a_expected bigint[], a_count integer[], a_condition text[],
    e_append integer[], e_offset integer[], e_type integer[], e_id uuid[], e_at bigint[], e_payload {given}[],
    t_event integer[], t_tag text[],
    OUT statuses integer[], OUT versions bigint[], OUT positions bigint[])
LANGUAGE plpgsql VOLATILE {settings} AS $function$
DECLARE
    log oid := '{events}'::regclass::oid;
    -- A partitioned table has no index over all partitions that would notice an event id stored before.
    careful boolean := p_careful OR (SELECT c.relkind = 'p' FROM pg_class c WHERE c.oid = '{events}'::regclass);
    n integer := cardinality(a_stream);
    keys bigint[];
    current bigint[];
    kinds integer[];
    head bigint;
    before bigint;
    seen record;
    condition jsonb;
    low integer := 1;
    high integer;
    j integer;
    new_key bigint;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'appends need the isolation level read committed, not %', current_setting('transaction_isolation')
            USING ERRCODE = 'LX001';
    END IF;
    IF p_lock_timeout IS NOT NULL THEN
        PERFORM set_config('lock_timeout', p_lock_timeout, true);
    END IF;
    PERFORM pg_advisory_xact_lock((1280853334::bigint << 32) | log::bigint);
    SELECT h.position INTO head FROM {head} h;
    IF head IS NULL THEN
        RAISE EXCEPTION 'table {head} has lost its row' USING ERRCODE = 'LX003';
    END IF;
    IF EXISTS (SELECT FROM {events} e WHERE e.position > head) THEN
        RAISE EXCEPTION 'an event was written beyond position % by something else than this library', head
            USING ERRCODE = 'LX002';
    END IF;
    before := head;

    SELECT array_agg(q.key), array_agg(q.version) INTO keys, current
    FROM (
        SELECT s.key, greatest(s.removed_version, 0, (
            SELECT e.version FROM {events} e WHERE e.stream = s.key ORDER BY e.version DESC LIMIT 1)) AS version
        FROM unnest(p_streams) WITH ORDINALITY u(id, o) LEFT JOIN {streams} s ON s.stream_id = u.id
        ORDER BY u.o) q;

    SELECT array_agg(t.key ORDER BY u.o) INTO kinds
    FROM unnest(p_type_names, p_event_types) WITH ORDINALITY u(n, e, o)
    LEFT JOIN {types} t ON t.type_name = u.n AND t.event_type = u.e;
    IF array_position(kinds, NULL) IS NOT NULL THEN
        INSERT INTO {types} (type_name, event_type)
        SELECT u.n, u.e FROM unnest(p_type_names, p_event_types, kinds) u(n, e, k) WHERE u.k IS NULL;
        SELECT array_agg(t.key ORDER BY u.o) INTO kinds
        FROM unnest(p_type_names, p_event_types) WITH ORDINALITY u(n, e, o)
        JOIN {types} t ON t.type_name = u.n AND t.event_type = u.e;
    END IF;

    statuses := array_fill(0, ARRAY[n]);
    versions := array_fill(0::bigint, ARRAY[n]);
    positions := versions;

    IF NOT careful THEN
        -- Number the appends in order, without a statement for each, then insert all of them at once.
        FOR i IN 1..n LOOP
            j := a_stream[i];
            IF a_expected[i] = -1 OR a_expected[i] = current[j] THEN
                current[j] := current[j] + a_count[i];
                head := head + a_count[i];
                versions[i] := current[j];
                positions[i] := head;
            ELSE
                statuses[i] := 2;
                versions[i] := current[j];
            END IF;
        END LOOP;
        IF array_position(keys, NULL) IS NOT NULL THEN
            WITH made AS (
                INSERT INTO {streams} (stream_id, partition_hash)
                SELECT u.id, u.h FROM unnest(p_streams, p_hashes, keys, current) u(id, h, k, v)
                WHERE u.k IS NULL AND u.v > 0
                RETURNING key, stream_id)
            SELECT array_agg(coalesce(u.k, m.key) ORDER BY u.o) INTO keys
            FROM unnest(p_streams, keys) WITH ORDINALITY u(id, k, o) LEFT JOIN made m ON m.stream_id = u.id;
        END IF;
        INSERT INTO {events} (position, stream, version, type, event_id, occurred_at, payload)
        SELECT positions[u.a] - a_count[u.a] + u.f, keys[a_stream[u.a]], versions[u.a] - a_count[u.a] + u.f, kinds[u.t],
            u.id, timestamptz 'epoch' + u.at * interval '1 microsecond', u.p::{payload}
        FROM unnest(e_append, e_offset, e_type, e_id, e_at, e_payload) u(a, f, t, id, at, p)
        WHERE statuses[u.a] = 0;
        IF cardinality(t_event) > 0 THEN
            INSERT INTO {tags} (tag, position, type)
            SELECT u.g, positions[e_append[u.e]] - a_count[e_append[u.e]] + e_offset[u.e], kinds[e_type[u.e]]
            FROM unnest(t_event, t_tag) u(e, g) WHERE statuses[e_append[u.e]] = 0;
        END IF;
    END IF;

    FOR i IN 1..n LOOP
        high := low + a_count[i] - 1;
        IF careful OR statuses[i] = 2 THEN
            j := a_stream[i];
            SELECT count(*) AS events, min(e.stream) AS stream, max(e.stream) AS other_stream,
                min(e.version - u.f) AS version, max(e.version - u.f) AS other_version,
                min(e.position - u.f) AS position, max(e.position - u.f) AS other_position
            INTO seen
            FROM unnest(e_id[low:high]) WITH ORDINALITY u(id, f) JOIN {events} e ON e.event_id = u.id;
            IF seen.events > 0 THEN
                IF seen.events = a_count[i] AND seen.stream = keys[j] AND seen.other_stream = keys[j]
                    AND seen.version = seen.other_version AND seen.position = seen.other_position
                THEN
                    statuses[i] := 1;
                    versions[i] := seen.version + a_count[i];
                    positions[i] := seen.position + a_count[i];
                ELSE
                    statuses[i] := 4;
                END IF;
            ELSIF NOT careful THEN
                NULL;
            ELSIF a_expected[i] <> -1 AND a_expected[i] <> current[j] THEN
                statuses[i] := 2;
                versions[i] := current[j];
            ELSE
                IF a_condition[i] IS NOT NULL THEN
                    condition := a_condition[i]::jsonb;
                    positions[i] := {matches}((condition ->> 'after')::bigint, condition -> 'items');
                END IF;
                IF positions[i] > 0 THEN
                    statuses[i] := 3;
                    versions[i] := current[j];
                ELSE
                    IF keys[j] IS NULL THEN
                        INSERT INTO {streams} (stream_id, partition_hash) VALUES (p_streams[j], p_hashes[j])
                        RETURNING key INTO new_key;
                        keys[j] := new_key;
                    END IF;
                    INSERT INTO {events} (position, stream, version, type, event_id, occurred_at, payload)
                    SELECT head + u.o, keys[j], current[j] + u.o, kinds[u.t], u.id,
                        timestamptz 'epoch' + u.at * interval '1 microsecond', u.p::{payload}
                    FROM unnest(e_type[low:high], e_id[low:high], e_at[low:high], e_payload[low:high])
                        WITH ORDINALITY u(t, id, at, p, o);
                    INSERT INTO {tags} (tag, position, type)
                    SELECT u.g, head + e_offset[u.e], kinds[e_type[u.e]]
                    FROM unnest(t_event, t_tag) u(e, g) WHERE u.e BETWEEN low AND high;
                    current[j] := current[j] + a_count[i];
                    head := head + a_count[i];
                    versions[i] := current[j];
                    positions[i] := head;
                END IF;
            END IF;
        END IF;
        low := high + 1;
    END LOOP;

    IF head > before THEN
        UPDATE {head} SET position = head;
        IF p_notify THEN
            PERFORM pg_notify('lexigram_events_' || log::text, head::text);
        END IF;
    END IF;
END $function$
"""
