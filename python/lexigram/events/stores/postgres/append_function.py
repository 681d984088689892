"""The functions that store a batch of appends in one call: order, versions, conditions and retries are decided here.

`append` finds out everything itself. `append_next` takes a batch that the client has numbered from what it knows of the
log, and stores it only if the log still ends where the client thinks: then nothing else has been appended, so what it
knows of versions is true, and nothing has to be looked up but that streams which it takes to be new are.

The lock is taken in a statement of its own. Each later statement of a VOLATILE function takes a fresh snapshot under
READ COMMITTED, so the checks see everything that was committed before the lock was free: one statement that locks and
checks would see the state from before it waited. Source: docs/decisions/0009-order-on-postgresql.md.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from lexigram.events.stores.postgres.names import TableNames
from lexigram.events.stores.postgres.statements import selected_types

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
    text = _MATCHES, _APPEND, _APPEND_NEXT
    for old, new in {
        "{append}": names.append,
        "{append_next}": names.append_next,
        "{matches}": names.matches,
        "{events}": names.events,
        "{streams}": names.streams,
        "{selected:names}": selected_types(names, "names"),
        "{types}": names.types,
        "{tags}": names.tags,
        "{head}": names.head,
        "{settings}": _SETTINGS,
        # Not the payload's own type: a pool of the application may have changed how json is sent.
        "{given}": "bytea" if payload == "bytea" else "text",
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
    names text[];
    wanted text[];
    found bigint;
BEGIN
    FOR item IN SELECT * FROM jsonb_array_elements(p_items) LOOP
        wanted := ARRAY(SELECT jsonb_array_elements_text(item -> 'tags'));
        kinds := NULL;
        IF item -> 'types' <> 'null' THEN
            names := ARRAY(SELECT jsonb_array_elements_text(item -> 'types'));
            kinds := ARRAY({selected:names});
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
    p_careful boolean, p_lock_timeout text,
    p_streams text[], p_hashes bigint[], p_type_names text[], p_event_types text[],
    a_stream integer[], a_expected bigint[], a_count integer[], a_after bigint[], a_condition text[],
    e_append integer[], e_offset integer[], e_type integer[], e_id uuid[], e_at bigint[], e_payload {given}[],
    t_event integer[], t_tag text[],
    OUT statuses integer[], OUT versions bigint[], OUT positions bigint[],
    OUT before bigint, OUT keys bigint[], OUT current bigint[], OUT kinds integer[])
LANGUAGE plpgsql VOLATILE {settings} AS $function$
DECLARE
    log oid := '{events}'::regclass::oid;
    careful boolean;
    is_partitioned boolean;
    is_foreign boolean;
    is_refused boolean := false;
    n integer := cardinality(a_stream);
    head bigint;
    found bigint;
    seen record;
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
    SELECT h.position, EXISTS (SELECT FROM {events} e WHERE e.position > h.position),
        (SELECT c.relkind = 'p' FROM pg_class c WHERE c.oid = log)
    INTO head, is_foreign, is_partitioned FROM {head} h;
    IF head IS NULL THEN
        RAISE EXCEPTION 'table {head} has lost its row' USING ERRCODE = 'LX003';
    END IF;
    IF is_foreign THEN
        RAISE EXCEPTION 'an event was written beyond position % by something else than this library', head
            USING ERRCODE = 'LX002';
    END IF;
    before := head;
    -- A partitioned table has no index over all partitions that would notice an event id stored before. A condition may
    -- watch what its neighbours in the batch append, which must be stored before it is checked.
    careful := p_careful OR is_partitioned OR (n > 1 AND cardinality(a_condition) > 0);

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
            IF a_expected[i] <> -1 AND a_expected[i] <> current[j] THEN
                is_refused := true;
                statuses[i] := 2;
                versions[i] := current[j];
                CONTINUE;
            END IF;
            IF a_after[i] < before THEN
                found := {matches}(a_after[i], a_condition[i]::jsonb);
                IF found IS NOT NULL THEN
                    is_refused := true;
                    statuses[i] := 3;
                    versions[i] := current[j];
                    positions[i] := found;
                    CONTINUE;
                END IF;
            END IF;
            current[j] := current[j] + a_count[i];
            head := head + a_count[i];
            versions[i] := current[j];
            positions[i] := head;
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

    IF careful OR is_refused THEN
        FOR i IN 1..n LOOP
            high := low + a_count[i] - 1;
            IF careful OR statuses[i] > 0 THEN
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
                    IF a_after[i] < head THEN
                        positions[i] := {matches}(a_after[i], a_condition[i]::jsonb);
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
    END IF;

    IF is_partitioned THEN
        keys := NULL;  -- the other function would not notice an event id stored before
    END IF;
    IF head > before THEN
        UPDATE {head} SET position = head;
        PERFORM pg_notify('lexigram_events_' || log::text, head::text);
    END IF;
END $function$
"""

# Arrays with the prefix e_ have one element per event, p_ per stream that the client takes to be new: e_stream has -1 for
# the first of these, and so on; NULL stands for an empty array. Where only the first element of e_stream, e_version or
# e_type is given, stream and type are the same for all events, and versions count on. Returns the new streams' keys;
# NULL = the log is not as the client thinks, nothing is stored.
_APPEND_NEXT: Final = """
CREATE OR REPLACE FUNCTION {append_next}(
    p_lock_timeout text, p_log bigint, p_head bigint, p_last uuid, p_streams text[], p_hashes bigint[],
    e_stream bigint[], e_version bigint[], e_type integer[], e_id uuid[], e_at bigint[], e_payload {given}[],
    t_event integer[], t_tag text[]) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE {settings} AS $function$
DECLARE
    log bigint := '{events}'::regclass::oid::bigint;
    is_known boolean;
    keys bigint[] := '{}';
    new_head bigint := p_head + cardinality(e_id);
    first_stream bigint := e_stream[1];
BEGIN
    IF log <> p_log OR current_setting('transaction_isolation') <> 'read committed' THEN
        RETURN NULL;
    END IF;
    IF p_lock_timeout IS NOT NULL THEN
        PERFORM set_config('lock_timeout', p_lock_timeout, true);
    END IF;
    -- Assigned, though it is nothing: PERFORM would make a query of it.
    is_known := pg_advisory_xact_lock((1280853334::bigint << 32) | log) IS NULL;
    -- The id says that it is the same log, and not one that was restored and has grown to the same length.
    SELECT h.position = p_head AND e.event_id = p_last AND NOT EXISTS (SELECT FROM {events} f WHERE f.position > p_head)
        AND NOT EXISTS (SELECT FROM {streams} s WHERE s.stream_id = ANY (p_streams))
    INTO is_known FROM {head} h, {events} e WHERE e.position = p_head;
    IF is_known IS NOT TRUE THEN
        RETURN NULL;
    END IF;
    IF cardinality(p_streams) = 1 THEN
        INSERT INTO {streams} (stream_id, partition_hash) VALUES (p_streams[1], p_hashes[1])
        RETURNING ARRAY[key] INTO keys;
    ELSIF cardinality(p_streams) > 1 THEN
        WITH made AS (
            INSERT INTO {streams} (stream_id, partition_hash)
            SELECT unnest(p_streams), unnest(p_hashes) RETURNING key, stream_id)
        SELECT array_agg(m.key ORDER BY u.o) INTO keys
        FROM unnest(p_streams) WITH ORDINALITY u(id, o) JOIN made m ON m.stream_id = u.id;
    END IF;
    IF first_stream < 0 THEN
        first_stream := keys[-first_stream];
    END IF;
    -- `unnest` here, and not after FROM, reads the arrays without copying them aside first.
    INSERT INTO {events} (position, stream, version, type, event_id, occurred_at, payload)
    SELECT u.position, CASE WHEN u.stream < 0 THEN keys[-u.stream] ELSE coalesce(u.stream, first_stream) END,
        coalesce(u.version, e_version[1] + u.position - p_head - 1), coalesce(u.type, e_type[1]), u.id,
        timestamptz 'epoch' + u.at * interval '1 microsecond', u.payload::{payload}
    FROM (
        SELECT generate_series(p_head + 1, new_head) AS position, unnest(e_stream) AS stream, unnest(e_version) AS version,
            unnest(e_type) AS type, unnest(e_id) AS id, unnest(e_at) AS at, unnest(e_payload) AS payload) u;
    IF cardinality(t_event) > 0 THEN
        INSERT INTO {tags} (tag, position, type)
        SELECT u.tag, p_head + u.event, coalesce(e_type[u.event], e_type[1])
        FROM (SELECT unnest(t_tag) AS tag, unnest(t_event) AS event) u;
    END IF;
    UPDATE {head} SET position = new_head;
    is_known := pg_notify('lexigram_events_' || log::text, new_head::text) IS NULL;
    RETURN keys;
END $function$
"""
