#!lua flags=allow-oom
-- unload: a worker gives up a session that it has dropped already. If it is archived, its feeds end.
--
-- ARGV: id, wid, epoch.
-- Returns {'ok'}, {'begun'} if a turn has come meanwhile: the worker loads the session again; or {'over'} if it does not
-- have the session.
-- Twice: {'over'}.
local id, wid, epoch = ARGV[2], ARGV[3], ARGV[4]
local key = session_key(id)
if not is_owner(id, wid, epoch) then
    return { 'over' }
elseif #words(redis.call('HGET', key, 'flight')) > 0 then
    return { 'begun' }
end
redis.call('HSET', key, 'wid', '')
redis.call('SREM', ns .. 'w:' .. wid .. ':s', id)
if redis.call('HGET', key, 'archived') == '1' then
    end_feeds(id)
end
return { 'ok' }
