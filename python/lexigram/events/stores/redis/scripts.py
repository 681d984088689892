"""The Lua that runs inside Redis: the event log's part. One call of a script is atomic; nothing runs in between.

Keys, all under one hash tag so that a cluster keeps them in one slot (`P` is `{namespace}:`):

- `log`: a stream, one entry `<position>-0` for each event; `head`: the highest position assigned
- `versions`, `removed`: stream id -> current version, highest version removed; `ids`: event id -> position
- `stream:<id>`: list of the positions of what the stream holds
- `type:<name>`, `tag:<tag>`: sorted sets of positions; an event with an event type of its own is in two of the first

A Lua script is not rolled back if it fails, so every group of operations is first checked and only then written, and
nothing in the second half can fail for a reason that the first half could have seen.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final

PRELUDE: Final = """
local LOG = KEYS[1]
local P = string.sub(LOG, 1, -4)
local call = redis.call
local at = 0
local function take() at = at + 1; return ARGV[at] end
local function take_keys(kind, count)
  local keys = {}
  for i = 1, tonumber(count) do keys[i] = P .. kind .. take() end
  return keys
end
local function whole(n) return string.format('%.0f', n) end
local function number(reply) return tonumber(reply or 0) end
local function take_query()
  local count = take()
  if count == '' then return nil end
  local items = {}
  for i = 1, tonumber(count) do
    local item, types = {}, take()
    if types ~= '' then item.types = take_keys('type:', types) end
    item.tags = take_keys('tag:', take())
    items[i] = item
  end
  return items
end

local SCANNED_AT_MOST = 10000
-- Positions above `after` in one index, at most `limit`, and how far that is complete (nil: to the end).
local function indexed(key, after, bound, limit)
  local found = call('ZRANGEBYSCORE', key, '(' .. after, bound, 'LIMIT', 0, limit)
  if #found < limit then return found, nil end
  return found, tonumber(found[#found])
end
local function holds(item, scanned, position)
  for _, tag in ipairs(item.tags) do
    if tag ~= scanned and not call('ZSCORE', tag, position) then return false end
  end
  if not item.types then return true end
  for _, kind in ipairs(item.types) do
    if call('ZSCORE', kind, position) then return true end
  end
  return false
end
local function matching_tags(item, after, bound, limit, cap)
  local scanned, fewest
  for _, tag in ipairs(item.tags) do
    local count = call('ZCOUNT', tag, '(' .. after, bound)
    if not fewest or count < fewest then scanned, fewest = tag, count end
  end
  if fewest == 0 then return {}, nil end
  if #item.tags == 1 and not item.types then return indexed(scanned, after, bound, limit) end
  local found, low, looked = {}, after, 0
  while true do
    local candidates, reached = indexed(scanned, low, bound, 500)
    for _, position in ipairs(candidates) do
      if holds(item, scanned, position) then
        found[#found + 1] = position
        if #found == limit then return found, tonumber(position) end
      end
    end
    looked = looked + #candidates
    if not reached then return found, nil end
    if cap and looked >= cap then return found, reached end
    low = whole(reached)
  end
end
local function all_positions(after, bound, limit)
  local found = {}
  if bound == '+inf' then bound = '+' end
  for i, entry in ipairs(call('XRANGE', LOG, '(' .. after .. '-0', bound, 'COUNT', limit)) do
    found[i] = string.sub(entry[1], 1, -3)
  end
  return found, #found == limit and tonumber(found[#found]) or nil
end
-- What the items select, ascending, and how far that is complete (nil: to the end).
local function matching(items, after, bound, limit, cap)
  local seen, list, complete = {}, {}, nil
  local function add(found, reached)
    if reached and (not complete or reached < complete) then complete = reached end
    for _, position in ipairs(found) do
      if not seen[position] then seen[position] = true; list[#list + 1] = position end
    end
  end
  for _, item in ipairs(items) do
    if #item.tags > 0 then add(matching_tags(item, after, bound, limit, cap))
    elseif item.types then
      for _, kind in ipairs(item.types) do add(indexed(kind, after, bound, limit)) end
    else add(all_positions(after, bound, limit)) end
  end
  table.sort(list, function(a, b) return tonumber(a) < tonumber(b) end)
  local kept = {}
  for _, position in ipairs(list) do
    if complete and tonumber(position) > complete then break end
    kept[#kept + 1] = position
    if #kept == limit and #kept < #list then return kept, tonumber(position) end
  end
  return kept, complete
end
"""

# The fields of an entry are always given in this order, so its values are at fixed places.
READING: Final = """
local lengths, pieces = {}, {}
local function put(text) pieces[#pieces + 1] = text; lengths[#lengths + 1] = #text end
local function put_entries(entries, with_stream)
  for _, entry in ipairs(entries) do
    local f = entry[2]
    put(f[2]); put(f[4]); put(f[6]); put(f[8]); put(string.sub(entry[1], 1, -3))
    if with_stream then put(f[10]); put(f[12]) end
  end
end
local function put_positions(list, with_stream)
  local i = 1
  while i <= #list do
    local j = i
    while j < #list and tonumber(list[j + 1]) == tonumber(list[j]) + 1 do j = j + 1 end
    put_entries(call('XRANGE', LOG, list[i], list[j]), with_stream)
    i = j + 1
  end
end
"""

APPEND: Final = """
local OPS, published = {}, false
-- As `condition.selectors`.
local function selectors(kind, name)
  if name == kind or name == string.match(kind, '[^.]*$') then return {kind} end
  return {kind, name}
end
local function stored_before(op)
  local found, hits = {}, 0
  for i, event in ipairs(op.events) do
    found[i] = number(call('HGET', P .. 'ids', event.id))
    if found[i] > 0 then hits = hits + 1 end
  end
  if hits == 0 then return nil end
  local first
  for i, position in ipairs(found) do
    local entry = call('XRANGE', LOG, whole(position), whole(position))[1]
    local f = entry and entry[2]
    if i == 1 and f then first = tonumber(f[8]) end
    if not f or f[10] ~= op.stream or tonumber(f[8]) ~= first + i - 1 or position ~= found[1] + i - 1 then
      return nil, {'stored'}
    end
  end
  return {first + #found - 1, found[#found]}
end
OPS.append = {
  parse = function()
    local op = {stream = take(), expected = take(), condition = take_query()}
    if op.condition then op.after = take() end
    op.events = {}
    for i = 1, tonumber(take()) do
      op.events[i] = {id = take(), kind = take(), name = take(), time = take(), data = take(), tags = take()}
    end
    return op
  end,
  check = function(op)
    local failure
    op.stored, failure = stored_before(op)
    if op.stored or failure then return failure end
    op.base = number(call('HGET', P .. 'versions', op.stream))
    if op.expected ~= '' and tonumber(op.expected) ~= op.base then return {'version', op.base} end
    if op.condition and #matching(op.condition, op.after, '+inf', 1) > 0 then return {'condition', op.base} end
  end,
  foresee = function(op) return op.stored or {op.base, 0} end,
  write = function(op)
    if op.stored then return op.stored end
    local count, stream = #op.events, P .. 'stream:' .. op.stream
    local version = call('HINCRBY', P .. 'versions', op.stream, count)
    local position = call('INCRBY', P .. 'head', count)
    for i, event in ipairs(op.events) do
      local place = whole(position - count + i)
      call('XADD', LOG, place .. '-0', 'type', event.kind, 'name', event.name, 'data', event.data,
        'version', whole(version - count + i), 'stream', op.stream, 'time', event.time, 'id', event.id,
        'tags', event.tags)
      call('RPUSH', stream, place)
      call('HSET', P .. 'ids', event.id, place)
      for _, kind in ipairs(selectors(event.kind, event.name)) do call('ZADD', P .. 'type:' .. kind, place, place) end
      for tag in string.gmatch(event.tags, '[^%z]+') do call('ZADD', P .. 'tag:' .. tag, place, place) end
    end
    published = position
    return {version, position}
  end,
}
OPS.compact = {
  parse = function() return {stream = take(), up_to = tonumber(take())} end,
  write = function(op)
    local removed = number(call('HGET', P .. 'removed', op.stream))
    local up_to = math.min(op.up_to, number(call('HGET', P .. 'versions', op.stream)), removed + 1000)
    if up_to <= removed then return 0 end
    local stream = P .. 'stream:' .. op.stream
    for _, place in ipairs(call('LRANGE', stream, 0, up_to - removed - 1)) do
      local f = call('XRANGE', LOG, place, place)[1][2]
      call('HDEL', P .. 'ids', f[14])
      for _, kind in ipairs(selectors(f[2], f[4])) do call('ZREM', P .. 'type:' .. kind, place) end
      for tag in string.gmatch(f[16], '[^%z]+') do call('ZREM', P .. 'tag:' .. tag, place) end
      call('XDEL', LOG, place .. '-0')
    end
    call('LTRIM', stream, up_to - removed, -1)
    call('HSET', P .. 'removed', op.stream, whole(up_to))
    return up_to - removed
  end,
}
"""

MAIN: Final = """
local foreseeing = take() == '1'
local replies = {}
for g = 1, tonumber(take()) do
  local token, ops, reply = take(), {}, nil
  for o = 1, tonumber(take()) do
    local kind = take()
    ops[o] = OPS[kind].parse()
    ops[o].kind = OPS[kind]
  end
  -- Executed before? On a retry, and also if the first try was under way so long that the retry overtook it.
  if token ~= '' then
    local kept = call('GET', P .. 'done:' .. token)
    if kept then reply = cmsgpack.unpack(kept) end
  end
  if not reply then
    for o, op in ipairs(ops) do
      local failure = op.kind.check and op.kind.check(op)
      if failure then reply = {0, o - 1, unpack(failure)}; break end
    end
  end
  if not reply then
    reply = {1}
    for o, op in ipairs(ops) do
      if not foreseeing then reply[o + 1] = op.kind.write(op)
      else reply[o + 1] = op.kind.foresee and op.kind.foresee(op) or 0 end
    end
    if token ~= '' and not foreseeing then
      call('SET', P .. 'done:' .. token, cmsgpack.pack(reply), 'PX', 600000)
    end
  end
  replies[g] = reply
end
if published then call('PUBLISH', P .. 'appended', whole(published)) end
return replies
"""

PAGE: Final = """
local after, bound, limit, wanted = take(), take(), tonumber(take()), take() == '1'
local items = take_query()
local head = number(call('GET', P .. 'head'))
local count, complete = 0, nil
if items then
  local found
  found, complete = matching(items, after, bound, limit, SCANNED_AT_MOST)
  count = #found
  if wanted then put_positions(found, true) end
else
  local entries = call('XRANGE', LOG, '(' .. after .. '-0', bound == '+inf' and '+' or bound, 'COUNT', limit)
  count = #entries
  if count == limit then complete = tonumber(string.sub(entries[count][1], 1, -3)) end
  if wanted then put_entries(entries, true) end
end
return {head, count, complete or -1, table.concat(lengths, ','), table.concat(pieces)}
"""

READ: Final = """
local stream, from, to, limit = take(), tonumber(take()), tonumber(take()), tonumber(take())
local removed = number(call('HGET', P .. 'removed', stream))
local first = math.max(from - removed - 1, 0)
local last = math.min(to - removed, first + limit) - 1
if last < first then return {'', ''} end
put_positions(call('LRANGE', P .. 'stream:' .. stream, whole(first), whole(last)), false)
return {table.concat(lengths, ','), table.concat(pieces)}
"""

BOUNDS: Final = """
local stream = take()
return {number(call('HGET', P .. 'removed', stream)), number(call('HGET', P .. 'versions', stream))}
"""

STREAMS: Final = """
local removed, held = {}, {}
local gone, versions = call('HGETALL', P .. 'removed'), call('HGETALL', P .. 'versions')
for i = 1, #gone, 2 do removed[gone[i]] = tonumber(gone[i + 1]) end
for i = 1, #versions, 2 do
  if tonumber(versions[i + 1]) > (removed[versions[i]] or 0) then held[#held + 1] = versions[i] end
end
return held
"""


class Script:
    """A Lua script and the digest under which Redis keeps it once it has seen it."""

    __slots__ = ("digest", "text")

    def __init__(self, *parts: str) -> None:
        self.text = "".join(parts)
        self.digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


APPEND_SCRIPT: Final = Script(PRELUDE, APPEND, MAIN)
PAGE_SCRIPT: Final = Script(PRELUDE, READING, PAGE)
READ_SCRIPT: Final = Script(PRELUDE, READING, READ)
BOUNDS_SCRIPT: Final = Script(PRELUDE, BOUNDS)
STREAMS_SCRIPT: Final = Script(PRELUDE, STREAMS)
