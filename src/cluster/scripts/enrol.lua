#!lua
-- enrol: makes a worker or a client known, with a lease and a stream.
--
-- ARGV: 'w' or 'c', its id, the lease in milliseconds, and for a worker its capacity and its limit of queued turns.
-- Returns {'ok'}, or {'taken'} if a worker has that id with other numbers, or drains.
-- Twice: the second call is {'ok'} while the first one's lease lasts.
local kind, name, ttl = ARGV[2], ARGV[3], ARGV[4]
local lease, stream = ns .. kind .. ':' .. name .. ':l', ns .. kind .. ':' .. name
local value = 'client'
if kind == 'w' then
    value, stream = ARGV[5] .. ' ' .. ARGV[6] .. ' open', stream .. ':q'
end
if not redis.call('SET', lease, value, 'NX', 'PX', ttl) then
    if redis.call('GET', lease) ~= value then
        return { 'taken' }
    end
    return { 'ok' }
end
redis.call('XADD', stream, '*', 'enrolled', name)
if kind == 'w' then
    redis.call('SADD', ns .. 'workers', name)
else
    redis.call('PEXPIRE', stream, ttl)
end
return { 'ok' }
