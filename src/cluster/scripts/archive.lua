#!lua flags=allow-oom
-- archive: a session gets no more turns. Those in flight may finish, or are told to stop. If no worker has the session,
-- its feeds end.
--
-- ARGV: id, request, 'drain' or 'interrupt'.
-- Returns {'ok'}, {'missing'}, or {'archived'} if it is archived and there is nothing to tell to stop.
-- Twice: the second call of one request is {'ok'}, for ten minutes.
local id, request, mode = ARGV[2], ARGV[3], ARGV[4]
local key = session_key(id)
if redis.call('HGET', ns .. 'req:' .. request, 'kind') == 'archived' then
    return { 'ok' }
end
local there, wid = settle_owner(id)
if not there then
    return { 'missing' }
end
local found = redis.call('HMGET', key, 'archived', 'flight')
local flight = words(found[2])
if found[1] == '1' and (mode == 'drain' or #flight == 0) then
    return { 'archived' }
end
redis.call('HSET', key, 'archived', '1')
if mode == 'interrupt' then
    for at = #flight, 2, -1 do
        answer(id, flight[at], 'withdrawn', 'archived')
    end
    if flight[1] and flight[1] ~= '0' then
        cancel(id, flight[1], 'archived')
    end
end
note_request(request, 'id', id, 'kind', 'archived')
if wid ~= '' then
    wake(wid, id)
else
    end_feeds(id)
end
return { 'ok' }
