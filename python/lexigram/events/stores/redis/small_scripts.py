"""The Lua of the smaller stores: checkpoints, marks, snapshots, sagas, dead letters. Same keys, same rules as `scripts`.

Keys: hashes `checkpoints`, `lock_owners`, `lock_ends`, `lock_epochs`, `lock_faults` by name; sorted set `marks` by expiry; for each
aggregate `snapshots:<id>` and `snapshot_versions:<id>`; for each saga `saga:<id>`, and `sagas:<name>NUL<status>` by time
of creation, and the set `saga_names`; `letters` (entry ids by position), `letter_data`, `letter_lanes`, `lane:<lane>` and `pending_lanes`.
"""

from __future__ import annotations

from typing import Final

from lexigram.events.stores.redis.scripts import APPEND, MAIN, PRELUDE, Script

_TIME: Final = """
-- The server's clock: one for all processes.
local function now() local t = call('TIME'); return t[1] * 1000 + math.floor(t[2] / 1000) end
"""

_CHECKPOINTS: Final = """
OPS.checkpoint = {
  parse = function() return {name = take(), position = take(), epoch = take()} end,
  check = function(op)
    local current = number(call('HGET', P .. 'lock_epochs', op.name))
    if op.epoch ~= '' and tonumber(op.epoch) ~= current then return {'epoch', current} end
  end,
  write = function(op) return call('HSET', P .. 'checkpoints', op.name, op.position) end,
}
OPS.forget = {
  parse = function() return {name = take()} end,
  write = function(op) return call('HDEL', P .. 'checkpoints', op.name) end,
}
OPS.lock = {
  parse = function() return {name = take(), owner = take(), lasts = tonumber(take())} end,
  write = function(op)
    local holder, time = call('HGET', P .. 'lock_owners', op.name), now()
    local is_live = holder and number(call('HGET', P .. 'lock_ends', op.name)) > time
    if is_live and holder ~= op.owner then return 0 end
    call('HSET', P .. 'lock_owners', op.name, op.owner)
    call('HSET', P .. 'lock_ends', op.name, whole(time + op.lasts))
    if not is_live then
      call('HINCRBY', P .. 'lock_epochs', op.name, 1)
      call('HDEL', P .. 'lock_faults', op.name)
    end
    return 1
  end,
}
local function unlock(op)
  if call('HGET', P .. 'lock_owners', op.name) ~= op.owner then return 0 end
  if op.fault then call('HSET', P .. 'lock_faults', op.name, op.fault) end
  call('HDEL', P .. 'lock_ends', op.name)
  return call('HDEL', P .. 'lock_owners', op.name)
end
OPS.unlock = {parse = function() return {name = take(), owner = take()} end, write = unlock}
OPS.fault = {parse = function() return {name = take(), owner = take(), fault = take()} end, write = unlock}
"""

_MARKS: Final = """
local function is_marked(mark)
  local ends = call('ZSCORE', P .. 'marks', mark)
  return ends and (ends == 'inf' or tonumber(ends) > now())
end
local function put_mark(op)
  call('ZADD', P .. 'marks', op.lasts == '' and '+inf' or whole(now() + tonumber(op.lasts)), op.mark)
  return 1
end
OPS.mark = {parse = function() return {mark = take(), lasts = take()} end, write = put_mark}
OPS.claim = {
  parse = function() return {mark = take(), lasts = take(), must = take() == '1'} end,
  check = function(op) if op.must and is_marked(op.mark) then return {'claimed'} end end,
  write = function(op) return is_marked(op.mark) and 0 or put_mark(op) end,
}
OPS.clear_marks = {
  parse = function() return {} end,
  write = function() return call('ZREMRANGEBYSCORE', P .. 'marks', '-inf', whole(now())) end,
}
"""

_SNAPSHOTS: Final = """
OPS.snapshot = {
  parse = function() return {id = take(), version = take(), data = take()} end,
  write = function(op)
    call('ZADD', P .. 'snapshot_versions:' .. op.id, op.version, op.version)
    return call('HSET', P .. 'snapshots:' .. op.id, op.version, op.data)
  end,
}
OPS.drop_snapshots = {
  parse = function() return {id = take(), keep = take()} end,
  foresee = function(op)
    return math.max(0, call('ZCARD', P .. 'snapshot_versions:' .. op.id) - tonumber(op.keep))
  end,
  write = function(op)
    local versions = call('ZREVRANGE', P .. 'snapshot_versions:' .. op.id, op.keep, -1)
    for _, version in ipairs(versions) do
      call('ZREM', P .. 'snapshot_versions:' .. op.id, version)
      call('HDEL', P .. 'snapshots:' .. op.id, version)
    end
    return #versions
  end,
}
"""

_SAGAS: Final = """
local function out_of_list(id)
  local name, status = unpack(call('HMGET', P .. 'saga:' .. id, 'name', 'status'))
  if name then call('ZREM', P .. 'sagas:' .. name .. '\\0' .. status, id) end
end
OPS.saga = {
  parse = function()
    return {id = take(), expected = take(), saves = take(), name = take(), status = take(), created = take(),
      record = take()}
  end,
  check = function(op)
    op.version = number(call('HGET', P .. 'saga:' .. op.id, 'version'))
    if op.expected ~= '' and tonumber(op.expected) ~= op.version then return {'saga', op.version} end
  end,
  foresee = function(op) return op.version + 1 end,
  write = function(op)
    out_of_list(op.id)
    call('HSET', P .. 'saga:' .. op.id, 'name', op.name, 'status', op.status, 'record', op.record)
    call('ZADD', P .. 'sagas:' .. op.name .. '\\0' .. op.status, op.created, op.id)
    if op.version == 0 then call('SADD', P .. 'saga_names', op.name) end
    return call('HINCRBY', P .. 'saga:' .. op.id, 'version', op.saves)
  end,
}
OPS.drop_saga = {
  parse = function() return {id = take()} end,
  foresee = function(op) return call('EXISTS', P .. 'saga:' .. op.id) end,
  write = function(op) out_of_list(op.id); return call('DEL', P .. 'saga:' .. op.id) end,
}
"""

_LETTERS: Final = """
local function out_of_lane(id)
  local lane = call('HGET', P .. 'letter_lanes', id)
  if not lane then return end
  call('HDEL', P .. 'letter_lanes', id)
  call('ZREM', P .. 'lane:' .. lane, id)
  if call('ZCARD', P .. 'lane:' .. lane) == 0 then call('ZREM', P .. 'pending_lanes', lane) end
end
OPS.letter = {
  parse = function() return {id = take(), lane = take(), data = take()} end,
  write = function(op)
    out_of_lane(op.id)
    local position = call('ZSCORE', P .. 'letters', op.id)
    if not position then
      position = whole(call('INCR', P .. 'letter_head'))
      call('ZADD', P .. 'letters', position, op.id)
    end
    call('HSET', P .. 'letter_data', op.id, op.data)
    if op.lane ~= '' then
      call('HSET', P .. 'letter_lanes', op.id, op.lane)
      call('ZADD', P .. 'lane:' .. op.lane, position, op.id)
      call('ZADD', P .. 'pending_lanes', 'NX', position, op.lane)
    end
    return tonumber(position)
  end,
}
OPS.drop_letters = {
  parse = function()
    local op = {ids = {}}
    for i = 1, tonumber(take()) do op.ids[i] = take() end
    return op
  end,
  foresee = function(op) return #op.ids end,
  write = function(op)
    local removed = 0
    for _, id in ipairs(op.ids) do
      out_of_lane(id)
      call('HDEL', P .. 'letter_data', id)
      removed = removed + call('ZREM', P .. 'letters', id)
    end
    return removed
  end,
}
"""

_SNAPSHOT: Final = """
local id, version = take(), take()
if version == '' then version = call('ZREVRANGE', P .. 'snapshot_versions:' .. id, 0, 0)[1] end
return version and call('HGET', P .. 'snapshots:' .. id, version)
"""

_IS_MARKED: Final = """
local ends = call('ZSCORE', P .. 'marks', take())
return ends and (ends == 'inf' or tonumber(ends) > now()) and 1 or 0
"""

_SAGA_LIST: Final = """
local limit, found, records = tonumber(take()), {}, {}
for i = 1, tonumber(take()) do
  local list = call('ZRANGE', P .. 'sagas:' .. take(), 0, limit - 1, 'WITHSCORES')
  for j = 1, #list, 2 do found[#found + 1] = {list[j], tonumber(list[j + 1])} end
end
table.sort(found, function(a, b) return a[2] < b[2] or a[2] == b[2] and a[1] < b[1] end)
for i, saga in ipairs(found) do
  if limit > 0 and i > limit then break end
  records[i] = call('HMGET', P .. 'saga:' .. saga[1], 'version', 'record')
end
return records
"""

_LETTER_LIST: Final = """
local key, after, limit, letters = P .. take(), take(), take(), {}
for i, id in ipairs(call('ZRANGEBYSCORE', key, '(' .. after, '+inf', 'LIMIT', 0, limit)) do
  letters[i] = {tonumber(call('ZSCORE', P .. 'letters', id)), call('HGET', P .. 'letter_data', id)}
end
return letters
"""

EVERY_SCRIPT: Final = Script(PRELUDE, APPEND, _TIME, _CHECKPOINTS, _MARKS, _SNAPSHOTS, _SAGAS, _LETTERS, MAIN)
"""All operations; appends alone are sent to the shorter `APPEND_SCRIPT`."""
SNAPSHOT_SCRIPT: Final = Script(PRELUDE, _SNAPSHOT)
IS_MARKED_SCRIPT: Final = Script(PRELUDE, _TIME, _IS_MARKED)
SAGA_LIST_SCRIPT: Final = Script(PRELUDE, _SAGA_LIST)
LETTER_LIST_SCRIPT: Final = Script(PRELUDE, _LETTER_LIST)
