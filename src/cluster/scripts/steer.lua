#!lua
-- steer: adds a message for the first turn in flight, and for no later one.
--
-- ARGV: id, turn ('' for the first in flight), request, cid, the message.
-- Returns {'ok', turn}, {'missing'}, {'archived'}, or {'idle'} if that turn is not the first one.
-- Twice: the second call adds nothing, for ten minutes. {'tombstone'} if `outcome` has asked for the request before it
-- came.
local id, turn, request, cid = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local key = session_key(id)
local known = redis.call('HMGET', ns .. 'req:' .. request, 'kind', 'turn')
if known[1] == 'steered' then
    return { 'ok', known[2] }
elseif known[1] == 'tombstone' then
    return { 'tombstone' }
end
local there, wid = settle_owner(id)
if not there then
    return { 'missing' }
end
local found = redis.call('HMGET', key, 'archived', 'flight')
local first = words(found[2])[1]
if not first or first == '0' or (turn ~= '' and turn ~= first) then
    return { found[1] == '1' and not first and 'archived' or 'idle' }
end
local field = 't:' .. first .. ':msg'
local messages = words(redis.call('HGET', key, field))
messages[#messages + 1] = request
redis.call('HSET', key, field, table.concat(messages, ' '), 'm:' .. request, ARGV[6], 'm:' .. request .. ':cid', cid)
note_request(request, 'id', id, 'kind', 'steered', 'turn', first)
wake(wid, id)
return { 'ok', first }
