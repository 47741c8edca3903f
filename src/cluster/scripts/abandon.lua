#!lua flags=allow-oom
-- abandon: takes the sessions of a worker whose lease is gone. Every turn that it had in flight is answered as lost.
--
-- ARGV: wid, how many sessions to take at once, '1' if the worker itself gives up.
-- Returns {'alive'} if the worker has its lease, or {'ok', sessions that are left}. At 0 no key of it remains.
-- Twice: the second call takes the next sessions.
local wid, limit = ARGV[2], tonumber(ARGV[3])
local prefix = ns .. 'w:' .. wid
if ARGV[4] == '1' then
    redis.call('DEL', prefix .. ':l')
elseif lease_of(wid) then
    return { 'alive' }
end
local ids = redis.call('SRANDMEMBER', prefix .. ':s', limit)
table.sort(ids)
for _, id in ipairs(ids) do
    if redis.call('HGET', session_key(id), 'wid') == wid then
        abandon(id)
    else
        redis.call('SREM', prefix .. ':s', id)
    end
end
local left = redis.call('SCARD', prefix .. ':s')
if left == 0 then
    redis.call('UNLINK', prefix .. ':q', prefix .. ':s', prefix .. ':b')
    redis.call('SREM', ns .. 'workers', wid)
end
return { 'ok', tostring(left) }
