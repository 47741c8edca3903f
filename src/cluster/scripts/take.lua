#!lua flags=allow-oom
-- take: removes a session without a turn in flight, if its record is the one that the caller has read.
--
-- ARGV: id, request, the revision that the caller has seen.
-- Returns {'ok'}, {'missing'}, {'archived'}, {'busy', turn} or {'conflict'}.
-- Twice: the second call of one request is {'ok'}, for ten minutes. {'tombstone'} if `outcome` has asked for the request
-- before it came.
local id, request, seen = ARGV[2], ARGV[3], ARGV[4]
local known = redis.call('HGET', ns .. 'req:' .. request, 'kind')
if known == 'deleted' then
    return { 'ok' }
elseif known == 'tombstone' then
    return { 'tombstone' }
end
local there, wid = settle_owner(id)
local found = redis.call('HMGET', session_key(id), 'rev', 'flight', 'archived')
if not there then
    return { 'missing' }
elseif found[3] == '1' then
    return { 'archived' }
end
local flight = words(found[2])
if #flight > 0 then
    return { 'busy', flight[1] }
elseif found[1] ~= seen then
    return { 'conflict' }
end
if wid ~= '' then
    redis.call('SREM', ns .. 'w:' .. wid .. ':s', id)
    wake(wid, id)
end
remove(id)
note_request(request, 'id', id, 'kind', 'deleted')
return { 'ok' }
