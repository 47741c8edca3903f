#!lua flags=allow-oom
-- delete: removes a session with all that belongs to it. Its turns in flight are answered as deleted.
--
-- ARGV: id, a name for this request, the revision that the caller has seen ('' for any).
-- Returns {'ok', '1'}, {'ok', '0'} if there was no record, or {'conflict'}.
-- Twice: the second call returns what the first has returned.
local id, request, seen = ARGV[2], ARGV[3], ARGV[4]
if redis.call('HGET', ns .. 'req:' .. request, 'kind') == 'deleted' then
    return { 'ok', '1' }
end
local there, wid = settle_owner(id)
local found = redis.call('HMGET', session_key(id), 'rev', 'flight')
if not there or not found[1] then
    return { 'ok', '0' }
elseif seen ~= '' and found[1] ~= seen then
    return { 'conflict' }
end
for _, turn in ipairs(words(found[2])) do
    answer(id, turn, 'deleted', '')
end
if wid ~= '' then
    redis.call('SREM', ns .. 'w:' .. wid .. ':s', id)
    wake(wid, id)
end
remove(id)
note_request(request, 'id', id, 'kind', 'deleted')
return { 'ok', '1' }
