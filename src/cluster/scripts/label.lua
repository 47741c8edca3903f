#!lua flags=allow-oom
-- label: replaces the labels of a session.
--
-- ARGV: id, the labels.
-- Returns {'ok'}, {'missing'} or {'archived'}.
-- Twice: the second call changes nothing.
local id = ARGV[2]
local key = session_key(id)
local there, wid = settle_owner(id)
if not there then
    return { 'missing' }
elseif redis.call('HGET', key, 'archived') == '1' then
    return { 'archived' }
end
redis.call('HSET', key, 'labels', ARGV[3])
if wid ~= '' then
    wake(wid, id)
end
return { 'ok' }
